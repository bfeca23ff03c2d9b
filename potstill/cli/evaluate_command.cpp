#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/cli/command.h"
#include "potstill/eval/few_shot.h"
#include "potstill/eval/python_text.h"
#include "potstill/lm/http_client.h"
#include "potstill/recipe/eval_task_file.h"
#include "potstill/stages/evaluate_stage.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

struct EvaluateOptions {
  std::vector<std::string> models;
  fs::path base;
  std::string endpoint_model;
  fs::path knowledge, pairs, output;
  bool log_samples = false;
  EvalConfig config;
  DistillDataConfig data;
};

// PATH, or LABEL=PATH. A "=" inside an address is not a label's.
EvaluatedModel parse_model(const std::string& text, const EvaluateOptions& options) {
  EvaluatedModel model{.label = {}, .path = text};
  const size_t equals = text.find('=');
  if (equals != std::string::npos && !is_endpoint(text) && !fs::exists(text)) {
    model.label = text.substr(0, equals);
    model.path = text.substr(equals + 1);
  } else if (is_endpoint(text)) {
    model.label = options.endpoint_model;
  } else {
    const fs::path path = fs::path(text).lexically_normal();
    model.label = (path.has_filename() ? path : path.parent_path()).filename().string();
  }
  if (is_endpoint(model.path.string())) model.endpoint_model = options.endpoint_model;
  if (is_adapter_folder(model.path)) model.base = options.base;
  return model;
}

EvaluateInputs inputs_of(const EvaluateOptions& options, const GlobalOptions& global) {
  EvaluateInputs inputs{.models = {},
                        .knowledge = options.knowledge,
                        .pairs = options.pairs,
                        .dtype = global.dtype,
                        .device = global.device};
  for (const auto& model : options.models) inputs.models.push_back(parse_model(model, options));
  const auto adapter = [](const EvaluatedModel& model) { return is_adapter_folder(model.path); };
  if (!options.base.empty() && std::ranges::none_of(inputs.models, adapter)) {
    throw Error(ErrorKind::kUsage, "--base", "no --model is a PEFT adapter folder", "one holds adapter_config.json");
  }
  if (options.knowledge.empty() != options.pairs.empty()) {
    throw Error(ErrorKind::kUsage, "evaluate", "--teacher and --pairs are given together or not at all",
                "--teacher is the knowledge cache that `potstill teach` made of --pairs");
  }
  const auto& config = options.config;
  if (config.tasks.empty() && config.text.empty() && options.knowledge.empty() && config.latency_tokens == 0) {
    throw Error(ErrorKind::kUsage, "evaluate", "there is nothing to measure",
                "give --tasks arc_easy --data DIR, --text FILE, or --teacher CACHE --pairs FILE");
  }
  const auto needs_data = [](const std::string& task) { return !is_eval_task_file(task); };
  if (std::ranges::any_of(config.tasks, needs_data) && config.data.empty()) {
    throw Error(ErrorKind::kUsage, "evaluate", "--tasks needs --data", "the folder that holds <task>/<split>.jsonl");
  }
  return inputs;
}

// One model: the harness's own layout, what else was measured beside it. Several: {"models": […]}.
nlohmann::ordered_json layout(const nlohmann::ordered_json& models, const EvaluateOptions& options,
                              const GlobalOptions& global) {
  nlohmann::ordered_json json;
  if (models.size() > 1) {
    json["models"] = models;
    return json;
  }
  const auto& model = models.front();
  if (model.contains("harness")) json = model["harness"];
  json["config"] = {{"model", "potstill"},
                    {"model_args", fmt::format("path={},dtype={}", model["path"].get<std::string>(), global.dtype)},
                    {"model_dtype", global.dtype}};
  if (model.contains("parameters")) json["config"]["model_num_parameters"] = model["parameters"];
  json["config"]["limit"] = options.config.limit > 0 ? nlohmann::ordered_json(options.config.limit) : nullptr;
  json["config"]["fewshot_seed"] = FewShotSampler::kSeed;
  if (!options.config.split.empty()) json["config"]["split"] = options.config.split;
  json["config"]["apply_chat_template"] = options.config.apply_chat_template;
  json["fewshot_as_multiturn"] = options.config.fewshot_as_multiturn;
  json["model_source"] = "potstill";
  json["model_name"] = model["path"];
  json["potstill_version"] = POTSTILL_VERSION;
  json["date"] = std::time(nullptr);
  json["total_evaluation_time_seconds"] = fmt::format("{:.3f}", model["seconds"].get<double>());
  for (const auto& [key, value] : model.items()) {
    if (key == "samples") json["samples"] = value;
    if (key != "harness" && key != "tasks" && key != "seconds" && key != "samples") json["measured"][key] = value;
  }
  return json;
}

