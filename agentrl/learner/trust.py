"""How far the sources of signals are believed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from agentrl.teacher.contexts import PREFERENCE
from agentrl.types import Signal, SignalSource


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
