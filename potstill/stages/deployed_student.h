// A trial's student as it would be deployed: merged and quantized, quickly.
#pragma once

#include <cstdint>
#include <filesystem>

#include "potstill/distill/agreement.h"
#include "potstill/distill/setup.h"
#include "potstill/nn/lora.h"
#include "potstill/quant/quant_config.h"

namespace potstill {

// Merges `adapter` into the student at `student_path` and quantizes the sum by `config`, on at most 64 sequences of at
// most 256 tokens of `pairs` that are not held out; measures it on those that are. Works in `folder`, which is removed
// afterwards.
Agreement measure_quantized(const LoraAdapter& adapter, const std::filesystem::path& student_path,
                            const DistillSetup& setup, const std::filesystem::path& pairs, const QuantizeConfig& config,
                            const std::filesystem::path& folder, uint64_t seed);

}  // namespace potstill
