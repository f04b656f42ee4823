"""Turns of a shell, what is said of them, and a quarantine that has heard it."""

import json
from dataclasses import replace

from agentrl.learner.quarantine import Quarantine
from agentrl.learner.trust import Trust
from agentrl.signals.labelled import as_turn, from_json
from agentrl.types import Reply, Signal, SignalSource, ToolCall, Turn

BASE = {
    "id": "t",
    "domain": "terminal",
    "half": "dev",
    "made_by": "hand",
    "messages": [{"role": "user", "content": "Compress the file notes.txt."}],
    "tools": [],
    "reply": {"text": "", "calls": []},
    "next": [],
    "end": None,
    "label": {"reward": -1, "fault": "agent", "kind": "error", "should_hint": True, "hint_contains": []},
    "reason": "",
}
FIRST, _ = as_turn(from_json(BASE))


def turn(
    name: str,
    command: str = "gzip notes.txt",
    request: str = "Compress the file notes.txt.",
    *,
    session: str | None = None,
    output: str | None = None,
    scope: str = "default",
) -> Turn:
    messages: list[dict[str, object]] = [{"role": "user", "content": request}]
    if output is not None:
        messages.append({"role": "tool", "content": output, "tool_call_id": "c0"})
    call = ToolCall(id="c1", name="bash", arguments=json.dumps({"command": command}))
    return replace(
        FIRST,
        id=name,
        session=session or f"session-{name}",
        scope=scope,
        messages=tuple(messages),
        reply=Reply(text="", tool_calls=(call,)),
    )


def say(
    name: str, reward: float | None = None, hint: str | None = None, source: SignalSource = SignalSource.RULE
) -> list[Signal]:
    return [Signal(turn_id=name, source=source, reward=reward, hint=hint)]


def heard(
    *said: tuple[Turn, list[Signal]], trust: dict[str, float] | None = None, min_sessions: int = 1
) -> Quarantine:
    quarantine = Quarantine(Trust(weights=trust or {}), min_sessions=min_sessions)
    for one, signals in said:
        quarantine.add(one, signals)
    return quarantine
