// The distillation loss of one position in double: the definition that kl_loss.h is held to.
#pragma once

#include <cstdint>
#include <span>

namespace potstill {

struct KlLossRow {
  double kl = 0;    // KL(p || q) at temperature T, nats
  double ce = 0;    // -log softmax(student)[label] at T = 1
  double loss = 0;  // alpha · T² · kl + (1 - alpha) · ce
};

// p = softmax(teacher / T), q = softmax(student / T). Writes dloss/dstudent:
//   alpha · T · (q - p) + (1 - alpha) · (softmax(student) - onehot(label))      Hinton et al., arXiv:1503.02531,
//   section 2
// All spans have the vocabulary's length.
KlLossRow kl_loss_ref(std::span<const double> student, std::span<const double> teacher, int64_t label, double alpha,
                      double temperature, std::span<double> gradient);

}  // namespace potstill
