"""potstill quantize beside GPTQModel and llm-compressor: wall time, peak memory and perplexity of the same model, text and sizes.

    python bench/quantize/compare.py --potstill build/release/potstill --model MODEL --text train.txt --valid valid.txt,other.txt
        [--python-gptqmodel ENV/bin/python] [--python-llmcompressor ENV/bin/python] [--peer-sequences 128]

MODEL is a Hugging Face folder or a GGUF file; the peers get it as float32 safetensors. 128 windows of 512 tokens, symmetric groups of
64, two threads where the machine has two. Each program runs alone. Perplexity is potstill's own of what each wrote, in fp32: the first
16,384 tokens in windows of 512.

--peer-sequences 16,32 runs each peer twice with fewer windows and goes on along the line through the two; the table says so. Runs are
chosen by --only (ours-standard, ours-best, ours-standard-bf16, ours-best-bf16, gptqmodel, gptqmodel-bf16, llmcompressor,
llmcompressor-static, …); a share is of the faster peer in the same dtype.

    python bench/quantize/compare.py --potstill … --model MODEL --text train.txt --wide

quantizes one layer of random weights with the shape of Llama-3.2-3B (width 3072, feed-forward 8192, 24 heads, 8 of them for keys) and
shows seconds, share of the machine's GFLOP/s by phase, and what the 28 layers would take.
"""

import argparse
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import time

parser = argparse.ArgumentParser()
parser.add_argument("--potstill", required=True)
parser.add_argument("--model", required=True)
parser.add_argument("--text", required=True)
parser.add_argument("--valid", default="")
parser.add_argument("--python-gptqmodel", default=sys.executable)
parser.add_argument("--python-llmcompressor", default=sys.executable)
parser.add_argument("--sequences", type=int, default=128)
parser.add_argument("--length", type=int, default=512)
parser.add_argument("--peer-sequences", default="")
parser.add_argument("--only", default="")
parser.add_argument("--wide", action="store_true")
parser.add_argument("--wide-sequences", type=int, default=16)
options = parser.parse_args()

PEERS = {"gptqmodel": ("gptqmodel", "fp32", "none"), "gptqmodel-bf16": ("gptqmodel", "bf16", "none"),
         "llmcompressor": ("llmcompressor", "fp32", "none"), "llmcompressor-static": ("llmcompressor", "fp32", "static"),
         "llmcompressor-awq": ("llmcompressor-awq", "fp32", "none")}
OURS = {"ours-standard": ["--dtype", "fp32"], "ours-standard-bf16": ["--dtype", "bf16"], "ours-best": ["--dtype", "fp32", "--quality", "best"],
        "ours-best-bf16": ["--dtype", "bf16", "--quality", "best"], "ours-awq": ["--dtype", "fp32", "--method", "awq"], "ours-rtn": ["--method", "rtn"]}
script = pathlib.Path(__file__).resolve().with_name("peers.py")


def run(command, folder=None):
    """stdout and seconds of a program that ran alone, in that folder."""
    start = time.monotonic()
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)
    out, err = process.communicate()
    seconds = time.monotonic() - start
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\n{err[-3000:]}")
    return out, seconds


def potstill(*arguments):
    out, seconds = run([options.potstill, *arguments, "--json", "--quiet"])
    return json.loads(out), seconds


def perplexities(folder):
    found = []
    for text in filter(None, options.valid.split(",")):
        result, _ = potstill("perplexity", "--model", folder, "--text", text, "--context", 512, "--limit-tokens", 16384, "--dtype", "fp32")
        found.append(result["perplexity"])
    return found


def ours(name, folder):
    manifest, seconds = potstill("quantize", "--model", options.model, "--group-size", 64, "--sequences", options.sequences,
                                 "--sequence-length", options.length, "--calibration", options.text, "--out", folder, *OURS[name])
    return {"seconds": seconds, "peak_mb": manifest["measured"]["peak_rss_bytes"] / 1e6, "note": ""}


