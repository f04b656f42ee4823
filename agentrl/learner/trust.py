"""How far the sources of signals are believed, and users who approve of everything."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from agentrl.teacher.contexts import PREFERENCE
from agentrl.types import Signal, SignalSource

MAX_SESSIONS = 10_000
MAX_VOID = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Weights of sources, as `guards.trust` gives them."""

    weights: Mapping[str, float]
    """By source, or by "SOURCE:SCOPE", which counts before the other; absent = 1."""

    @property
    def is_partial(self) -> bool:
        """Whether somebody is not listened to."""
        return 0 in self.weights.values()

    def of(self, source: SignalSource | None, scope: str) -> float:
        """From 0 to 1; what taught a turn that has no signal of its own is believed in full."""
        if source is None:
            return 1.0
        return self.weights.get(f"{source}:{scope}", self.weights.get(str(source), 1.0))

    def heard(self, signals: Iterable[Signal], scope: str) -> tuple[Signal, ...]:
        """The signals whose source is listened to at all."""
        return tuple(signal for signal in signals if self.of(signal.source, scope) > 0)


def source_of(signals: Sequence[Signal]) -> SignalSource | None:
    """The most trusted source that rewards, hints or prefers; None where none does."""
    teaching = {
        signal.source for signal in signals if signal.reward is not None or signal.hint or signal.preferred
    }
    return next((source for source in PREFERENCE if source in teaching), None)


class Approvals:
    """Which approvals of users say nothing, because their session has heard nothing else for long.

    Args:
        most: approvals of a session that count while nothing else comes; 0 = all.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._sessions: OrderedDict[tuple[str, str], int] = OrderedDict()
        """(scope, session) -> approvals so far; -1 once the user disapproved of something."""
        self._void: OrderedDict[str, None] = OrderedDict()

    def add(self, scope: str, session: str, signal: Signal) -> None:
        """Takes note of a signal; they come in their order."""
        if signal.source is not SignalSource.USER or signal.reward is None or not self._most:
            return
        count = self._sessions.pop((scope, session), 0)
        if signal.reward <= 0 or count < 0:
            count = -1
        else:
            count += 1
            if count > self._most:
                self._void[signal.turn_id] = None
        self._sessions[scope, session] = count
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        if len(self._void) > MAX_VOID:
            self._void.popitem(last=False)

    def heard(self, signals: Iterable[Signal]) -> tuple[Signal, ...]:
        """The signals, without the rewards that say nothing (law 6: not judged)."""
        return tuple(
            replace(signal, reward=None)
            if signal.source is SignalSource.USER
            and (signal.reward or 0) > 0
            and signal.turn_id in self._void
            else signal
            for signal in signals
        )
