// Settings of prune; free of LibTorch.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "potstill/base/fields.h"

namespace potstill {

struct PruneConfig {
  int64_t layers = 0;          // decoder layers to keep, chosen by influence; 0 = `keep` says
  std::vector<int64_t> keep;   // decoder layers to keep, chosen by hand
  std::filesystem::path text;  // calibration text; empty = the built-in one
  int64_t tokens = 2048;       // at most this many of it
  std::string dtype = "auto";

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("layers", self.layers, "decoder layers to keep, those with the least influence go (0: see keep)",
          at_least(0));
    visit("keep", self.keep, "decoder layers to keep, by number from 0, in place of layers", at_least(0));
    visit("text", self.text, "calibration text that shows the layers' influence (empty: a built-in one)", any());
    visit("tokens", self.tokens, "calibration tokens used at most", in_range(16, 1e7));
    visit("dtype", self.dtype, "dtype of the child's weights; auto = the model's own, fp16 for a block-quantized one",
          one_of({"auto", "fp32", "bf16", "fp16"}));
  }
};

}  // namespace potstill
