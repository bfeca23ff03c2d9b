// A model on LibTorch behind the LanguageModel seam. The header is free of LibTorch.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "potstill/lm/language_model.h"
#include "potstill/lm/model_package.h"

namespace potstill {

struct TorchModelOptions {
  std::string dtype = "auto";   // auto, fp32, bf16
  std::string device = "auto";  // auto, cpu, cuda, cuda:N
  // Rows that are generated together; a finished row's place goes to the next request. A setting of its own and not the
  // number of requests: a request's text is the same, to the bit, in whatever company it is generated.
  int64_t num_slots = 32;
};

// Loads the weights. The package's tokenizer and template stay shared with it.
std::unique_ptr<LanguageModel> make_torch_model(const ModelPackage& model, const TorchModelOptions& options = {});

}  // namespace potstill
