// The teacher's pass: layer by layer over the whole data, each layer's weights read once, into a knowledge cache.
#pragma once

#include <cstdint>
#include <filesystem>

#include "potstill/distill/distill_config.h"
#include "potstill/distill/records.h"
#include "potstill/lm/model_package.h"
#include "potstill/nn/layer_stream.h"

namespace potstill {

// What storing the hidden states in the cache's dtype does to the teacher's logits, on positions spread over the data.
struct CacheError {
  double max_logit = 0, rms_logit = 0;
  double kl = 0;  // mean KL(exact || stored) a token at T = 1, nats
  int64_t positions = 0;
};

struct CacheReport {
  int64_t records = 0, tokens = 0, positions = 0;
  uint64_t bytes = 0;            // of the hidden states in the cache
  int64_t resumed_at = 0;        // layers that an earlier, killed pass had finished
  int64_t tokens_per_batch = 0;  // what the memory bound left of config.tokens_per_batch
  CacheError error;
};

// Runs the teacher over the data and writes the cache (knowledge_cache.h) into an existing folder. Between two layers
// the hidden states lie in files in `work` ("<folder>/work" when empty), which are gone at the end; a pass that was
// killed or stopped by Ctrl-C goes on at the layer where it was, to the same bytes.
// config.memory bounds the resident memory: the batch is made as small as that takes. Throws Error(kUsage) when one
// layer and the longest pair do not fit, with the least bound that would do.
CacheReport write_knowledge_cache(const ModelPackage& teacher, const DistillData& data, const TeachConfig& config,
                                  const LayerStreamOptions& options, const std::filesystem::path& folder,
                                  const std::filesystem::path& work = {});

}  // namespace potstill
