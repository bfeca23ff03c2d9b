#include "potstill/stages/deployed_student.h"

#include <algorithm>
#include <map>
#include <optional>

#include "potstill/nn/merge.h"
#include "potstill/quant/calibration.h"
#include "potstill/quant/packed_model.h"
#include "potstill/quant/quantize_model.h"

namespace potstill {
namespace {

// Enough to tell settings apart: the error of GPTQ on 64 short sequences is within a few percent of that on 128 long
// ones, at a fifth of the time.
constexpr int64_t kSequences = 64, kSequenceLength = 256;

LayerKeeper keep_layers_in_memory(std::map<int64_t, QuantizedLayer>& layers) {
  return {.load = [&](int64_t layer) -> std::optional<QuantizedLayer> {
            const auto found = layers.find(layer);
            return found == layers.end() ? std::nullopt : std::optional(found->second);
          },
          .save = [&](const QuantizedLayer& layer) { layers[layer.layer] = layer; }};
}

}  // namespace

Agreement measure_quantized(const LoraAdapter& adapter, const std::filesystem::path& student_path,
                            const DistillSetup& setup, const std::filesystem::path& pairs, const QuantizeConfig& config,
                            const std::filesystem::path& folder, uint64_t seed) {
  std::filesystem::remove_all(folder);
  for (const char* part : {"adapter", "merged", "packed"}) std::filesystem::create_directories(folder / part);
  save_adapter(adapter, student_path.string(), folder / "adapter");
  merge_adapter(setup.package, folder / "adapter", {}, folder / "merged");

  const ModelPackage merged = open_model(folder / "merged");
  QuantizeSettings settings = resolve_settings(config, merged.config);
  std::vector<std::vector<TokenId>> calibration;
  if (settings.needs_calibration()) {
    const CalibrationSource source{
        .path = pairs, .weight = 1.0, .plain = setup.plain_pairs, .left_out = held_out_lines(setup.data)};
    calibration = load_calibration(std::span(&source, 1), merged, std::min(config.sequences, kSequences),
                                   std::min(config.sequence_length, kSequenceLength), seed)
                      .sequences;
  }
  std::map<int64_t, QuantizedLayer> layers;
  LayerStreamOptions stream;
  stream.device = setup.student.device();
  stream.dtype = setup.student.dtype();
  plan_eight_bits(merged, calibration, stream, settings);
  quantize_model(merged, calibration, settings, stream, keep_layers_in_memory(layers));
  write_packed_model(merged, settings, keep_layers_in_memory(layers), folder / "packed");

  Agreement agreement;
  {
    const ModelPackage packed = open_model(folder / "packed");
    const Transformer student = load_transformer(packed, setup.student.dtype(), setup.student.device());
    agreement = measure_agreement(student, *setup.teacher, setup.data, setup.data.held_out);
  }
  std::filesystem::remove_all(folder);
  return agreement;
}

}  // namespace potstill
