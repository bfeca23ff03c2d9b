#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/base/interrupt.h"
#include "potstill/base/jsonl.h"
#include "potstill/base/log.h"
#include "potstill/base/machine.h"
#include "potstill/base/rng.h"
#include "potstill/eval/scored_model.h"
#include "potstill/lm/model_package.h"
#include "potstill/stages/adapter_norms.h"
#include "potstill/stages/evaluate_stage.h"
#include "potstill/stages/other_teacher.h"
#include "potstill/stages/pipeline.h"
#include "potstill/stages/report_page.h"
#include "potstill/stages/study_calibration.h"
#include "potstill/stages/study_plan.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// What an evaluation tells of a model beside its accuracy.
constexpr const char* kNumbers[] = {"kl", "top1_agreement", "pairs_perplexity", "text_perplexity", "size_bytes"};

// What a training log tells of a run that is the same on every machine of one kind: times are not.
constexpr const char* kLogged[] = {"step",
                                   "loss",
                                   "kl",
                                   "reverse_kl",
                                   "jsd",
                                   "kl_top_k",
                                   "uld",
                                   "ce",
                                   "lr",
                                   "grad_norm",
                                   "update_rms",
                                   "delta_norm_ratio",
                                   "orthogonality_error"};

std::map<std::string, std::vector<double>> read_training_log(const fs::path& path) {
  std::map<std::string, std::vector<double>> log;
  auto rows = read_jsonl(path);
  std::erase_if(rows,
                [](const JsonlRecord& row) { return !row.value.contains("loss"); });  // measurements between steps
  for (const char* name : kLogged) {
    std::vector<double> values;
    for (const auto& row : rows) {
      if (row.value.contains(name) && row.value[name].is_number()) values.push_back(row.value[name].get<double>());
    }
    if (!values.empty() && values.size() == rows.size()) log[name] = std::move(values);
  }
  return log;
}

class StudyRunner {
 public:
  StudyRunner(const StudyOptions& options, StudyPlan plan, std::string name)
      : options_(options),
        plan_(std::move(plan)),
        name_(std::move(name)),
        studies_(options.folder.empty() ? fs::path("studies") / name_ : options.folder),
        folder_(studies_ / options.kind),
        store_(studies_ / "store") {}

  StudyResult run() {
    fs::create_directories(folder_);
    if (options_.kind == "calibration") leave_out_arms_without_pairs();
    const auto total = static_cast<int64_t>(plan_.arms.size()) * options_.seeds;
    int64_t done = 0;
    for (int64_t seed = 0; seed < options_.seeds;
         ++seed) {  // all arms of a seed before the next: a stopped study compares
      for (auto& arm : plan_.arms) {
        throw_if_interrupted();
        log_info("study {}: {} of {}: {}, seed {}", options_.kind, ++done, total, arm.name, seed);
        run_replicate(arm, seed);
      }
    }
    StudyResult result{.kind = options_.kind,
                       .name = name_,
                       .folder = folder_,
                       .seeds = options_.seeds,
                       .arms = std::move(plan_.arms),
                       .findings = {}};
    result.findings = study_findings(options_.kind, result.arms);
    return result;
  }

 private:
  Recipe recipe_of(const StudyArm& arm) const {
    std::vector<std::string> overrides = options_.overrides;
    overrides.insert(overrides.end(), arm.overrides.begin(), arm.overrides.end());
    Recipe recipe = load_recipe(options_.recipe, overrides);
    if (!arm.searches) recipe.search.reset();
    if (arm.sequences > 0) recipe.quantize.sequences = arm.sequences;
    if (!arm.teacher.empty()) recipe.top.teacher = other_teacher(arm.teacher, recipe).string();
    return recipe;
  }

  // The recipe up to a stage, as it stands: what does not depend on an arm.
  PipelineResult run_recipe(const Recipe& recipe, const char* until) const {
    return run_pipeline(recipe, {.run_dir = studies_ / "work",
                                 .from = {},
                                 .until = until,
                                 .command = options_.command,
                                 .store = store_,
                                 .preflight = false});
  }

