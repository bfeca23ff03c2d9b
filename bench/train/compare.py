"""potstill's training beside a careful PyTorch + PEFT loop and TRL's GKD trainer: one student, teacher, adapter and order of data.

    python bench/train/compare.py --bench build/release/bench/train_bench --student S1 --teacher MODEL --pairs D_gen.jsonl
        (in an environment with torch, transformers, peft, gguf and trl)

same: 8 x 128 tokens a step, KL on every position, the teacher in every step; in fp32 and in bf16.
used: the pairs as they are. Ours on cached knowledge, packed, with the LM head on answer positions alone; the loop with
padded batches and a live teacher. The teacher's pass for the cache is counted for a single run ("with teach") and, once,
for a search of sixteen.
Repeats are interleaved and medians shown: a shared machine halves single figures for seconds at a time.
"""

import argparse
import collections
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

parser = argparse.ArgumentParser()
parser.add_argument("--bench", required=True)
parser.add_argument("--student", required=True)
parser.add_argument("--teacher", required=True)
parser.add_argument("--pairs", required=True)
parser.add_argument("--steps", type=int, default=6)
parser.add_argument("--repeats", type=int, default=1)
parser.add_argument("--only", default="", help="such as same-bf16")
parser.add_argument("--without", default="", help="leave out a peer: trl")
options = parser.parse_args()
peers_script = pathlib.Path(__file__).with_name("peers.py")


def run(command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return json.loads(next(line for line in reversed(done.stdout.splitlines()) if line.startswith('{"who"')))


results = collections.defaultdict(list)
models = ["--student", options.student, "--teacher", options.teacher]
with tempfile.TemporaryDirectory() as folder:
    for _ in range(options.repeats):
        for mode, dtype in (("same", "fp32"), ("same", "bf16"), ("used", "fp32"), ("used", "bf16")):
            if options.only and options.only != f"{mode}-{dtype}":
                continue
            work = f"{folder}/{mode}-{dtype}"
            ours = run([options.bench, *models, "--mode", mode, "--dtype", dtype, "--steps", options.steps, "--pairs", options.pairs,
                        "--out", work])
            results[mode, dtype, "potstill"].append(ours)
            for who in ("peft", "trl"):
                if who != options.without:
                    results[mode, dtype, who].append(run([sys.executable, peers_script, who, *models, "--work", work, "--dtype", dtype,
                                                          "--mode", mode]))

print(f"{'':12s}{'tokens/s':>10s}{'ratio':>8s}{'peak MB':>10s}{'optimizer':>11s}   loss against PEFT's, largest relative difference")
for mode, dtype in sorted({key[:2] for key in results}, reverse=True):
    print(f"{mode} {dtype}")
    ours = results[mode, dtype, "potstill"]
    median = {who: statistics.median(r["tokens_per_s"] for r in results[mode, dtype, who])
              for who in ("potstill", "peft", "trl") if results[mode, dtype, who]}
    for who, speed in median.items():
        row = results[mode, dtype, who][-1]
        share = statistics.median(row["optimizer_share"]) if row["optimizer_share"] else None
        line = f"  {who:10s}{speed:10.0f}{median['potstill'] / speed:8.2f}{row['peak_mb']:10.0f}"
        line += f"{100 * share:10.2f}%" if share is not None else " " * 11
        if who == "potstill":
            peft = results[mode, dtype, "peft"][-1]["loss"]
            line += f"   {max(abs(a - b) / abs(b) for a, b in zip(row['loss'], peft)):.1e} over {len(peft)} steps"
        print(line)
    if mode == "used":
        print(f"  the teacher's pass: {ours[-1]['teach_seconds']:.1f} s, once")
