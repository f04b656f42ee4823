"""One request being answered: what its choices' tasks produce, in the order the client may have it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

from agentrl.errors import AgentRLError
from server.events import Ended, Event, Piece, TokenLogprob
from server.wire.errors import ClientGone


class Exchange:
    """Tasks put events in, one response takes them out. `leave` may be called at any time and more than once."""

    def __init__(
        self, *, request_id: str, session: str, turn_ids: tuple[str, ...], lessons: tuple[str, ...] = ()
    ) -> None:
        self.request_id = request_id
        self.session = session
        self.turn_ids = turn_ids
        self.lessons = lessons
        """Those that stand in the prompt."""
        self.version = -1
        """Policy version that began the first choice; -1 before its first id."""
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._began = asyncio.Event()
        self._sampling: dict[int, asyncio.Task[None]] = {}
        self._open = set(range(len(turn_ids)))
        self._taken = [asyncio.Event() for _ in turn_ids]
        self._given: set[int] = set()
        self._failure: AgentRLError | None = None
        self._left: AgentRLError | None = None

    def headers(self) -> dict[str, str]:
        return {
            "X-Turn-Id": ",".join(self.turn_ids),
            "X-Policy-Version": str(self.version),
            "X-Session-Id": self.session,
            **({"X-Agentrl-Lessons": ",".join(self.lessons)} if self.lessons else {}),
        }

    # the tasks' side

    def own(self, choice: int, task: asyncio.Task[None]) -> None:
        """`task` samples a choice and may be cancelled until it says `sampled`."""
        self._sampling[choice] = task

    def began(self, choice: int, version: int) -> None:
        if choice == 0 and self.version < 0:
            self.version = version
            self._began.set()

    def put(self, event: Event) -> None:
        self._queue.put_nowait(event)

    def sampled(self, choice: int) -> None:
        """Nothing cancels the choice from here on: it is being recorded."""
        self._sampling.pop(choice, None)

    def fail(self, error: AgentRLError) -> None:
        """The request has failed: its other choices end too, and the client is told the first error."""
        if self._failure is None:
            self._failure = error
            self._queue.put_nowait(None)
            self._began.set()
        self.leave(error)

    def close(self, choice: int) -> None:
        self._sampling.pop(choice, None)
        self._open.discard(choice)
        if not self._open:
            self._queue.put_nowait(None)
            self._began.set()

    async def was_taken(self, choice: int) -> bool:
        """Waits until the response took the end of a choice; False if the client left before."""
        await self._taken[choice].wait()
        return choice in self._given

    def why_left(self) -> AgentRLError:
        return self._left or ClientGone()

    # the response's side

    async def begun(self) -> None:
        """Waits for the first id of the first choice. Raises what ended the request before it."""
        await self._began.wait()
        if self._failure is not None:
            raise self._failure

    async def events(self) -> AsyncIterator[Event]:
        """Every event until all choices have ended. Raises the request's failure in its place."""
        waiting = len(self.turn_ids)
        while waiting:
            event = await self._queue.get()
            if event is None:
                assert self._failure is not None, "a choice closed without an end"
                raise self._failure
            if isinstance(event, Ended):
                waiting -= 1
                self._given.add(event.choice)
                self._taken[event.choice].set()
            yield event

    async def collect(self) -> list[Ended]:
        """The ends of all choices in order, with all their log-probs."""
        logprobs: list[tuple[TokenLogprob, ...]] = [() for _ in self.turn_ids]
        ends: dict[int, Ended] = {}
        async for event in self.events():
            logprobs[event.choice] += event.logprobs
            if not isinstance(event, Piece):
                ends[event.choice] = replace(event, logprobs=logprobs[event.choice])
        return [ends[choice] for choice in sorted(ends)]

    def leave(self, why: AgentRLError | None = None) -> None:
        """Nobody listens any more: what is being sampled is cancelled, and recorded as far as it came."""
        self._left = self._left or why or ClientGone()
        for task in self._sampling.values():
            task.cancel()
        self._sampling.clear()
        for taken in self._taken:
            taken.set()
