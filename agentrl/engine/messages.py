"""What crosses between an engine's asyncio side and its scheduler, in a thread or in a child process. No torch.

Commands go one by one. Reports come back one per scheduler step, for all sequences together: at a thousand steps a
second the number of messages is what costs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from agentrl.engine.base import Scores
from agentrl.types import FinishReason, Sampling, VersionSpan


@dataclass(frozen=True, slots=True, kw_only=True)
class Generate:
    job: int
    """Names the request between the two sides; never used twice."""
    prompt_ids: tuple[int, ...]
    sampling: Sampling
    version: int | None
    priority: int
    cache_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    job: int
    token_ids: tuple[int, ...]
    start: int
    version: int | None
    top_k: int
    candidate_ids: tuple[tuple[int, ...], ...] | None
    priority: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Abort:
    job: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    call: int
    """Names the call whose end a report tells."""
    number: int
    path: str
    serve: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    call: int
    number: int


Command = Generate | Score | Abort | Load | Drop

SampledRow = tuple[int, int, float, float, int, int, tuple[tuple[int, float], ...]]
"""job, id, logprob, raw logprob, num_allowed, version, top_logprobs: a plain tuple, since it is made for every id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The last word on a generation."""

    job: int
    finish_reason: FinishReason
    version_spans: tuple[VersionSpan, ...]
    num_cached: int
    num_version_prefill: int


@dataclass(slots=True)
class Report:
    """What one scheduler step did."""

    sampled: list[SampledRow] = field(default_factory=list)
    ended: list[End] = field(default_factory=list)
    scored: list[tuple[int, Scores]] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    """Calls that succeeded."""
    failed: list[tuple[int, Exception]] = field(default_factory=list)
    """Jobs and calls that failed; jobs and calls share one sequence of numbers."""
    running: int = 0
    resident: tuple[int, ...] = ()
    version_prefill_tokens: int = 0

    def __bool__(self) -> bool:
        return bool(self.sampled or self.ended or self.scored or self.done or self.failed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the asyncio side must know of the model."""

    max_len: int
    vocab_size: int
    precision: str
    has_text: bool
    """Whether ids can be turned into text, as stop strings need."""
    version: int
