// Does the calibration text excite the model as the evaluation does? Where it does not, GPTQ was fitted to something
// else.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "potstill/lm/model_package.h"

namespace potstill {

struct CalibrationCoverage {
  struct Layer {
    int64_t layer = 0;
    double evaluation = 0;  // share of the evaluation's activations inside what calibration spans
    double held_out = 0;    // of the calibration's own second half: what a text of the same kind gets
  };
  std::vector<Layer> layers;  // the first, the middle, the last
  double tokens_seen = 0;     // share of the evaluation's tokens that calibration has at all
  int64_t calibration_tokens = 0, evaluation_tokens = 0;

  const Layer& worst() const;  // the layer whose evaluation lags most behind its held-out half
};

// Runs the model over both texts, layer by layer. A layer's inputs of the first half of the calibration sequences span
// a space: the fewest principal directions that hold 99 % of their energy. What share of the energy of other inputs
// lies in it is their coverage. Throws Error(kInput) when there are less than two calibration sequences or no
// evaluation.
CalibrationCoverage measure_coverage(const ModelPackage& model, std::span<const std::vector<TokenId>> calibration,
                                     std::span<const std::vector<TokenId>> evaluation, const std::string& dtype,
                                     const std::string& device);

// Of a run: its distilled student, the text that quantization was calibrated on, and the first `rows` rows of each task
// that it was evaluated on. Throws Error(kIo | kInput) when the run has not all of them.
CalibrationCoverage measure_coverage(const std::filesystem::path& run, int64_t rows, const std::string& dtype,
                                     const std::string& device);

// "evaluation 91.2 % against 98.4 % of calibration's own other half (layer 19); 87 % of its tokens occur in …"
std::string describe(const CalibrationCoverage& coverage);
nlohmann::ordered_json coverage_to_json(const CalibrationCoverage& coverage);

}  // namespace potstill
