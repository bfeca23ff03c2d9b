#!/usr/bin/env python3
"""Writes rouge_l.json: rougeL F-measures of rouge-score 0.1.2 without stemming, seed 7."""
import json
import pathlib
import random

from rouge_score import rouge_scorer

scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
rng = random.Random(7)
words = "What is the name of a process by which plants make food? photosynthesis Water BOILS at 100 °C, don't naïve co-op 3.5 _x_ water".split()
pairs = [
    ("", ""), ("", "a"), ("...", "a b"), ("The cat sat on the mat.", "the cat lay on the Mat"),
    ("What causes day and night?", "What causes the seasons?"), ("naïve café", "na ve caf"), ("\u0130stanbul \u017f 3\u212a", "istanbul s 3k"), ("\u0130", "i"),
]
pairs += [(" ".join(rng.choices(words, k=rng.randint(0, 90))), " ".join(rng.choices(words, k=rng.randint(0, 90)))) for _ in range(40)]
rows = [{"candidate": c, "reference": r, "fmeasure": scorer.score(r, c)["rougeL"].fmeasure} for c, r in pairs]
pathlib.Path(__file__).with_name("rouge_l.json").write_text(json.dumps(rows, indent=0) + "\n")
