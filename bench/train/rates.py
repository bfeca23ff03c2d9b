#!/usr/bin/env python3
"""Which learning rate works without a search: trains the same student with every optimizer, scale rule, rank and rate, and
prints the held-out KL to the teacher. Kept results are not measured again: a stopped run goes on.

    python bench/train/rates.py --potstill build/release/potstill --student runs/NAME/prune --teacher runs/NAME/teach \\
        --data pairs.jsonl --out rates [--ranks 8,16,32,64] [--only muon:original,adamw] [--rates 0.01,0.02] [--epochs 1]

lora_alpha is twice the rank, as by default. The grid of each optimizer is in steps of about 2 around its default; --rates takes
another.
"""
import argparse
import json
import pathlib
import shutil
import subprocess
import sys

RULES = {  # name -> (flags, rates)
    "adamw": (["--optimizer", "adamw"], [2e-4, 5e-4, 1e-3, 2e-3, 5e-3]),
    "muon:original": (["--optimizer", "muon", "--muon-scale", "original"], [0.005, 0.01, 0.02, 0.04, 0.08]),
    "muon:match-rms-adamw": (["--optimizer", "muon", "--muon-scale", "match-rms-adamw"], [1e-3, 2e-3, 5e-3, 1e-2, 2e-2]),
    "muon:spectral-unclamped": (["--optimizer", "muon", "--muon-scale", "spectral-unclamped"], [0.01, 0.02, 0.05, 0.1, 0.2]),
    "lora-muon": (["--optimizer", "lora-muon"], [0.02, 0.05, 0.1, 0.2, 0.5]),
}


def measure(options, rule, rank, rate):
    name = f"{rule.replace(':', '_')}-r{rank}-lr{rate:g}"
    kept = options.out / f"{name}.json"
    if not kept.exists():
        folder = options.out / name
        shutil.rmtree(folder, ignore_errors=True)
        command = [options.potstill, "-q", "--threads", options.threads, "train", "--student", options.student, "--teacher", options.teacher, "--data", options.data,
                   "--rank", rank, "--lora-alpha", 2 * rank, "--lr", rate, "--epochs", options.epochs, "--seed", options.seed,
                   "--on-divergence", "stop", "--out", folder, *RULES[rule][0]]
        done = subprocess.run([str(c) for c in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode == 0:
            results = json.loads((folder / "artifact.json").read_text())["results"]
            kept.write_text(json.dumps({"kl": results["held_out"]["kl"], "top1": results["held_out"]["top1"],
                                        "before": results["held_out_before"]["kl"], "steps": results["steps"]}))
        elif done.returncode == 6:  # diverged
            kept.write_text(json.dumps({"kl": None, "error": done.stderr.strip()}))
        else:
            sys.exit(done.stderr)
        shutil.rmtree(folder, ignore_errors=True)
    return json.loads(kept.read_text())


def main():
    parser = argparse.ArgumentParser()
    for name in ("potstill", "student", "teacher", "data"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--ranks", default="8,16,32,64")
    parser.add_argument("--only", default=",".join(RULES))
    parser.add_argument("--rates", default="", help="in the place of the grid; with one optimizer in --only")
    parser.add_argument("--threads", default="2")
    parser.add_argument("--epochs", default="1")
    parser.add_argument("--seed", default="1")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    ranks = [int(r) for r in options.ranks.split(",")]
    before = None
    for rule in options.only.split(","):
        rates = [float(r) for r in options.rates.split(",")] if options.rates else RULES[rule][1]
        table = {}
        for rank in ranks:  # rank by rank, so that a stopped run has whole rows
            for rate in rates:
                result = measure(options, rule, rank, rate)
                before = result.get("before", before)
                table[rank, rate] = result["kl"]
        print(f"\n{rule}: held-out KL" + (f" (untrained {before:.4f})" if before else ""))
        print("| rank | " + " | ".join(f"{rate:g}" for rate in rates) + " |")
        print("|---|" + "---|" * len(rates))
        for rank in ranks:
            row = [table[rank, rate] for rate in rates]
            best = min(v for v in row if v is not None)
            print(f"| {rank} | " + " | ".join("diverged" if v is None else f"**{v:.4f}**" if v == best else f"{v:.4f}" for v in row) + " |",
                  flush=True)


if __name__ == "__main__":
    main()