  fs::path other_teacher(const std::string& kind, const Recipe& recipe) const {
    const fs::path teacher = recipe.resolve(recipe.top.teacher);
    const StageKey key = other_teacher_key(kind, teacher, static_cast<uint64_t>(recipe.top.seed));
    const fs::path place = store_ / fmt::format("{}-{}", key.stage, stage_key_hash(key).substr(0, 16));
    run_stage(place, key, IfExists::kReplace,
              [&](ArtifactWriter& out) { run_other_teacher_stage(kind, teacher, out); });
    return place;
  }

  fs::path pairs_of(const Recipe& recipe, const PipelineResult& run) const {
    return recipe.top.pairs.empty() ? run.stages.at("synth") / "D_gen.jsonl" : recipe.resolve(recipe.top.pairs);
  }

  void run_replicate(StudyArm& arm, int64_t seed) {
    Recipe recipe = recipe_of(arm);
    if (arm.sequences > 0) recipe.quantize.calibration = calibration_of(arm, recipe, seed).string();
    const PipelineOptions options{.run_dir = studies_ / "work",
                                  .from = {},
                                  .until = plan_.until,
                                  .command = options_.command,
                                  .store = store_,
                                  .replicate = seed,
                                  .preflight = !preflighted_};
    preflighted_ = true;
    const PipelineResult run = run_pipeline(recipe, options);
    const fs::path train = run.stages.contains("train") ? run.stages.at("train") : fs::path();
    if (!train.empty() && trained_.insert(train).second) {
      arm.training.push_back({.seed = seed, .log = read_training_log(train / "train_log.jsonl")});
    }
    // Whoever taught, models are measured against the recipe's own teacher.
    const Recipe own = arm.teacher.empty() ? recipe : load_recipe(options_.recipe, options_.overrides);
    const fs::path knowledge = (arm.teacher.empty() ? run : run_recipe(own, "teach")).stages.at("teach");
    for (const auto& label : plan_.models) {
      const auto stage = run.stages.find(stage_of_model(label));
      const fs::path path = stage != run.stages.end() ? stage->second : recipe.resolve(recipe.top.student);
      add_model(arm, label, evaluate(own, knowledge, pairs_of(own, run), path), run, recipe);
    }
  }

  // The evaluation of one model, an artifact of the store.
  fs::path evaluate(const Recipe& recipe, const fs::path& knowledge, const fs::path& pairs,
                    const fs::path& model) const {
    EvalConfig config = recipe.evaluate;
    config.data = recipe.resolve(config.data.string());
    config.text = recipe.resolve(config.text.string());
    config.latency_tokens = 0;
    const EvaluateInputs inputs{.models = {{.label = "model", .path = model}},
                                .knowledge = knowledge,
                                .pairs = pairs,
                                .dtype = recipe.top.dtype,
                                .device = recipe.top.device};
    const StageKey key = evaluate_key(inputs, config, recipe.data, static_cast<uint64_t>(recipe.top.seed));
    const fs::path place = store_ / fmt::format("evaluate-{}", stage_key_hash(key).substr(0, 16));
    run_stage(place, key, IfExists::kReplace,
              [&](ArtifactWriter& out) { run_evaluate_stage(inputs, config, recipe.data, out); });
    return place / "evaluation.json";
  }

  void add_model(StudyArm& arm, const std::string& label, const fs::path& evaluation, const PipelineResult& run,
                 const Recipe& recipe) const {
    auto found = std::ranges::find(arm.models, label, &StudyModel::label);
    if (found == arm.models.end()) found = arm.models.insert(found, {.label = label, .correct = {}, .numbers = {}});
    StudyModel& model = *found;
    const auto scored = read_scored_models(evaluation);
    for (const auto& [task, rows] : scored.front().tasks) {
      auto& values = model.correct[task].emplace_back();
      for (const auto& [hash, row] : rows) values.push_back(row.metrics.at("acc"));
    }
    const auto numbers = read_json_file(evaluation).at("models").at(0);
    for (const char* name : kNumbers) {
      if (numbers.contains(name)) model.numbers[name].push_back(numbers[name].get<double>());
    }
    if (label == "S'" && run.stages.contains("train")) {
      const fs::path student =
          run.stages.contains("prune") ? run.stages.at("prune") : recipe.resolve(recipe.top.student);
      const AdapterNorms norms = measure_adapter_norms(open_model(student), run.stages.at("train"));
      model.numbers["update's spectral norm over the weight's"].push_back(norms.mean_relative_norm);
      model.numbers["update's stable rank"].push_back(norms.mean_stable_rank);
    }
    if (label == "S''" && run.stages.contains("quantize")) add_outliers(run.stages.at("quantize"), model);
  }

