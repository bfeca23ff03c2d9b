// What a decoder does between its products.
#pragma once

namespace potstill::kernels {
namespace {

// e^x within 2 ulp for x in [-87.3, 88.7]; below, e^-87.3. x = n ln 2 + r, e^r by its Taylor polynomial on |r| <=
// 0.347: the first term left out, r^8 / 8!, is below 2^-27.
inline F exp(F x) {
  x = max(min(x, broadcast(88.0f)), broadcast(-87.3f));
  const F magic = broadcast(12582912.0f);  // 1.5 * 2^23: rounds n to the nearest integer and keeps it in the low bits
  const F t = fma(x, broadcast(1.44269504f), magic);
  const F n = sub(t, magic);
  F r = fma(n, broadcast(-0.693359375f), x);  // ln 2 in two parts, the first exact in few bits (Cody and Waite)
  r = fma(n, broadcast(2.12194440e-4f), r);
  F p = broadcast(1.0f / 5040);
  for (const float c : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) p = fma(p, r, broadcast(c));
  return scale_by_pow2(p, t);
}

// Applies function to sixteen elements at a time; the last ones through a padded copy.
template <class Function>
void for_each_16(float* x, const float* y, int64_t n, const Function& function) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) store(x + i, function(load(x + i), load(y + i)));
  if (i == n) return;
  float padded[16];
  store(padded, function(load_up_to_16(x + i, n - i), load_up_to_16(y + i, n - i)));
  for (int64_t j = 0; i + j < n; ++j) x[i + j] = padded[j];
}

// A block of 32 in whole numbers: 16 bits in two parts of eight, or 8 in one. Returns the scale.
struct BlockCodes {
  F high[2], low[2];
  float scale;

  BlockCodes(const float* x, bool exact) {
    const F v[2] = {load(x), load(x + 16)};
    scale = reduce_max(max(abs(v[0]), abs(v[1]))) / (exact ? 32512.0f : 127.0f);  // 32512 = 256 * 127
    const F inverse = broadcast(scale > 0 ? 1.0f / scale : 0.0f);
    for (int i = 0; i < 2; ++i) {
      const F code = round_even(mul(v[i], inverse));
      high[i] = exact ? round_even(mul(code, broadcast(1.0f / 255))) : code;
      low[i] = exact ? fma(high[i], broadcast(-255.0f), code) : zero();
    }
  }
  void store_codes(int8_t* high_codes, int8_t* low_codes) const {
    for (int i = 0; i < 2; ++i) {
      store_i8(high_codes + 16 * i, high[i]);
      if (low_codes != nullptr) store_i8(low_codes + 16 * i, low[i]);
    }
  }
  int32_t sum(bool exact) const {  // of the codes; exact: they are below 2^15 and there are 32, so floats hold it
    const F highs = add(high[0], high[1]), lows = add(low[0], low[1]);
    return static_cast<int32_t>(reduce_add(exact ? fma(highs, broadcast(255.0f), lows) : highs));
  }
};

void quantize_row(const float* x, int64_t cols, int8_t* high, int8_t* low, float* scales, float* block_sums,
                  int32_t* offsets) {
  const bool exact = low != nullptr;
  for (int64_t b = 0; b < cols / kBlock; ++b) {
    const BlockCodes block(x + b * kBlock, exact);
    block.store_codes(high + b * kBlock, exact ? low + b * kBlock : nullptr);
    const int32_t sum = block.sum(exact);
    scales[b] = block.scale;
    block_sums[b] = block.scale * static_cast<float>(sum);
    offsets[b] = -8 * sum;
  }
}

void rms_norm(const float* x, const float* weight, int64_t n, float eps, float* y) {
  F squares = zero();
  for (int64_t i = 0; i < n; i += 16) {
    const F v = load_up_to_16(x + i, n - i);
    squares = fma(v, v, squares);
  }
  const float scale = 1.0f / __builtin_sqrtf(reduce_add(squares) / static_cast<float>(n) + eps);
  if (y != x) std::memcpy(y, x, static_cast<size_t>(n) * sizeof(float));
  for_each_16(y, weight, n, [&](F v, F w) { return mul(mul(v, broadcast(scale)), w); });
}

void swiglu(float* gate, const float* up, int64_t n) {
  for_each_16(gate, up, n, [](F g, F u) {
    const F silu = div(g, add(broadcast(1.0f), exp(sub(zero(), g))));
    return mul(silu, u);
  });
}

void add_to(float* x, const float* y, int64_t n) {
  for_each_16(x, y, n, [](F a, F b) { return add(a, b); });
}

float largest_of(const float* x, int64_t n) {  // n >= 1
  float largest = x[0];
  int64_t i = 0;
  if (n >= 16) {
    F best = load(x);
    for (; i + 16 <= n; i += 16) best = max(best, load(x + i));
    largest = reduce_max(best);
  }
  for (; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

// x[i] = e^(x[i] - largest); returns the sum.
float exponentials(float* x, int64_t n, float largest) {
  F sums = zero();
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const F e = exp(sub(load(x + i), broadcast(largest)));
    store(x + i, e);
    sums = add(sums, e);
  }
  float sum = reduce_add(sums);
  if (i < n) {
    float padded[16];
    store(padded, exp(sub(load_up_to_16(x + i, n - i), broadcast(largest))));
    for (int64_t j = 0; i + j < n; ++j) sum += x[i + j] = padded[j];
  }
  return sum;
}

void softmax(float* x, int64_t n) {
  const float inverse = 1.0f / exponentials(x, n, largest_of(x, n));
  for_each_16(x, x, n, [&](F v, F) { return mul(v, broadcast(inverse)); });
}

}  // namespace
}  // namespace potstill::kernels
