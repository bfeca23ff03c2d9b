"""Reference updates of torch.optim.Muon, torch.optim.AdamW and the published Newton-Schulz iteration.

Made with torch 2.15.0, numpy's generator seed 7:  python tests/golden/optim/optimizers.py > tests/golden/optim/optimizers.json
torch.optim.Muon iterates in bfloat16, so its updates agree with an exact iteration to about 1e-2; `newton_schulz_fp64` is
the published iteration written out in float64.
"""

import json

import numpy as np
import torch

rng = np.random.default_rng(7)


def flat(x):
    return [float(f"{v:.9g}") for v in np.asarray(x, dtype=np.float64).reshape(-1)]


def newton_schulz_fp64(g, steps=5, a=3.4445, b=-4.7750, c=2.0315):
    x = g.T if g.shape[0] > g.shape[1] else g
    x = x / np.linalg.norm(x)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if g.shape[0] > g.shape[1] else x


def run(make, shapes, num_steps, lrs):
    params = [torch.nn.Parameter(torch.tensor(rng.standard_normal(s), dtype=torch.float32) * 0.1) for s in shapes]
    start = [flat(p.detach()) for p in params]
    optimizer = make(params)
    steps = []
    for t in range(num_steps):
        grads = [torch.tensor(rng.standard_normal(s) * 1e-3, dtype=torch.float32) for s in shapes]
        for p, g in zip(params, grads):
            p.grad = g.clone()
        for group in optimizer.param_groups:
            group["lr"] = lrs[t]
        optimizer.step()
        steps.append({"lr": lrs[t], "gradients": [flat(g) for g in grads], "parameters": [flat(p.detach()) for p in params]})
    return {"shapes": [list(s) for s in shapes], "start": start, "steps": steps}


out = {"torch": torch.__version__, "newton_schulz": [], "muon": {}}
for shape in [(4, 24), (24, 4), (6, 8), (5, 5)]:
    g = rng.standard_normal(shape)
    out["newton_schulz"].append({"shape": list(shape), "input": flat(g), "output": flat(newton_schulz_fp64(g.astype(np.float32).astype(np.float64)))})
shapes = [(4, 24), (24, 4), (4, 24), (8, 10)]
for scale in ["original", "match_rms_adamw", "spectral_unclamped"]:
    out["muon"][scale.replace("_", "-")] = run(
        lambda p: torch.optim.Muon(p, weight_decay=0.1, momentum=0.95, nesterov=True, adjust_lr_fn=scale),
        shapes, 3, [0.02, 0.01, 0.02])
out["adamw"] = run(lambda p: torch.optim.AdamW(p, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01), [(4, 6), (6, 3)], 4, [1e-3, 5e-3, 1e-3, 2e-3])
print(json.dumps(out))
