"""The judge contract: one turn and what followed it in, one judgement out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from agentrl.types import NextState, SignalSource, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a judge says of one turn. All None is an abstention: the judge ran and has nothing to say."""

    reward: float | None = None
    """In [-1, 1]; None = not judged, 0.0 = judged neutral."""
    hint: str | None = None
    """What should have been done, in words that a teacher can be shown."""
    preferred: str | None = None
    """The answer that the user wrote in the place of the turn's."""
    votes: tuple[float, ...] = ()
    evidence: str = ""
    """The text that the judgement rests on."""
    agreement: float | None = None
    """Share of the votes that are of the same class as the judgement; None where nobody voted."""
    source: SignalSource | None = None
    """Who judged, where several may have; None = the judge that was asked."""
    settled: bool = False
    """Nothing more can be learned by asking another judge, also where this one abstained."""


class Judge(Protocol):
    """Anything that can judge a turn. `judge` raises JudgeError where it failed; a failure is never a reward."""

    @property
    def name(self) -> str: ...

    @property
    def source(self) -> SignalSource: ...

    async def judge(self, turn: Turn, state: NextState) -> Judgement: ...


class ScriptedJudge:
    """A judge that answers by a function; the double for tests."""

    def __init__(self, answer: Callable[[Turn, NextState], Judgement], *, name: str = "scripted") -> None:
        self._answer = answer
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    @property
    def source(self) -> SignalSource:
        return SignalSource.JUDGE

    async def judge(self, turn: Turn, state: NextState) -> Judgement:
        return self._answer(turn, state)
