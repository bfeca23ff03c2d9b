#include "potstill/synth/language.h"

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "potstill/synth/words.h"

namespace potstill {
namespace {

// The commonest words of each language that are no common English ones.
constexpr auto kEnglish = std::to_array<std::string_view>(
    {"the", "of",   "and", "is", "are", "what", "which", "to",  "in",   "that", "it", "was", "for",
     "on",  "with", "a",   "an", "by",  "from", "how",   "why", "when", "does", "do", "at",  "or"});
constexpr auto kGerman = std::to_array<std::string_view>(
    {"der",   "die",    "das",  "und", "ist", "nicht", "ein", "eine",       "von", "mit",  "wie",
     "warum", "welche", "sind", "zu",  "den", "im",    "auf", "f\xC3\xBCr", "es",  "wenn", "wird"});
constexpr auto kFrench = std::to_array<std::string_view>(
    {"le",   "la",     "les",  "des",      "est",  "et", "une", "du",     "que",     "qui", "dans",
     "pour", "quelle", "quel", "pourquoi", "sont", "un", "en",  "qu'est", "comment", "il",  "elle"});
constexpr auto kSpanish = std::to_array<std::string_view>(
    {"el",   "la",          "los",        "las", "es", "y",  "una", "del", "que",         "por",
     "para", "cu\xC3\xA1l", "qu\xC3\xA9", "son", "un", "en", "con", "se",  "c\xC3\xB3mo", "como"});
constexpr auto kItalian =
    std::to_array<std::string_view>({"il", "la", "gli", "di", "che", "una", "della", "per", "sono", "perch\xC3\xA9",
                                     "come", "del", "non", "un", "con", "le", "quale", "\xC3\xA8"});
constexpr auto kDutch = std::to_array<std::string_view>(
    {"het", "een", "van", "en", "zijn", "wat", "waarom", "welke", "niet", "met", "voor", "de", "hoe", "dat", "wordt"});
constexpr auto kPortuguese =
    std::to_array<std::string_view>({"o", "os", "as", "uma", "da", "que", "por", "para", "\xC3\xA9", "qual", "um", "em",
                                     "com", "n\xC3\xA3o", "s\xC3\xA3o", "e", "como"});

}  // namespace

std::string foreign_language(std::string_view text) {
  const auto words = words_of(text);
  const auto hits = [&](std::span<const std::string_view> known) {
    return std::ranges::count_if(
        words, [&](const std::string& word) { return std::ranges::find(known, word) != known.end(); });
  };
  const auto english = hits(kEnglish);
  std::pair<std::ptrdiff_t, std::string> best{0, ""};
  for (const auto& [name, known] :
       std::to_array<std::pair<const char*, std::span<const std::string_view>>>({{"de", kGerman},
                                                                                 {"fr", kFrench},
                                                                                 {"es", kSpanish},
                                                                                 {"it", kItalian},
                                                                                 {"nl", kDutch},
                                                                                 {"pt", kPortuguese}})) {
    if (const auto count = hits(known); count > best.first) best = {count, name};
  }
  // A borrowed phrase ("the Rio de la Plata") has as many English words around it.
  return best.first >= 2 && best.first > english + 1 ? best.second : "";
}

}  // namespace potstill
