// Task files: what D_gen is about, in YAML.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "potstill/synth/synth_config.h"
#include "potstill/synth/task_config.h"

namespace potstill {

// Reads and checks a task. Throws Error(kIo) when there is no such file, Error(kUsage) with file and line for an
// unknown key, a wrong type or range, and for a task that cannot work (no seeds, a rating without a question, …).
Task read_task(const std::filesystem::path& path);

// The task as a run has it: with the seeds that config.seeds or the file's seed_rows name added (which rows, `seed`
// draws), about one subject where config.subject names one, and about config.documents where it names a folder of them.
// The passages themselves are the caller's to read (synth/documents.h).
Task read_task(const std::filesystem::path& path, const SynthConfig& config, uint64_t seed);

// Rows of a JSONL file as seeds, by the fields that task.seed_rows names: as many as its limit, drawn by the seed, of
// those that have as many options as the task. Throws Error(kIo | kInput) with file and line.
std::vector<TaskSeed> read_seed_rows(const std::filesystem::path& file, const Task& task, uint64_t seed);

// Where a task named on the command line or in a recipe is: as given; beside the recipe; or "<name>.yaml" in
// recipes/tasks of the recipe's folder, the working directory, the installation or the source tree. Throws Error(kIo)
// with the places that were looked at, and the names of the tasks there.
std::filesystem::path find_task(const std::filesystem::path& named, const std::filesystem::path& recipe_folder = {});

// The same, and "mmlu_high_school_physics" is the task mmlu about that subject: config.subject is set.
std::filesystem::path find_task(const std::filesystem::path& named, const std::filesystem::path& recipe_folder,
                                SynthConfig& config);

}  // namespace potstill
