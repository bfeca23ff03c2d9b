#include "potstill/stages/evaluate_stage.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <memory>
#include <optional>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/base/interrupt.h"
#include "potstill/base/jsonl.h"
#include "potstill/base/log.h"
#include "potstill/base/machine.h"
#include "potstill/distill/agreement.h"
#include "potstill/distill/knowledge.h"
#include "potstill/eval/results_json.h"
#include "potstill/lm/http_client.h"
#include "potstill/nn/perplexity.h"
#include "potstill/stages/eval_tasks.h"
#include "potstill/stages/text_table.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// What every model is compared with.
struct Reference {
  fs::path knowledge;  // a cache; empty: no comparison
  fs::path pairs;
  DistillDataConfig data;
  uint64_t seed;
  at::ScalarType dtype;
  at::Device device;
};

void add_agreement(const OpenedModel& opened, const Reference& reference, Json& entry) {
  const ModelPackage& package = opened.package();
  const DistillData data =
      load_distill_data(reference.pairs, *package.tokenizer, package.chat_template, reference.data, reference.seed);
  const auto teacher =
      open_knowledge(reference.knowledge, package, data, reference.data, reference.dtype, reference.device);
  if (data.held_out.empty()) {
    throw Error(ErrorKind::kInput, reference.pairs.string(), "holds out no pair to measure on",
                "set held_out above 0, and have more pairs");
  }
  const Transformer model = opened.transformer(reference.dtype, reference.device);
  const Agreement agreement = measure_agreement(model, *teacher, data, data.held_out);
  entry[std::string(quantity_name(agreement.quantity))] = agreement.kl;
  entry["knowledge"] = knowledge_summary(read_json_file(reference.knowledge / "knowledge.json"), agreement.quantity);
  entry["top1_agreement"] = agreement.top1;
  entry["pairs_perplexity"] = std::exp(agreement.ce);
  entry["teacher_pairs_perplexity"] = std::exp(agreement.teacher_ce);
  entry["held_out_pairs"] = data.held_out.size();
  entry["held_out_tokens"] = agreement.tokens;
}

// Milliseconds of a generated token, one request alone: the time that a longer answer takes beyond a short one, so that
// reading the prompt does not count. Nothing when the model ends its answer at once.
std::optional<double> token_latency(LanguageModel& model, int64_t tokens) {
  constexpr int64_t kShort = 4;
  constexpr const char* kPrompt = "The sun is a star. It is made of hot gas, and it gives light to the planets. The";
  const auto timed = [&](int64_t count) {
    const std::vector<GenerateRequest> requests{
        {.messages = {}, .prompt = kPrompt, .answer_prefix = {}, .max_new_tokens = count, .stop = {}, .sampling = {}}};
    const auto start = Clock::now();
    const auto results = model.generate(requests);
    return std::pair(seconds_since(start), static_cast<int64_t>(results.front().tokens.size()));
  };
  timed(kShort);  // first use: pages, caches, threads
  const auto [short_s, short_count] = timed(kShort);
  const auto [long_s, long_count] = timed(kShort + tokens);
  if (long_count <= short_count) return std::nullopt;
  return 1000.0 * (long_s - short_s) / static_cast<double>(long_count - short_count);
}

std::string file_label(std::string label) {
  for (auto& c : label) {
    const bool plain = std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '-' || c == '\'';
    c = plain ? c : '_';
  }
  return label;
}

