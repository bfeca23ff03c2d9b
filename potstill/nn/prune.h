// A smaller child of a model: some of its decoder layers left out.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "potstill/base/dtype.h"
#include "potstill/lm/model_package.h"

namespace potstill {

struct PrunePlan {
  std::vector<int64_t> keep;     // layers of the source, ascending
  std::vector<int64_t> removed;  // by rising influence
  // Block influence of every layer of the whole model: 1 - mean cosine of a token's hidden state before and behind it
  // (ShortGPT, arXiv:2403.03853, equation 1). Empty when the layers were given by hand.
  std::vector<double> influence;
  int64_t calibration_tokens = 0;
};

struct PruneOptions {
  std::string dtype = "auto", device = "auto";  // of the calibration pass
  int64_t tokens = 2048;
  std::function<void(int64_t done, int64_t total)> progress;  // layer passes
};

// Drops the layers of least influence over the text, ranked in one pass over the whole model as ShortGPT does
// (measuring anew after each removal takes many passes and chose no better: docs/log.md). Layer-major: one layer in
// memory.
PrunePlan plan_by_influence(const ModelPackage& model, int64_t layers, std::string_view text,
                            const PruneOptions& options);
// Checks layers given by hand: ascending, distinct, there.
PrunePlan plan_by_hand(const ModelPackage& model, std::span<const int64_t> keep);

// A Hugging Face folder with the kept layers renumbered and everything else as it is. dtype: "auto" (the model's own,
// fp16 for a block-quantized one: its rounding, 2⁻¹¹, is far under a 4-bit step and half the bytes of fp32), "fp32",
// "bf16", "fp16". Throws Error(kNumeric) for a weight that the dtype cannot hold.
void write_pruned(const ModelPackage& model, const PrunePlan& plan, const std::string& dtype,
                  const std::filesystem::path& folder);

// What "auto" and the names above mean for this model, and how config.json calls it.
DType written_dtype(const std::string& name, const ModelPackage& model);
const char* torch_dtype_name(DType dtype);

std::string_view prune_calibration_text();  // a few hundred words on everyday matters

}  // namespace potstill
