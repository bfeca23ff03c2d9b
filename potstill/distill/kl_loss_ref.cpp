#include "potstill/distill/kl_loss_ref.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace potstill {
namespace {

std::vector<double> log_softmax(std::span<const double> logits, double temperature) {
  const double largest = *std::ranges::max_element(logits) / temperature;
  double sum = 0;
  for (const double z : logits) sum += std::exp(z / temperature - largest);
  std::vector<double> result;
  for (const double z : logits) result.push_back(z / temperature - largest - std::log(sum));
  return result;
}

}  // namespace

KlLossRow kl_loss_ref(std::span<const double> student, std::span<const double> teacher, int64_t label, double alpha,
                      double temperature, std::span<double> gradient) {
  const auto log_p = log_softmax(teacher, temperature), log_q = log_softmax(student, temperature);
  const auto log_student = log_softmax(student, 1.0);
  KlLossRow row;
  for (size_t k = 0; k < student.size(); ++k) {
    const double p = std::exp(log_p[k]), q = std::exp(log_q[k]);
    const double is_label = static_cast<int64_t>(k) == label ? 1.0 : 0.0;
    row.kl += p * (log_p[k] - log_q[k]);
    gradient[k] = alpha * temperature * (q - p) + (1 - alpha) * (std::exp(log_student[k]) - is_label);
  }
  row.ce = -log_student[static_cast<size_t>(label)];
  row.loss = alpha * temperature * temperature * row.kl + (1 - alpha) * row.ce;
  return row;
}

}  // namespace potstill
