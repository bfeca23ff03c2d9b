#!/usr/bin/env python3
"""peft loads our adapter on transformers' reading of the base, and both give the logits of our merged folder.

    python tests/interop/peft_adapter.py BASE ADAPTER MERGED
"""
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base_folder, adapter_folder, merged_folder = sys.argv[1:4]
tokenizer = AutoTokenizer.from_pretrained(base_folder)
ids = tokenizer("Plants make their own food from sunlight, water and carbon dioxide.", return_tensors="pt")
with torch.no_grad():
    base = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    plain = base(**ids).logits
    adapted = PeftModel.from_pretrained(base, adapter_folder)(**ids).logits
    merged = AutoModelForCausalLM.from_pretrained(merged_folder, dtype=torch.float32)(**ids).logits
effect = (adapted - plain).abs().max().item()
difference = (adapted - merged).abs().max().item()
print(f"peft: the adapter moves logits by up to {effect:.3f}; base + adapter and merged differ by at most {difference:.2e}")
# The merged weights are rounded once to the base's 16 bits: far less than what the adapter does.
sys.exit(0 if effect > 0 and difference < 0.02 * effect else 1)
