"""What transforms work on: samples to be, groups of them, and the asking for new answers."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol

from agentrl.learner.confidence import Stated, stated
from agentrl.text.extend import Parent
from agentrl.types import JSON, Completion, Reply, SampleSource, Sampling, TeacherView, Turn, VersionSpan

if TYPE_CHECKING:
    from agentrl.learner.build import Claim


class Text(Protocol):
    """`agentrl.text.renderer.ChatRenderer`, as far as transforms need it."""

    @property
    def stop_ids(self) -> tuple[int, ...]: ...
    def encode_plain(self, text: str) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...
    def offsets(self, ids: Sequence[int]) -> list[tuple[int, int]]: ...
    def parse(self, ids: Sequence[int], tools: Sequence[JSON]) -> Reply: ...
    def prompt(self, messages: Sequence[JSON], tools: Sequence[JSON], parent: Parent | None) -> _Prompt: ...


class _Prompt(Protocol):
    @property
    def ids(self) -> tuple[int, ...]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One sample to be: a turn, and what of it is trained how."""

    claim: Claim
    """What was claimed; contexts are made from it."""
    turn: Turn
    """What is trained: the claimed turn, or one with other ids in its place."""
    reward: float | None
    source: SampleSource = "sampled"
    attempt: str
    """Members of one attempt share one reward and count once in their group's mean."""
    step: int = 0
    """Advantages are those among the members of one step."""
    turn_index: int = 0
    """Claimed turns of the same episode before this one."""
    only: Literal["kd", "rl"] | None = None
    """The only loss that this member takes; None = what the route says."""
    advantage: float | None = None
    """Of a member whose advantage is not that of its group."""
    trained: tuple[int, int] | None = None
    """Sampled ids [start, end) that are trained; None = all."""
    confidence: float | None = None
    """What replaces the confidence that a context states."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """An answer to be sampled."""

    claim: Claim
    prompt_ids: tuple[int, ...]
    by: Literal["policy", "teacher"]
    temperature: float
    max_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was sampled."""

    completion: Completion
    reply: Reply
    sampling: Sampling
    reward: float | None
    """The verifier's; None where it cannot say, or where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edited:
    """Every claimed turn of a group is in a member or among the dropped."""

    members: tuple[Member, ...]
    dropped: tuple[tuple[str, str], ...] = ()
    """(turn id, reason)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """An answer from elsewhere to the prompt of a turn."""

    turn: Turn
    """With the turn's prompt and the answer's ids."""
    reward: float
    source: SampleSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What a transform is given: members that are compared with each other, and what it may ask."""

    members: tuple[Member, ...]
    view: Callable[[Claim], TeacherView | None]
    """The served prompt with the recipe's context inserted; None where this turn has no context."""
    text: Text | None = None
    """Where the transform needs the second stage."""
    traces: Callable[[Claim], Sequence[Trace]] = lambda _: ()
    """Answers from elsewhere to the turn's prompt, best first."""
    later: Callable[[Claim], Turn | None] = lambda _: None
    """The turn that its conversation went on with after it had been told what to do instead."""
    random: random.Random = field(default_factory=lambda: random.Random(0))

    @property
    def rewards(self) -> dict[str, float]:
        """Of each judged attempt."""
        return {item.attempt: item.reward for item in self.members if item.reward is not None}


Steps = Generator[Sequence[Ask], Sequence[Answer | None], Edited]
Transform = Callable[..., Steps]


def answered(turn: Turn, answer: Answer) -> Turn:
    """The turn with other sampled ids; what was redacted in its prompt stays redacted."""
    return replace(
        turn,
        completion=answer.completion,
        reply=answer.reply,
        sampling=answer.sampling,
        redacted_spans=tuple(
            span for span in turn.redacted_spans if span.path.startswith(("messages.", "tools."))
        ),
        error=None,
    )


def ids_of(text: Text, ids: Sequence[int], start: int, end: int) -> tuple[int, int] | None:
    """Ids [first, last + 1) that hold characters [start, end) of their decoded text; None where none does."""
    touching = [i for i, (a, b) in enumerate(text.offsets(ids)) if a < end and b > start]
    return (touching[0], touching[-1] + 1) if touching else None


def confident(turn: Turn, text: Text, value: float) -> Turn:
    """The turn with the last confidence of its answer replaced; itself where none is stated.

    The ids that hold it are tokenised anew, and only they. No log-prob of the answer is left: those behind the edit
    were given for another text.
    """
    ids = turn.completion.token_ids
    written = text.decode(ids)
    found: Stated | None = stated(written, value)
    span = None if found is None else ids_of(text, ids, found.start, found.end)
    if found is None or span is None or written[found.start : found.end] == found.text:
        return turn
    first, end = span
    offsets = text.offsets(ids)
    edited = text.encode_plain(
        written[offsets[first][0] : found.start] + found.text + written[found.end : offsets[end - 1][1]]
    )
    old = turn.completion
    new_ids = (*ids[:first], *edited, *ids[end:])
    completion = Completion(
        token_ids=new_ids,
        logprobs=(*old.logprobs[:first], *(math.nan for _ in edited), *old.logprobs[end:]),
        raw_logprobs=None,
        num_allowed=None
        if old.num_allowed is None
        else (*old.num_allowed[:first], *(0 for _ in edited), *old.num_allowed[end:]),
        finish_reason=old.finish_reason,
        version_spans=(VersionSpan(version=old.version, start=0, end=len(new_ids)),),
    )
    return replace(turn, completion=completion, reply=text.parse(new_ids, turn.tools))
