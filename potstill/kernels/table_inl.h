// Gathers the functions of one instruction set. Everything that this includes sits in an unnamed namespace: a function
// compiled for AVX-512 must never be the one that the linker keeps for a machine without it. For the same reason these
// headers use no templates of the standard library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "potstill/base/dtype.h"
#include "potstill/kernels/tables.h"
// The including file has chosen the lanes: simd_*.h. Each of these uses the ones before it.
// clang-format off
#include "potstill/kernels/formats_inl.h"
#include "potstill/kernels/elementwise_inl.h"
#include "potstill/kernels/matvec_inl.h"
#include "potstill/kernels/matmul_inl.h"
#include "potstill/kernels/attention_inl.h"
// clang-format on

namespace potstill::kernels {
namespace {

constexpr KernelTable make_table(const char* name) {
  return {.name = name,
          .lane_group = kLaneGroup,
          .matvec = matvec,
          .matmul = matmul,
          .dequantize_row = dequantize_row,
          .quantize_row = quantize_row,
          .rms_norm = rms_norm,
          .swiglu = swiglu,
          .add = add_to,
          .softmax = softmax,
          .attention = attention,
          .store_key = store_key,
          .store_value = store_value};
}

}  // namespace
}  // namespace potstill::kernels
