#!/usr/bin/env python3
"""The `tokenizers` package on the text of tokenizer_bench, one thread: median MB/s of five repeats.

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
for path in sys.argv[2:]:
    tokenizer = tokenizers.Tokenizer.from_file(path)
    rates = []
    for _ in range(5):
        start = time.perf_counter()
        num_ids = len(tokenizer.encode(text, add_special_tokens=False).ids)
        rates.append(size / (time.perf_counter() - start) / 1e6)
    print(f"tokenizers {tokenizers.__version__} {path}: {statistics.median(rates):.2f} MB/s, {size / num_ids:.3f} bytes/token")
