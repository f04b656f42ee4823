"""The judge that asks a model.

    judge(turn, next state)
      question         the request, the history and the tools in view, everything quoted as data
      Asker.ask        m votes, one request where the endpoint takes it
      read_vote        strictly; what cannot be read is no vote
      aggregated       the reward that most votes give where enough agree, else an abstention

Bounded in everything: the time of a question, the number of times it is asked, the calls and tokens of an hour, the
questions at the same time. What goes wrong is counted and raised as JudgeError, and is never a reward (law 6).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from agentrl.config import JudgeConfig
from agentrl.errors import JudgeError
from agentrl.signals.asker import Asker, AskError
from agentrl.signals.judge import Judge, Judgement
from agentrl.signals.judge_prompt import SCHEMA, question
from agentrl.signals.meter import Meter
from agentrl.signals.votes import Vote, aggregated, read_vote
from agentrl.text.content import message_text
from agentrl.types import End, NextState, SignalSource, Turn

FIRST_PAUSE_S: Final = 0.5
"""Before the second time a question is asked; doubled before each further one."""
MAX_PAUSE_S: Final = 30.0
MIN_CHARS: Final = 500
"""Of a question that an endpoint still finds too long."""
_SAYS_SOMETHING: Final = (None, End.REGENERATED, End.EDITED)


class NotAskedError(JudgeError):
    """The model was not asked: the calls or tokens of this hour are spent, or too many questions wait."""


class LlmJudge:
    """Asks `asker` by the settings. Everything it does is counted by `meter`.

    Args:
        pause: waits so many seconds.
    """

    source = SignalSource.JUDGE

    def __init__(
        self,
        asker: Asker,
        settings: JudgeConfig,
        *,
        meter: Meter,
        name: str = "llm",
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.name = name
        self._asker = asker
        self._settings = settings
        self._meter = meter
        self._pause = pause
        self._slots = asyncio.Semaphore(settings.max_concurrent)
        self._waiting = 0

    async def judge(self, turn: Turn, state: NextState) -> Judgement:
        """Raises NotAskedError, or JudgeError where the model gave no answer that can be read."""
        if state.end not in _SAYS_SOMETHING or not (state.messages or state.end):
            return Judgement(evidence=f"nothing to judge by ({state.end})", settled=True)
        if self._waiting >= self._settings.max_queued:
            self._meter.add("queue_full")
            raise NotAskedError(f"not asked: {self._waiting} questions wait already")
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            return await self._ask(turn, state)
        finally:
            self._slots.release()

    async def _ask(self, turn: Turn, state: NextState) -> Judgement:
        settings, meter = self._settings, self._meter
        seen = [message_text(message) for message in state.messages]
        max_chars = settings.max_chars
        for attempt in range(settings.max_retries + 1):
            if not meter.admits():
                meter.add("over_budget")
                raise NotAskedError("not asked: the judge's calls or tokens of this hour are spent")
            meter.add("retries" if attempt else "questions")
            try:
                texts = await self._asker.ask(
                    question(turn, state, max_chars=max_chars),
                    schema=SCHEMA,
                    num=settings.votes,
                    temperature=settings.temperature,
                    timeout_s=settings.timeout_s,
                )
                return self._agreed(texts, seen)
            except AskError as error:
                failure: JudgeError = error
                if error.too_long and max_chars > MIN_CHARS:
                    max_chars //= 2
                    meter.add("shortened")
                    continue
                if not error.may_pass:
                    break
                wait = error.retry_after_s
            except JudgeError as error:
                failure, wait = error, 0.0
            if attempt < settings.max_retries:
                await self._pause(min(FIRST_PAUSE_S * 2**attempt if wait is None else wait, MAX_PAUSE_S))
        meter.add("failed")
        raise failure

    def _agreed(self, texts: list[str], seen: list[str]) -> Judgement:
        """Raises JudgeError where fewer than half of the votes asked for can be read."""
        votes: list[Vote] = []
        fault = "no answer came"
        for text in texts:
            try:
                votes.append(read_vote(text, seen))
            except JudgeError as error:
                fault = str(error)
        num = self._settings.votes
        self._meter.add("votes", len(votes))
        self._meter.add("votes_lost", num - len(votes))
        self._meter.add("votes_contradictory", sum(vote.contradicts for vote in votes))
        self._meter.add("hints_unfounded", sum(vote.unfounded for vote in votes))
        if not votes or 2 * len(votes) < num:
            raise JudgeError(f"{len(votes)} of {num} votes can be read: {fault}")
        found = aggregated(votes, num_lost=num - len(votes), min_agreement=self._settings.min_agreement)
        self._meter.add("abstained" if found.reward is None else "judged")
        return found


class RulesFirst:
    """The rules, which cost nothing, and a judge that is asked about what they leave.

    Where the rules are certain (an end, an outage, a trick) nobody else is asked. `when`: "silent" asks only where they
    said nothing; "always" asks about all others too, and then what is answered counts, an abstention included. Where it
    could not be asked, failed or took longer than `timeout_s`, what the rules said stands.
    """

    source = SignalSource.JUDGE

    def __init__(self, rules: Judge, other: Judge, *, when: str, timeout_s: float | None = None) -> None:
        self.name = f"{rules.name}, then {other.name}"
        self._rules = rules
        self._other = other
        self._when = when
        self._timeout_s = timeout_s

    async def judge(self, turn: Turn, state: NextState) -> Judgement:
        said = await self._rules.judge(turn, state)
        said = replace(said, source=self._rules.source)
        spoke = said.reward is not None or said.hint is not None
        if said.settled or (spoke and self._when == "silent"):
            return said
        try:
            async with asyncio.timeout(self._timeout_s):
                found = await self._other.judge(turn, state)
        except NotAskedError as error:
            return replace(said, evidence=f"{said.evidence}; {error}")
        except Exception as error:
            # Whatever it raises: a judge is anybody's code.
            if not spoke:
                raise
            why = str(error) if isinstance(error, JudgeError) else f"{type(error).__name__}: {error}"
            return replace(said, evidence=f"{said.evidence}; the other judge failed: {why}")
        hint = found.hint
        if hint is None and found.reward is not None and found.reward == said.reward:
            hint = said.hint
        return replace(found, hint=hint, source=found.source or self._other.source)