def peer(name, plain, folder):
    who, dtype, order = PEERS[name]
    python = os.path.abspath(options.python_gptqmodel if who == "gptqmodel" else options.python_llmcompressor)
    counts = [int(n) for n in options.peer_sequences.split(",")] if options.peer_sequences else [options.sequences]
    points = []
    for count in counts:
        out, _ = run([python, script, who, "--model", plain, "--text", os.path.abspath(options.text), "--dtype", dtype, "--order", order, "--sequences", count,
                      "--length", options.length, "--out", folder], pathlib.Path(folder).parent)  # GPTQModel leaves logs where it runs
        points.append(json.loads(out.strip().splitlines()[-1]))
    last = points[-1]
    if last["sequences"] == options.sequences:
        return {"seconds": last["seconds"], "peak_mb": last["peak_mb"], "note": ""}
    first = points[0]
    slope = (last["seconds"] - first["seconds"]) / (last["sequences"] - first["sequences"])
    return {"seconds": last["seconds"] + slope * (options.sequences - last["sequences"]), "peak_mb": last["peak_mb"],
            "note": f"time by the line through {counts[0]} and {counts[-1]} windows; memory and perplexity with {counts[-1]}"}


def compare():
    wanted = options.only.split(",") if options.only else ["ours-standard", "ours-best", "gptqmodel", "llmcompressor", "llmcompressor-static"]
    rows = {}
    with tempfile.TemporaryDirectory() as work:
        plain = f"{work}/plain"
        if any(name in PEERS for name in wanted):
            potstill("export", "--model", options.model, "--format", "safetensors", "--out", plain)
        for name in wanted:
            folder = f"{work}/{name}"
            rows[name] = ours(name, folder) if name in OURS else peer(name, plain, folder)
            rows[name]["perplexity"] = perplexities(folder)
            print(json.dumps({name: rows[name]}), flush=True)
    def fastest(dtype):
        return min((row["seconds"] for name, row in rows.items() if name in PEERS and PEERS[name][1] == dtype), default=None)

    print(f"\n{'':24s}{'seconds':>9s}{'of the faster peer':>20s}{'peak MB':>9s}  perplexity {options.valid}")
    for name, row in rows.items():
        peer_seconds = fastest(PEERS[name][1] if name in PEERS else "bf16" if name.endswith("-bf16") else "fp32")
        share = f"{row['seconds'] / peer_seconds:.2f}" if peer_seconds else ""
        print(f"{name:24s}{row['seconds']:9.1f}{share:>20s}{row['peak_mb']:9.0f}  {' / '.join(f'{p:.2f}' for p in row['perplexity'])}  {row['note']}")


