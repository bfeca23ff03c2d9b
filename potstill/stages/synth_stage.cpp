#include "potstill/stages/synth_stage.h"

#include <fmt/format.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/base/log.h"
#include "potstill/lm/http_client.h"
#include "potstill/recipe/task_file.h"
#include "potstill/stages/benchmark_items.h"
#include "potstill/stages/data_teacher.h"
#include "potstill/synth/answer_store.h"
#include "potstill/synth/documents.h"
#include "potstill/synth/self_instruct.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;
using Record = std::function<nlohmann::ordered_json(const Candidate&)>;

void write_records(const fs::path& path, const std::vector<Candidate>& candidates, const Record& record) {
  AtomicFile file(path);
  for (const auto& candidate : candidates) {
    // Not to_json_line: records keep the order of their fields, Alpaca's three first.
    file.write(record(candidate).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    file.write("\n");
  }
  file.commit();
}

int64_t count_heldout(const std::vector<Candidate>& candidates) {
  int64_t count = 0;
  for (const auto& candidate : candidates) count += candidate.heldout;
  return count;
}

fs::path critic_journal(const fs::path& journal) {
  std::string path = journal.string();
  constexpr std::string_view kEnd = ".raw.jsonl";
  if (path.ends_with(kEnd)) path.resize(path.size() - kEnd.size());
  return path + ".critic.jsonl";
}

// What each kind of work cost; prices are for a million tokens.
nlohmann::ordered_json work_of(const AnswerStore& store, const SynthConfig& config) {
  nlohmann::ordered_json table = nlohmann::ordered_json::object();
  for (const auto& [what, work] : store.work()) {
    if (work.answers == 0) continue;
    const double cost = 1e-6 * (config.prompt_price * static_cast<double>(work.prompt_tokens) +
                                config.answer_price * static_cast<double>(work.written_tokens));
    table[what] = {
        {"answers", work.answers}, {"prompt_tokens", work.prompt_tokens}, {"written_tokens", work.written_tokens}};
    if (cost > 0) table[what]["cost"] = cost;
  }
  return table;
}

std::string work_table(const nlohmann::ordered_json& work) {
  std::string table =
      fmt::format("  {:<20}{:>9}{:>14}{:>14}{:>12}\n", "work", "answers", "tokens read", "written", "cost");
  for (const auto& [what, row] : work.items()) {
    table += fmt::format("  {:<20}{:>9}{:>14}{:>14}{:>12}\n", what, row["answers"].get<int64_t>(),
                         row["prompt_tokens"].get<int64_t>(), row["written_tokens"].get<int64_t>(),
                         row.contains("cost") ? fmt::format("{:.4f}", row["cost"].get<double>()) : "");
  }
  table.pop_back();
  return table;
}

void record_results(const SynthOutcome& outcome, const AnswerStore& store, const AnswerStore* critic,
                    const SynthConfig& config, const SynthModels& models, ArtifactWriter& out) {
  const int64_t heldout = count_heldout(outcome.accepted);
  out.record("pairs", outcome.accepted.size());
  out.record("train_pairs", static_cast<int64_t>(outcome.accepted.size()) - heldout);
  out.record("heldout_pairs", heldout);
  out.record("subtopics", outcome.num_subtopics);
  out.record("rounds", outcome.rounds);
  out.record("yield", outcome.yield());
  out.record("balance", outcome.balance());
  out.record("teacher", models.teacher.name());
  if (models.critic != nullptr) out.record("critic", models.critic->name());
  out.record("benchmark_rows_checked", models.benchmarks == nullptr ? 0 : models.benchmarks->size());
  out.record("generated_tokens", store.generated_tokens());
  out.record("prompt_tokens", store.prompt_tokens());
  out.record("work", work_of(store, config));
  if (critic != nullptr) out.record("critic_work", work_of(*critic, config));
}

void log_usage(const DataTeacher& teacher) {
  if (teacher.endpoint == nullptr) return;
  const TeacherUsage& usage = teacher.endpoint->usage();
  log_info("{}: {} answers, {} tokens read, {} written, cost {:.4f}; {} tries were repeated", teacher.model->name(),
           usage.requests, usage.prompt_tokens, usage.answer_tokens, usage.cost, teacher.endpoint->num_retries());
}

void measure_usage(const DataTeacher& teacher, const char* name, ArtifactWriter& out) {
  if (teacher.endpoint == nullptr) return;
  const TeacherUsage& usage = teacher.endpoint->usage();
  out.measure(name, {{"answers", usage.requests},
                     {"prompt_tokens", usage.prompt_tokens},
                     {"answer_tokens", usage.answer_tokens},
                     {"cost", usage.cost},
                     {"repeated_tries", teacher.endpoint->num_retries()}});
}

}  // namespace

fs::path synth_journal(const fs::path& folder) {
  const auto normal = (folder / "").parent_path();  // without a trailing '/'
  return normal.string() + ".raw.jsonl";
}

