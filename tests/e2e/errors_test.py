#!/usr/bin/env python3
"""Bad input: one clear message, an exit status of its own kind, nothing left under the final name.

    errors_test.py POTSTILL POTSTILL_EDGE MODEL.gguf
"""
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Case:
    def __init__(self, name, command, status, pattern, address_space=None):
        self.name, self.command, self.status, self.pattern = name, command, status, pattern
        self.address_space = address_space  # bytes; None = no limit


def recipe(folder, name, text):
    path = folder / name
    path.write_text(text)
    return path


def cases(potstill, edge, model, work):
    out = work / "out"
    base = f"name: t\npairs: {ROOT}/tests/e2e/pairs.jsonl\nteacher: {model}\nstudent: {model}\n"
    whole = pathlib.Path(model).read_bytes()
    truncated = work / "truncated.gguf"
    truncated.write_bytes(whole[: len(whole) // 3])
    header = work / "header.gguf"
    header.write_bytes(whole[:8] + (2**60).to_bytes(8, "little") + whole[16:4096])
    garbage = work / "garbage.gguf"
    garbage.write_bytes(b"\x7fELF" + bytes(4096))
    empty = work / "empty.jsonl"
    empty.write_text("")
    broken = work / "broken.jsonl"
    broken.write_text('{"instruction": "a", "output": "b"}\n{"instruction": \n')
    folder = work / "hf"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "mamba", "hidden_size": 8}')
    lying = work / "lying"
    lying.mkdir()
    (lying / "config.json").write_text(
        '{"model_type": "llama", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,'
        ' "num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-5, "max_position_embeddings": 64}')
    (lying / "tokenizer.json").write_text("{}")
    (lying / "model.safetensors").write_bytes((2**40).to_bytes(8, "little") + b"{}")

    yield Case("misspelt key", [potstill, "run", recipe(work, "key.yaml", base + "train:\n  temprature: 2\n")], 2,
               r"key\.yaml:6: \[train\] unknown key 'temprature'\n  hint: did you mean 'temperature'\?")
    yield Case("misspelt section", [potstill, "run", recipe(work, "section.yaml", base + "quantise:\n  bits: 4\n")], 2,
               r"section\.yaml:5: \[recipe\] unknown key 'quantise'\n  hint: did you mean 'quantize'\?")
    yield Case("value out of range", [potstill, "run", recipe(work, "range.yaml", base + "train: {alpha: 1.5}\n")], 2,
               r"'alpha' is 1.5 but must be in \[0, 1\]")
    yield Case("wrong type", [potstill, "run", recipe(work, "type.yaml", base + "train:\n  rank: many\n")], 2,
               r"type\.yaml:6: \[train\]: 'rank' is many but must be a whole number")
    yield Case("no YAML", [potstill, "run", recipe(work, "bad.yaml", "a: [1,\nb")], 2, r"bad\.yaml:\d+: is not valid YAML")
    yield Case("missing recipe", [potstill, "run", work / "absent.yaml"], 4, r"absent\.yaml: cannot be read")
    yield Case("missing model", [potstill, "run", recipe(work, "model.yaml", base.replace(f"teacher: {model}", "teacher: nowhere.gguf"))],
               4, r"teacher: 'nowhere\.gguf' does not exist")
    yield Case("group that does not divide", [potstill, "run", recipe(work, "group.yaml", base + "quantize: {group_size: 128}\n")], 2,
               r"group_size 128 does not divide the student's width 576\n  hint: sizes that fit: 64, 32")
    yield Case("unknown stage", [potstill, "run", recipe(work, "stage.yaml", base), "--until", "trian"], 2, r"did you mean 'train'\?")
    yield Case("group refused by quantize", [potstill, "quantize", "--model", model, "--method", "rtn", "--group-size", "128", "--out", out], 2,
               r"128.*576(.|\n)*64")
    # Quantization, on a tiny model: 3 layers of width 64 or so.
    tiny = ROOT / "tests/golden/edge/tiny_llama.gguf"
    packed, plain = work / "packed", work / "plain"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True}
    subprocess.run([potstill, "quantize", "--model", tiny, "--method", "rtn", "--group-size", "32", "--out", packed], **quiet)
    subprocess.run([potstill, "export", "--model", tiny, "--format", "safetensors", "--out", plain], **quiet)
    quantize = [potstill, "quantize", "--out", out, "--group-size", "32"]
    yield Case("a quantized source", [*quantize, "--model", packed, "--method", "rtn"], 2, r"quantized already(.|\n)*--dequantize")
    yield Case("no calibration text", [*quantize, "--model", tiny], 2, r"needs calibration text(.|\n)*--method rtn")
    yield Case("an empty mixture", [*quantize, "--model", tiny, "--calibration", "LICENSE:0,b.txt:1"], 2, r"'0' is no share of 'LICENSE'")
    yield Case("an absent text", [*quantize, "--model", tiny, "--calibration", work / "absent.txt"], 4, r"absent\.txt' does not exist")
    yield Case("too few bits", [*quantize, "--model", tiny, "--calibration", ROOT / "LICENSE", "--target-bpw", "4.2"], 2,
               r"4 bits in groups of 32 take 4\.500")
    yield Case("no such size", [*quantize, "--model", tiny, "--calibration", ROOT / "LICENSE", "--memory", "4 pages"], 2, r"'4 pages' is no size")
    yield Case("a consumer's kernels", [potstill, "quantize", "--model", tiny, "--method", "rtn", "--group-size", "channel", "--for", "vllm,ollama",
                                       "--out", out], 2, r"no consumer 'ollama'")
    yield Case("GPTQ layout for llama.cpp", [potstill, "export", "--model", packed, "--format", "gptq", "--for", "llama.cpp", "--out", out], 2,
               r"llama\.cpp loads GGUF alone(.|\n)*--format gguf")
    stored = bytearray((plain / "model.safetensors").read_bytes())
    header_size = int.from_bytes(stored[:8], "little")
    entry = json.loads(stored[8:8 + header_size])["model.layers.1.mlp.up_proj.weight"]
    at = 8 + header_size + entry["data_offsets"][0] + 40
    stored[at:at + 4] = b"\x00\x00\xc0\x7f"
    (plain / "model.safetensors").write_bytes(stored)
    yield Case("NaN in a weight", [*quantize, "--model", plain, "--method", "rtn"], 6, r"layers\.1\.mlp\.up_proj\.weight: holds 1 values that are NaN")
    yield Case("truncated GGUF", [potstill, "perplexity", "--model", truncated, "--text", ROOT / "README.md"], 3, r"truncated\.gguf")
    yield Case("oversized count in a GGUF", [potstill, "inspect", header], 3, r"header\.gguf")
    yield Case("no GGUF at all", [potstill, "inspect", garbage], 3, r"garbage\.gguf")
    yield Case("unsupported architecture", [potstill, "inspect", folder], 2, r"mamba")
    yield Case("lying safetensors header", [potstill, "inspect", lying], 3, r"lying")
    yield Case("empty pairs", [potstill, "train", "--student", model, "--teacher", model, "--data", empty, "--out", out], 2,
               r"empty\.jsonl: holds no pairs")
    yield Case("broken pairs", [potstill, "train", "--student", model, "--teacher", model, "--data", broken, "--out", out], 3,
               r"broken\.jsonl:2")
    yield Case("missing text", [potstill, "perplexity", "--model", model, "--text", work / "absent.txt"], 4, r"absent\.txt")
    own = work / "own.yaml"
    own.write_text("name: own\nrow: rows.jsonl\n")
    yield Case("misspelt key of a task", [potstill, "evaluate", "--model", model, "--tasks", own], 2, r"own\.yaml:\d+.*unknown key 'row'")
    alone = work / "alone.json"
    alone.write_text('{"results": {"arc_easy": {"acc,none": 0.5}}}')
    yield Case("results without samples", [potstill, "compare", alone, alone], 2, r"alone\.json.*no scored rows(.|\n)*--log-samples")
    yield Case("no run to diagnose", [potstill, "diagnose", work / "absent"], 4, r"absent.*holds no stage of a run")
    yield Case("unknown command", [potstill, "distil"], 2, r"(?i)distil|subcommand")
    yield Case("unknown flag", [potstill, "prune", "--model", model, "--layer", "3", "--out", out], 2, r"--layer")
    yield Case("too many layers", [potstill, "prune", "--model", model, "--layers", "31", "--out", out], 2, r"30")
    yield Case("report of nothing", [potstill, "report", work], 2, r"holds no finished stage")
    # LibTorch alone maps some 560 MB; what is left is too little for this model's activations.
    yield Case("no memory", [potstill, "perplexity", "--model", model, "--text", ROOT / "LICENSE", "--dtype", "fp32"], 7,
               r"out of memory .* in use at the peak\)\n  hint", address_space=700 << 20)
    disk = work / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", disk]
    if os.geteuid() == 0 and subprocess.call(mount, stderr=subprocess.DEVNULL) == 0:
        try:
            yield Case("disk full", [potstill, "prune", "--model", model, "--keep", "0,1,2,3,4", "--out", disk / "child"], 4,
                       r"No space left on device\n  hint: free some space")
            assert not (disk / "child").exists(), "a half-written child stands under its final name"
            for left in disk.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            # some twenty layers fit before the disk is full
            yield Case("disk full in quantization", [potstill, "quantize", "--model", model, "--dequantize", "--method", "rtn", "--out", disk / "q"], 4,
                       r"No space left on device\n  hint: free some space")
            assert not (disk / "q").exists(), "a half-written model stands under its final name"
        finally:
            subprocess.check_call(["umount", "-l", disk])
    else:
        print("disk full: not tried, this user may not mount a small file system")
    yield Case("edge: truncated", [edge, "complete", truncated, "--prompt", "a"], 3, r"truncated\.gguf")
    yield Case("edge: missing", [edge, "complete", work / "absent.gguf", "--prompt", "a"], 4, r"absent\.gguf")
    yield Case("edge: no GGUF", [edge, "bench", garbage], 3, r"garbage\.gguf")


