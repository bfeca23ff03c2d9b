#!/usr/bin/env python3
"""`potstill study tokenizer`, `switch`, `calibration` and `quantizer` on models of two layers: every arm and seed, what they must have in
common, what must differ, and that no command takes a teacher of other ids as it is.

    study_kinds_test.py POTSTILL FOLDER_OF_TINY_GGUFS [WORK_FOLDER]
"""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

RECIPE = """
name: tiny
seed: 5
dtype: fp32
pairs: {work}/pairs.jsonl
teacher: {teacher}
student: {student}
data: {{held_out: 0.25}}
train: {{rank: 4, batch_size: 3, epochs: 12, optimizer: adamw, lr: 0.01}}
quantize: {{group_size: 32, sequence_length: 64}}
evaluate: {{tasks: [{work}/colours.yaml], text: {work}/text.txt}}
"""
TASK = """
name: colours
rows: colours.jsonl
prompt: "The colour of {thing} is"
choices: [blue, green, red]
answer: colour
"""
THINGS = {"the sky": "blue", "grass": "green", "blood": "red", "the sea": "blue", "a leaf": "green", "a tomato": "red"}


def main():
    potstill, models = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    work = pathlib.Path(sys.argv[3] if len(sys.argv) > 3 else tempfile.mkdtemp(prefix="potstill-studies-"))
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    pairs = [{"instruction": f"What is {i} and {i}?", "output": f"It is the number {2 * i}."} for i in range(24)]
    (work / "pairs.jsonl").write_text("".join(json.dumps(p) + "\n" for p in pairs))
    (work / "text.txt").write_text("".join(f"The {i}th sentence of this text says that the {i}th thing is the other thing.\n" for i in range(200)))
    (work / "colours.jsonl").write_text("".join(json.dumps({"thing": k, "colour": v}) + "\n" for k, v in THINGS.items()))
    (work / "colours.yaml").write_text(TASK)
    recipe = work / "tiny.yaml"
    recipe.write_text(RECIPE.format(work=work, teacher=models / "tiny_llama.gguf", student=models / "tiny_qwen2.gguf"))
    faults = []

    def run(*command):
        return subprocess.run(list(map(str, [potstill, "--quiet", "--threads", "1", *command])), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def study(kind, *flags):
        done = run("study", kind, recipe, "--out", work / "studies", "--seeds", "2", *flags)
        if done.returncode != 0:
            sys.exit(f"study {kind} ended with {done.returncode}:\n{done.stdout[-3000:]}")
        if "Verdict: " not in done.stdout:
            faults.append(f"study {kind} has no verdict:\n{done.stdout}")
        if (work / "studies" / kind / "study.html").stat().st_size < 1e6:
            faults.append(f"the page of study {kind} is without its plots")
        result = json.loads((work / "studies" / kind / "study.json").read_text())
        return {arm["name"]: arm for arm in result["arms"]}

    def values(arm, label, name="kl"):
        return next(m for m in arm["models"] if m["label"] == label)["numbers"][name]["values"]

    # Cross-tokenizer: the same function under other ids teaches by ULD what the teacher itself does by ULD.
    arms = study("tokenizer")
    if list(arms) != ["aligned", "aligned, ULD", "other ids, ULD", "fewer merges, ULD", "misaligned"]:
        faults.append(f"arms: {list(arms)}")
    for own, other in zip(values(arms["aligned, ULD"], "S'"), values(arms["other ids, ULD"], "S'")):
        if abs(own - other) > 0.02 * own:  # rounded to 16 bits on the way, and 72 steps apart
            faults.append(f"ULD knows the ids apart: {own} and {other}")
    for arm in arms.values():
        if values(arm, "S1") != values(arms["aligned"], "S1"):
            faults.append(f"S1 of {arm['name']} is another")
        if len(arm["training"]) != 2 or len(set(map(len, arm["training"][0]["log"].values()))) != 1:
            faults.append(f"{arm['name']}: training curves of {len(arm['training'])} seeds")
    for aligned, misaligned, untrained in zip(values(arms["aligned"], "S'"), values(arms["misaligned"], "S'"), values(arms["aligned"], "S1")):
        if not aligned < misaligned or not aligned < untrained:  # random models differ little from an even distribution
            faults.append(f"KL: aligned {aligned}, misaligned {misaligned}, untrained {untrained}")
    made = {kind: next((work / "studies" / "store").glob(f"teacher-{kind}-*")) for kind in ("other-ids", "fewer-merges")}
    for kind, teacher in made.items():
        train = ["train", "--student", models / "tiny_qwen2.gguf", "--teacher", teacher, "--data", work / "pairs.jsonl", "--out", work / f"refused-{kind}"]
        done = run(*train)
        if done.returncode == 0 or "tokenizer differs" not in done.stdout or (work / f"refused-{kind}").exists():
            faults.append(f"a teacher of {kind} was taken: {done.stdout}")

    arms = study("switch")
    if list(arms) != ["adamw", "muon", "adamw:0.5,muon:0.5", "muon:0.5,adamw:0.5"] or len({values(a, "S'")[0] for a in arms.values()}) != 4:
        faults.append(f"switch: {[(n, values(a, 'S' + chr(39))) for n, a in arms.items()]}")
    for alone, switched in (("adamw", "adamw:0.5,muon:0.5"), ("muon", "muon:0.5,adamw:0.5")):
        losses = [arms[name]["training"][0]["log"]["kl"] for name in (alone, switched)]
        half = len(losses[0]) // 2
        if losses[0][:half] != losses[1][:half] or losses[0][half + 1:] == losses[1][half + 1:]:
            faults.append(f"{switched} does not begin as {alone} and go on otherwise")

    arms = study("calibration", "--text", work / "text.txt")
    if list(arms) != [f"{source} 16" for source in ("random", "D_gen", "mixed")]:  # 18 training pairs: no arm of 64
        faults.append(f"calibration: {list(arms)}")
    for name in ("kl", "text_perplexity"):
        if len({values(a, "S''", name)[0] for a in arms.values()}) != 3 or len({values(a, "S'", name)[0] for a in arms.values()}) != 1:
            faults.append(f"calibration, {name}: {[values(a, 'S' + 2 * chr(39), name) for a in arms.values()]}")

    arms = study("quantizer")
    if list(arms) != [f"{optimizer} {method} g32" for optimizer in ("adamw", "muon") for method in ("rtn", "awq", "gptq", "gptaq")]:
        faults.append(f"quantizer: {list(arms)}")
    for optimizer in ("adamw", "muon"):
        error = {m: values(arms[f"{optimizer} {m} g32"], "S''", "linears' relative output error")[0] for m in ("rtn", "gptq")}
        if not error["gptq"] < error["rtn"]:
            faults.append(f"{optimizer}: {error}")
    print("\n".join(faults) or "four kinds of studies over two seeds")
    if len(sys.argv) <= 3:
        shutil.rmtree(work, ignore_errors=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
