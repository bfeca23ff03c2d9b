"""Error of every linear of quantized models on a text, the unquantized model's inputs for all: ‖(W−Q)X‖ / ‖WX‖, by PyTorch alone.

    python bench/quantize/layers.py --plain FOLDER --text other.txt rtn=FOLDER standard=FOLDER best=FOLDER

FOLDERs are plain safetensors (`potstill export --format safetensors`). The first is what the others are compared with: it prints in how many
linears each other has a smaller error, the ones that have not, and the mean error.
"""

import argparse
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

parser = argparse.ArgumentParser()
parser.add_argument("--plain", required=True)
parser.add_argument("--text", required=True)
parser.add_argument("--tokens", type=int, default=8192)
parser.add_argument("--length", type=int, default=512)
parser.add_argument("models", nargs="+", help="NAME=FOLDER")
options = parser.parse_args()

torch.set_grad_enabled(False)
torch.set_num_threads(len(os.sched_getaffinity(0)))
model = AutoModelForCausalLM.from_pretrained(options.plain, dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained(options.plain)
ids = tokenizer(open(options.text, encoding="utf-8").read(), add_special_tokens=False)["input_ids"][: options.tokens]
hessians = {}


def keep(name):
    def hook(module, inputs):
        x = inputs[0].flatten(0, -2)
        hessians[name] = hessians.get(name, 0) + (x.T @ x).double()

    return hook


linears = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and name != "lm_head"}
for name, module in linears.items():
    module.register_forward_pre_hook(keep(name))
for begin in range(0, len(ids) - options.length + 1, options.length):
    model(torch.tensor([ids[begin : begin + options.length]]))


def errors(folder):
    found = {}
    shards = [f for f in os.listdir(folder) if f.endswith(".safetensors")]
    for shard in shards:
        with safe_open(os.path.join(folder, shard), "pt") as file:
            for key in file.keys():
                name = key.removesuffix(".weight")
                if name not in linears:
                    continue
                w, h = linears[name].weight.double(), hessians[name]
                d = w - file.get_tensor(key).double()
                found[name] = (((d @ h) * d).sum() / ((w @ h) * w).sum()).sqrt().item()
    if set(found) != set(linears):
        raise SystemExit(f"{folder}: holds {len(found)} of {len(linears)} linears")
    return found


tables = {name: errors(folder) for name, folder in (m.split("=", 1) for m in options.models)}
first, *others = tables
print(f"{len(linears)} linears, {len(ids)} tokens of {options.text}\n{first}: mean error {sum(tables[first].values()) / len(linears):.4f}")
for name in others:
    worse = [n for n in linears if tables[name][n] >= tables[first][n]]
    ratios = sorted(tables[name][n] / tables[first][n] for n in linears)
    print(f"{name}: mean error {sum(tables[name].values()) / len(linears):.4f}; smaller than {first}'s in {len(linears) - len(worse)} linears; "
          f"ratio {ratios[0]:.3f} to {ratios[-1]:.3f}, median {ratios[len(ratios) // 2]:.3f}")
    for n in worse:
        print(f"    {n}: {tables[name][n]:.4f} where {first} has {tables[first][n]:.4f}")
