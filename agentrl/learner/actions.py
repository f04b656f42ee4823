"""What was done, and in what situation, as words that can be compared.

Words that an action took from its request are arguments, and marked; so the same command on another file is the same
action.
"""

from __future__ import annotations

import re

from agentrl.signals.commands import read_call
from agentrl.text.content import message_text
from agentrl.types import Turn

MIN_LIKE = 0.8
"""Least share of the shorter text's words that like situations have in common: a word added is no way out."""
MAX_OUTPUT_CHARS = 400
ARGUMENT = "_"

_WORD = re.compile(r"[^\s,;:!?()\[\]{}\"'`]+")

Words = frozenset[str]


def situation_of(turn: Turn) -> tuple[Words, Words]:
    """The words of the newest request and of the newest tool output behind it, the action's arguments marked."""
    taken = set(words_of(" ".join(call_texts(turn))))
    return marked(request_of(turn), taken), marked(output_of(turn), taken)


def action_of(turn: Turn) -> tuple[str, ...]:
    """What was done: each call's tool and words, those of the request marked; without calls the reply's text.

    Words of the tool output are not marked: an error names the command that failed and the one to use, and both would
    be the same action.
    """
    if not turn.reply.tool_calls:
        return ("", " ".join(turn.reply.text.split()))
    known = set(words_of(request_of(turn)))
    names = [call.name for call in turn.reply.tool_calls]
    return tuple(
        " ".join((name, *(ARGUMENT if word in known else word for word in words_of(text))))
        for name, text in zip(names, call_texts(turn), strict=True)
    )


def request_of(turn: Turn) -> str:
    return next((message_text(m) for m in reversed(turn.messages) if m.get("role") == "user"), "")


def output_of(turn: Turn) -> str:
    """The newest tool output behind the newest request, cut; empty where there is none."""
    for message in reversed(turn.messages):
        if message.get("role") == "user":
            return ""
        if message.get("role") == "tool":
            return message_text(message)[:MAX_OUTPUT_CHARS]
    return ""


def without_options(action: tuple[str, ...], options: Words) -> tuple[str, ...]:
    """An action without options but those given."""
    return tuple(
        " ".join(word for word in call.split() if not word.startswith("-") or word.lower() in options)
        for call in action
    )


def named_options(hint: str, action: tuple[str, ...]) -> Words:
    """The options in a hint, and those of an action that it names with or without their dashes."""
    words = {word.lower() for word in words_of(hint)}
    return frozenset(
        {word for word in words if word.startswith("-")}
        | {option for option in call_words(action) if option.startswith("-") and option.lstrip("-") in words}
    )


def done_words(action: tuple[str, ...]) -> Words:
    """The words of an action's calls and the names of their tools; none where the calls have none."""
    words = call_words(action)
    return words | {call.split()[0].lower() for call in action} if words else words


def call_words(action: tuple[str, ...]) -> Words:
    """The words of an action's calls, without the names of the tools; none where it was a text."""
    return frozenset(word.lower() for call in action if action[0] for word in call.split()[1:])


def call_texts(turn: Turn) -> list[str]:
    """Of each call the texts of its arguments."""
    return [
        " ".join(read_call(call.name, call.arguments).values) or call.arguments
        for call in turn.reply.tool_calls
    ]


def marked(text: str, taken: set[str]) -> Words:
    return frozenset(ARGUMENT if word in taken else word.lower() for word in words_of(text))


def words_of(text: str) -> list[str]:
    return [word for word in (match.rstrip(".") for match in _WORD.findall(text)) if word]


def are_like(a: Words, b: Words, least: float = MIN_LIKE) -> bool:
    return bool(a) and bool(b) and len(a & b) >= least * min(len(a), len(b))
