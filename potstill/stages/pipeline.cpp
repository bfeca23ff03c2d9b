#include "potstill/stages/pipeline.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <functional>
#include <optional>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/base/interrupt.h"
#include "potstill/base/log.h"
#include "potstill/base/rng.h"
#include "potstill/distill/records.h"
#include "potstill/lm/http_client.h"
#include "potstill/recipe/task_file.h"
#include "potstill/stages/evaluate_stage.h"
#include "potstill/stages/export_stage.h"
#include "potstill/stages/merge_stage.h"
#include "potstill/stages/outliers_stage.h"
#include "potstill/stages/preflight.h"
#include "potstill/stages/prune_stage.h"
#include "potstill/stages/quantize_stage.h"
#include "potstill/stages/report_stage.h"
#include "potstill/stages/search_stage.h"
#include "potstill/stages/synth_stage.h"
#include "potstill/stages/teach_stage.h"
#include "potstill/stages/train_stage.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

class Pipeline {
 public:
  Pipeline(const Recipe& recipe, const PipelineOptions& options)
      : recipe_(recipe),
        options_(options),
        run_dir_(options.run_dir.empty() ? fs::path("runs") / recipe.top.name : options.run_dir) {}

  PipelineResult run();

 private:
  struct Step {
    std::string_view name;
    void (Pipeline::*run)();
  };
  friend std::vector<std::string_view> potstill::pipeline_stages();

  void prune();
  void synth();
  void teach();
  void search();
  void train();
  void merge();
  void quantize();
  void baseline_rtn();
  void baseline_gptq();
  void export_gguf();
  void evaluate();
  void outliers();
  void report();

  // THE MAIN PATH.
  static constexpr std::array<Step, 13> kSteps{{
      {"prune", &Pipeline::prune},                  // the student S1, a child of a bigger model (where the recipe asks)
      {"synth", &Pipeline::synth},                  // T1 writes D_gen (unless the recipe brings its own pairs)
      {"teach", &Pipeline::teach},                  // T2's distributions on D_gen, once, for every training run
      {"search", &Pipeline::search},                // the training settings (where the recipe asks)
      {"train", &Pipeline::train},                  // S1 + LoRA
      {"merge", &Pipeline::merge},                  // S'
      {"quantize", &Pipeline::quantize},            // S'', W4A16
      {"baseline-rtn", &Pipeline::baseline_rtn},    // S1 rounded to 4 bits: what the method is measured against
      {"baseline-gptq", &Pipeline::baseline_gptq},  // S1 by GPTQ alone
      {"export", &Pipeline::export_gguf},           // the file for the small machine
      {"evaluate", &Pipeline::evaluate},            // all of them side by side
      {"outliers", &Pipeline::outliers},            // of S1, S' and S''
      {"report", &Pipeline::report},
  }};

  // Where a stage's artifact is: in the run's folder, or once it was made there, in the store.
  fs::path folder(std::string_view stage) const {
    const auto stored = stages_.find(std::string(stage));
    return stored != stages_.end() ? stored->second : run_dir_ / stage;
  }
  fs::path student() const { return recipe_.prune ? folder("prune") : recipe_.resolve(recipe_.top.student); }
  fs::path teacher() const {
    return is_endpoint(recipe_.top.teacher) ? fs::path(recipe_.top.teacher) : recipe_.resolve(recipe_.top.teacher);
  }
  fs::path pairs() const {
    return recipe_.top.pairs.empty() ? folder("synth") / "D_gen.jsonl" : recipe_.resolve(recipe_.top.pairs);
  }
  uint64_t seed() const { return static_cast<uint64_t>(recipe_.top.seed); }
  // The seed of training and of what is made of it.
  uint64_t training_seed() const {
    return options_.replicate == 0 ? seed() : derive_seed(seed(), fmt::format("replicate/{}", options_.replicate));
  }
  void make(std::string_view stage, const StageKey& key, const std::function<void(ArtifactWriter&)>& work);
  const std::vector<int64_t>& measured_lines();
  void quantize_into(std::string_view stage, const fs::path& model, const std::string& method);
  void check_stage_name(const std::string& name, const char* flag) const;
  void write_plan(const std::vector<StageEstimate>& estimates) const;

