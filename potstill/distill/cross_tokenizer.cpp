#include "potstill/distill/cross_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string>
#include <unordered_map>

#include "potstill/base/error.h"
#include "potstill/distill/agreement.h"
#include "potstill/distill/uld_loss.h"

namespace potstill {
namespace {

std::string bytes_of(const Tokenizer& tokenizer, TokenId id) { return tokenizer.decode_bytes(std::span(&id, 1)); }

at::Tensor ids_of_same_bytes(const Tokenizer& teacher, const Tokenizer& student) {
  std::unordered_map<std::string, int64_t> ids;
  for (int64_t id = 0; id < student.size(); ++id) ids.emplace(bytes_of(student, static_cast<TokenId>(id)), id);
  std::vector<int64_t> same(static_cast<size_t>(teacher.size()), -1);
  for (int64_t id = 0; id < teacher.size(); ++id) {
    const auto found = ids.find(bytes_of(teacher, static_cast<TokenId>(id)));
    if (found != ids.end()) same[static_cast<size_t>(id)] = found->second;
  }
  return at::tensor(same, at::kLong);
}

}  // namespace

at::Tensor aligned_positions(const KnowledgeManifest& teacher, const DistillData& student) {
  std::map<std::pair<int64_t, int64_t>, size_t> record_of;  // line, text
  for (size_t i = 0; i < teacher.lines.size(); ++i) record_of[{teacher.lines[i], teacher.texts[i]}] = i;
  std::vector<int64_t> positions;
  for (const auto& record : student.records) {
    const auto found = record_of.find({record.line, record.text_hash});
    if (found == record_of.end()) {
      throw Error(ErrorKind::kInput, teacher.folder.string(),
                  fmt::format("was made without the pair of line {}, or with another text of it", record.line),
                  "run `potstill teach` on the same pairs; a pair that is too long in the teacher's tokens needs a "
                  "larger --max-sequence-length there");
    }
    const int64_t begin = teacher.offsets[found->second], end = teacher.offsets[found->second + 1];
    const auto count = static_cast<int64_t>(record.answer_positions().size());
    for (int64_t i = 0; i < count; ++i) positions.push_back(begin + i < end ? begin + i : -1);
  }
  return at::tensor(positions, at::kLong);
}

CrossTokenizerSignal::CrossTokenizerSignal(std::unique_ptr<KnowledgeCache> teacher,
                                           std::shared_ptr<const Tokenizer> student, at::Tensor positions)
    : teacher_(std::move(teacher)),
      student_(std::move(student)),
      positions_(std::move(positions)),
      student_id_(ids_of_same_bytes(teacher_->tokenizer(), *student_)) {}

KlLossSums CrossTokenizerSignal::loss(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& labels,
                                      const at::Tensor& positions, const KlLossOptions& options, double grad_scale,
                                      at::Tensor* grad_hidden) const {
  const auto theirs = positions_.index_select(0, positions);
  const TeacherLogits logits = [&](int64_t begin, int64_t end) {
    return teacher_->logits(theirs.narrow(0, begin, end - begin).clamp_min(0), hidden.device());
  };
  return uld_loss(hidden, head, labels, logits, theirs.ge(0), options, grad_scale, grad_hidden);
}

void CrossTokenizerSignal::compare(const at::Tensor& student, const at::Tensor& labels, const at::Tensor& positions,
                                   AgreementSums& sums) const {
  const auto theirs = positions_.index_select(0, positions);
  const auto kept = theirs.ge(0).nonzero().reshape({-1});
  if (kept.numel() == 0) return;
  const auto on_device = kept.to(student.device());
  const auto ours = student.index_select(0, on_device);
  const auto their_positions = theirs.index_select(0, kept);
  const auto logits = teacher_->logits(their_positions, student.device());
  const auto nll = [](const at::Tensor& x, const at::Tensor& ids) {
    return -at::log_softmax(x, 1).gather(1, ids.to(x.device()).unsqueeze(1)).sum(at::kDouble).item<double>();
  };
  sums.kl += uld_rows(ours, logits, 1.0).sum().item<double>();
  sums.ce += nll(ours, labels.index_select(0, on_device));
  sums.teacher_ce += nll(logits, teacher_->labels().index_select(0, their_positions));
  sums.agreeing += ours.argmax(1).cpu().eq(student_id_.index_select(0, logits.argmax(1).cpu())).sum().item<int64_t>();
  sums.tokens += kept.size(0);
}

}  // namespace potstill
