"""How often the tasks of a live stream succeed, and what their turns weigh for it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from agentrl.learner.quarantine import sign_of
from agentrl.types import Signal, SignalSource, Turn

MAX_TASKS = 5000
MAX_SESSIONS = 64
"""The newest of one task that count."""
MIN_SESSIONS = 2


class PassRates:
    """By scope and task key, fed in the order of the signals. A session's newest outcome counts: that of its
    environment where it has one, else the sign of what was said of its turns."""

    def __init__(self) -> None:
        self._tasks: OrderedDict[tuple[str, str], OrderedDict[str, tuple[bool, bool]]] = OrderedDict()
        """task -> session -> (whether it succeeded, whether the environment says so)."""

    def add(self, turn: Turn, signals: Sequence[Signal]) -> None:
        """Takes in what is said of a turn."""
        environment = [s for s in signals if s.source is SignalSource.ENVIRONMENT and s.reward is not None]
        known = self._tasks.setdefault((turn.scope, turn.task_key), OrderedDict())
        self._tasks.move_to_end((turn.scope, turn.task_key))
        is_sure = known.get(turn.session, (False, False))[1]
        if environment:
            known[turn.session] = ((environment[-1].reward or 0) > 0, True)
        elif not is_sure and (sign := sign_of(signals)):
            known[turn.session] = (sign > 0, False)
        while len(known) > MAX_SESSIONS:
            known.popitem(last=False)
        while len(self._tasks) > MAX_TASKS:
            self._tasks.popitem(last=False)

    def weight(self, scope: str, task_key: str, least: float) -> float:
        """4p(1 - p), at least `least`, with p = (successes + 1) / (sessions + 2); 1 where fewer than two are known."""
        known = self._tasks.get((scope, task_key))
        if known is None or len(known) < MIN_SESSIONS:
            return 1.0
        p = (sum(passed for passed, _ in known.values()) + 1) / (len(known) + 2)
        return max(least, 4 * p * (1 - p))
