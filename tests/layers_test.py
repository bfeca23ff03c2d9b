#!/usr/bin/env python3
"""Keeps the direction of dependencies: cmake/Layers.cmake says which folder may include which and which may see LibTorch."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
TORCH = re.compile(r'#include\s+[<"](ATen|torch|c10)/')
OURS = re.compile(r'#include\s+"potstill/([a-z]+)/([a-z0-9_]+\.h)"')


def table():
    rows = re.findall(r'^\s*"([a-z]+):([^"]*)"$', (ROOT / "cmake/Layers.cmake").read_text(), re.M)
    return {folder: set(allowed.split()) for folder, allowed in rows}


def faults(folder, allowed):
    for path in sorted((ROOT / "potstill" / folder).rglob("*")):
        if path.suffix not in (".h", ".cpp"):
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            where = f"{path.relative_to(ROOT)}:{number}"
            if TORCH.search(line) and "TORCH" not in allowed:
                yield f"{where}: includes LibTorch, but {folder} must build without it"
            included = OURS.search(line)
            if not included or included[1] == folder:
                continue
            if included[1] not in allowed:
                yield f"{where}: {folder} may not include {included[1]}"
            elif folder == "recipe" and included[1] != "base" and not included[2].endswith("_config.h"):
                yield f"{where}: recipe may include only the *_config.h of {included[1]}"


def main():
    layers = table()
    folders = {path.name for path in (ROOT / "potstill").iterdir() if path.is_dir()}
    found = [f"potstill/{folder} is not in cmake/Layers.cmake" for folder in sorted(folders - set(layers))]
    for folder, allowed in layers.items():
        found += faults(folder, allowed)
    print("\n".join(found) or f"{len(layers)} folders keep to cmake/Layers.cmake")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
