#include "potstill/stages/artifact.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <system_error>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"
#include "potstill/base/log.h"
#include "potstill/base/machine.h"
#include "potstill/base/mapped_file.h"
#include "potstill/base/sha256.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kWholeFileLimit = 64 << 20;
constexpr uint64_t kSampleBytes = 64 << 10;
constexpr uint64_t kNumSamples = 64;
constexpr int kSchemaVersion = 1;

std::string fingerprint_file(const fs::path& path) {
  const MappedFile file(path);
  const std::string_view bytes(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  if (bytes.size() <= kWholeFileLimit) return sha256_hex(bytes);
  std::string samples = fmt::format("{}\n", bytes.size());
  for (uint64_t i = 0; i < kNumSamples; ++i) {
    const uint64_t begin = (bytes.size() - kSampleBytes) / (kNumSamples - 1) * i;
    samples += bytes.substr(i + 1 == kNumSamples ? bytes.size() - kSampleBytes : begin, kSampleBytes);
  }
  return sha256_hex(samples);
}

// Relative path -> hash of every regular file that is part of a folder's content.
std::map<std::string, std::string> content_hashes(const fs::path& folder, const std::vector<std::string>& left_out) {
  std::map<std::string, std::string> hashes;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    const std::string name = entry.path().lexically_relative(folder).generic_string();
    if (name.starts_with("work/")) continue;
    if (std::ranges::find(left_out, name) == left_out.end()) hashes[name] = fingerprint_file(entry.path());
  }
  return hashes;
}

std::string hash_of(const std::map<std::string, std::string>& hashes) {
  std::string listing;
  for (const auto& [name, hash] : hashes) listing += fmt::format("{} {}\n", hash, name);
  return sha256_hex(listing);
}

}  // namespace

std::string partial_key(const fs::path& partial) {
  std::ifstream stream(partial / "work" / "key");
  std::string key;
  std::getline(stream, key);
  return key;
}

std::string fingerprint(const fs::path& path) {
  if (!fs::exists(path)) throw Error(ErrorKind::kIo, path.string(), "does not exist", "check the path");
  if (!fs::is_directory(path)) return fingerprint_file(path);
  if (fs::exists(path / "artifact.json")) {
    const auto manifest = read_json_file(path / "artifact.json");
    if (manifest.contains("outputs_sha256")) return manifest["outputs_sha256"].get<std::string>();
  }
  return hash_of(content_hashes(path, {}));
}

std::string stage_key_hash(const StageKey& key) {
  nlohmann::ordered_json content = {{"schema", kSchemaVersion}, {"version", POTSTILL_VERSION},
                                    {"stage", key.stage},       {"config", key.config},
                                    {"seed", key.seed},         {"inputs", nlohmann::json::array()}};
  for (const auto& input : key.inputs) content["inputs"].push_back({input.name, fingerprint(input.path)});
  return sha256_hex(to_json_line(content));
}

ArtifactWriter::ArtifactWriter(const fs::path& folder, const StageKey& key)
    : final_(folder),
      partial_(folder.string() + ".partial"),
      start_(std::chrono::steady_clock::now()),
      seed_(key.seed) {
  reset_peak_rss();  // of this stage, not of those before it in one process
  const std::string hash = stage_key_hash(key);
  std::error_code error;
  if (fs::exists(partial_)) {
    resumed_ = partial_key(partial_) == hash;
    if (!resumed_) fs::remove_all(partial_, error);
  }
  if (!resumed_) {
    fs::create_directories(partial_ / "work", error);
    if (error) {
      throw Error(ErrorKind::kIo, partial_.string(), fmt::format("cannot be made: {}", error.message()),
                  "choose a folder that can be written to");
    }
    write_file_atomically(partial_ / "work" / "key", hash + "\n");
  }
  manifest_ = {{"schema", kSchemaVersion},
               {"stage", key.stage},
               {"key", hash},
               {"version", POTSTILL_VERSION},
               {"seed", key.seed},
               {"config", key.config},
               {"inputs", nlohmann::ordered_json::object()},
               {"results", nlohmann::ordered_json::object()},
               {"measured", nlohmann::ordered_json::object()}};
  for (const auto& input : key.inputs) {
    manifest_["inputs"][input.name] = {{"path", input.path.string()}, {"sha256", fingerprint(input.path)}};
  }
}

void ArtifactWriter::record(std::string_view name, nlohmann::json value) {
  manifest_["results"][std::string(name)] = std::move(value);
}

void ArtifactWriter::measure(std::string_view name, nlohmann::json value) {
  manifest_["measured"][std::string(name)] = std::move(value);
}

void ArtifactWriter::mark_volatile(std::string_view file_name) { volatile_files_.emplace_back(file_name); }

fs::path ArtifactWriter::work_file(std::string_view name) const { return partial_ / "work" / name; }

void ArtifactWriter::commit() {
  measure("seconds", std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count());
  // A stage that counts its parts by themselves has noted the largest.
  measure("peak_rss_bytes", std::max(manifest_["measured"].value("peak_rss_bytes", uint64_t{0}), peak_rss_bytes()));
  measure("resumed", resumed_);
  // The results are part of what a later stage may depend on, so they are hashed with the files.
  std::vector<std::string> left_out = volatile_files_;
  left_out.emplace_back("artifact.json");
  auto hashes = content_hashes(partial_, left_out);
  manifest_["outputs"] = hashes;
  hashes["results"] = sha256_hex(to_json_line(manifest_["results"]));
  manifest_["outputs_sha256"] = hash_of(hashes);
  manifest_["volatile_files"] = volatile_files_;
  write_file_atomically(partial_ / "artifact.json", manifest_.dump(2) + "\n");
  // rename() does not replace a folder that holds files: the old one steps aside first. work/, which says whose work
  // this is, goes last: killed anywhere before, the next run takes the partial folder up and comes here again.
  const fs::path old = final_.string() + ".old";
  fs::remove_all(old);
  if (fs::exists(final_)) fs::rename(final_, old);
  fs::rename(partial_, final_);
  sync_directory(final_.parent_path());
  fs::remove_all(old);
  fs::remove_all(final_ / "work");
}

Artifact Artifact::open(const fs::path& path) {
  return {.path = path, .manifest = read_json_file(path / "artifact.json")};
}

Artifact run_stage(const fs::path& folder, const StageKey& key, IfExists if_exists,
                   const std::function<void(ArtifactWriter&)>& work) {
  if (fs::exists(folder)) {
    const bool ours = fs::exists(folder / "artifact.json");
    if (ours) {
      const Artifact found = Artifact::open(folder);
      if (if_exists != IfExists::kRemake && found.manifest.value("key", "") == stage_key_hash(key)) {
        fs::remove_all(folder / "work");  // left when the run was killed right after its rename
        log_info("{}: already done, kept as it is ({})", key.stage, folder.string());
        return found;
      }
    }
    if (if_exists == IfExists::kRefuse && (!fs::is_directory(folder) || !fs::is_empty(folder))) {
      throw Error(ErrorKind::kUsage, folder.string(),
                  ours ? "holds the result of other settings or inputs" : "exists and is not a result of this command",
                  "choose another --out, or replace it with --force");
    }
  }
  ArtifactWriter out(folder, key);
  if (out.resumed()) log_info("{}: going on where it stopped ({})", key.stage, out.folder().string());
  work(out);
  out.commit();
  return Artifact::open(folder);
}

}  // namespace potstill
