#include "potstill/base/error.h"
#include "potstill/distill/rank_group.h"

namespace potstill {

std::unique_ptr<RankGroup> join_ranks(const RankPlace&) {
  throw Error(ErrorKind::kUsage, "WORLD_SIZE", "asks for several ranks, and this build has no Gloo to join them by",
              "configure where Gloo's headers are (Debian: libgloo-dev), or unset WORLD_SIZE");
}

}  // namespace potstill
