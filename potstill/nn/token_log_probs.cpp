#include "potstill/nn/token_log_probs.h"

#include <algorithm>
#include <numeric>

#include "potstill/base/check.h"
#include "potstill/nn/matmul.h"
#include "potstill/nn/row_kernels.h"
#include "potstill/nn/value_type.h"

namespace potstill {
namespace {

// Some of the questions asked of rows [first, first + logits.size(0)): where their answers go, in order of rows.
struct Questions {
  std::span<const int64_t> index;
  const int64_t* row;
  const int64_t* target;
  int64_t first;
};

// On the CPU: rows are read twice, where LibTorch's operators read and write them six times.
void answer_rows(const at::Tensor& logits, const Questions& asked, double* log_prob, bool* is_argmax) {
  const int64_t size = logits.size(1);
  std::vector<double> log_sum_exp(static_cast<size_t>(logits.size(0)));
  std::vector<float> largest(log_sum_exp.size());
  log_sum_exp_rows(logits, log_sum_exp.data(), largest.data());
  for_type(logits, [&]<class T>(T) {
    const T* values = reinterpret_cast<const T*>(logits.const_data_ptr());
    for (const int64_t i : asked.index) {
      const int64_t r = asked.row[i] - asked.first;
      const T* row = values + r * size;
      const float top = largest[static_cast<size_t>(r)];
      const float chosen = load_value(row + asked.target[i]);
      const auto is_top = [&](const T& x) { return load_value(&x) == top; };
      log_prob[i] = static_cast<double>(chosen) - log_sum_exp[static_cast<size_t>(r)];
      is_argmax[i] = chosen == top && std::none_of(row, row + asked.target[i], is_top);
    }
  });
}

void answer_elsewhere(const at::Tensor& logits, const Questions& asked, double* log_prob, bool* is_argmax) {
  std::vector<int64_t> rows, targets;
  for (const int64_t i : asked.index) {
    rows.push_back(asked.row[i] - asked.first);
    targets.push_back(asked.target[i]);
  }
  const auto wide = logits.to(at::kFloat).index_select(0, at::tensor(rows, at::kLong).to(logits.device()));
  const auto index = at::tensor(targets, at::kLong).to(logits.device());
  const auto chosen = wide.gather(1, index.unsqueeze(1)).squeeze(1).to(at::kDouble);
  const auto answers = (chosen - wide.logsumexp(1).to(at::kDouble)).cpu();
  const auto greedy = wide.argmax(1).eq(index).cpu();
  for (size_t j = 0; j < asked.index.size(); ++j) {
    log_prob[asked.index[j]] = answers.const_data_ptr<double>()[j];
    is_argmax[asked.index[j]] = greedy.const_data_ptr<bool>()[j];
  }
}

}  // namespace

TokenLogProbs token_log_probs(const at::Tensor& hidden, const at::Tensor& rows, const at::Tensor& targets,
                              const std::function<at::Tensor(const at::Tensor&)>& head) {
  const at::NoGradGuard no_grad;
  constexpr int64_t kPositions = 128;  // 12.6 MB of bf16 logits at a vocabulary of 49,152: the heap keeps them
  const int64_t count = targets.size(0);
  POTSTILL_CHECK(rows.size(0) == count && rows.scalar_type() == at::kLong && targets.scalar_type() == at::kLong);
  const at::Tensor rows_here = rows.cpu().contiguous(), targets_here = targets.cpu().contiguous();
  const int64_t* row = rows_here.const_data_ptr<int64_t>();
  std::vector<int64_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, {}, [&](int64_t i) { return row[i]; });
  TokenLogProbs result{at::empty({count}, at::kDouble), at::empty({count}, at::kBool)};
  auto next = order.begin();
  for (int64_t begin = 0; begin < hidden.size(0); begin += kPositions) {
    const int64_t end = std::min(begin + kPositions, hidden.size(0));
    const auto last = std::find_if(next, order.end(), [&](int64_t i) { return row[i] >= end; });
    const Questions asked{
        .index = {next, last}, .row = row, .target = targets_here.const_data_ptr<int64_t>(), .first = begin};
    const auto logits = head(hidden.slice(0, begin, end));
    const auto& answer = has_row_kernels(logits) ? answer_rows : answer_elsewhere;
    answer(logits, asked, result.log_prob.mutable_data_ptr<double>(), result.is_argmax.mutable_data_ptr<bool>());
    next = last;
  }
  POTSTILL_CHECK(next == order.end());
  return result;
}

TokenLogProbs token_log_probs(const at::Tensor& hidden, const at::Tensor& targets, const at::Tensor& lm_head) {
  return token_log_probs(hidden, at::arange(hidden.size(0), at::kLong), targets,
                         [&](const at::Tensor& x) { return times_transposed(x, lm_head); });
}

}  // namespace potstill
