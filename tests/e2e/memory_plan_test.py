"""Training keeps to the memory table that it prints before its first step: within 15 %.

    python3 tests/e2e/memory_plan_test.py build/release/potstill SmolLM2-135M-Instruct.Q4_1.gguf
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

potstill, model = sys.argv[1], sys.argv[2]
if not pathlib.Path(model).exists():
    print(f"no demonstration model at {model}: make setup")
    sys.exit(77)
with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    with open("pairs.jsonl", "w") as pairs:
        for i in range(32):
            words = " ".join(f"{i + k} follows {i + k - 1}," for k in range(1, 9))
            pairs.write(json.dumps({"instruction": f"Count on from {i}, eight steps, in words a child knows.", "output": words}) + "\n")
    run = lambda *args: subprocess.run([potstill, "--quiet", *map(str, args)], check=True, stdout=subprocess.DEVNULL)
    run("teach", "--teacher", model, "--data", "pairs.jsonl", "--out", "cache")
    failed = False
    for name, flags in (("whole", []), ("checkpointed", ["--checkpoint-activations", "on"])):
        run("train", "--student", model, "--teacher", "cache", "--data", "pairs.jsonl", "--out", name, "--held-out", "0", "--batch-size", "16",
            "--epochs", "1", *flags)
        measured = json.load(open(f"{name}/artifact.json"))["measured"]
        ratio = measured["planned_peak_bytes"] / measured["peak_rss_bytes"]
        print(f"{name}: planned {measured['planned_peak_bytes'] / 1e6:.0f} MB, peak {measured['peak_rss_bytes'] / 1e6:.0f} MB: {ratio:.3f}")
        failed = failed or not 0.85 <= ratio <= 1.15
sys.exit(failed)
