// Optimizer: what the training loop asks of Muon and AdamW.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace potstill {

struct NamedTensor {
  std::string name;
  at::Tensor tensor;
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;

  // One step at this learning rate from the parameters' .grad (none counts as zero). Parameters change in place.
  virtual void step(double lr) = 0;

  // Everything that the next step depends on besides parameters and gradients, for an exact resume. The tensors share
  // the optimizer's memory.
  virtual std::vector<NamedTensor> state() const = 0;
  // Copies a saved state in. Throws Error(kFormat) when a tensor is missing, superfluous or of another shape.
  void load_state(const std::vector<NamedTensor>& saved, std::string_view where);

  // Root mean square of what the last step added to a parameter's entry, decay included.
  double update_rms() const { return update_rms_; }
  // Of the last step's orthogonalised directions O: mean over the matrices that have a direction of
  // ||O Oᵀ - I||_F / sqrt(short side). Nothing for an optimizer without them.
  std::optional<double> orthogonality_error() const { return orthogonality_error_; }

 protected:
  double update_rms_ = 0;
  std::optional<double> orthogonality_error_;
};

// Scales all gradients by the same factor so that their joint norm is at most max_norm (0 = no limit). Returns the norm
// before. A norm that is not finite leaves the gradients alone: the caller stops the run.
double clip_grad_norm(const std::vector<at::Tensor>& parameters, double max_norm);

void zero_grad(const std::vector<at::Tensor>& parameters);

}  // namespace potstill
