// AArch64 with the dot-product extension; reached through dispatch.cpp alone.
#define POTSTILL_NEON_DOTPROD
#include "potstill/kernels/simd_128.h"
// clang-format off: the lanes come first
#include "potstill/kernels/formats_inl.h"
#include "potstill/kernels/matvec_rows_inl.h"
#include "potstill/kernels/table_inl.h"
// clang-format on

namespace potstill::kernels {

const KernelTable& neon_table() {
  static constexpr KernelTable table = make_table("neon");
  return table;
}

}  // namespace potstill::kernels
