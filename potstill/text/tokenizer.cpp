#include "potstill/text/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <unordered_map>

#include "potstill/base/error.h"
#include "potstill/text/added_tokens.h"
#include "potstill/text/bpe.h"
#include "potstill/text/pre_tokenizer.h"
#include "potstill/text/tokenizer_json.h"
#include "potstill/text/unicode.h"

namespace potstill {
namespace {

// A file that only gives types (GGUF) means its control and user-defined tokens to be matched in the text.
Vocabulary completed(Vocabulary vocabulary, std::string_view where) {
  const size_t size = vocabulary.tokens.size();
  const auto fail = [&](const std::string& what) {
    throw Error(ErrorKind::kFormat, where, what, "the file is damaged or its tokenizer is not a byte-level BPE");
  };
  if (size == 0) fail("the vocabulary has no tokens");
  if (size > static_cast<size_t>(std::numeric_limits<TokenId>::max()))
    fail(fmt::format("{} tokens are too many", size));
  if (vocabulary.types.empty()) vocabulary.types.assign(size, TokenType::kNormal);
  if (vocabulary.types.size() != size) fail(fmt::format("{} tokens but {} token types", size, vocabulary.types.size()));
  const auto check = [&](std::string_view name, std::optional<TokenId> id) {
    if (id && (*id < 0 || static_cast<size_t>(*id) >= size)) {
      fail(fmt::format("the {} id {} is outside the vocabulary of {} tokens", name, *id, size));
    }
  };
  check("bos", vocabulary.bos), check("eos", vocabulary.eos), check("pad", vocabulary.pad),
      check("unk", vocabulary.unk);
  for (const AddedToken& token : vocabulary.added) check(fmt::format("added token '{}'", token.content), token.id);
  if (vocabulary.add_bos && !vocabulary.bos) fail("a BOS token is to be added but the file names none");
  if (vocabulary.added.empty()) {
    for (size_t i = 0; i < size; ++i) {
      const TokenType type = vocabulary.types[i];
      if (type != TokenType::kControl && type != TokenType::kUserDefined) continue;
      vocabulary.added.push_back(
          {.content = vocabulary.tokens[i], .id = static_cast<TokenId>(i), .special = type == TokenType::kControl});
    }
  }
  return vocabulary;
}

std::vector<const AddedToken*> added_tokens(const std::vector<AddedToken>& all, bool normalized) {
  std::vector<const AddedToken*> chosen;
  for (const AddedToken& token : all) {
    if (token.normalized == normalized) chosen.push_back(&token);
  }
  return chosen;
}

template <PreTokenizer kind>
void encode_plain(const Bpe& bpe, std::string_view text, std::vector<TokenId>& out) {
  const PreTokenScanner<kind> scanner(text);
  const char* const end = text.data() + text.size();
  for (const char* p = text.data(); p < end;) {
    const char* const after = scanner.next(p);
    bpe.encode({p, static_cast<size_t>(after - p)}, out);
    p = after;
  }
}

}  // namespace

struct Tokenizer::Impl {
  Impl(Vocabulary given, std::string_view where)
      : vocabulary(completed(std::move(given), where)), bpe(vocabulary, where), special(vocabulary.tokens.size()) {
    normalized_contents = vocabulary.added;
    if (vocabulary.nfc) {
      for (AddedToken& token : normalized_contents) token.content = to_nfc(token.content);
    }
    verbatim = AddedTokens(added_tokens(vocabulary.added, /*normalized=*/false));
    normalized = AddedTokens(added_tokens(normalized_contents, /*normalized=*/true));
    for (const AddedToken& token : vocabulary.added) {
      special[static_cast<size_t>(token.id)] = token.special;
      if (bpe.find_spelled(token.content) != token.id) by_spelling.emplace(token.content, token.id);
    }
  }

  Vocabulary vocabulary;
  Bpe bpe;
  std::vector<AddedToken> normalized_contents;
  AddedTokens verbatim, normalized;  // matched before and after the text is normalised
  std::vector<bool> special;
  std::unordered_map<std::string_view, TokenId> by_spelling;  // what the byte-level vocabulary cannot find

  void encode(std::string_view text, bool ordinary_specials, std::vector<TokenId>& out) const {
    cut(verbatim, text, ordinary_specials, out, [&](std::string_view piece) {
      if (!vocabulary.nfc || is_nfc_at_sight(piece)) return encode_normalized(piece, ordinary_specials, out);
      encode_normalized(to_nfc(piece), ordinary_specials, out);
    });
  }

  void encode_normalized(std::string_view text, bool ordinary_specials, std::vector<TokenId>& out) const {
    cut(normalized, text, ordinary_specials, out, [&](std::string_view piece) { encode_between(piece, out); });
  }

  void encode_between(std::string_view text, std::vector<TokenId>& out) const {
    switch (vocabulary.pre) {
      case PreTokenizer::kGpt2:
        return encode_plain<PreTokenizer::kGpt2>(bpe, text, out);
      case PreTokenizer::kLlama3:
        return encode_plain<PreTokenizer::kLlama3>(bpe, text, out);
      case PreTokenizer::kQwen2:
        return encode_plain<PreTokenizer::kQwen2>(bpe, text, out);
      case PreTokenizer::kSmolLm:
        return encode_plain<PreTokenizer::kSmolLm>(bpe, text, out);
    }
  }

