#!/usr/bin/env python3
"""Pairs for recipes/study_135m.yaml out of the training rows of ARC-Easy and OpenBookQA: each question as
lm-evaluation-harness asks it, and the right answer. Questions that are scored rows as well are left out.

    scripts/study_pairs.py DATA OUT.jsonl [--arc-easy 160] [--openbookqa 80] [--train-split train]

DATA/<task>/<split>.jsonl holds rows with the Hub's own field names (docs/evaluation.md).
"""
import argparse
import json
import pathlib

TASKS = {"arc_easy": ("question", "Question: {}\nAnswer:"), "openbookqa": ("question_stem", "{}")}


def rows_of(data, task, split):
    with open(data / task / f"{split}.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def pairs_of(data, task, split, count):
    field, prompt = TASKS[task]
    scored = {row[field].strip() for row in rows_of(data, task, "test")} if split != "test" else set()
    for row in rows_of(data, task, split):
        if count == 0:
            return
        if row[field].strip() in scored:
            continue
        answer = row["choices"]["text"][row["choices"]["label"].index(row["answerKey"].strip())]
        yield {"instruction": prompt.format(row[field]), "output": answer}
        count -= 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--arc-easy", type=int, default=160)
    parser.add_argument("--openbookqa", type=int, default=80)
    parser.add_argument("--train-split", default="train")
    options = parser.parse_args()
    pairs = [*pairs_of(options.data, "arc_easy", options.train_split, options.arc_easy),
             *pairs_of(options.data, "openbookqa", options.train_split, options.openbookqa)]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with open(options.out, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
    print(f"{len(pairs)} pairs in {options.out}")


if __name__ == "__main__":
    main()
