"""potstill's samplers beside Optuna's on the same functions, 20 seeds each, in one go.

    python bench/search/compare.py build/release/bench/search_bench        (needs optuna 5, torch and scipy for its GPSampler)

Prints the mean best value after 16, 32 and 64 trials, and the one-sided p of "ours is smaller" (Mann-Whitney U; the two
sides share no random numbers). A p under 0.05 is better, one over 0.95 worse.
"""

import argparse
import collections
import json
import math
import subprocess
import time
import warnings

import numpy as np
import optuna
import scipy.stats

parser = argparse.ArgumentParser()
parser.add_argument("search_bench")
parser.add_argument("--seeds", type=int, default=20)
parser.add_argument("--ours", action="store_true", help="only run ours against a kept --peers file")
parser.add_argument("--peers", default="", help="keep Optuna's results in this file, or take them from it with --ours")
options = parser.parse_args()
warnings.simplefilter("ignore")
optuna.logging.set_verbosity(optuna.logging.ERROR)
CHECKS = (16, 32, 64)

A = np.array([[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]])
P = np.array([[0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886], [0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991],
              [0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650], [0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381]])


def branin(trial):
    x, y = trial.suggest_float("x", -5, 10), trial.suggest_float("y", 0, 15)
    a = y - 5.1 / (4 * math.pi**2) * x * x + 5 / math.pi * x - 6
    return a * a + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


def hartmann6(trial):
    x = np.array([trial.suggest_float(f"x{d}", 0, 1) for d in range(6)])
    return -float(np.dot([1.0, 1.2, 3.0, 3.2], np.exp(-(A * (x - P) ** 2).sum(1))))


def mixed(trial):
    rate = math.log10(trial.suggest_float("rate", 1e-5, 1e-1, log=True)) + 3.0
    share = trial.suggest_float("share", 0, 1) - 0.7
    depth = (trial.suggest_int("depth", 1, 24) - 9) / 12
    kind = {"a": 0.3, "b": 0.0, "c": 0.5, "d": 0.8}[trial.suggest_categorical("kind", ["a", "b", "c", "d"])]
    return 0.25 * rate**2 + share**2 + depth**2 + 0.5 * rate * share**2 + 0.2 * kind


def optuna_rows():
    for function in (branin, hartmann6, mixed):
        for name, make in (("optuna-gp", optuna.samplers.GPSampler), ("optuna-tpe", optuna.samplers.TPESampler)):
            for seed in range(options.seeds):
                study = optuna.create_study(sampler=make(seed=seed))
                study.optimize(function, n_trials=54)
                start = time.perf_counter()
                study.optimize(function, n_trials=10)
                seconds = time.perf_counter() - start
                values = [t.value for t in study.trials]
                yield {"function": function.__name__, "sampler": name, "seed": seed, "ms": 100 * seconds,
                       "best": {str(n): min(values[:n]) for n in CHECKS}}


def main():
    if options.ours:
        peers = [json.loads(line) for line in open(options.peers)]
    else:
        peers = []
        for row in optuna_rows():
            peers.append(row)
            if options.peers:
                open(options.peers, "a").write(json.dumps(row) + "\n")
    output = subprocess.run([options.search_bench, "--seeds", str(options.seeds)], check=True, capture_output=True, text=True)
    ours = [json.loads(line) for line in output.stdout.splitlines()]
    best = collections.defaultdict(list)
    milliseconds = collections.defaultdict(list)
    for row in ours + peers:
        milliseconds[row["function"], row["sampler"]].append(row["ms"])
        for n in CHECKS:
            best[row["function"], row["sampler"], n].append(row["best"][str(n)])
    for function in ("branin", "hartmann6", "mixed"):
        print(f"\n{function:12s}" + "".join(f"{n:>10d}" for n in CHECKS) + "   ms at 64   p against optuna-gp | optuna-tpe, at 16, 32, 64")
        for sampler in ("gp", "tpe", "random", "optuna-gp", "optuna-tpe"):
            line = f"{sampler:12s}" + "".join(f"{np.mean(best[function, sampler, n]):10.4f}" for n in CHECKS)
            line += f"{np.mean(milliseconds[function, sampler]):11.2f}"
            if sampler in ("gp", "tpe"):
                for peer in ("optuna-gp", "optuna-tpe"):
                    p = [scipy.stats.mannwhitneyu(best[function, sampler, n], best[function, peer, n], alternative="less").pvalue
                         for n in CHECKS]
                    line += "  " + " ".join(f"{x:.3f}" for x in p) + " |"
            print(line)


main()
