"""What a clause is made of, as numbers: its words, their parts and kinds, its signs and its neighbours.

A name says nothing of who wrote a clause, so each stands by its kind: one of the action, a flag, a path, a call, or a
word that the model was never trained on. All features are buckets of a hash (Weinberger et al. 2009, arXiv 0902.2206),
so no vocabulary is kept; those of all clauses of a text are computed at once, in a time linear in its length.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from agentrl.text.clauses import Token
from agentrl.text.statements import offers, tells_fault

WINDOW: Final = 12
"""Tokens of a clause that are read at once: among more of them an order would be one word in many."""
STEP: Final = 6
BITS: Final = 16
"""Of a bucket's number."""
_PARTS: Final = (3, 4, 5)
"""Characters of a part of a word."""
_SHAPES: Final = tuple(
    (f"<{name}>", re.compile(pattern))
    for name, pattern in (
        ("flag", r"^-"),
        ("path", r"[/\\~]"),
        ("call", r"[\[({<]"),
        ("number", r"^[\d.,:%x+-]+$"),
        ("setting", r"[$=]"),
        ("address", r"@"),
        ("dotted", r"\."),
        ("joined", r"_"),
    )
)
"""Kinds of names, by how they look."""
_LEET = re.compile(r"(?=.{4})(?=[0-9@]*[a-z])[a-z0-9@]*?[0134578@][a-z][a-z0-9@]*")
_DIGITS: Final = str.maketrans("0134578@", "oieastba")
"""Digits that stand for letters."""
_KINDS: Final = {"own": 1, "word": 2, "code": 3, "foreign": 4, ",": 5}
_MOST: Final = 6
"""Words of a kind that are told apart by number."""
_END: Final = Token("", "")
_NAME: Final = crc32(b"<name>")

Buckets = NDArray[np.uint32]
Owners = NDArray[np.int64]


class Told(NamedTuple):
    """A clause and what is known of it."""

    tokens: Sequence[Token]
    sign: str
    """What ends it."""
    tells_fault: bool
    is_told: bool
    """Whether a fault was told before it."""
    offers: bool


def spans(num_tokens: int) -> list[slice]:
    """The windows of a clause: all of it where it is short, else runs of `WINDOW` tokens of which each begins `STEP`
    behind the one before it, and the last ends with the clause."""
    if num_tokens <= WINDOW:
        return [slice(0, num_tokens)]
    starts = (*range(0, num_tokens - WINDOW, STEP), num_tokens - WINDOW)
    return [slice(start, start + WINDOW) for start in starts]


def windows(clause: Told) -> list[Told]:
    """The windows of a clause, each as a clause of its own."""
    if len(clause.tokens) <= WINDOW:
        return [clause]
    parts = [clause.tokens[span] for span in spans(len(clause.tokens))]
    signs = [","] * (len(parts) - 1) + [clause.sign]
    return [
        Told(part, sign, tells_fault(part), clause.is_told, offers(part))
        for part, sign in zip(parts, signs, strict=True)
    ]


def features(clauses: Sequence[Told], known: Buckets) -> tuple[Buckets, Owners]:
    """The features of clauses that stand behind one another.

    Args:
        known: the hashes of the words that are told apart, sorted; any other is a name.

    Returns:
        The buckets of all features, below 2 ** BITS, and the number of the clause that each one is of; both of shape
        (features,).
    """
    words = [
        word for clause in clauses for word in ("<s>", *map(_shape, clause.tokens), f"</s>{clause.sign}")
    ]
    hashes = np.fromiter((crc32(word.encode()) for word in words), np.uint32, len(words))
    kinds = [
        _KINDS.get("," if token.text == "," else token.kind, 0)
        for clause in clauses
        for token in (_END, *clause.tokens, _END)
    ]
    owners = np.repeat(np.arange(len(clauses)), [len(clause.tokens) + 2 for clause in clauses])
    is_name = (np.array(kinds) == _KINDS["word"]) & (known[np.searchsorted(known[:-1], hashes)] != hashes)
    hashes[is_name] = _NAME
    groups = (
        _runs(hashes, owners, (1, 2), 1),
        _runs(np.array(kinds, np.uint32), owners, (2, 3, 4), 10),
        _parts(clauses, is_name),
        _whole(clauses, hashes, owners),
    )
    found = np.concatenate([buckets for buckets, _ in groups])
    return found >> np.uint32(32 - BITS), np.concatenate([of for _, of in groups])


