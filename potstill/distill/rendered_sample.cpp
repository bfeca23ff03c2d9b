#include "potstill/distill/rendered_sample.h"

#include <algorithm>

#include "potstill/base/log.h"

namespace potstill {

std::string rendered_sample(const DistillRecord& record, const Tokenizer& tokenizer) {
  std::string text;
  for (size_t begin = 0; begin < record.tokens.size();) {
    size_t end = begin;
    while (end < record.tokens.size() && record.is_answer[end] == record.is_answer[begin]) ++end;
    const auto part = tokenizer.decode(std::span(record.tokens).subspan(begin, end - begin));
    text += record.is_answer[begin] ? "⟦" + part + "⟧" : part;
    begin = end;
  }
  return text;
}

nlohmann::json rendered_samples(const DistillData& data, const Tokenizer& tokenizer) {
  nlohmann::json samples = nlohmann::json::array();
  for (size_t i = 0; i < std::min<size_t>(2, data.records.size()); ++i) {
    samples.push_back(rendered_sample(data.records[i], tokenizer));
  }
  return samples;
}

void log_samples(const nlohmann::json& student, const nlohmann::json& teacher) {
  const bool same = student == teacher;
  const auto show = [](const char* who, const nlohmann::json& samples) {
    log_info("{} of the first pairs (learnt: between ⟦ and ⟧)", who);
    for (const auto& sample : samples) log_info("----\n{}", sample.get<std::string>());
    log_info("----");
  };
  show(same ? "what teacher and student read" : "what the student reads", student);
  if (!same && !teacher.is_null()) show("what the teacher read", teacher);
}

}  // namespace potstill
