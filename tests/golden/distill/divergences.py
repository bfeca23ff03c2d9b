"""Writes divergences.json: TRL's generalized_jsd_loss (beta 0 is the forward KL, 1 the reverse) and its gradient by autograd.
Made with trl 1.16.0, torch 2.15.0, seed 5:   python divergences.py > divergences.json
"""

import json
import os

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
import torch
from trl.experimental.gkd import GKDTrainer

torch.manual_seed(5)
ROWS, VOCAB = 7, 11
student, teacher = torch.randn(ROWS, VOCAB), 2 * torch.randn(ROWS, VOCAB)
cases = []
for beta in (0.0, 0.1, 0.5, 0.9, 1.0):
    for temperature in (1.0, 2.0):
        z = student.clone().requires_grad_(True)
        loss = GKDTrainer.generalized_jsd_loss(z[None], teacher[None], beta=beta, temperature=temperature, reduction="sum")
        loss.backward()
        cases.append({"beta": beta, "temperature": temperature, "sum": loss.item(), "gradient": z.grad.tolist()})
print(json.dumps({"student": student.tolist(), "teacher": teacher.tolist(), "cases": cases}, indent=1))
