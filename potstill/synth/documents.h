// A folder of documents as subtopics: every passage is a fact for the teacher to write about.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "potstill/synth/task_config.h"

namespace potstill {

// Passages of all .txt and .md files below `folder`, in the order of their paths. A passage is whole paragraphs of one
// section, about `passage_words` words; longer paragraphs are cut between sentences. A section's subtopic is the file's
// path in the folder, and after "#" its heading; code blocks, tables and links' addresses are left out. Throws
// Error(kIo | kInput) when the folder cannot be read or holds no passage.
std::vector<Subtopic> read_documents(const std::filesystem::path& folder, int64_t passage_words);

}  // namespace potstill
