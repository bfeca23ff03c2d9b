"""Golden logits for potstill-edge. Packages: torch 2.15.0, transformers 5.23.0, gguf 0.19.0, tokenizers; seed 20 below.

    python make.py [SmolLM2-135M-Instruct.Q4_1.gguf tokenizer.json]

Writes beside itself:
  tiny_{llama,qwen2,qwen3}.gguf  two seeded layers each, in every weight type, with a tokenizer of the bytes and "th"
  tiny_*.json                    their logits by transformers in float64, on the dequantized weights
  smollm2.json                   logits of the real file by transformers in fp32 (only when the paths are given)
"""

import json
import pathlib
import sys

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Type

HERE = pathlib.Path(__file__).parent
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
CHATML = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
          "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
VOCAB = 257 + len(SPECIAL)  # the bytes, "th", the special ones
COMMON = dict(vocab_size=VOCAB, intermediate_size=96, num_hidden_layers=2, max_position_embeddings=512, bos_token_id=257,
              eos_token_id=259, rms_norm_eps=1e-5)


def configs():
    yield "llama", transformers.LlamaConfig(
        hidden_size=64, num_attention_heads=4, num_key_value_heads=2, head_dim=16, tie_word_embeddings=False,
        rope_parameters=dict(rope_type="llama3", rope_theta=500000.0, factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0,
                             original_max_position_embeddings=8192), **COMMON)
    yield "qwen2", transformers.Qwen2Config(
        hidden_size=64, num_attention_heads=4, num_key_value_heads=1, tie_word_embeddings=True,
        rope_parameters=dict(rope_type="default", rope_theta=1000.0), **COMMON)
    yield "qwen3", transformers.Qwen3Config(
        hidden_size=64, num_attention_heads=3, num_key_value_heads=3, head_dim=24, tie_word_embeddings=True,
        rope_parameters=dict(rope_type="default", rope_theta=10000.0), **COMMON)


# The weight types go round over the linears, so that each family meets each type.
TYPES = [Type.Q4_0, Type.Q4_1, Type.Q8_0, Type.F16, Type.BF16, Type.F32]
NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
         "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_norm": "attn_q_norm",
         "self_attn.k_norm": "attn_k_norm"}
TOP = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}


def gguf_name(name):
    if name in TOP:
        return TOP[name]
    _, _, layer, rest = name.split(".", 3)
    module, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{NAMES[module]}.{kind}"


def permute(rows, heads):  # rotate-half order to interleaved pairs: formats.md, section 3.1
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def rounded(value, kind):
    """(bytes as stored, what they decode to)"""
    if kind == Type.F32:
        return value, value
    stored = gguf.quants.quantize(value, kind)
    return stored, gguf.quants.dequantize(stored, kind)


def byte_alphabet():
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


def write_tiny(family, config, rng):
    model = transformers.AutoModelForCausalLM.from_config(config).double().eval()
    arch = family
    path = HERE / f"tiny_{family}.gguf"
    writer = gguf.GGUFWriter(path, arch)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_name(f"tiny {family}")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(head_dim)
    writer.add_vocab_size(VOCAB)
    writer.add_quantization_version(2)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    alphabet = byte_alphabet()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2" if family == "llama" else "qwen2")
    writer.add_token_list([alphabet[b] for b in range(256)] + ["th"] + SPECIAL)
    writer.add_token_types([1] * 257 + [3] * len(SPECIAL))
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(257)
    writer.add_eos_token_id(259)
    writer.add_pad_token_id(260)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHATML)

    if config.rope_parameters["rope_type"] == "llama3":
        p = config.rope_parameters
        frequency = p["rope_theta"] ** -(np.arange(0, head_dim, 2) / head_dim)
        wavelength = 2 * np.pi / frequency
        low, high, original = p["low_freq_factor"], p["high_freq_factor"], p["original_max_position_embeddings"]
        smooth = np.clip((original / wavelength - low) / (high - low), 0, 1)
        writer.add_tensor("rope_freqs.weight", (1 / ((1 - smooth) / p["factor"] + smooth)).astype(np.float32))

    linear = 0
    for name, parameter in model.named_parameters():
        shape = tuple(parameter.shape)
        if len(shape) == 1:
            value = rng.normal(1.0 if "norm" in name else 0.0, 0.2, shape).astype(np.float32)
            stored, decoded, kind = value, value, Type.F32
        else:
            value = rng.normal(0, 1 if "embed" in name else shape[1] ** -0.5, shape).astype(np.float32)
            kind = Type.Q8_0 if "embed" in name else TYPES[linear % len(TYPES)]
            if shape[1] % 32:  # o_proj of qwen3 [64, 72]: no block format can hold it
                kind = Type.F16
            linear += 1
            stored, decoded = rounded(value, kind)
        parameter.data = torch.from_numpy(np.asarray(decoded, np.float64).copy())
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
        if family == "llama" and heads:
            stored = permute(stored, heads)
        writer.add_tensor(gguf_name(name), np.ascontiguousarray(stored), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    tokens = rng.integers(0, VOCAB, 400).tolist()  # far enough for the scaled frequencies to turn
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0]
    positions = [0, 1, 17, 399]
    golden = {"tokens": tokens, "logits": {str(p): [round(v, 6) for v in logits[p].tolist()] for p in positions}}
    (HERE / f"tiny_{family}.json").write_text(json.dumps(golden) + "\n")
    print(family, path.stat().st_size, "bytes; |logits| <=", logits.abs().max().item())


TEXT = ("Water expands when it freezes, so ice floats on a lake. In 1773, the year of the Boston tea party, nobody knew why: "
        "the shape of a molecule was not to be seen for another 150 years.\n\nQuestion: Why does ice float?\nAnswer:")


def write_smollm2(path, tokenizer_path):
    from tokenizers import Tokenizer
    tokens = Tokenizer.from_file(tokenizer_path).encode(TEXT).ids
    path = pathlib.Path(path)
    model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0]
        greedy = model.generate(torch.tensor([tokens]), max_new_tokens=24, do_sample=False)[0, len(tokens):].tolist()
    positions = [0, 5, len(tokens) // 2, len(tokens) - 1]
    ids = list(range(0, logits.shape[1], 97))  # every 97th id stands for the vocabulary
    golden = {"text": TEXT, "tokens": tokens, "ids": ids, "greedy": greedy,
              "logits": {str(p): [round(v, 4) for v in logits[p, ids].tolist()] for p in positions},
              "argmax": {str(p): int(logits[p].argmax()) for p in positions}}
    (HERE / "smollm2.json").write_text(json.dumps(golden) + "\n")
    print("smollm2", len(tokens), "tokens; |logits| <=", logits[positions].abs().max().item())


if __name__ == "__main__":
    torch.manual_seed(20)
    generator = np.random.default_rng(20)
    for name, shape in configs():
        write_tiny(name, shape, generator)
    if len(sys.argv) == 3:
        write_smollm2(sys.argv[1], sys.argv[2])
