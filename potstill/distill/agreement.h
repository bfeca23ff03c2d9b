// How close a student is to its teacher on given pairs, at temperature 1: comparable between any two students.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>

#include "potstill/distill/rank_group.h"
#include "potstill/distill/records.h"
#include "potstill/distill/teacher_signal.h"
#include "potstill/nn/transformer.h"

namespace potstill {

struct Agreement {
  // Mean a token at T = 1: KL(teacher || student) in nats, or what else `quantity` says.
  double kl = 0;
  Quantity quantity = Quantity::kKl;
  double top1 = 0;        // share of the positions where both put the same token first
  double ce = 0;          // mean negative log-likelihood of the answers' tokens
  double teacher_ce = 0;  // the teacher's own
  int64_t tokens = 0;
};

// {"kl" or the quantity's own name, "top1", "ce", "teacher_ce", "tokens"}, and back.
nlohmann::ordered_json to_json(const Agreement& agreement);
Agreement agreement_from_json(const nlohmann::json& json);

// The sums behind an Agreement, for callers that bring logits of their own (a quantized model run layer by layer).
struct AgreementSums {
  double kl = 0, ce = 0, teacher_ce = 0;
  int64_t agreeing = 0, tokens = 0;

  // fp32 logits [n, V] of the same positions, labels [n].
  void add(const at::Tensor& student, const at::Tensor& teacher, const at::Tensor& labels);
  Agreement mean(Quantity quantity = Quantity::kKl) const;
};

// `records` are indices into data.records. With a group each rank measures its share and all get the whole.
Agreement measure_agreement(const Transformer& student, const TeacherSignal& teacher, const DistillData& data,
                            std::span<const int64_t> records, int64_t tokens_per_batch = 4096, int64_t loss_rows = 128,
                            RankGroup* group = nullptr);

// First answer position of each record in TeacherSignal's numbering, and at the end their number: [records + 1].
std::vector<int64_t> answer_position_offsets(const DistillData& data);

}  // namespace potstill
