#!/usr/bin/env python3
"""`potstill study`: arms under two seeds; killed twice, it ends with the numbers of an undisturbed one; another study of the same
recipe finds the students of the first.

    study_test.py POTSTILL MODEL.gguf [WORK_FOLDER]
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
name: small
seed: 3
dtype: fp32
pairs: {pairs}
teacher: {teacher}
student: {teacher}
prune: {{layers: 2}}
data: {{held_out: 0.25}}
train: {{rank: 4, batch_size: 2, optimizer: muon}}
quantize: {{group_size: 64, sequences: 8, sequence_length: 64}}
evaluate: {{tasks: [{task}]}}
"""
TASK = """
name: colours
rows: colours.jsonl
prompt: "The colour of {thing} is"
choices: [blue, green, red]
answer: colour
"""
THINGS = {"the sky": "blue", "grass": "green", "blood": "red", "the sea": "blue", "a leaf": "green", "a tomato": "red",
          "ice": "blue", "a frog": "green", "a rose": "red", "a jay": "blue", "a lime": "green", "a cherry": "red"}


def run(command):
    finished = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if finished.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} ended with {finished.returncode}:\n{finished.stdout}")
    return finished.stdout


def main():
    potstill, model = sys.argv[1:3]
    if not pathlib.Path(model).exists():
        print(f"SKIPPED: no model at {model}; scripts/setup fetches it")
        return 77
    work = pathlib.Path(sys.argv[3] if len(sys.argv) > 3 else tempfile.mkdtemp(prefix="potstill-study-"))
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    run([potstill, "--quiet", "prune", "--model", model, "--keep", "0,1,2,29", "--out", work / "teacher"])
    (work / "colours.jsonl").write_text("".join(json.dumps({"thing": k, "colour": v}) + "\n" for k, v in THINGS.items()))
    (work / "colours.yaml").write_text(TASK)
    recipe = work / "small.yaml"
    recipe.write_text(RECIPE.format(pairs=PAIRS, teacher=work / "teacher", task=work / "colours.yaml"))

    def study(kind, folder, *flags):
        return list(map(str, [potstill, "--quiet", "--threads", "1", "study", kind, recipe, "--out", work / folder, "--seeds", "2", *flags]))

    def numbers(folder, kind):
        return json.loads((work / folder / kind / "study.json").read_text())

    faults = []
    optimizer = ["--arm", "adamw", "--arm", "muon"]
    start = time.monotonic()
    table = run(study("optimizer", "whole", *optimizer))
    seconds = time.monotonic() - start
    found = numbers("whole", "optimizer")
    if [a["name"] for a in found["arms"]] != ["adamw", "muon"] or found["seeds"] != 2 or "Verdict: loss of adamw minus loss of muon" not in table:
        faults.append(f"arms or verdict: {table}")
    student = found["arms"][1]["models"][1]
    for name in ("kl", "update's spectral norm over the weight's"):
        values = student["numbers"][name]["values"]
        if len(values) != 2 or values[0] == values[1] or min(values) <= 0:
            faults.append(f"{name} of the two seeds of {student['label']}: {values}")
    if found["arms"][0]["models"][0]["numbers"]["kl"]["values"] != [found["arms"][1]["models"][0]["numbers"]["kl"]["values"][0]] * 2:
        faults.append("S1 is not the same under every arm and seed")
    if student["accuracy"]["tasks"]["colours"]["rows"] != len(THINGS):
        faults.append(f"rows: {student['accuracy']}")
    if (work / "whole" / "optimizer" / "study.html").stat().st_size < 1e6:
        faults.append("the page is without its plots")

    for _ in range(2):
        process = subprocess.Popen(study("optimizer", "killed", *optimizer), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(seconds / 3)
        process.kill()
        process.wait()
    run(study("optimizer", "killed", *optimizer))
    if numbers("killed", "optimizer") != found:
        faults.append(f"a killed study ended with other numbers: {numbers('killed', 'optimizer')}")

    students = sorted((work / "whole" / "store").glob("train-*"))
    run(study("ablation", "whole"))
    labels = [m["label"] for m in numbers("whole", "ablation")["arms"][0]["models"]]
    if labels != ["S1", "S1 + RTN", "S1 + GPTQ", "S'", "S''"]:
        faults.append(f"ablation: {labels}")
    if sorted((work / "whole" / "store").glob("train-*")) != students:
        faults.append("the ablation trained its students anew")
    config = json.loads(next((work / "whole" / "store").glob("quantize-*/artifact.json")).read_text())["config"]
    held_out = json.loads((students[0] / "artifact.json").read_text())["results"]["held_out_pairs"]
    if len(config.get("left_out_lines", [])) != held_out:
        faults.append(f"calibration leaves {config.get('left_out_lines')} out, where {held_out} pairs are measured on")
    print("\n".join(faults) or f"two arms under two seeds in {seconds:.0f} s, killed twice; the ablation shares the students")
    if len(sys.argv) <= 3:
        shutil.rmtree(work, ignore_errors=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
