#include "potstill/distill/tensor_files.h"

#include "potstill/formats/safetensors.h"
#include "potstill/nn/tensor_bridge.h"

namespace potstill {

void write_tensors(const std::filesystem::path& path, const std::vector<std::pair<std::string, at::Tensor>>& tensors) {
  std::vector<TensorSpec> specs;
  for (const auto& [name, tensor] : tensors)
    specs.push_back({name, dtype_of(tensor.scalar_type()), tensor.sizes().vec()});
  SafetensorsWriter writer(path, specs);
  for (const auto& [name, tensor] : tensors) writer.append(name, view_of_tensor(name, tensor).bytes);
  writer.finish();
}

}  // namespace potstill
