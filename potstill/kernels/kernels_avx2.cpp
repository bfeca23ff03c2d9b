// Compiled with AVX2, FMA and F16C; reached through dispatch.cpp alone.
#include "potstill/kernels/simd_avx2.h"
// clang-format off: the lanes come first
#include "potstill/kernels/formats_inl.h"
#include "potstill/kernels/matvec_lanes_inl.h"
#include "potstill/kernels/table_inl.h"
// clang-format on

namespace potstill::kernels {

const KernelTable& avx2_table() {
  static constexpr KernelTable table = make_table("avx2");
  return table;
}

}  // namespace potstill::kernels
