// Transformer: a whole decoder in memory, on a device, in one dtype.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "potstill/lm/model_package.h"
#include "potstill/nn/decoder_layer.h"

namespace potstill {

struct Transformer {
  ModelConfig config;
  at::Tensor embed_tokens;  // [V, D]
  std::vector<DecoderLayer> layers;
  at::Tensor norm;     // [D]
  at::Tensor lm_head;  // [V, D]; the same storage as embed_tokens when tied

  at::Device device() const { return embed_tokens.device(); }
  at::ScalarType dtype() const { return embed_tokens.scalar_type(); }

  // [ΣT, D] after the final norm. checkpoint_activations: of each layer only the input is kept for the gradient, and
  // the layer is computed again when its turn comes: a third more arithmetic, the same gradient to the bit. rows [N]
  // int64: only these rows, [N, D], so that the last layer leaves out the others.
  at::Tensor hidden_states(const PackedBatch& batch, bool checkpoint_activations = false,
                           const at::Tensor& rows = {}) const;
  // hidden [N, D] (after the final norm) -> logits [N, V], in the model's dtype and in fp32.
  at::Tensor head(const at::Tensor& hidden) const;
  at::Tensor logits(const at::Tensor& hidden) const;

  // For inference alone: Linear::pack() of every linear, and of the head (which then takes memory of its own).
  void pack();
  Linear packed_head;  // empty before pack()
};

// "auto" = bf16 where the machine multiplies it natively (or on a GPU), else fp32; "fp32"; "bf16". Error(kUsage)
// otherwise.
at::ScalarType compute_dtype(const std::string& name, at::Device device);
// "auto" = the GPU of this process (the first, or the local rank's) when there is one, else the CPU; "cuda" = that GPU;
// "cpu"; "cuda:1".
at::Device compute_device(const std::string& name);

// A weight as a tensor of `dtype` on `device`: mapped memory is borrowed without a copy where dtype and device allow.
// It is read-only then, and valid while the source lives: the first form leaves that to the caller, in the second the
// tensor holds the source.
at::Tensor load_weight(const WeightSource& weights, const std::string& name, at::ScalarType dtype, at::Device device);
at::Tensor load_weight(const std::shared_ptr<const WeightSource>& weights, const std::string& name,
                       at::ScalarType dtype, at::Device device);
// [V, D]; of a tied model the embedding table, `embed_tokens` itself when given.
at::Tensor load_lm_head(const ModelPackage& model, at::ScalarType dtype, at::Device device,
                        const at::Tensor* embed_tokens = nullptr);
DecoderLayer load_decoder_layer(const ModelPackage& model, int64_t layer, at::ScalarType dtype, at::Device device);
Transformer load_transformer(const ModelPackage& model, at::ScalarType dtype, at::Device device);

}  // namespace potstill
