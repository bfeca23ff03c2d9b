"""Two processes train one adapter over the real Gloo, as torchrun would start them.

    python3 tests/e2e/ranks_test.py build/release/potstill tests/golden/edge

Shows: the losses of one process with the same global batch; a killed rank ends the other within a minute, with a clear error,
and the same commands go on to the bytes of an undisturbed run; Ctrl-C on one rank stops both after the step.
"""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

from checks import check

potstill, models = sys.argv[1], pathlib.Path(sys.argv[2])
teacher, student = models / "tiny_llama.gguf", models / "tiny_qwen2.gguf"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def train_command(out, epochs, every=0):
    return [potstill, "train", "--student", student, "--teacher", "cache", "--data", "pairs.jsonl", "--out", out, "--dtype", "fp32",
            "--batch-size", "4", "--epochs", str(epochs), "--optimizer", "adamw", "--lr", "1e-3", "--rank", "4", "--threads", "1",
            "--seed", "3", "--checkpoint-every", str(every)]


def start_ranks(command):
    port = free_port()
    ranks = []
    for rank in (0, 1):
        env = dict(os.environ, RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        ranks.append(subprocess.Popen([str(c) for c in command], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    return ranks


def ends(ranks, timeout=120):
    return [(process.communicate(timeout=timeout), process.returncode) for process in ranks]


def steps(folder):
    return [line for line in map(json.loads, open(f"{folder}/train_log.jsonl")) if "loss" in line]


def wait_for(path, seconds=60):
    until = time.monotonic() + seconds
    while not pathlib.Path(path).exists():
        assert time.monotonic() < until, f"no {path} after {seconds} s"
        time.sleep(0.02)


with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    with open("pairs.jsonl", "w") as pairs:
        for i in range(30):
            pairs.write(json.dumps({"instruction": f"What is number {i}?", "output": f"It is the {i}th, and {'so ' * (i % 4)}on."}) + "\n")
    subprocess.run([potstill, "--quiet", "teach", "--teacher", teacher, "--data", "pairs.jsonl", "--out", "cache", "--seed", "3"],
                   check=True, stdout=subprocess.DEVNULL)
    subprocess.run([str(c) for c in train_command("one", 2)], check=True, capture_output=True)
    done = ends(start_ranks(train_command("two", 2)))
    check([code for _, code in done] == [0, 0], f"both ranks end well {[text for (_, text), code in done if code]}")
    check(done[1][0][0] == "" and "two" in done[0][0][0], "the first rank alone prints the result")
    alone, together = steps("one"), steps("two")
    worst = max(abs(a["loss"] - b["loss"]) / a["loss"] for a, b in zip(alone, together))
    check(len(alone) == len(together) > 10 and worst < 1e-4, f"two ranks have one's losses, within {worst:.1e} of each step's")
    check(all(a["tokens"] == b["tokens"] for a, b in zip(alone, together)), "and its tokens")

    command = train_command("long", 40, every=5)
    check([code for _, code in ends(start_ranks(train_command("undisturbed", 40, every=5)))] == [0, 0], "an undisturbed run")
    ranks = start_ranks(command)
    wait_for("long.partial/work/checkpoint/checkpoint.safetensors")
    ranks[1].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    (_, error), code = ends(ranks[:1])[0]
    check(code != 0 and "another rank is gone" in error and time.monotonic() - killed < 60, "a dead rank ends the other with an error")
    ranks[1].communicate()
    ranks = start_ranks(command)
    time.sleep(1.0)
    ranks[1].send_signal(signal.SIGINT)
    codes = [code for _, code in ends(ranks)]
    check(codes[0] == codes[1], f"Ctrl-C on one rank stops both ({codes})")
    if codes[0] != 0:
        check([code for _, code in ends(start_ranks(command))] == [0, 0], "and the run goes on")
    adapters = [open(f"{name}/adapter_model.safetensors", "rb").read() for name in ("undisturbed", "long")]
    check(adapters[0] == adapters[1], "to the bytes of the undisturbed one")
    done = ends(start_ranks(train_command("long", 40, every=5)))
    check([code for _, code in done] == [0, 0], "what is there already is skipped by both")
    lonely = subprocess.run([str(c) for c in train_command("x", 2)], env=dict(os.environ, WORLD_SIZE="2"), capture_output=True, text=True)
    check(lonely.returncode != 0 and "do not go together" in lonely.stderr, "half an environment is refused in words")
