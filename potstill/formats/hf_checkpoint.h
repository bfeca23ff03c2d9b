// HfCheckpoint: the safetensors of a Hugging Face folder, one file or shards with an index, as one WeightSource.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "potstill/formats/safetensors.h"
#include "potstill/formats/weight_source.h"

namespace potstill {

class HfCheckpoint : public WeightSource {
 public:
  // Reads model.safetensors, or model.safetensors.index.json and its shards. Throws Error(kIo | kFormat): no weights
  // (a folder of pytorch_model.bin is told so), a shard missing, an index that does not match its shards.
  // tied: a stored lm_head.weight repeats the embedding table and is left out.
  explicit HfCheckpoint(const std::filesystem::path& folder, bool tied = false);

  const std::vector<WeightInfo>& weights() const override { return weights_; }
  std::string where() const override { return folder_.string(); }
  std::optional<TensorView> view(std::string_view name) const override;
  void read_rows(std::string_view name, int64_t row_begin, int64_t num_rows, std::span<float> out) const override;
  void forget_pages() const override {
    for (const auto& file : files_) file->forget_pages();
  }

  // Any tensor of the files as it is stored, integers too. Throws Error(kFormat) when absent.
  const TensorView& stored(std::string_view name) const;
  const TensorView* find_stored(std::string_view name) const;

 private:
  void open_shards(const std::filesystem::path& index_path);

  std::filesystem::path folder_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::vector<WeightInfo> weights_;         // sorted by name
  std::vector<const TensorView*> tensors_;  // of weights_
};

// Error(kInput) unless rows [row_begin, row_begin + num_rows) lie in the tensor and out has their size. Returns the
// values of a row; a vector counts as one row.
int64_t check_row_range(const WeightInfo& info, int64_t row_begin, int64_t num_rows, size_t out_size,
                        std::string_view where);
// Rows of a stored tensor as fp32.
void decode_rows(const TensorView& tensor, int64_t row_begin, int64_t row_values, std::span<float> out);

}  // namespace potstill
