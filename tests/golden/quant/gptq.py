#!/usr/bin/env python3
"""Writes gptq.json: codes and scales of a straightforward GPTQ in float64, one column at a time.

Written from the published algorithm (arXiv:2210.17323, algorithm 1) and from the rules of potstill/quant/grid.h, not from
any implementation: an explicit inverse of H, its upper Cholesky factor, no blocks. numpy 2.4.6.
Inputs are not stored: both sides draw them from the generator below. Every rounding decision must be at least
2e-5 steps away from a tie (asserted; the first seed from 7 for which that holds), so that float32 arithmetic has to make
the same one.

    python tests/golden/quant/gptq.py
"""
import json
import pathlib

import numpy as np

O, I, T, G = 16, 128, 512, 32
DAMP = 0.01


class Lcg:
    def __init__(self, seed):
        self.state = seed

    def uniform(self):  # [-1, 1) in steps of 2^-23
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 40) / 2**23 - 1.0


def draw(seed):
    lcg = Lcg(seed)
    weight = np.array([[lcg.uniform() * abs(lcg.uniform()) for _ in range(I)] for _ in range(O)]).astype(np.float32)
    gains = [1.0 + 6.0 * lcg.uniform() ** 4 for _ in range(I)]
    x = np.empty((T, I))
    for t in range(T):
        previous = 0.0
        for i in range(I):
            previous = 0.6 * previous + lcg.uniform()  # neighbours correlate, or GPTQ would have nothing to do
            x[t, i] = gains[i] * previous
    return weight.astype(np.float64), x.astype(np.float32).astype(np.float64)


def half(x):
    return float(np.float16(np.float32(x)))


def grid(w, importance, symmetric, clip):
    """(scale, zero) of one group of one row, by the rule of potstill/quant/grid.h."""
    low, high = min(w.min(), 0.0), max(w.max(), 0.0)
    reach = max(-low, high) if symmetric else high - low
    scale = half(np.float32(reach) / np.float32(7 if symmetric else 15))
    zero = 0.0 if symmetric else -8.0 - np.rint(low / scale)
    if clip == "none":
        return scale, zero
    candidates = [scale]
    for step in range(58):
        shrink = np.float32(1.15) - np.float32(0.0125) * np.float32(step)
        candidates += [half(np.float32(sign) * shrink * np.float32(reach) / np.float32(8)) for sign in (1, -1)]
    weights = importance if clip == "hessian" else np.ones_like(w)
    errors = [np.sum(weights * (w - np.clip(np.rint(w / s), -8, 7) * s) ** 2) for s in candidates]
    best = int(np.argmin(errors))
    # the same step of the other sign is an exact tie where nothing lies on -8, and the first of the two wins
    others = min(e for e, s in zip(errors, candidates) if abs(s) != abs(candidates[best]) or e != errors[best])
    assert others > errors[best] * (1 + 3e-6), "two scales are too close to call"
    return candidates[best], 0.0


def code(w, scale, zero):
    steps = w / scale
    assert abs(abs(steps - np.floor(steps)) - 0.5) > 2e-5, f"{steps} is too close to a tie"
    return float(np.clip(np.rint(steps) + zero, -8, 7))


def gptq(weight, h, order, symmetric, clip):
    diagonal = np.diag(h).copy()
    h = h + DAMP * diagonal.mean() * np.eye(I)
    importance = np.diag(h).copy()
    if order == "none":
        visit = np.arange(I)
    elif order == "static":
        visit = np.argsort(-diagonal, kind="stable")
    else:  # group-aware
        groups = np.argsort([-diagonal[g : g + G].max() for g in range(0, I, G)], kind="stable")
        visit = np.concatenate([g * G + np.argsort(-diagonal[g * G : g * G + G], kind="stable") for g in groups])
    u = np.linalg.cholesky(np.linalg.inv(h[np.ix_(visit, visit)])).T  # H^-1 = U^T U
    codes, scales, zeros = np.zeros((O, I)), np.zeros((O, I // G)), np.zeros((O, I // G))
    for row in range(O):
        w = weight[row].copy()
        if order == "static":
            for g in range(I // G):
                part = slice(g * G, g * G + G)
                scales[row, g], zeros[row, g] = grid(w[part], importance[part], symmetric, clip)
        for i, column in enumerate(visit):
            g = column // G
            if order != "static" and i % G == 0:
                members = visit[i : i + G]
                scales[row, g], zeros[row, g] = grid(w[members], importance[members], symmetric, clip)
            c = code(w[column], scales[row, g], zeros[row, g])
            codes[row, column] = c
            error = (w[column] - (c - zeros[row, g]) * scales[row, g]) / u[i, i]
            w[visit[i:]] -= error * u[i, i:]
    return codes, scales, zeros


def rtn(weight, symmetric, clip):
    codes, scales, zeros = np.zeros((O, I)), np.zeros((O, I // G)), np.zeros((O, I // G))
    for row in range(O):
        for g in range(I // G):
            part = slice(g * G, g * G + G)
            scales[row, g], zeros[row, g] = grid(weight[row, part], np.ones(G), symmetric, clip)
            codes[row, part] = [code(x, scales[row, g], zeros[row, g]) for x in weight[row, part]]
    return codes, scales, zeros


def case(method, order, symmetric, clip):
    codes, scales, zeros = rtn(W, symmetric, clip) if method == "rtn" else gptq(W, H, order, symmetric, clip)
    text = ["".join("0123456789abcdef"[int(c) + 8] for c in row) for row in codes]
    error = (W - np.repeat(scales, G, 1) * (codes - np.repeat(zeros, G, 1))) @ X.T
    return {"method": method, "order": order, "symmetric": symmetric, "clip": clip, "codes": text,
            "scales": scales.tolist(), "zeros": zeros.astype(int).tolist(),
            "relative_output_error": float(np.linalg.norm(error) / np.linalg.norm(W @ X.T))}


if __name__ == "__main__":
    for seed in range(7, 400):
        W, X = draw(seed)
        H = X.T @ X / T
        try:
            cases = [case("rtn", "none", True, "none"), case("rtn", "none", False, "none"), case("rtn", "none", True, "mse")]
            cases += [case("gptq", order, True, clip) for order in ("none", "static", "group-aware") for clip in ("none", "hessian")]
            cases += [case("gptq", "static", False, "none")]
        except AssertionError as tie:
            print(f"seed {seed}: {tie}")
            continue
        break
    golden = {"shape": [O, I], "tokens": T, "group_size": G, "damp": DAMP, "seed": seed, "cases": cases}
    path = pathlib.Path(__file__).with_name("gptq.json")
    path.write_text(json.dumps(golden, indent=0) + "\n")
    print(path, f"seed {seed}", [f"{c['method']} {c['order']} {c['clip']}: {c['relative_output_error']:.4f}" for c in cases])
