#!/usr/bin/env python3
"""llm-compressor's GPTQ kernel against the codes that tests/golden/quant/gptq.json holds (and that ours equals).

Needs torch, transformers, compressed-tensors and llmcompressor 0.14 (--no-deps is enough: only its GPTQ modules are
imported). Both get the same weights, Hessian and scales; static activation order; every code must agree.

    python tests/interop/gptq_llmcompressor.py
"""
import importlib.util
import json
import pathlib
import sys
import types

import numpy as np
import torch

HERE = pathlib.Path(__file__).resolve().parent
GOLDEN = HERE.parent / "golden" / "quant"


def import_without_init(package):
    """Registers a package without running its __init__ (which wants datasets and more)."""
    spec = importlib.util.find_spec(package)
    module = types.ModuleType(package)
    module.__path__ = list(spec.submodule_search_locations)
    sys.modules[package] = module


for name in ("llmcompressor", "llmcompressor.modifiers", "llmcompressor.modifiers.gptq"):
    import_without_init(name)
from compressed_tensors.quantization import QuantizationArgs  # noqa: E402
from llmcompressor.modifiers.gptq.gptq_quantize import quantize_weight  # noqa: E402

sys.path.insert(0, str(GOLDEN))
import gptq as reference  # noqa: E402  the generator of the inputs

golden = json.loads((GOLDEN / "gptq.json").read_text())
case = next(c for c in golden["cases"] if (c["method"], c["order"], c["clip"], c["symmetric"]) == ("gptq", "static", "none", True))
weight, inputs = reference.draw(golden["seed"])
hessian = torch.tensor(inputs.T @ inputs / golden["tokens"], dtype=torch.float32)
scales = torch.tensor(case["scales"], dtype=torch.float32)
args = QuantizationArgs(num_bits=4, type="int", symmetric=True, strategy="group", group_size=golden["group_size"], actorder="static")
quantized, _, fallback = quantize_weight(
    torch.tensor(weight, dtype=torch.float32)[None], hessian[None], scales[None], torch.zeros_like(scales)[None].to(torch.int8),
    None, args, percdamp=golden["damp"])
assert not fallback.any(), "llm-compressor fell back to rounding"
theirs = torch.round(quantized[0] / scales.repeat_interleave(golden["group_size"], 1)).numpy()
ours = np.array([[int(c, 16) - 8 for c in row] for row in case["codes"]])
different = int((theirs != ours).sum())
print(f"{different} of {ours.size} codes differ")
sys.exit(different != 0)
