"""Opens a study that potstill wrote with the newest Optuna and goes on with it: `python open_study.py study.db`.

Checks what a reader sees (states, parameters, values, the best trial) and that Optuna's own TPE accepts the trials and
adds one. With the search's folder (study.db beside trials.jsonl), every trial's state, value, user attributes and the
settings that its parameters mean are compared with what potstill says of them; what was measured on the way is compared
with the rows of the file. The file is copied first.
"""

import json
import math
import pathlib
import shutil
import sqlite3
import sys
import tempfile

import optuna
from optuna.trial import TrialState

optuna.logging.set_verbosity(optuna.logging.ERROR)


def compare_with_ours(trials, lines, copy):
    """trials.jsonl says of each trial what Optuna reads out of the study."""
    assert [line["number"] for line in lines] == [t.number for t in trials]
    measured = 0
    with sqlite3.connect(copy) as database:
        rows = database.execute("SELECT t.number, i.step, i.intermediate_value FROM trial_intermediate_values i "
                                "JOIN trials t ON t.trial_id = i.trial_id").fetchall()
    for trial, line in zip(trials, lines):
        assert trial.state.name == line["state"], (trial.number, trial.state, line["state"])
        assert trial.state != TrialState.COMPLETE or trial.value == line["value"], trial.number
        assert {step: value for number, step, value in rows if number == trial.number} == trial.intermediate_values
        measured += len(trial.intermediate_values)
        for key in ("held_out", "accuracy", "error"):
            assert trial.user_attrs.get(key) == line.get(key), (trial.number, key)
        for name, value in trial.params.items():
            ours = line["params"]
            said = ours["lora_alpha"] / ours["rank"] if name == "lora_alpha_ratio" else ours[name]
            assert math.isclose(said, value, rel_tol=1e-12, abs_tol=1e-300), (trial.number, name, said, value)
    return measured


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
        log = pathlib.Path(path).with_name("trials.jsonl")
        if log.exists():
            measured = compare_with_ours(trials, [json.loads(line) for line in log.read_text().splitlines()], copy)
            print(f"parameters, values, states, user attributes and {measured} intermediate values are those of {log.name}")
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
