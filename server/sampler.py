"""One choice from the engine into the log: sample, parse, commit, and only then let the client act.

generate ──ids──> Choice ──pieces──> exchange
                    │ finish
                    ├─ record_turn ──committed──> held pieces, end ──> exchange
                    └─ error, deadline, client gone: recorded as far as it came, never trained
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import cast

from agentrl.config import Config
from agentrl.engine.base import Engine, Finished, Sampled
from agentrl.errors import AgentRLError, EngineError, StoreError
from agentrl.text.renderer import Renderer
from agentrl.types import Arm, End, FinishReason, Reply, Sampling, Turn
from server.choice import Choice
from server.conversations import Conversations, Place
from server.events import Ended
from server.exchange import Exchange
from server.metrics import Metrics
from server.outcomes import Outcomes
from server.prompts import Served
from server.recorder import Recorder
from server.request import ChatRequest
from server.wire.errors import ClientGone, Deadline

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A request on its way to the engine; the same for all its choices."""

    chat: ChatRequest
    place: Place
    prompt: Served
    sampling: Sampling
    arm: Arm
    version: int | None
    """None = the engine's choice: the newest, or for a while the one that holds the conversation's keys and values."""

    @property
    def conversation(self) -> str:
        """Whose keys and values may be reused; scopes never share any."""
        return f"{self.chat.caller.scope}\0{self.place.session}"


@dataclass(slots=True)
class Run:
    """What is known of a choice while it is being sampled."""

    choice: Choice
    first_token_s: float | None = None
    finished: Finished | None = None


