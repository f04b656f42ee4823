"""A test double: an engine that answers from a script. No torch, no threads, no time.

    engine = ScriptedEngine([[5, 6, 2], [7, 2]])              each request takes the next reply
    engine = ScriptedEngine(lambda prompt, sampling: [7, 2])   or a reply is made for each
    engine = ScriptedEngine([EngineGone("pulled")])            an exception is raised in its place

`hold()` keeps ids back until `release()`, so that a test can look at requests in flight without sleeping.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentrl.engine.base import Capacity, Finished, Priority, Sampled, Scores
from agentrl.errors import EngineBusy, EngineError, EngineGone, RequestError, VersionGone
from agentrl.types import FinishReason, Sampling, VersionSpan

LOGPROB = -0.5
"""What every scripted id is said to have had, raw and processed."""

Reply = Sequence[int | Sampled]
Script = Iterable[Reply | Exception] | Callable[[tuple[int, ...], Sampling], Reply | Exception]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call of `generate`, as it was made."""

    prompt_ids: tuple[int, ...]
    sampling: Sampling
    version: int
    priority: Priority
    cache_key: str
    request_id: str


class ScriptedEngine:
    """Implements the engine contract without a model."""

    def __init__(
        self,
        replies: Script,
        *,
        max_len: int = 4096,
        vocab_size: int = 1 << 20,
        max_running: int = 16,
        max_queued: int = 256,
    ) -> None:
        """
        Args:
            replies: one per request; ids, or whole `Sampled` records. Ids beyond `max_tokens` or a stop id are not
                handed out.
            max_len: most ids of prompt and reply together.
            vocab_size: ids are below this.
            max_running: requests that get ids at the same time; the others wait.
            max_queued: requests that may wait.
        """
        self.requests: list[Request] = []
        self.loaded: dict[int, Path | None] = {0: None}
        """Live versions and their folders."""
        self._max_len, self._vocab_size = max_len, vocab_size
        self._max_running, self._max_queued = max_running, max_queued
        self._make = replies if callable(replies) else reply_maker(iter(replies))
        self._serving = 0
        self._held: set[int] = set()
        self._slots = asyncio.Semaphore(max_running)
        self._gate = asyncio.Event()
        self._gate.set()
        self._aborted: set[str] = set()
        self._running = 0
        self._open = 0
        self._closed = False

    @property
    def max_len(self) -> int:
        return self._max_len

    @property
    def precision(self) -> str:
        return "fp32"

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    def hold(self) -> None:
        """Keeps every id back from now on."""
        self._gate.clear()

    def release(self) -> None:
        self._gate.set()

    async def generate(
        self,
        prompt_ids: Sequence[int],
        sampling: Sampling,
        *,
        version: int | None = None,
        priority: Priority = Priority.USER,
        cache_key: str = "",
        request_id: str = "",
    ) -> AsyncIterator[Sampled | Finished]:
        number = self._admit(prompt_ids, version)
        request = Request(
            prompt_ids=tuple(prompt_ids),
            sampling=sampling,
            version=number,
            priority=priority,
            cache_key=cache_key,
            request_id=request_id,
        )
        self._open += 1
        try:
            async with self._slots:
                self._running += 1
                try:
                    self.requests.append(request)
                    async for event in self._play(request):
                        yield event
                finally:
                    self._running -= 1
        finally:
            self._open -= 1

    def _admit(self, prompt_ids: Sequence[int], version: int | None) -> int:
        """The version to answer with. Raises what the contract names."""
        if self._closed:
            raise EngineGone("the engine was closed")
        if not prompt_ids or len(prompt_ids) >= self._max_len:
            raise RequestError(f"{len(prompt_ids)} prompt ids do not fit in {self._max_len}", param="prompt")
        if version is not None and version not in self.loaded:
            raise VersionGone(f"version {version} is not live in the engine")
        if self._open >= self._max_running + self._max_queued:
            raise EngineBusy(f"{self._open} requests are open", retry_after_s=0.1)
        return self._serving if version is None else version

    async def _play(self, request: Request) -> AsyncIterator[Sampled | Finished]:
        sampling = request.sampling
        room = min(sampling.max_tokens, self._max_len - len(request.prompt_ids))
        reply = self._make(request.prompt_ids, sampling)
        if isinstance(reply, Exception):
            raise reply
        events = [as_sampled(item, request.version) for item in reply[:room]]
        reason = FinishReason.LENGTH if len(events) == room else FinishReason.STOP
        count = 0
        for event in events:
            await self._gate.wait()
            if self._closed:
                raise EngineGone("the engine was closed")
            if request.request_id in self._aborted:
                reason = FinishReason.ABORT
                break
            count += 1
            yield event
            if event.token_id in sampling.stop_token_ids:
                reason = FinishReason.STOP
                break
        spans = (VersionSpan(version=request.version, start=0, end=count),) if count else ()
        yield Finished(finish_reason=reason, version_spans=spans)

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
        """Every id gets the same log-prob; the likeliest ids are those scored, then 0, 1, 2..."""
        number = self._admit(token_ids, version)
        if not 1 <= start <= len(token_ids):
            raise RequestError(f"start is {start}; it must be in 1..{len(token_ids)}", param="start")
        scored = token_ids[start:]
        others = [[i for i in range(top_k) if i != token_id][: top_k - 1] for token_id in scored]
        top = tuple(
            tuple((i, LOGPROB) for i in (token_id, *rest))
            for token_id, rest in zip(scored, others, strict=True)
        )
        return Scores(
            logprobs=(LOGPROB,) * len(scored),
            version=number,
            top=top if top_k else (),
            candidates=tuple((LOGPROB,) * len(row) for row in candidate_ids or ()),
        )

    async def load_version(self, number: int, path: Path, *, serve: bool = True) -> None:
        self.loaded[number] = path
        if serve:
            self._serving = number
        else:
            self._held.add(number)

    async def drop_version(self, number: int) -> None:
        if number != self._serving:
            self.loaded.pop(number, None)
        elif number not in self._held:
            raise EngineError(f"version {number} is being served; serve another before dropping it")
        self._held.discard(number)

    async def abort(self, request_id: str) -> None:
        self._aborted.add(request_id)

    async def capacity(self) -> Capacity:
        return Capacity(
            running=self._running,
            queued=self._open - self._running,
            max_running=self._max_running,
            max_queued=self._max_queued,
            resident_versions=tuple(self.loaded),
        )

    async def aclose(self) -> None:
        self._closed = True
        self.release()


def reply_maker(
    replies: Iterable[Reply | Exception],
) -> Callable[[tuple[int, ...], Sampling], Reply | Exception]:
    """Hands out a list in order; asking for more than it holds is the test's mistake."""
    left = iter(replies)

    def make(_prompt_ids: tuple[int, ...], _sampling: Sampling) -> Reply | Exception:
        try:
            return next(left)
        except StopIteration:
            raise AssertionError("the scripted engine has no reply left") from None

    return make


def as_sampled(item: int | Sampled, version: int) -> Sampled:
    if isinstance(item, Sampled):
        return item
    return Sampled(token_id=item, logprob=LOGPROB, raw_logprob=LOGPROB, num_allowed=2, version=version)
