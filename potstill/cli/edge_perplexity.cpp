#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "potstill/base/error.h"
#include "potstill/base/interrupt.h"
#include "potstill/cli/edge_commands.h"
#include "potstill/edge/perplexity.h"

namespace potstill {
namespace {

struct PerplexityFlags {
  EdgeModelFlags model;
  std::string text;
  int64_t window = 512, limit_tokens = 0;
  bool cost = false;
};

std::string read_text(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
  if (!stream) throw Error(ErrorKind::kIo, path, "cannot be read", "check the path");
  return text;
}

void perplexity(PerplexityFlags& options, const EdgeGlobal& global) {
  install_interrupt_handler();
  const std::string text = read_text(options.text);
  // The settings that were asked for; or all, the first of them what the others are measured against.
  std::vector<std::pair<std::string, std::string>> settings{{options.model.activations, options.model.kv_cache}};
  if (options.cost) settings = {{"16", "16"}, {"8", "16"}, {"16", "8"}, {"8", "8"}};
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const auto& [activations, kv_cache] : settings) {
    options.model.activations = activations;
    options.model.kv_cache = kv_cache;
    const auto model = options.model.open();
    auto tokens = model->package().tokenizer->encode(text);
    if (options.limit_tokens > 0) tokens.resize(std::min(tokens.size(), static_cast<size_t>(options.limit_tokens)));
    const auto result = edge::measure_perplexity(*model, tokens, options.window);
    rows.push_back({{"activations", activations == "8" ? "8-bit" : "16-bit"},
                    {"kv_cache", kv_cache == "8" ? "8-bit" : "16-bit"},
                    {"perplexity", result.perplexity},
                    {"mean_nll", result.mean_nll},
                    {"scored_tokens", result.scored_tokens}});
    auto& row = rows.back();
    row["cost"] = result.perplexity / rows[0].at("perplexity").get<double>() - 1;
    if (global.json) continue;
    fmt::print("perplexity {:.4f}   ({} activations, {} cache, {} tokens{})\n", result.perplexity,
               row.at("activations").get<std::string>(), row.at("kv_cache").get<std::string>(), result.scored_tokens,
               rows.size() > 1 ? fmt::format(": {:+.3f} %", 100 * row.at("cost").get<double>()) : "");
    std::fflush(stdout);
  }
  if (global.json) fmt::print("{}\n", (options.cost ? rows : rows[0]).dump(2));
}

}  // namespace

void add_edge_perplexity(CLI::App& app, EdgeGlobal& global) {
  auto options = std::make_shared<PerplexityFlags>();
  CLI::App* command = app.add_subcommand("perplexity", "Measure a model on a text, and what 8 bits cost it");
  command->fallthrough();
  options->model.add_to(*command);
  command->add_option("--text", options->text, "UTF-8 text file")->required();
  command->add_option("--window", options->window, "tokens read at a time; windows do not overlap")
      ->capture_default_str();
  command->add_option("--limit-tokens", options->limit_tokens, "use the text's first N tokens (0 = all)")
      ->check(CLI::NonNegativeNumber);
  command->add_flag("--cost", options->cost, "with 16 and with 8 bits of activations and of the cache, side by side");
  command->footer(
      "Examples:\n"
      "  potstill-edge perplexity student.gguf --text valid.txt\n"
      "  potstill-edge perplexity student.gguf --text valid.txt --cost --limit-tokens 16384");
  command->callback([options, &global] { perplexity(*options, global); });
}

}  // namespace potstill
