// Copies a weight into another file as F16 or F32, some rows at a time.
#pragma once

#include "potstill/formats/safetensors.h"
#include "potstill/formats/weight_source.h"

namespace potstill {

// Throws Error(kNumeric) for a value that fp16 cannot hold, when it is to be fp16.
void copy_weight(const WeightSource& source, const WeightInfo& info, DType dtype, SafetensorsFolderWriter& writer);

}  // namespace potstill
