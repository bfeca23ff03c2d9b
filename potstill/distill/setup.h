// What distillation works on, opened and checked: the student, the pairs in its chat format, the teacher's knowledge.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "potstill/distill/distill_config.h"
#include "potstill/distill/knowledge.h"
#include "potstill/distill/records.h"
#include "potstill/lm/model_package.h"
#include "potstill/nn/transformer.h"

namespace potstill {

struct DistillSetup {
  ModelPackage package;  // the student's; keeps its mapped weights alive
  Transformer student;
  DistillData data;
  std::unique_ptr<TeacherSignal> teacher;
  std::string teacher_summary;  // knowledge_summary()
  bool plain_pairs = false;     // read without the chat template
};

// Tokenizers and data are compared with the cache before a weight is read, and two pairs are logged as they are read.
// dtype, device: "auto" and the others of compute_dtype() and compute_device(). The seed chooses the held-out pairs
// where the data does not name them.
DistillSetup open_distill_setup(const std::filesystem::path& student, const std::filesystem::path& cache,
                                const std::filesystem::path& data, const DistillDataConfig& config,
                                const std::string& dtype, const std::string& device, uint64_t seed);

}  // namespace potstill
