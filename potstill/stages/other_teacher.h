// A teacher that speaks other ids than its student, made of the recipe's own: what the study of cross-tokenizer
// distillation needs, and what no vocabulary at hand would give without another model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "potstill/stages/artifact.h"

namespace potstill {

// The ways in which a teacher can differ; each is the name of what is made.
//   "other-ids"     the same function and the same pieces of text, under shuffled ids
//   "fewer-merges"  a tokenizer that learnt the first half of the merges: the same layers read and answer in shorter
//                   pieces
//   "misaligned"    reads the student's ids and answers in shuffled ones, while its tokenizer.json says that they are
//                   the student's: what a teacher of another vocabulary looks like to a program that compares no
//                   tokenizers. No check can see it, which is why it is made here and nowhere else.
StageKey other_teacher_key(const std::string& kind, const std::filesystem::path& teacher, uint64_t seed);

// Writes a Hugging Face folder. Throws Error(kUsage) for another kind, and what opening the teacher throws.
void run_other_teacher_stage(const std::string& kind, const std::filesystem::path& teacher, ArtifactWriter& out);

}  // namespace potstill
