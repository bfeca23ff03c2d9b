// What a model reads of a pair, as text: shown before a run, so that a wrong chat template is seen.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "potstill/distill/records.h"

namespace potstill {

// The record's tokens as text, its answer tokens (those that are learnt) between "⟦" and "⟧".
std::string rendered_sample(const DistillRecord& record, const Tokenizer& tokenizer);

// Of the first two records.
nlohmann::json rendered_samples(const DistillData& data, const Tokenizer& tokenizer);

// Logs the samples of a student and, where its text differs (cross-tokenizer runs), those that the teacher read.
void log_samples(const nlohmann::json& student, const nlohmann::json& teacher);

}  // namespace potstill