class Sampler:
    def __init__(
        self,
        *,
        config: Config,
        engine: Engine,
        renderer: Renderer,
        recorder: Recorder,
        conversations: Conversations,
        outcomes: Outcomes,
        metrics: Metrics,
    ) -> None:
        self._policy = config.policy
        self._timeout_s = config.server.request_timeout_s
        self._engine = engine
        self._renderer = renderer
        self._recorder = recorder
        self._conversations = conversations
        self._outcomes = outcomes
        self._metrics = metrics

    async def run(self, order: Order, exchange: Exchange, index: int) -> None:
        """Samples one choice to its end, whatever that is. Raises nothing: the exchange is told."""
        turn_id = exchange.turn_ids[index]
        run = Run(Choice(index, turn_id, self._renderer, order.chat.tools, stop=order.sampling.stop))
        recorded, failed = False, True
        self._metrics.in_flight.inc()
        try:
            error = await self._sample(order, exchange, run)
            exchange.sampled(index)
            if error is None:
                recorded = await self._finish(order, exchange, run)
                failed = False
            else:
                recorded = await self._cut(order, exchange, run, error)
        except AgentRLError as error:
            exchange.fail(error)
        except Exception:
            # The outermost place for this task: nobody awaits it, so the error would end here unseen.
            logger.exception("turn %s failed", turn_id)
            exchange.fail(EngineError("the turn could not be finished; the server's log says why"))
        finally:
            self._metrics.in_flight.dec()
            exchange.close(index)
        await self._settle(order, turn_id, recorded=recorded, failed=failed)

    async def _sample(self, order: Order, exchange: Exchange, run: Run) -> AgentRLError | None:
        """Fills `run`; returns what ended the sampling early, None where the engine finished."""
        left_s = order.chat.clock + self._timeout_s - time.perf_counter()
        try:
            async with asyncio.timeout(max(0.0, left_s)):
                await self._stream(order, exchange, run)
        except TimeoutError:
            return Deadline(f"The request took longer than server.request_timeout_s ({self._timeout_s:g} s).")
        except asyncio.CancelledError:
            return exchange.why_left()
        except AgentRLError as error:
            return error
        return None

    async def _stream(self, order: Order, exchange: Exchange, run: Run) -> None:
        index = run.choice.index
        seed = order.sampling.seed
        stream = self._engine.generate(
            order.prompt.ids,
            # Equal seeds would make all choices of a request the same.
            order.sampling if not index or seed is None else replace(order.sampling, seed=seed + index),
            version=order.version,
            priority=order.chat.marks.priority,
            cache_key=order.conversation,
            request_id=run.choice.turn_id,
        )
        async with aclosing(cast("AsyncGenerator[Sampled | Finished]", stream)):
            async for item in stream:
                if isinstance(item, Finished):
                    run.finished = item
                    continue
                if run.first_token_s is None:
                    run.first_token_s = time.perf_counter() - order.chat.clock
                    exchange.began(index, item.version)
                for piece in run.choice.feed(item):
                    exchange.put(piece)
        if run.finished is None or run.finished.finish_reason is FinishReason.ABORT:
            raise EngineError("the engine ended the request before its reply was complete")

    async def _finish(self, order: Order, exchange: Exchange, run: Run) -> bool:
        """Commits a complete turn, then releases what was held back. Returns whether it is in the log.

        Raises StoreError where it is not and the operator did not choose to serve on.
        """
        assert run.finished is not None
        held, reply, logprobs = run.choice.finish()
        reason = FinishReason.TOOL_CALLS if reply.tool_calls else run.finished.finish_reason
        turn = self._turn(order, exchange, run, reply, reason, error=None)
        recorded = await self._recorder.commit(turn)
        for piece in held:
            exchange.put(piece)
        num_cached = run.finished.num_cached
        exchange.put(
            Ended(
                choice=run.choice.index,
                turn=turn,
                num_cached=num_cached,
                recorded=recorded,
                logprobs=logprobs,
            )
        )
        if recorded:
            self._metrics.recorded(turn, num_cached=num_cached)
        if not await exchange.was_taken(run.choice.index) and recorded:
            await self._outcomes.end(turn.id, End.CLIENT_GONE)
        return recorded

    async def _cut(self, order: Order, exchange: Exchange, run: Run, error: AgentRLError) -> bool:
        """Records what was sampled before `error`. A choice without one id is no turn."""
        exchange.fail(error)
        self._metrics.failures.labels(type(error).__name__).inc()
        if not len(run.choice):
            return False
        _, reply, _ = run.choice.finish()
        named = f"{type(error).__name__}: {error}"
        turn = self._turn(order, exchange, run, reply, FinishReason.ABORT, error=named)
        try:
            recorded = await self._recorder.commit(turn)
        except StoreError as store_error:
            logger.error("turn %s was cut and is lost: %s", turn.id, store_error)
            return False
        if recorded:
            self._metrics.recorded(turn, num_cached=0)
            if isinstance(error, ClientGone):
                await self._outcomes.end(turn.id, End.CLIENT_GONE)
        return recorded

    async def _settle(self, order: Order, turn_id: str, *, recorded: bool, failed: bool) -> None:
        try:
            await self._conversations.close_choice(
                order.place.asked, turn_id, recorded=recorded, failed=failed
            )
        except StoreError as error:
            logger.error("how turn %s ended is lost: %s", turn_id, error)

    def _turn(
        self,
        order: Order,
        exchange: Exchange,
        run: Run,
        reply: Reply,
        reason: FinishReason,
        *,
        error: str | None,
    ) -> Turn:
        chat, place = order.chat, order.place
        return Turn(
            id=run.choice.turn_id,
            request_id=exchange.request_id,
            session=place.session,
            scope=chat.caller.scope,
            parent=place.parent,
            matched_by=place.matched_by,
            kind=place.kind,
            kind_reason=place.kind_reason,
            purpose=chat.marks.purpose,
            arm=order.arm,
            task_key=place.task_key,
            messages=chat.messages,
            tools=chat.tools,
            prompt_ids=tuple(order.prompt.ids),
            prompt_built_by=order.prompt.built_by,
            completion=run.choice.completion(reason),
            reply=reply,
            sampling=order.sampling,
            policy=self._policy,
            block_spans=order.prompt.block_spans,
            shown_lessons=order.prompt.lessons,
            received_at=chat.received_at,
            first_token_s=run.first_token_s,
            latency_s=time.perf_counter() - chat.clock,
            client=chat.client,
            error=error,
        )
