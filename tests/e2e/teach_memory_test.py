"""A teacher whose weights are three times the memory that it gets, killed in the middle.

    python3 tests/e2e/teach_memory_test.py build/release/potstill tests/golden/edge

Makes a random model of 1.3 GB (bf16), teaches with --memory 400MiB, and looks at the peak that the kernel counted.
"""

import json
import os
import pathlib
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time

potstill, models = sys.argv[1], pathlib.Path(sys.argv[2])
BOUND, BOUND_BYTES = "400MiB", 400 << 20
HIDDEN, INNER, HEADS, KV_HEADS, LAYERS, VOCABULARY = 1024, 2816, 16, 4, 58, 261


def weights():
    kv = HIDDEN // HEADS * KV_HEADS
    yield "model.embed_tokens.weight", [VOCABULARY, HIDDEN]
    yield "model.norm.weight", [HIDDEN]
    for i in range(LAYERS):
        prefix = f"model.layers.{i}."
        for name, shape in (("input_layernorm", [HIDDEN]), ("post_attention_layernorm", [HIDDEN]), ("self_attn.q_proj", [HIDDEN, HIDDEN]),
                            ("self_attn.k_proj", [kv, HIDDEN]), ("self_attn.v_proj", [kv, HIDDEN]), ("self_attn.o_proj", [HIDDEN, HIDDEN]),
                            ("mlp.gate_proj", [INNER, HIDDEN]), ("mlp.up_proj", [INNER, HIDDEN]), ("mlp.down_proj", [HIDDEN, INNER])):
            yield f"{prefix}{name}.weight", shape


def write_model(folder):
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes(pathlib.Path("tiny", name).read_bytes())
    json.dump({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INNER,
               "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HIDDEN // HEADS,
               "vocab_size": VOCABULARY, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
               "tie_word_embeddings": True, "torch_dtype": "bfloat16", "bos_token_id": 257, "eos_token_id": 259}, open(folder / "config.json", "w"))
    header, offset = {}, 0
    for name, shape in weights():
        size = 2
        for n in shape:
            size *= n
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = random.Random(1)
    # ±(0.0156 … 0.031), a megabyte of it again and again; norms are 1.
    block = struct.pack("<524288H", *(rng.getrandbits(1) << 15 | 0x3C80 + rng.getrandbits(7) for _ in range(524288)))
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in weights():
            size = header[name]["data_offsets"][1] - header[name]["data_offsets"][0]
            if "norm" in name:
                file.write(struct.pack("<H", 0x3F80) * (size // 2))
            else:
                for begin in range(0, size, len(block)):
                    file.write(block[: size - begin])
    return offset


def check(condition, what):
    if not condition:
        sys.exit(f"FAILED: {what}")
    print("ok:", what)


with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    with open("pairs.jsonl", "w") as pairs:
        for i in range(4):
            pairs.write(json.dumps({"instruction": f"Count to {i}.", "output": "one two three " * i + "done"}) + "\n")
    base = [potstill, "--quiet", "--dtype", "fp32", "--threads", "2"]
    subprocess.run([*base, "teach", "--teacher", models / "tiny_llama.gguf", "--data", "pairs.jsonl", "--out", "tiny"], check=True,
                   stdout=subprocess.DEVNULL)
    size = write_model(pathlib.Path("big"))
    check(size >= 3 * BOUND_BYTES, f"weights of {size / 2**20:.0f} MiB for a bound of {BOUND}")
    command = [*base, "teach", "--teacher", "big", "--data", "pairs.jsonl", "--memory", BOUND, "--out", "cache"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    state = pathlib.Path("cache.partial/work/hidden/state.json")
    until = time.monotonic() + 120
    while not (state.exists() and json.loads(state.read_text())["layers"] >= 5):
        check(process.poll() is None, "still running") if process.poll() is not None else None
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    measured = json.load(open("cache/artifact.json"))["measured"]
    peak = measured["peak_rss_bytes"]
    check(measured["resumed_at_layer"] >= 5, f"goes on at layer {measured['resumed_at_layer']} of {LAYERS}")
    check(peak <= BOUND_BYTES, f"a peak of {peak / 2**20:.0f} MiB of resident memory")
    small = subprocess.run([*base, "teach", "--teacher", "big", "--data", "pairs.jsonl", "--memory", "100MiB", "--out", "x"],
                           capture_output=True, text=True)
    check(small.returncode != 0 and "takes about" in small.stderr, "a bound that cannot be kept is refused with the least that can")
