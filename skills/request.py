"""What was asked, as skills are found by it: without the arguments that the action took over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from agentrl.store.codec import storable
from agentrl.teacher.recall import asked_words, request_text, request_words
from agentrl.types import Turn

MAX_TEXT = 2000
"""Characters of a text; embedding models read no further either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request's words, which word likeness compares, and its text, which embeddings compare."""

    words: frozenset[str]
    text: str

    @classmethod
    def of(cls, turn: Turn) -> Self:
        """The newest user message that a turn answered."""
        return cls(words=request_words(turn), text=_whole(request_text(turn)))

    @classmethod
    def written(cls, text: str) -> Self:
        """A request that nothing has answered yet; `_` stands for what an action would take over."""
        return cls(words=asked_words([{"role": "user", "content": text}]), text=_whole(text))


def _whole(text: str) -> str:
    """A text for SQLite and tokenizers, which refuse half a character; a client's JSON may hold one."""
    return storable(text[:MAX_TEXT])
