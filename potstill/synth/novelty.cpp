#include "potstill/synth/novelty.h"

#include "potstill/synth/words.h"

namespace potstill {
namespace {

// Stems of the content words in order; of a question without any ("What is it?"), all of its words.
std::string topic_of(std::string_view question) {
  std::string topic;
  for (const auto& word : content_stems(question)) topic += word + " ";
  return topic.empty() ? std::string(question) : topic;
}

}  // namespace

std::optional<std::string> NoveltyPool::nearest(std::string_view question, std::string_view whole) const {
  const auto by_topic = topics_.nearest(topic_of(question), max_rouge_);
  if (by_topic.score > 0.0 && by_topic.score >= max_rouge_) return questions_[by_topic.index];
  const auto by_whole = wholes_.nearest(whole, max_rouge_);
  if (by_whole.score > 0.0 && by_whole.score >= max_rouge_) return questions_[by_whole.index];
  if (const auto by_runs = runs_.nearest(whole, max_jaccard_)) return questions_[by_runs->index];
  return std::nullopt;
}

void NoveltyPool::add(std::string_view question, std::string_view whole) {
  questions_.emplace_back(question);
  topics_.add(topic_of(question));
  wholes_.add(whole);
  runs_.add(whole);
}

}  // namespace potstill
