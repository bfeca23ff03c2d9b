#!/usr/bin/env python3
"""`potstill search` by accuracy on a user's own task, by two processes at a time, one of which is killed in a trial.

    search_test.py POTSTILL MODEL.gguf [WORK_FOLDER]

A 2-layer child of the demonstration model learns from a 4-layer one on twelve pairs; trials are judged by how often it
answers a small task right.
"""
import json
import pathlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time

PAIRS = pathlib.Path(__file__).resolve().parent / "pairs.jsonl"
TASK = """
name: sizes
rows: rows.jsonl
prompt: "Is a {first} larger than a {second}?"
choices: ["yes", "no"]
answer: is_larger
answer_is: text
"""


def run(command):
    finished = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if finished.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} ended with {finished.returncode}:\n{finished.stdout}")
    return finished.stdout


def trials_in(study, state):
    if not study.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{study}?mode=ro", uri=True) as database:
            return database.execute("SELECT count(*) FROM trials WHERE state = ?", (state,)).fetchone()[0]
    except sqlite3.OperationalError:  # being made
        return 0


def wait_for(what, seconds=300):
    for _ in range(seconds * 20):
        if what():
            return
        time.sleep(0.05)
    sys.exit("nothing happened for too long")


def main():
    potstill, model = sys.argv[1:3]
    if not pathlib.Path(model).exists():
        print(f"SKIPPED: no model at {model}; scripts/setup fetches it")
        return 77
    work = pathlib.Path(sys.argv[3] if len(sys.argv) > 3 else tempfile.mkdtemp(prefix="potstill-search-"))
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for name, keep in (("teacher", "0,1,2,29"), ("student", "0,29")):
        run([potstill, "--quiet", "prune", "--model", model, "--keep", keep, "--out", work / name])
    (work / "task.yaml").write_text(TASK)
    rows = [("mouse", "whale", "no"), ("whale", "cat", "yes"), ("horse", "mouse", "yes"), ("dog", "whale", "no")]
    (work / "rows.jsonl").write_text("".join(json.dumps(dict(zip(("first", "second", "is_larger"), row))) + "\n" for row in rows))
    (work / "first.yaml").write_text("train:\n  alpha: 0.25\n  temperature: 3.0\n")
    search = [potstill, "--threads", "1", "--dtype", "fp32", "--seed", "5", "search", "--student", work / "student", "--teacher", work / "teacher",
              "--data", PAIRS, "--held-out", "0.25", "--trials", "6", "--objective", "accuracy", "--accuracy-tasks", work / "task.yaml",
              "--batch-size", "2", "--lr", "0.004", "--lr", "0.1", "--rank", "2", "--rank", "4", "--momentum", "0.8", "--momentum", "0.95", "--first", work / "first.yaml",
              "--out", work / "search"]
    search = list(map(str, search))

    # Nobody to join yet.
    alone = subprocess.run([*search, "--join"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    faults = [] if alone.returncode == 2 and "could be joined" in alone.stdout else [f"--join alone: {alone.returncode} {alone.stdout}"]

    first = subprocess.Popen(search, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    study = work / "search.partial" / "study.db"
    wait_for(lambda: trials_in(study, "RUNNING") >= 1 or first.poll() is not None)
    # The second worker is killed as soon as it has a trial of its own; a third one then helps to the end.
    second = subprocess.Popen([*search, "--join"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: trials_in(study, "RUNNING") >= 2 or first.poll() is not None or second.poll() is not None)
    second.kill()
    second.wait()
    third = subprocess.run([*search, "--join", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said, _ = first.communicate()
    if first.returncode != 0:
        sys.exit(f"the search ended with {first.returncode}:\n{said}")
    if third.returncode not in (0, 2):  # 2: the others had finished before it looked
        faults.append(f"the third worker ended with {third.returncode}: {third.stderr}")

    trials = [json.loads(line) for line in (work / "search" / "trials.jsonl").read_text().splitlines()]
    best = json.loads((work / "search" / "best.json").read_text())
    if [t["number"] for t in trials] != list(range(6)) or any(t["state"] != "COMPLETE" for t in trials):
        faults.append(f"trials: {[(t['number'], t['state']) for t in trials]}")
    if len({json.dumps(t["params"]) for t in trials}) != 6:
        faults.append("two trials have the same settings")
    if trials[1]["params"]["alpha"] != 0.25 or trials[1]["params"]["temperature"] != 3.0:
        faults.append(f"the second trial is not --first's: {trials[1]['params']}")
    for trial in trials:
        if abs(trial["value"] - (1 - trial["accuracy"]["sizes"])) > 1e-12 or (4 * trial["accuracy"]["sizes"]) % 1 != 0:
            faults.append(f"the objective is not the share of wrong answers: {trial}")
    if best["value"] != min(t["value"] for t in trials) or "momentum" not in best["train"]:
        faults.append(f"best: {best}")
    if (work / "search.partial").exists() or (work / "search" / "study.db.lock").exists():
        faults.append("something was left behind")

    scored = subprocess.run([*search[:-1], str(work / "other"), "--accuracy-tasks", "arc_easy", "--accuracy-data", str(work), "--accuracy-split", "test"],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if scored.returncode != 2 or "reported" not in scored.stdout:
        faults.append(f"the scored rows were not refused: {scored.returncode} {scored.stdout}")
    print("\n".join(faults) or f"6 trials by three workers, one of them killed; best {best['value']} (trial {best['trial']})")
    if len(sys.argv) <= 3:
        shutil.rmtree(work, ignore_errors=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
