"""One chat request as the gateway sees it, whatever dialect it came in."""

from __future__ import annotations

from dataclasses import dataclass, field

from agentrl.engine.base import Priority
from agentrl.types import JSON, Purpose, Sampling, TurnKind

JUDGE_SCOPE = "agentrl-judge"
"""Scope of what the server asks its own model; no key of a client's has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks. Nothing crosses scopes."""

    scope: str
    name: str = "default"
    purpose: Purpose = Purpose.TRAIN
    session: str | None = None
    """The session that the key named ("KEY/s/SESSION"); None where it named none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What a request says of itself beside its messages."""

    session: str | None = None
    """None = to be inferred from the history."""
    purpose: Purpose = Purpose.TRAIN
    kind: TurnKind | None = None
    """What the client declares the turn to be; None = told by the rules."""
    task_key: str | None = None
    """The environment's name of the task; None = a hash of the first user message."""
    priority: Priority = Priority.USER
    is_retry: bool = False
    """The client's SDK says that it sent this before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """Messages hold {"role", "content": str} and, where present, name, tool_calls, tool_call_id, reasoning_content."""

    caller: Caller
    marks: Marks
    messages: tuple[JSON, ...]
    tools: tuple[JSON, ...]
    """What the model is shown."""
    has_tools: bool
    """The client sent tools, shown or not."""
    sampling: Sampling
    num_choices: int = 1
    version: int | None = None
    """The policy version that the client pinned; None = the server's choice."""
    client: str = ""
    """User-Agent."""
    received_at: float = 0.0
    """Unix seconds."""
    clock: float = field(default=0.0)
    """time.perf_counter() at receipt."""