struct OutputFiles {
  fs::path results, work;  // empty without --output
  fs::path samples;        // folder; empty without --log-samples
  std::string suffix;      // of the samples' names
};

// --output FILE.json, or a folder, which gets the harness's own names: <model>/results_<date>.json.
OutputFiles output_files(const EvaluateOptions& options, const EvaluateInputs& inputs, const std::string& key) {
  OutputFiles files;
  if (options.output.empty()) {
    if (options.log_samples) files.samples = ".";
    return files;
  }
  files.work = options.output.string() + "." + key.substr(0, 12) + ".partial";
  if (options.output.extension() == ".json") {
    files.results = options.output;
    files.suffix = options.output.stem().string();
    if (files.suffix.starts_with("results_")) files.suffix.erase(0, 8);
  } else {
    std::string model = inputs.models.size() == 1 ? inputs.models[0].path.string() : "models";
    model = replace_all(model, "/", "__");  // as the harness names its folders
    files.suffix = fmt::format("{:%Y-%m-%dT%H-%M-%S}", fmt::gmtime(std::time(nullptr)));
    files.results = options.output / model / fmt::format("results_{}.json", files.suffix);
  }
  if (options.log_samples) files.samples = fs::absolute(files.results).parent_path();
  return files;
}

void run(const EvaluateOptions& options, const GlobalOptions& global) {
  const EvaluateInputs inputs = inputs_of(options, global);
  check_config(options.config, "evaluate");
  // What is done is kept beside --output until the file is whole, under a name that says what it was done on.
  const auto key = stage_key_hash(evaluate_key(inputs, options.config, options.data, global.seed));
  const OutputFiles files = output_files(options, inputs, key);
  if (!files.work.empty()) fs::create_directories(files.work);
  const auto models =
      evaluate_models(inputs, options.config, options.data, global.seed, files.work, files.samples, files.suffix);
  const auto json = layout(models, options, global);
  if (!files.results.empty()) {
    if (files.results.has_parent_path()) fs::create_directories(files.results.parent_path());
    write_file_atomically(files.results,
                          json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
    fs::remove_all(files.work);
  }
  print_result(global, json, evaluation_table(models));
}

}  // namespace

void add_evaluate_command(CLI::App& app, GlobalOptions& global) {
  auto [command, options] = new_command<EvaluateOptions>(
      app, "evaluate", "Benchmarks as lm-evaluation-harness scores them, perplexity, closeness to the teacher");
  command
      ->add_option(
          "--model", options->models,
          "Hugging Face folder (compressed-tensors and GPTQ too), GGUF, PEFT adapter folder, or the address of "
          "an endpoint whose /completions has echo and logprobs (http://…/v1); again for more models, "
          "NAME=PATH to name it")
      ->required();
  command->add_option("--base", options->base, "base model of an adapter; empty = the one that its config names");
  command->add_option("--endpoint-model", options->endpoint_model,
                      "the model's name at the endpoint; a key comes from POTSTILL_TEACHER_API_KEY");
  options->config.latency_tokens = 0;  // only when it is asked for
  add_config_flags(*command, options->config);
  command->get_option("--tasks")->delimiter(',');
  command->add_option("--teacher", options->knowledge,
                      "knowledge cache of `potstill teach`: measures KL and agreement");
  command->add_option("--pairs", options->pairs, "the pairs that the cache was made of");
  add_config_flags(*command, options->data);
  command->add_option("--output", options->output, "FILE.json, or a folder: results in lm-evaluation-harness's layout");
  command->add_flag("--log-samples", options->log_samples,
                    "samples_<task>_….jsonl beside --output: every row's scores, for `potstill compare`");
  command->callback([options = options, &global] { run(*options, global); });
}

}  // namespace potstill
