"""Which approvals of users say something: those of somebody who also disapproves.

An approval is evidence as far as another answer would have had another rating. Whoever approves of everything tells
nothing: with a rate d of disapprovals a rating carries at most the entropy of d, which is 0 at d = 0. So

    key       an approval counts where, among the `span` ratings of its API key before it or behind it, one is less
              than half as good, in whatever session
    session   and where the same holds within its session, or fewer than `span` ratings of the session came before it

Until then it waits: the disapproval that comes later frees it. By chance an approval of somebody who disapproves of a
share d of all answers, one by one, counts at once with probability 1 - (1-d)^span and in the end with
1 - (1-d)^(2 span). With a span of 20:

    d                  0     .02    .05    .1     .2     .5
    counts at once     0     .33    .64    .88    .99    1
    in the end         0     .55    .87    .985   1      1

In proportion to d where it is small, then all of them. Nobody can tell a user who was always pleased from one who
approves of everything; both are told apart from others by their key alone, so whoever shares a key shares its
disapprovals, up to `span` approvals a session.

What an environment, a tool or a judge says is no user's word, and counts beside a user's that does not.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace

from agentrl.types import Signal, SignalSource, Turn

MAX_RATERS = 10_000
MAX_VOID = 20_000


@dataclass(slots=True, kw_only=True)
class _Rating:
    turn_id: str
    value: float
    in_key: bool = False
    """Whether its key's ratings near it tell good from bad."""
    in_session: bool = False

    @property
    def counts(self) -> bool:
        return self.in_key and self.in_session


class Approvals:
    """Fed with the signals of users in their order.

    Args:
        span: ratings before and behind an approval that are looked at; 0 = every approval counts.
    """

    def __init__(self, span: int) -> None:
        self._span = span
        self._near: OrderedDict[Hashable, deque[_Rating]] = OrderedDict()
        """The newest ratings of a key, and of a session."""
        self._void: OrderedDict[str, None] = OrderedDict()
        """Turns whose approval does not count."""

    def __len__(self) -> int:
        """Approvals that do not count."""
        return len(self._void)

    def add(self, turn: Turn, signal: Signal) -> list[str]:
        """Takes note of a signal; ids of the turns whose approval did not count before and does now."""
        value = rating_of(turn, signal)
        if value is None or not self._span:
            return []
        key, session = self._ratings(turn.scope), self._ratings((turn.scope, turn.session))
        own = _Rating(turn_id=turn.id, value=value, in_session=len(session) < self._span)
        for other in key:
            own.in_key |= _is_worse(other, own)
            other.in_key |= _is_worse(own, other)
        for other in session:
            own.in_session |= _is_worse(other, own)
            other.in_session |= _is_worse(own, other)
        told = [other for other in (*key, *session, own) if other.value > 0 and other.counts]
        freed = [name for name in dict.fromkeys(other.turn_id for other in told) if name in self._void]
        for name in freed:
            del self._void[name]
        did_count = any(other.turn_id == turn.id and other.counts for other in session)
        if value > 0 and not own.counts and not did_count:  # said again, it says no less
            self._void[turn.id] = None
            self._void.move_to_end(turn.id)
            if len(self._void) > MAX_VOID:
                self._void.popitem(last=False)
        key.append(own)
        session.append(own)
        return freed

    def is_void(self, turn_id: str) -> bool:
        """Whether a turn was approved of by somebody who approves of everything."""
        return turn_id in self._void

    def heard(self, turn: Turn, signals: Iterable[Signal]) -> tuple[Signal, ...]:
        """A turn's signals, without the rewards that say nothing (law 6: not judged)."""
        if turn.id not in self._void:
            return tuple(signals)
        return tuple(
            replace(signal, reward=None) if (rating_of(turn, signal) or 0) > 0 else signal
            for signal in signals
        )

    def _ratings(self, rater: Hashable) -> deque[_Rating]:
        found = self._near.setdefault(rater, deque(maxlen=self._span))
        self._near.move_to_end(rater)
        if len(self._near) > MAX_RATERS:
            self._near.popitem(last=False)
        return found


def rating_of(turn: Turn, signal: Signal) -> float | None:
    """How good a user says that a turn was, from -1 to 1; None where it is no user's word.

    A correction without a reward says no. What the rules read of a turn without calls are a user's words too; there 0
    is an approval that says nothing by itself.
    """
    if signal.source is SignalSource.USER:
        if signal.reward is None and (signal.hint or signal.preferred):
            return -1.0
        return signal.reward
    if signal.source is SignalSource.RULE and not turn.reply.tool_calls:
        return signal.reward or None
    return None


def _is_worse(one: _Rating, than: _Rating) -> bool:
    return than.value > 0 and one.value < than.value / 2
