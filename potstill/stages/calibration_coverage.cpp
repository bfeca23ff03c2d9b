#include "potstill/stages/calibration_coverage.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>
#include <tuple>

#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"
#include "potstill/eval/questions.h"
#include "potstill/nn/layer_stream.h"
#include "potstill/quant/calibration.h"
#include "potstill/stages/eval_tasks.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

constexpr double kEnergy = 0.99;  // of calibration's first half, that its principal directions are to hold

// Σ x xᵀ over the rows of batches, [D, D] in double: all that coverage needs of a text.
at::Tensor second_moment(const CorpusState& corpus, const DecoderLayer& layer, const ModelConfig& config) {
  at::Tensor sum = at::zeros({config.hidden_size, config.hidden_size}, at::kDouble);
  for (const at::Tensor& hidden : corpus.hidden) {
    const at::Tensor x = rms_norm(hidden, layer.input_layernorm, config.rms_norm_eps).to(at::kCPU, at::kDouble);
    sum += at::matmul(x.t(), x);
  }
  return sum;
}

// The fewest eigenvectors of `moment` that hold kEnergy of its trace, [D, k].
at::Tensor principal_directions(const at::Tensor& moment) {
  const auto [values, vectors] = at::linalg_eigh(moment);  // rising
  const double total = values.sum().item<double>();
  const double* value = values.const_data_ptr<double>();
  int64_t first = values.size(0);
  for (double held = 0; first > 0 && held < kEnergy * total;) held += value[--first];
  return vectors.narrow(1, first, values.size(0) - first);
}

double share_inside(const at::Tensor& directions, const at::Tensor& moment) {
  const double inside = (directions * at::matmul(moment, directions)).sum().item<double>();
  return inside / moment.trace().item<double>();
}

}  // namespace

const CalibrationCoverage::Layer& CalibrationCoverage::worst() const {
  return *std::ranges::min_element(layers, {}, [](const Layer& l) { return l.evaluation - l.held_out; });
}

CalibrationCoverage measure_coverage(const ModelPackage& model, std::span<const std::vector<TokenId>> calibration,
                                     std::span<const std::vector<TokenId>> evaluation, const std::string& dtype,
                                     const std::string& device) {
  const at::NoGradGuard no_grad;
  if (calibration.size() < 2 || evaluation.empty()) {
    throw Error(ErrorKind::kInput, model.path.string(), "coverage needs two calibration sequences and an evaluation");
  }
  CalibrationCoverage result;
  std::set<TokenId> seen;
  for (const auto& sequence : calibration) {
    seen.insert(sequence.begin(), sequence.end());
    result.calibration_tokens += static_cast<int64_t>(sequence.size());
  }
  int64_t known = 0;
  for (const auto& sequence : evaluation) {
    result.evaluation_tokens += static_cast<int64_t>(sequence.size());
    known += std::ranges::count_if(sequence, [&](TokenId id) { return seen.contains(id); });
  }
  result.tokens_seen = static_cast<double>(known) / static_cast<double>(result.evaluation_tokens);

  LayerStreamOptions options;
  options.device = compute_device(device);
  options.dtype = compute_dtype(dtype, options.device);
  const size_t half = (calibration.size() + 1) / 2;
  std::array<CorpusState, 3> texts = {embed_corpus(model, calibration.first(half), options),
                                      embed_corpus(model, calibration.subspan(half), options),
                                      embed_corpus(model, evaluation, options)};
  const int64_t layers = model.config.num_hidden_layers;
  for (int64_t layer = 0; layer < layers; ++layer) {
    const bool looks = layer == 0 || layer == layers / 2 || layer == layers - 1;
    if (looks) {
      const DecoderLayer weights = load_decoder_layer(model, layer, options.dtype, options.device);
      const at::Tensor directions = principal_directions(second_moment(texts[0], weights, model.config));
      result.layers.push_back({.layer = layer,
                               .evaluation = share_inside(directions, second_moment(texts[2], weights, model.config)),
                               .held_out = share_inside(directions, second_moment(texts[1], weights, model.config))});
    }
    for (CorpusState& text : texts) run_layers(model, text, options, layer, layer + 1);
  }
  return result;
}

CalibrationCoverage measure_coverage(const fs::path& run, int64_t rows, const std::string& dtype,
                                     const std::string& device) {
  const auto quantize = read_json_file(run / "quantize" / "artifact.json");
  const auto evaluate = read_json_file(run / "evaluate" / "artifact.json");
  const ModelPackage model = open_model(run / "merge");
  const auto& inputs = quantize.at("inputs");
  if (!inputs.contains("calibration")) {
    throw Error(ErrorKind::kInput, (run / "quantize").string(), "was rounded without calibration text");
  }
  const auto& settings = quantize.at("config");
  const auto weights = settings.value("calibration_weights", std::vector<double>{1.0});
  std::vector<CalibrationSource> sources;
  for (size_t i = 0; i < weights.size(); ++i) {
    const std::string name = i == 0 ? "calibration" : fmt::format("calibration-{}", i + 1);
    sources.push_back({.path = inputs.at(name).at("path").get<std::string>(),
                       .weight = weights[i],
                       .plain = settings.value("rendering", "") == "plain"});
  }
  const auto calibration =
      load_calibration(sources, model, settings.at("sequences").get<int64_t>(),
                       settings.at("sequence_length").get<int64_t>(), quantize.at("seed").get<uint64_t>());
  EvalConfig config;
  config.tasks = evaluate.at("config").at("tasks").get<std::vector<std::string>>();
  config.data = evaluate.at("config").at("data").get<std::string>();
  config.limit = rows;
  std::vector<std::vector<TokenId>> asked;
  for (const auto& task : eval_tasks(config.tasks, evaluate.at("config").value("split", ""))) {
    for (const auto& part : ask_questions(task, config, nullptr)) {
      for (const auto& row : part.rows) {
        asked.push_back(model.tokenizer->encode(row.question.contexts.front() + row.question.delimiter +
                                                row.question.continuations.front()));
      }
    }
  }
  return measure_coverage(model, calibration.sequences, asked, dtype, device);
}

std::string describe(const CalibrationCoverage& coverage) {
  const auto& worst = coverage.worst();
  return fmt::format(
      "calibration spans {:.1f} % of the evaluation's activations in layer {}, where it lags most ({:.1f} % of its own "
      "other half); {:.1f} % of the evaluation's tokens occur in it ({} tokens calibrated, {} evaluated)",
      100 * worst.evaluation, worst.layer, 100 * worst.held_out, 100 * coverage.tokens_seen,
      coverage.calibration_tokens, coverage.evaluation_tokens);
}

nlohmann::ordered_json coverage_to_json(const CalibrationCoverage& coverage) {
  nlohmann::ordered_json layers = nlohmann::ordered_json::array();
  for (const auto& layer : coverage.layers) {
    layers.push_back({{"layer", layer.layer}, {"evaluation", layer.evaluation}, {"held_out", layer.held_out}});
  }
  return {{"layers", layers},
          {"tokens_seen", coverage.tokens_seen},
          {"calibration_tokens", coverage.calibration_tokens},
          {"evaluation_tokens", coverage.evaluation_tokens}};
}

}  // namespace potstill
