"""The asyncio side of an engine whose scheduler runs elsewhere. No torch.

    generate ── Generate ──> link ──> scheduler
       ^                               │
       └── events of the stream <── Report (one a step, for all streams)

A subclass brings the link: `_send` for commands, and calls of `_deliver` with reports on the event loop.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from agentrl.config import EngineConfig
from agentrl.engine.base import Capacity, Finished, Priority, Sampled, Scores
from agentrl.engine.messages import Abort, Command, Drop, Facts, Generate, Load, Report, Score
from agentrl.errors import EngineBusy, EngineGone, RequestError
from agentrl.types import Sampling

MAX_TOP_LOGPROBS = 20

Event = Sampled | Finished | Exception


@dataclass(slots=True, eq=False)
class Stream:
    """One open generation."""

    command: Generate
    request_id: str
    opened_at: float
    events: deque[Event] = field(default_factory=deque)
    waiter: asyncio.Future[None] | None = None
    started: bool = False
    """An id was handed out: the request cannot begin anew."""
    ended: bool = False
    """The scheduler has let go of it."""
    aborted: bool = False
    num_sends: int = 1

    def wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


@dataclass(slots=True, eq=False)
class Call:
    """A command that is answered once."""

    command: Score | Load | Drop
    answer: asyncio.Future[Scores | None]
    num_sends: int = 1


class Frontend:
    """Implements the engine contract over a link to a scheduler."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self._facts: Facts | None = None
        self._numbers = itertools.count(1)
        self._streams: dict[int, Stream] = {}
        self._calls: dict[int, Call] = {}
        self._num_scores = 0
        self._status = Report()
        self._mean_s = 1.0
        """Moving mean of the time that a request is open, for the guess of when a place is free."""
        self._gone: EngineGone | None = None
        """Why nothing can be asked of the engine any more."""

    # -- what a subclass brings ---------------------------------------------------------------------------------

    def _send(self, command: Command) -> None:
        """Hands a command to the scheduler. Neither blocks nor raises: what a dead link swallows is answered later."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Ends the engine. Open requests get EngineGone. Idempotent."""
        raise NotImplementedError

    # -- contract -----------------------------------------------------------------------------------------------

    @property
    def facts(self) -> Facts:
        assert self._facts is not None, "the engine has not been started"
        return self._facts

    @property
    def max_len(self) -> int:
        return self.facts.max_len

    @property
    def precision(self) -> str:
        return self.facts.precision

    @property
    def vocab_size(self) -> int:
        return self.facts.vocab_size

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
        self._check_ids(prompt_ids, "prompt")
        self._check_sampling(sampling)
        self._check_room()
        command = Generate(
            job=next(self._numbers),
            prompt_ids=tuple(prompt_ids),
            sampling=sampling,
            version=version,
            priority=int(priority),
            cache_key=cache_key,
        )
        stream = Stream(command, request_id, time.monotonic())
        self._streams[command.job] = stream
        try:
            self._send(command)
            events = stream.events
            while True:
                while events:
                    event = events.popleft()
                    if isinstance(event, Exception):
                        raise event
                    yield event
                    if isinstance(event, Finished):
                        return
                stream.waiter = asyncio.get_running_loop().create_future()
                await stream.waiter
        finally:
            # Closing the iterator early, a cancellation included, ends up here: the row must be freed.
            self._streams.pop(command.job, None)
            if not stream.ended:
                self._send(Abort(job=command.job))

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
        self._check_ids(token_ids, "sequence to score", room=0)
        if not 1 <= start <= len(token_ids):
            raise RequestError(f"start is {start}; it must be in 1..{len(token_ids)}", param="start")
        if candidate_ids is not None and len(candidate_ids) != len(token_ids) - start:
            count = len(token_ids) - start
            raise RequestError(f"{len(candidate_ids)} candidate lists for {count} ids", param="candidate_ids")
        if not 0 <= top_k <= self.vocab_size:
            raise RequestError(f"top_k is {top_k}; it must be in 0..{self.vocab_size}", param="top_k")
        for row in candidate_ids or ():
            if row:
                self._check_range(row, "candidate_ids")
        self._check_room()
        command = Score(
            job=next(self._numbers),
            token_ids=tuple(token_ids),
            start=start,
            version=version,
            top_k=top_k,
            candidate_ids=None if candidate_ids is None else tuple(tuple(row) for row in candidate_ids),
            priority=int(priority),
        )
        self._num_scores += 1
        try:
            scores = await self._call(command.job, command)
        finally:
            self._num_scores -= 1
        assert scores is not None
        return scores

    async def load_version(self, number: int, path: Path, *, serve: bool = True) -> None:
        """Returns when the version is live.

        With `serve`, the version before it stays while its requests run, and goes by itself. Without, the version is
        held: it answers requests that name it until `drop_version`, whether it is served meanwhile or not. A number
        names the same weights for good: loading a live number again reads nothing.

        Raises:
            ModelError: the folder cannot be loaded.
            VersionGone: a newer candidate took its turn while it waited for a place.
            EngineError: it would be held, and no place may be held any more.
        """
        call = next(self._numbers)
        await self._call(call, Load(call=call, number=number, path=str(path), serve=serve))

    async def drop_version(self, number: int) -> None:
        """Ends the holding of a version: no new request begins on it, and it goes once no request uses it.

        The serving version goes on serving. Raises EngineError when it is not held beyond that.
        """
        call = next(self._numbers)
        await self._call(call, Drop(call=call, number=number))

    async def abort(self, request_id: str) -> None:
        """Ends every stream of this request with Finished(ABORT)."""
        for stream in list(self._streams.values()):
            if request_id and stream.request_id == request_id and not stream.ended:
                stream.aborted = True
                self._send(Abort(job=stream.command.job))

    async def capacity(self) -> Capacity:
        status = self._status
        num_open = self._num_open
        return Capacity(
            running=min(status.running, num_open),
            queued=max(0, num_open - status.running),
            max_running=self.config.max_running,
            max_queued=self.config.max_queued,
            resident_versions=status.resident,
            version_prefill_tokens=status.version_prefill_tokens,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # -- requests -----------------------------------------------------------------------------------------------

    @property
    def _num_open(self) -> int:
        return len(self._streams) + self._num_scores

    def _check_room(self) -> None:
        if self._gone is not None:
            raise EngineGone(str(self._gone)) from self._gone
        running, queued = self.config.max_running, self.config.max_queued
        if self._num_open >= running + queued:
            wait_s = self._mean_s * (queued + 1) / running
            raise EngineBusy(
                f"{running} requests run and {queued} wait", retry_after_s=min(60.0, max(0.05, wait_s))
            )

    def _check_ids(self, token_ids: Sequence[int], what: str, room: int = 1) -> None:
        if not token_ids:
            raise RequestError(f"the {what} is empty", param="prompt")
        if len(token_ids) + room > self.max_len:
            raise RequestError(
                f"the {what} has {len(token_ids)} ids; this engine holds {self.max_len} ids of prompt and reply "
                "together (engine.max_len, at most the model's own limit)",
                param="prompt",
            )
        self._check_range(token_ids, "prompt")

    def _check_range(self, token_ids: Sequence[int], param: str) -> None:
        low, high = min(token_ids), max(token_ids)
        if low < 0 or high >= self.vocab_size:
            wrong = low if low < 0 else high
            raise RequestError(f"id {wrong} is not in the vocabulary 0..{self.vocab_size - 1}", param=param)

    def _check_sampling(self, sampling: Sampling) -> None:
        bounds = (
            ("temperature", 0.0 <= sampling.temperature < float("inf"), "0 or more"),
            ("top_p", 0.0 < sampling.top_p <= 1.0, "above 0, at most 1"),
            ("top_k", sampling.top_k >= 0, "0 (no limit) or more"),
            ("max_tokens", sampling.max_tokens >= 1, "1 or more"),
            ("top_logprobs", 0 <= sampling.top_logprobs <= MAX_TOP_LOGPROBS, f"in 0..{MAX_TOP_LOGPROBS}"),
        )
        for name, fits, bound in bounds:
            if not fits:
                raise RequestError(f"{name} is {getattr(sampling, name)}; it must be {bound}", param=name)
        if sampling.grammar_after is not None:
            self._check_range([sampling.grammar_after], "grammar_after")
        if sampling.grammar is not None and not self.facts.has_text:
            raise RequestError(
                "the model folder has no tokenizer.json, so no grammar can be followed", param="grammar"
            )
        if any(sampling.stop) and not self.facts.has_text:
            raise RequestError(
                "the model folder has no tokenizer.json, so stop strings cannot be matched", param="stop"
            )

    async def _call(self, number: int, command: Score | Load | Drop) -> Scores | None:
        if self._gone is not None:
            raise EngineGone(str(self._gone)) from self._gone
        call = Call(command, asyncio.get_running_loop().create_future())
        self._calls[number] = call
        try:
            self._send(command)
            return await call.answer
        finally:
            del self._calls[number]
            if isinstance(command, Score) and not call.answer.done():
                self._send(Abort(job=number))

    # -- reports ------------------------------------------------------------------------------------------------

    def _deliver(self, report: Report) -> None:
        """Hands a report's events to their streams. Runs on the event loop."""
        self._status = report
        streams = self._streams
        woken: list[Stream] = []
        for job, token_id, logprob, raw, allowed, version, top in report.sampled:
            stream = streams.get(job)
            if stream is None:
                continue
            stream.started = True
            stream.events.append(
                Sampled(
                    token_id=token_id,
                    logprob=logprob,
                    raw_logprob=raw,
                    num_allowed=allowed,
                    version=version,
                    top_logprobs=top,
                )
            )
            woken.append(stream)
        for end in report.ended:
            stream = streams.get(end.job)
            if stream is None:
                continue
            self._mean_s += 0.1 * (time.monotonic() - stream.opened_at - self._mean_s)
            finished = Finished(
                finish_reason=end.finish_reason,
                version_spans=end.version_spans,
                num_cached=end.num_cached,
                num_version_prefill=end.num_version_prefill,
            )
            self._end(stream, finished)
        for number, scores in report.scored:
            self._answer(number, scores)
        for number in report.done:
            self._answer(number, None)
        for number, error in report.failed:
            if number in streams:
                self._end(streams[number], error)
            elif number in self._calls and not self._calls[number].answer.done():
                self._calls[number].answer.set_exception(error)
        for stream in woken:
            stream.wake()

    def _end(self, stream: Stream, event: Event) -> None:
        stream.ended = True
        stream.events.append(event)
        stream.wake()

    def _answer(self, number: int, scores: Scores | None) -> None:
        call = self._calls.get(number)
        if call is not None and not call.answer.done():
            call.answer.set_result(scores)

    def _end_all(self, error: EngineGone) -> None:
        """Ends everything that is open; later requests are refused with the same words."""
        self._gone = error
        for stream in self._streams.values():
            if not stream.ended:
                self._end(stream, error)
        for call in self._calls.values():
            if not call.answer.done():
                call.answer.set_exception(error)
