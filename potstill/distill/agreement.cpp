#include "potstill/distill/agreement.h"

#include <algorithm>
#include <cmath>

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

nlohmann::ordered_json to_json(const Agreement& agreement) {
  return {{std::string(quantity_name(agreement.quantity)), agreement.kl},
          {"top1", agreement.top1},
          {"ce", agreement.ce},
          {"teacher_ce", agreement.teacher_ce},
          {"tokens", agreement.tokens}};
}

Agreement agreement_from_json(const nlohmann::json& json) {
  Agreement agreement{
      .top1 = json.at("top1"), .ce = json.at("ce"), .teacher_ce = json.at("teacher_ce"), .tokens = json.at("tokens")};
  for (const Quantity quantity : {Quantity::kKl, Quantity::kTopKKl, Quantity::kUld}) {
    const auto found = json.find(quantity_name(quantity));
    if (found == json.end()) continue;
    agreement.kl = found->get<double>();
    agreement.quantity = quantity;
  }
  return agreement;
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

Agreement AgreementSums::mean(Quantity quantity) const {
  if (tokens == 0) return {.quantity = quantity};
  const auto count = static_cast<double>(tokens);
  return {.kl = kl / count,
          .quantity = quantity,
          .top1 = static_cast<double>(agreeing) / count,
          .ce = ce / count,
          .teacher_ce = teacher_ce / count,
          .tokens = tokens};
}

Agreement measure_agreement(const Transformer& student, const TeacherSignal& teacher, const DistillData& data,
                            std::span<const int64_t> records, int64_t tokens_per_batch, int64_t loss_rows,
                            RankGroup* group) {
  const at::NoGradGuard no_grad;
  const auto offsets = answer_position_offsets(data);
  const int64_t vocab_limit = std::min(teacher.vocab_limit(), student.lm_head.size(0));
  const auto head = student.lm_head.narrow(0, 0, vocab_limit);
  const int64_t chunk = std::min<int64_t>(loss_rows, 32);  // a comparison holds seven tables of logits
  AgreementSums sums;
  for (const AnswerBatch& batch :
       make_answer_batches(data, offsets, share_of_rank(records, group), tokens_per_batch, student.device())) {
    const auto hidden = student.hidden_states(batch.packed, false, batch.rows);
    for (int64_t begin = 0; begin < hidden.size(0); begin += chunk) {
      const int64_t count = std::min(chunk, hidden.size(0) - begin);
      teacher.compare(head_logits(hidden.narrow(0, begin, count), head), batch.labels.narrow(0, begin, count),
                      batch.positions.narrow(0, begin, count), sums);
    }
  }
  if (group) {
    // Ranks end their shares at different times.
    const auto all = group->sum(
        {sums.kl, sums.ce, sums.teacher_ce, static_cast<double>(sums.agreeing), static_cast<double>(sums.tokens)},
        20 * RankGroup::kPatience);
    sums = {.kl = all[0],
            .ce = all[1],
            .teacher_ce = all[2],
            .agreeing = std::llround(all[3]),
            .tokens = std::llround(all[4])};
  }
  return sums.mean(teacher.quantity());
}

}  // namespace potstill
