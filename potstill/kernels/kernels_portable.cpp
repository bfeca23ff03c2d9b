// Whatever the compiler's baseline is: SSE2 on x86-64, NEON on AArch64.
#include "potstill/kernels/simd_128.h"
// clang-format off: the lanes come first
#include "potstill/kernels/formats_inl.h"
#include "potstill/kernels/matvec_rows_inl.h"
#include "potstill/kernels/table_inl.h"
// clang-format on

namespace potstill::kernels {

const KernelTable& portable_table() {
  static constexpr KernelTable table = make_table("portable");
  return table;
}

}  // namespace potstill::kernels
