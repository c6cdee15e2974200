"""Mutations of a file's metadata: of its JSON, and of what it means."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from random import Random
from typing import Any

from .sealing import joined, split

LONG = "x" * 10_000
TEXTS = (
    "", " ", "\n", "a\nb\nc\nd", "\x1b[31mred\x07", LONG, "line\n" * 3000, "\ud800", "\udfff\ud800",
    "\0", "é中😀", "\u2028\u2029\x85\x0b", "\u202eleft", "../../etc/passwd", "%s{0}", "Ġ", "a b",
    "-1", "NaN", "[]", "rnn", "char", "byte", "bpe", "letters", "float16", "bool", "int64", "step",
    "generate", "sequence", "module", "fp32", "int8", "AAAA", "AADAfw==" * 8,
)  # fmt: skip
NUMBERS = (
    0, 1, -1, 2, 3, 15, 17, 255, 257, 2**14, 2**28, 2**28 + 1, 2**31, 2**53 + 1, 2**63, -(2**63),
    2**64, 10**400, 0.5, 1e-320, 1e39, 1e308, -1e308, 70_000, math.nan, math.inf, -math.inf,
)  # fmt: skip
OTHERS: tuple[Any, ...] = (
    None, True, False, [], {}, [[]], [None], [{}], [1] * 9, [1] * 5000, {LONG: 1}, {"\n\x1b": 1},
)  # fmt: skip
DAMAGED = (
    b"", b"nan", b"Infinity", b"1e999", b"null", b"9" * 6000, b"[" * 100_000, b"\xff\xfe",
    b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
)  # fmt: skip
LARGE = frozenset({b"zoo.tokenizer", b"zoo.state", b"zoo.inputs", b"zoo.outputs"})


def mutate_metadata(content: bytes, rng: Random) -> bytes:
    """One entry or several, without regard to what they mean."""
    model, entries = split(content)
    candidates = [*entries, *sorted(LARGE & entries.keys())]
    for key in dict.fromkeys(rng.choices(candidates, k=rng.choice((1, 1, 1, 2, 3)))):
        change = rng.random()
        if change < 0.8 and entries[key][:1] in (b"{", b"["):
            document = mutate_json(json.loads(entries[key]), rng)
            text = json.dumps(document, ensure_ascii=rng.random() < 0.5)
            entries[key] = text.encode("utf-8", "surrogatepass")
        elif change < 0.9:
            entries[key] = mutate_text(entries[key], rng)
        elif change < 0.95:
            entries[key] = entries[rng.choice(list(entries))]
        else:
            del entries[key]
    pairs = list(entries.items())
    if rng.random() < 0.05:
        pairs.insert(0, rng.choice(pairs))
    return joined(model, pairs)


def mutate_text(text: bytes, rng: Random) -> bytes:
    place = rng.randrange(len(text) + 1)
    other = rng.choice(TEXTS).encode("utf-8", "surrogatepass")
    return rng.choice((text[:place], text[:place] + b"\x80" + text[place:], other, *DAMAGED))


def mutate_json(document: Any, rng: Random) -> Any:
    """Replaces, removes, doubles or nudges one value of the document."""
    places = list(paths(document))
    path = rng.choice([p for p in places if len(p) <= 2] if rng.random() < 0.6 else places)
    if not path:
        return rng.choice((*TEXTS, *NUMBERS, *OTHERS))
    *above, last = path
    parent = document
    for key in above:
        parent = parent[key]
    old, change = parent[last], rng.random()
    if change < 0.4:
        parent[last] = deepcopy(rng.choice(rng.choice((TEXTS, NUMBERS, OTHERS))))
    elif change < 0.5:
        del parent[last]
    elif change < 0.6 and isinstance(parent, list):
        parent.insert(rng.randrange(len(parent) + 1), deepcopy(rng.choice(parent)))
    elif change < 0.6:
        parent[rng.choice(TEXTS)] = old
    else:
        parent[last] = nudged(old, rng)
    return document


def paths(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to each value of the document; none to the document itself."""
    yield path
    if isinstance(document, dict | list):
        for key in document if isinstance(document, dict) else range(len(document)):
            yield from paths(document[key], (*path, key))