def hashed(words: Iterable[str]) -> Buckets:
    """The hashes of words, sorted."""
    return np.array(sorted(crc32(word.encode()) for word in words), np.uint32)


def _shape(token: Token) -> str:
    """A word, or what kind of name it is; digits that stand for letters as letters."""
    if token.kind == "word":
        return "<number>" if token.text.isdigit() else token.text
    if token.kind == "code":
        if _LEET.fullmatch(token.text):
            return token.text.translate(_DIGITS)
        return next((name for name, pattern in _SHAPES if pattern.search(token.text)), "<code>")
    return f"<{token.kind}>"


def _mixed(values: Buckets, salt: int) -> Buckets:
    """Values that differ little, far from one another (the last step of MurmurHash3, in the public domain)."""
    mixed = values + np.uint32(salt * 0x9E3779B1 & 0xFFFFFFFF)
    mixed ^= mixed >> np.uint32(16)
    mixed *= np.uint32(0x85EBCA6B)
    mixed ^= mixed >> np.uint32(13)
    mixed *= np.uint32(0xC2B2AE35)
    mixed ^= mixed >> np.uint32(16)
    return mixed


def _runs(values: Buckets, owners: Owners, sizes: Sequence[int], salt: int) -> tuple[Buckets, Owners]:
    """Runs of values of one owner."""
    found, of = [], []
    for size in sizes:
        last = max(0, len(values) - size + 1)
        run = np.zeros(last, np.uint32)
        for n in range(size):
            run = _mixed(run + values[n : n + last], salt + n)
        is_one = owners[:last] == owners[size - 1 : size - 1 + last]
        found.append(_mixed(run[is_one], salt + size))
        of.append(owners[:last][is_one])
    return np.concatenate(found), np.concatenate(of)


def _parts(clauses: Sequence[Told], is_name: NDArray[np.bool_]) -> tuple[Buckets, Owners]:
    """Runs of characters of the words that are told apart, and of names that are written as code."""
    tokens = [(n, token) for n, clause in enumerate(clauses) for token in (_END, *clause.tokens, _END)]
    words = [
        (n, f"_{token.text}_".encode())
        for (n, token), name in zip(tokens, is_name.tolist(), strict=True)
        if not name and token.kind in ("word", "code")
    ]
    characters = np.frombuffer(b"".join(word for _, word in words), np.uint8).astype(np.uint32)
    of_word = np.repeat(np.arange(len(words)), [len(word) for _, word in words])
    found, of = _runs(characters, of_word, _PARTS, 20)
    return found, np.fromiter((n for n, _ in words), np.int64, len(words))[of]


def _whole(clauses: Sequence[Told], hashes: Buckets, owners: Owners) -> tuple[Buckets, Owners]:
    """What is known of each clause as a whole, and how its neighbours end and begin."""
    rows = []
    sign = fault = 0
    for n, clause in enumerate(clauses):
        kinds = [token.kind for token in clause.tokens]
        before, was_fault = sign, fault
        sign, fault = ord(clause.sign), int(clause.tells_fault)
        rows.append((
            2 * fault + clause.is_told,
            256 * fault + sign,
            min(len(kinds) // 2, 20),
            2 * clause.offers + clause.is_told,
            n == 0,
            n == len(clauses) - 1,
            min(kinds.count("own"), _MOST),
            min(kinds.count("code"), _MOST),
            256 * was_fault + before,
        ))  # fmt: skip
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    ends = np.append(starts[1:], len(owners)) - 1
    first, last = hashes[starts + 1], hashes[ends - 1]
    beside = (
        _mixed(first, 41),
        _mixed(first, 42) + hashes[starts + 2],
        np.append(np.uint32(0), last[:-1]),
        np.append(first[1:], np.uint32(0)),
    )
    columns = np.concatenate((np.array(rows, np.uint32), np.stack(beside, axis=1)), axis=1)
    salts = np.arange(columns.shape[1], dtype=np.uint32) * np.uint32(0x9E3779B1)
    return _mixed(columns + salts, 50).ravel(), np.repeat(np.arange(len(clauses)), columns.shape[1])
