#include "potstill/distill/setup.h"

namespace potstill {

DistillSetup open_distill_setup(const std::filesystem::path& student, const std::filesystem::path& cache,
                                const std::filesystem::path& data, const DistillDataConfig& config,
                                const std::string& dtype, const std::string& device, uint64_t seed) {
  const at::Device where = compute_device(device);
  const at::ScalarType type = compute_dtype(dtype, where);
  DistillSetup setup{.package = open_model(student), .student = {}, .data = {}, .teacher = nullptr};
  setup.teacher = std::make_unique<KnowledgeCache>(cache, type, where);
  require_same_tokenizer(*setup.package.tokenizer, student.string(), setup.teacher->tokenizer(), cache.string());
  setup.data = load_distill_data(data, *setup.package.tokenizer, setup.package.chat_template, config, seed);
  setup.teacher->require_data(setup.data);
  setup.student = load_transformer(setup.package, type, where);
  return setup;
}

}  // namespace potstill
