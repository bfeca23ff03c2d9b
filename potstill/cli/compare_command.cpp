#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/base/log.h"
#include "potstill/cli/command.h"
#include "potstill/eval/compare.h"
#include "potstill/stages/text_table.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;

struct CompareOptions {
  std::vector<std::string> files;
  fs::path output;
  CompareConfig config;
};

struct Side {
  ScoredModel model;
  std::optional<ModelComparison> against_first;  // none for the first itself
};

// Quality, size, memory, latency: one row a model.
std::string summary_table(const std::vector<Side>& sides) {
  const auto cell = [](const std::optional<double>& value, const char* format, double scale) {
    return value ? fmt::format(fmt::runtime(format), *value * scale) : std::string();
  };
  const auto bytes = [](const std::optional<double>& value) {
    return value ? format_bytes(static_cast<uint64_t>(*value)) : std::string();
  };
  std::vector<std::vector<std::string>> rows{{"model", "size", "peak memory", "ms/token"}};
  const auto& tasks = sides[1].against_first->tasks;
  for (const auto& task : tasks) rows[0].push_back(fmt::format("{} {}", task.task, task.metric));
  rows[0].insert(rows[0].end(), {"mean difference", "accuracy lost"});
  for (const auto& side : sides) {
    rows.push_back({side.model.label, bytes(side.model.size_bytes), bytes(side.model.peak_memory_bytes),
                    cell(side.model.ms_per_token, "{:.1f}", 1)});
    for (size_t i = 0; i < tasks.size(); ++i) {
      double value = tasks[i].first;
      if (side.against_first) {
        const auto& own = side.against_first->tasks;
        const auto found = std::ranges::find_if(own, [&](const auto& t) { return t.task == tasks[i].task; });
        if (found == own.end()) {
          rows.back().push_back("");
          continue;
        }
        value = found->second;
      }
      rows.back().push_back(fmt::format("{:.2f} %", 100 * value));
    }
    if (!side.against_first) {
      rows.back().insert(rows.back().end(), {"", ""});
      continue;
    }
    double before = 0.0, after = 0.0;
    for (const auto& task : side.against_first->tasks) {
      before += task.first;
      after += task.second;
    }
    rows.back().push_back(fmt::format("{:+.2f} [{:+.2f}, {:+.2f}]", 100 * side.against_first->difference,
                                      100 * side.against_first->interval.low, 100 * side.against_first->interval.high));
    rows.back().push_back(before > 0 ? fmt::format("{:.1f} %", 100 * (before - after) / before) : "");
  }
  return text_table(rows);
}

std::string task_table(const ModelComparison& comparison) {
  std::vector<std::vector<std::string>> rows{{"task", "n", "first", "second", "difference, 95 % interval", "only first",
                                              "only second", "McNemar p", "Holm p", "|Δ log-lik.|", "KL of choices"}};
  for (const auto& task : comparison.tasks) {
    rows.push_back({task.task, fmt::format("{}", task.num_rows), fmt::format("{:.2f} %", 100 * task.first),
                    fmt::format("{:.2f} %", 100 * task.second),
                    fmt::format("{:+.2f} [{:+.2f}, {:+.2f}]", 100 * task.difference, 100 * task.interval.low,
                                100 * task.interval.high),
                    fmt::format("{}", task.only_first), fmt::format("{}", task.only_second),
                    fmt::format("{:.3g}", task.mcnemar_p), fmt::format("{:.3g}", task.holm_p),
                    fmt::format("{:.4f}", task.mean_abs_delta_ll), fmt::format("{:.5f}", task.mean_kl)});
  }
  return text_table(rows);
}

// The question's last lines, in one: what is asked stands at the end, after examples and descriptions.
std::string shortened(std::string text) {
  constexpr size_t kLength = 160;
  for (auto& c : text) c = c == '\n' ? ' ' : c;
  if (text.size() <= kLength) return text;
  size_t begin = text.size() - kLength;
  while (begin < text.size() && (static_cast<unsigned char>(text[begin]) & 0xc0u) == 0x80u) ++begin;
  return "…" + text.substr(begin);
}

std::string details(const ModelComparison& comparison, int64_t num_flips) {
  std::string text = fmt::format("\n\n{} (second) against {} (first)\n{}\n", comparison.second, comparison.first,
                                 task_table(comparison));
  for (const auto& task : comparison.tasks) {
    text += fmt::format("  {}\n", verdict(task, comparison.first, comparison.second));
    if (task.num_unpaired > 0)
      text += fmt::format("  {}: {} rows are in one alone and do not count\n", task.task, task.num_unpaired);
    if (task.num_other_prompts > 0) {
      text += fmt::format("  {}: {} of {} rows were asked with other prompts: other examples, another template?\n",
                          task.task, task.num_other_prompts, task.num_rows);
    }
  }
  text += fmt::format("  {}\n", verdict(comparison));
  int64_t shown = 0, all = 0;
  for (const auto& task : comparison.tasks) {
    all += static_cast<int64_t>(task.flips.size());
    for (const auto& flip : task.flips) {
      if (shown++ >= num_flips) continue;
      text +=
          fmt::format("  {} {}: {}\n      first: {}\n      second: {}\n", flip.gained ? "gained" : "lost  ", flip.task,
                      shortened(flip.question), shortened(flip.first_choice), shortened(flip.second_choice));
    }
  }
  if (all > num_flips)
    text += fmt::format("  {} more flips: --flips {}, or --output FILE for all\n", all - num_flips, all);
  return text;
}

void run(CompareOptions options, const GlobalOptions& global) {
  options.config.seed = global.seed;
  std::vector<Side> sides;
  for (const auto& file : options.files) {
    for (auto& model : read_scored_models(file)) sides.push_back({.model = std::move(model), .against_first = {}});
  }
  if (sides.size() < 2) {
    throw Error(ErrorKind::kUsage, "compare", "there is one model and nothing to compare it with",
                "give two results files, or one that holds several models");
  }
  nlohmann::ordered_json json = {{"metric", options.config.metric}, {"comparisons", nlohmann::ordered_json::array()}};
  std::string text;
  for (size_t i = 1; i < sides.size(); ++i) {
    sides[i].against_first = compare_models(sides[0].model, sides[i].model, options.config);
    json["comparisons"].push_back(comparison_to_json(*sides[i].against_first));
    text += details(*sides[i].against_first, options.config.flips);
  }
  if (!options.output.empty()) {
    write_file_atomically(options.output,
                          json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
  }
  print_result(global, json, summary_table(sides) + text);
}

}  // namespace

void add_compare_command(CLI::App& app, GlobalOptions& global) {
  auto [command, options] = new_command<CompareOptions>(
      app, "compare", "Evaluations on the same rows: paired differences with intervals, tests, flips");
  command
      ->add_option("results", options->files,
                   "results files of `potstill evaluate --log-samples` or lm-evaluation-harness, samples beside them; "
                   "the first is what the others are compared with")
      ->required();
  command->add_option("--metric", options->config.metric, "acc, or acc_norm where a task has it")
      ->check(CLI::IsMember({"acc", "acc_norm"}))
      ->capture_default_str();
  command->add_option("--resamples", options->config.resamples, "of the paired bootstrap")
      ->check(CLI::Range(100, 1000000))
      ->capture_default_str();
  command->add_option("--flips", options->config.flips, "changed answers to show")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--output", options->output, "everything as JSON, all flips included");
  command->callback([options = options, &global] { run(*options, global); });
}

}  // namespace potstill
