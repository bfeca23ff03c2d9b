#include "potstill/distill/agreement.h"

#include <algorithm>

#include "potstill/base/check.h"
#include "potstill/distill/batches.h"
#include "potstill/distill/kl_loss.h"

namespace potstill {

std::vector<int64_t> answer_position_offsets(const DistillData& data) {
  std::vector<int64_t> offsets = {0};
  for (const auto& record : data.records) {
    offsets.push_back(offsets.back() + static_cast<int64_t>(record.answer_positions().size()));
  }
  return offsets;
}

void AgreementSums::add(const at::Tensor& student, const at::Tensor& teacher, const at::Tensor& labels) {
  const at::NoGradGuard no_grad;
  const auto log_q = at::log_softmax(student, 1), log_p = at::log_softmax(teacher, 1);
  const auto column = labels.unsqueeze(1);
  kl += (log_p.exp() * (log_p - log_q)).sum(at::kDouble).item<double>();
  ce -= log_q.gather(1, column).sum(at::kDouble).item<double>();
  teacher_ce -= log_p.gather(1, column).sum(at::kDouble).item<double>();
  agreeing += student.argmax(1).eq(teacher.argmax(1)).sum().item<int64_t>();
  tokens += labels.size(0);
}

Agreement AgreementSums::mean() const {
  if (tokens == 0) return {};
  const auto count = static_cast<double>(tokens);
  return {.kl = kl / count,
          .top1 = static_cast<double>(agreeing) / count,
          .ce = ce / count,
          .teacher_ce = teacher_ce / count,
          .tokens = tokens};
}

Agreement measure_agreement(const Transformer& student, const TeacherSignal& teacher, const DistillData& data,
                            std::span<const int64_t> records, int64_t tokens_per_batch, int64_t loss_rows) {
  const at::NoGradGuard no_grad;
  const auto offsets = answer_position_offsets(data);
  const int64_t vocab_limit = std::min(teacher.vocab_limit(), student.lm_head.size(0));
  const auto head = student.lm_head.narrow(0, 0, vocab_limit);
  AgreementSums sums;
  for (const AnswerBatch& batch : make_answer_batches(data, offsets, records, tokens_per_batch, student.device())) {
    const auto hidden = student.hidden_states(batch.packed).index_select(0, batch.rows);
    for (int64_t begin = 0; begin < hidden.size(0); begin += loss_rows) {
      const int64_t count = std::min(loss_rows, hidden.size(0) - begin);
      const auto teacher_logits = teacher.logits(batch.positions.narrow(0, begin, count), student.device());
      sums.add(head_logits(hidden.narrow(0, begin, count), head), teacher_logits.narrow(1, 0, vocab_limit),
               batch.labels.narrow(0, begin, count));
    }
  }
  return sums.mean();
}

}  // namespace potstill
