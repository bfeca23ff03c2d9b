"""Writes paired_statistics.json: paired statistics by scipy and statsmodels.

Made with scipy 1.17.1, statsmodels 0.15.0, numpy 2.4.6.      pip install scipy statsmodels; python paired_statistics.py > paired_statistics.json
"""

import json

import numpy as np
from scipy import special, stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

rng = np.random.default_rng(7)
golden = {"mcnemar": [], "holm": [], "bootstrap": [], "kl": []}
for first, second in [(0, 0), (1, 0), (3, 9), (12, 4), (25, 25), (40, 71), (700, 610), (2, 1500)]:
    p = mcnemar([[50, first], [second, 50]], exact=True).pvalue if first + second else 1.0
    golden["mcnemar"].append({"only_first": first, "only_second": second, "p": float(p)})
for size in (1, 3, 8, 12):
    p = rng.uniform(0, 0.2, size) ** 2
    golden["holm"].append({"p": p.tolist(), "adjusted": multipletests(p, method="holm")[1].tolist()})
golden["holm"].append({"p": [0.01, 0.04, 0.03, 0.9], "adjusted": multipletests([0.01, 0.04, 0.03, 0.9], method="holm")[1].tolist()})
for n, lost, gained in [(60, 9, 4), (500, 40, 22), (500, 3, 2)]:
    d = [-1.0] * lost + [1.0] * gained + [0.0] * (n - lost - gained)
    interval = stats.bootstrap((d,), np.mean, n_resamples=100000, method="percentile", vectorized=True, batch=1000,
                               rng=np.random.default_rng(1)).confidence_interval
    golden["bootstrap"].append({"n": n, "lost": lost, "gained": gained, "low": float(interval.low), "high": float(interval.high)})
for size in (2, 4, 5):
    a, b = rng.normal(-20, 4, size), rng.normal(-20, 4, size)
    p, q = special.softmax(a), special.softmax(b)
    golden["kl"].append({"first": a.tolist(), "second": b.tolist(), "kl": float(stats.entropy(p, q))})
print(json.dumps(golden, separators=(",", ":")))
