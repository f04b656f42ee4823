"""Requests that a client makes beside the agent's task: titles, summaries, compactions. They are never trained."""

from __future__ import annotations

import re
from collections.abc import Sequence

from agentrl.types import JSON, TurnKind

_TITLE = re.compile(
    r"\b(?:title generator"
    r"|(?:generate|create|write|suggest) (?:a|an|the) (?:[\w-]+ ){0,4}title\b"
    r"|(?:session|conversation|chat|thread) title\b)",
    re.IGNORECASE,
)
_TALK = r"(?:the|this|our) (?:[\w-]+ ){0,3}(?:conversation|session|history|dialogue|chat|thread|context)\b"
_SUMMARY = re.compile(
    r"\b(?:(?:create|write|provide|generate|produce) (?:a|an|the) (?:[\w-]+ ){0,4}summary of "
    + _TALK
    + r"|(?:summari[sz]e|summari[sz]ing|compact|compacting|compress) "
    + _TALK
    + ")",
    re.IGNORECASE,
)
MAX_LOOKED_AT = 4000
"""Instructions of this kind stand at the beginning of a message; scanning tool output for them would mislead."""


def kind_of_turn(
    declared: TurnKind | None, messages: Sequence[JSON], *, has_tools: bool, session_has_tools: bool
) -> tuple[TurnKind, str]:
    """The kind of a request's turns and why.

    `session_has_tools`: other requests of the session had tools. An agent offers its tools in every step, so a
    request without any is about the conversation, not part of it.
    """
    if declared is not None:
        return declared, "declared by the client"
    if has_tools:
        return TurnKind.MAIN, "has tools"
    if session_has_tools:
        return TurnKind.SIDE, "no tools in a session that has them"
    about = instructions(messages)
    if _TITLE.search(about):
        return TurnKind.SIDE, "asks for a title"
    if _SUMMARY.search(about):
        return TurnKind.SIDE, "asks for a summary"
    return TurnKind.MAIN, "no sign of a side request"


def instructions(messages: Sequence[JSON]) -> str:
    """The system messages and the newest message: where a client says what it wants of a side request.

    A title or a summary that a person asks for in the first words of a conversation is their task: without a
    system message or a history, only the client can have declared it a side request.
    """
    said = [message["content"][:MAX_LOOKED_AT] for message in messages if message["role"] == "system"]
    if len(messages) > 2 and messages[-1]["role"] == "user":
        said.append(messages[-1]["content"][:MAX_LOOKED_AT])
    return "\n".join(said)
