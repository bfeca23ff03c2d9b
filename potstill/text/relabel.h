// The same tokenizer under other ids, or a smaller one of the same kind: what a teacher "of another vocabulary" reads
// by in the study of cross-tokenizer distillation.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "potstill/text/tokenizer.h"

namespace potstill {

// Token i of the result is token old_ids[i] of `vocabulary`. Merges whose result or parts are left out go; so do the
// roles (bos, eos, …) of tokens that are left out. Throws Error(kInput) for an id that is not there or is named twice.
Vocabulary relabel_vocabulary(const Vocabulary& vocabulary, std::span<const TokenId> old_ids);

// All ids in an order drawn by the seed: the same pieces of text under other ids.
std::vector<TokenId> shuffled_ids(const Vocabulary& vocabulary, uint64_t seed);

// The ids, ascending, of a tokenizer that learnt only the first `share` of the merges: single bytes, added tokens and
// what those merges make. It cuts text into more tokens.
std::vector<TokenId> ids_of_first_merges(const Vocabulary& vocabulary, double share);

}  // namespace potstill
