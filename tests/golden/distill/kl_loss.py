"""Loss and gradient of alpha * T^2 * KL(teacher || student) + (1 - alpha) * CE by PyTorch's own functions, in float64.

Made with torch 2.15.0, seed 11:  python tests/golden/distill/kl_loss.py > tests/golden/distill/kl_loss.json
KL is torch.nn.functional.kl_div(log_target=True, reduction="sum"), CE torch.nn.functional.cross_entropy. The student's
head has two rows more than the vocabulary and the teacher's four: they are cut off before either softmax.
"""

import json

import torch
import torch.nn.functional as F

torch.manual_seed(11)
N, D, DT, V = 7, 6, 5, 23


def flat(x):
    return [float(f"{v:.9g}") for v in x.reshape(-1).tolist()]


hidden = torch.randn(N, D).double().requires_grad_(True)
head = torch.randn(V + 2, D).double()
teacher_hidden = torch.randn(N, DT).double()
teacher_head = torch.randn(V + 4, DT).double()
labels = torch.randint(0, V, (N,))
out = {"torch": torch.__version__, "shape": [N, D, DT, V], "hidden": flat(hidden.detach()), "head": flat(head),
       "teacher_hidden": flat(teacher_hidden), "teacher_head": flat(teacher_head), "labels": labels.tolist(), "cases": []}
for alpha, temperature in [(1.0, 1.0), (1.0, 2.0), (0.0, 2.0), (0.7, 0.5), (0.5, 4.0)]:
    z = hidden @ head[:V].T
    v = teacher_hidden @ teacher_head[:V].T
    kl = F.kl_div(F.log_softmax(z / temperature, -1), F.log_softmax(v / temperature, -1), log_target=True, reduction="sum")
    ce = F.cross_entropy(z, labels, reduction="sum")
    loss = alpha * temperature**2 * kl + (1 - alpha) * ce
    (gradient,) = torch.autograd.grad(loss, hidden)
    out["cases"].append({"alpha": alpha, "temperature": temperature, "kl": kl.item(), "ce": ce.item(), "loss": loss.item(),
                         "grad_hidden": flat(gradient)})
print(json.dumps(out))
