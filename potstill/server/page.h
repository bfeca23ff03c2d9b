// The chat page: three files inside the program, so that it works with no network and no folder beside it.
#pragma once

#include <optional>
#include <string_view>

#include "potstill/server/http_server.h"

namespace potstill::server {

// The answer for "/", "/chat.js" and "/chat.css"; nothing for other paths.
std::optional<HttpResponse> page_file(std::string_view path);

}  // namespace potstill::server
