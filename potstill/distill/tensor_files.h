// A few whole tensors as a safetensors file.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace potstill {

// Contiguous CPU tensors under their names; the file appears whole or not at all.
void write_tensors(const std::filesystem::path& path, const std::vector<std::pair<std::string, at::Tensor>>& tensors);

}  // namespace potstill
