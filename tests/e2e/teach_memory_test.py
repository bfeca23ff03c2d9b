"""A teacher whose weights are three times the memory that it gets, killed in the middle.

    python3 tests/e2e/teach_memory_test.py build/release/potstill tests/golden/edge

Makes a random model of 1.3 GB (bf16), teaches with --memory 400MiB, and looks at the peak that the kernel counted.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from checks import check
from random_model import write_random_model

potstill, models = sys.argv[1], pathlib.Path(sys.argv[2])
BOUND, BOUND_BYTES = "400MiB", 400 << 20
LAYERS = 58


with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    with open("pairs.jsonl", "w") as pairs:
        for i in range(4):
            pairs.write(json.dumps({"instruction": f"Count to {i}.", "output": "one two three " * i + "done"}) + "\n")
    base = [potstill, "--quiet", "--dtype", "fp32", "--threads", "2"]
    subprocess.run([*base, "teach", "--teacher", models / "tiny_llama.gguf", "--data", "pairs.jsonl", "--out", "tiny"], check=True,
                   stdout=subprocess.DEVNULL)
    size = write_random_model("big", "tiny", hidden=1024, inner=2816, heads=16, kv_heads=4, layers=LAYERS, vocabulary=261)
    check(size >= 3 * BOUND_BYTES, f"weights of {size / 2**20:.0f} MiB for a bound of {BOUND}")
    command = [*base, "teach", "--teacher", "big", "--data", "pairs.jsonl", "--memory", BOUND, "--out", "cache"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    state = pathlib.Path("cache.partial/work/hidden/state.json")
    until = time.monotonic() + 120
    while not (state.exists() and json.loads(state.read_text())["layers"] >= 5):
        check(process.poll() is None, "still running") if process.poll() is not None else None
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    measured = json.load(open("cache/artifact.json"))["measured"]
    peak = measured["peak_rss_bytes"]
    check(measured["resumed_at_layer"] >= 5, f"goes on at layer {measured['resumed_at_layer']} of {LAYERS}")
    check(peak <= BOUND_BYTES, f"a peak of {peak / 2**20:.0f} MiB of resident memory")
    small = subprocess.run([*base, "teach", "--teacher", "big", "--data", "pairs.jsonl", "--memory", "100MiB", "--out", "x"],
                           capture_output=True, text=True)
    check(small.returncode != 0 and "takes about" in small.stderr, "a bound that cannot be kept is refused with the least that can")
