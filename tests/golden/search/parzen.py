"""Writes parzen.json: densities of Optuna's own Parzen estimator for fixed observations, and which trials its TPE
counts as good. Made with optuna 5.0.0, numpy 2.4.6; observations and points from numpy's RandomState(7).

    pip install optuna==5.0.0 && python parzen.py > parzen.json
"""

import json
import warnings

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator, _ParzenEstimatorParameters
from optuna.samplers._tpe.sampler import _split_trials, default_gamma, default_weights

warnings.simplefilter("ignore")
optuna.logging.set_verbosity(optuna.logging.ERROR)
rng = np.random.RandomState(7)

SPACE = {
    "choice": CategoricalDistribution(["a", "b", "c"]),
    "flat": FloatDistribution(-2.0, 5.0),
    "log": FloatDistribution(1e-5, 1e-2, log=True),
    "log_int": IntDistribution(1, 64, log=True),
    "stepped": FloatDistribution(0.0, 0.2, step=0.05),
    "whole": IntDistribution(2, 20, step=3),
}
PARAMETERS = _ParzenEstimatorParameters(1.0, True, False, default_weights, True)


def draw(count):
    return {
        "choice": rng.randint(0, 3, count).astype(float),
        "flat": rng.uniform(-2.0, 5.0, count),
        "log": np.exp(rng.uniform(np.log(1e-5), np.log(1e-2), count)),
        "log_int": np.floor(np.exp(rng.uniform(0.0, np.log(65.0), count))),
        "stepped": np.round(0.05 * rng.randint(0, 5, count), 2),
        "whole": 2.0 + 3.0 * rng.randint(0, 7, count),
    }


def rows(columns):
    count = len(columns["flat"])
    return [{name: float(values[i]) for name, values in columns.items()} for i in range(count)]


densities = []
for count in [0, 1, 2, 3, 8, 24, 25, 26, 27, 60, 130]:
    observations, points = draw(count), draw(6)
    # Equal observations share their widths in an order that numpy's sort leaves open past a few values, so the stepped
    # parameters, where they are common, are in the small cases alone.
    space = SPACE if count <= 8 else {name: SPACE[name] for name in ("choice", "flat", "log")}
    observations, points = ({name: columns[name] for name in space} for columns in (observations, points))
    estimator = _ParzenEstimator(observations, space, PARAMETERS)
    case = {
        "observations": rows(observations),
        "points": rows(points),
        "log_pdf": estimator.log_pdf(points).tolist(),
        "weights": estimator._mixture_distribution.weights.tolist(),
        "widths": {
            name: distribution.sigma.tolist()
            for name, distribution in zip(space, estimator._mixture_distribution.distributions)
            if hasattr(distribution, "sigma")
        },
    }
    densities.append(case)

splits = []
study = optuna.create_study()
for number in range(40):
    state = [optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED][int(rng.rand() < 0.8)]
    reports = {int(s): float(v) for s, v in zip(rng.permutation(6)[: rng.randint(0, 3)], rng.choice([1.0, 2.0, np.nan], 2))}
    study.add_trial(
        optuna.trial.create_trial(
            state=state,
            value=float(rng.choice([1.0, 2.0, 3.0])) if state.name == "COMPLETE" else None,
            params={"x": 0.5},
            distributions={"x": FloatDistribution(0, 1)},
            intermediate_values=reports,
        )
    )
trials = study.get_trials()
for n in range(1, 41):
    for n_below in {default_gamma(n), min(n, 12)}:
        below, above = _split_trials(study, trials[:n], n_below)
        splits.append({"n": n, "n_below": n_below, "below": [t.number for t in below]})

print(
    json.dumps(
        {
            "made_with": f"optuna {optuna.__version__}, numpy {np.__version__}, seed 7",
            "gamma": [default_gamma(n) for n in range(0, 301)],
            "densities": densities,
            "trials": [
                {
                    "state": t.state.name,
                    "value": t.value if t.state.name == "COMPLETE" else None,
                    "reports": {str(s): None if np.isnan(v) else v for s, v in t.intermediate_values.items()},
                }
                for t in trials
            ],
            "splits": splits,
        },
        separators=(",", ":"),
    )
)
