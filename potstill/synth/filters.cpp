#include "potstill/synth/filters.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <initializer_list>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <regex>
#include <set>
#include <utility>

#include "potstill/synth/language.h"
#include "potstill/synth/words.h"

namespace potstill {
namespace {

using Verdict = std::optional<Refusal>;

// Matched as whole words in a row, case and punctuation ignored.
constexpr auto kRefusals = std::to_array<std::string_view>(
    {"i cannot", "i can't", "i can not", "i'm sorry", "i am sorry", "i apologize", "i'm unable", "i am unable",
     "i don't know", "i do not know", "i'm not able", "i won't", "cannot answer", "can't answer", "unable to answer",
     "unable to provide"});
constexpr auto kSelfReferences = std::to_array<std::string_view>(
    {"as an ai", "as a language model", "an ai assistant", "ai language model", "language model", "my training data",
     "my knowledge cutoff", "i am an ai", "i'm an ai", "openai", "hugging face", "smollm"});
// Talk about the prompt in place of an answer, and things that a text cannot show.
constexpr auto kPromptTalk = std::to_array<std::string_view>(
    {"the fact", "this fact", "the passage", "the text above", "the question", "this question", "the answer is",
     "following question", "the diagram", "the picture", "the image", "the graph", "the table"});

std::string word_string(std::string_view text) {
  std::string joined = " ";
  for (const auto& word : words_of(text)) joined += word + " ";
  return joined;
}

// `words` is word_string of the text; a phrase matches at word borders.
template <class Phrases>
Verdict find_phrase(std::string_view rule, const std::string& words, const Phrases& phrases) {
  for (const auto& phrase : phrases) {
    const std::string needle = word_string(phrase);
    if (needle.size() > 1 && words.find(needle) != std::string::npos) {
      return Refusal{std::string(rule), fmt::format("'{}'", phrase)};
    }
  }
  return std::nullopt;
}

// The code point at `i`, which moves past it; invalid UTF-8 gives U+FFFD and moves one byte.
char32_t next_code_point(std::string_view text, size_t& i) {
  const auto lead = static_cast<unsigned char>(text[i++]);
  if (lead < 0x80) return lead;
  const int more = lead >= 0xF0 && lead < 0xF8   ? 3
                   : lead >= 0xE0 && lead < 0xF0 ? 2
                   : lead >= 0xC2 && lead < 0xE0 ? 1
                                                 : 0;
  if (more == 0 || i + static_cast<size_t>(more) > text.size()) return 0xFFFD;
  char32_t code = lead & (0x3F >> more);
  for (int k = 0; k < more; ++k) {
    const auto byte = static_cast<unsigned char>(text[i + static_cast<size_t>(k)]);
    if ((byte & 0xC0) != 0x80) return 0xFFFD;
    code = code << 6 | (byte & 0x3F);
  }
  i += static_cast<size_t>(more);
  return code;
}

bool is_latin(char32_t code) {
  return (code >= 0x20 && code < 0x7F) || (code >= 0xA0 && code <= 0x24F) || (code >= 0x2010 && code <= 0x2026) ||
         (code >= 0x2070 && code <= 0x209C) || (code >= 0x2150 && code <= 0x215E) || code == 0x2032 || code == 0x2033 ||
         code == 0x2212 || code == 0x20AC || code == 0x2103;
}

Verdict check_charset(const Task& task, std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const char32_t code = next_code_point(text, i);
    const bool broken = code == 0xFFFD || code < 0x20 || code == 0x7F;
    if (broken || (task.filter.charset == "latin" && !is_latin(code))) {
      return Refusal{"charset", fmt::format("U+{:04X}", static_cast<uint32_t>(code))};
    }
  }
  return std::nullopt;
}

Verdict check_length(std::string_view text, int64_t least, int64_t most) {
  const auto count = static_cast<int64_t>(words_of(text).size());
  if (count >= least && count <= most) return std::nullopt;
  return Refusal{"length", fmt::format("{} words, must be {} to {}", count, least, most)};
}

// A phrase of four words that comes twice (in a long text three times), or one word three times in a row.
Verdict check_loop(std::string_view text) {
  constexpr size_t kLongText = 40;
  const auto words = words_of(text);
  const int most = words.size() > kLongText ? 2 : 1;
  std::map<std::string, int> seen;
  for (size_t i = 0; i < words.size(); ++i) {
    if (i >= 2 && words[i] == words[i - 1] && words[i] == words[i - 2]) return Refusal{"loop", words[i]};
    if (i + 4 > words.size()) continue;
    const auto phrase = fmt::format("{} {} {} {}", words[i], words[i + 1], words[i + 2], words[i + 3]);
    if (++seen[phrase] > most) return Refusal{"loop", phrase};
  }
  return std::nullopt;
}

// Labels, list marks, markup and links that belong to a prompt or a page, not to a sentence.
Verdict check_markup(std::string_view text) {
  for (const std::string_view mark : {"http", "www.", "```", "**", "##", "<|", "|>", "{", "}", "___", "\\",
                                      "Question:", "Answer:", "Fact:", "Topic:", "A)", "B)", "(a)", "(A)"}) {
    if (text.find(mark) != std::string_view::npos) return Refusal{"format", fmt::format("holds '{}'", mark)};
  }
  return std::nullopt;
}

bool is_expression(std::string_view phrase) {
  return phrase.size() > 2 && phrase.starts_with('/') && phrase.ends_with('/');
}

Verdict check_forbidden(const Task& task, std::string_view text, const std::string& words) {
  for (const auto& phrase : task.forbidden) {
    if (!is_expression(phrase)) {
      if (auto found = find_phrase("forbidden", words, std::array{phrase})) return found;
      continue;
    }
    const std::regex expression(phrase.substr(1, phrase.size() - 2), std::regex::ECMAScript | std::regex::icase);
    if (std::regex_search(text.begin(), text.end(), expression)) return Refusal{"forbidden", phrase};
  }
  return std::nullopt;
}

// Told stories and options may speak of tables and pictures, and quote somebody who is sorry.
enum class Phrasing { kStrict, kFree };

Verdict check_phrases(const Task& task, std::string_view text, Phrasing phrasing) {
  const std::string words = word_string(text);
  if (phrasing == Phrasing::kStrict || words_of(text).size() < 12) {
    if (auto found = find_phrase("refusal", words, kRefusals)) return found;
  }
  if (auto found = find_phrase("self_reference", words, kSelfReferences)) return found;
  if (phrasing == Phrasing::kStrict) {
    if (auto found = find_phrase("prompt_talk", words, kPromptTalk)) return found;
  }
  return check_forbidden(task, text, words);
}

bool starts_a_sentence(std::string_view text) {
  const auto first = static_cast<unsigned char>(text.front());
  return std::isupper(first) || std::isdigit(first) || first >= 0x80;
}

double share_in(const std::vector<std::string>& stems, const std::set<std::string>& known) {
  if (stems.empty()) return 1.0;
  const auto found = std::ranges::count_if(stems, [&](const std::string& word) { return known.contains(word); });
  return static_cast<double>(found) / static_cast<double>(stems.size());
}

// "A solid is a solid that is solid": a word of the question that the answer needs twice explains nothing; nor does an
// answer that brings no new word.
Verdict check_new_words(const Task& task, const PairText& pair) {
  const auto question = content_stems(pair.question), answer = content_stems(pair.answer);
  const std::set<std::string> asked(question.begin(), question.end());
  const double repeated = share_in(answer, asked);
  if (repeated > task.filter.max_question_overlap || answer.empty()) {
    return Refusal{"repeats_question", fmt::format("{:.0f} % of its words", 100 * repeated)};
  }
  std::map<std::string, int> counts;
  for (const auto& word : answer) {
    if (asked.contains(word) && ++counts[word] == 2) return Refusal{"circular", fmt::format("'{}' twice", word)};
  }
  return std::nullopt;
}

bool looks_plural(std::string_view word) {
  return word.size() >= 4 && word.ends_with('s') && !word.ends_with("ss") && !word.ends_with("us") &&
         !word.ends_with("is");
}

// Number of subject and verb, where a weak teacher slips most: "What does plant roots do?", "Why do ice floats?",
// "What is the lungs?". Names ("What is Mars?") are left alone.
Verdict check_agreement(std::string_view question) {
  const auto words = words_of(question);
  const size_t count = words.size();
  if (count < 3) return std::nullopt;
  const Refusal refusal{"agreement", fmt::format("'{} … {}'", words[1], words[count - 1])};
  const bool one = words[2] == "a" || words[2] == "an" || words[2] == "one";  // "What does a lens do?"
  if (words[1] == "does" && !one && count >= 4 && looks_plural(words[count - 2]) && count <= 5) return refusal;
  if (words[1] == "do" && count == 4 && looks_plural(words[3]) && !looks_plural(words[2])) return refusal;
  const bool with_the = words[2] == "the";
  const bool is_name = count == 3 && question.find(' ' + words[2]) == std::string_view::npos;  // has a capital
  if (words[1] == "is" && count == (with_the ? 4u : 3u) && looks_plural(words[count - 1]) && !is_name) return refusal;
  return std::nullopt;
}

// The answer has the form that the question asks for (English): a reason to "Why", and what it is to "What is a
// lever?".
Verdict check_answer_form(const PairText& pair) {
  const auto question = words_of(pair.question), answer = words_of(pair.answer);
  const auto answer_has = [&](std::initializer_list<std::string_view> words) {
    return std::ranges::any_of(answer, [&](const std::string& word) { return std::ranges::count(words, word) > 0; });
  };
  constexpr size_t kMaxDefinitionWords = 6;  // "What is the smallest kind of bird?" asks more than a definition
  if (question.size() < 3) return std::nullopt;
  if (question[0] == "why" && !answer_has({"because", "so", "since", "to", "as", "due", "for", "by"})) {
    return Refusal{"answer_form", "gives no reason"};
  }
  const bool what_is = question[0] == "what" && (question[1] == "is" || question[1] == "are");
  if (what_is && question.size() <= kMaxDefinitionWords && !answer_has({"is", "are", "was", "were", "it's"})) {
    return Refusal{"answer_form", "does not say what it is"};
  }
  return std::nullopt;
}

// What the answer says must stand in the fact: its words, its numbers, and whether it denies.
Verdict check_grounding(const Task& task, const PairText& pair) {
  if (pair.fact.empty()) return std::nullopt;
  const auto fact = content_stems(pair.fact), question = content_stems(pair.question);
  const std::set<std::string> in_fact(fact.begin(), fact.end());
  std::set<std::string> known = in_fact;
  known.insert(question.begin(), question.end());
  const double asked = share_in(question, in_fact);
  if (task.writes_question() && asked < task.filter.min_question_grounding) {
    return Refusal{"off_fact", fmt::format("{:.0f} % of the question's words stand in the fact", 100 * asked)};
  }
  const double grounded = share_in(content_stems(pair.answer), known);
  if (grounded < task.filter.min_grounding) {
    return Refusal{"ungrounded", fmt::format("{:.0f} % of its words stand in the fact", 100 * grounded)};
  }
  const auto given = numerals_of(pair.fact);
  for (const auto& number : numerals_of(pair.answer)) {
    if (std::ranges::find(given, number) == given.end()) return Refusal{"numerals", fmt::format("'{}'", number)};
  }
  // A passage of several sentences says yes to one thing and no to another.
  constexpr size_t kOneSentence = 30;
  const bool comparable = words_of(pair.fact).size() <= kOneSentence && task.filter.answer_shape == "sentence";
  if (comparable && has_negation(pair.answer) != has_negation(pair.fact))
    return Refusal{"negation", "says it the other way round"};
  return std::nullopt;
}

Verdict check_text(const Task& task, std::string_view text, Phrasing phrasing) {
  if (auto found = check_charset(task, text)) return found;
  if (auto found = check_markup(text)) return found;
  if (task.filter.language == "english") {
    if (const auto language = foreign_language(text); !language.empty()) return Refusal{"foreign", language};
  }
  if (auto found = check_phrases(task, text, phrasing)) return found;
  return check_loop(text);
}

// Forms of a text that stand before the other rules: where it begins and ends.
Verdict check_question_shape(const Task& task, std::string_view question) {
  const auto gaps = std::ranges::count(question, '_');
  const std::string& shape = task.filter.question_shape;
  if (shape == "gap" && gaps != 1) return Refusal{"format", fmt::format("has {} gaps '_', must have one", gaps)};
  if (shape != "gap" && gaps > 0) return Refusal{"format", "has a gap '_'"};
  if (shape == "question") {
    if (!question.ends_with('?')) return Refusal{"format", "does not end with '?'"};
    if (std::ranges::count(question, '?') > 1) return Refusal{"format", "asks more than once"};
  }
  if (!starts_a_sentence(question)) return Refusal{"format", "does not begin as a sentence"};
  return std::nullopt;
}

Verdict check_answer_shape(const Task& task, std::string_view answer) {
  const std::string& shape = task.filter.answer_shape;
  if (shape == "json") {
    const auto value = nlohmann::json::parse(answer, nullptr, /*allow_exceptions=*/false);
    return value.is_object() ? Verdict{} : Refusal{"format", "is no JSON object"};
  }
  if (shape != "sentence") return std::nullopt;
  if (!answer.ends_with('.') && !answer.ends_with('!')) return Refusal{"format", "does not end as a sentence"};
  if (answer.find('?') != std::string_view::npos) return Refusal{"format", "asks back"};
  if (!starts_a_sentence(answer)) return Refusal{"format", "does not begin as a sentence"};
  return std::nullopt;
}

std::string folded(std::string_view text) { return word_string(text); }

bool starts_small(std::string_view text) { return std::islower(static_cast<unsigned char>(text.front())) != 0; }

// A right option that its length or its first letter gives away.
Verdict check_option_balance(const Task& task, std::string_view answer, const std::vector<std::string>& wrong) {
  const double total = std::accumulate(wrong.begin(), wrong.end(), 0.0, [](double sum, const std::string& option) {
    return sum + static_cast<double>(option.size());
  });
  const double ratio = static_cast<double>(answer.size()) / (total / static_cast<double>(wrong.size()));
  if (ratio > task.filter.max_option_ratio || 1.0 / ratio > task.filter.max_option_ratio) {
    return Refusal{"option_length", fmt::format("the right option is {:.1f} times as long as the others", ratio)};
  }
  const bool odd = std::ranges::none_of(
      wrong, [&](const std::string& option) { return starts_small(option) == starts_small(answer); });
  if (odd && wrong.size() > 1) return Refusal{"option_style", "only the right option begins as it does"};
  return std::nullopt;
}

constexpr auto kCatchAlls = std::to_array<std::string_view>(
    {"all of the above", "none of the above", "both a and b", "none of these", "all of these", "both of the above"});

}  // namespace

