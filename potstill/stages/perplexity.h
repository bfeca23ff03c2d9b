// Perplexity of a model on a text file, for the command of that name; free of LibTorch.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

namespace potstill {

struct PerplexityInputs {
  std::filesystem::path model, text;
  int64_t context = 512, score_from = 1, limit_tokens = 0;
  std::string dtype = "auto", device = "auto";
};

// {"perplexity": …, "mean_nll": …, "scored_tokens": …}
nlohmann::ordered_json perplexity_of_file(const PerplexityInputs& inputs);

}  // namespace potstill
