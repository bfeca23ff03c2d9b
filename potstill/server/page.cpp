#include "potstill/server/page.h"

extern "C" {
extern const char potstill_page_html[], potstill_page_html_end[];
extern const char potstill_page_js[], potstill_page_js_end[];
extern const char potstill_page_css[], potstill_page_css_end[];
}

namespace potstill::server {

std::optional<HttpResponse> page_file(std::string_view path) {
  HttpResponse response;
  if (path == "/") {
    response.content_type = "text/html; charset=utf-8";
    response.body.assign(potstill_page_html, potstill_page_html_end);
  } else if (path == "/chat.js") {
    response.content_type = "text/javascript; charset=utf-8";
    response.body.assign(potstill_page_js, potstill_page_js_end);
  } else if (path == "/chat.css") {
    response.content_type = "text/css; charset=utf-8";
    response.body.assign(potstill_page_css, potstill_page_css_end);
  } else {
    return std::nullopt;
  }
  // The page talks with this server and nobody else, whatever an answer of the model says.
  response.headers = {{"Content-Security-Policy",
                       "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
                       "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
                      {"Referrer-Policy", "no-referrer"},
                      {"Cache-Control", "no-cache"}};
  return response;
}

}  // namespace potstill::server
