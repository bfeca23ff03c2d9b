#!/usr/bin/env python3
"""potstill evaluate against lm-evaluation-harness: the same rows, model, dtype and threads; rows scored a second.

    python bench/evaluate/compare.py --potstill build/release/potstill --gguf MODEL.gguf --tokenizer tokenizer.json --data DIR
        [--tasks arc_easy:60 hellaswag:30 mmlu_anatomy:20:5] [--dtype fp32] [--batch-sizes 1 8] [--threads 2] [--only ours|peer]

A task is NAME:ROWS[:EXAMPLES]. Needs lm-eval==0.4.13, gguf, torch and transformers in this Python. Loading the model and the
data sets counts for neither side: ours takes its own clock (a run of one row is subtracted), theirs is timed around the
scoring of requests. Both score a row before the clock starts. The sides take turns, task by task.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests/golden/eval"))


def run_ours(options, task, rows, examples):
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "out.json"
        subprocess.run([options.potstill, "-q", "evaluate", "--model", options.gguf, "--tasks", task, "--data", options.data,
                        "--limit", str(rows), "--num-fewshot", str(examples), "--dtype", options.dtype,
                        "--threads", str(options.threads), "--output", out], check=True, stdout=subprocess.DEVNULL)
        result = json.loads(out.read_text())
        return float(result["total_evaluation_time_seconds"]), result["results"][task]["acc,none"]


def ours(options, task, rows, examples):
    """Rows a second and accuracy: of rows + 1, less a run of one."""
    one, _ = run_ours(options, task, 1, examples)
    all_rows, acc = run_ours(options, task, rows + 1, examples)
    print(f"{task:16} potstill           {rows / (all_rows - one):8.2f} rows/s ({all_rows - one:.1f} s for {rows} rows, {one:.1f} s to load), acc {acc:.4f}", flush=True)
    return rows / (all_rows - one)


def load_peer(options):
    import torch
    import transformers
    from lm_eval.models.huggingface import HFLM

    torch.set_num_threads(options.threads)
    path = pathlib.Path(options.gguf)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[options.dtype]
    model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=dtype)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=options.tokenizer, bos_token="<|im_start|>",
                                                     eos_token="<|im_end|>", pad_token="<|im_end|>")

    class Timed(HFLM):
        seconds = 0.0

        def loglikelihood(self, requests, **kwargs):
            start = time.perf_counter()
            result = super().loglikelihood(requests, **kwargs)
            self.seconds = time.perf_counter() - start
            return result

    return lambda batch_size: Timed(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, device="cpu", dtype=dtype)


def peer(options, load, task, rows, examples):
    """The better rate of the batch sizes: the harness's default is 1, and a careful user takes more."""
    import harness_prompts
    from harness import TASKS

    harness_prompts.chosen = lambda _, all_rows, count: list(range(min(count, len(all_rows))))
    file, folder, split, _ = TASKS[task]
    TASKS[task] = (file, folder, split, rows + 1)

    def scored(lm, limit):
        with tempfile.TemporaryDirectory() as temporary:
            return harness_prompts.evaluate(lm, task, pathlib.Path(options.data), dict(num_fewshot=examples), limit, pathlib.Path(temporary))

    best = 0.0
    for batch_size in options.batch_sizes:
        lm = load(batch_size)
        scored(lm, 1)
        samples = scored(lm, rows + 1)
        acc = sum(float(s["acc"]) for _, s in samples) / len(samples)
        rate = (rows + 1) / lm.seconds
        print(f"{task:16} lm-eval, batch {batch_size:3} {rate:8.2f} rows/s ({lm.seconds:.1f} s), acc {acc:.4f}", flush=True)
        best = max(best, rate)
    return best


def main():
    parser = argparse.ArgumentParser()
    for name in ("potstill", "gguf", "tokenizer", "data"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--tasks", nargs="+", default=["arc_easy:60", "hellaswag:30", "mmlu_anatomy:20:5"])
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=["ours", "peer"])
    options = parser.parse_args()
    load = None if options.only == "ours" else load_peer(options)
    for spec in options.tasks:
        task, rows, examples = (spec.split(":") + ["0"])[:3]
        measured = options, task, int(rows), int(examples)
        rate = ours(*measured) if options.only != "peer" else None
        best = peer(options, load, *measured[1:]) if load else None
        if rate and best:
            print(f"{task:16} potstill is {rate / best:.2f} times the faster of lm-eval's", flush=True)


if __name__ == "__main__":
    main()
