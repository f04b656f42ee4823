"""A judge of the user's, whose judgements are counted and bounded by the hour like calls of a model."""

from __future__ import annotations

from agentrl.signals.judge import Judge, Judgement
from agentrl.signals.llm import NotAskedError
from agentrl.signals.meter import REQUESTS, Meter
from agentrl.types import NextState, SignalSource, Turn


class CountedJudge:
    """Each judgement is one call; what it costs in tokens nobody but the judge knows."""

    def __init__(self, judge: Judge, *, meter: Meter) -> None:
        self._judge = judge
        self._meter = meter

    @property
    def name(self) -> str:
        return self._judge.name

    @property
    def source(self) -> SignalSource:
        return self._judge.source

    async def judge(self, turn: Turn, state: NextState) -> Judgement:
        """Raises NotAskedError where the calls of this hour are spent, and whatever the judge raises."""
        if not self._meter.admits():
            self._meter.add("over_budget")
            raise NotAskedError("not asked: the judge's calls of this hour are spent")
        self._meter.add(REQUESTS)
        try:
            found = await self._judge.judge(turn, state)
        except Exception:
            self._meter.add("failed")
            raise
        self._meter.add("abstained" if found.reward is None else "judged")
        return found
