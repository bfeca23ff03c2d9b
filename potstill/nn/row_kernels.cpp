#include "potstill/nn/row_kernels.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "potstill/base/check.h"
#include "potstill/nn/clones.h"
#include "potstill/nn/value_type.h"

namespace potstill {
namespace {

constexpr int64_t kLanes = 16;        // partial sums: a fixed number, so that every clone adds in one order
constexpr int64_t kRowsAtLeast = 16;  // of a thread's share
constexpr int64_t kValuesAtLeast = 16384;

POTSTILL_INLINE float lane_sum(float* lanes) {
  for (int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (int64_t lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

template <class T>
POTSTILL_INLINE void norm_row(const T* x, const T* weight, int64_t size, float eps, T* y, float* rstd) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const float value = load_value(x + i + lane);
      lanes[lane] += value * value;
    }
  }
  for (int64_t lane = 0; i < size; ++i, ++lane) lanes[lane] += load_value(x + i) * load_value(x + i);
  const float scale = 1.f / std::sqrt(lane_sum(lanes) / static_cast<float>(size) + eps);
  *rstd = scale;
  for (int64_t j = 0; j < size; ++j) {
    store_value(y + j, round_as(y, load_value(x + j) * scale) * load_value(weight + j));
  }
}

// dx = rstd (g - n · mean(g · n)), g = dy · w, n = x · rstd
template <class T>
POTSTILL_INLINE void norm_row_backward(const T* grad, const T* x, const T* weight, int64_t size, float rstd, T* out) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const int64_t j = i + lane;
      lanes[lane] += load_value(grad + j) * load_value(weight + j) * load_value(x + j);
    }
  }
  for (int64_t lane = 0; i < size; ++i, ++lane) {
    lanes[lane] += load_value(grad + i) * load_value(weight + i) * load_value(x + i);
  }
  const float mean = lane_sum(lanes) * rstd / static_cast<float>(size);
  for (int64_t j = 0; j < size; ++j) {
    const float scaled = load_value(grad + j) * load_value(weight + j);
    store_value(out + j, rstd * (scaled - load_value(x + j) * rstd * mean));
  }
}

template <class T>
POTSTILL_INLINE void rotate_row(const T* x, const float* cos, const float* sin, float sign, int64_t heads, int64_t half,
                                T* y) {
  for (int64_t head = 0; head < heads; ++head, x += 2 * half, y += 2 * half) {
    for (int64_t i = 0; i < half; ++i) {
      const float a = load_value(x + i), b = load_value(x + half + i), s = sign * sin[i];
      store_value(y + i, a * cos[i] - b * s);
      store_value(y + half + i, b * cos[i] + a * s);
    }
  }
}

template <class T>
POTSTILL_INLINE void swiglu_values(const T* gate, const T* up, int64_t count, T* y) {
  for (int64_t i = 0; i < count; ++i) {
    const float g = load_value(gate + i);
    const float silu = round_as(y, g / (1.f + loop_exp(-g)));
    store_value(y + i, silu * load_value(up + i));
  }
}

template <class T>
POTSTILL_INLINE void swiglu_values_backward(const T* grad, const T* gate, const T* up, int64_t count, T* grad_gate,
                                            T* grad_up) {
  for (int64_t i = 0; i < count; ++i) {
    const float g = load_value(gate + i), dy = load_value(grad + i);
    const float sigmoid = 1.f / (1.f + loop_exp(-g));
    const float through_up = round_as(grad_gate, dy * load_value(up + i));
    store_value(grad_gate + i, through_up * sigmoid * (1.f + g * (1.f - sigmoid)));
    store_value(grad_up + i, round_as(grad_up, g * sigmoid) * dy);
  }
}

// The row is read twice: for its maximum, then, out of the cache, for the sum.
template <class T>
POTSTILL_INLINE void log_sum_exp_row(const T* x, int64_t size, float* largest, float* sum) {
  float lanes[kLanes];
  for (float& lane : lanes) lane = -INFINITY;
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const float value = load_value(x + i + lane);
      lanes[lane] = lanes[lane] > value ? lanes[lane] : value;
    }
  }
  for (int64_t lane = 0; i < size; ++i, ++lane) lanes[lane] = std::max(lanes[lane], load_value(x + i));
  const float top = *std::max_element(lanes, lanes + kLanes);
  for (float& lane : lanes) lane = 0.f;
  for (i = 0; i + kLanes <= size; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += loop_exp(load_value(x + i + lane) - top);
  }
  for (int64_t lane = 0; i < size; ++i, ++lane) lanes[lane] += loop_exp(load_value(x + i) - top);
  *largest = top;
  *sum = lane_sum(lanes);
}

// One clone of each for each dtype: an attribute of a function, which a template cannot carry.
#define POTSTILL_ROW_KERNELS(T)                                                                                        \
  POTSTILL_CLONES void norm(const T* x, const T* w, int64_t size, float eps, T* y, float* rstd) {                      \
    norm_row(x, w, size, eps, y, rstd);                                                                                \
  }                                                                                                                    \
  POTSTILL_CLONES void norm_backward(const T* g, const T* x, const T* w, int64_t size, float rstd, T* out) {           \
    norm_row_backward(g, x, w, size, rstd, out);                                                                       \
  }                                                                                                                    \
  POTSTILL_CLONES void rotate(const T* x, const float* cos, const float* sin, float sign, int64_t heads, int64_t half, \
                              T* y) {                                                                                  \
    rotate_row(x, cos, sin, sign, heads, half, y);                                                                     \
  }                                                                                                                    \
  POTSTILL_CLONES void swiglu_part(const T* gate, const T* up, int64_t count, T* y) {                                  \
    swiglu_values(gate, up, count, y);                                                                                 \
  }                                                                                                                    \
  POTSTILL_CLONES void swiglu_part_backward(const T* g, const T* gate, const T* up, int64_t count, T* dg, T* du) {     \
    swiglu_values_backward(g, gate, up, count, dg, du);                                                                \
  }                                                                                                                    \
  POTSTILL_CLONES void log_sum_exp(const T* x, int64_t size, float* largest, float* sum) {                             \
    log_sum_exp_row(x, size, largest, sum);                                                                            \
  }