// Returns {task: name of its file}, which goes into the results, so that `potstill compare` finds the rows.
Json write_samples(const BenchmarkResults& results, const fs::path& folder, const std::string& label) {
  fs::create_directories(folder);
  Json names = Json::object();
  for (const auto& task : results.tasks) {
    const std::string name = fmt::format("samples_{}{}.jsonl", task.name, label.empty() ? "" : "_" + label);
    AtomicFile file(folder / name);
    for (const auto& row : task.rows) {
      file.write(sample_to_json(task, row).dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
    }
    file.commit();
    names[task.name] = name;
  }
  return names;
}

void add_benchmarks(LanguageModel& model, const ChatTemplate* chat_template, int64_t rows_at_a_time,
                    const EvalConfig& config, const fs::path& journal, const fs::path& samples,
                    const std::string& label, Json& entry) {
  const auto results = run_benchmarks(model, config,
                                      {.journal = journal,
                                       .chat_template = chat_template,
                                       .rows_at_a_time = rows_at_a_time,
                                       .tasks = eval_tasks(config.tasks, config.split)});
  entry["harness"] = results_to_json(results);
  entry["tasks"] = entry["harness"]["results"];
  if (!samples.empty()) entry["samples"] = write_samples(results, samples, label);
}

void add_text_perplexity(const OpenedModel& opened, const EvaluateInputs& inputs, const EvalConfig& config,
                         Json& entry) {
  const PerplexityOptions options{
      .limit_tokens = config.text_tokens, .dtype = inputs.dtype, .device = inputs.device, .progress = {}};
  const std::string text = read_file(config.text);
  const auto device = compute_device(inputs.device);
  entry["text_perplexity"] =
      opened.has_adapter()
          ? measure_perplexity(opened.transformer(compute_dtype(inputs.dtype, device), device),
                               opened.package().tokenizer->encode(text), options, opened.package().path.string())
                .perplexity
          : measure_perplexity(opened.package(), text, options).perplexity;
}

void refuse_of_endpoint(const EvaluatedModel& model, const EvaluateInputs& inputs, const EvalConfig& config) {
  const char* what = !inputs.knowledge.empty()    ? "closeness to a teacher"
                     : !config.text.empty()       ? "perplexity of a text"
                     : config.apply_chat_template ? "a chat template"
                     : config.latency_tokens > 0  ? "the time of a token"
                                                  : nullptr;
  if (what == nullptr) return;
  throw Error(ErrorKind::kUsage, model.path.string(), fmt::format("is an endpoint, for which {} is not measured", what),
              "benchmarks (--tasks) are what an endpoint can be scored on");
}

Json evaluate_model(const EvaluatedModel& model, const Reference& reference, const EvaluateInputs& inputs,
                    const EvalConfig& config, const fs::path& journal, const fs::path& samples,
                    const std::string& samples_label) {
  const auto start = Clock::now();
  reset_peak_rss();
  OpenedModel opened(model, inputs.dtype, inputs.device);
  Json entry = {{"label", model.label}, {"path", model.path.string()}, {"format", opened.format()}};
  if (opened.is_endpoint()) {
    refuse_of_endpoint(model, inputs, config);
    entry["endpoint_model"] = model.endpoint_model;
  } else {
    entry["parameters"] = num_parameters(opened.package().config);
    entry["size_bytes"] = opened.weights_bytes();
  }
  if (opened.has_adapter()) entry["base"] = opened.package().path.string();
  if (!reference.knowledge.empty()) add_agreement(opened, reference, entry);
  if (!config.text.empty()) add_text_perplexity(opened, inputs, config, entry);
  if (config.latency_tokens > 0) {
    // A GGUF is what the small machine runs: its time is that of the edge runtime.
    const bool on_edge = config.engine == "edge" || opened.format() == "gguf";
    const auto latency =
        token_latency(opened.language_model(on_edge ? "edge" : "torch", config.layer_major), config.latency_tokens);
    if (latency) entry["ms_per_token"] = *latency;
  }
  if (!config.tasks.empty()) {
    entry["engine"] = opened.is_endpoint() ? "endpoint" : config.engine;
    LanguageModel& scored = opened.language_model(config.engine, config.layer_major);
    const ChatTemplate* chat_template = opened.is_endpoint() ? nullptr : &opened.package().chat_template;
    add_benchmarks(scored, chat_template, opened.rows_at_a_time(), config, journal, samples, samples_label, entry);
  }
  entry["peak_memory_bytes"] = peak_rss_bytes();
  entry["seconds"] = seconds_since(start);
  return entry;
}

bool is_measured_time(const std::string& key) {
  return key == "seconds" || key == "ms_per_token" || key == "peak_memory_bytes";
}

}  // namespace

StageKey evaluate_key(const EvaluateInputs& inputs, const EvalConfig& config, const DistillDataConfig& data,
                      uint64_t seed) {
  StageKey key{.stage = "evaluate", .config = config_to_json(config), .inputs = {}, .seed = seed};
  key.config["data_config"] = config_to_json(data);
  key.config["dtype"] = inputs.dtype;
  key.config["labels"] = Json::array();
  for (const auto& model : inputs.models) {
    key.config["labels"].push_back(model.label);
    if (is_endpoint(model.path.string())) {
      key.config["endpoint: " + model.label] = {model.path.string(), model.endpoint_model};
      continue;
    }
    key.inputs.push_back({"model: " + model.label, model.path});
    if (is_adapter_folder(model.path)) key.inputs.push_back({"base: " + model.label, base_of(model)});
  }
  if (!inputs.knowledge.empty()) {
    key.inputs.push_back({"knowledge", inputs.knowledge});
    key.inputs.push_back({"pairs", inputs.pairs});
  }
  if (!config.text.empty()) key.inputs.push_back({"text", config.text});
  for (const auto& task : eval_tasks(config.tasks, config.split)) {
    key.inputs.push_back({"rows: " + task.name, task.rows_path(config.data)});
    if (config.num_fewshot > 0) key.inputs.push_back({"few-shot rows: " + task.name, task.fewshot_path(config.data)});
  }
  return key;
}

