#include "potstill/distill/checkpoint.h"

#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"
#include "potstill/base/log.h"
#include "potstill/formats/safetensors.h"
#include "potstill/nn/tensor_bridge.h"

namespace potstill {
namespace {

std::filesystem::path file_in(const std::filesystem::path& folder) { return folder / "checkpoint.safetensors"; }

}  // namespace

void save_checkpoint(const std::filesystem::path& folder, const TrainCheckpoint& checkpoint) {
  std::filesystem::create_directories(folder);
  std::vector<at::Tensor> kept;
  std::vector<TensorSpec> specs;
  for (const auto& [name, tensor] : checkpoint.tensors) {
    kept.push_back(tensor.detach().cpu().contiguous());
    specs.push_back({name, dtype_of(tensor.scalar_type()), tensor.sizes().vec()});
  }
  SafetensorsWriter writer(file_in(folder), specs,
                           {{"work", checkpoint.work}, {"state", to_json_line(checkpoint.state)}});
  for (size_t i = 0; i < kept.size(); ++i) {
    writer.append(specs[i].name, view_of_tensor(specs[i].name, kept[i]).bytes);
  }
  writer.finish();
}

std::optional<TrainCheckpoint> load_checkpoint(const std::filesystem::path& folder, const std::string& work) {
  const auto path = file_in(folder);
  if (!std::filesystem::exists(path)) return std::nullopt;
  const SafetensorsFile file(path);
  const auto saved_work = file.metadata().find("work"), state = file.metadata().find("state");
  if (saved_work == file.metadata().end() || state == file.metadata().end()) {
    throw Error(ErrorKind::kFormat, path.string(), "is no training checkpoint", "delete it to start afresh");
  }
  if (saved_work->second != work) {
    log_info("{} is of other settings or data; training starts afresh", path.string());
    return std::nullopt;
  }
  TrainCheckpoint checkpoint{.work = work, .state = parse_json(state->second, path.string()), .tensors = {}};
  for (const TensorView& view : file.tensors())
    checkpoint.tensors.push_back({view.name, tensor_from_view(view).clone()});
  return checkpoint;
}

}  // namespace potstill
