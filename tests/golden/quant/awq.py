#!/usr/bin/env python3
"""Writes awq.json: the scales that llm-compressor's AWQModifier finds for a one-layer Llama, mapping by mapping.

llmcompressor 0.14.0.1, compressed-tensors 0.20.0, transformers 5.23, torch 2.15 in fp32 on a CPU, asymmetric grids (a symmetric one has
its extremes halfway between two codes, where an ulp decides). Weights and tokens are
not stored: both sides draw them from the generator of gptq.py. The best candidate must beat the others by 0.1 % (asserted), so
that the order of float32 sums cannot change it.

    python tests/golden/quant/awq.py
"""
import json
import pathlib
import sys
import tempfile

import torch
from compressed_tensors.quantization import QuantizationScheme  # noqa: F401  (fails early without the package)
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

torch.Tensor.pin_memory = lambda self: self  # it pins memory even where there is no GPU
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from gptq import Lcg  # noqa: E402

HIDDEN, INTERMEDIATE, HEADS, VOCABULARY, GROUP = 64, 96, 4, 128, 32
SEQUENCES, LENGTH, SEED = 4, 48, 5


def matrix(lcg, rows, columns, size):
    return torch.tensor([[lcg.uniform() * abs(lcg.uniform()) * size for _ in range(columns)] for _ in range(rows)])


def draw(model, seed):
    """In this order: table, norms, linears in the order of q k v o gate up down, tokens."""
    lcg = Lcg(seed)
    layer = model.model.layers[0]
    model.model.embed_tokens.weight.data = matrix(lcg, VOCABULARY, HIDDEN, 2.0)
    for norm in (layer.input_layernorm, layer.post_attention_layernorm):
        norm.weight.data = torch.tensor([0.5 + 3.0 * lcg.uniform() ** 4 for _ in range(HIDDEN)])
    attention, mlp = layer.self_attn, layer.mlp
    for linear in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj):
        linear.weight.data = matrix(lcg, *linear.weight.shape, 0.3)
    return [[int((lcg.uniform() + 1) * 64) for _ in range(LENGTH)] for _ in range(SEQUENCES)]


def main():
    config = LlamaConfig(hidden_size=HIDDEN, intermediate_size=INTERMEDIATE, num_hidden_layers=1, num_attention_heads=HEADS,
                         num_key_value_heads=HEADS, vocab_size=VOCABULARY, max_position_embeddings=64, rope_theta=10000.0,
                         rms_norm_eps=1e-5, tie_word_embeddings=False)
    with tempfile.TemporaryDirectory() as folder:  # oneshot wants a model that has a place
        LlamaForCausalLM(config).save_pretrained(folder)
        golden = search(LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval())
    (HERE / "awq.json").write_text(json.dumps(golden) + "\n")
    for mapping in golden["mappings"]:
        print(mapping["smooth"], [f"{loss:.4g}" for loss in mapping["losses"]])


def search(model):
    tokens = draw(model, SEED)
    found = []
    original = AWQModifier._compute_best_scale

    def record(self, mapping, outputs, weights):
        losses = []
        compute = AWQModifier._compute_loss
        AWQModifier._compute_loss = lambda inner, a, b: losses.append(compute(inner, a, b)) or losses[-1]
        x_sum, count = self._smooth_activation_stats[mapping.smooth_name]
        scales = original(self, mapping, outputs, weights)
        AWQModifier._compute_loss = compute
        best = min(losses)
        others = sorted(losses)
        assert others[1] > best * 1.001, (mapping.smooth_name, others[:3])
        found.append({"smooth": mapping.smooth_name.split(".")[-1], "losses": losses, "scales": scales.tolist(),
                      "mean_magnitude": (x_sum / count).tolist()})
        return scales

    AWQModifier._compute_best_scale = record
    weights = {"num_bits": 4, "type": "int", "symmetric": False, "strategy": "group", "group_size": GROUP}
    scheme = {"group_0": {"targets": ["Linear"], "weights": weights}}
    oneshot(model=model, processor=PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel())), recipe=[AWQModifier(), QuantizationModifier(config_groups=scheme, ignore=["lm_head"])],
            dataset=DataLoader([{"input_ids": torch.tensor(t), "attention_mask": torch.ones(LENGTH, dtype=torch.long)} for t in tokens]),
            max_seq_length=LENGTH, num_calibration_samples=SEQUENCES)
    return {"seed": SEED, "hidden": HIDDEN, "intermediate": INTERMEDIATE, "heads": HEADS, "vocabulary": VOCABULARY, "group_size": GROUP,
              "sequences": SEQUENCES, "length": LENGTH, "mappings": found}


if __name__ == "__main__":
    main()
