#include "potstill/quant/module_row.h"

#include "potstill/nn/decoder_layer.h"

namespace potstill {

std::string ModuleRow::path() const { return linear_path(layer, module); }

nlohmann::ordered_json ModuleRow::to_json() const {
  nlohmann::ordered_json json;
  fields(*this, [&](const char* name, const auto& value) { json[name] = value; });
  return json;
}

ModuleRow ModuleRow::from_json(const nlohmann::json& json) {
  ModuleRow row;
  fields(row, [&](const char* name, auto& value) {
    const auto& stored = json.at(name);
    if (!stored.is_null()) stored.get_to(value);  // JSON has no infinity
  });
  return row;
}

}  // namespace potstill
