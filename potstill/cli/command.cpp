#include "potstill/cli/command.h"

#include <fmt/format.h>

#include <cstdio>

namespace potstill {

void print_result(const GlobalOptions& global, const nlohmann::ordered_json& result, const std::string& text) {
  if (global.json) {
    fmt::print("{}\n", result.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
  } else if (!text.empty()) {
    fmt::print("{}\n", text);
  }
  std::fflush(stdout);
}

}  // namespace potstill
