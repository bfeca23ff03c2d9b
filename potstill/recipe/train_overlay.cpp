#include "potstill/recipe/train_overlay.h"

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/recipe/yaml_fields.h"

namespace potstill {

DistillConfig read_train_overlay(const std::filesystem::path& file, DistillConfig train) {
  const std::string text = read_file(file), name = file.string();
  try {
    const YAML::Node root = YAML::Load(text);
    if (!root.IsMap() || !root["train"].IsDefined()) {
      throw Error(ErrorKind::kUsage, name, "has no [train] section", "give the best.yaml of a search, or a recipe");
    }
    read_section(root["train"], name, "train", train);
  } catch (const YAML::Exception& error) {
    throw Error(ErrorKind::kUsage, fmt::format("{}:{}", name, error.mark.line + 1),
                fmt::format("is not valid YAML: {}", error.msg));
  }
  return train;
}

}  // namespace potstill
