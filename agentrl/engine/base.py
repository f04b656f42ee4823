"""The engine contract: prompt ids in, sampled ids with log-probs out, several policy versions at once.

An engine knows nothing of messages, sessions or learning. Contract suite: tests/engine/test_contract.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Protocol

from agentrl.types import FinishReason, Sampling, VersionSpan


class Priority(IntEnum):
    """Who waits for whom: a lower number goes first."""

    USER = 0
    TEACHER = 1
    JUDGE = 2
    SUMMARISER = 3
    PROBE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """One sampled id."""

    token_id: int
    logprob: float
    """Under the distribution sampled from, after temperature and filters."""
    raw_logprob: float | None
    """At temperature 1 without filters."""
    num_allowed: int | None
    """Size of the support sampled from."""
    version: int
    top_logprobs: tuple[tuple[int, float], ...] = ()
    """The most likely ids with raw log-probs, best first, as many as were asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The last event of a stream."""

    finish_reason: FinishReason
    version_spans: tuple[VersionSpan, ...]
    num_cached: int = 0
    """Prompt ids whose keys and values were reused."""
    num_version_prefill: int = 0
    """Ids prefilled again only because the version had changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """A snapshot for back-pressure and metrics."""

    running: int
    queued: int
    max_running: int
    max_queued: int
    resident_versions: tuple[int, ...]
    version_prefill_tokens: int = 0
    """Ids prefilled again because of a version change, since the start."""


class Engine(Protocol):
    """What the gateway, the judge and the probes ask of an engine. All methods may raise EngineError."""

    @property
    def max_len(self) -> int:
        """Most ids of prompt and reply together."""
        ...

    @property
    def precision(self) -> str:
        """Number type of the forward pass: "fp32" or "bf16"."""
        ...

    @property
    def vocab_size(self) -> int: ...

    def generate(
        self,
        prompt_ids: Sequence[int],
        sampling: Sampling,
        *,
        version: int | None = None,
        priority: Priority = Priority.USER,
        cache_key: str = "",
        request_id: str = "",
    ) -> AsyncIterator[Sampled | Finished]:
        """Streams sampled ids, then one Finished. Closing the iterator cancels the request.

        `version` None means the newest serving version at the start. `cache_key` names the scope and
        session whose keys and values may be reused; "" reuses nothing. Raises EngineBusy when the queue
        is full, VersionGone when `version` is not resident, RequestError when the prompt does not fit or the
        grammar cannot be honoured.
        """
        ...

    async def score(
        self,
        token_ids: Sequence[int],
        start: int,
        *,
        version: int | None = None,
        top_k: int = 0,
        candidate_ids: Sequence[Sequence[int]] | None = None,
        priority: Priority = Priority.TEACHER,
    ) -> Scores:
        """Raw log-probs of token_ids[start:], each given all ids before it. 1 <= start <= len."""
        ...

    async def load_version(self, number: int, path: Path, *, serve: bool = True) -> None:
        """Makes a version resident; with `serve`, new requests without a version begin on it."""
        ...

    async def drop_version(self, number: int) -> None:
        """Lets a version go once no request uses it."""
        ...

    async def abort(self, request_id: str) -> None: ...

    async def capacity(self) -> Capacity: ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Log-probs of given ids. R = len(token_ids) - start."""

    logprobs: tuple[float, ...]
    """[R] raw log-prob of each id."""
    version: int
    top: tuple[tuple[tuple[int, float], ...], ...] = ()
    """[R][K] most likely ids, best first, when top_k > 0."""
    candidates: tuple[tuple[float, ...], ...] = ()
    """[R][C] log-probs of `candidate_ids`, when given."""
