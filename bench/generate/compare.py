"""potstill's batch generation beside transformers.generate: the requests that synth makes, sixteen at a time, greedy.

    build/release/potstill export --model MODEL.gguf --format safetensors --out PLAIN
    .deps/interop/bin/python bench/generate/compare.py --bench build/release/bench/generate_bench --model MODEL.gguf --plain PLAIN

The requests are synth's own: a task's instruction, four examples and a topic or a question, of different lengths, answers up
to 64 tokens that end with their line. transformers gets the same prompts in left-padded batches of 16 of the longest first
(the order that pads least), its own KV cache, sdpa attention, the same dtype; an answer ends at its line or at 64 tokens, and a
batch when its last answer does. Tokens are counted up to the end of each answer. Repeats are interleaved, medians shown.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
parser = argparse.ArgumentParser()
parser.add_argument("--bench", required=True)
parser.add_argument("--model", required=True)
parser.add_argument("--plain", required=True, help="the same model as safetensors: transformers would multiply GGUF's blocks as they are, slowly")
parser.add_argument("--batch", type=int, default=16)
parser.add_argument("--requests", type=int, default=96)
parser.add_argument("--max-new-tokens", type=int, default=64)
parser.add_argument("--repeats", type=int, default=3)
parser.add_argument("--dtypes", default="fp32,bf16")
parser.add_argument("--engines", default="torch,edge")
parser.add_argument("--shared-examples", action="store_true", help="every prompt begins alike, as in a round of synth")
options = parser.parse_args()

import torch
import transformers
import yaml

torch.set_num_threads(len(os.sched_getaffinity(0)))
task = yaml.safe_load(open(pathlib.Path(__file__).parents[2] / "recipes/tasks/elementary_science.yaml"))
facts = [fact for topic in task["subtopics"] for fact in topic["facts"]][: options.requests]
requests = []
for i, fact in enumerate(facts):
    # Other examples and another number of them for each: nothing is shared, and the lengths differ.
    shown = task["seeds"] if options.shared_examples else [task["seeds"][(i + k) % len(task["seeds"])] for k in range(1 + i % 4)]
    prompt = "" if options.shared_examples else f"Note {i}. "
    prompt += task["answer_instruction"] + "\n\n"
    prompt += "".join(f"Fact: {s['fact']}\nQuestion: {s['question']}\nAnswer: {s['answer']}\n\n" for s in shown)
    requests.append({"prompt": prompt + f"Fact: {fact}\nQuestion: What does this tell us?\nAnswer:", "max_new_tokens": options.max_new_tokens,
                     "stop": ["\n"]})

tokenizer = transformers.AutoTokenizer.from_pretrained(options.plain)
tokenizer.padding_side = "left"
tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
models = {}


def peer(dtype):
    if dtype not in models:
        models[dtype] = transformers.AutoModelForCausalLM.from_pretrained(
            options.plain, dtype={"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]).eval()
    model = models[dtype]
    order = sorted(range(len(requests)), key=lambda i: -len(requests[i]["prompt"]))
    texts, tokens = [""] * len(requests), 0
    start = time.perf_counter()
    for begin in range(0, len(order), options.batch):
        chosen = order[begin : begin + options.batch]
        batch = tokenizer([requests[i]["prompt"] for i in chosen], return_tensors="pt", padding=True)
        with torch.inference_mode():
            written = model.generate(**batch, max_new_tokens=options.max_new_tokens, do_sample=False, stop_strings=["\n"], tokenizer=tokenizer,
                                     pad_token_id=tokenizer.pad_token_id)[:, batch["input_ids"].shape[1] :]
        for i, row in zip(chosen, written):
            ids = row.tolist()
            ends = [k for k, t in enumerate(ids) if t == tokenizer.eos_token_id or "\n" in tokenizer.decode([t])]
            ids = ids[: ends[0] + 1] if ends else ids
            tokens += len(ids)
            texts[i] = tokenizer.decode(ids, skip_special_tokens=True).split("\n")[0]
    return {"tokens": tokens, "seconds": time.perf_counter() - start, "texts": texts}


def ours(engine, dtype, path):
    done = subprocess.run([options.bench, "--model", options.model, "--requests", path, "--engine", engine, "--dtype", dtype, "--slots",
                           str(options.batch)], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


results = {}
with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
    file.writelines(json.dumps(r) + "\n" for r in requests)
    file.flush()
    for _ in range(options.repeats):
        for dtype in options.dtypes.split(","):
            results.setdefault(f"transformers {dtype}", []).append(peer(dtype))
            if "torch" in options.engines:
                results.setdefault(f"potstill torch {dtype}", []).append(ours("torch", dtype, file.name))
        if "edge" in options.engines:
            results.setdefault("potstill edge", []).append(ours("edge", "fp32", file.name))

reference = results.get("transformers fp32", next(iter(results.values())))[0]["texts"]
print(f"{len(requests)} requests, {options.batch} at a time, up to {options.max_new_tokens} tokens, greedy\n")
print(f"{'':24}{'tokens':>8}{'seconds':>9}{'tokens/s':>10}   answers equal to {list(results)[0]}'s")
for who, runs in results.items():
    seconds = statistics.median(r["seconds"] for r in runs)
    tokens = runs[0]["tokens"]
    equal = sum(a.strip() == b.strip() for a, b in zip(runs[0]["texts"], reference))
    print(f"{who:24}{tokens:8}{seconds:9.2f}{tokens / seconds:10.0f}   {equal} of {len(reference)}")
