#include "potstill/text/relabel.h"

#include <fmt/format.h>

#include <numeric>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "potstill/base/error.h"
#include "potstill/base/rng.h"

namespace potstill {
namespace {

// Left and right side of "left right"; a side may begin with a blank nowhere in the byte-level alphabet.
std::pair<std::string, std::string> sides(const std::string& merge) {
  const size_t blank = merge.find(' ', 1);
  return {merge.substr(0, blank), merge.substr(blank + 1)};
}

// New id of each old one; -1 of those that are left out.
std::vector<TokenId> new_ids(const Vocabulary& vocabulary, std::span<const TokenId> old_ids) {
  std::vector<TokenId> ids(vocabulary.tokens.size(), -1);
  for (size_t i = 0; i < old_ids.size(); ++i) {
    const auto old = static_cast<size_t>(old_ids[i]);
    if (old_ids[i] < 0 || old >= ids.size() || ids[old] >= 0) {
      throw Error(ErrorKind::kInput, "relabel",
                  fmt::format("id {} is {} of {} tokens", old_ids[i],
                              old_ids[i] >= 0 && old < ids.size() ? "named twice" : "none", ids.size()));
    }
    ids[old] = static_cast<TokenId>(i);
  }
  return ids;
}

}  // namespace

Vocabulary relabel_vocabulary(const Vocabulary& vocabulary, std::span<const TokenId> old_ids) {
  const auto ids = new_ids(vocabulary, old_ids);
  Vocabulary relabelled{.pre = vocabulary.pre,
                        .tokens = {},
                        .types = {},
                        .merges = {},
                        .added = {},
                        .ignore_merges = vocabulary.ignore_merges,
                        .nfc = vocabulary.nfc,
                        .add_bos = vocabulary.add_bos,
                        .bos = {},
                        .eos = {},
                        .pad = {},
                        .unk = {}};
  std::unordered_set<std::string> kept;
  for (const TokenId old : old_ids) {
    relabelled.tokens.push_back(vocabulary.tokens[static_cast<size_t>(old)]);
    relabelled.types.push_back(vocabulary.types[static_cast<size_t>(old)]);
    kept.insert(relabelled.tokens.back());
  }
  for (const auto& merge : vocabulary.merges) {
    const auto [left, right] = sides(merge);
    if (kept.contains(left) && kept.contains(right) && kept.contains(left + right)) relabelled.merges.push_back(merge);
  }
  std::vector<const AddedToken*> added(old_ids.size(), nullptr);  // by new id, as Vocabulary keeps them
  for (const auto& token : vocabulary.added) {
    if (const TokenId id = ids[static_cast<size_t>(token.id)]; id >= 0) added[static_cast<size_t>(id)] = &token;
  }
  for (size_t id = 0; id < added.size(); ++id) {
    if (added[id] == nullptr) continue;
    relabelled.added.push_back(*added[id]);
    relabelled.added.back().id = static_cast<TokenId>(id);
  }
  const auto role = [&](std::optional<TokenId> old) -> std::optional<TokenId> {
    const TokenId id = old ? ids[static_cast<size_t>(*old)] : -1;
    return id < 0 ? std::nullopt : std::optional(id);
  };
  relabelled.bos = role(vocabulary.bos);
  relabelled.eos = role(vocabulary.eos);
  relabelled.pad = role(vocabulary.pad);
  relabelled.unk = role(vocabulary.unk);
  relabelled.add_bos = vocabulary.add_bos && relabelled.bos;
  return relabelled;
}

std::vector<TokenId> shuffled_ids(const Vocabulary& vocabulary, uint64_t seed) {
  std::vector<TokenId> ids(vocabulary.tokens.size());
  std::iota(ids.begin(), ids.end(), 0);
  Rng rng(seed, "text/relabel");
  rng.shuffle(ids);
  return ids;
}

std::vector<TokenId> ids_of_first_merges(const Vocabulary& vocabulary, double share) {
  const auto count = static_cast<size_t>(share * static_cast<double>(vocabulary.merges.size()));
  std::unordered_set<std::string> made, late;  // by the first merges, by the others alone
  for (size_t i = 0; i < vocabulary.merges.size(); ++i) {
    const auto [left, right] = sides(vocabulary.merges[i]);
    if (i < count) {
      made.insert(left + right);
    } else if (!made.contains(left + right)) {
      late.insert(left + right);
    }
  }
  std::unordered_set<TokenId> added;
  for (const auto& token : vocabulary.added) added.insert(token.id);
  std::vector<TokenId> ids;
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const auto token = static_cast<TokenId>(id);
    if (added.contains(token) || !late.contains(vocabulary.tokens[id])) ids.push_back(token);
  }
  return ids;
}

}  // namespace potstill
