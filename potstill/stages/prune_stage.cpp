#include "potstill/stages/prune_stage.h"

#include <fmt/format.h>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/base/log.h"
#include "potstill/nn/prune.h"

namespace potstill {
namespace {

PrunePlan make_plan(const ModelPackage& model, const PruneInputs& inputs, const PruneConfig& config) {
  if (!config.keep.empty()) return plan_by_hand(model, config.keep);
  const std::string text = config.text.empty() ? std::string(prune_calibration_text()) : read_file(config.text);
  Progress progress("prune", 0, "layers");
  PruneOptions options{.dtype = inputs.dtype, .device = inputs.device, .tokens = config.tokens, .progress = {}};
  options.progress = [&](int64_t, int64_t) { progress.advance(); };
  PrunePlan plan = plan_by_influence(model, config.layers, text, options);
  progress.finish();
  return plan;
}

}  // namespace

StageKey prune_key(const PruneInputs& inputs, const PruneConfig& config, uint64_t seed) {
  StageKey key{.stage = "prune", .config = config_to_json(config), .inputs = {{"model", inputs.model}}, .seed = seed};
  key.config["compute_dtype"] = inputs.dtype;
  if (!config.text.empty()) key.inputs.push_back({"text", config.text});
  return key;
}

void run_prune_stage(const PruneInputs& inputs, const PruneConfig& config, ArtifactWriter& out) {
  if ((config.layers > 0) == !config.keep.empty()) {
    throw Error(ErrorKind::kUsage, "prune",
                config.layers > 0 ? "both 'layers' and 'keep' are given" : "neither 'layers' nor 'keep' is given",
                "say how many layers to keep (--layers 20), or which (--keep 0,1,2)");
  }
  const ModelPackage model = open_model(inputs.model);
  const PrunePlan plan = make_plan(model, inputs, config);
  write_pruned(model, plan, config.dtype, out.folder());

  ModelConfig child = model.config;
  child.num_hidden_layers = static_cast<int64_t>(plan.keep.size());
  out.record("source_layers", model.config.num_hidden_layers);
  out.record("keep", plan.keep);
  out.record("removed", plan.removed);
  out.record("influence", plan.influence);
  out.record("calibration_tokens", plan.calibration_tokens);
  out.record("parameters", num_parameters(child));
}

}  // namespace potstill
