"""The gateway: one internal request in, events out, every turn in the log before a client can act on it.

    open(chat)
      Conversations.place       which turn this answers; its next state is recorded
      Prompts.build             the parent's ids extended verbatim where that is possible
      Sampler.run               one task a choice: Engine.generate, SignalLog.record_turn
    Exchange                    what the tasks produce, taken out by the response

A choice's task belongs to the gateway, not to the HTTP request: when the client goes away, what was sampled is still
recorded (and never trained).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from dataclasses import replace

from agentrl.config import Config
from agentrl.engine.base import Capacity, Engine
from agentrl.types import Arm, Purpose
from server.conversations import Conversations, Place
from server.exchange import Exchange
from server.prompts import Prompts
from server.request import ChatRequest
from server.run_folder import drawn
from server.sampler import Order, Sampler
from server.versions import BASE, Versions
from server.wire.errors import Refused, ServerStopping

logger = logging.getLogger(__name__)

COMMIT_S = 5.0
"""How long a stop waits for turns that are being recorded."""


class Gateway:
    """Owns the tasks that sample. `aclose` ends them and records what they had."""

    def __init__(
        self,
        *,
        config: Config,
        engine: Engine,
        conversations: Conversations,
        prompts: Prompts,
        sampler: Sampler,
        versions: Versions,
        secret: bytes,
    ) -> None:
        self.policy = config.policy
        self._control_share = config.learn.control_share
        self._engine = engine
        self._conversations = conversations
        self._prompts = prompts
        self._sampler = sampler
        self._versions = versions
        self._secret = secret
        self._running: dict[asyncio.Task[None], Exchange] = {}
        self._closed = False

    @property
    def max_len(self) -> int:
        """Most ids of prompt and reply together."""
        return self._engine.max_len

    async def capacity(self) -> Capacity:
        return await self._engine.capacity()

    async def open(self, chat: ChatRequest) -> Exchange:
        """Starts answering; returns once the first id of the first choice is sampled.

        Raises what the client should be told before any byte of a reply: Refused, EngineError, StoreError, Deadline.
        """
        if self._closed:
            raise ServerStopping("the server is shutting down")
        request_id = new_id()
        turn_ids = choice_ids(request_id, chat.num_choices)
        place = await self._conversations.place(chat, request_id, turn_ids)
        try:
            order = await self._order(chat, place)
        except BaseException:
            await self._conversations.withdraw(place)
            raise
        exchange = Exchange(
            request_id=request_id, session=place.session, turn_ids=turn_ids, lessons=order.prompt.lessons
        )
        for index, turn_id in enumerate(turn_ids):
            task = asyncio.create_task(self._sampler.run(order, exchange, index), name=f"turn {turn_id}")
            exchange.own(index, task)
            self._running[task] = exchange
            task.add_done_callback(self._running.pop)
        try:
            await exchange.begun()
        except BaseException:
            exchange.leave()
            # A task that is cancelled before its first step never gets to say that its choice is over.
            await self._conversations.withdraw(place)
            raise
        return exchange

    async def aclose(self) -> None:
        """Ends what is being sampled; each choice is recorded as far as it came. Idempotent."""
        self._closed = True
        for exchange in set(self._running.values()):
            exchange.fail(ServerStopping("the server is shutting down"))
        if not self._running:
            return
        _, stuck = await asyncio.wait(list(self._running), timeout=COMMIT_S)
        for task in stuck:
            logger.error("%s could not be recorded within %g s and is given up", task.get_name(), COMMIT_S)
            task.cancel()
        if stuck:
            await asyncio.wait(stuck)

    async def _order(self, chat: ChatRequest, place: Place) -> Order:
        arm = self._arm(chat, place)
        prompt = await self._prompts.build(chat, place, arm)
        room = self._engine.max_len - len(prompt.ids)
        if room < 1:
            raise Refused(
                f"The conversation has {len(prompt.ids)} ids and the model reads {self._engine.max_len}, reply "
                "included. Shorten it, or raise engine.max_len if the model allows.",
                param="messages",
                code="context_length_exceeded",
            )
        version = BASE if arm is Arm.CONTROL else chat.version
        if version is not None:
            await self._versions.make_resident(version)
        return Order(
            chat=chat,
            place=place,
            prompt=prompt,
            sampling=replace(
                chat.sampling,
                max_tokens=min(chat.sampling.max_tokens, room),
                stop_token_ids=self._prompts.stop_ids,
                grammar_after=self._prompts.reasoning_end if chat.sampling.grammar else None,
            ),
            arm=arm,
            version=version,
        )

    def _arm(self, chat: ChatRequest, place: Place) -> Arm:
        """Drawn by a keyed hash of the session, so that no client can choose its arm."""
        if chat.marks.purpose is not Purpose.TRAIN:
            return Arm.LEARNING
        draw = drawn(self._secret, "arm", chat.caller.scope, place.session)
        return Arm.CONTROL if draw < self._control_share else Arm.LEARNING


def new_id() -> str:
    """Unique, ordered by time, letters and digits only: 11 digits of milliseconds and 12 of chance, in hex."""
    return f"{time.time_ns() // 1_000_000:011x}{secrets.token_hex(6)}"


def choice_ids(request_id: str, num_choices: int) -> tuple[str, ...]:
    """The turn of a single choice has the request's id; several have ids of their own."""
    if num_choices == 1:
        return (request_id,)
    return tuple(f"{request_id}n{index}" for index in range(num_choices))
