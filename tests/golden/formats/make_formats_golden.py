#!/usr/bin/env python3
"""Writes the files of this folder with the formats' own packages, seed 11:

    small.safetensors, small.gguf     every element and value type that is read, by safetensors 0.8.0 and gguf 0.19.0
    blocks.safetensors                rows, their Q4_0, Q4_1 and Q8_0 blocks by gguf's quantizers, and what those decode to
    configs.json                      config.json of transformers 5.23.0's classes with its RoPE frequencies
    packed_*/                         pack-quantized linears by compressed-tensors 0.20.0, and their weights as it decodes them
    peft_adapter/                     a LoRA adapter saved by peft 0.21.2
"""
import json
import pathlib
import shutil

import gguf
import numpy as np
import torch
from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, Qwen2Config, Qwen3Config
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

HERE = pathlib.Path(__file__).parent
torch.manual_seed(11)
rng = np.random.default_rng(11)


def make_safetensors():
    tensors = {
        "f64": torch.randn(2, 3, dtype=torch.float64), "f32": torch.randn(3, 2), "f16": torch.randn(5).half(),
        "bf16": torch.randn(1, 7).bfloat16(), "i64": torch.tensor([-1, 2**40]), "i32": torch.tensor([-7], dtype=torch.int32),
        "i16": torch.tensor([[300, -300]], dtype=torch.int16), "i8": torch.tensor([-128, 127], dtype=torch.int8),
        "u8": torch.tensor([0, 255, 7], dtype=torch.uint8), "bool": torch.tensor([True, False, True]),
        "scalar": torch.tensor(1.5), "empty": torch.zeros(0, 4), "näme \"quoted\"": torch.ones(1),
    }
    save_file(tensors, HERE / "small.safetensors", metadata={"format": "pt"})


def make_blocks():
    rows = rng.standard_normal((24, 64)).astype(np.float32) * np.float32(0.1)
    rows[0] = 0
    rows[1, :32] = 1.0
    rows[2] = np.linspace(-1, 1, 64, dtype=np.float32)
    rows[3] *= 1e-7  # scales that are subnormal fp16
    rows[4, 5] = 900.0
    rows[5] = np.float32(0.5) * rng.integers(-8, 8, 64).astype(np.float32)  # ties at halves
    out = {"rows": torch.from_numpy(rows)}
    for name in ("Q4_0", "Q4_1", "Q8_0", "F16", "BF16"):
        kind = gguf.GGMLQuantizationType[name]
        stored = gguf.quantize(rows, kind)
        out[name] = torch.from_numpy(stored.view(np.uint8).reshape(rows.shape[0], -1).copy())
        out[name + ".decoded"] = torch.from_numpy(gguf.dequantize(stored, kind).astype(np.float32).copy())
    save_file(out, HERE / "blocks.safetensors", metadata={"format": "pt"})


