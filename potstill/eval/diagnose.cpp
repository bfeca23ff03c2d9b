#include "potstill/eval/diagnose.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <optional>
#include <set>

#include "potstill/base/error.h"
#include "potstill/base/jsonl.h"
#include "potstill/eval/task.h"
#include "potstill/text/chat_template.h"

namespace potstill {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr double kMostLostPoints = 3.0;  // of accuracy, in quantization: the paper's Adam students lose 3.16
constexpr size_t kSharedWords = 13;      // a run of words that two texts do not share by chance (GPT-3, appendix C)

Diagnosis fine(std::string check, std::string seen) { return {std::move(check), Finding::kFine, std::move(seen), {}}; }
Diagnosis problem(std::string check, std::string seen, std::string advice) {
  return {std::move(check), Finding::kProblem, std::move(seen), std::move(advice)};
}
Diagnosis not_known(std::string check, std::string why) {
  return {std::move(check), Finding::kNotKnown, std::move(why), {}};
}

// Artifacts of a run by stage; absent stages are null.
struct Run {
  fs::path folder;

  Json artifact(const std::string& stage) const { return json_at(folder / stage / "artifact.json"); }
  Json results(const std::string& stage) const { return artifact(stage).value("results", Json::object()); }
  static Json json_at(const fs::path& path) { return fs::exists(path) ? read_json_file(path) : Json::object(); }
};

std::optional<double> number(const Json& json, const char* pointer) {
  const Json::json_pointer at(pointer);
  if (!json.contains(at) || !json[at].is_number()) return std::nullopt;
  return json[at].get<double>();
}

Diagnosis check_alpha(const Run& run) {
  const std::string check = "the teacher's distributions are what trains best (alpha = 1)";
  const auto searched = number(run.results("search"), "/best/train/alpha");
  const auto alpha = searched ? searched : number(run.artifact("train"), "/config/alpha");
  if (!alpha) return not_known(check, "nothing was trained yet");
  if (*alpha >= 1.0) return fine(check, fmt::format("alpha = {:g}", *alpha));
  return problem(check, fmt::format("alpha = {:.3g}: the hard labels of the pairs were needed beside them", *alpha),
                 "look for a reason in the teacher: another tokenizer or chat template than the student's, or a model "
                 "that does not know the task (teacher perplexity on the pairs); compare trials of alpha 1 and 0");
}

Diagnosis check_divergence(const Run& run) {
  const std::string check = "training ended below where it began";
  const Json train = run.results("train");
  const auto before = number(train, "/held_out_before/kl"), after = number(train, "/held_out/kl");
  const auto loss = number(train, "/final_loss");
  if (!before || !after) return not_known(check, "no held-out pairs were measured");
  const std::string seen = fmt::format("held-out KL {:.4f} before, {:.4f} after", *before, *after);
  if (*after < *before && (!loss || std::isfinite(*loss))) return fine(check, seen);
  return problem(check, seen,
                 "the optimizer diverged or the rate is far off: divide lr by 3 (Muon: muon_scale original wants about "
                 "0.02, match_rms_adamw what AdamW would take), or let `potstill search` look");
}

Diagnosis check_rising(const Run& run) {
  const std::string check = "the held-out loss does not rise at the end";
  const fs::path log = run.folder / "train" / "train_log.jsonl";
  if (!fs::exists(log)) return not_known(check, "no training log");
  std::vector<double> kl;
  for (const auto& record : read_jsonl(log)) {
    if (const auto value = number(record.value, "/held_out/kl")) kl.push_back(*value);
  }
  if (kl.size() < 3)
    return not_known(check, "the held-out pairs were measured less than three times (train.eval_every)");
  const double best = *std::ranges::min_element(kl);
  const std::string seen = fmt::format("KL {:.4f} at its best of {}, {:.4f} at the end", best, kl.size(), kl.back());
  if (kl.back() <= 1.02 * best) return fine(check, seen);
  return problem(check, seen, "the student learns the pairs by heart: fewer epochs, more pairs, or a lower rank");
}

Diagnosis check_kl_size(const Run& run) {
  const std::string check = "the KL to the teacher is below ln(vocabulary), what a blind guess has";
  const auto vocabulary = number(Run::json_at(run.folder / "teach" / "knowledge.json"), "/vocabulary");
  const auto kl = number(run.results("train"), "/held_out/kl");
  if (!vocabulary || !kl) return not_known(check, "no teacher's cache or no held-out pairs");
  const std::string seen = fmt::format("{:.4f} against {:.2f}", *kl, std::log(*vocabulary));
  if (*kl < std::log(*vocabulary)) return fine(check, seen);
  return problem(check, seen,
                 "the student is worse than a guess: the tokens of teacher and student do not mean the same, or "
                 "training diverged; check both tokenizers with `potstill inspect`");
}

Diagnosis check_adapter(const Run& run) {
  const std::string check = "the adapter moves the student, and merging keeps what it does";
  const Json merge = run.results("merge");
  const auto effect = number(merge, "/proof/rms_adapter_effect"), error = number(merge, "/proof/rms_logit_difference");
  if (!effect || !error) return not_known(check, "nothing was merged yet");
  const std::string seen = fmt::format("logits move by {:.4f} (rms); merging changes them by {:.4f}", *effect, *error);
  if (*effect < 1e-3) {
    return problem(check, seen, "the adapter does nothing: was it trained (steps, lr), and on this base?");
  }
  if (*error > 0.1 * *effect) {
    return problem(check, seen, "the merged weights round the update away: --set merge.dtype=fp32, or train longer");
  }
  return fine(check, seen);
}

Diagnosis check_template(const Run& run) {
  const std::string check = "teacher and student are asked through the same chat template";
  const Json knowledge = Run::json_at(run.folder / "teach" / "knowledge.json");
  const fs::path config = run.folder / "merge" / "tokenizer_config.json";
  if (!knowledge.contains("chat_template") || !fs::exists(config)) {
    return not_known(check, "no teacher's cache or no merged student");
  }
  const Json source = Run::json_at(config).value("chat_template", Json(""));
  const std::string teacher = knowledge.value("chat_template", "");
  const std::string student(
      ChatTemplate::detect(source.is_string() ? source.get<std::string>() : "", config.string()).name());
  const std::string seen = fmt::format("teacher {}, student {}", teacher, student);
  if (teacher == student) return fine(check, seen);
  return problem(check, seen,
                 "distil under the student's template: give the teacher's folder the student's chat_template");
}

const Json* find_model(const Json& models, std::string_view label) {
  for (const auto& model : models) {
    if (model.value("label", "").starts_with(label)) return &model;
  }
  return nullptr;
}

std::string calibration_coverage(const Run& run) {
  const Json quantize = run.results("quantize");
  const auto asked = number(quantize, "/calibration/sequences_asked"), had = number(quantize, "/calibration/sequences");
  const auto tokens = number(quantize, "/calibration/tokens"), kinds = number(quantize, "/calibration/distinct_tokens");
  if (!asked || !had || !tokens || !kinds) return "calibrated on nothing";
  return fmt::format("calibrated on {} of {} sequences, {} tokens, {} different ones", *had, *asked, *tokens, *kinds);
}

Diagnosis check_quantization(const Run& run) {
  const std::string check = fmt::format("quantization costs less than {:g} points of accuracy", kMostLostPoints);
  const Json models = run.results("evaluate").value("models", Json::array());
  const Json *before = find_model(models, "S' "), *after = find_model(models, "S'' ");
  if (before == nullptr || after == nullptr) return not_known(check, "the run was not evaluated");
  double worst = 0.0, error = 0.0;
  std::string where;
  const Json tasks_before = before->value("tasks", Json::object()), tasks_after = after->value("tasks", Json::object());
  for (const auto& [task, numbers] : tasks_before.items()) {
    const auto a = number(numbers, "/acc,none");
    const auto b = number(tasks_after.value(task, Json::object()), "/acc,none");
    if (!a || !b || 100 * (*a - *b) <= worst) continue;
    worst = 100 * (*a - *b);
    error = 100 * number(numbers, "/acc_stderr,none").value_or(0.0);
    where = task;
  }
  const auto kl_before = number(*before, "/kl"), kl_after = number(*after, "/kl");
  std::string seen =
      tasks_before.empty() ? "no benchmark was scored"
      : where.empty()      ? "no task lost"
                      : fmt::format("{} lost {:.2f} points (standard error of one model {:.2f})", where, worst, error);
  if (kl_before && kl_after) seen += fmt::format("; KL {:.4f} to {:.4f}", *kl_before, *kl_after);
  if (worst > kMostLostPoints) {
    return problem(check, seen + "; " + calibration_coverage(run),
                   "the calibration text does not look like the task: calibrate on the pairs (D_gen), on 128 sequences "
                   "or more; then smaller groups. `potstill compare` on both evaluations says whether it is chance");
  }
  if (tasks_before.empty()) return not_known(check, seen);
  return fine(check, seen);
}

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words(1);
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0 || byte >= 0x80) {
      words.back() += static_cast<char>(byte < 0x80 ? std::tolower(byte) : byte);
    } else if (!words.back().empty()) {
      words.emplace_back();
    }
  }
  if (words.back().empty()) words.pop_back();
  return words;
}

