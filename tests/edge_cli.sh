#!/usr/bin/env bash
# potstill-edge by its output, on the tiny golden models: results, errors, exit statuses.
set -uo pipefail
binary=$1
golden=$(dirname "$0")/golden/edge
model=$golden/tiny_llama.gguf
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

# expect NAME STATUS PATTERN COMMAND...: the command's exit status, and a pattern in what it prints
expect() {
  local name=$1 status=$2 pattern=$3 output got
  shift 3
  output=$("$@" 2>&1 < "${stdin:-/dev/null}")
  got=$?
  if [ $got -ne "$status" ] || ! grep -qE -- "$pattern" <<< "$output"; then
    printf 'FAILED %s: exit %s (wanted %s), wanted /%s/ in:\n%s\n' "$name" "$got" "$status" "$pattern" "$output" >&2
    failures=$((failures + 1))
  fi
}

expect version 0 'potstill-edge [0-9]' "$binary" --version
expect help 0 'potstill-edge complete student.gguf' "$binary" complete --help
expect json 0 '"prompt_tokens": 3' "$binary" complete "$model" --prompt abc --max-tokens 4 --json
expect bench 0 '"decode_tokens_per_s": [0-9]' "$binary" bench "$model" --prompt 20 --generate 4 --repetitions 1 --threads 2 --json
# A random model at a high temperature writes what the schema says all the same.
schema='{"type": "object", "properties": {"answer": {"enum": ["yes", "no"]}}, "required": ["answer"]}'
echo "$schema" > "$work/schema.json"
for given in "$schema" "$work/schema.json"; do
  expect 'an answer by a schema' 0 '^\{"answer":"(yes|no)"\}$' \
    bash -c '"$1" complete "$2" --prompt a --json-schema "$3" --temperature 2 | tr -d "[:space:]"' - "$binary" "$model" "$given"
done
expect 'an answer that is JSON' 0 '^\{' "$binary" complete "$model" --prompt a --json-object --max-tokens 20
expect 'a schema that cannot be kept' 2 'pattern' "$binary" complete "$model" --prompt a --json-schema '{"type": "string", "pattern": "a+"}'
expect 'a schema that is no JSON' 3 'json_schema' "$binary" complete "$model" --prompt a --json-schema '{"type": '
expect 'no such schema file' 4 'absent.json: cannot be read' "$binary" complete "$model" --prompt a --json-schema "$work/absent.json"
seq 300 > "$work/text"
expect perplexity 0 '^perplexity [0-9.]+   \(16-bit activations, 16-bit cache, [0-9]+ tokens\)$' "$binary" perplexity "$model" --text "$work/text" --window 64
expect 'what 8 bits cost' 0 '8-bit activations, 8-bit cache, [0-9]+ tokens: [+-][0-9.]+ %' "$binary" perplexity "$model" --text "$work/text" --window 64 --cost
expect 'an 8-bit cache' 0 '"kv_cache": "8-bit"' "$binary" bench "$model" --prompt 20 --generate 4 --repetitions 1 --kv-cache 8 --json
expect 'weights of a long run' 0 '"weights": "repacked"' "$binary" bench "$model" --prompt 9 --generate 2 --repetitions 1 --repack --json
expect 'weights where they lie' 0 '"weights": "mapped"' "$binary" bench "$model" --prompt 9 --generate 2 --repetitions 1 --no-repack --json
if "$binary" bench "$model" --prompt 9 --generate 2 --repetitions 1 --json | grep -qE '"isa": "avx'; then
  expect 'repacked by itself' 0 '"weights": "repacked"' "$binary" bench "$model" --prompt 9 --generate 2 --repetitions 1 --json
fi
expect 'every isa that runs' 0 '"isa": "portable"' env POTSTILL_ISA=portable "$binary" bench "$model" --prompt 9 --generate 2 --repetitions 1 --json

expect 'no command' 2 'subcommand' "$binary"
expect 'unknown flag' 2 'nope' "$binary" complete "$model" --nope
expect 'temperature out of range' 2 "'temperature' is -1" "$binary" complete "$model" --prompt a --temperature -1
expect 'unknown isa' 2 'this machine runs: portable' env POTSTILL_ISA=foo "$binary" complete "$model" --prompt a
expect 'empty prompt' 2 'no tokens' "$binary" complete "$model" --prompt ''
expect 'prompt beyond the context' 2 'positions are needed but 4 fit' "$binary" complete "$model" --prompt 'five and more' --context 4
expect 'nothing to score' 2 'nothing to score' "$binary" perplexity "$model" --text /dev/null
expect 'missing file' 4 'does not exist' "$binary" complete "$work/absent.gguf" --prompt a
head -c 90000 "$model" > "$work/cut.gguf"
expect 'truncated file' 3 'needs [0-9]+ bytes but [0-9]+ remain' "$binary" complete "$work/cut.gguf" --prompt a

printf 'hello\n/reset\nhello\n/what\n/exit\nnever read\n' > "$work/talk"
stdin=$work/talk expect 'chat from a pipe' 0 "'/what' is no command" "$binary" chat "$model" --temperature 0 --max-tokens 3
answers=$("$binary" chat "$model" --temperature 0 --max-tokens 3 < "$work/talk" 2> /dev/null | base64 -w 0)
again=$(printf 'hello\n/reset\nhello\n' | "$binary" chat "$model" --temperature 0 --max-tokens 3 --threads 3 2> /dev/null | base64 -w 0)
if [ "$answers" != "$again" ] || [ -z "$answers" ]; then
  echo "FAILED chat: two conversations that are the same answered in two ways" >&2
  failures=$((failures + 1))
fi
# Nobody comes, and it is told to stop: it ends at once, and well.
"$binary" serve "$model" --port 0 2> "$work/serve" &
server=$!
for _ in $(seq 100); do grep -q 'chat page' "$work/serve" && break; sleep 0.05; done
kill -TERM $server
( sleep 20; kill -KILL $server 2> /dev/null ) &
watchdog=$!
wait $server
got=$?
kill $watchdog 2> /dev/null
if [ $got -ne 0 ]; then
  echo "FAILED serve: exit $got after SIGTERM (wanted 0): $(cat "$work/serve")" >&2
  failures=$((failures + 1))
fi
expect 'serve to other machines without a key' 2 'there is no API key' env -u POTSTILL_API_KEY "$binary" serve "$model" --host 0.0.0.0 --port 0
expect 'serve where nothing can listen' 4 'cannot listen' "$binary" serve "$model" --host 203.0.113.7 --port 0 --open
[ "$failures" -eq 0 ] && echo "edge_cli: all held"
exit "$failures"
