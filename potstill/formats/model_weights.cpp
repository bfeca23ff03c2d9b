#include "potstill/formats/model_weights.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <set>

#include "potstill/base/error.h"
#include "potstill/formats/ggml_blocks.h"

namespace potstill {

void check_weights(const ModelConfig& config, const WeightSource& source) {
  std::set<std::string, std::less<>> expected;
  for (auto& [name, shape] : expected_weights(config)) {
    const WeightInfo& found = source.require(name);
    if (found.shape != shape) {
      throw Error(ErrorKind::kFormat, source.where(),
                  fmt::format("tensor '{}' is [{}] but the config makes it [{}]", name, fmt::join(found.shape, ", "),
                              fmt::join(shape, ", ")),
                  "config and weights are of different models");
    }
    if (!is_decodable(found.dtype)) {
      throw Error(ErrorKind::kFormat, source.where(),
                  fmt::format("tensor '{}' is {}, which holds no weights", name, dtype_name(found.dtype)),
                  "supported: F64, F32, F16, BF16 and, in GGUF, Q8_0, Q4_1, Q4_0");
    }
    expected.insert(std::move(name));
  }
  for (const WeightInfo& weight : source.weights()) {
    if (expected.contains(weight.name)) continue;
    throw Error(ErrorKind::kFormat, source.where(),
                fmt::format("tensor '{}' is not part of a {} model of {} layers", weight.name, config.model_type,
                            config.num_hidden_layers),
                "config and weights are of different models");
  }
}

}  // namespace potstill
