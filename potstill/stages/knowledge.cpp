#include "potstill/stages/knowledge.h"

#include "potstill/base/error.h"
#include "potstill/base/log.h"
#include "potstill/distill/knowledge.h"
#include "potstill/distill/teach.h"
#include "potstill/lm/http_client.h"

namespace potstill {

namespace fs = std::filesystem;

fs::path knowledge_of(const fs::path& student_path, const fs::path& teacher_path, const fs::path& data_path,
                      const DistillDataConfig& data_config, const std::string& dtype, const std::string& device,
                      ArtifactWriter& out) {
  if (is_endpoint(teacher_path.string())) {
    throw Error(ErrorKind::kUsage, teacher_path.string(), "is an endpoint, whose knowledge must be kept first",
                "potstill teach --teacher URL --teacher-model NAME --tokenizer STUDENT --data PAIRS --out CACHE");
  }
  if (is_knowledge_cache(teacher_path)) return teacher_path;
  const fs::path cache = out.work_file("knowledge"), partial = out.work_file("knowledge.partial");
  if (fs::exists(cache)) return cache;
  fs::remove_all(partial);
  fs::create_directories(partial);
  const ModelPackage teacher = open_model(teacher_path);
  require_fitting_tokenizer(open_model(student_path), *teacher.tokenizer, teacher_path.string(), data_config);
  const DistillData data =
      load_distill_data(data_path, *teacher.tokenizer, teacher.chat_template, data_config, out.seed());
  LayerStreamOptions options;
  options.device = compute_device(device);
  options.dtype = compute_dtype(dtype, options.device);
  log_info("reading the teacher's knowledge; `potstill teach` keeps it for other runs");
  write_knowledge_cache(teacher, data, {}, options, partial, out.work_file("hidden"));
  fs::rename(partial, cache);
  return cache;
}

}  // namespace potstill
