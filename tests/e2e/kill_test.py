#!/usr/bin/env python3
"""kill -9 at any moment of `potstill run`, and the same command again ends with the artifacts of an undisturbed run.

    kill_test.py POTSTILL MODEL.gguf [WORK_FOLDER]

A 4-layer child of the demonstration model teaches a 2-layer one on twelve pairs: every stage but synth, whose own kills
tests/synth covers answer by answer.
"""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

PAIRS = pathlib.Path(__file__).resolve().parent / "pairs.jsonl"
RECIPE = """
name: kill
seed: 3
dtype: fp32
pairs: {pairs}
teacher: {teacher}
student: {teacher}
prune: {{layers: 2}}
data: {{held_out: 0.25}}
search: {{trials: 2, objective: kl}}
train: {{rank: 4, batch_size: 2, checkpoint_every: 1}}
quantize: {{group_size: 64, sequences: 8, sequence_length: 64}}
"""


def run(command):
    finished = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if finished.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} ended with {finished.returncode}:\n{finished.stdout}")


def outputs(run_dir):
    """What every stage left, by content: hashes of files and results, not times."""
    found = {}
    for manifest in sorted(run_dir.glob("*/artifact.json")):
        content = json.loads(manifest.read_text())
        found[manifest.parent.name] = {key: content[key] for key in ("key", "outputs", "results", "outputs_sha256")}
    return found


def main():
    potstill, model = sys.argv[1:3]
    if not pathlib.Path(model).exists():
        print(f"SKIPPED: no model at {model}; scripts/setup fetches it")
        return 77
    work = pathlib.Path(sys.argv[3] if len(sys.argv) > 3 else tempfile.mkdtemp(prefix="potstill-kill-"))
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    teacher = work / "teacher"
    run([potstill, "--quiet", "prune", "--model", model, "--keep", "0,1,2,29", "--out", teacher])
    recipe = work / "kill.yaml"
    recipe.write_text(RECIPE.format(pairs=PAIRS, teacher=teacher))
    base = [potstill, "--quiet", "--threads", "1", "run", recipe, "--run-dir"]

    start = time.monotonic()
    command = [*base, work / "run"]
    run(command)
    # Both runs have the same --run-dir: an adapter names its base model by path.
    (work / "run").rename(work / "whole")
    whole_seconds = time.monotonic() - start

    kills = 0
    for tenth in [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5]:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=max(0.5, whole_seconds * tenth))
            break  # it got through before its turn to be killed came
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=60)
            kills += 1
    run(command)

    whole, killed = outputs(work / "whole"), outputs(work / "run")
    leftovers = [str(path) for path in (work / "run").glob("*.partial")]
    faults = [f"{stage}: {whole.get(stage)} against {killed.get(stage)}"
              for stage in sorted(set(whole) | set(killed)) if whole.get(stage) != killed.get(stage)]
    if len(whole) < 8:
        faults.append(f"only {sorted(whole)} ran")
    if kills < 3:
        faults.append(f"only {kills} kills hit the run of {whole_seconds:.1f} s")
    if leftovers:
        faults.append(f"left behind: {leftovers}")
    print("\n".join(faults) or f"{kills} kills of a run of {whole_seconds:.1f} s; {len(whole)} stages with the same bytes")
    if len(sys.argv) <= 3:
        shutil.rmtree(work, ignore_errors=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
