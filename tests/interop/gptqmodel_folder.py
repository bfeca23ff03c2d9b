#!/usr/bin/env python3
"""GPTQModel loads our GPTQ folders, and we load what GPTQModel and llm-compressor write.

    python tests/interop/gptqmodel_folder.py POTSTILL QUANTIZED_FOLDER MODEL [PYTHON_OF_LLMCOMPRESSOR]

QUANTIZED_FOLDER is what `potstill quantize` wrote, MODEL an unquantized one. Needs gptqmodel 7.7, torch, transformers; llm-compressor lives in
another environment (their accelerates differ). Likelihoods of the same text must agree: both read the same weights.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ.setdefault("GPTQMODEL_CPU_WORKERS", str(len(os.sched_getaffinity(0))))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXT = ROOT / "LICENSE"
potstill, quantized, model = sys.argv[1:4]
llmcompressor = sys.argv[4] if len(sys.argv) > 4 else None


def ours(folder):
    out = subprocess.run([potstill, "perplexity", "--model", folder, "--text", TEXT, "--context", "256", "--limit-tokens", "256", "--dtype", "fp32",
                          "--json", "--quiet"], check=True, stdout=subprocess.PIPE).stdout
    return json.loads(out)["mean_nll"]


def nll(module, ids):
    with torch.no_grad():
        log_probs = module(ids).logits[0, :-1].double().log_softmax(-1)
    return -log_probs.gather(1, ids[0, 1:, None]).mean().item()


def theirs(folder):
    from gptqmodel import BACKEND, GPTQModel

    loaded = GPTQModel.load(str(folder), device="cpu", backend=BACKEND.TORCH, dtype=torch.float16)  # it takes 16 bits alone
    ids = torch.tensor([loaded.tokenizer(TEXT.read_text())["input_ids"][:256]])
    return nll(loaded.model, ids)


def transformers_nll(folder):
    script = ("import sys, torch, pathlib\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n"
              "f, t = sys.argv[1:]\nids = AutoTokenizer.from_pretrained(f)(pathlib.Path(t).read_text(), return_tensors='pt').input_ids[:, :256]\n"
              "m = AutoModelForCausalLM.from_pretrained(f, dtype=torch.float32)\n"
              "with torch.no_grad(): p = m(ids).logits[0, :-1].double().log_softmax(-1)\n"
              "print(-p.gather(1, ids[0, 1:, None]).mean().item())")
    out = subprocess.run([llmcompressor, "-c", script, folder, TEXT], check=True, stdout=subprocess.PIPE, text=True).stdout
    return float(out.strip().splitlines()[-1])


def run_peer(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout[-3000:]}")


def agree(what, a, b, tolerance):
    good = abs(a - b) <= tolerance
    print(f"{what}: theirs {a:.6f}, potstill {b:.6f}{'' if good else '  DIFFERENT'}", flush=True)
    return good


def main():
    good = []
    with tempfile.TemporaryDirectory() as work:
        for form in ("gptq", "gptq-v2"):
            subprocess.run([potstill, "export", "--model", quantized, "--format", form, "--out", f"{work}/{form}", "--quiet"], check=True,
                           stdout=subprocess.DEVNULL)
            good.append(agree(f"GPTQModel on our {form} folder", theirs(f"{work}/{form}"), ours(f"{work}/{form}"), 2e-3))
        subprocess.run([potstill, "export", "--model", model, "--format", "safetensors", "--out", f"{work}/plain", "--quiet"], check=True,
                       stdout=subprocess.DEVNULL)
        peers = ROOT / "bench/quantize/peers.py"
        few = ["--model", f"{work}/plain", "--text", ROOT / "LICENSE", "--sequences", "4", "--length", "64"]
        run_peer([sys.executable, peers, "gptqmodel", *few, "--dtype", "bf16", "--out", f"{work}/gptqmodel"])
        good.append(agree("GPTQModel's own folder", theirs(f"{work}/gptqmodel"), ours(f"{work}/gptqmodel"), 2e-3))
        if llmcompressor:
            run_peer([llmcompressor, peers, "llmcompressor", *few, "--out", f"{work}/llmcompressor"])
            good.append(agree("llm-compressor's folder in transformers", transformers_nll(f"{work}/llmcompressor"), ours(f"{work}/llmcompressor"),
                              2e-3))
    sys.stdout.flush()
    os._exit(0 if all(good) else 1)  # GPTQModel's threads do not end


if __name__ == "__main__":
    main()
