"""Opens a study that potstill wrote with the newest Optuna and goes on with it: `python open_study.py study.db`.

Checks what a reader sees (states, parameters, values, the best trial) and that Optuna's own TPE accepts the trials and
adds one. The file is copied first.
"""

import math
import shutil
import sys
import tempfile

import optuna
from optuna.trial import TrialState

optuna.logging.set_verbosity(optuna.logging.ERROR)


def main(path):
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copy(path, folder)
        storage = f"sqlite:///{copy}"
        study = optuna.load_study(study_name=None, storage=storage)
        trials = study.get_trials()
        assert study.direction == optuna.study.StudyDirection.MINIMIZE
        assert [t.number for t in trials] == list(range(len(trials)))
        for trial in trials:
            assert trial.state != TrialState.WAITING or "fixed_params" in trial.system_attrs
            if trial.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL):
                assert trial.datetime_start <= trial.datetime_complete
            if trial.state == TrialState.COMPLETE:
                assert trial.value is not None and not math.isnan(trial.value)
            for name, distribution in trial.distributions.items():
                assert distribution._contains(distribution.to_internal_repr(trial.params[name])), (trial.number, name)
        finished = [t for t in trials if t.state == TrialState.COMPLETE]
        assert study.best_trial.value == min(t.value for t in finished)

        best, number = study.best_trial.value, study.best_trial.number
        before = len(study.trials)
        space = finished[0].distributions
        study.sampler = optuna.samplers.TPESampler(n_startup_trials=1, seed=1)
        trial = study.ask(space)
        study.tell(trial, 1.0)
        assert len(study.trials) == before + (0 if any(t.state == TrialState.WAITING for t in trials) else 1)
        print(f"optuna {optuna.__version__}: {len(finished)} complete trials, best {best} (trial {number}), goes on")


if __name__ == "__main__":
    main(sys.argv[1])
