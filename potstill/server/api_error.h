// ApiError: what a client did wrong, as OpenAI's API words it: status, and {"error": {message, type, param, code}}.
#pragma once

#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

#include "potstill/base/error.h"
#include "potstill/server/http_server.h"

namespace potstill::server {

class ApiError : public std::runtime_error {
 public:
  // param: the field at fault ("messages[1].content"), or ""; code: a word for programs, or "".
  ApiError(int error_status, const std::string& message, std::string error_param = {}, std::string error_code = {})
      : std::runtime_error(message), status(error_status), param(std::move(error_param)), code(std::move(error_code)) {}

  const int status;
  const std::string param, code;
};

nlohmann::ordered_json error_json(const ApiError& error);
HttpResponse error_response(const ApiError& error);
// A library's error as a client sees it: what it did wrong is told, our own trouble is only named.
ApiError api_error(const Error& error);

// JSON text, whatever bytes are in it.
std::string dump(const nlohmann::ordered_json& json);

}  // namespace potstill::server
