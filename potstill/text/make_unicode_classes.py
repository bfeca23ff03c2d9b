#!/usr/bin/env python3
"""Writes unicode_classes.inc: what the `tokenizers` package takes each code point for, asked from the package itself.

Its parts carry different versions of Unicode (the regular expressions, Rust's char::is_numeric and the normaliser each
their own), so tables from any one version of the standard would differ from it somewhere.

    python potstill/text/make_unicode_classes.py        # tokenizers 0.23.3, Python 3.11
"""
import pathlib
import sys
import unicodedata

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

LETTER, NUMBER, SPACE, NUMERIC, WORD, NFC_INERT, NFC_YES = (1 << i for i in range(7))
POINTS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]


def batches(size=4096):
    return (POINTS[i : i + size] for i in range(0, len(POINTS), size))


def matched_by(pattern):
    """Code points that a one-character pattern matches: those which Split(removed) removes."""
    splitter = pre_tokenizers.Split(Regex(pattern), "removed")
    kept = set()
    for batch in batches():
        for piece, _ in splitter.pre_tokenize_str("".join(map(chr, batch))):
            kept.update(map(ord, piece))
    return set(POINTS) - kept


def numeric():
    splitter = pre_tokenizers.Digits(individual_digits=True)
    found = set()
    for batch in batches():
        for piece, _ in splitter.pre_tokenize_str("".join(chr(c) + "x" for c in batch)):
            if len(piece) == 1 and piece != "x":
                found.add(ord(piece))
    return found


def word():
    """\\w of the regular expressions behind AddedToken(single_word=True)."""
    tokenizer = Tokenizer(models.BPE({"<T>": 0}, []))
    tokenizer.add_tokens([AddedToken("<T>", single_word=True, normalized=False)])
    found = set()
    for batch in batches():
        text = "".join(" " + chr(c) + "<T> " for c in batch)
        cut = {start for start, _ in tokenizer.encode(text).offsets}
        found.update(c for i, c in enumerate(batch) if 5 + 6 * i - 3 not in cut)
    return found


def normalization():
    """(inert, yes). inert: never changes, reorders or composes, whatever stands beside it.
    yes: a starter that is its own NFC and never composes with what stands before it."""
    nfc = normalizers.NFC().normalize_str
    changes, marks, second, first = set(), set(), set(), set()
    for c in POINTS:
        s = chr(c)
        if nfc(s) != s:
            changes.add(c)
        # U+0334 has combining class 1, U+0316 has 220, and neither composes: only a mark changes places with one of them
        elif nfc("q" + s + "\u0334") != "q" + s + "\u0334" or nfc("q\u0316" + s) != "q\u0316" + s:
            marks.add(c)
    for c in POINTS:
        parts = unicodedata.decomposition(chr(c)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            pair = chr(int(parts[0], 16)) + chr(int(parts[1], 16))
            if nfc(pair) == chr(c):
                first.add(ord(pair[0]))
                second.add(ord(pair[1]))
    first.update(range(0x1100, 0x1113))
    second.update(range(0x1161, 0x1176), range(0x11A8, 0x11C3))
    not_yes = changes | marks | second
    # what decomposes may compose otherwise when a mark follows
    nfd = normalizers.NFD().normalize_str
    first.update(c for c in POINTS if nfd(chr(c)) != chr(c))
    return set(POINTS) - not_yes - first, set(POINTS) - not_yes


def main():
    inert, yes = normalization()
    sets = [
        (matched_by(r"\p{L}"), LETTER), (matched_by(r"\p{N}"), NUMBER), (matched_by(r"\s"), SPACE),
        (numeric(), NUMERIC), (word(), WORD), (inert, NFC_INERT), (yes, NFC_YES),
    ]
    for members, bit in sets:
        print(bit, len(members), file=sys.stderr)
    classes = [0] * 0x110000
    for members, bit in sets:
        for c in members:
            classes[c] |= bit
    for c in range(0xD800, 0xE000):  # surrogates never come out of valid UTF-8
        classes[c] = NFC_INERT | NFC_YES
    runs = [(c, k) for c, k in enumerate(classes) if c == 0 or classes[c - 1] != k]
    rows, line = [], ""
    for start, bits in runs:
        item = f"0x{start << 8 | bits:x}, "
        if len(line) + len(item) > 118:
            rows.append(line.rstrip())
            line = ""
        line += item
    rows.append(line.rstrip())
    head = [
        f"// Written by make_unicode_classes.py from tokenizers {tokenizers.__version__}: first code point << 8 | class bits",
        "// of each run, ascending. Not edited by hand.",
    ]
    target = pathlib.Path(__file__).with_name("unicode_classes.inc")
    target.write_text("\n".join(head + rows) + "\n")
    print(len(runs), "runs", file=sys.stderr)


main()
