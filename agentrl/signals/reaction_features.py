"""What a user's next words are made of, as named features for `reactions`.

Beside the words themselves: the same words with each name replaced by where it stands (in the answer, in the request,
in both, nowhere), so that "Berlin, not Bonn" is one form whatever the towns; what the word tables find; plain counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from agentrl.signals.phrases import any_of
from agentrl.signals.word_tables import PLAIN
from agentrl.signals.wording import awaits, sentences
from agentrl.text.linear import Group

MAX_SENTENCE_CHARS: Final = 400
MAX_TEXT_CHARS: Final = 4000
SIGN_VALUE: Final = 0.33
_TOKEN = re.compile(r"[\w']+(?:[-./][\w']+)*|[^\w\s]")
_WORD = re.compile(r"[\w'-]+")
_PASTED = re.compile(r"(?m)^\s*(?:[{\[<$>]|```|Traceback|def |import |[\w.]+\(.*\)\W*$)|[{};]\s*$")
"""A line of code, of data or of a program's output."""
_NUMBER = re.compile(r"\d+")
_PLAIN = re.compile(any_of(PLAIN))
_ENDINGS = ("ing", "ed", "es", "s", "ly")
MIN_STEM: Final = 4


def features(text: str, *, reply: str, asked: str, signs: Sequence[str]) -> list[Group]:
    """The features of what a user said behind an answer. Linear in the length, of which a bounded part is read.

    Args:
        text: what the user said.
        reply: the answer.
        asked: the request that the reply answered.
        signs: what `wording.signs` finds in them.
    """
    text, reply, asked = text[:MAX_TEXT_CHARS], reply[-MAX_TEXT_CHARS:], asked[-MAX_TEXT_CHARS:]
    said = [sentence[:MAX_SENTENCE_CHARS].casefold() for sentence in sentences(text)]
    tokens = [["^", *_TOKEN.findall(sentence), "$"] for sentence in said]
    known, given = _words(reply), _words(asked)
    forms = [[_placed(token, known, given) for token in each] for each in tokens]
    return [
        _normed(1.5, [f"w {token}" for each in tokens for word in each[1:-1] for token in _stems(word)]),
        _normed(1.0, [f"b {pair}" for each in tokens for pair in _runs(each, 2)]),
        _normed(1.0, [f"f {run}" for each in forms for size in (1, 2, 3) for run in _runs(each, size)]),
        (SIGN_VALUE, [f"s {sign}" for sign in signs]),
        (SIGN_VALUE, [f"n {fact}" for fact in _facts(text, said, reply, asked)]),
    ]


def _facts(text: str, said: Sequence[str], reply: str, asked: str) -> list[str]:
    """Counts, and what stands in both texts, as names."""
    words, known, given = _named(text), _named(reply), _named(asked)
    numbers, told, wanted = (set(_NUMBER.findall(each)) for each in (text, reply, asked))
    length, ending = min(len(text.split()) // 3, 8), text.rstrip()[-1:]
    waits, asks = awaits(reply), "?" in text
    first = (_TOKEN.findall(said[0]) if said else [])[:1]
    return [
        f"of the answer {min(len(words & known - given), 4)}",
        f"of the request {min(len(words & given - known), 4)}",
        f"of both {min(len(words & given & known), 4)}",
        f"new {min(len(words - given - known), 4)}",
        f"nothing new {bool(words) and words <= given | known}",
        f"new number {bool(numbers - told - wanted)} {bool(told)}",
        f"number of the answer {bool(numbers & told - wanted)}",
        f"number of the request {bool(numbers & wanted - told)}",
        f"length {length}",
        f"length {length} {waits}",
        f"sentences {len(said)}",
        f"waits {waits}",
        f"waits {waits} {first}",
        f"asks {asks}",
        f"ends {'w' if ending.isalnum() else ending}",
        f"ends {ending == '?'} {waits}",
        f"calls {'!' in text}",
        f"pasted {_PASTED.search(text) is not None}",
        f"small {text[:1].islower()}",
        f"answer {min(len(reply) // 100, 5)}",
        f"answer asks {reply.rstrip().endswith('?')}",
    ]


def _placed(token: str, known: frozenset[str], given: frozenset[str]) -> str:
    """A word of grammar as it is, any other by where it stands."""
    if _PLAIN.fullmatch(token) or not token[0].isalnum():
        return token
    kind = "#" if token[0].isdigit() else "w"
    word = _singular(token)
    return f"<{kind}{'R' * (word in known)}{'A' * (word in given)}>"


def _stems(token: str) -> Iterable[str]:
    yield token
    for ending in _ENDINGS:
        if token.endswith(ending) and len(token) - len(ending) >= MIN_STEM:
            yield f"{token[: -len(ending)]}-"
            return


def _runs(tokens: Sequence[str], size: int) -> list[str]:
    return [" ".join(tokens[start : start + size]) for start in range(len(tokens) - size + 1)]


def _normed(length: float, names: Sequence[str]) -> Group:
    """A group whose vector has about the same length however many features it has."""
    return length / max(len(names), 1) ** 0.5, names


def _words(text: str) -> frozenset[str]:
    return frozenset(map(_singular, _WORD.findall(text.casefold())))


def _named(text: str) -> frozenset[str]:
    """Words that say what a text is about."""
    found = _WORD.findall(text.casefold())
    return frozenset(_singular(word) for word in found if not _PLAIN.fullmatch(word))


def _singular(word: str) -> str:
    return word.rstrip("s") if len(word) > 2 else word
