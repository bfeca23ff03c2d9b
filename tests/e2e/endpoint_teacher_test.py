"""`potstill-edge serve` as the teacher: its top 20 tokens fill a sparse cache, and a student learns from it.

    python3 tests/e2e/endpoint_teacher_test.py build/release/potstill build/release/potstill-edge tests/golden/edge
"""

import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

from checks import check

potstill, edge, models = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
teacher, student = models / "tiny_llama.gguf", models / "tiny_qwen2.gguf"


with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    with open("pairs.jsonl", "w") as pairs:
        for i in range(10):
            pairs.write(json.dumps({"instruction": f"What is {i}?", "output": f"Ä number: {i}."}) + "\n")
    server = subprocess.Popen([edge, "serve", teacher, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5).read()
                break
            except OSError:
                assert time.monotonic() < until, "the server does not answer"
                time.sleep(0.05)
        run = lambda *args: subprocess.run([potstill, "--dtype", "fp32", "--threads", "1", *map(str, args)], capture_output=True, text=True)
        done = run("teach", "--teacher", f"http://127.0.0.1:{port}/v1", "--teacher-model", "tiny_llama", "--tokenizer", student,
                   "--data", "pairs.jsonl", "--out", "sparse")
        check(done.returncode == 0, f"the endpoint teaches {done.stderr[-600:] if done.returncode else ''}")
        check("approximate: covers" in done.stdout, done.stdout.strip().splitlines()[-1].strip())
    finally:
        server.terminate()
        server.wait(timeout=30)
    manifest = json.load(open("sparse/knowledge.json"))
    check(manifest["kind"] == "top-k" and manifest["k"] == 20 and 0 < manifest["covered_mass"] < 1, "20 tokens a position, and a rest")
    check(run("teach", "--teacher", teacher, "--data", "pairs.jsonl", "--out", "exact").returncode == 0, "the same teacher, exact")
    results = {}
    for cache in ("sparse", "exact"):
        done = run("train", "--student", student, "--teacher", cache, "--data", "pairs.jsonl", "--out", f"adapter-{cache}", "--epochs", "30",
                   "--batch-size", "3", "--optimizer", "adamw", "--lr", "0.01", "--held-out", "0.2")
        check(done.returncode == 0, f"training on the {cache} cache {done.stderr[-600:] if done.returncode else ''}")
        results[cache] = json.load(open(f"adapter-{cache}/artifact.json"))["results"]
    check(results["sparse"]["quantity"] == "kl_top_k" and "approximate" in results["sparse"]["knowledge"], "its numbers have their own name")
    check("kl" not in results["sparse"]["held_out"], "and are not called KL")
    check(results["sparse"]["held_out_before"]["kl_top_k"] <= results["exact"]["held_out_before"]["kl"] + 0.01,
          "which they bound from below")
    check(results["sparse"]["held_out"]["kl_top_k"] < results["sparse"]["held_out_before"]["kl_top_k"], "and which fall")
