// A GGUF of random weights in the shape of a well-known model: for measuring speed where memory dominates, without the
// model itself.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace potstill::edge {

// Writes a model of the shape "135m" (SmolLM2), "1b", "3b" (Llama 3.2) or "8b" (Llama 3.1): Q4_0 with the table in
// Q8_0, an untied head where the original has one. Any program that reads GGUF loads it; it says nothing that has
// sense. Throws Error(kUsage) for another name, Error(kIo).
void write_random_model(std::string_view shape, const std::filesystem::path& path);
std::string random_model_shapes();  // "135m, 1b, 3b, 8b"

}  // namespace potstill::edge
