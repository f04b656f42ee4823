"""A tokenizer that keeps what a template says apart from what a client says.

`encode` is for rendered templates: control tokens become control ids only where they stand unmarked (shield.py).
`plain` is for everything else: no text whatever becomes a control id. Ids of text without control tokens are those of
the original tokenizer. The class has the surface that the `renderers` package asks of a tokenizer.
"""

from __future__ import annotations

import json
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer

from agentrl.errors import ModelError
from agentrl.text import detokenize
from agentrl.text.detokenize import Detokenizer
from agentrl.text.shield import Shield, unmark

_CACHE_MIN, _CACHE_CHARS = 64, 4_000_000
"""Texts from this length on are kept with their ids, up to so many characters in all: clients resend their history."""


class PlainTokenizer:
    """Wraps a `tokenizers.Tokenizer`.

    Args:
        tokenizer: the model's own; it is not changed.
        name: for messages and for the `renderers` package, which looks models up by it.
        eos_token, unk_token: from the tokenizer's configuration.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        name: str = "",
        eos_token: str | None = None,
        unk_token: str | None = None,
    ) -> None:
        self._original = tokenizer
        self.name_or_path = name
        added: dict[int, AddedToken] = tokenizer.get_added_tokens_decoder()
        self._controls = {
            token.content: (token_id, token)
            for token_id, token in added.items()
            if is_control(token) and token.content != unk_token
        }
        self.control_ids = frozenset(token_id for token_id, _ in self._controls.values())
        self.shield = Shield(self._controls)
        longest_first = sorted(self._controls, key=len, reverse=True)
        self._split = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._first, self._later = without_controls(tokenizer, self._controls)
        self._cache = _TextCache(_CACHE_CHARS)
        self.vocab_size: int = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self.eos_token_id: int | None = None if eos_token is None else tokenizer.token_to_id(eos_token)
        self.unk_token_id: int | None = None if unk_token is None else tokenizer.token_to_id(unk_token)
        self._pieces = detokenize.pieces_of(tokenizer)
        self.blank_ids = frozenset(i for i, piece in self._pieces.of.items() if piece.isspace())

    def encode(self, text: str, *args: Any, **kwargs: Any) -> list[int]:
        """Ids of template text: unmarked control tokens are control ids, the marks are gone."""
        ids: list[int] = []
        for start, end, control in self._sections(text):
            if control is None:
                ids += self._encoded(unmark(text[start:end]), first=start == 0)
            else:
                ids.append(control)
        return ids

    def plain(self, text: str) -> list[int]:
        """Ids of untrusted text, control tokens spelled out."""
        return list(self._encoded(text.encode("utf-8", "replace").decode(), first=True))

    def decode(self, token_ids: Sequence[int], *args: Any, **kwargs: Any) -> str:
        """The text of ids, control tokens included; bytes that are no UTF-8 become U+FFFD."""
        return detokenize.decode(self._pieces, token_ids)

    def convert_tokens_to_ids(self, tokens: str | list[str]) -> Any:
        """The id of a token, None where there is none; a list for a list."""
        if isinstance(tokens, str):
            return self._original.token_to_id(tokens)
        return [self._original.token_to_id(token) for token in tokens]

    def control_id(self, token: str) -> int | None:
        """The id of a control token; None for anything else."""
        return self._controls[token][0] if token in self._controls else None

    def detokenizer(self) -> Detokenizer:
        """A fresh decoder that is fed one id at a time."""
        return Detokenizer(self._pieces)

    def offsets(self, token_ids: Sequence[int]) -> list[tuple[int, int]]:
        """Characters [start, end) of `decode(token_ids)` to which each id contributed."""
        return detokenize.offsets(self._pieces, token_ids)

    def _sections(self, text: str) -> Iterable[tuple[int, int, int | None]]:
        """Runs of text and the control ids between them, as (start, end, id or None)."""
        start = 0
        for match in self._split.finditer(text):
            token_id, token = self._controls[match.group()]
            end = match.start()
            if token.single_word and _touches_word(text, match):
                continue
            if token.lstrip:
                end = start + len(text[start:end].rstrip())
            if end > start:
                yield start, end, None
            yield match.start(), match.end(), token_id
            start = match.end()
            if token.rstrip:
                start += len(text[start:]) - len(text[start:].lstrip())
        if start < len(text):
            yield start, len(text), None

    def _encoded(self, text: str, *, first: bool) -> Sequence[int]:
        tokenizer = self._first if first else self._later
        if len(text) < _CACHE_MIN:
            return _ids(tokenizer, text)
        key = (text, first and self._first is not self._later)
        return self._cache.get(key, lambda: _ids(tokenizer, text))


class _TextCache:
    """Ids of the texts used last, as many as `limit` characters allow."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._ids: OrderedDict[tuple[str, bool], tuple[int, ...]] = OrderedDict()
        self.num_chars = 0

    def get(self, key: tuple[str, bool], make: Callable[[], tuple[int, ...]]) -> tuple[int, ...]:
        found = self._ids.get(key)
        if found is not None:
            self._ids.move_to_end(key)
            return found
        ids = make()
        if len(key[0]) <= self._limit:
            self._ids[key] = ids
            self.num_chars += len(key[0])
            while self.num_chars > self._limit:
                (dropped, _), _ = self._ids.popitem(last=False)
                self.num_chars -= len(dropped)
        return ids