// Every run of kSharedWords words; of a shorter text, the whole of it.
std::set<std::string> word_runs(std::string_view text) {
  const auto words = words_of(text);
  std::set<std::string> runs;
  if (words.size() < kSharedWords) {
    if (words.size() >= 5) runs.insert(fmt::format("{}", fmt::join(words, " ")));
    return runs;
  }
  for (size_t i = 0; i + kSharedWords <= words.size(); ++i) {
    runs.insert(fmt::format("{}", fmt::join(words.begin() + static_cast<ptrdiff_t>(i),
                                            words.begin() + static_cast<ptrdiff_t>(i + kSharedWords), " ")));
  }
  return runs;
}

// The question of a row, without the frame that all rows of the task share.
std::string bare_question(const nlohmann::ordered_json& doc) {
  for (const char* field : {"question", "question_stem", "goal", "sentence", "ctx"}) {
    if (doc.contains(field) && doc[field].is_string()) return doc[field];
  }
  return {};
}

Diagnosis check_contamination(const Run& run) {
  const std::string check = "no pair holds a question of the evaluation";
  const Json evaluate = run.artifact("evaluate");
  const fs::path pairs_file = run.folder / "synth" / "D_gen.jsonl";
  std::vector<fs::path> rows;
  const Json inputs = evaluate.value("inputs", Json::object());
  for (const auto& [name, input] : inputs.items()) {
    if (name.starts_with("rows: ")) rows.emplace_back(input.value("path", ""));
  }
  if (rows.empty() || !fs::exists(pairs_file))
    return not_known(check, "no benchmark was scored, or the pairs are elsewhere");
  std::set<std::string> asked;
  for (const auto& path : rows) {
    if (!fs::exists(path)) return not_known(check, path.string() + " is gone");
    for (const auto& row : read_rows(path)) asked.merge(word_runs(bare_question(row.doc)));
  }
  std::vector<std::string> shared;
  size_t num_pairs = 0;
  for (const auto& record : read_jsonl(pairs_file)) {
    ++num_pairs;
    const std::string text = record.value.value("instruction", "") + " " + record.value.value("input", "");
    const auto runs = word_runs(text);
    const bool found = std::ranges::any_of(runs, [&](const auto& words) { return asked.contains(words); });
    if (found) shared.push_back(fmt::format("line {}", record.line));
  }
  const std::string seen = fmt::format(
      "{} of {} pairs share {} words in a row, or a whole shorter question, with a "
      "scored one",
      shared.size(), num_pairs, kSharedWords);
  if (shared.empty()) return fine(check, seen);
  if (shared.size() > 5) shared.resize(5);
  return problem(check, fmt::format("{}: {}", seen, fmt::join(shared, ", ")),
                 "take these pairs out of D_gen.jsonl and train again: the score counts what was learned by heart");
}

}  // namespace

std::vector<Diagnosis> diagnose_run(const fs::path& folder) {
  const Run run{folder};
  bool any = false;
  if (fs::is_directory(folder)) {
    for (const auto& entry : fs::directory_iterator(folder)) any = any || fs::exists(entry.path() / "artifact.json");
  }
  if (!any) {
    throw Error(ErrorKind::kIo, folder.string(), "holds no stage of a run",
                "give the folder that `potstill run` made: runs/<name>");
  }
  return {check_alpha(run),   check_divergence(run), check_rising(run),       check_kl_size(run),
          check_adapter(run), check_template(run),   check_quantization(run), check_contamination(run)};
}

nlohmann::ordered_json diagnosis_to_json(const std::vector<Diagnosis>& diagnoses) {
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const auto& d : diagnoses) {
    const char* finding = d.finding == Finding::kFine      ? "fine"
                          : d.finding == Finding::kProblem ? "problem"
                                                           : "not known";
    json.push_back({{"check", d.check}, {"finding", finding}, {"seen", d.seen}, {"advice", d.advice}});
  }
  return json;
}

}  // namespace potstill
