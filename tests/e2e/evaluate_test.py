#!/usr/bin/env python3
"""`potstill evaluate` on every kind of MODEL, and killed inside a task.

    evaluate_test.py POTSTILL POTSTILL_EDGE MODEL.gguf [WORK_FOLDER]

On 2-layer children of the demonstration model and a task of four choices: an adapter on its base scores as its merged folder;
layer by layer scores as whole; a GPTQ folder as the compressed-tensors folder that it was made of; an endpoint
(`potstill-edge serve`) as `--engine edge`; and a run that was killed in the middle of a task goes on and ends with the same
samples.
"""
import json
import math
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "interop"))
from edge_server import edge_server

PAIRS = pathlib.Path(__file__).resolve().parent / "pairs.jsonl"
TASK = """
name: {name}
rows: {name}.jsonl
prompt: "Question: {{question}}\\nAnswer:"
choices: [by day, by night, in the rain, never]
answer: answer
answer_is: index
metrics: [acc, acc_norm]
"""


def run(*command):
    finished = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if finished.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} ended with {finished.returncode}:\n{finished.stdout}")
    return finished.stdout


def write_task(folder, name, count):
    things = ["the moon", "a rainbow", "an owl", "a shadow", "the Milky Way", "a sunflower", "dew", "a firefly"]
    (folder / f"{name}.yaml").write_text(TASK.format(name=name))
    rows = [{"question": f"When do people best see {things[i % 8]} from place number {i}?", "answer": i % 4} for i in range(count)]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / f"{name}.yaml"


def samples(path, name):
    """[log-likelihoods] of every row."""
    lines = (path.parent / f"samples_{name}_{path.stem}.jsonl").read_text().splitlines()
    return [[float(response[0]) for response in json.loads(line)["filtered_resps"]] for line in lines]


def largest_difference(a, b):
    assert len(a) == len(b), (len(a), len(b))
    return max(abs(x - y) for row, other in zip(a, b) for x, y in zip(row, other))


def main():
    potstill, edge, model = sys.argv[1:4]
    if not pathlib.Path(model).exists():
        print(f"SKIPPED: no model at {model}; scripts/setup fetches it")
        return 77
    work = pathlib.Path(sys.argv[4] if len(sys.argv) > 4 else tempfile.mkdtemp(prefix="potstill-evaluate-"))
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    base = [potstill, "--quiet", "--threads", "1", "--dtype", "fp32"]
    run(*base, "prune", "--model", model, "--keep", "0,29", "--out", work / "student")
    run(*base, "prune", "--model", model, "--keep", "0,1,2,29", "--out", work / "teacher")
    run(*base, "train", "--student", work / "student", "--teacher", work / "teacher", "--data", PAIRS, "--held-out", "0.25", "--batch-size", "2", "--rank", "4",
        "--out", work / "adapter")
    run(*base, "merge", "--model", work / "student", "--adapter", work / "adapter", "--out", work / "merged", "--dtype", "fp32")
    run(*base, "quantize", "--model", work / "merged", "--method", "rtn", "--group-size", "64", "--out", work / "w4a16")
    run(*base, "export", "--model", work / "w4a16", "--format", "gptq", "--out", work / "gptq")
    run(*base, "export", "--model", work / "w4a16", "--out", work / "model.gguf")
    task = write_task(work, "seen", 40)

    def evaluate(name, *flags):
        out = work / f"{name}.json"
        run(*base, "evaluate", "--tasks", task, "--output", out, "--log-samples", *flags)
        return json.loads(out.read_text()), samples(out, "seen")

    faults = []

    def expect_equal(what, a, b, tolerance):
        difference = largest_difference(a, b)
        print(f"{what}: log-likelihoods differ by at most {difference:.2e}")
        if not difference <= tolerance:
            faults.append(f"{what}: {difference} is over {tolerance}")

    _, merged = evaluate("merged", "--model", work / "merged")
    results, adapter = evaluate("adapter", "--model", work / "adapter")
    expect_equal("adapter on its base against the merged folder", adapter, merged, 1e-3)
    if results["measured"]["format"] != "adapter" or "student" not in results["measured"]["base"]:
        faults.append(f"the results do not name the base: {results['measured']}")
    _, other = evaluate("rebased", "--model", work / "adapter", "--base", work / "student")
    expect_equal("--base as the adapter's config names it", other, adapter, 0.0)
    _, student = evaluate("student", "--model", work / "student")
    if largest_difference(student, adapter) < 1e-2:
        faults.append("the adapter changed nothing, so this test shows nothing")
    _, streamed = evaluate("streamed", "--model", work / "merged", "--layer-major", "always")
    expect_equal("layer by layer against whole", streamed, merged, 1e-3)
    _, packed = evaluate("packed", "--model", work / "w4a16")
    _, gptq = evaluate("gptq", "--model", work / "gptq")
    expect_equal("GPTQ folder against compressed-tensors", gptq, packed, 1e-4)

    _, on_edge = evaluate("edge", "--model", work / "model.gguf", "--engine", "edge")
    with edge_server(edge, work / "model.gguf", "--threads", "1", "--model-name", "small") as address:
        at_endpoint = ["--model", address + "/v1", "--endpoint-model", "small"]
        _, endpoint = evaluate("endpoint", *at_endpoint)
        # The server reads a prompt at once, --engine edge a context and its choices apart: their sums round otherwise.
        relative = max(abs(x - y) / abs(y) for row, other in zip(endpoint, on_edge) for x, y in zip(row, other))
        print(f"endpoint against the edge runtime: log-likelihoods differ by a share of at most {relative:.1e}")
        if relative > 1e-3 or [row.index(max(row)) for row in endpoint] != [row.index(max(row)) for row in on_edge]:
            faults.append(f"the endpoint scores otherwise: {relative}")
        refused = subprocess.run([*base, "evaluate", "--tasks", str(task), *at_endpoint, "--apply-chat-template"],
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if refused.returncode != 2 or "endpoint" not in refused.stdout:
            faults.append(f"a chat template for an endpoint: {refused.returncode} {refused.stdout}")

    task = write_task(work, "long", 3000)
    command = [*base, "evaluate", "--tasks", task, "--model", work / "merged", "--log-samples", "--output", work / "killed.json"]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = None
    for _ in range(6000):
        found = list(work.glob("killed.json.*.partial/scores-0.jsonl"))
        if found and found[0].read_text().count("\n") >= 64:
            journal = found[0]
            break
        if process.poll() is not None:
            break
        time.sleep(0.01)
    process.kill()
    process.wait()
    if journal is None or not journal.exists():
        faults.append("the kill came after the end")
    kept = journal.read_text().count("\n") if journal and journal.exists() else 0
    said = subprocess.run([str(c) for c in command if c != "--quiet"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if said.returncode != 0:
        sys.exit(said.stdout)
    undisturbed = [str(c).replace("killed.json", "whole.json") for c in command]
    run(*undisturbed)
    expect_equal("killed inside the task and gone on", samples(work / "killed.json", "long"), samples(work / "whole.json", "long"), 0.0)
    print(f"killed after {kept} of 3000 rows")
    if list(work.glob("*.partial")):
        faults.append(f"left behind: {list(work.glob('*.partial'))}")
    if any(math.isnan(x) for row in merged for x in row):
        faults.append("NaN")
    print("\n".join(faults) or "every kind of model scores as it should")
    if len(sys.argv) <= 4:
        shutil.rmtree(work, ignore_errors=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
