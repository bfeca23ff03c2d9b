#include "potstill/distill/knowledge_cache.h"

#include <fmt/format.h>

#include <algorithm>

#include "potstill/base/error.h"
#include "potstill/base/sha256.h"
#include "potstill/formats/safetensors.h"
#include "potstill/nn/tensor_bridge.h"
#include "potstill/nn/transformer.h"

namespace potstill {

namespace fs = std::filesystem;

std::string head_name(const ModelPackage& model) {
  const bool tied = model.config.tie_word_embeddings || !model.weights->find("lm_head.weight");
  return tied ? "model.embed_tokens.weight" : "lm_head.weight";
}

int64_t real_vocabulary(const ModelPackage& model) {
  return std::min(model.config.vocab_size, model.tokenizer->size());
}

std::string head_hash(const ModelPackage& teacher) {
  const std::string name = head_name(teacher);
  const WeightInfo& info = teacher.weights->require(name);
  std::vector<float> row(static_cast<size_t>(info.shape.at(1)));
  std::string bytes;
  for (int64_t i = 0; i < 64; ++i) {
    teacher.weights->read_rows(name, (info.shape[0] - 1) * i / 63, 1, row);
    bytes.append(reinterpret_cast<const char*>(row.data()), row.size() * sizeof(float));
  }
  return sha256_hex(bytes);
}

KnowledgeCache::KnowledgeCache(KnowledgeManifest manifest, at::ScalarType head_dtype, at::Device device)
    : manifest_(std::move(manifest)) {
  if (manifest_.is_top_k()) manifest_.refuse("holds the likeliest tokens of an endpoint, not hidden states");
  const auto file = std::make_shared<SafetensorsFile>(manifest_.folder / "hidden.safetensors");
  const TensorView& hidden = file->require("hidden");
  const bool has_shape = is_float(hidden.dtype) && hidden.shape.size() == 2 &&
                         hidden.shape[0] == manifest_.offsets.back() &&
                         hidden.shape[1] == manifest_.json.value("hidden_size", int64_t{-1});
  if (!has_shape) {
    manifest_.refuse(fmt::format("hidden.safetensors holds {} [{}], not what knowledge.json says",
                                 dtype_name(hidden.dtype), fmt::join(hidden.shape, ", ")));
  }
  hidden_ = tensor_from_view(hidden, file);
  load_head(head_dtype, device);
}

void KnowledgeCache::load_head(at::ScalarType dtype, at::Device device) {
  const auto& json = manifest_.json;
  const int64_t vocabulary = json.value("vocabulary", int64_t{0});
  at::Tensor head;
  if (json.value("head", "") == "copied") {
    const auto file = std::make_shared<SafetensorsFile>(manifest_.folder / "lm_head.safetensors");
    const TensorView& view = file->require("lm_head");
    if (!is_float(view.dtype) || view.shape.size() != 2) manifest_.refuse("lm_head.safetensors is no matrix of floats");
    head = tensor_from_view(view, file).to(device, dtype);
  } else {
    const std::string teacher_path = json.value("teacher", "");
    if (!fs::exists(teacher_path)) {
      throw Error(
          ErrorKind::kIo, where(),
          fmt::format("its teacher {} is gone, and with it the LM head that turns the cache into logits", teacher_path),
          "put the teacher back, or make the cache again with --copy-head");
    }
    const ModelPackage teacher = open_model(teacher_path);
    if (head_hash(teacher) != json.value("teacher_head_sha256", "")) {
      throw Error(ErrorKind::kInput, where(),
                  fmt::format("{} is no longer the teacher that the cache was made with", teacher_path),
                  "make the cache again with `potstill teach`");
    }
    head = load_lm_head(teacher, dtype, device);
  }
  if (vocabulary <= 0 || head.size(0) < vocabulary || head.size(1) != hidden_.size(1)) {
    manifest_.refuse(fmt::format("an LM head [{}, {}] does not fit {} tokens and hidden states of {}", head.size(0),
                                 head.size(1), vocabulary, hidden_.size(1)));
  }
  head_ = head.narrow(0, 0, vocabulary);
}

at::Tensor KnowledgeCache::logits(const at::Tensor& positions, at::Device device) const {
  const at::NoGradGuard no_grad;
  return head_logits(hidden_.index_select(0, positions).to(device, head_.scalar_type()), head_);
}

}  // namespace potstill
