// Artifact: the folder that a stage leaves, with artifact.json: what it was made from, how, and what came out.
//
// A stage works in "<folder>.partial"; the rename to <folder> is its last act, so a folder that exists is whole. A
// partial folder left by a killed run of the same work (same key) is taken up again, one of other work is thrown away.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace potstill {

// Something that a stage reads: a file, a model folder, or another stage's artifact.
struct StageInput {
  std::string name;  // "teacher", "pairs"
  std::filesystem::path path;
};

// What makes two runs of a stage the same run.
struct StageKey {
  std::string stage;              // "train"
  nlohmann::ordered_json config;  // config_to_json(config)
  std::vector<StageInput> inputs;
  uint64_t seed = 0;
};

// Content hash of a file or folder. An artifact's is the hash of its outputs, so one that was made again with the same
// bytes counts as unchanged. Of a file past 64 MiB: its size and 64 evenly spread samples of 64 KiB, first and last
// included. Throws Error(kIo) when the path does not exist.
std::string fingerprint(const std::filesystem::path& path);

class ArtifactWriter {
 public:
  // Opens or takes up "<folder>.partial".
  ArtifactWriter(const std::filesystem::path& folder, const StageKey& key);
  // Anything thrown before commit() leaves the partial folder for the next try.
  ~ArtifactWriter() = default;
  ArtifactWriter(const ArtifactWriter&) = delete;
  ArtifactWriter& operator=(const ArtifactWriter&) = delete;

  const std::filesystem::path& folder() const { return partial_; }  // where to write
  std::filesystem::path file(std::string_view name) const { return partial_ / name; }
  bool resumed() const { return resumed_; }  // the partial folder held work of an earlier try
  uint64_t seed() const { return seed_; }

  // A number or object of the result: artifact.json, "results". Must be the same for the same seed.
  void record(std::string_view name, nlohmann::json value);
  // What differs from run to run (seconds, tokens/s, memory): artifact.json, "measured".
  void measure(std::string_view name, nlohmann::json value);
  // A file whose bytes differ from run to run (a log with times): not part of the fingerprint.
  void mark_volatile(std::string_view file_name);
  // Working files (journals, checkpoints) below the partial folder's "work/" are deleted by commit().
  std::filesystem::path work_file(std::string_view name) const;

  // Writes artifact.json, syncs, renames. An older artifact under the final name is replaced.
  void commit();

 private:
  std::filesystem::path final_, partial_;
  nlohmann::ordered_json manifest_;
  std::vector<std::string> volatile_files_;
  std::chrono::steady_clock::time_point start_;
  uint64_t seed_ = 0;
  bool resumed_ = false;
};

struct Artifact {
  std::filesystem::path path;
  nlohmann::json manifest;

  // Throws Error(kIo | kFormat) when the folder has no readable artifact.json.
  static Artifact open(const std::filesystem::path& path);
  const nlohmann::json& results() const { return manifest.at("results"); }
};

// The key that a partial folder ("<folder>.partial") is work for; empty when it says nothing.
std::string partial_key(const std::filesystem::path& partial);

// Hash of the key's stage, config, seed, tool version and the fingerprints of its inputs.
std::string stage_key_hash(const StageKey& key);

enum class IfExists {
  kRemake,   // as kReplace, and an artifact of this very work is made again too
  kReplace,  // the pipeline: an artifact of other work is made again
  kRefuse,   // a command with --out: an artifact or folder of other work is an error that names --force
};

// Skips when `folder` already holds this very work (and says so); else runs `work` and commits.
Artifact run_stage(const std::filesystem::path& folder, const StageKey& key, IfExists if_exists,
                   const std::function<void(ArtifactWriter&)>& work);

}  // namespace potstill
