#include "potstill/stages/merge_stage.h"

#include "potstill/base/log.h"
#include "potstill/nn/merge.h"

namespace potstill {

StageKey merge_key(const MergeInputs& inputs) {
  return {.stage = "merge",
          .config = {{"dtype", inputs.dtype}},
          .inputs = {{"model", inputs.model}, {"adapter", inputs.adapter}},
          .seed = 0};
}

void run_merge_stage(const MergeInputs& inputs, ArtifactWriter& out) {
  const ModelPackage base = open_model(inputs.model);
  const MergeReport report = merge_adapter(base, inputs.adapter, {.dtype = inputs.dtype}, out.folder());
  if (report.rounding_loss > 0.3) {
    log_warning("rounding to {} loses {:.0f} % of the adapter's update; --dtype fp32 keeps it all", report.dtype,
                100 * report.rounding_loss);
  }
  out.record("merged_weights", report.merged);
  out.record("adapter_pairs", report.expected);
  out.record("dtype", report.dtype);
  out.record("update_norm", report.update_norm);
  out.record("rounding_loss", report.rounding_loss);
  out.record("proof", {{"max_logit_difference", report.max_logit_difference},
                       {"rms_logit_difference", report.rms_logit_difference},
                       {"rms_adapter_effect", report.rms_adapter_effect},
                       {"probe_tokens", report.probe_tokens}});
}

}  // namespace potstill
