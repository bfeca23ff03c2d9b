#!/usr/bin/env python3
"""Our compressed-tensors folder and GGUF, read by the packages of their own projects.

    python tests/interop/compressed_tensors_folder.py POTSTILL FOLDER [FILE.gguf]

FOLDER is what `potstill quantize` wrote, FILE.gguf what `potstill export` made of it. Needs torch, compressed-tensors,
transformers, safetensors, gguf and numpy.
1. compressed-tensors decompresses every linear to exactly scale * code.
2. transformers loads the folder and gives a text the likelihood that ours gives it.
3. gguf-py dequantizes every linear of the GGUF to the same values, q and k in llama.cpp's order of rows.
"""
import json
import pathlib
import subprocess
import sys

import numpy as np
import torch
from safetensors.torch import load_file

ROOT = pathlib.Path(__file__).resolve().parents[2]


def unpack(folder, tensors, group_size):
    """The plain reading of the layout: eight codes a word, lowest bits first, each stored as code + 8."""
    weights = {}
    for name, packed in tensors.items():
        if not name.endswith(".weight_packed"):
            continue
        module = name.removesuffix(".weight_packed")
        rows, columns = tensors[module + ".weight_shape"].tolist()
        words = packed.numpy().view(np.uint32)
        codes = np.stack([(words >> (4 * j)) & 15 for j in range(8)], axis=-1).reshape(rows, -1)[:, :columns].astype(np.int32) - 8
        scales = tensors[module + ".weight_scale"].to(torch.float32).numpy()
        weights[module] = codes.astype(np.float32) * np.repeat(scales, group_size, axis=1)
    return weights


def check_compressed_tensors(folder, config, tensors, weights):
    from compressed_tensors.compressors import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationConfig

    scheme = QuantizationConfig.model_validate(config["quantization_config"]).config_groups["group_0"]
    different = 0
    for module, expected in weights.items():
        state = {key: tensors[f"{module}.{key}"] for key in ("weight_packed", "weight_scale", "weight_shape")}
        state["weight_scale"] = state["weight_scale"].to(torch.float32)  # so that the product is exact
        decompressed = PackedQuantizationCompressor.decompress(state, scheme)["weight"].to(torch.float32).numpy()
        different += int((decompressed != expected).sum())
    print(f"compressed-tensors: {len(weights)} linears, {different} values differ")
    return different == 0


def check_transformers(folder, potstill):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    text = ROOT / "LICENSE"
    ours = json.loads(subprocess.run(
        [potstill, "perplexity", "--model", folder, "--text", text, "--context", "512", "--limit-tokens", "512", "--dtype",
         "fp32", "--json", "--quiet"], check=True, stdout=subprocess.PIPE).stdout)["mean_nll"]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(folder)(text.read_text(), return_tensors="pt").input_ids[:, :512]
    with torch.no_grad():
        log_probs = model(ids).logits[0, :-1].double().log_softmax(-1)
    theirs = -log_probs.gather(1, ids[0, 1:, None]).mean().item()
    print(f"transformers: mean negative log-likelihood of {ids.shape[1] - 1} tokens {theirs:.6f}, potstill {ours:.6f}")
    return abs(theirs - ours) < 1e-4


def check_gguf(file, config, weights):
    import gguf

    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    names = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output", "gate_proj": "ffn_gate",
             "up_proj": "ffn_up", "down_proj": "ffn_down"}
    stored = {t.name: t for t in gguf.GGUFReader(file).tensors}
    different = 0
    for module, expected in weights.items():
        layer, linear = module.split(".")[2], module.split(".")[-1]
        tensor = stored[f"blk.{layer}.{names[linear]}.weight"]
        values = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(expected.shape)
        if linear in heads:  # llama.cpp interleaves the two halves of a head's rows
            n = heads[linear]
            expected = expected.reshape(n, 2, expected.shape[0] // n // 2, -1).swapaxes(1, 2).reshape(expected.shape)
        different += int((values != expected).sum())
    print(f"gguf: {len(weights)} linears, {different} values differ; types {sorted({t.tensor_type.name for t in stored.values()})}")
    return different == 0


def main():
    potstill, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    config = json.loads((folder / "config.json").read_text())
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors.update(load_file(file))
    group_size = config["quantization_config"]["config_groups"]["group_0"]["weights"]["group_size"]
    weights = unpack(folder, tensors, group_size)
    good = [check_compressed_tensors(folder, config, tensors, weights), check_transformers(folder, potstill)]
    if len(sys.argv) > 3:
        good.append(check_gguf(sys.argv[3], config, weights))
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