POTSTILL_ROW_KERNELS(float)
POTSTILL_ROW_KERNELS(Bf16Bits)
#undef POTSTILL_ROW_KERNELS

template <class T>
const T* read(const at::Tensor& x) {
  return reinterpret_cast<const T*>(x.const_data_ptr());
}
template <class T>
T* write(at::Tensor& x) {
  return reinterpret_cast<T*>(x.mutable_data_ptr());
}

}  // namespace

bool has_row_kernels(const at::Tensor& x) {
  return x.device().is_cpu() && x.is_contiguous() &&
         (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

at::Tensor rms_norm_rows(const at::Tensor& x, const at::Tensor& weight, double eps, at::Tensor& rstd) {
  POTSTILL_CHECK(weight.scalar_type() == x.scalar_type() && weight.is_contiguous());
  const int64_t size = x.size(-1), rows = x.numel() / size;
  at::Tensor y = at::empty_like(x);
  rstd = at::empty({rows}, x.options().dtype(at::kFloat));
  for_type(x, [&]<class T>(T) {
    const T *from = read<T>(x), *w = read<T>(weight);
    T* to = write<T>(y);
    float* scale = rstd.mutable_data_ptr<float>();
    at::parallel_for(0, rows, kRowsAtLeast, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        norm(from + r * size, w, size, static_cast<float>(eps), to + r * size, scale + r);
      }
    });
  });
  return y;
}

at::Tensor rms_norm_rows_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight,
                                  const at::Tensor& rstd) {
  const int64_t size = x.size(-1), rows = x.numel() / size;
  at::Tensor out = at::empty_like(x);
  const at::Tensor dense = grad.contiguous();
  for_type(x, [&]<class T>(T) {
    const T *g = read<T>(dense), *from = read<T>(x), *w = read<T>(weight);
    T* to = write<T>(out);
    const float* scale = rstd.const_data_ptr<float>();
    at::parallel_for(0, rows, kRowsAtLeast, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        norm_backward(g + r * size, from + r * size, w, size, scale[r], to + r * size);
      }
    });
  });
  return out;
}

at::Tensor rotate_rows(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, const at::Tensor& position,
                       float sign) {
  const int64_t size = x.size(1), half = cos.size(1), heads = size / (2 * half);
  at::Tensor y = at::empty_like(x);
  for_type(x, [&]<class T>(T) {
    const T* from = read<T>(x);
    T* to = write<T>(y);
    const float *c = cos.const_data_ptr<float>(), *s = sin.const_data_ptr<float>();
    const int64_t* at_position = position.const_data_ptr<int64_t>();
    at::parallel_for(0, x.size(0), kRowsAtLeast, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t row = at_position[r] * half;
        rotate(from + r * size, c + row, s + row, sign, heads, half, to + r * size);
      }
    });
  });
  return y;
}

at::Tensor swiglu_rows(const at::Tensor& gate, const at::Tensor& up) {
  at::Tensor y = at::empty_like(gate);
  for_type(gate, [&]<class T>(T) {
    const T *g = read<T>(gate), *u = read<T>(up);
    T* to = write<T>(y);
    at::parallel_for(0, gate.numel(), kValuesAtLeast,
                     [&](int64_t begin, int64_t end) { swiglu_part(g + begin, u + begin, end - begin, to + begin); });
  });
  return y;
}

void swiglu_rows_backward(const at::Tensor& grad, const at::Tensor& gate, const at::Tensor& up, at::Tensor& grad_gate,
                          at::Tensor& grad_up) {
  grad_gate = at::empty_like(gate);
  grad_up = at::empty_like(up);
  const at::Tensor dense = grad.contiguous();
  for_type(gate, [&]<class T>(T) {
    const T *dy = read<T>(dense), *g = read<T>(gate), *u = read<T>(up);
    T *to_gate = write<T>(grad_gate), *to_up = write<T>(grad_up);
    at::parallel_for(0, gate.numel(), kValuesAtLeast, [&](int64_t begin, int64_t end) {
      swiglu_part_backward(dy + begin, g + begin, u + begin, end - begin, to_gate + begin, to_up + begin);
    });
  });
}

void log_sum_exp_rows(const at::Tensor& logits, double* log_sum_exp, float* largest) {
  const int64_t size = logits.size(1);
  for_type(logits, [&]<class T>(T) {
    const T* from = read<T>(logits);
    at::parallel_for(0, logits.size(0), 1, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        float sum = 0;
        potstill::log_sum_exp(from + r * size, size, largest + r, &sum);
        log_sum_exp[r] = static_cast<double>(largest[r]) + std::log(static_cast<double>(sum));
      }
    });
  });
}

}  // namespace potstill
