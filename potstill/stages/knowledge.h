// A teacher's knowledge cache, wherever it has to come from.
#pragma once

#include <filesystem>
#include <string>

#include "potstill/distill/distill_config.h"
#include "potstill/stages/artifact.h"

namespace potstill {

// `teacher` itself when it is a cache; for a model, a cache of it made under work/, whole or not at all. The student's
// tokenizer is compared before the teacher is run.
std::filesystem::path knowledge_of(const std::filesystem::path& student, const std::filesystem::path& teacher,
                                   const std::filesystem::path& data, const DistillDataConfig& data_config,
                                   const std::string& dtype, const std::string& device, ArtifactWriter& out);

}  // namespace potstill
