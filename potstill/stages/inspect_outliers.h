// The outliers of a model's activations and weights, of one model or of two side by side: what `potstill inspect
// --activations` shows.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "potstill/lm/model_package.h"

namespace potstill {

struct InspectOutliersInputs {
  std::filesystem::path text;     // plain text or .jsonl, as calibration takes it; empty: weights alone
  bool plain = false;             // pairs in it without the chat template
  std::filesystem::path compare;  // a second model, read on the same text
  int64_t tokens = 8192;          // of the text
  int64_t sequence_length = 512;
  uint64_t seed = 0;
  std::string dtype = "auto", device = "auto";
};

// Of one model: {"activations": […], "weights": […], "path": …}; `calibration` gets what is told of the text.
nlohmann::ordered_json model_outliers(const ModelPackage& model, const InspectOutliersInputs& inputs,
                                      nlohmann::ordered_json& calibration);

// {"text": …, "models": [{"path": …, "activations": […], "weights": […]}]}; one model, or two.
nlohmann::ordered_json inspect_outliers(const ModelPackage& model, const InspectOutliersInputs& inputs);

// A table of each layer's tensors, the second model's numbers beside the first's.
std::string outliers_text(const nlohmann::ordered_json& outliers);

// The same as one HTML file with plots, which opens offline.
void write_outliers_page(const std::filesystem::path& file, const nlohmann::ordered_json& outliers);

}  // namespace potstill
