#!/usr/bin/env python3
"""potstill evaluate against lm-evaluation-harness: the same rows, model, dtype and threads; rows scored a second.

    python bench/evaluate/compare.py --potstill build/release/potstill --gguf MODEL.gguf --tokenizer tokenizer.json --data DIR
        [--task arc_easy] [--rows 40] [--num-fewshot 0] [--threads 2] [--only ours|peer]

Needs lm-eval==0.4.13, gguf, torch and transformers in this Python. Loading the model and the data sets counts for neither
side: ours takes its own clock (a second run of one row is subtracted), theirs is timed around the scoring of requests.
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


def ours(options, rows):
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "out.json"
        subprocess.run([options.potstill, "-q", "evaluate", "--model", options.gguf, "--tasks", options.task, "--data", options.data,
                        "--limit", str(rows), "--num-fewshot", str(options.num_fewshot), "--dtype", "fp32",
                        "--threads", str(options.threads), "--output", out], check=True, stdout=subprocess.DEVNULL)
        result = json.loads(out.read_text())
        name = "social_iqa" if options.task == "siqa" else options.task
        return float(result["total_evaluation_time_seconds"]), result["results"][name]["acc,none"]


def peer(options):
    import torch
    import transformers
    from harness import TASKS
    from harness_prompts import evaluate
    from lm_eval.models.huggingface import HFLM

    torch.set_num_threads(options.threads)
    path = pathlib.Path(options.gguf)
    model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=options.tokenizer, bos_token="<|im_start|>",
                                                     eos_token="<|im_end|>", pad_token="<|im_end|>")

    class Timed(HFLM):
        seconds = 0.0

        def loglikelihood(self, requests, **kwargs):
            start = time.perf_counter()
            result = super().loglikelihood(requests, **kwargs)
            self.seconds = time.perf_counter() - start
            return result

    best = None
    for batch_size in (1, 8):  # the harness's default, and one that a careful user would take
        lm = Timed(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, device="cpu", dtype="float32")
        file, folder, split, _ = TASKS[options.task]
        TASKS[options.task] = (file, folder, split, options.rows)
        import harness_prompts
        harness_prompts.chosen = lambda task, rows, count: list(range(min(count, len(rows))))
        with tempfile.TemporaryDirectory() as temporary:
            samples = evaluate(lm, options.task, pathlib.Path(options.data), dict(num_fewshot=options.num_fewshot), options.rows,
                               pathlib.Path(temporary))
        acc = sum(float(s["acc"]) for _, s in samples) / len(samples)
        print(f"lm-eval, batch {batch_size}: {options.rows / lm.seconds:.2f} rows/s ({lm.seconds:.1f} s), acc {acc:.4f}", flush=True)
        best = max(best or 0.0, options.rows / lm.seconds)
    return best


def main():
    parser = argparse.ArgumentParser()
    for name in ("potstill", "gguf", "tokenizer", "data"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--task", default="arc_easy")
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--num-fewshot", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=["ours", "peer"])
    options = parser.parse_args()
    rate = None
    if options.only != "peer":
        one, _ = ours(options, 1)
        all_rows, acc = ours(options, options.rows + 1)
        rate = options.rows / (all_rows - one)
        print(f"potstill: {rate:.2f} rows/s ({all_rows - one:.1f} s for {options.rows} rows, {one:.1f} s to load), acc {acc:.4f}", flush=True)
    if options.only != "ours":
        best = peer(options)
        if rate:
            print(f"potstill is {rate / best:.2f} times the faster of lm-eval's")


if __name__ == "__main__":
    main()
