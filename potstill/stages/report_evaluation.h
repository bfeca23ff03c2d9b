// The report's comparisons of a run's models on the rows of its benchmarks.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

namespace potstill {

// [comparison_to_json(…)], at most 40 flips each: what distilling did (S1 to S'), what 4 bits did (S' to S''), and the
// method against GPTQ alone (S1 + GPTQ to S''). Empty where `evaluation` does not exist or scored no benchmark.
nlohmann::ordered_json evaluation_comparisons(const std::filesystem::path& evaluation);

}  // namespace potstill
