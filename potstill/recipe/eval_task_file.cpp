#include "potstill/recipe/eval_task_file.h"

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/recipe/yaml_fields.h"

namespace potstill {

bool is_eval_task_file(const std::filesystem::path& name) {
  return name.extension() == ".yaml" || name.extension() == ".yml";
}

OwnTaskConfig read_eval_task(const std::filesystem::path& path) {
  const std::string text = read_file(path), file = path.string();
  OwnTaskConfig config;
  try {
    read_section(YAML::Load(text), file, "task", config);
  } catch (const YAML::Exception& error) {
    throw Error(ErrorKind::kUsage, fmt::format("{}:{}", file, error.mark.line + 1),
                fmt::format("is not valid YAML: {}", error.msg));
  }
  const auto beside = [&](const std::filesystem::path& rows) {
    return rows.empty() || rows.is_absolute() ? rows : path.parent_path() / rows;
  };
  config.rows = beside(config.rows);
  config.fewshot_rows = beside(config.fewshot_rows);
  return config;
}

}  // namespace potstill
