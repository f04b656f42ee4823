"""Turns as a log would hand them to a judge."""

from __future__ import annotations

from typing import Any

from agentrl.types import (
    JSON,
    Arm,
    Completion,
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

BASH: JSON = {
    "type": "function",
    "function": {
        "name": "bash",
        "description": "Run a command.",
        "parameters": {"type": "object", "properties": {"command": {"type": "string"}}},
    },
}


def user(text: str) -> JSON:
    return {"role": "user", "content": text}


def tool(text: str) -> JSON:
    return {"role": "tool", "tool_call_id": "c1", "content": text}


def make_turn(text: str = "", *, command: str | None = None, **changes: Any) -> Turn:
    """A turn that said `text` or ran `command`."""
    calls = (
        () if command is None else (ToolCall(id="c1", name="bash", arguments=f'{{"command": "{command}"}}'),)
    )
    fields: dict[str, Any] = {
        "id": "t1",
        "request_id": "t1",
        "session": "s",
        "scope": "default",
        "parent": None,
        "matched_by": MatchedBy.NONE,
        "kind": TurnKind.MAIN,
        "kind_reason": "",
        "purpose": Purpose.TRAIN,
        "arm": Arm.LEARNING,
        "task_key": "k",
        "messages": (user("List my cousins."),),
        "tools": (),
        "prompt_ids": (),
        "prompt_built_by": "rendered: test",
        "completion": Completion(
            token_ids=(),
            logprobs=(),
            raw_logprobs=None,
            num_allowed=None,
            finish_reason=FinishReason.STOP,
            version_spans=(),
        ),
        "reply": Reply(text=text, tool_calls=calls),
        "sampling": Sampling(),
        "policy": "default",
    }
    return Turn(**(fields | changes))


def followed(*messages: JSON, **changes: Any) -> NextState:
    return NextState(turn_id="t1", messages=messages, **changes)