Json evaluate_models(const EvaluateInputs& inputs, const EvalConfig& config, const DistillDataConfig& data,
                     uint64_t seed, const fs::path& work, const fs::path& samples, const std::string& samples_suffix) {
  check_config(config, "evaluate");
  const auto device = compute_device(inputs.device);
  Reference reference{.knowledge = inputs.knowledge,
                      .pairs = inputs.pairs,
                      .data = data,
                      .seed = seed,
                      .dtype = compute_dtype(inputs.dtype, device),
                      .device = device};
  Json models = Json::array();
  for (size_t i = 0; i < inputs.models.size(); ++i) {
    throw_if_interrupted();
    const auto& model = inputs.models[i];
    const fs::path done = work.empty() ? fs::path() : work / fmt::format("model-{}.json", i);
    if (!done.empty() && fs::exists(done)) {
      models.push_back(Json::parse(read_file(done)));
      continue;
    }
    log_info("evaluate: {} ({})", model.label, model.path.string());
    const fs::path journal = work.empty() ? fs::path() : work / fmt::format("scores-{}.jsonl", i);
    std::string samples_label = samples_suffix;
    if (inputs.models.size() > 1) samples_label += (samples_label.empty() ? "" : "_") + file_label(model.label);
    Json entry = evaluate_model(model, reference, inputs, config, journal, samples, samples_label);
    if (!done.empty()) write_file_atomically(done, entry.dump());
    models.push_back(std::move(entry));
  }
  return models;
}

void run_evaluate_stage(const EvaluateInputs& inputs, const EvalConfig& config, const DistillDataConfig& data,
                        ArtifactWriter& out) {
  const Json models =
      evaluate_models(inputs, config, data, out.seed(), out.work_file("").parent_path(), /*samples=*/out.folder());
  Json evaluation;
  evaluation["models"] = models;
  write_file_atomically(out.file("evaluation.json"), evaluation.dump(2) + "\n");
  out.mark_volatile("evaluation.json");  // it holds times
  Json results = Json::array(), times = Json::array();
  for (const auto& model : models) {
    Json numbers = Json::object(), measured = {{"label", model["label"]}};
    for (const auto& [key, value] : model.items()) {
      if (key == "harness" || key == "path" || key == "samples") continue;
      (is_measured_time(key) ? measured : numbers)[key] = value;
    }
    results.push_back(numbers);
    times.push_back(measured);
  }
  uint64_t peak = 0;
  for (const auto& model : models) peak = std::max(peak, model.value("peak_memory_bytes", uint64_t{0}));
  out.record("models", results);
  out.measure("models", times);
  out.measure("peak_rss_bytes", peak);
}

std::string evaluation_table(const Json& models) {
  std::vector<std::string> tasks;
  for (const auto& model : models) {
    if (!model.contains("tasks")) continue;
    for (const auto& item : model["tasks"].items()) {
      if (std::ranges::find(tasks, item.key()) == tasks.end()) tasks.push_back(item.key());
    }
  }
  // One teacher, so one quantity.
  std::string kl_key = "kl", kl_title = "KL";
  for (const Quantity quantity : {Quantity::kTopKKl, Quantity::kUld}) {
    const std::string name(quantity_name(quantity));
    if (std::ranges::none_of(models, [&](const Json& model) { return model.contains(name); })) continue;
    kl_key = name;
    kl_title = quantity_title(quantity);
  }
  std::vector<std::vector<std::string>> rows{
      {"model", "size", kl_title, "top-1", "ppl (pairs)", "ppl (text)", "ms/token"}};
  for (const auto& task : tasks) {
    rows[0].push_back(task + " acc");
    rows[0].push_back(task + " acc_norm");
  }
  const auto number = [](const Json& model, const char* key, const char* format, double scale) {
    return model.contains(key) ? fmt::format(fmt::runtime(format), scale * model[key].get<double>()) : std::string();
  };
  for (const auto& model : models) {
    rows.push_back({model["label"].get<std::string>(),
                    model.contains("size_bytes") ? format_bytes(model["size_bytes"].get<uint64_t>()) : std::string(),
                    number(model, kl_key.c_str(), "{:.4f}", 1), number(model, "top1_agreement", "{:.1f} %", 100),
                    number(model, "pairs_perplexity", "{:.3f}", 1), number(model, "text_perplexity", "{:.2f}", 1),
                    number(model, "ms_per_token", "{:.1f}", 1)});
    for (const auto& task : tasks) {
      for (const char* metric : {"acc", "acc_norm"}) {
        const Json result = model.contains("tasks") ? model["tasks"].value(task, Json::object()) : Json::object();
        const std::string key = fmt::format("{},none", metric), error = fmt::format("{}_stderr,none", metric);
        std::string cell = number(result, key.c_str(), "{:.1f} %", 100);
        if (result.contains(error) && result[error].is_number())
          cell += number(result, error.c_str(), " ± {:.1f}", 100);
        rows.back().push_back(cell);
      }
    }
  }
  return text_table(rows);
}

}  // namespace potstill
