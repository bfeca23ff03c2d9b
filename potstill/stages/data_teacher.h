// The data teacher or critic that a path or address names, opened: an endpoint, LibTorch, or the edge runtime.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "potstill/lm/language_model.h"
#include "potstill/lm/openai_model.h"
#include "potstill/synth/synth_config.h"

namespace potstill {

struct DataTeacherSource {
  std::string path_or_url;
  std::string model;                                      // of an endpoint
  const char* key_variable = "POTSTILL_TEACHER_API_KEY";  // where an endpoint's key comes from
  std::string dtype = "auto", device = "auto";
};

struct DataTeacher {
  std::unique_ptr<LanguageModel> model;
  OpenAiModel* endpoint = nullptr;  // the same, where it is one
  std::string revision;             // of the weights: their fingerprint, or an endpoint's address and model
  std::string identity() const { return model->name() + " " + revision; }
};

// Throws Error(kIo | kFormat | kUsage).
DataTeacher open_data_teacher(const DataTeacherSource& source, const SynthConfig& config);

}  // namespace potstill