def write_wide_model(folder, tokenizer_of):
    """One decoder layer of seeded random weights behind the tokenizer of another model; float16."""
    import numpy as np

    width, inner, heads, kv, table = 3072, 8192, 24, 8, json.load(open(f"{tokenizer_of}/config.json"))["vocab_size"]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        pathlib.Path(folder, name).write_bytes(pathlib.Path(tokenizer_of, name).read_bytes())
    pathlib.Path(folder, "config.json").write_text(json.dumps({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": 1,
        "num_attention_heads": heads, "num_key_value_heads": kv, "head_dim": 128, "vocab_size": table, "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0, "max_position_embeddings": 8192, "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2,
        "hidden_act": "silu", "torch_dtype": "float16"}))
    layer = "model.layers.0."
    shapes = {"model.embed_tokens.weight": (table, width), "model.norm.weight": (width,), layer + "input_layernorm.weight": (width,),
              layer + "post_attention_layernorm.weight": (width,), layer + "self_attn.q_proj.weight": (heads * 128, width),
              layer + "self_attn.k_proj.weight": (kv * 128, width), layer + "self_attn.v_proj.weight": (kv * 128, width),
              layer + "self_attn.o_proj.weight": (width, heads * 128), layer + "mlp.gate_proj.weight": (inner, width),
              layer + "mlp.up_proj.weight": (inner, width), layer + "mlp.down_proj.weight": (width, inner)}
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    random = np.random.default_rng(0)
    with open(f"{folder}/model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            values = np.ones(shape, np.float16) if len(shape) == 1 else (random.standard_normal(shape, np.float32) * 0.02).astype(np.float16)
            file.write(values.tobytes())


def machine_gflops():
    import numpy as np

    a = np.random.default_rng(0).standard_normal((2048, 2048), np.float32)
    a @ a
    start = time.monotonic()
    for _ in range(5):
        a @ a
    return 5 * 2 * 2048**3 / (time.monotonic() - start) / 1e9


def wide():
    tokens = options.wide_sequences * options.length
    with tempfile.TemporaryDirectory() as work:
        potstill("export", "--model", options.model, "--format", "safetensors", "--out", f"{work}/plain")
        model = pathlib.Path(work, "wide")
        model.mkdir()
        write_wide_model(model, f"{work}/plain")
        manifest, seconds = potstill("quantize", "--model", model, "--group-size", 128, "--sequences", options.wide_sequences,
                                     "--sequence-length", options.length, "--calibration", options.text, "--out", f"{work}/out")
        rows = [json.loads(line) for line in open(f"{work}/out/layer_errors.jsonl")]
    phases = {p: sum(r["seconds_" + p] for r in rows) for p in ("forward", "hessian", "factor", "codes")}
    width, inner, q, kv = 3072, 8192, 3072, 1024
    weights = width * (2 * q + 2 * kv + 3 * inner)
    batch = min(tokens, 4096)
    # one pass over the corpus, the first batch of the unquantized model, attention's two products (causal: half)
    flops = {"forward": 2 * weights * (tokens + batch) + 2 * options.length * q * (tokens + batch),
             "hessian": 2 * tokens * sum(k * k * 0.6 for k in (width, q, width, inner)),
             "factor": sum(2 * k**3 / 3 for k in (width, q, width, inner)),
             "codes": sum(o * k * (k + 128) for o, k in ((q + 2 * kv, width), (width, q), (2 * inner, width), (width, inner)))}
    peak = machine_gflops()
    print(f"one layer like Llama-3.2-3B's, {tokens} tokens, peak {manifest['measured']['peak_rss_bytes'] / 1e9:.2f} GB; numpy multiplies fp32 at "
          f"{peak:.0f} GFLOP/s here")
    for name, spent in phases.items():
        rate = flops[name] / spent / 1e9
        print(f"  {name:8s}{spent:8.1f} s{rate:8.0f} GFLOP/s{100 * rate / peak:6.0f} %{'  (in double)' if name == 'factor' else ''}")
    scale = options.sequences / options.wide_sequences
    layer = (phases["forward"] + phases["hessian"]) * scale + phases["factor"] + phases["codes"]
    remedies = sum(r["seconds_remedies"] for r in rows)
    other = sum(r["seconds"] for r in rows) - sum(phases.values()) - remedies
    print(f"  {'errors':8s}{other:8.1f} s")
    print(f"  {'remedies':8s}{remedies:8.1f} s (once a model, about: what would help its worst modules)")
    hidden = 4 * options.sequences * options.length * width / 1e9
    print(f"{options.sequences} x {options.length} tokens: {layer + other:.0f} s a layer, 28 layers {(28 * (layer + other) + remedies) / 60:.0f} min; memory "
          f"{manifest['measured']['peak_rss_bytes'] / 1e9 + hidden - 4 * tokens * width / 1e9:.1f} GB (this run's peak and the hidden states of the rest)")
    print(f"whole command here: {seconds:.0f} s")


os.environ.setdefault("HF_HUB_OFFLINE", "1")
wide() if options.wide else compare()
