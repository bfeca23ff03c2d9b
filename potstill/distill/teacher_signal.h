// TeacherSignal: what the teacher says at each answer position, from wherever it was kept.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string>

namespace potstill {

class TeacherSignal {
 public:
  virtual ~TeacherSignal() = default;

  // Answer positions of the whole data set are numbered record after record, in the order of DistillData::records.
  virtual int64_t num_positions() const = 0;
  // Ids below this are real tokens; rows of the head past it only pad.
  virtual int64_t vocab_limit() const = 0;
  // positions [N] int64 (CPU) -> fp32 logits [N, vocab_limit()] on `device`.
  virtual at::Tensor logits(const at::Tensor& positions, at::Device device) const = 0;
  virtual std::string where() const = 0;
};

}  // namespace potstill
