#!/usr/bin/env bash
# llama.cpp's converter reads our GPTQ folders (both versions) to the weights that we dequantize ourselves, bit for bit.
#
#   tests/interop/gptq_folder.sh POTSTILL QUANTIZED_FOLDER CONVERTER [PYTHON]
#
# CONVERTER is llama.cpp's convert_hf_to_gguf.py; PYTHON has torch, transformers, safetensors and gguf.
set -euo pipefail
potstill=$1 folder=$2 converter=$3 python=${4:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$potstill" export --model "$folder" --format safetensors --out "$work/plain" >/dev/null
for format in gptq gptq-v2; do
  "$potstill" export --model "$folder" --format $format --out "$work/$format" >/dev/null
  "$python" "$converter" "$work/$format" --outtype f32 --outfile "$work/$format.gguf" >/dev/null 2>&1
  "$python" - "$work/plain" "$work/$format.gguf" <<'EOF'
import glob, sys
import numpy as np
from gguf import GGUFReader
from safetensors.numpy import load_file

plain = {}
for name in glob.glob(sys.argv[1] + "/*.safetensors"):
    plain.update(load_file(name))
theirs = {t.name: t for t in GGUFReader(sys.argv[2]).tensors}
# q and k are left out: the converter reorders their rows
names = {"self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate",
         "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
compared = 0
for ours, name in names.items():
    for layer in range(1000):
        key = f"model.layers.{layer}.{ours}.weight"
        if key not in plain:
            break
        data = theirs[f"blk.{layer}.{name}.weight"].data.reshape(plain[key].shape)
        if not np.array_equal(data, plain[key]):
            sys.exit(f"{key}: {np.abs(data - plain[key]).max()} apart")
        compared += 1
if compared == 0:
    sys.exit("no weight was compared")
print(f"{compared} linears equal")
EOF
done
