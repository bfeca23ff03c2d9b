// Answers to a file of prompts, timed; bench/generate/compare.py runs it beside transformers.generate.
//   generate_bench --model MODEL --requests REQUESTS.jsonl --engine torch --dtype bf16 --slots 16
// A request is {"prompt": "…", "max_new_tokens": 96, "stop": ["\n"]}; decoding is greedy. Prints one JSON line.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>

#include "potstill/base/jsonl.h"
#include "potstill/edge/batch_model.h"
#include "potstill/lm/model_package.h"
#include "potstill/nn/torch_model.h"

int main(int argc, char** argv) {
  std::string model_path, requests_path, engine = "torch", dtype = "auto";
  int slots = 16;
  CLI::App app("Answers to a file of prompts, timed");
  app.add_option("--model", model_path)->required();
  app.add_option("--requests", requests_path)->required();
  app.add_option("--engine", engine, "torch or edge");
  app.add_option("--dtype", dtype, "fp32 or bf16, of torch");
  app.add_option("--slots", slots, "answers written at a time");
  CLI11_PARSE(app, argc, argv);

  std::vector<potstill::GenerateRequest> requests;
  for (const auto& record : potstill::read_jsonl(requests_path)) {
    potstill::GenerateRequest request;
    request.prompt = record.value.at("prompt").get<std::string>();
    request.max_new_tokens = record.value.at("max_new_tokens").get<int64_t>();
    request.stop = record.value.value("stop", std::vector<std::string>());
    requests.push_back(std::move(request));
  }
  std::unique_ptr<potstill::LanguageModel> model;
  const auto package = potstill::open_model(model_path);
  if (engine == "edge") {
    potstill::edge::EdgeOptions options;
    options.context = 2048;
    model = std::make_unique<potstill::edge::BatchModel>(model_path, options, slots);
  } else {
    model = potstill::make_torch_model(package, {.dtype = dtype, .num_slots = slots});
  }
  model->generate(std::span(requests).first(std::min<size_t>(requests.size(), 2)));  // touches the weights
  const auto start = std::chrono::steady_clock::now();
  const auto results = model->generate(requests);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  int64_t written = 0, read = 0;
  nlohmann::json texts = nlohmann::json::array();
  for (const auto& result : results) {
    written += static_cast<int64_t>(result.tokens.size());
    read += result.prompt_tokens;
    texts.push_back(result.text);
  }
  fmt::print("{}\n", nlohmann::json{{"who", fmt::format("potstill {} {}", engine, engine == "edge" ? "" : dtype)},
                                    {"tokens", written},
                                    {"prompt_tokens", read},
                                    {"seconds", seconds},
                                    {"texts", texts}}
                         .dump());
  return 0;
}
