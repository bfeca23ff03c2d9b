// The tables by instruction set; each is defined in the one file that is compiled for that set.
#pragma once

#include "potstill/kernels/kernels.h"

namespace potstill::kernels {

constexpr size_t kChunkCols = 1024;  // columns of a tile that are expanded at a time: 64 KB of fp32, half a small L2

const KernelTable& portable_table();
const KernelTable& avx2_table();
const KernelTable& avx512_table();
const KernelTable& neon_table();

}  // namespace potstill::kernels