def make_gguf():
    writer = gguf.GGUFWriter(str(HERE / "small.gguf"), "llama")
    writer.add_uint8("k.u8", 200)
    writer.add_int8("k.i8", -100)
    writer.add_uint16("k.u16", 60000)
    writer.add_int16("k.i16", -30000)
    writer.add_uint32("k.u32", 4000000000)
    writer.add_int32("k.i32", -2000000000)
    writer.add_float32("k.f32", 1e-5)
    writer.add_bool("k.bool", True)
    writer.add_string("k.string", "Grüße\n")
    writer.add_uint64("k.u64", 2**63 + 5)
    writer.add_int64("k.i64", -2**62)
    writer.add_float64("k.f64", 0.1)
    writer.add_array("k.strings", ["a", "", "\u0120b"])
    writer.add_array("k.ints", [1, -2, 3])
    writer.add_array("k.floats", [0.5, -2.0])
    writer.add_array("k.bools", [True, False])
    rows = rng.standard_normal((3, 64)).astype(np.float32)
    writer.add_tensor("f32", rows)
    writer.add_tensor("f16", rows[:, :7].astype(np.float16))
    writer.add_tensor("i32", np.arange(5, dtype=np.int32))
    for name in ("BF16", "Q8_0", "Q4_0", "Q4_1"):
        kind = gguf.GGMLQuantizationType[name]
        writer.add_tensor(name.lower(), gguf.quantize(rows, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_configs():
    size = dict(vocab_size=320, hidden_size=96, intermediate_size=160, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2)
    llama3 = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192, "rope_theta": 500000.0}
    cases = {
        "llama": LlamaConfig(**size, tie_word_embeddings=True, bos_token_id=1, eos_token_id=[2, 3], dtype="bfloat16"),
        "llama3": LlamaConfig(**size, head_dim=128, max_position_embeddings=131072, rms_norm_eps=1e-5, rope_parameters=llama3, attention_bias=True, mlp_bias=True),
        "linear": LlamaConfig(**size, rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}),
        "mistral": MistralConfig(**size, sliding_window=None),
        "mistral_window": MistralConfig(**size, sliding_window=64),
        "qwen2": Qwen2Config(**size, rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}),
        "qwen3": Qwen3Config(**size),
    }
    out = {}
    for name, config in cases.items():
        inv_freq = LlamaRotaryEmbedding(config).inv_freq
        old = config.to_dict()  # the spelling of transformers 4
        rope = old.pop("rope_parameters")
        old["rope_theta"] = rope.pop("rope_theta")
        old["rope_scaling"] = None if rope["rope_type"] == "default" else rope
        old["torch_dtype"] = old.pop("dtype", None)
        out[name] = {"config": json.loads(config.to_json_string(use_diff=False)), "config_4x": json.loads(json.dumps(old, default=str)),
                     "inverse_frequencies": inv_freq.double().tolist()}
    (HERE / "configs.json").write_text(json.dumps(out, indent=0) + "\n")


def make_packed(folder, symmetric, strategy, scale_dtype, out_features, in_features):
    path = HERE / folder
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    group = 32 if strategy == "group" else None
    args = QuantizationArgs(num_bits=4, type="int", symmetric=symmetric, strategy=strategy, group_size=group)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    config = QuantizationConfig(config_groups={"group_0": scheme}, format="pack-quantized", quantization_status="compressed", ignore=["lm_head"])
    groups = in_features // group if group else 1
    weight = torch.randn(out_features, in_features, dtype=torch.float32) * 0.1
    scale = (torch.rand(out_features, groups) * 0.02 + 0.01).to(scale_dtype)
    zero = torch.zeros(out_features, groups, dtype=torch.int8) if symmetric else torch.randint(-8, 8, (out_features, groups), dtype=torch.int8)
    state = PackedQuantizationCompressor.compress({"weight": weight.to(scale_dtype), "weight_scale": scale, "weight_zero_point": zero}, scheme)
    decoded = PackedQuantizationCompressor.decompress(dict(state), scheme)["weight"]
    save_file({f"layer.proj.{k}": v.contiguous() for k, v in state.items()} | {"norm.weight": torch.ones(4)}, path / "model.safetensors", metadata={"format": "pt"})
    save_file({"decoded": decoded.contiguous()}, HERE / f"{folder}.decoded.safetensors", metadata={"format": "pt"})
    (path / "config.json").write_text(json.dumps({"quantization_config": config.model_dump(mode="json") | {"quant_method": "compressed-tensors"}}, indent=1) + "\n")


def make_adapter():
    model = LlamaForCausalLM(LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1))
    lora = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.05, target_modules=["q_proj", "down_proj"], rank_pattern={"down_proj": 2}, alpha_pattern={"down_proj": 6}, task_type="CAUSAL_LM", init_lora_weights=False)
    adapted = get_peft_model(model, lora)
    shutil.rmtree(HERE / "peft_adapter", ignore_errors=True)
    adapted.save_pretrained(HERE / "peft_adapter")
    (HERE / "peft_adapter/README.md").unlink(missing_ok=True)


if __name__ == "__main__":
    make_safetensors()
    make_blocks()
    make_gguf()
    make_configs()
    make_packed("packed_symmetric", True, "group", torch.float16, 6, 64)
    make_packed("packed_asymmetric", False, "group", torch.bfloat16, 10, 96)
    make_packed("packed_channel", True, "channel", torch.float16, 5, 20)
    make_adapter()
