#!/usr/bin/env python3
"""Writes nfc.json: [text, NFC] by the normaliser of tokenizers 0.23.3 (which knows Unicode 9), seed 13."""
import json
import pathlib
import random

from tokenizers import normalizers

nfc = normalizers.NFC()
rng = random.Random(13)
letters = ["a", "e", "q", "s", "\u00e9", "\u0219", "\u1ec7", "\u01d5", "\u0928", "\u0c46", "\u1100", "\uac00", "\uac01", "\u05d0", "\u4f60", " ", "\u212b", "\u2126", "\ufb1d", "\U0001d15e",
           "\U00011935", "\U00011938", "\uf900", "\u0340", "\U0001f600", "\u0f40"]
marks = ["\u0300", "\u0301", "\u0302", "\u0308", "\u0327", "\u0323", "\u0345", "\u0338", "\u093c", "\u0c56", "\u1161", "\u11a8", "\u05bc", "\u0f71", "\u0f72", "\u20dd", "\u0c3c",
         "\u08d3", "\u1ac1", "\u0334", "\U0001d165", "\U00011930", "\u200d", "\ufe0f", "\u3099"]
texts = ["".join(rng.choice(letters) + "".join(rng.choices(marks, k=rng.randint(0, 4))) for _ in range(rng.randint(1, 4))) for _ in range(400)]
rows = [[text, nfc.normalize_str(text)] for text in texts]
pathlib.Path(__file__).with_name("nfc.json").write_text(json.dumps(rows, indent=0) + "\n")
