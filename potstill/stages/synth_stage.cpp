#include "potstill/stages/synth_stage.h"

#include <fmt/format.h>

#include <chrono>
#include <cstdlib>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/base/log.h"
#include "potstill/lm/model_package.h"
#include "potstill/lm/openai_model.h"
#include "potstill/nn/torch_model.h"
#include "potstill/recipe/task_file.h"
#include "potstill/synth/answer_store.h"
#include "potstill/synth/self_instruct.h"

namespace potstill {
namespace {

void write_records(const std::filesystem::path& path, const std::vector<Candidate>& candidates, const Task& task,
                   std::string_view teacher) {
  AtomicFile file(path);
  for (const auto& candidate : candidates) {
    // Not to_json_line: records keep the order of their fields, Alpaca's three first.
    file.write(to_record(candidate, task, teacher).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    file.write("\n");
  }
  file.commit();
}

int64_t count_heldout(const std::vector<Candidate>& candidates) {
  int64_t count = 0;
  for (const auto& candidate : candidates) count += candidate.heldout;
  return count;
}

// The key comes out of the environment alone, and goes nowhere but to the endpoint.
OpenAiOptions endpoint_options(const std::string& url, const SynthConfig& config) {
  const char* key = std::getenv("POTSTILL_TEACHER_API_KEY");
  OpenAiOptions options;
  options.http.url = url;
  options.http.key = key != nullptr ? key : "";
  options.http.concurrency = static_cast<int>(config.concurrency);
  options.model = config.teacher_model;
  options.budget_tokens = config.budget_tokens;
  options.budget_cost = config.budget_cost;
  options.prompt_price = config.prompt_price;
  options.answer_price = config.answer_price;
  return options;
}

std::string usage_text(const OpenAiModel& teacher) {
  const TeacherUsage& usage = teacher.usage();
  return fmt::format("{}: {} answers, {} tokens read, {} written, cost {:.4f}; {} tries were repeated", teacher.name(),
                     usage.requests, usage.prompt_tokens, usage.answer_tokens, usage.cost, teacher.num_retries());
}

void ask_endpoint(const Task& task, const SynthInputs& inputs, const SynthConfig& config,
                  const std::filesystem::path& journal, ArtifactWriter& out) {
  const std::string url = inputs.teacher.string();
  OpenAiModel teacher(endpoint_options(url, config));
  try {
    // The address and the name stand for the weights: an endpoint does not show them.
    synthesize(task, config, teacher, fmt::format("{} {}", url, config.teacher_model), journal, out);
  } catch (const Error&) {
    log_info("{}", usage_text(teacher));
    throw;
  }
  const TeacherUsage& usage = teacher.usage();
  out.measure("teacher_usage", {{"answers", usage.requests},
                                {"prompt_tokens", usage.prompt_tokens},
                                {"answer_tokens", usage.answer_tokens},
                                {"cost", usage.cost},
                                {"repeated_tries", teacher.num_retries()}});
  log_info("{}", usage_text(teacher));
}

}  // namespace

std::filesystem::path synth_journal(const std::filesystem::path& folder) {
  const auto normal = (folder / "").parent_path();  // without a trailing '/'
  return normal.string() + ".raw.jsonl";
}

StageKey synth_key(const SynthInputs& inputs, const SynthConfig& config, uint64_t seed) {
  StageKey key{.stage = "synth",
               .config = config_to_json(config),
               .inputs = {{"task", inputs.task}, {"teacher", inputs.teacher}},
               .seed = seed};
  key.config["dtype"] = inputs.dtype;
  if (is_endpoint(inputs.teacher.string())) {
    key.inputs.pop_back();
    key.config["teacher"] = inputs.teacher.string();
  }
  // What the pairs do not depend on.
  for (const char* name : {"concurrency", "budget_tokens", "budget_cost", "prompt_price", "answer_price"}) {
    key.config.erase(name);
  }
  return key;
}

void run_synth_stage(const SynthInputs& inputs, const SynthConfig& config, const std::filesystem::path& journal,
                     ArtifactWriter& out) {
  const Task task = read_task(inputs.task);  // before the weights: a slip in it shows at once
  if (is_endpoint(inputs.teacher.string())) return ask_endpoint(task, inputs, config, journal, out);
  const ModelPackage package = open_model(inputs.teacher);
  const auto teacher =
      make_torch_model(package, {.dtype = inputs.dtype, .device = inputs.device, .num_slots = config.batch});
  synthesize(task, config, *teacher, fmt::format("{} {}", teacher->name(), fingerprint(inputs.teacher)), journal, out);
}

void synthesize(const Task& task, const SynthConfig& config, LanguageModel& teacher, const std::string& identity,
                const std::filesystem::path& journal, ArtifactWriter& out) {
  const auto start = std::chrono::steady_clock::now();
  AnswerStore store(teacher, journal, config.batch, identity);
  const SynthOutcome outcome = self_instruct(task, config, out.seed(), store);
  write_records(out.file("rejected.jsonl"), outcome.rejected, task, teacher.name());
  require_enough_pairs(task, config, outcome);
  write_records(out.file("D_gen.jsonl"), outcome.accepted, task, teacher.name());
  store.write_used(out.file("raw.jsonl"));

  const int64_t heldout = count_heldout(outcome.accepted);
  out.record("pairs", outcome.accepted.size());
  out.record("train_pairs", static_cast<int64_t>(outcome.accepted.size()) - heldout);
  out.record("heldout_pairs", heldout);
  out.record("subtopics", outcome.num_subtopics);
  out.record("rounds", outcome.rounds);
  out.record("yield", outcome.yield());
  out.record("teacher", teacher.name());
  out.record("generated_tokens", store.generated_tokens());
  out.record("prompt_tokens", store.prompt_tokens());
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  out.measure("asked", store.num_asked());
  out.measure("reused", store.num_reused());
  out.measure("synth_seconds", seconds);
  log_info("{} pairs ({} held out) out of {} candidates; {} answers asked, {} found on the disk, {}\n{}",
           outcome.accepted.size(), heldout, outcome.accepted.size() + outcome.rejected.size(), store.num_asked(),
           store.num_reused(), format_duration(seconds), outcome.yield_table());
}

}  // namespace potstill
