// The page that shows a run or a study: report/page.html with plotly.js, the sections' scripts and the data inside, one
// file that opens offline.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

namespace potstill {

// Writes `path` whole or not at all. Each script of report/ draws its section from its part of `data` and nothing when
// that part is absent, so a new section is one more script and one more key.
void write_report_page(const std::filesystem::path& path, const nlohmann::ordered_json& data);

}  // namespace potstill
