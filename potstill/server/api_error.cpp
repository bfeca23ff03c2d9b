#include "potstill/server/api_error.h"

namespace potstill::server {
namespace {

const char* type_of(int status) {
  if (status == 401) return "authentication_error";
  if (status == 403) return "permission_error";
  if (status == 404) return "not_found_error";
  if (status == 503) return "overloaded_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}

}  // namespace

std::string dump(const nlohmann::ordered_json& json) {
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

nlohmann::ordered_json error_json(const ApiError& error) {
  const auto text_or_null = [](const std::string& text) {
    return text.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(text);
  };
  return {{"error",
           {{"message", error.what()},
            {"type", type_of(error.status)},
            {"param", text_or_null(error.param)},
            {"code", text_or_null(error.code)}}}};
}

HttpResponse error_response(const ApiError& error) {
  HttpResponse response;
  response.status = error.status;
  response.body = dump(error_json(error));
  return response;
}

ApiError api_error(const Error& error) {
  std::string message = error.what();
  for (size_t line; (line = message.find("\n  hint: ")) != std::string::npos;) message.replace(line, 9, "; ");
  switch (error.kind()) {
    case ErrorKind::kUsage:
    case ErrorKind::kInput:
    case ErrorKind::kFormat:
      return ApiError(400, message);
    case ErrorKind::kMemory:
      return ApiError(503, "out of memory; ask for a shorter answer or later");
    default:
      return ApiError(500, "the model failed; the server's log says more");
  }
}

}  // namespace potstill::server
