#include "potstill/stages/teach_stage.h"

#include "potstill/base/error.h"
#include "potstill/base/log.h"
#include "potstill/distill/knowledge.h"
#include "potstill/distill/rendered_sample.h"
#include "potstill/distill/teach.h"
#include "potstill/lm/http_client.h"
#include "potstill/stages/endpoint_teacher.h"

namespace potstill {

StageKey teach_key(const TeachInputs& inputs, const TeachConfig& config, const DistillDataConfig& data, uint64_t seed) {
  StageKey key{.stage = "teach",
               .config = config_to_json(config),
               .inputs = {{"teacher", inputs.teacher}, {"data", inputs.data}},
               .seed = seed};
  key.config["max_sequence_length"] = data.max_sequence_length;
  key.config["rendering"] = data.rendering;
  key.config["dtype"] = inputs.dtype;
  if (is_endpoint(inputs.teacher.string())) {
    // The address and the name stand for the weights: an endpoint does not show them.
    key.inputs[0] = {"tokenizer", config.tokenizer};
    key.config["teacher"] = inputs.teacher.string();
  }
  // What the knowledge does not depend on.
  for (const char* name : {"concurrency", "budget_tokens", "budget_cost", "prompt_price", "tokenizer"}) {
    key.config.erase(name);
  }
  key.config["device"] = inputs.device;
  return key;
}

void run_teach_stage(const TeachInputs& inputs, const TeachConfig& config, const DistillDataConfig& data_config,
                     ArtifactWriter& out) {
  if (is_endpoint(inputs.teacher.string())) {
    return teach_by_endpoint(inputs.teacher.string(), config.tokenizer, inputs.data, config, data_config, out);
  }
  const ModelPackage teacher = open_model(inputs.teacher);
  const DistillData data =
      load_distill_data(inputs.data, *teacher.tokenizer, teacher.chat_template, data_config, out.seed());
  LayerStreamOptions options;
  options.device = compute_device(inputs.device);
  options.dtype = compute_dtype(inputs.dtype, options.device);
  log_samples(rendered_samples(data, *teacher.tokenizer), {});
  Progress progress("teach", teacher.config.num_hidden_layers, "layers");
  int64_t shown = 0;
  options.progress = [&](int64_t done, int64_t) {
    progress.advance(done - shown);
    shown = done;
  };
  const CacheReport report =
      write_knowledge_cache(teacher, data, config, options, out.folder(), out.work_file("hidden"));
  progress.finish();
  out.record("pairs", report.records);
  out.record("tokens", report.tokens);
  out.record("answer_tokens", report.positions);
  out.record("left_out_as_too_long", data.too_long);
  out.record("knowledge", "exact");
  out.record("hidden_bytes", report.bytes);
  out.measure("resumed_at_layer", report.resumed_at);
  out.measure("tokens_per_batch", report.tokens_per_batch);
  out.record("arithmetic", at::toString(options.dtype));
  out.record("storage_error", {{"max_logit", report.error.max_logit},
                               {"rms_logit", report.error.rms_logit},
                               {"kl", report.error.kl},
                               {"positions", report.error.positions}});
}

}  // namespace potstill
