#include "potstill/stages/endpoint_teacher.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "potstill/base/atomic_file.h"
#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"
#include "potstill/base/log.h"
#include "potstill/distill/agreement.h"
#include "potstill/distill/rendered_sample.h"
#include "potstill/distill/top_k_cache.h"
#include "potstill/lm/openai_model.h"

namespace potstill {
namespace {

OpenAiOptions endpoint_options(const std::string& url, const TeachConfig& config) {
  const char* key = std::getenv("POTSTILL_TEACHER_API_KEY");
  OpenAiOptions options;
  options.http.url = url;
  options.http.key = key != nullptr ? key : "";
  options.http.concurrency = static_cast<int>(config.concurrency);
  options.model = config.teacher_model;
  options.budget_tokens = config.budget_tokens;
  options.budget_cost = config.budget_cost;
  options.prompt_price = config.prompt_price;
  return options;
}

// What was said of one pair's answer positions: a line of the journal.
nlohmann::json journal_line(size_t record, const DistillRecord& pair, const PromptLogProbs& said,
                            const TokenTexts& texts, int64_t top_k) {
  auto ids = nlohmann::json::array(), values = nlohmann::json::array(), labels = nlohmann::json::array();
  for (const int64_t i : pair.answer_positions()) {
    const auto& position = said.tokens.at(static_cast<size_t>(i) + 1);
    std::vector<std::pair<double, TokenId>> known;
    for (const auto& entry : position.top) {
      const auto id = entry.id ? entry.id : texts.id_of(entry.text);
      // A text that is no token of ours keeps its mass in the rest.
      if (id && entry.log_prob <= 1e-4 && std::isfinite(entry.log_prob)) {
        known.emplace_back(std::min(entry.log_prob, 0.0), *id);
      }
    }
    std::ranges::sort(known, std::greater<>());
    const auto same_id = [&](size_t a) {
      return std::any_of(known.begin(), known.begin() + static_cast<std::ptrdiff_t>(a),
                         [&](const auto& other) { return other.second == known[a].second; });
    };
    auto row_ids = nlohmann::json::array(), row_values = nlohmann::json::array();
    for (size_t k = 0; k < known.size() && static_cast<int64_t>(row_ids.size()) < top_k; ++k) {
      if (same_id(k)) continue;
      row_ids.push_back(known[k].second);
      row_values.push_back(known[k].first);
    }
    ids.push_back(row_ids);
    values.push_back(row_values);
    labels.push_back(position.token.log_prob);
  }
  return {{"record", record}, {"ids", ids}, {"log_probs", values}, {"labels", labels}};
}

// Whether the endpoint reads the tokens that were sent as what they are here, and says something of each answer token.
void check_tokens(const DistillRecord& pair, const PromptLogProbs& said, const TokenTexts& texts,
                  const Tokenizer& tokenizer, const std::string& url, const std::filesystem::path& tokenizer_path) {
  for (size_t i = 0; i < pair.tokens.size(); ++i) {
    const auto& token = said.tokens[i].token;
    if (!texts.spells(token.text, pair.tokens[i])) {
      throw Error(
          ErrorKind::kInput, url,
          fmt::format("has another tokenizer than {}: token {} of the pair of line {}, id {}, is '{}' there and "
                      "'{}' here",
                      tokenizer_path.string(), i, pair.line, pair.tokens[i], token.text,
                      tokenizer.decode(std::span(pair.tokens).subspan(i, 1))),
          "give the tokenizer of the endpoint's own model: --tokenizer FOLDER");
    }
    if (pair.is_answer[i] && (said.tokens[i].top.empty() || !std::isfinite(token.log_prob))) {
      throw Error(ErrorKind::kNetwork, url,
                  fmt::format("says nothing of token {} of the pair of line {}", i, pair.line),
                  "it must give log-probabilities of a prompt's tokens: vLLM's prompt_logprobs, or echo with logprobs");
    }
  }
}

// The journal's answers by record, as far as they are there.
std::vector<nlohmann::json> kept_answers(const std::filesystem::path& journal, size_t records) {
  std::vector<nlohmann::json> kept(records);
  if (!std::filesystem::exists(journal)) return kept;
  for (const auto& line : read_jsonl(journal)) {
    const auto record = line.value.value("record", std::numeric_limits<size_t>::max());
    if (record < records) kept[record] = line.value;
  }
  return kept;
}

struct Gathered {
  TopKTable table;
  double covered = 0, least_covered = 1;  // of the mass: mean over the positions, smallest
};

Gathered gather(const std::vector<nlohmann::json>& answers, int64_t positions, int64_t top_k) {
  Gathered all{.table = {.ids = at::full({positions, top_k}, -1, at::kInt),
                         .log_probs = at::full({positions, top_k}, -std::numeric_limits<float>::infinity()),
                         .label_log_probs = at::zeros({positions})}};
  auto* ids = all.table.ids.mutable_data_ptr<int32_t>();
  auto* values = all.table.log_probs.mutable_data_ptr<float>();
  auto* labels = all.table.label_log_probs.mutable_data_ptr<float>();
  for (const auto& answer : answers) {
    for (size_t i = 0; i < answer.at("ids").size(); ++i, ids += top_k, values += top_k) {
      double mass = 0;
      for (size_t k = 0; k < answer["ids"][i].size(); ++k) {
        ids[k] = answer["ids"][i][k].get<int32_t>();
        values[k] = answer["log_probs"][i][k].get<float>();
        mass += std::exp(static_cast<double>(values[k]));
      }
      *labels++ = answer["labels"][i].get<float>();
      mass = std::min(mass, 1.0);
      all.covered += mass / static_cast<double>(positions);
      all.least_covered = std::min(all.least_covered, mass);
    }
  }
  return all;
}

}  // namespace

void teach_by_endpoint(const std::string& url, const std::filesystem::path& tokenizer_path,
                       const std::filesystem::path& data_path, const TeachConfig& config,
                       const DistillDataConfig& data_config, ArtifactWriter& out) {
  if (tokenizer_path.empty()) {
    throw Error(ErrorKind::kUsage, url, "does not show its tokenizer",
                "give a model with the same one, the student for example: --tokenizer FOLDER");
  }
  const ModelPackage package = open_model(tokenizer_path);
  const DistillData data =
      load_distill_data(data_path, *package.tokenizer, package.chat_template, data_config, out.seed());
  log_samples(rendered_samples(data, *package.tokenizer), {});
  const TokenTexts texts(*package.tokenizer);
  const auto journal_path = out.work_file("endpoint.jsonl");
  std::vector<nlohmann::json> answers = kept_answers(journal_path, data.records.size());
  std::vector<size_t> missing;
  std::vector<std::vector<TokenId>> prompts;
  for (size_t i = 0; i < answers.size(); ++i) {
    if (!answers[i].is_null()) continue;
    missing.push_back(i);
    prompts.push_back(data.records[i].tokens);
  }
  Journal journal(journal_path);
  Progress progress("teach", static_cast<int64_t>(data.records.size()), "pairs");
  progress.advance(static_cast<int64_t>(answers.size() - missing.size()));
  OpenAiModel teacher(endpoint_options(url, config));
  teacher.prompt_log_probs(prompts, config.top_k, [&](size_t i, const PromptLogProbs& said) {
    const size_t record = missing[i];
    check_tokens(data.records[record], said, texts, *package.tokenizer, url, tokenizer_path);
    answers[record] = journal_line(record, data.records[record], said, texts, config.top_k);
    journal.append(answers[record].dump());
    progress.advance();
  });
  progress.finish();

  const int64_t positions = answer_position_offsets(data).back();
  const Gathered all = gather(answers, positions, config.top_k);
  write_top_k_table(out.folder(), all.table);
  const nlohmann::ordered_json manifest = {{"kind", "top-k"},
                                           {"teacher", url},
                                           {"teacher_model", config.teacher_model},
                                           {"k", config.top_k},
                                           {"covered_mass", all.covered},
                                           {"least_covered_mass", all.least_covered}};
  write_knowledge_manifest(out.folder(), manifest, data, *package.tokenizer, package.chat_template);
  const TeacherUsage& usage = teacher.usage();
  out.record("pairs", data.records.size());
  out.record("answer_tokens", positions);
  out.record("left_out_as_too_long", data.too_long);
  out.record("teacher_model", config.teacher_model);
  out.record("covered_mass", all.covered);
  out.record("least_covered_mass", all.least_covered);
  out.record("knowledge", knowledge_summary(nlohmann::json(manifest), Quantity::kTopKKl));
  out.measure("teacher_usage", {{"answers", usage.requests},
                                {"prompt_tokens", usage.prompt_tokens},
                                {"cost", usage.cost},
                                {"repeated_tries", teacher.num_retries()}});
}

}  // namespace potstill
