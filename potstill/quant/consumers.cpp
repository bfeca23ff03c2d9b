#include "potstill/quant/consumers.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "potstill/base/error.h"
#include "potstill/base/log.h"

namespace potstill {
namespace {

// vLLM, model_executor/layers/quantization/utils/marlin_utils.py: MARLIN_SUPPORTED_GROUP_SIZES (and −1, a whole row),
// GPTQ_MARLIN_MIN_THREAD_N, GPTQ_MARLIN_MIN_THREAD_K
constexpr int64_t kMarlinGroups[] = {32, 64, 128};
constexpr int64_t kMarlinOutputs = 64, kMarlinInputs = 128;
constexpr int64_t kGgmlBlock = 32;

constexpr std::array<std::pair<std::string_view, Consumer>, 3> kNames{
    {{"vllm", Consumer::kVllm}, {"llama.cpp", Consumer::kLlamaCpp}, {"edge", Consumer::kEdge}}};

struct Shape {
  const char* names;
  int64_t outputs, inputs;
};
std::vector<Shape> shapes_of(const ModelConfig& m) {
  return {{"q_proj", m.q_size(), m.hidden_size},
          {"k_proj and v_proj", m.kv_size(), m.hidden_size},
          {"o_proj", m.hidden_size, m.q_size()},
          {"gate_proj and up_proj", m.intermediate_size, m.hidden_size},
          {"down_proj", m.hidden_size, m.intermediate_size}};
}

void add_vllm(const ModelConfig& model, const ConsumerPlan& plan, std::vector<Refusal>& found) {
  const auto add = [&](std::string what, std::string instead, bool slow_only = false) {
    found.push_back({"vllm", std::move(what), std::move(instead), slow_only});
  };
  if (plan.format == "gguf") add("runs GGUF by an experimental loader alone", "--format compressed-tensors");
  if (!plan.quantized || plan.format == "safetensors") return;
  if (plan.format == "gptq-v2") {
    add("takes the second version of GPTQ's layout for the first in older releases", "--format compressed-tensors",
        true);
  }
  bool group_fits = plan.group_size == 0;
  for (const int64_t group : kMarlinGroups) group_fits = group_fits || plan.group_size == group;
  if (!group_fits) {
    add(fmt::format("has no kernel for groups of {}", plan.group_size), "--group-size 128, 64, 32 or channel");
  }
  if (!plan.symmetric && plan.bits == 8) add("has no kernel for 8 bits with zero points", "--symmetric");
  for (const auto& shape : shapes_of(model)) {
    if (shape.inputs % kMarlinInputs == 0 && shape.outputs % kMarlinOutputs == 0) continue;
    add(fmt::format("{} is [{}, {}], and its fast kernel (Marlin) works on {} outputs by {} inputs at a time",
                    shape.names, shape.outputs, shape.inputs, kMarlinOutputs, kMarlinInputs),
        "it pads the weights or falls back to a slower kernel; the model's widths decide this, not the quantization",
        true);
    break;
  }
}

// ggml's blocks, which llama.cpp and potstill-edge both run, lie along the inputs.
void add_block_widths(const char* consumer, const ModelConfig& model, std::vector<Refusal>& found) {
  for (const int64_t width : {model.hidden_size, model.q_size(), model.intermediate_size}) {
    if (width % kGgmlBlock == 0) continue;
    found.push_back({consumer, fmt::format("a width of {} is no multiple of its blocks of {}", width, kGgmlBlock),
                     "export in f16"});
    return;
  }
}

void add_llama_cpp(const ModelConfig& model, const ConsumerPlan& plan, std::vector<Refusal>& found) {
  const auto add = [&](std::string what, std::string instead, bool slow_only = false) {
    found.push_back({"llama.cpp", std::move(what), std::move(instead), slow_only});
  };
  if (!plan.format.empty() && plan.format != "gguf") add("loads GGUF alone", "--format gguf");
  if (!plan.quantized) return;
  if (plan.group_size % kGgmlBlock != 0) {
    add(fmt::format("stores blocks of {}, which groups of {} do not fill", kGgmlBlock, plan.group_size),
        "--group-size 128, 64 or 32");
  }
  if (plan.bits == 8 && !plan.symmetric) add("has no 8-bit block with a zero point", "--symmetric");
  if (plan.bits == 4 && !plan.symmetric) {
    add("stores zero points as Q4_1: 5 bits a weight, rounded once more, and not repacked for speed",
        "--symmetric, which Q4_0 holds losslessly in 4.5", true);
  }
  add_block_widths("llama.cpp", model, found);
}

void add_edge(const ModelConfig& model, const ConsumerPlan& plan, std::vector<Refusal>& found) {
  const auto add = [&](std::string what, std::string instead, bool slow_only = false) {
    found.push_back({"edge", std::move(what), std::move(instead), slow_only});
  };
  if (plan.format == "safetensors" && plan.quantized) {
    add("runs dequantized weights at eight times the bytes", "--format gguf", true);
  }
  if (!plan.quantized) return;
  if (plan.group_size % kGgmlBlock != 0) {
    add(fmt::format("runs groups that are multiples of {}, not {}", kGgmlBlock, plan.group_size),
        "--group-size 128, 64 or 32");
  }
  if (plan.bits == 8 && !plan.symmetric) add("has no 8-bit kernel with zero points", "--symmetric");
  add_block_widths("edge", model, found);
}

}  // namespace

std::vector<Consumer> parse_consumers(std::string_view text) {
  std::vector<Consumer> consumers;
  for (size_t begin = 0; begin < text.size();) {
    const size_t comma = std::min(text.find(',', begin), text.size());
    const std::string_view name = text.substr(begin, comma - begin);
    bool known = false;
    for (const auto& [word, consumer] : kNames) {
      if (name != word) continue;
      consumers.push_back(consumer);
      known = true;
    }
    if (!known) {
      throw Error(ErrorKind::kUsage, "for", fmt::format("there is no consumer '{}'", name),
                  "vllm, llama.cpp and edge, several with commas");
    }
    begin = comma + 1;
  }
  return consumers;
}

std::vector<Refusal> refusals(const ModelConfig& model, const ConsumerPlan& plan,
                              const std::vector<Consumer>& consumers) {
  std::vector<Refusal> found;
  for (const Consumer consumer : consumers) {
    switch (consumer) {
      case Consumer::kVllm:
        add_vllm(model, plan, found);
        break;
      case Consumer::kLlamaCpp:
        add_llama_cpp(model, plan, found);
        break;
      case Consumer::kEdge:
        add_edge(model, plan, found);
        break;
    }
  }
  return found;
}

void require_consumers(const ModelConfig& model, const ConsumerPlan& plan, std::string_view consumers,
                       std::string_view where) {
  std::string what, hint;
  for (const auto& refusal : refusals(model, plan, parse_consumers(consumers))) {
    if (refusal.slow_only) {
      log_warning("{}: {} ({})", refusal.consumer, refusal.what, refusal.instead);
      continue;
    }
    what += fmt::format("{}{} {}", what.empty() ? "" : "; ", refusal.consumer, refusal.what);
    hint += fmt::format("{}{}: {}", hint.empty() ? "" : "; ", refusal.consumer, refusal.instead);
  }
  if (!what.empty()) throw Error(ErrorKind::kUsage, where, what, hint);
}

}  // namespace potstill
