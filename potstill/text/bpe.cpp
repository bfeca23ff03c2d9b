#include "potstill/text/bpe.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <queue>

#include "potstill/base/error.h"
#include "potstill/text/byte_alphabet.h"

namespace potstill {
namespace {

constexpr uint64_t kMultiplier = 0x9E3779B97F4A7C15;  // 2^64 / golden ratio: Fibonacci hashing
constexpr size_t kShortWord = 32;                     // symbols; up to here a scan beats a heap

uint64_t load_up_to_8(const char* p, size_t size) {
  uint64_t value = 0;
  if (size == 8) {
    std::memcpy(&value, p, 8);
  } else if (size >= 4) {
    uint32_t low, high;
    std::memcpy(&low, p, 4);
    std::memcpy(&high, p + size - 4, 4);
    value = low | uint64_t{high} << 8 * (size - 4);
  } else {
    for (size_t i = 0; i < size; ++i) value |= uint64_t{static_cast<unsigned char>(p[i])} << 8 * i;
  }
  return value;
}

// The bytes of a short word, a hash of a longer one.
uint64_t word_key(std::string_view word) {
  if (word.size() <= 8) return load_up_to_8(word.data(), word.size());
  uint64_t hash = word.size();
  const char* p = word.data();
  size_t left = word.size();
  for (; left > 8; left -= 8, p += 8) {
    hash = (hash ^ load_up_to_8(p, 8)) * kMultiplier;
    hash ^= hash >> 32;
  }
  hash = (hash ^ load_up_to_8(p, left)) * kMultiplier;
  return hash ^ hash >> 32;
}

size_t slot_of(uint64_t key, uint64_t size, int shift) {
  const uint64_t mixed = (key ^ size << 56) * kMultiplier;
  return static_cast<size_t>((mixed ^ mixed << 29) * kMultiplier >> shift);
}

// log2 of a table's size that leaves at least half of it free.
int table_bits(size_t entries) { return std::bit_width(std::max<size_t>(entries, 8) * 2 - 1); }

uint64_t pair_of(TokenId left, TokenId right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

}  // namespace

Bpe::Bpe(const Vocabulary& vocabulary, std::string_view where) {
  add_tokens(vocabulary, where);
  add_merges(vocabulary, where);
  // A Llama-3 word that is a token is that token, whatever its merges say; anyone else's has to be asked once.
  wholeness_ = std::make_unique<std::atomic<uint8_t>[]>(vocabulary.tokens.size());
  for (size_t i = 0; i < vocabulary.tokens.size() && vocabulary.ignore_merges; ++i) {
    wholeness_[i] = vocabulary.types[i] == TokenType::kNormal ? kWhole : kBroken;
  }
}

void Bpe::add_tokens(const Vocabulary& vocabulary, std::string_view where) {
  size_t num_bytes = 0;
  for (const auto& token : vocabulary.tokens) num_bytes += token.size();
  if (num_bytes > UINT32_MAX) {
    throw Error(ErrorKind::kFormat, where,
                fmt::format("the tokens have {} bytes together, 4 GiB is the limit", num_bytes));
  }
  arena_.reserve(num_bytes);
  offsets_.reserve(vocabulary.tokens.size() + 1);
  offsets_.push_back(0);
  const int bits = table_bits(vocabulary.tokens.size());
  words_.resize(size_t{1} << bits);
  words_shift_ = 64 - bits;
  std::fill(std::begin(byte_tokens_), std::end(byte_tokens_), -1);
  for (size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    const bool spelled = append_spelled_bytes(vocabulary.tokens[i], arena_);
    if (!spelled) arena_ += vocabulary.tokens[i];
    offsets_.push_back(static_cast<uint32_t>(arena_.size()));
    const std::string_view word = bytes(static_cast<TokenId>(i));
    if (!spelled || word.empty()) continue;
    const uint64_t key = word_key(word);
    const size_t slot = word_slot(key, word);
    if (words_[slot].size != 0) {  // of two tokens with one spelling the first counts
      has_twins_ = true;
      continue;
    }
    words_[slot] = {key, static_cast<uint32_t>(word.size()), static_cast<TokenId>(i)};
    if (word.size() == 1) byte_tokens_[static_cast<unsigned char>(word[0])] = static_cast<TokenId>(i);
  }
}

void Bpe::add_merges(const Vocabulary& vocabulary, std::string_view where) {
  const int bits = table_bits(vocabulary.merges.size());
  merges_.resize(size_t{1} << bits);
  merges_shift_ = 64 - bits;
  std::string merged;
  TokenId previous = -1;
  for (size_t rank = 0; rank < vocabulary.merges.size(); ++rank) {
    const std::string& line = vocabulary.merges[rank];
    const auto fail = [&](std::string_view what) {
      throw Error(ErrorKind::kFormat, where, fmt::format("merge {} '{}' {}", rank, line, what),
                  "the vocabulary and its merges do not belong together, or the file is damaged");
    };
    const size_t blank = line.find(' ', 1);
    if (blank == std::string::npos) fail("is not two tokens with a blank between");
    merged.clear();
    const std::string_view left = std::string_view(line).substr(0, blank),
                           right = std::string_view(line).substr(blank + 1);
    if (!append_spelled_bytes(left, merged)) fail("has a character outside the byte-level alphabet");
    const size_t left_size = merged.size();
    if (!append_spelled_bytes(right, merged)) fail("has a character outside the byte-level alphabet");
    const std::string_view all = merged;
    const TokenId left_id = find(all.substr(0, left_size)), right_id = find(all.substr(left_size));
    // trainers number tokens in the order of their merges, so the result is mostly the token after the last result
    const auto next = static_cast<size_t>(previous + 1);
    const bool guessed = !has_twins_ && next < vocabulary.tokens.size() && bytes(previous + 1) == all;
    const TokenId id = guessed ? previous + 1 : find(all);
    if (left_id < 0 || right_id < 0 || id < 0) {
      fail(fmt::format("names '{}', which is no token", left_id < 0    ? std::string(left)
                                                        : right_id < 0 ? std::string(right)
                                                                       : spell_bytes(all)));
    }
    previous = id;
    const uint64_t pair = pair_of(left_id, right_id);
    size_t slot = slot_of(pair, 0, merges_shift_);
    while (merges_[slot].pair != kNoPair && merges_[slot].pair != pair) slot = (slot + 1) & (merges_.size() - 1);
    merges_[slot] = {pair, {static_cast<uint32_t>(rank), id}};  // a merge listed twice has its last rank, as there
  }
}

// Where the word is, or the free slot where it would be.
size_t Bpe::word_slot(uint64_t key, std::string_view word) const {
  const size_t mask = words_.size() - 1;
  for (size_t slot = slot_of(key, word.size(), words_shift_);; slot = (slot + 1) & mask) {
    const WordSlot& candidate = words_[slot];
    const bool alike = candidate.key == key && candidate.size == word.size();
    if (candidate.size == 0 || (alike && (word.size() <= 8 || bytes(candidate.id) == word))) return slot;
  }
}

TokenId Bpe::find(std::string_view word) const {
  return word.empty() ? -1 : words_[word_slot(word_key(word), word)].id;
}

TokenId Bpe::find_spelled(std::string_view spelling) const {
  std::string word;
  return append_spelled_bytes(spelling, word) ? find(word) : -1;
}

Bpe::Merge Bpe::merge_of(TokenId left, TokenId right) const {
  const uint64_t pair = pair_of(left, right);
  const size_t mask = merges_.size() - 1;
  for (size_t slot = slot_of(pair, 0, merges_shift_);; slot = (slot + 1) & mask) {
    if (merges_[slot].pair == pair) return merges_[slot].merge;
    if (merges_[slot].pair == kNoPair) return {};
  }
}

// Most words of a text are one token. Whether a token's own bytes merge into it never changes, so it is worked out the
// first time and remembered: a cache of one byte a token, which threads may fill in any order with the same values.
void Bpe::encode(std::string_view word, std::vector<TokenId>& out) const {
  const TokenId whole = find(word);
  if (whole < 0) {
    merge_bytes(word, out);
    return;
  }
  auto& known = wholeness_[static_cast<size_t>(whole)];
  const uint8_t wholeness = known.load(std::memory_order_relaxed);
  if (wholeness == kWhole) {
    out.push_back(whole);
    return;
  }
  const size_t before = out.size();
  merge_bytes(word, out);
  if (wholeness == kUnasked) {
    const bool is_whole = out.size() == before + 1 && out.back() == whole;
    known.store(is_whole ? kWhole : kBroken, std::memory_order_relaxed);
  }
}

void Bpe::merge_bytes(std::string_view word, std::vector<TokenId>& out) const {
  TokenId few[kShortWord];
  std::vector<TokenId> many;
  TokenId* symbols = few;
  if (word.size() > kShortWord) {
    many.resize(word.size());
    symbols = many.data();
  }
  size_t count = 0;
  for (const char byte : word) {
    const TokenId id = byte_tokens_[static_cast<unsigned char>(byte)];
    if (id >= 0) symbols[count++] = id;
  }
  if (count <= kShortWord) {
    merge_short(symbols, count, out);
  } else {
    merge_long(symbols, count, out);
  }
}

// The definition: the pair of lowest rank, of several the leftmost, until no pair merges.
void Bpe::merge_short(const TokenId* symbols, size_t count, std::vector<TokenId>& out) const {
  TokenId ids[kShortWord];
  uint32_t ranks[kShortWord];  // of the pair (i, i + 1)
  TokenId results[kShortWord];
  std::copy(symbols, symbols + count, ids);
  const auto ask = [&](size_t i) {
    const Merge merge = i + 1 < count ? merge_of(ids[i], ids[i + 1]) : Merge{};
    ranks[i] = merge.rank;
    results[i] = merge.id;
  };
  for (size_t i = 0; i < count; ++i) ask(i);
  while (count > 1) {
    const auto best = static_cast<size_t>(std::min_element(ranks, ranks + count - 1) - ranks);
    if (ranks[best] == kNoMerge) break;
    ids[best] = results[best];
    const size_t tail = count - best - 2;
    std::memmove(ids + best + 1, ids + best + 2, tail * sizeof(ids[0]));
    std::memmove(ranks + best + 1, ranks + best + 2, tail * sizeof(ranks[0]));
    std::memmove(results + best + 1, results + best + 2, tail * sizeof(results[0]));
    --count;
    ask(best);
    if (best > 0) ask(best - 1);
  }
  out.insert(out.end(), ids, ids + count);
}

// The same by a heap of candidate pairs over a linked list: O(n log n), for words of any length.
void Bpe::merge_long(const TokenId* symbols, size_t count, std::vector<TokenId>& out) const {
  struct Node {
    TokenId id;  // -1: merged into its left neighbour
    size_t previous, next;
  };
  struct Candidate {
    uint32_t rank;
    size_t left;
    uint64_t pair;  // as it was found; the neighbours may have merged since
    TokenId id;
    bool operator>(const Candidate& other) const { return rank != other.rank ? rank > other.rank : left > other.left; }
  };
  constexpr size_t kNone = ~size_t{0};
  std::vector<Node> nodes(count);
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> candidates;
  const auto ask = [&](size_t left) {
    const size_t right = nodes[left].next;
    if (right == kNone) return;
    const Merge merge = merge_of(nodes[left].id, nodes[right].id);
    if (merge.rank != kNoMerge) candidates.push({merge.rank, left, pair_of(nodes[left].id, nodes[right].id), merge.id});
  };
  for (size_t i = 0; i < count; ++i) nodes[i] = {symbols[i], i == 0 ? kNone : i - 1, i + 1 == count ? kNone : i + 1};
  for (size_t i = 0; i < count; ++i) ask(i);
  while (!candidates.empty()) {
    const Candidate best = candidates.top();
    candidates.pop();
    Node& left = nodes[best.left];
    if (left.id < 0 || left.next == kNone || pair_of(left.id, nodes[left.next].id) != best.pair) continue;
    Node& right = nodes[left.next];
    left.id = best.id;
    left.next = right.next;
    right.id = -1;
    if (left.next != kNone) nodes[left.next].previous = best.left;
    ask(best.left);
    if (left.previous != kNone) ask(left.previous);
  }
  for (const Node& node : nodes) {
    if (node.id >= 0) out.push_back(node.id);
  }
}

}  // namespace potstill
