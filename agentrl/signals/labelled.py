"""Labelled turns: what a judge should say of a turn, with the reason, to score any judge by.

The set has two halves and a sealed part without a sentence in common. `dev` may be read by whoever improves a judge;
`test` and `sealed` only give figures, and `sealed` was written later, without sight of the rules. A turn is
labelled by what its next state proves, not by what its author hoped for:

- reward -1: refused, failed or corrected through the agent's own fault, or bought by gaming; 1: shown to have worked or
  approved for a reason; 0: looked at and neither (half right; a needless question; praise for nothing);
  None: nothing can be said (a new task, output without a verdict, a failure of the infrastructure).
- fault: whose fault an error is. Time-outs, networks, rate limits, full disks and missing services are nobody's lesson.
- kind: what sort of signal the next state is. `gamed` turns must never be rewarded above 0.
- should_hint: whether the next state says what should have been done; a right hint holds all of `hint_contains`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Literal, cast, get_args

from agentrl.text.observations import as_heard
from agentrl.types import (
    JSON,
    Arm,
    Completion,
    End,
    FinishReason,
    MatchedBy,
    NextState,
    Purpose,
    Reply,
    Sampling,
    ToolCall,
    Turn,
    TurnKind,
)

Domain = Literal["terminal", "tools", "chat", "code", "gui"]
Half = Literal["dev", "test", "sealed", "sealed2"]
Fault = Literal["agent", "infrastructure", "none"]
Kind = Literal[
    "correction", "new_task", "progress", "error", "praise", "regenerated", "edited", "none", "gamed"
]
REWARDS = (-1, 0, 1, None)
SET = resources.files("agentrl.signals") / "judge_set"


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What a judge should say."""

    reward: int | None
    """-1, 0, 1; None where an abstention is right."""
    fault: Fault
    kind: Kind
    should_hint: bool
    hint_contains: tuple[str, ...] = ()
    """Words that a right hint holds, whatever their case; empty where none is due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledTurn:
    """One turn of the set."""

    id: str
    domain: Domain
    half: Half
    made_by: str
    """"hand", or the name of the generator."""
    messages: tuple[JSON, ...]
    """The request's messages: system, task, earlier turns."""
    tools: tuple[JSON, ...]
    reply: Reply
    next: tuple[JSON, ...]
    """Every message after the turn up to the next assistant turn. After an edit: the message as the user rewrote it."""
    end: End | None
    label: Label
    reason: str
    """Why the label is right, in a sentence."""


def read_half(half: Half) -> tuple[LabelledTurn, ...]:
    """The turns of one half, in the order of the file."""
    text = (SET / f"{half}.jsonl").read_text(encoding="utf-8")
    return read_lines(text.splitlines())


def read_lines(lines: Iterable[str]) -> tuple[LabelledTurn, ...]:
    """Labelled turns from JSON lines. Raises ValueError with the line's number and fault."""
    turns = []
    for number, line in enumerate(lines, 1):
        try:
            turns.append(from_json(json.loads(line)))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"line {number} is no labelled turn: {error!r}") from error
    return tuple(turns)


def from_json(data: JSON) -> LabelledTurn:
    """One record as it stands in the files. Raises KeyError, TypeError or ValueError where it is malformed."""
    label, reply = data["label"], data["reply"]
    if label["reward"] not in REWARDS:
        raise ValueError(f"reward {label['reward']!r} is none of {REWARDS}")
    return LabelledTurn(
        id=data["id"],
        domain=cast(Domain, _one_of(data["domain"], Domain)),
        half=cast(Half, _one_of(data["half"], Half)),
        made_by=data["made_by"],
        messages=tuple(data["messages"]),
        tools=tuple(data["tools"]),
        reply=Reply(
            text=reply["text"],
            tool_calls=tuple(
                ToolCall(id=call["id"], name=call["name"], arguments=call["arguments"])
                for call in reply["calls"]
            ),
        ),
        next=tuple(data["next"]),
        end=None if data["end"] is None else End(data["end"]),
        label=Label(
            reward=label["reward"],
            fault=cast(Fault, _one_of(label["fault"], Fault)),
            kind=cast(Kind, _one_of(label["kind"], Kind)),
            should_hint=label["should_hint"],
            hint_contains=tuple(label["hint_contains"]),
        ),
        reason=data["reason"],
    )


def as_turn(item: LabelledTurn) -> tuple[Turn, NextState]:
    """The turn and next state as a judge is handed them."""
    return as_heard(*unsampled(item.id, item.messages, item.tools, item.reply, item.next, item.end))


def unsampled(
    name: str,
    messages: Sequence[JSON],
    tools: Sequence[JSON],
    reply: Reply,
    following: Sequence[JSON],
    end: End | None = None,
) -> tuple[Turn, NextState]:
    """A turn and its next state as a live log would hold them, of a conversation that nobody sampled: without ids.

    Args:
        name: of the turn, its session and its task.
        following: the messages of the next state.
    """
    turn = Turn(
        id=name,
        request_id=name,
        session=name,
        scope="judge_set",
        parent=None,
        matched_by=MatchedBy.NONE,
        kind=TurnKind.MAIN,
        kind_reason="labelled",
        purpose=Purpose.EVAL,
        arm=Arm.CONTROL,
        task_key=name,
        messages=tuple(messages),
        tools=tuple(tools),
        prompt_ids=(),
        prompt_built_by="rendered: labelled",
        completion=Completion(
            token_ids=(),
            logprobs=(),
            raw_logprobs=None,
            num_allowed=None,
            finish_reason=FinishReason.TOOL_CALLS if reply.tool_calls else FinishReason.STOP,
            version_spans=(),
        ),
        reply=reply,
        sampling=Sampling(),
        policy="default",
    )
    state = NextState(turn_id=name, messages=tuple(following), end=end)
    if end is None:
        answers_call = any(message["role"] == "tool" for message in following)
        matched = MatchedBy.TOOL_CALL_ID if answers_call else MatchedBy.HISTORY
        state = replace(state, matched_by=matched, answered_by=f"{name}-next")
    return turn, state


def _one_of(value: str, names: object) -> str:
    if value not in get_args(names):
        raise ValueError(f"{value!r} is none of {get_args(names)}")
    return value
