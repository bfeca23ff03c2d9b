// Settings of quantization and export; free of LibTorch, so that recipe/ can read them.
#pragma once

#include <cstdint>
#include <string>

#include "potstill/base/fields.h"

namespace potstill {

struct QuantizeConfig {
  std::string method = "gptq";
  std::string quality = "standard";
  int64_t bits = 4;
  std::string group_size = "auto";
  bool symmetric = true;
  std::string order = "static";
  bool true_sequential = true;
  std::string clip = "auto";
  double damp = 0.01;
  int64_t refine = -1;
  double asymmetry = -1;
  double asymmetry_damp = 0.1;
  double target_bpw = 0;
  std::string embeddings = "8";
  bool fake_quant = false;
  std::string calibration = {};
  int64_t sequences = 128;
  int64_t sequence_length = 2048;
  std::string memory = "auto";
  std::string consumers = {};
  bool dequantize = false;

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit(
        "method", self.method,
        "how weights are rounded: gptq and gptaq (gptaq also makes up for the error of the layers before), awq (scaled "
        "by their inputs first), all three fitted to calibration text; or rtn, to the nearest value",
        one_of({"gptq", "gptaq", "awq", "rtn"}));
    visit("quality", self.quality,
          "standard = scales weighted by the Hessian, static order; best = and asymmetric calibration, other codes and "
          "scales as long as the layer's error falls: twice the time; fast = scales as they come",
          one_of({"fast", "standard", "best"}));
    visit("bits", self.bits, "bits of a code, 4 or 8", in_range(4, 8));
    visit("group_size", self.group_size,
          "inputs that share a scale; auto = the largest up to 128 that divides every width; channel = a whole row",
          one_of({"auto", "256", "128", "64", "32", "channel"}));
    visit("symmetric", self.symmetric, "grids without a zero point, which GGUF's Q4_0 holds losslessly", any());
    visit("order", self.order,
          "columns by falling influence with scales fixed before (static), group by group, or as they lie",
          one_of({"none", "static", "group-aware"}));
    visit("true_sequential", self.true_sequential,
          "fit each linear to what the quantized ones before it in its block give; without it, to the unquantized "
          "block's",
          any());
    visit("clip", self.clip,
          "scale of a group: nothing clipped, least squared error, or that weighted by the Hessian's "
          "diagonal; auto = hessian, and none for rtn and quality fast",
          one_of({"auto", "none", "mse", "hessian"}));
    visit("damp", self.damp, "added to the Hessian's diagonal, as a share of its mean", in_range(1e-6, 1));
    visit("refine", self.refine, "rounds of descent on the codes and refit of the scales; -1 = 2 for best, else none",
          in_range(-1, 20));
    visit("asymmetry", self.asymmetry,
          "largest strength of asymmetric calibration, 0 = none; -1 = 0.5 for best, 0.25 for gptaq, else none",
          in_range(-1, 1));
    visit("asymmetry_damp", self.asymmetry_damp,
          "damping of the asymmetric correction, as a share of the Hessian's mean diagonal", in_range(1e-6, 100));
    visit(
        "target_bpw", self.target_bpw,
        "bits a weight of the linears, scales counted: what lies over the plain 4 bits is spent on 8-bit linears where "
        "rounding is measured to hurt most; 0 = none",
        in_range(0, 8.5));
    visit("embeddings", self.embeddings,
          "bits of the table and the head in the exported file; the folder keeps 16, which is all that its consumers "
          "load",
          one_of({"8", "16", "4"}));
    visit("fake_quant", self.fake_quant, "write the dequantized weights as plain safetensors, in float32", any());
    visit("calibration", self.calibration,
          "text to fit to: .jsonl (Alpaca fields, messages or text) or plain text, or a mixture a.jsonl:0.5,b.txt:0.5; "
          "in a recipe `synth` is the run's own pairs, the default",
          any());
    visit("sequences", self.sequences, "calibration sequences", in_range(1, 1e6));
    visit("sequence_length", self.sequence_length, "tokens of a calibration sequence, at most", in_range(8, 1e6));
    visit("memory", self.memory,
          "what the process may take, such as 4GiB: activations that do not fit are computed twice; auto = 1 GiB, or "
          "what a layer of the model needs",
          any());
    visit("for", self.consumers,
          "who shall load the result: vllm, llama.cpp, edge (several with commas); refuses before the work what their "
          "kernels do",
          any());
    visit("dequantize", self.dequantize, "take a model that is in 4 bits already as the source", any());
  }
};

struct ExportConfig {
  std::string format = "gguf";
  std::string weights = "auto";
  std::string embeddings = "auto";
  std::string consumers = {};

  template <class Self, class Visitor>
  static void fields(Self& self, Visitor& visit) {
    visit("format", self.format,
          "gguf for potstill-edge, llama.cpp and Ollama; compressed-tensors or gptq (versions 1 and 2 of its zero "
          "points) for transformers, vLLM and GPTQModel; safetensors = dequantized, in float32, for anything",
          one_of({"gguf", "compressed-tensors", "gptq", "gptq-v2", "safetensors"}));
    visit("weights", self.weights,
          "GGUF type of the linears; auto = q4_0 (q4_1 with zero points) for a 4-bit model, else f16",
          one_of({"auto", "q4_0", "q4_1", "q8_0", "f16", "bf16"}));
    visit("embeddings", self.embeddings,
          "GGUF type of the embedding table and the head; auto = what `quantize --embeddings` said, else q8_0",
          one_of({"auto", "q4_0", "q8_0", "f16", "bf16"}));
    visit("for", self.consumers, "who shall load the file: vllm, llama.cpp, edge (several with commas); checked before",
          any());
  }
};

}  // namespace potstill
