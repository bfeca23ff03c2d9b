#include "potstill/distill/setup.h"

#include "potstill/base/jsonl.h"
#include "potstill/base/log.h"
#include "potstill/distill/rendered_sample.h"

namespace potstill {

DistillSetup open_distill_setup(const std::filesystem::path& student, const std::filesystem::path& cache,
                                const std::filesystem::path& data, const DistillDataConfig& config,
                                const std::string& dtype, const std::string& device, uint64_t seed) {
  const at::Device where = compute_device(device);
  const at::ScalarType type = compute_dtype(dtype, where);
  DistillSetup setup{
      .package = open_model(student), .student = {}, .data = {}, .teacher = nullptr, .teacher_summary = {}};
  setup.data = load_distill_data(data, *setup.package.tokenizer, setup.package.chat_template, config, seed);
  const auto manifest = read_json_file(cache / "knowledge.json");
  setup.teacher = open_knowledge(cache, setup.package, setup.data, config, type, where);
  setup.teacher_summary = knowledge_summary(manifest, setup.teacher->quantity());
  setup.plain_pairs = config.rendering == "plain";
  log_samples(rendered_samples(setup.data, *setup.package.tokenizer), manifest.at("samples"));
  log_info("teacher's knowledge: {}", setup.teacher_summary);
  setup.student = load_transformer(setup.package, type, where);
  return setup;
}

}  // namespace potstill
