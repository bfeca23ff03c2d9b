// Compiled with AVX-512 (F, BW, DQ, VL) and VNNI; reached through dispatch.cpp alone.
#include "potstill/kernels/simd_avx512.h"
// clang-format off: the lanes come first
#include "potstill/kernels/formats_inl.h"
#include "potstill/kernels/matvec_lanes_inl.h"
#include "potstill/kernels/table_inl.h"
// clang-format on

namespace potstill::kernels {

const KernelTable& avx512_table() {
  static constexpr KernelTable table = make_table("avx512");
  return table;
}

}  // namespace potstill::kernels