def main():
    potstill, edge, model = sys.argv[1:4]
    if not pathlib.Path(model).exists():
        print(f"SKIPPED: no model at {model}; scripts/setup fetches it")
        return 77
    faults, count = [], 0
    with tempfile.TemporaryDirectory(prefix="potstill-errors-") as folder:
        work = pathlib.Path(folder)
        for case in cases(potstill, edge, model, work):
            count += 1
            limits = (case.address_space,) * 2
            limit = (lambda: resource.setrlimit(resource.RLIMIT_AS, limits)) if case.address_space else None
            finished = subprocess.run(list(map(str, case.command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                      text=True, errors="replace", cwd=work, timeout=120, stdin=subprocess.DEVNULL, preexec_fn=limit)
            said = finished.stderr
            if finished.returncode != case.status:
                faults.append(f"{case.name}: exit status {finished.returncode}, expected {case.status}: {said[-600:]}")
            elif not re.search(case.pattern, said):
                faults.append(f"{case.name}: said {said[-600:]!r}, expected /{case.pattern}/")
            elif len(re.findall(r"^error: ", said, re.M)) != 1 and case.name not in ("unknown command", "unknown flag"):
                faults.append(f"{case.name}: more than one message: {said[-600:]}")
            if (work / "out").exists():
                faults.append(f"{case.name}: left something under its --out")
    print("\n".join(faults) or f"{count} kinds of bad input, each refused in words")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
