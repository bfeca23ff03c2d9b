// AnswerStore: every answer of the teacher, on the disk before it is used, found again by what was asked.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "potstill/lm/language_model.h"
#include "potstill/synth/journal_writer.h"

namespace potstill {

// A request's key is the SHA-256 of the model's identity and the whole request, never of its place in a run; so a
// killed run goes on without asking again, and a changed threshold, prompt or task asks only for what it touches.
class AnswerStore {
 public:
  // `journal` grows by one line an answer and is read back at the start. Throws Error(kFormat) for a line that is no
  // record of ours (a torn last line is cut off).
  // `identity` stands for the weights in keys; empty: the model's name.
  AnswerStore(LanguageModel& model, const std::filesystem::path& journal, int64_t batch, std::string identity = {});

  struct Generated {
    std::string text, key;
    std::string prompt_hash;  // SHA-256 of what was asked, whoever was asked and however it was sampled
    FinishReason finish = FinishReason::kStop;
  };
  // `what` names the work in the progress line. Results in the order of the requests.
  std::vector<Generated> generate(std::string_view what, std::span<const GenerateRequest> requests);
  std::vector<ScoreResult> score(std::string_view what, std::span<const ScoreRequest> requests);
  std::vector<std::vector<double>> choose(std::string_view what, std::span<const ChoiceRequest> requests);

  // What one kind of work cost, by the name that generate(), score() or choose() was given. All answers used, asked now
  // or before.
  struct Work {
    int64_t answers = 0, asked_now = 0, prompt_tokens = 0, written_tokens = 0;
  };
  const std::vector<std::pair<std::string, Work>>& work() const { return work_; }  // by first use
  // "<file>:<line>" of each answer used, in the file that write_used writes.
  void add_places(const std::string& file, std::map<std::string, std::string>& places) const;

  int64_t num_asked() const { return num_asked_; }    // by this process
  int64_t num_reused() const { return num_reused_; }  // found on the disk
  int64_t generated_tokens() const;                   // of all answers used, asked now or before
  int64_t prompt_tokens() const;
  // Writes the records that this run used, in the order of their first use: the same bytes for every order of answers.
  void write_used(const std::filesystem::path& path) const;

 private:
  // Calls ask(missing, done) for the requests that are not on the disk, a batch at a time; done(i, response) stores.
  template <class Request, class Ask>
  std::vector<nlohmann::json> answer(std::string_view what, std::string_view kind, std::span<const Request> requests,
                                     const Ask& ask);
  void load(const std::filesystem::path& journal);
  std::string key_of(std::string_view kind, const nlohmann::json& request) const;
  void remember(const std::string& key, std::string_view kind, const nlohmann::json& request,
                const nlohmann::json& response);

  Work& work_of(std::string_view what);

  LanguageModel& model_;
  std::string identity_;
  JournalWriter journal_;
  size_t batch_;
  std::unordered_map<std::string, JournalWriter::Place> places_;  // by key, in the journal
  std::vector<std::string> used_;                                 // keys, by first use
  std::unordered_set<std::string> used_set_;
  std::vector<std::pair<std::string, Work>> work_;
  int64_t num_asked_ = 0, num_reused_ = 0;
};

}  // namespace potstill
