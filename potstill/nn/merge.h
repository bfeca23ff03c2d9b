// Merging a LoRA adapter into its base, and the proof that the merged folder is what base and adapter were.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "potstill/lm/model_package.h"

namespace potstill {

struct MergeReport {
  int64_t expected = 0;             // pairs in the adapter
  int64_t merged = 0;               // of their weights, those that moved
  std::string dtype;                // "F32", "BF16", "F16": of the merged weights
  double rounding_loss = 0;         // ||round(W + D) - (W + D)|| / ||D|| over all targets, D = scale · B · A
  double update_norm = 0;           // ||D|| over all targets
  double max_logit_difference = 0;  // |base + adapter - merged folder| on the probe text, both computed in fp32
  double rms_logit_difference = 0;
  double rms_adapter_effect = 0;  // |base + adapter - base|, rms: what the adapter does to the same logits
  int64_t probe_tokens = 0;
};

struct MergeOptions {
  std::string dtype = "auto";  // "auto" = the base's own, fp32 for a quantized base; "fp32", "bf16", "fp16"
  uint64_t max_shard_bytes = 5'000'000'000;
};

// Writes a Hugging Face folder with the base's names and shapes, W + scale · B · A summed in fp32 and rounded once,
// streamed row block by row block; tied embeddings stay tied. Throws Error(kNumeric) when a targeted weight did not
// move or the logits of the folder, read back, are not those of base + adapter up to the dtype's rounding;
// Error(kInput) when the adapter does not fit the base.
MergeReport merge_adapter(const ModelPackage& base, const std::filesystem::path& adapter, const MergeOptions& options,
                          const std::filesystem::path& out);

}  // namespace potstill
