"""Writes gp.json: a Gaussian process's posterior, its likelihood's gradient and log expected improvement by Optuna's own
code, and unscrambled Sobol points by SciPy. Made with optuna 5.0.0, torch 2.15.0, scipy 1.17.1; numpy's RandomState(11).

    python gp.py > gp.json
"""

import json

import numpy as np
import scipy.stats
import torch
from optuna._gp.acqf import standard_logei
from optuna._gp.gp import GPRegressor

rng = np.random.RandomState(11)
torch.set_default_dtype(torch.float64)
x = rng.uniform(size=(9, 3))
x[:, 2] = rng.randint(0, 3, 9)  # unordered
y = np.sin(5 * x[:, 0]) + x[:, 1] ** 2 + 0.5 * (x[:, 2] == 1)
y = (y - y.mean()) / y.std()
hyper = {"inverse_squared_lengths": [3.0, 0.7, 1.5], "scale": 1.3, "noise": 0.02}


def regressor(raw):
    return GPRegressor(torch.tensor([False, False, True]), torch.from_numpy(x), torch.from_numpy(y), torch.exp(raw[:3]),
                       torch.exp(raw[3]), torch.exp(raw[4]))


raw = torch.log(torch.tensor(hyper["inverse_squared_lengths"] + [hyper["scale"], hyper["noise"]])).requires_grad_(True)
nll = -regressor(raw).marginal_log_likelihood() + 0.5 * len(y) * np.log(2 * np.pi)
nll.backward()
fitted = regressor(raw.detach())
fitted._cache_matrix()
points = rng.uniform(size=(6, 3))
points[:, 2] = rng.randint(0, 3, 6)
posterior = []
for point in points:
    at = torch.from_numpy(point).requires_grad_(True)
    mean, variance = fitted.posterior(at)
    mean_gradient, = torch.autograd.grad(mean, at, retain_graph=True)
    variance_gradient, = torch.autograd.grad(variance, at)
    posterior.append({"point": point.tolist(), "mean": mean.item(), "variance": variance.item(),
                      "mean_gradient": mean_gradient.tolist()[:2], "variance_gradient": variance_gradient.tolist()[:2]})
z = torch.tensor([-300.0, -40.0, -26.0, -10.0, -6.5, -5.9, -3.0, -1.0, 0.0, 0.5, 2.0, 8.0])
print(json.dumps({"x": x.tolist(), "y": y.tolist(), "hyper": hyper, "nll": nll.item(), "nll_gradient": raw.grad.tolist(),
                  "posterior": posterior, "z": z.tolist(), "log_ei": standard_logei(z.clone()).tolist(),
                  "sobol": scipy.stats.qmc.Sobol(32, scramble=False).random(16).tolist()}, indent=1))
