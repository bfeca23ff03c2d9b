"""Reference logits of transformers for nn_test: SmolLM2-135M-Instruct out of its GGUF, and tiny seeded models of each
family as Hugging Face folders.

Made with torch 2.15.0, transformers 5.23.0, safetensors, float32 on a CPU:
  python tests/golden/nn/make_golden.py [folder of SmolLM2-135M-Instruct.Q4_1.gguf]
Each file has the token ids of two sequences, and for each the logits at some positions: a slice of the vocabulary and
the logsumexp over all of it. The tiny models' weights are float16 values, so the files are small and exact.
"""

import json
import pathlib
import sys

import torch
from transformers import (AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, MistralConfig,
                          MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

HERE = pathlib.Path(__file__).parent
TEXTS = ["Water boils at 100 degrees Celsius at sea level. On a high mountain the air is thinner, so it boils sooner, "
         "and an egg needs more minutes in the pot. A lid keeps the steam in: 3 cups of rice cook faster under it.",
         "def area(radius):\n    return 3.14159 * radius ** 2\n"]


def reference(model, sequences, positions, vocabulary):
    entries = []
    for ids, at in zip(sequences, positions):
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0].float()
        entries.append({"token_ids": ids,
                        "positions": at,
                        "logits": [[float(f"{x:.9g}") for x in logits[t, vocabulary].tolist()] for t in at],
                        "logsumexp": [float(f"{torch.logsumexp(logits[t].double(), 0).item():.9g}") for t in at]})
    return entries


def write(name, entries, vocabulary):
    (HERE / f"{name}.json").write_text(json.dumps({"vocabulary": vocabulary, "sequences": entries}) + "\n")


def tiny_models():
    small = dict(vocab_size=48, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
                 num_key_value_heads=2, head_dim=8, max_position_embeddings=128, initializer_range=0.4, bos_token_id=1,
                 eos_token_id=2)
    llama3_rope = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
                   "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
    return {
        "tiny_llama": (LlamaForCausalLM, LlamaConfig(**small, rope_parameters=llama3_rope, tie_word_embeddings=True)),
        "tiny_mistral": (MistralForCausalLM, MistralConfig(**small, sliding_window=7, rms_norm_eps=1e-5)),
        "tiny_qwen2": (Qwen2ForCausalLM, Qwen2Config(**{k: v for k, v in small.items() if k != "head_dim"},
                                                     tie_word_embeddings=False)),
        "tiny_qwen3": (Qwen3ForCausalLM, Qwen3Config(**small, tie_word_embeddings=True)),
    }


def main():
    for name, (model_class, config) in tiny_models().items():
        torch.manual_seed(11)
        config._attn_implementation = "eager"
        model = model_class(config).float().eval()
        with torch.no_grad():
            for parameter in model.parameters():  # norms and biases too, or a forgotten one would not be seen
                if parameter.dim() == 1:
                    parameter.add_(torch.randn_like(parameter) * 0.3)
                parameter.copy_(parameter.half().float())
        generator = torch.Generator().manual_seed(5)
        sequences = [torch.randint(0, 48, (n,), generator=generator).tolist() for n in (40, 9)]
        vocabulary = list(range(48))
        write(name, reference(model, sequences, [[0, 6, 20, 39], [0, 8]], vocabulary), vocabulary)
        folder = HERE / name  # saved last: half() rounds the RoPE frequencies too
        model.half().save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        print(name, sum(f.stat().st_size for f in folder.iterdir()), "bytes")

    if len(sys.argv) > 1:
        gguf = dict(gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf")
        model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32, **gguf).eval()
        tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], **gguf)
        sequences = [tokenizer(text).input_ids for text in TEXTS]
        vocabulary = list(range(0, 49152, 251))
        write("smollm2", reference(model, sequences, [[0, 17, len(sequences[0]) - 1], [0, len(sequences[1]) - 1]],
                                   vocabulary), vocabulary)


main()
