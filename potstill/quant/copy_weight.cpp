#include "potstill/quant/copy_weight.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "potstill/base/error.h"
#include "potstill/formats/ggml_blocks.h"

namespace potstill {
namespace {

constexpr float kLargestHalf = 65504.0f;
constexpr int64_t kValuesAtOnce = int64_t{1} << 22;  // rows of the embedding table are converted 16 MB at a time

void require_halves(std::span<const float> values, const std::string& name) {
  for (const float value : values) {
    if (std::fabs(value) <= kLargestHalf) continue;  // NaN fails too
    throw Error(ErrorKind::kNumeric, name, fmt::format("holds {}, which fp16 cannot", value),
                "the checkpoint is damaged, or needs another dtype than the fp16 of this format");
  }
}

}  // namespace

void copy_weight(const WeightSource& source, const WeightInfo& info, DType dtype, SafetensorsFolderWriter& writer) {
  const int64_t rows = info.shape.size() > 1 ? info.shape[0] : 1, columns = info.shape.back();
  const int64_t step = std::max<int64_t>(1, kValuesAtOnce / std::max<int64_t>(columns, 1));
  std::vector<float> values;
  std::vector<std::byte> stored;
  for (int64_t row = 0; row < rows; row += step) {
    const int64_t count = std::min(step, rows - row);
    values.resize(static_cast<size_t>(count * columns));
    source.read_rows(info.name, row, count, values);
    if (dtype == DType::kF16) require_halves(values, info.name);
    stored.resize(values.size() * static_cast<size_t>(block_bytes(dtype)));
    encode_row(dtype, values, stored);
    writer.append(info.name, stored);
  }
}

}  // namespace potstill