std::string_view reason_of(std::string_view rule) {
  static constexpr auto kReasons = std::to_array<std::pair<std::string_view, std::string_view>>(
      {{"charset", "language"},          {"foreign", "language"},       {"self_reference", "refusal"},
       {"prompt_talk", "refusal"},       {"not_new", "near_duplicate"}, {"not_needed", "surplus"},
       {"no_critique", "low_score"},     {"off_fact", "unanswerable"},  {"ungrounded", "unanswerable"},
       {"numerals", "unanswerable"},     {"negation", "unanswerable"},  {"option_length", "unbalanced"},
       {"option_style", "unbalanced"},   {"letter", "unbalanced"},      {"longest_option", "unbalanced"},
       {"subtopic_quota", "unbalanced"}, {"truncated", "format"},       {"options", "format"},
       {"agreement", "format"},          {"answer_form", "format"},     {"loop", "format"},
       {"repeats_question", "format"},   {"circular", "format"},        {"missing_part", "format"}});
  for (const auto& [name, reason] : kReasons) {
    if (name == rule) return reason;
  }
  return rule.starts_with("low_") ? "low_score" : rule;
}

std::optional<Refusal> refuse_context(const Task& task, std::string_view context, bool truncated) {
  if (context.empty()) return Refusal{"format", "empty"};
  if (truncated) return Refusal{"truncated", "reached the token limit"};
  if (auto found = check_length(context, task.filter.min_context_words, task.filter.max_context_words)) return found;
  return check_text(task, context, Phrasing::kFree);
}

