"""What others did at a task, as text: the attempts of a turn's group, and the calls of a trace."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentrl.types import Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Sibling:
    """An episode of the turn's group, the turn's own among them."""

    session: str
    text: str
    """What the policy said and called, turn by turn, without its reasoning."""
    reward: float | None = None
    """None where it was not judged."""


def siblings_of(turns: Sequence[Turn], rewards: Mapping[str, float | None]) -> list[Sibling]:
    """The episodes of one group, in the order of their first turns.

    Args:
        turns: the group's; of one episode in any order.
        rewards: of the episodes, by session.
    """
    sessions: dict[str, list[Turn]] = {}
    for turn in turns:
        sessions.setdefault(turn.session, []).append(turn)
    found = []
    for session, own in sessions.items():
        ordered = sorted(own, key=lambda turn: (turn.received_at, len(turn.prompt_ids)))
        text = "\n".join(part for part in map(said, ordered) if part)
        found.append(Sibling(session=session, text=text, reward=rewards.get(session)))
    return found


def said(turn: Turn) -> str:
    """The reply's text and a line for each call; reasoning is nobody's demonstration."""
    calls = [f"{call.name}({call.arguments})" for call in turn.reply.tool_calls]
    return "\n".join(part for part in (turn.reply.text.strip(), *calls) if part)


def calls_of(text: str) -> list[tuple[str, str]]:
    """Names and arguments of the calls in a JSON trace; none where it is not one."""
    try:
        items = json.loads(text)
    except ValueError:
        return []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        return []
    found = []
    for item in items:
        calls = item.get("tool_calls", [item])
        for call in calls if isinstance(calls, list) else []:
            function = call.get("function", call) if isinstance(call, dict) else None
            if isinstance(function, dict) and isinstance(function.get("name"), str):
                name, arguments = function["name"], function.get("arguments", {})
                found.append((name, arguments if isinstance(arguments, str) else json.dumps(arguments)))
    return found