def is_control(token: AddedToken) -> bool:
    """Special tokens, and added ones that look like markup (`<tool_call>`); runs of spaces and words are text."""
    text: str = token.content
    if len(text) < 2 or detokenize.is_byte(text):
        return False
    looks_so = (
        len(text) > 2 and not re.search(r"\s", text) and not text[0].isalnum() and not text[-1].isalnum()
    )
    return bool(token.special) or (looks_so and text[0] in "<[|〈" and text[-1] in ">]|〉")


def _touches_word(text: str, match: re.Match[str]) -> bool:
    before, after = text[: match.start()][-1:], text[match.end() :][:1]
    return before.isalnum() or before == "_" or after.isalnum() or after == "_"


def without_controls(tokenizer: Tokenizer, controls: Iterable[str]) -> tuple[Tokenizer, Tokenizer]:
    """Copies that do not know the control tokens: for the beginning of a text, and for what follows a control token.

    Raises ModelError where the vocabulary cannot be read.
    """
    data = json.loads(tokenizer.to_str())
    gone = set(controls)
    # A name that no client can type. The entries stay: without them the tokens added later would get other ids.
    unreachable = secrets.token_hex(16)
    for token in data["added_tokens"]:
        if token["content"] in gone:
            token |= {"content": token["content"] + unreachable, "special": False, "normalized": False}
    data |= {"post_processor": None, "truncation": None, "padding": None}
    _forget(data["model"], gone, unreachable)
    first = Tokenizer.from_str(json.dumps(data))
    # Some tokenizers put a space before the first word of a text, but not after a control token inside it.
    if _never_prepend(data["pre_tokenizer"]):
        return first, Tokenizer.from_str(json.dumps(data))
    return first, first


def _ids(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    return tuple(tokenizer.encode(text, add_special_tokens=False).ids)


def _forget(model: dict[str, Any], gone: set[str], unreachable: str) -> None:
    """Renames control tokens in a vocabulary that lists them, ids unchanged: some models look whole words up."""
    vocab = model.get("vocab")
    if isinstance(vocab, dict):
        model["vocab"] = {token + unreachable if token in gone else token: i for token, i in vocab.items()}
    elif isinstance(vocab, list):
        model["vocab"] = [[token + unreachable if token in gone else token, score] for token, score in vocab]
    else:
        raise ModelError(f"the tokenizer's {model.get('type')} model has no vocabulary that agentrl can read")
    if "merges" in model:
        pairs = [pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model["merges"]]
        model["merges"] = [pair for pair in pairs if not gone & {*pair, "".join(pair)}]


def _never_prepend(pre_tokenizer: dict[str, Any] | None) -> bool:
    """Turns `prepend_scheme: first` off; False where there is none."""
    if pre_tokenizer is None:
        return False
    changed = False
    for part in pre_tokenizer.get("pretokenizers", [pre_tokenizer]):
        if part.get("prepend_scheme") == "first":
            part["prepend_scheme"] = "never"
            changed = True
    return changed