  const Recipe& recipe_;
  const PipelineOptions& options_;
  fs::path run_dir_;
  IfExists if_exists_ = IfExists::kReplace;
  std::map<std::string, fs::path> stages_;  // made or found so far
  std::optional<std::vector<int64_t>> measured_lines_;
  // DistillConfig of the final training: [train], with what the search found.
  DistillConfig train_settings() const;
  SearchConfig search_config() const;
};

void Pipeline::make(std::string_view stage, const StageKey& key, const std::function<void(ArtifactWriter&)>& work) {
  fs::path place = run_dir_ / stage;
  if (!options_.store.empty()) {
    place = options_.store / fmt::format("{}-{}", key.stage, stage_key_hash(key).substr(0, 16));
  }
  run_stage(place, key, if_exists_, work);
  stages_[std::string(stage)] = place;
}

void Pipeline::prune() {
  if (!recipe_.prune) return;
  PruneConfig config = *recipe_.prune;
  config.text = recipe_.resolve(config.text.string());
  const PruneInputs inputs{
      .model = recipe_.resolve(recipe_.top.student), .dtype = recipe_.top.dtype, .device = recipe_.top.device};
  make("prune", prune_key(inputs, config, seed()), [&](ArtifactWriter& out) { run_prune_stage(inputs, config, out); });
}

void Pipeline::synth() {
  if (!recipe_.top.pairs.empty()) return;
  SynthConfig config = recipe_.synth;
  for (auto* path : {&config.seeds, &config.documents, &config.decontaminate}) *path = recipe_.resolve(*path).string();
  if (!config.critic.empty() && !is_endpoint(config.critic)) config.critic = recipe_.resolve(config.critic).string();
  const SynthInputs inputs{.task = find_task(recipe_.top.task, recipe_.file.parent_path(), config),
                           .teacher = is_endpoint(recipe_.top.data_teacher) ? fs::path(recipe_.top.data_teacher)
                                                                            : recipe_.resolve(recipe_.top.data_teacher),
                           .dtype = recipe_.top.dtype,
                           .device = recipe_.top.device};
  make("synth", synth_key(inputs, config, seed()),
       [&](ArtifactWriter& out) { run_synth_stage(inputs, config, synth_journal(folder("synth")), out); });
}

void Pipeline::teach() {
  const TeachInputs inputs{
      .teacher = teacher(), .data = pairs(), .dtype = recipe_.top.dtype, .device = recipe_.top.device};
  TeachConfig config = recipe_.teach;
  config.tokenizer = config.tokenizer.empty() ? student().string() : recipe_.resolve(config.tokenizer).string();
  make("teach", teach_key(inputs, config, recipe_.data, seed()),
       [&](ArtifactWriter& out) { run_teach_stage(inputs, config, recipe_.data, out); });
}

void Pipeline::search() {
  if (!recipe_.search) return;
  const SearchConfig config = search_config();
  const SearchInputs inputs{.student = student(),
                            .knowledge = folder("teach"),
                            .pairs = pairs(),
                            .dtype = recipe_.top.dtype,
                            .device = recipe_.top.device};
  make("search", search_key(inputs, config, recipe_.train, recipe_.data, recipe_.quantize, seed()),
       [&](ArtifactWriter& out) {
         run_search_stage(inputs, config, recipe_.train, recipe_.data, recipe_.quantize, out);
       });
}

// [search], its files where the recipe means them.
SearchConfig Pipeline::search_config() const {
  SearchConfig config = *recipe_.search;
  config.accuracy_data = recipe_.resolve(config.accuracy_data.string());
  for (auto& file : config.first) file = recipe_.resolve(file).string();
  for (auto& task : config.accuracy_tasks) task = recipe_.resolve(task).string();
  return config;
}