StageKey synth_key(const SynthInputs& inputs, const SynthConfig& config, uint64_t seed) {
  StageKey key{.stage = "synth", .config = config_to_json(config), .inputs = {{"task", inputs.task}}, .seed = seed};
  key.config["dtype"] = inputs.dtype;
  // A file or folder counts by what it holds, an endpoint by its address.
  const auto add = [&](const char* name, const std::string& path) {
    key.config.erase(name);
    if (path.empty()) return;
    if (is_endpoint(path)) {
      key.config[name] = path;
    } else {
      key.inputs.push_back({name, path});
    }
  };
  add("teacher", inputs.teacher.string());
  add("critic", config.critic);
  add("seeds", config.seeds);
  add("documents", config.documents);
  add("decontaminate", decontamination_folder(config.decontaminate).string());
  // What the pairs do not depend on.
  for (const char* name : {"concurrency", "budget_tokens", "budget_cost", "prompt_price", "answer_price"}) {
    key.config.erase(name);
  }
  return key;
}

void run_synth_stage(const SynthInputs& inputs, const SynthConfig& config, const fs::path& journal,
                     ArtifactWriter& out) {
  // Before the weights: a slip in a file shows at once.
  Task task = read_task(inputs.task, config, out.seed());
  if (!config.documents.empty()) task.subtopics = read_documents(config.documents, config.passage_words);
  std::optional<ContaminationIndex> benchmarks;
  if (const fs::path rows = decontamination_folder(config.decontaminate); !rows.empty()) {
    benchmarks = read_benchmark_items(rows);
    log_info("no pair may match one of {} benchmark rows in {}", benchmarks->size(), rows.string());
  } else {
    log_info("no benchmark rows are compared: {}",
             config.decontaminate == "auto"
                 ? "there are none in .deps/benchmarks (make benchmarks, or --decontaminate DIR)"
                 : "--decontaminate none");
  }
  const DataTeacher teacher = open_data_teacher({.path_or_url = inputs.teacher.string(),
                                                 .model = config.teacher_model,
                                                 .dtype = inputs.dtype,
                                                 .device = inputs.device},
                                                config);
  std::optional<DataTeacher> critic;
  if (!config.critic.empty()) {
    critic = open_data_teacher({.path_or_url = config.critic,
                                .model = config.critic_model,
                                .key_variable = "POTSTILL_CRITIC_API_KEY",
                                .dtype = inputs.dtype,
                                .device = inputs.device},
                               config);
  }
  const SynthModels models{.teacher = *teacher.model,
                           .identity = teacher.identity(),
                           .revision = teacher.revision,
                           .critic = critic ? critic->model.get() : nullptr,
                           .critic_identity = critic ? critic->identity() : "",
                           .critic_revision = critic ? critic->revision : "",
                           .benchmarks = benchmarks ? &*benchmarks : nullptr};
  try {
    synthesize(task, config, models, journal, out);
  } catch (const Error&) {
    log_usage(teacher);
    throw;
  }
  measure_usage(teacher, "teacher_usage", out);
  if (critic) measure_usage(*critic, "critic_usage", out);
  log_usage(teacher);
}

void synthesize(const Task& task, const SynthConfig& config, const SynthModels& models, const fs::path& journal,
                ArtifactWriter& out) {
  const auto start = std::chrono::steady_clock::now();
  AnswerStore store(models.teacher, journal, config.batch, models.identity);
  std::unique_ptr<AnswerStore> critic;
  Lineage lineage{.teacher = models.teacher.name(),
                  .teacher_revision = models.revision,
                  .critic = {},
                  .critic_revision = models.critic_revision,
                  .places = {}};
  if (models.critic != nullptr) {
    lineage.critic = models.critic->name();
    critic =
        std::make_unique<AnswerStore>(*models.critic, critic_journal(journal), config.batch, models.critic_identity);
  }
  const SynthHelpers helpers{.teacher = store, .critic = critic.get(), .benchmarks = models.benchmarks};
  const SynthOutcome outcome = self_instruct(task, config, out.seed(), helpers);
  store.add_places("raw.jsonl", lineage.places);
  if (critic) critic->add_places("critic.jsonl", lineage.places);

  const Record record = [&](const Candidate& candidate) { return to_record(candidate, task, lineage); };
  write_records(out.file("rejected.jsonl"), outcome.rejected, record);
  require_enough_pairs(task, config, outcome);
  write_records(out.file("D_gen.jsonl"), outcome.accepted, record);
  write_records(out.file("messages.jsonl"), outcome.accepted,
                [&](const Candidate& candidate) { return to_messages(candidate, task); });
  std::vector<Candidate> contaminated;
  for (const auto& candidate : outcome.rejected) {
    if (candidate.refusal->rule == "contaminated") contaminated.push_back(candidate);
  }
  if (models.benchmarks != nullptr) write_records(out.file("contaminated.jsonl"), contaminated, record);
  store.write_used(out.file("raw.jsonl"));
  if (critic) critic->write_used(out.file("critic.jsonl"));

  record_results(outcome, store, critic.get(), config, models, out);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const int64_t asked = store.num_asked() + (critic ? critic->num_asked() : 0);
  const int64_t reused = store.num_reused() + (critic ? critic->num_reused() : 0);
  out.measure("asked", asked);
  out.measure("reused", reused);
  out.measure("synth_seconds", seconds);
  log_info("{} pairs ({} held out) out of {} candidates; {} answers asked, {} found on the disk, {}\n{}\n{}",
           outcome.accepted.size(), count_heldout(outcome.accepted), outcome.accepted.size() + outcome.rejected.size(),
           asked, reused, format_duration(seconds), outcome.yield_table(), work_table(work_of(store, config)));
}

}  // namespace potstill
