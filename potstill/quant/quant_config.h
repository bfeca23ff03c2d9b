// Settings of quantization and export; free of LibTorch, so that recipe/ can read them.
#pragma once

#include <cstdint>
#include <string>

#include "potstill/base/fields.h"

namespace potstill {

struct QuantizeConfig {
  std::string method = "gptq";
  int64_t bits = 4;
  std::string group_size = "auto";
  bool symmetric = true;
  std::string order = "static";
  std::string clip = "auto";
  double damp = 0.01;
  int64_t sequences = 128;
  int64_t sequence_length = 512;
  int64_t memory_mb = 4096;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("method", self.method, "how weights are rounded: gptq (needs calibration text) or to the nearest value",
          one_of({"gptq", "rtn"}));
    visit("bits", self.bits, "bits of a code", in_range(4, 4));
    visit("group_size", self.group_size, "inputs that share a scale; auto = the largest that divides every width",
          one_of({"auto", "256", "128", "64", "32"}));
    visit("symmetric", self.symmetric, "grids without a zero point, which GGUF's Q4_0 holds losslessly", any());
    visit("order", self.order,
          "columns by falling influence with scales fixed before (static), group by group, or as they lie",
          one_of({"none", "static", "group-aware"}));
    visit("clip", self.clip,
          "scale of a group: nothing clipped, least squared error, or that weighted by the Hessian's "
          "diagonal; auto = hessian for gptq, none for rtn",
          one_of({"auto", "none", "mse", "hessian"}));
    visit("damp", self.damp, "added to the Hessian's diagonal, as a share of its mean", in_range(1e-6, 1));
    visit("sequences", self.sequences, "calibration sequences", in_range(1, 1e6));
    visit("sequence_length", self.sequence_length, "tokens of a calibration sequence, at most", in_range(8, 1e6));
    visit("memory_mb", self.memory_mb, "activations kept beside the hidden states; past that they are computed twice",
          in_range(0, 1e9));
  }
};

struct ExportConfig {
  std::string format = "gguf";
  std::string weights = "auto";
  std::string embeddings = "q8_0";

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("format", self.format, "what the file is for: potstill-edge and llama.cpp, or transformers and vLLM",
          one_of({"gguf", "compressed-tensors"}));
    visit("weights", self.weights, "GGUF type of the linears; auto = q4_0 for a 4-bit model, else f16",
          one_of({"auto", "q4_0", "q8_0", "f16", "bf16"}));
    visit("embeddings", self.embeddings, "GGUF type of the embedding table and the head",
          one_of({"q8_0", "f16", "bf16"}));
  }
};

}  // namespace potstill