  // Emits the ids of added tokens and hands what lies between them to `plain`.
  template <class Plain>
  static void cut(const AddedTokens& tokens, std::string_view text, bool ordinary_specials, std::vector<TokenId>& out,
                  Plain plain) {
    size_t claimed = 0, resume = 0;
    while (!tokens.empty()) {
      const auto match = tokens.next(text, resume, claimed, ordinary_specials, &resume);
      if (!match) break;
      if (claimed < match->start) plain(text.substr(claimed, match->start - claimed));
      out.push_back(match->id);
      claimed = match->stop;
    }
    if (claimed < text.size()) plain(text.substr(claimed));
  }
};

Tokenizer::Tokenizer(Vocabulary vocabulary, std::string_view where)
    : impl_(std::make_unique<Impl>(std::move(vocabulary), where)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::from_tokenizer_json(const nlohmann::json& tokenizer_json, const nlohmann::json& tokenizer_config,
                                         std::string_view where) {
  return Tokenizer(vocabulary_from_json(tokenizer_json, tokenizer_config, where), where);
}

std::vector<TokenId> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  std::vector<TokenId> ids;
  ids.reserve(text.size() / 3 + 2);
  if (add_special_tokens && impl_->vocabulary.add_bos) ids.push_back(*impl_->vocabulary.bos);
  impl_->encode(text, /*ordinary_specials=*/false, ids);
  return ids;
}

std::vector<TokenId> Tokenizer::encode_ordinary(std::string_view text) const {
  std::vector<TokenId> ids;
  ids.reserve(text.size() / 3 + 2);
  impl_->encode(text, /*ordinary_specials=*/true, ids);
  return ids;
}

std::string Tokenizer::decode_bytes(std::span<const TokenId> ids, bool skip_special_tokens) const {
  std::string out;
  out.reserve(ids.size() * 4);
  for (const TokenId id : ids) {
    if (id < 0 || id >= size()) {
      throw Error(ErrorKind::kInput, "tokenizer",
                  fmt::format("id {} is outside the vocabulary of {} tokens", id, size()),
                  "the ids were made by another tokenizer");
    }
    if (!skip_special_tokens || !impl_->special[static_cast<size_t>(id)]) out += impl_->bpe.bytes(id);
  }
  return out;
}

std::string Tokenizer::decode(std::span<const TokenId> ids, bool skip_special_tokens) const {
  return to_valid_utf8(decode_bytes(ids, skip_special_tokens));
}

std::optional<TokenId> Tokenizer::id_of(std::string_view token) const {
  if (const auto found = impl_->by_spelling.find(token); found != impl_->by_spelling.end()) return found->second;
  const auto id = impl_->bpe.find_spelled(token);
  return id >= 0 ? std::optional<TokenId>(id) : std::nullopt;
}

int64_t Tokenizer::size() const { return static_cast<int64_t>(impl_->vocabulary.tokens.size()); }

const Vocabulary& Tokenizer::vocabulary() const { return impl_->vocabulary; }

bool Tokenizer::is_special(TokenId id) const {
  return id >= 0 && id < size() && impl_->special[static_cast<size_t>(id)];
}

nlohmann::ordered_json Tokenizer::to_tokenizer_json() const { return vocabulary_to_tokenizer_json(impl_->vocabulary); }

nlohmann::ordered_json Tokenizer::to_tokenizer_config() const {
  return vocabulary_to_tokenizer_config(impl_->vocabulary);
}

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool skip_special_tokens)
    : tokenizer_(&tokenizer), skip_special_tokens_(skip_special_tokens) {}

std::string StreamDecoder::push(TokenId id) {
  held_ += tokenizer_->decode_bytes(std::span(&id, 1), skip_special_tokens_);
  const size_t certain = complete_utf8_prefix(held_);
  std::string text = to_valid_utf8(held_.substr(0, certain));
  held_.erase(0, certain);
  return text;
}

std::string StreamDecoder::finish() {
  std::string text = to_valid_utf8(held_);
  held_.clear();
  return text;
}

namespace {

// Ids that no text reaches: they round the vocabulary up, and a twin may leave them out or name them otherwise.
bool is_padding(const Vocabulary& vocabulary, size_t id) {
  if (id >= vocabulary.tokens.size()) return true;
  const std::string_view token = vocabulary.tokens[id];
  const auto begins = [&](std::string_view prefix) { return token.substr(0, prefix.size()) == prefix; };
  return token.empty() || vocabulary.types[id] == TokenType::kUnused || begins("[PAD") || begins("<pad") ||
         begins("<|reserved") || begins("<unused") || begins("[unused") || begins("<|extra_");
}

std::string spelling(const Vocabulary& vocabulary, size_t id) {
  return id < vocabulary.tokens.size() ? fmt::format("'{}'", vocabulary.tokens[id]) : std::string("nothing");
}

}  // namespace

TokenizerComparison compare_tokenizers(const Tokenizer& a, const Tokenizer& b) {
  constexpr size_t kShown = 3;
  const Vocabulary &left = a.vocabulary(), &right = b.vocabulary();
  std::string shown;
  size_t num_different = 0;
  for (size_t id = 0; id < std::max(left.tokens.size(), right.tokens.size()); ++id) {
    const bool both = id < left.tokens.size() && id < right.tokens.size();
    if (both && left.tokens[id] == right.tokens[id]) continue;
    if (is_padding(left, id) && is_padding(right, id)) continue;
    if (num_different++ < kShown) {
      shown +=
          fmt::format("{}id {} is {} and {}", shown.empty() ? "" : ", ", id, spelling(left, id), spelling(right, id));
    }
  }
  if (num_different == 0) return {.same = true, .difference = {}};
  return {.same = false,
          .difference = fmt::format("{} of {} and {} tokens differ: {}{}", num_different, left.tokens.size(),
                                    right.tokens.size(), shown, num_different > kShown ? ", …" : "")};
}

}  // namespace potstill
