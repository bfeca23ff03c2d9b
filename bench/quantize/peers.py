"""One peer's quantizer on the same model, text and sizes as ours; prints one JSON line with what it took.

    python bench/quantize/peers.py gptqmodel|llmcompressor --model FOLDER --text FILE --out DIR [--dtype fp32|bf16]

FOLDER is the model as safetensors (`potstill export --format safetensors`). Windows of --length tokens that do not overlap,
--sequences of them drawn by a fixed seed. Each peer runs with its own defaults for W4 symmetric groups, but for what the
flags say; static order by the activations is asked of both with --order static.
"""

import argparse
import json
import os
import random
import resource
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("who", choices=["gptqmodel", "llmcompressor", "llmcompressor-awq"])
parser.add_argument("--model", required=True)
parser.add_argument("--text", required=True)
parser.add_argument("--out", required=True)
parser.add_argument("--dtype", default="fp32", choices=["fp32", "bf16"])
parser.add_argument("--order", default="none", choices=["none", "static"])
parser.add_argument("--group-size", type=int, default=64)
parser.add_argument("--sequences", type=int, default=128)
parser.add_argument("--length", type=int, default=512)
options = parser.parse_args()

threads = str(len(os.sched_getaffinity(0)))
os.environ.setdefault("GPTQMODEL_CPU_WORKERS", threads)
os.environ.setdefault("OMP_NUM_THREADS", threads)
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

torch.set_num_threads(int(threads))
dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[options.dtype]
tokenizer = AutoTokenizer.from_pretrained(options.model)
ids = tokenizer(open(options.text, encoding="utf-8").read(), add_special_tokens=False)["input_ids"]
windows = [ids[i:i + options.length] for i in range(0, len(ids) - options.length + 1, options.length)]
random.Random(0).shuffle(windows)
windows = windows[:options.sequences]


def quantize_gptqmodel():
    from gptqmodel import GPTQModel, QuantizeConfig

    config = QuantizeConfig(bits=4, group_size=options.group_size, sym=True, desc_act=False, act_group_aware=False, device="cpu")
    model = GPTQModel.load(options.model, config, dtype=dtype)
    start = time.monotonic()
    model.quantize([{"input_ids": torch.tensor([w]), "attention_mask": torch.ones(1, len(w), dtype=torch.long)} for w in windows],
                   batch_size=1)
    seconds = time.monotonic() - start
    model.save(options.out)
    return seconds


def quantize_llmcompressor():
    from datasets import Dataset
    from llmcompressor import oneshot

    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": options.group_size}
    scheme = {"group_0": {"targets": ["Linear"], "weights": weights}}
    if options.who.endswith("awq"):
        from llmcompressor.modifiers.quantization import QuantizationModifier
        from llmcompressor.modifiers.transform.awq import AWQModifier
        recipe = [AWQModifier(), QuantizationModifier(config_groups=scheme, ignore=["lm_head"])]
    else:
        from llmcompressor.modifiers.quantization import GPTQModifier
        weights["actorder"] = "static" if options.order == "static" else None
        recipe = GPTQModifier(config_groups=scheme, ignore=["lm_head"])
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype)
    data = Dataset.from_dict({"input_ids": windows, "attention_mask": [[1] * len(w) for w in windows]})
    start = time.monotonic()
    oneshot(model=model, processor=tokenizer, dataset=data, recipe=recipe, max_seq_length=options.length, num_calibration_samples=len(windows))
    seconds = time.monotonic() - start
    model.save_pretrained(options.out, save_compressed=True)
    tokenizer.save_pretrained(options.out)
    return seconds


seconds = quantize_gptqmodel() if options.who == "gptqmodel" else quantize_llmcompressor()
# the model itself is loaded in the peak, as it is in ours
print("\n" + json.dumps({"who": options.who, "dtype": options.dtype, "order": options.order, "sequences": len(windows),
                         "seconds": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000}))
sys.stdout.flush()
os._exit(0)  # some peers' worker threads do not end
