#!/usr/bin/env python3
"""Random and adversarial strings with the ids that the `tokenizers` package (0.23.3) gives them.

    python make_tokenizer_fuzz.py fixture TOKENIZER_JSON COUNT SEED OUT.bin    for TokenizerFuzz.EqualsThePackage (see there)
    python make_tokenizer_fuzz.py golden SMOLLM2_TOKENIZER_JSON                writes smollm2_ids.jsonl (600 strings, seed 3)
    python make_tokenizer_fuzz.py same A.json B.json COUNT SEED                whether two files give the same ids

A fixture is a sequence of records, each four little-endian arrays headed by their 32-bit length: the text's bytes, its
ids, its ids with encode_special_tokens (special tokens cut as ordinary text), and the bytes of its decoded ids; then one
array of random ids and the bytes of their text.
"""
import json
import pathlib
import random
import struct
import sys
import unicodedata

from tokenizers import Tokenizer

SPACES = [" ", "  ", "   ", "\n", "\n\n", "\r\n", "\r", "\t", "\t\t", "\u00a0", "\u2003", "\u3000", "\u0085", "\u2028", "\x0b", "\x0c",
          "\u200b", "\x1c", "\u1680", "\u202f", "\ufeff"]
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'T", "'RE", "'Ve", "'M", "'lL", "'D", "'\u017f", "\u2019s", "'", "''", "'r",
                "'v", "'l", "'L", "'\u212a", "'\u017fs", "'\u1e9e"]
NUMBERS = list("0123456789") + ["12", "123", "1234", "2024", "3.14", "1,000,000", "\u00bd", "\u00b2", "\u0663", "\u0967", "\uff11", "\u2167",
           "\u3007", "\u4e00", "\U0001d7d8", "\U0001f101", "\u0bf0", "\U00011de3", "\U00016ff4", "\u2460", "\U00010107"]
MARKS = ["\u0301", "\u0300", "\u0327", "\u0323", "\u0308", "\u0345", "\u20dd", "\ufe0f", "\u200d", "\u0338", "\u093c", "\u0e31", "\u05b0",
         "\u064b", "\u0650", "\u3099", "\u11a8", "\u1161", "\u0f71", "\u0f72", "\u1dc4", "\U0001d165", "\u0c3c", "\u08d3", "\u1ac1", "\u0b3e"]
EMOJI = ["\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f44d\U0001f3fd", "\U0001f1e9\U0001f1ea",
         "\u2764\ufe0f\u200d\U0001f525", "\U0001f9d1\U0001f3fb\u200d\U0001f680", "1\ufe0f\u20e3"]
WORDS = """the of and a to in is you that it he was for on are as with his they I at be this have from or one had by word but not what all
were we when your can said there use an each which she do how their if will up other about out many then them these so some her would
make like him into time has look two more write go see number no way could people my than first water been call who oil its now find
photosynthesis antidisestablishmentarianism HTTPServer camelCase snake_case kebab-case x86_64 C++20 std::vector<int> #include
https://example.org/path?q=1&r=%20 user@example.com don't I'LL we've it's O'Neill rock'n'roll Stra\u00dfe \u00c6sop na\u00efve caf\u00e9 \u0130stanbul
\u4f60\u597d\u4e16\u754c \u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8 \ud55c\uad6d\uc5b4 \u0420\u0443\u0441\u0441\u043a\u0438\u0439 \u0395\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac \u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05e2\u05d1\u05e8\u05d9\u05ea \u0939\u093f\u0928\u094d\u0926\u0940 \u0e44\u0e17\u0e22 ti\u1ebfng Vi\u1ec7t""".split()
PUNCTUATION = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") + ["...", "--", "\u2014", "\u201c", "\u201d", "\u2026", "\u00bf", "=>", "!=", "/*", "*/", "\u20ac", "\u00a9"]
TORN = ["\ufffd", "\u00c3\u00a9", "\u00ef\u00bf\u00bd", "\u00e2\u20ac\u2122", "\x00", "\x7f", "\u0080", "\u00ad", "\ufffe", "\uffff", "\U0010ffff", "\ue000"]
BLOCKS = [(0x20, 0x7F), (0xA0, 0x250), (0x250, 0x530), (0x530, 0x900), (0x900, 0x1100), (0x1100, 0x1200), (0x1200, 0x2000), (0x2000, 0x2C00),
          (0x2C00, 0x3400), (0x3400, 0x4E00), (0x4E00, 0xA000), (0xA000, 0xAC00), (0xAC00, 0xD800), (0xE000, 0xF900), (0xF900, 0x10000),
          (0x10000, 0x11000), (0x11000, 0x12000), (0x12000, 0x17000), (0x17000, 0x1E000), (0x1E000, 0x20000), (0x20000, 0x32000),
          (0x32000, 0xE0200), (0xE0200, 0x110000)]


