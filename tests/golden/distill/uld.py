"""Universal logit distillation between two vocabularies: TRL's ULDLoss and PyTorch's autograd.

Made with torch 2.15.0, trl 1.16.0, seed 5:  python tests/golden/distill/uld.py > tests/golden/distill/uld.json
"""

import json
import os

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
import torch
import torch.nn.functional as F
import trl
from trl.experimental.gold.gold_trainer import ULDLoss

torch.manual_seed(5)


def flat(x):
    return [float(f"{v:.9g}") for v in x.reshape(-1).tolist()]


N, D = 6, 5
out = {"torch": torch.__version__, "trl": trl.__version__, "shape": [N, D], "cases": []}
for student_vocab, teacher_vocab, temperature, alpha in [(23, 31, 1.0, 1.0), (31, 23, 2.0, 0.6), (17, 17, 1.5, 1.0)]:
    hidden = torch.randn(N, D).double().requires_grad_(True)
    head = torch.randn(student_vocab, D).double()
    teacher = 2 * torch.randn(N, teacher_vocab).double()
    labels = torch.randint(0, student_vocab, (N,))
    z = hidden @ head.T
    q = torch.softmax(z / temperature, -1).sort(-1, descending=True).values
    p = torch.softmax(teacher / temperature, -1).sort(-1, descending=True).values
    width = max(student_vocab, teacher_vocab)
    uld = (F.pad(q, (0, width - student_vocab)) - F.pad(p, (0, width - teacher_vocab))).abs().sum()
    loss = alpha * uld + (1 - alpha) * F.cross_entropy(z, labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, hidden)
    case = {"student_vocab": student_vocab, "teacher_vocab": teacher_vocab, "temperature": temperature, "alpha": alpha,
            "hidden": flat(hidden.detach()), "head": flat(head), "teacher": flat(teacher), "labels": labels.tolist(),
            "uld": uld.item(), "loss": loss.item(), "grad_hidden": flat(gradient)}
    out["cases"].append(case)

# TRL's own, on the same logits: its mean over the positions, times their number.
class Config:
    use_extended_uld = False
    uld_use_hybrid_loss = False
    uld_hybrid_matched_weight = None
    uld_hybrid_unmatched_weight = None
    beta = 0.5
    uld_crossentropy_weight = 0.0
    uld_distillation_weight = 1.0
    uld_student_temperature = 1.0
    uld_teacher_temperature = 1.0
    uld_skip_student_eos = False
    uld_skip_teacher_eos = False
    uld_token_merge_strategy = "observed"


for case in out["cases"]:
    config = Config()
    config.uld_student_temperature = config.uld_teacher_temperature = case["temperature"]
    loss = ULDLoss(config, student_tokenizer=None, teacher_tokenizer=None)
    z = (torch.tensor(case["hidden"]).double().reshape(N, D) @ torch.tensor(case["head"]).double().reshape(-1, D).T)[None]
    v = torch.tensor(case["teacher"]).double().reshape(1, N, -1)
    # Its "observed" strategy reads the logits at the answer's own places, 1..N here.
    pad = lambda x: torch.cat([torch.zeros_like(x[:, :1]), x], 1)
    labels = torch.tensor([[-100] + case["labels"]])
    teacher_labels = torch.tensor([[-100] + [0] * N])
    ids = labels.clamp_min(0)
    value = loss(student_logits=pad(z), teacher_logits=pad(v), student_labels=labels, teacher_labels=teacher_labels,
                 student_input_ids=ids, teacher_input_ids=teacher_labels.clamp_min(0))
    case["trl"] = value.item()
print(json.dumps(out))
