"""The words of a turn: its calls and what was asked. What a tool says in them speaks of the action that failed."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Final

from agentrl.text.content import message_text
from agentrl.text.injection_words import STOP, TOOLS
from agentrl.types import Turn

_WORD = re.compile(r"[^\W_][\w.+-]*")
_JOINT = re.compile(r"[._+-]")
_LEAST_WORD: Final = 2


def action_words(turn: Turn) -> frozenset[str]:
    """The words of a turn's calls and of the newest request, with the flags, in lower case; none that says nothing."""
    texts = [message_text(m) for m in reversed(turn.messages) if m.get("role") == "user"][:1]
    names: set[str] = set()
    for call in turn.reply.tool_calls:
        values = _arguments(call.arguments)
        names.update(words_of(" ".join((call.name, *values))))
        texts += values.values()
    if not turn.reply.tool_calls:
        texts.append(turn.reply.text)
    tokens = {token.lower() for text in texts for token in text.split() if len(token) >= _LEAST_WORD}
    return frozenset((names - TOOLS).union(tokens, *map(words_of, texts))) - STOP


def words_of(text: str) -> set[str]:
    """The words of a text in lower case; of a word with joints (`Vec::new`, `list.append`, `--all`) its parts too."""
    found: set[str] = set()
    for match in _WORD.findall(text):
        whole = match.rstrip(".+-").lower()
        found.add(whole)
        if not whole.isalnum():
            found.update(_JOINT.split(whole))
    return {word for word in found if len(word) >= _LEAST_WORD}


def is_own(found: str, words: Collection[str]) -> bool:
    """Whether the action itself holds what was found."""
    parts = words_of(found)
    return found.strip().lower() in words or bool(parts and all(part in words for part in parts))


def _arguments(text: str) -> dict[str, str]:
    """The arguments of a call by name; the whole text under no name where it is no JSON object."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = text
    return (
        {name: str(value) for name, value in values.items()}
        if isinstance(values, dict)
        else {"": str(values)}
    )
