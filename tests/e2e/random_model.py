"""A Llama of random weights as a Hugging Face folder, for tests that need a size and not a mind."""

import json
import pathlib
import random
import struct


def weights(hidden, inner, heads, kv_heads, layers, vocabulary):
    kv = hidden // heads * kv_heads
    yield "model.embed_tokens.weight", [vocabulary, hidden]
    yield "model.norm.weight", [hidden]
    for i in range(layers):
        prefix = f"model.layers.{i}."
        for name, shape in (("input_layernorm", [hidden]), ("post_attention_layernorm", [hidden]), ("self_attn.q_proj", [hidden, hidden]),
                            ("self_attn.k_proj", [kv, hidden]), ("self_attn.v_proj", [kv, hidden]), ("self_attn.o_proj", [hidden, hidden]),
                            ("mlp.gate_proj", [inner, hidden]), ("mlp.up_proj", [inner, hidden]), ("mlp.down_proj", [hidden, inner])):
            yield f"{prefix}{name}.weight", shape


def write_random_model(folder, tokenizer, *, hidden, inner, heads, kv_heads, layers, vocabulary):
    """bf16, tied; tokenizer: a folder to copy tokenizer.json and tokenizer_config.json from. Returns the bytes of weights."""
    folder = pathlib.Path(folder)
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes(pathlib.Path(tokenizer, name).read_bytes())
    json.dump({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "intermediate_size": inner,
               "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": hidden // heads,
               "vocab_size": vocabulary, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
               "tie_word_embeddings": True, "torch_dtype": "bfloat16", "bos_token_id": 257, "eos_token_id": 259}, open(folder / "config.json", "w"))
    shapes = list(weights(hidden, inner, heads, kv_heads, layers, vocabulary))
    header, offset = {}, 0
    for name, shape in shapes:
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
        for name, _ in shapes:
            size = header[name]["data_offsets"][1] - header[name]["data_offsets"][0]
            if "norm" in name:
                file.write(struct.pack("<H", 0x3F80) * (size // 2))
            else:
                for begin in range(0, size, len(block)):
                    file.write(block[: size - begin])
    return offset
