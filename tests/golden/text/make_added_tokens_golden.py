#!/usr/bin/env python3
"""Writes added_tokens.json: small tokenizers whose added tokens have every mixture of flags, and what the `tokenizers`
package (0.23.3) makes of random texts with them. Seed 5."""
import json
import pathlib
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

rng = random.Random(5)
CONTENTS = ["<a>", "<ab>", "ab", "abc", "<|x|>", " sp", "\u00e9", "z9", "\n\n", "\u4f60", "<a><a>"]
PARTS = CONTENTS + ["e\u0301", " ", "  ", "\u00a0", "\u3000", "a", "b", "_", "9", ".", "e", "\u0301", "\u00e9", "\n", "<", ">", "|", "xyz", "\u00df", "'s", "\U0001f600"]
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def small_tokenizer(number):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {c: i for i, c in enumerate(alphabet)}
    merges = [("a", "b"), ("\u0120", "a"), ("ab", "c"), ("e", "\u00cc")]
    for left, right in merges:
        vocab[left + right] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=number % 2 == 0)
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    tokenizer.pre_tokenizer = level if number % 2 == 0 else pre_tokenizers.Sequence([split, level])
    if number >= 2:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    flag = lambda: rng.random() < 0.4
    for content in CONTENTS:
        token = AddedToken(content, lstrip=flag(), rstrip=flag(), single_word=flag(), normalized=flag())
        tokenizer.add_special_tokens([token]) if flag() else tokenizer.add_tokens([token])
    if number >= 4:
        bos = tokenizer.token_to_id("<|x|>")
        tokenizer.post_processor = processors.TemplateProcessing(single="<|x|> $A", pair="<|x|> $A <|x|> $B:1", special_tokens=[("<|x|>", bos)])
    return tokenizer


out = []
for number in range(8):
    tokenizer = small_tokenizer(number)
    rows = []
    for _ in range(60):
        text = "".join(rng.choices(PARTS, k=rng.randint(1, 9)))
        row = {"text": text}
        tokenizer.encode_special_tokens = False
        row["ids"] = tokenizer.encode(text).ids
        row["decoded"] = tokenizer.decode(row["ids"], skip_special_tokens=False)
        row["skipped"] = tokenizer.decode(row["ids"], skip_special_tokens=True)
        tokenizer.encode_special_tokens = True
        row["ordinary"] = tokenizer.encode(text, add_special_tokens=False).ids
        rows.append(row)
    tokenizer.encode_special_tokens = False
    out.append({"tokenizer": json.loads(tokenizer.to_str()), "rows": rows})
target = pathlib.Path(__file__).with_name("added_tokens.json")
target.write_text(json.dumps(out, separators=(",", ":")).replace('{"text"', '\n{"text"') + "\n")
