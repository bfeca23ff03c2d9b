#include "potstill/stages/report_page.h"

#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "potstill/base/atomic_file.h"
#include "potstill/base/check.h"

// report_assets.S
extern "C" const char potstill_report_page[], potstill_report_page_end[], potstill_report_sections[],
    potstill_report_sections_end[], potstill_plotly[], potstill_plotly_end[];

namespace potstill {
namespace {

std::string_view asset(const char* begin, const char* end) { return {begin, static_cast<size_t>(end - begin)}; }

// JSON inside <script>: "</script>" in a pair's text must not end it.
std::string script_safe(std::string json) {
  for (size_t at = 0; (at = json.find("</", at)) != std::string::npos; at += 3) json.replace(at, 2, "<\\/");
  return json;
}

}  // namespace

void write_report_page(const std::filesystem::path& path, const nlohmann::ordered_json& data) {
  // In the order given, which tables keep; text that is no UTF-8 shows as U+FFFD.
  const std::string json = script_safe(data.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
  const std::array<std::pair<std::string_view, std::string_view>, 3> parts = {{
      {"/*POTSTILL_PLOTLY*/", asset(potstill_plotly, potstill_plotly_end)},
      {"/*POTSTILL_DATA*/", json},
      {"/*POTSTILL_SECTIONS*/", asset(potstill_report_sections, potstill_report_sections_end)},
  }};
  std::string_view page = asset(potstill_report_page, potstill_report_page_end);
  AtomicFile file(path);
  for (const auto& [mark, content] : parts) {
    const size_t at = page.find(mark);
    POTSTILL_CHECK(at != std::string_view::npos);
    file.write(page.substr(0, at));
    file.write(content);
    page.remove_prefix(at + mark.size());
  }
  file.write(page);
  file.commit();
}

}  // namespace potstill
