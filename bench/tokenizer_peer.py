#!/usr/bin/env python3
"""The `tokenizers` package on the text of tokenizer_bench, one thread: median MB/s of five repeats, whole and line by line.

    RAYON_NUM_THREADS=1 python bench/tokenizer_peer.py TEXT TOKENIZER.json…
"""
import os
import statistics
import sys
import time

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
import tokenizers  # noqa: E402

text = open(sys.argv[1], encoding="utf-8", newline="").read()
size = len(text.encode())
lines = text.splitlines(keepends=True)
for path in sys.argv[2:]:
    tokenizer = tokenizers.Tokenizer.from_file(path)
    for name, run in (
        ("the text whole", lambda: tokenizer.encode(text, add_special_tokens=False)),
        ("line by line", lambda: tokenizer.encode_batch_fast(lines, add_special_tokens=False)),
    ):
        rates = []
        for _ in range(5):
            start = time.perf_counter()
            run()
            rates.append(size / (time.perf_counter() - start) / 1e6)
        print(f"tokenizers {tokenizers.__version__} {path}, {name}: {statistics.median(rates):.2f} MB/s")
