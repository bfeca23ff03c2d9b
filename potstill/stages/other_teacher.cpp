#include "potstill/stages/other_teacher.h"

#include <fmt/format.h>

#include <memory>
#include <numeric>
#include <vector>

#include "potstill/base/error.h"
#include "potstill/lm/model_package.h"
#include "potstill/nn/retokenize.h"
#include "potstill/text/relabel.h"

namespace potstill {
namespace {

constexpr double kFewerMerges = 0.5;

}  // namespace

StageKey other_teacher_key(const std::string& kind, const std::filesystem::path& teacher, uint64_t seed) {
  return {.stage = "teacher-" + kind, .config = {{"kind", kind}}, .inputs = {{"teacher", teacher}}, .seed = seed};
}

void run_other_teacher_stage(const std::string& kind, const std::filesystem::path& teacher, ArtifactWriter& out) {
  const ModelPackage model = open_model(teacher);
  const Vocabulary& vocabulary = model.tokenizer->vocabulary();
  const std::vector<TokenId> shuffled = shuffled_ids(vocabulary, out.seed());
  const auto relabelled = [&](const std::vector<TokenId>& ids) {
    return std::make_shared<const Tokenizer>(relabel_vocabulary(vocabulary, ids), "teacher-" + kind);
  };
  if (kind == "other-ids") {
    write_retokenized(model, relabelled(shuffled), shuffled, shuffled, out.folder());
  } else if (kind == "fewer-merges") {
    const auto ids = ids_of_first_merges(vocabulary, kFewerMerges);
    write_retokenized(model, relabelled(ids), ids, ids, out.folder());
    out.record("tokens", ids.size());
  } else if (kind == "misaligned") {
    std::vector<TokenId> own(vocabulary.tokens.size());
    std::iota(own.begin(), own.end(), 0);
    write_retokenized(model, model.tokenizer, own, shuffled, out.folder());
  } else {
    throw Error(ErrorKind::kUsage, "study tokenizer", fmt::format("there is no teacher '{}'", kind));
  }
}

}  // namespace potstill
