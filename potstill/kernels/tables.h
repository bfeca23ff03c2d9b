// The tables by instruction set; each is defined in the one file that is compiled for that set.
#pragma once

#include "potstill/kernels/kernels.h"

namespace potstill::kernels {

constexpr int64_t kChunkCols =
    512;  // columns of a tile unpacked at a time: 16 KB of codes or 32 KB of fp32, within an L1

const KernelTable& portable_table();
const KernelTable& avx2_table();
const KernelTable& avx512_table();
const KernelTable& neon_table();

}  // namespace potstill::kernels
