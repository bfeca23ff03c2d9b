#!/usr/bin/env python3
"""Adapters made by PEFT are read here: `potstill merge` of each gives the logits that peft gives for base + adapter.

    python tests/interop/peft_made.py BASE POTSTILL

One with PEFT's defaults, one with rsLoRA and a rank pattern over all linears, one over two modules in bf16; and one that potstill
must refuse (DoRA), in words.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

base_folder, potstill = sys.argv[1:3]
tokenizer = AutoTokenizer.from_pretrained(base_folder)
ids = tokenizer("Plants make their own food from sunlight, water and carbon dioxide.", return_tensors="pt")
torch.manual_seed(1)
cases = {
    "defaults": (dict(task_type="CAUSAL_LM"), torch.float32),
    "rslora": (dict(task_type="CAUSAL_LM", r=8, lora_alpha=12, use_rslora=True, target_modules="all-linear",
                    rank_pattern={"down_proj": 4}, alpha_pattern={"o_proj": 20}), torch.float32),
    "bf16": (dict(task_type="CAUSAL_LM", r=4, target_modules=["gate_proj", "k_proj"]), torch.bfloat16),
}
failed = False
with tempfile.TemporaryDirectory() as folder, torch.no_grad():
    work = pathlib.Path(folder)
    for name, (settings, dtype) in cases.items():
        base = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
        plain = base(**ids).logits
        model = get_peft_model(base, LoraConfig(**settings)).eval()
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                parameter.data = (parameter.data + 0.02 * torch.randn_like(parameter)).to(dtype).float()
        adapted = model(**ids).logits
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                parameter.data = parameter.data.to(dtype)
        model.save_pretrained(work / name)
        done = subprocess.run([potstill, "--quiet", "merge", "--model", base_folder, "--adapter", work / name, "--dtype", "fp32", "--out",
                               work / f"{name}-merged"], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"potstill refuses PEFT's adapter '{name}': {done.stderr}")
        merged = AutoModelForCausalLM.from_pretrained(work / f"{name}-merged", dtype=torch.float32)(**ids).logits
        effect, difference = (adapted - plain).abs().max().item(), (adapted - merged).abs().max().item()
        print(f"peft-made adapter '{name}': moves logits by up to {effect:.3f}; peft and potstill's merge differ by at most {difference:.2e}")
        failed = failed or not (effect > 0.01 and difference < 1e-3 * effect + 1e-4)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base_folder), LoraConfig(task_type="CAUSAL_LM", use_dora=True)).save_pretrained(work / "dora")
    done = subprocess.run([potstill, "merge", "--model", base_folder, "--adapter", work / "dora", "--out", work / "x"], capture_output=True, text=True)
    print("DoRA:", done.stderr.strip().splitlines()[0] if done.stderr else "no word")
    failed = failed or done.returncode == 0 or "dora" not in done.stderr.lower()
sys.exit(failed)