class Strings:
    def __init__(self, seed, specials):
        self.rng = random.Random(seed)
        self.specials = specials

    def point(self):
        return chr(self.rng.randrange(*self.rng.choice(BLOCKS)))

    def piece(self):
        rng = self.rng
        kind = rng.randrange(16)
        if kind < 4:
            return rng.choice(["", " ", " ", "  "]) + rng.choice(WORDS)
        if kind == 4:
            return rng.choice(SPACES) * rng.choice([1, 1, 2, 3, 9])
        if kind == 5:
            return rng.choice(WORDS) + rng.choice(CONTRACTIONS)
        if kind == 6:
            return rng.choice(CONTRACTIONS) + rng.choice(["", rng.choice(WORDS)])
        if kind == 7:
            return rng.choice(SPACES + [""]) + "".join(rng.choices(NUMBERS, k=rng.randint(1, 6)))
        if kind == 8:
            return rng.choice(["a", "e", "q", "\u1100", "\u0928", "\uac00", "A\u030a", self.point()]) + "".join(rng.choices(MARKS, k=rng.randint(1, 4)))
        if kind == 9:
            return rng.choice(EMOJI)
        if kind == 10:
            return "".join(rng.choices(PUNCTUATION, k=rng.randint(1, 5)))
        if kind == 11:
            special = rng.choice(self.specials)
            return rng.choice([special, special, " " + special, special + " ", special[:-1], special[1:], special * 2])
        if kind == 12:
            return rng.choice(TORN)
        if kind == 13:
            first, last = rng.choice(BLOCKS)
            return "".join(chr(rng.randrange(first, last)) for _ in range(rng.randint(1, 8)))
        if kind == 14:
            return self.point() + rng.choice(MARKS) + self.point()
        return rng.choice(WORDS).swapcase()

    def string(self):
        rng = self.rng
        kind = rng.randrange(200)
        if kind == 0:  # very long words
            return rng.choice(["a", "ab", "lo", "\u4f60", "ha", "0", "=", " ", "\n", "\r\n ", "ing", self.point()]) * rng.randint(50, 700)
        if kind == 1:
            return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(40, 500)))
        if kind == 2:
            return "".join(self.point() for _ in range(rng.randint(20, 120)))
        if kind < 30:
            return "".join(rng.choices(" \n\t\r'sSt1a.\u00a0\u017f", k=rng.randint(1, 14)))
        if kind < 40:
            return unicodedata.normalize(rng.choice(["NFD", "NFC", "NFKD"]), "".join(self.piece() for _ in range(rng.randint(1, 8))))
        text = "".join(self.piece() for _ in range(rng.randint(1, 9)))
        return text.encode("utf-8", "replace").decode("utf-8")  # no lone surrogates


def load(path):
    tokenizer = Tokenizer.from_file(path)
    added = json.loads(pathlib.Path(path).read_text())["added_tokens"]
    return tokenizer, [token["content"] for token in added]


def array(values, code):
    return struct.pack("<I", len(values)) + struct.pack(f"<{len(values)}{code}", *values)


def fixture(path, count, seed, out):
    tokenizer, specials = load(path)
    strings = Strings(int(seed), specials)
    rng = random.Random(int(seed) + 1)
    texts = [strings.string() for _ in range(int(count))]
    tokenizer.encode_special_tokens = False
    plain = tokenizer.encode_batch(texts, add_special_tokens=False)
    ids = [e.ids for e in plain]
    tokenizer.encode_special_tokens = True
    ordinary = [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
    size = tokenizer.get_vocab_size()
    noise = [[rng.randrange(size) for _ in range(rng.randint(1, 12))] for _ in texts]
    decoded = tokenizer.decode_batch(ids, skip_special_tokens=False)
    noise_text = tokenizer.decode_batch(noise, skip_special_tokens=True)
    with open(out, "wb") as file:
        for row in zip(texts, ids, ordinary, decoded, noise, noise_text):
            for values, code in zip(row, "BIIBIB"):
                file.write(array(values.encode() if isinstance(values, str) else values, code))


def golden(path):
    tokenizer, specials = load(path)
    strings = Strings(3, specials)
    rows = []
    while len(rows) < 600:
        text = strings.string()
        if len(text) <= 120:
            rows.append({"text": text, "ids": tokenizer.encode(text, add_special_tokens=False).ids})
    rows += [{"text": t * n, "ids": tokenizer.encode(t * n).ids} for t, n in (("a", 400), ("lo", 150), (" ", 90), ("0", 60), ("=", 300))]
    out = pathlib.Path(__file__).with_name("smollm2_ids.jsonl")
    out.write_text("".join(json.dumps(row) + "\n" for row in rows))


def same(a, b, count, seed):
    (left, specials), (right, _) = load(a), load(b)
    strings = Strings(int(seed), specials)
    for _ in range(int(count)):
        text = strings.string()
        assert left.encode(text).ids == right.encode(text).ids, repr(text)
        ids = left.encode(text).ids
        assert left.decode(ids) == right.decode(ids), repr(text)
    print(count, "strings: the same ids and texts")


{"fixture": fixture, "golden": golden, "same": same}[sys.argv[1]](*sys.argv[2:])