def nudged(value: Any, rng: Random) -> Any:
    """A value of the same type, not far from it."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return rng.choice((value + 1, value - 1, -value, value * 2, value / 2, value * 1e6))
    if isinstance(value, str):
        place = rng.randrange(len(value) + 1)
        before, after = value[:place], value[place:]
        return rng.choice((before, after, value * 2, value[::-1], value.upper(), value + "ß",
                           before + after[1:], before + rng.choice(TEXTS) + after))  # fmt: skip
    if isinstance(value, list):
        mixed = rng.sample(value, len(value))
        return rng.choice((value * 2, value[:-1], value[1:], value[::-1], mixed, value * 50))
    return {} if value else [value]


TOKENIZERS: tuple[Any, ...] = (
    {"kind": "byte"},
    {"kind": "char", "characters": "a"},
    {"kind": "char", "characters": "\ud800\udc00a\0\x1b"},
    {"kind": "char", "characters": "".join(map(chr, range(0x4E00, 0x9E00)))},
    {"kind": "letters", "characters": " etainoshrdlmucfwgypbvkxzjq"},
    {"kind": "bpe", "merges": []},
    {"kind": "bpe", "merges": ["a a", "aa aa", "aaaa aaaa"]},
    {"kind": "bpe", "merges": ["b c", "a bc", "a b", "Ġ a", "Ã ©"]},
    {"kind": "bpe", "merges": ["a b", "x  y"]},
    {"kind": "words", "package": "a\nb\n\x1b" + LONG},
    {"kind": "a\nb\nc" + LONG},
)
FIELDS: dict[str, tuple[Any, ...]] = {  # of a leaf of the state, an input or an output
    "name": ("layer0.h", "a.b", "x" * 200, "é.h", "token"),
    "shape": ([], [1], [17], [16, 1], [4, 4], [2**28], [2**14, 2**14], [1] * 8, [2**28, 2]),
    "dtype": ("float16", "float64", "bool", "int8", "int64", "uint64", "str", ">f4", "complex64"),
    "initial": (1, -1, 0.5, 1e39, 70_000, 300, 2**63, 2**64, True, "AAAA", "AAAAfw==" * 8),
    "bound": (1e-320, 1e308, 1),
}
KINDS = (b"step", b"generate", b"sequence", b"module", b"steps", b"step\n", b"a" * 40, b"a" * 41)


def mutate_meaning(content: bytes, rng: Random) -> bytes:
    """Another tokenizer, state or signature, or another kind of graph: mostly valid, and not what
    the graph has."""
    model, entries = split(content)
    candidates = [key for key in MEANINGS if key in entries]
    for key in dict.fromkeys(rng.choices(candidates, k=rng.choice((1, 1, 2)))):
        entries[key] = MEANINGS[key](entries[key], rng)
    return joined(model, entries.items())


def other_tokenizer(text: bytes, rng: Random) -> bytes:
    found, other = json.loads(text), rng.choice(TOKENIZERS)
    for field in {"characters", "merges"} & found.keys():
        if rng.random() < 0.5:  # of a token less, or of the same in another order
            other = {**found, field: rng.choice((found[field][:-1], found[field][::-1]))}
    return json.dumps(other).encode()


def other_state(text: bytes, rng: Random) -> bytes:
    state = json.loads(text)
    entry, field = rng.choice(state), rng.choice(list(FIELDS))
    entry[field] = rng.choice(FIELDS[field])
    if rng.random() < 0.2:
        many = [{**entry, "name": f"n{index}"} for index in range(rng.choice((101, 5000)))]
        state = rng.choice((state[::-1], state[:-1], [*state, {**entry, "name": "more"}], many))
    return json.dumps(state).encode()


def other_signature(text: bytes, rng: Random) -> bytes:
    signature = json.loads(text)
    entry, field = rng.choice(signature), rng.choice(("name", "shape", "dtype"))
    entry[field] = rng.choice(FIELDS[field])
    return json.dumps(rng.choice((signature, signature[::-1], signature * 2))).encode()


MEANINGS: dict[bytes, Callable[[bytes, Random], bytes]] = {
    b"zoo.tokenizer": other_tokenizer,
    b"zoo.state": other_state,
    b"zoo.inputs": other_signature,
    b"zoo.outputs": other_signature,
    b"zoo.graph": lambda _, rng: rng.choice(KINDS),
    b"zoo.causal": lambda _, rng: rng.choice((b"true", b"false", b"1", b'"no"')),
}