std::optional<Refusal> refuse_question(const Task& task, std::string_view question, bool truncated) {
  if (question.empty()) return Refusal{"format", "empty"};
  if (truncated) return Refusal{"truncated", "reached the token limit"};
  if (auto found = check_question_shape(task, question)) return found;
  if (auto found = check_length(question, task.filter.min_question_words, task.filter.max_question_words)) return found;
  const bool asks = task.filter.question_shape == "question";
  if (auto found = check_text(task, question, asks ? Phrasing::kStrict : Phrasing::kFree)) return found;
  return asks && task.filter.language == "english" ? check_agreement(question) : std::nullopt;
}

std::optional<Refusal> refuse_answer(const Task& task, const PairText& pair, bool truncated) {
  const std::string_view answer = pair.answer;
  const std::string& shape = task.filter.answer_shape;
  if (answer.empty()) return Refusal{"format", "empty"};
  if (truncated) return Refusal{"truncated", "reached the token limit"};
  if (!task.choices.empty()) {
    if (std::ranges::find(task.choices, answer) != task.choices.end()) return std::nullopt;
    return Refusal{"options", fmt::format("'{:.40}' is none of the choices", answer)};
  }
  if (auto found = check_answer_shape(task, answer)) return found;
  if (auto found = check_length(answer, task.filter.min_answer_words, task.filter.max_answer_words)) return found;
  if (shape == "json") return check_charset(task, answer);
  const bool is_sentence = shape == "sentence";
  if (auto found = check_text(task, answer, is_sentence ? Phrasing::kStrict : Phrasing::kFree)) return found;
  if (is_sentence && !task.has_options()) {
    if (auto found = check_new_words(task, pair)) return found;
    if (task.filter.language == "english") {
      if (auto found = check_answer_form(pair)) return found;
    }
  }
  return check_grounding(task, pair);
}

std::optional<Refusal> refuse_options(const Task& task, std::string_view answer,
                                      const std::vector<std::string>& wrong) {
  const auto wanted = static_cast<size_t>(task.options_of_a_pair() - 1);
  if (wrong.size() < wanted) {
    return Refusal{"options", fmt::format("{} wrong options that differ, must be {}", wrong.size(), wanted)};
  }
  std::set<std::string> seen{folded(answer)};
  for (const auto& option : wrong) {
    if (!seen.insert(folded(option)).second) return Refusal{"options", fmt::format("'{:.40}' twice", option)};
    if (find_phrase("", folded(option), kCatchAlls)) return Refusal{"options", fmt::format("'{:.40}'", option)};
    if (auto found = check_length(option, task.filter.min_answer_words, task.filter.max_answer_words)) return found;
    if (auto found = check_text(task, option, Phrasing::kFree)) return found;
  }
  return check_option_balance(task, answer, wrong);
}

}  // namespace potstill
