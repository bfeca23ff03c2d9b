"""The memory table that training prints, held against the peak that the kernel counted.

    python3 tests/e2e/train_memory_test.py build/release/potstill tests/golden/edge

A random student whose activations outweigh the program, in fp32 and in bf16, with whole and with checkpointed activations: the peak lies
within 15 % of the table's, and what the table adds to the memory of before the first step within 25 % of what was added.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from checks import check
from random_model import write_random_model

potstill, models = sys.argv[1], pathlib.Path(sys.argv[2])
has_bf16 = " avx512_bf16" in open("/proc/cpuinfo").read()  # elsewhere LibTorch multiplies it by detours that nobody would choose


with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    with open("pairs.jsonl", "w") as pairs:
        for i in range(24):
            pairs.write(json.dumps({"instruction": f"{i}: count " + "and count " * 18, "output": "one two three " * 10 + "done"}) + "\n")
    base = [potstill, "--quiet", "--threads", "2", "--seed", "1"]
    subprocess.run([*base, "--dtype", "fp32", "teach", "--teacher", models / "tiny_llama.gguf", "--data", "pairs.jsonl", "--out", "tiny"],
                   check=True, stdout=subprocess.DEVNULL)
    write_random_model("student", "tiny", hidden=384, inner=1536, heads=6, kv_heads=2, layers=8, vocabulary=261)
    subprocess.run([*base, "--dtype", "fp32", "teach", "--teacher", "student", "--data", "pairs.jsonl", "--out", "cache"], check=True,
                   stdout=subprocess.DEVNULL)
    for dtype in ("fp32", "bf16") if has_bf16 else ("fp32",):
        for checkpoints in ("off", "on"):
            out = f"{dtype}-{checkpoints}"
            subprocess.run([*base, "--dtype", dtype, "train", "--student", "student", "--teacher", "cache", "--data", "pairs.jsonl", "--out", out,
                            "--batch-size", "12", "--tokens-per-batch", "100000", "--held-out", "0", "--lr", "1e-6",
                            "--checkpoint-activations", checkpoints], check=True, stdout=subprocess.DEVNULL)
            measured = json.load(open(f"{out}/artifact.json"))["measured"]
            planned, peak, before = (measured[name] for name in ("planned_peak_bytes", "peak_rss_bytes", "resident_before_bytes"))
            added, more = planned - before, peak - before
            check(abs(planned / peak - 1) < 0.15, f"{out}: {planned / 2**20:.0f} MiB planned, a peak of {peak / 2**20:.0f}")
            if checkpoints == "off":
                check(more > 0.4 * peak, f"{out}: {more / 2**20:.0f} MiB of them are the training's")
                check(abs(added / more - 1) < 0.25, f"{out}: {added / 2**20:.0f} MiB of them planned")