DistillConfig Pipeline::train_settings() const {
  return recipe_.search ? best_settings(Artifact::open(folder("search")), recipe_.train) : recipe_.train;
}

void Pipeline::train() {
  TrainInputs inputs{.student = student(),
                     .teacher = folder("teach"),
                     .data = pairs(),
                     .dtype = recipe_.top.dtype,
                     .device = recipe_.top.device,
                     .data_seed = {}};
  if (training_seed() != seed()) inputs.data_seed = seed();
  const DistillConfig settings = train_settings();
  make("train", train_key(inputs, settings, recipe_.data, training_seed()),
       [&](ArtifactWriter& out) { run_train_stage(inputs, settings, recipe_.data, out); });
}

void Pipeline::merge() {
  const MergeInputs inputs{.model = student(), .adapter = folder("train"), .dtype = recipe_.merge.dtype};
  make("merge", merge_key(inputs), [&](ArtifactWriter& out) { run_merge_stage(inputs, out); });
}

// The lines of the pairs that training holds out, read once for all the models that are quantized.
const std::vector<int64_t>& Pipeline::measured_lines() {
  if (!measured_lines_) {
    const ModelPackage package = open_model(student());
    measured_lines_ =
        held_out_lines(load_distill_data(pairs(), *package.tokenizer, package.chat_template, recipe_.data, seed()));
  }
  return *measured_lines_;
}

void Pipeline::quantize_into(std::string_view stage, const fs::path& model, const std::string& method) {
  QuantizeConfig config = recipe_.quantize;
  config.method = method;
  const auto source = [&](const std::string& name) { return name == "synth" ? pairs() : recipe_.resolve(name); };
  const std::string& text = config.calibration.empty() ? std::string("synth") : config.calibration;
  QuantizeInputs inputs{.model = model, .calibration = parse_calibration(text, source)};
  for (auto& each : inputs.calibration) {
    each.plain = recipe_.data.rendering == "plain";
    if (each.path == pairs()) each.left_out = measured_lines();
  }
  make(stage, quantize_key(inputs, config, training_seed()),
       [&](ArtifactWriter& out) { run_quantize_stage(inputs, config, out); });
}

void Pipeline::quantize() { quantize_into("quantize", folder("merge"), recipe_.quantize.method); }
void Pipeline::baseline_rtn() { quantize_into("baseline-rtn", student(), "rtn"); }
void Pipeline::baseline_gptq() { quantize_into("baseline-gptq", student(), "gptq"); }

void Pipeline::export_gguf() {
  const StageKey key{.stage = "export",
                     .config = config_to_json(recipe_.export_),
                     .inputs = {{"model", folder("quantize")}},
                     .seed = seed()};
  make("export", key, [&](ArtifactWriter& out) { run_export_stage(folder("quantize"), recipe_.export_, out); });
}

void Pipeline::evaluate() {
  EvalConfig config = recipe_.evaluate;
  config.data = recipe_.resolve(config.data.string());
  config.text = recipe_.resolve(config.text.string());
  EvaluateInputs inputs{.models = {{"S1", student()},
                                   {"S1 + RTN", folder("baseline-rtn")},
                                   {"S1 + GPTQ", folder("baseline-gptq")},
                                   {"S' (distilled)", folder("merge")},
                                   {"S'' (distilled, 4 bits)", folder("quantize")},
                                   {"S'' as GGUF, edge", folder("export") / "model.gguf"}},
                        .knowledge = folder("teach"),
                        .pairs = pairs(),
                        .dtype = recipe_.top.dtype,
                        .device = recipe_.top.device};
  make("evaluate", evaluate_key(inputs, config, recipe_.data, seed()),
       [&](ArtifactWriter& out) { run_evaluate_stage(inputs, config, recipe_.data, out); });
}

void Pipeline::outliers() {
  const OutliersInputs inputs{.models = {{"S1", student()},
                                         {"S' (distilled)", folder("merge")},
                                         {"S'' (distilled, 4 bits)", folder("quantize")}},
                              .text = pairs(),
                              .plain = recipe_.data.rendering == "plain",
                              .device = recipe_.top.device};
  make("outliers", outliers_key(inputs, seed()), [&](ArtifactWriter& out) { run_outliers_stage(inputs, out); });
}

