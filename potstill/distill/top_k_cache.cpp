#include "potstill/distill/top_k_cache.h"

#include <fmt/format.h>

#include "potstill/base/error.h"
#include "potstill/distill/agreement.h"
#include "potstill/distill/tensor_files.h"
#include "potstill/formats/safetensors.h"
#include "potstill/nn/tensor_bridge.h"

namespace potstill {

void write_top_k_table(const std::filesystem::path& folder, const TopKTable& table) {
  write_tensors(folder / "top_k.safetensors", {{"ids", table.ids.contiguous()},
                                               {"log_probs", table.log_probs.contiguous()},
                                               {"label_log_probs", table.label_log_probs.contiguous()}});
}

TopKCache::TopKCache(KnowledgeManifest manifest) : manifest_(std::move(manifest)) {
  const auto file = std::make_shared<SafetensorsFile>(manifest_.folder / "top_k.safetensors");
  const int64_t positions = manifest_.offsets.back(), k = manifest_.json.value("k", int64_t{0});
  const auto tensor = [&](const char* name, DType dtype, const std::vector<int64_t>& shape) {
    const TensorView& view = file->require(name);
    if (view.dtype != dtype || view.shape != shape) {
      manifest_.refuse(fmt::format("top_k.safetensors: '{}' is {} [{}], not {} [{}]", name, dtype_name(view.dtype),
                                   fmt::join(view.shape, ", "), dtype_name(dtype), fmt::join(shape, ", ")));
    }
    return tensor_from_view(view, file);
  };
  ids_ = tensor("ids", DType::kI32, {positions, k});
  log_probs_ = tensor("log_probs", DType::kF32, {positions, k});
  label_log_probs_ = tensor("label_log_probs", DType::kF32, {positions});
  const bool sound = k > 0 && ids_.min().item<int64_t>() >= -1 && ids_.max().item<int64_t>() < vocab_limit() &&
                     ids_.select(1, 0).min().item<int64_t>() >= 0 && log_probs_.le(0).all().item<bool>() &&
                     log_probs_.select(1, 0).isfinite().all().item<bool>();
  if (!sound) manifest_.refuse("top_k.safetensors: ids that are no tokens, or log-probabilities that are none");
}

TopKRows TopKCache::rows_at(const at::Tensor& positions, at::Device device) const {
  const auto ids = ids_.index_select(0, positions).to(at::kLong), first = ids.narrow(1, 0, 1);
  return {.ids = at::where(ids.lt(0), first, ids).to(device),
          .log_probs = log_probs_.index_select(0, positions).to(device)};
}

KlLossSums TopKCache::loss(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& labels,
                           const at::Tensor& positions, const KlLossOptions& options, double grad_scale,
                           at::Tensor* grad_hidden) const {
  if (options.divergence != Divergence::kForwardKl) {
    throw Error(ErrorKind::kUsage, where(),
                "knows the teacher's likeliest tokens alone, which gives no such divergence",
                "--divergence forward-kl");
  }
  return top_k_loss(hidden, head, labels, rows_at(positions, hidden.device()), options, grad_scale, grad_hidden);
}

void TopKCache::compare(const at::Tensor& student, const at::Tensor& labels, const at::Tensor& positions,
                        AgreementSums& sums) const {
  const TopKRows rows = rows_at(positions, student.device());
  sums.kl += top_k_rows(student, rows, 1.0).sum().item<double>();
  sums.ce -= at::log_softmax(student, 1).gather(1, labels.unsqueeze(1)).sum(at::kDouble).item<double>();
  sums.teacher_ce -= label_log_probs_.index_select(0, positions).sum(at::kDouble).item<double>();
  sums.agreeing += student.argmax(1).eq(rows.ids.select(1, 0)).sum().item<int64_t>();
  sums.tokens += student.size(0);
}

}  // namespace potstill
