// Causal grouped-query attention inside each sequence of a packed batch, differentiable.
#pragma once

#include "potstill/formats/model_config.h"
#include "potstill/nn/packed_batch.h"

namespace potstill {

// q [ΣT, H·Dh], k and v [ΣT, Hk·Dh], rotated -> [ΣT, H·Dh]. Repeated k and v are never materialised on the CPU, and the
// gradient needs q, k, v, the output and one number a head and token: no [T, T].
at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const PackedBatch& batch,
                            const ModelConfig& config);

// The same for T tokens that go on behind others, without gradients: q [T, H·Dh]; k and v [Hk, P + T, Dh], all keys and
// values of the sequence so far, theirs last -> [T, H·Dh].
at::Tensor continued_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const ModelConfig& config);

}  // namespace potstill