  // What the linears' inputs looked like to the quantizer, and what it made of them.
  static void add_outliers(const fs::path& quantized, StudyModel& model) {
    double kurtosis = 0, peak = 0, error = 0;
    const auto rows = read_jsonl(quantized / "layer_errors.jsonl");
    for (const auto& row : rows) {
      const auto count = static_cast<double>(rows.size());
      kurtosis += row.value.value("input_kurtosis", 0.0) / count;
      peak += row.value.value("input_peak", 0.0) / count;
      error += row.value.value("relative_error", 0.0) / count;
    }
    if (kurtosis != 0) {  // rounding alone sees no inputs
      model.numbers["inputs' excess kurtosis"].push_back(kurtosis);
      model.numbers["largest channel over the median one"].push_back(peak);
    }
    model.numbers["linears' relative output error"].push_back(error);
  }

  // An arm of 256 sequences out of 200 pairs would be one of 200 under a wrong name.
  void leave_out_arms_without_pairs() {
    const Recipe recipe = load_recipe(options_.recipe, options_.overrides);
    const auto pairs = training_pairs(pairs_of(recipe, run_recipe(recipe, "synth")), recipe.data,
                                      static_cast<uint64_t>(recipe.top.seed));
    const auto left = std::erase_if(
        plan_.arms, [&](const StudyArm& arm) { return arm.sequences > static_cast<int64_t>(pairs.size()); });
    if (left > 0) log_warning("study: {} arms ask for more sequences than the {} training pairs", left, pairs.size());
    if (plan_.arms.empty()) {
      throw Error(ErrorKind::kInput, "study calibration",
                  fmt::format("{} training pairs are fewer than any arm's sequences", pairs.size()),
                  "have more pairs, or name smaller arms with --arm");
    }
  }

  // Calibration text of an arm and seed.
  fs::path calibration_of(const StudyArm& arm, const Recipe& recipe, int64_t seed) const {
    const auto own_seed = static_cast<uint64_t>(recipe.top.seed);
    const StudyText text{.source = arm.name.substr(0, arm.name.find(' ')),
                         .sequences = arm.sequences,
                         .pairs = pairs_of(recipe, run_recipe(recipe, "synth")),
                         .text = options_.text};
    const fs::path file = folder_ / "calibration" / fmt::format("{}-{}-{}.jsonl", text.source, arm.sequences, seed);
    fs::create_directories(file.parent_path());
    write_file_atomically(
        file, study_calibration(text, recipe.data, own_seed, derive_seed(own_seed, fmt::format("study/{}", seed))));
    return file;
  }

  const StudyOptions& options_;
  StudyPlan plan_;
  std::string name_;
  fs::path studies_, folder_, store_;  // of the recipe; of this study; artifacts that all of them share
  std::set<fs::path> trained_;         // artifacts whose log an arm has
  bool preflighted_ = false;
};

}  // namespace

StudyResult run_study(const StudyOptions& options) {
  const Recipe recipe = load_recipe(options.recipe, options.overrides);
  StudyResult result = StudyRunner(options, plan_study(options, recipe), recipe.top.name).run();
  const Json json = study_to_json(result);
  write_file_atomically(result.folder / "study.json", json.dump(2) + "\n");
  write_report_page(result.folder / "study.html",
                    {{"name", fmt::format("{}, study {}", result.name, result.kind)},
                     {"description", fmt::format("{} seeds, {}", result.seeds, options.command)},
                     {"machine", fmt::format("{}, {} CPUs", cpu_name(), num_cpus())},
                     {"version", POTSTILL_VERSION},
                     {"study", json}});
  return result;
}

}  // namespace potstill
