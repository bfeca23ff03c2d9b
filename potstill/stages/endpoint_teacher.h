// A teacher behind an endpoint: what it says of the answers' tokens, as a sparse knowledge cache.
#pragma once

#include <filesystem>
#include <string>

#include "potstill/distill/distill_config.h"
#include "potstill/stages/artifact.h"

namespace potstill {

// Asks an OpenAI-compatible endpoint (vLLM's prompt_logprobs, or echo with logprobs, whichever it has) about every pair
// and writes a top-k cache (distill/top_k_cache.h). The pairs are rendered and cut into tokens here, by the tokenizer
// and chat template of `tokenizer` (a model folder or GGUF); what the endpoint reads is compared with it, token by
// token, and refused where they differ. Answers are kept as they come: a killed pass, or one whose budget was spent,
// pays nothing twice.
void teach_by_endpoint(const std::string& url, const std::filesystem::path& tokenizer,
                       const std::filesystem::path& data_path, const TeachConfig& config,
                       const DistillDataConfig& data_config, ArtifactWriter& out);

}  // namespace potstill