void Pipeline::report() {
  std::vector<StageInput> inputs;
  for (const auto& step : kSteps) {
    if (fs::exists(folder(step.name) / "artifact.json") && step.name != "report") {
      inputs.push_back({std::string(step.name), folder(step.name)});
    }
  }
  make("report", {.stage = "report", .config = {{"name", recipe_.top.name}}, .inputs = inputs, .seed = seed()},
       [&](ArtifactWriter& out) {
         run_report_stage({.name = recipe_.top.name,
                           .description = recipe_.top.description,
                           .command = options_.command,
                           .run_dir = run_dir_},
                          out);
       });
}

void Pipeline::check_stage_name(const std::string& name, const char* flag) const {
  const auto names = pipeline_stages();
  if (name.empty() || std::ranges::find(names, name) != names.end()) return;
  const std::string near = nearest_name(name, names);
  throw Error(
      ErrorKind::kUsage, flag, fmt::format("there is no stage '{}'", name),
      near.empty() ? fmt::format("stages: {}", fmt::join(names, ", ")) : fmt::format("did you mean '{}'?", near));
}

// plan.json: what was thought beforehand, which the report sets beside what was measured. A later call for the same
// work leaves it: the times are those of the machine when the work began.
void Pipeline::write_plan(const std::vector<StageEstimate>& estimates) const {
  const fs::path file = run_dir_ / "plan.json";
  nlohmann::ordered_json plan = nlohmann::ordered_json::array();
  for (const auto& row : estimates) {
    plan.push_back({{"stage", row.stage}, {"memory_bytes", row.memory_bytes}, {"disk_bytes", row.disk_bytes}});
  }
  if (fs::exists(file)) {
    auto earlier = nlohmann::ordered_json::parse(read_file(file), nullptr, /*allow_exceptions=*/false);
    for (auto& row : earlier) {
      if (row.is_object()) row.erase("seconds");
    }
    if (earlier == plan) return;
  }
  for (size_t i = 0; i < estimates.size(); ++i) plan[i]["seconds"] = estimates[i].seconds;
  fs::create_directories(run_dir_);
  write_file_atomically(file, plan.dump(2) + "\n");
}

PipelineResult Pipeline::run() {
  check_stage_name(options_.from, "--from");
  check_stage_name(options_.until, "--until");
  if (options_.preflight) write_plan(preflight(recipe_, run_dir_));
  fs::create_directories(run_dir_);
  bool before_from = !options_.from.empty();
  int number = 0;
  for (const auto& step : kSteps) {
    ++number;
    throw_if_interrupted();
    if (step.name == options_.from) {
      before_from = false;
      if_exists_ = IfExists::kRemake;
    }
    log_info("[{}/{}] {}", number, kSteps.size(), step.name);
    if (!before_from) (this->*step.run)();
    if (step.name == options_.until) break;
  }
  PipelineResult result{
      .run_dir = run_dir_, .gguf = {}, .report = {}, .evaluation = nlohmann::ordered_json::object(), .stages = stages_};
  if (fs::exists(folder("export") / "model.gguf")) result.gguf = folder("export") / "model.gguf";
  if (fs::exists(folder("report") / "report.html")) result.report = folder("report") / "report.html";
  if (fs::exists(folder("evaluate") / "evaluation.json")) {
    result.evaluation = nlohmann::ordered_json::parse(read_file(folder("evaluate") / "evaluation.json"));
  }
  return result;
}

}  // namespace

std::vector<std::string_view> pipeline_stages() {
  std::vector<std::string_view> names;
  for (const auto& step : Pipeline::kSteps) names.push_back(step.name);
  return names;
}

PipelineResult run_pipeline(const Recipe& recipe, const PipelineOptions& options) {
  return Pipeline(recipe, options).run();
}

}  // namespace potstill
