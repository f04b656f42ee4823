"""The watch at work: when it looks, what it looks at, and which version is to serve again where it raises an alarm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentrl.learner.watch import Figure, figures
from agentrl.store.behaviour import Behaviour, BehaviourLog
from agentrl.types import JSON, Arm, PolicyVersion, VersionState

MIN_BEFORE = 16
"""Turns of the oldest version that stand for all of the first ones; with fewer all of them do."""
LOOK_S = 5.0
"""Least seconds between two looks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """The newest turns are out of bounds."""

    reasons: tuple[str, ...]
    targets: tuple[int, ...]
    """The versions from before all of them that can serve again, the newest first; where there are any, 0 is last."""
    turn_ids: tuple[str, ...] = ()
    """The newest turns, the newest first."""
    acts: str = "report"
    """What is to be done, as `guards.watch` says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one look found."""

    num_turns: int
    wanted: int
    reference: str
    """ "control", "first turns", or why there is none."""
    figures: tuple[Figure, ...]
    alarm: Alarm | None

    def report(self) -> JSON:
        """For people, six digits."""
        rounded = {
            figure.name: {"now": float(f"{figure.now:.6g}"), "reference": float(f"{figure.reference:.6g}")}
            for figure in self.figures
        }
        return {"turns": self.num_turns, "of": self.wanted, "against": self.reference, **rounded}


class Watch:
    """Looks at a line's turns.

    Args:
        log: where they stand.
        size: turns that are compared with as many of the reference.
        controlled: the run has a control arm.
        since: Unix seconds of the last alarm: turns from before say nothing new, and without a control arm the first
            ones behind it are the reference, so that who looked and resumed is not told the same again.
    """

    def __init__(self, log: BehaviourLog, size: int, *, controlled: bool = False, since: float = 0.0) -> None:
        self._log = log
        self._size = size
        self._controlled = controlled
        self._since = since
        self._looked_at = -float("inf")
        self._first: list[Behaviour] = []

    def is_due(self, now: float) -> bool:
        return now - self._looked_at >= LOOK_S

    def look(self, versions: Sequence[PolicyVersion], serving: int, *, now: float) -> Found:
        """Compares; an alarm makes the next look begin with later turns.

        Args:
            versions: the line's.
            serving: the number of the one that serves.
            now: Unix seconds.
        """
        self._looked_at = now
        gone = [version.number for version in versions if version.state is VersionState.REJECTED]
        newest = self._log.newest(self._size, arm=Arm.LEARNING, since=self._since, without=gone)
        reference, name = self._reference(newest)
        if len(newest) < self._size or not reference:
            why = name if reference else "too few turns"
            return Found(num_turns=len(newest), wanted=self._size, reference=why, figures=(), alarm=None)
        found = figures(newest, reference)
        reasons = tuple(figure.alarm for figure in found if figure.alarm is not None)
        alarm = None
        # Where no version is newer than all of the reference, it is the tasks that have changed.
        is_newer = max(turn.version for turn in newest) > min(turn.version for turn in reference)
        if reasons and is_newer:
            self._since, self._first = now, []
            alarm = Alarm(
                reasons=reasons,
                targets=before_all(versions, serving, min(turn.version for turn in newest)),
                turn_ids=tuple(turn.turn_id for turn in newest),
            )
        return Found(
            num_turns=len(newest), wanted=self._size, reference=name, figures=tuple(found), alarm=alarm
        )

    def _reference(self, newest: Sequence[Behaviour]) -> tuple[list[Behaviour], str]:
        # not asked without one: to find no turn of an arm, the whole log would be read
        control = self._log.newest(self._size, arm=Arm.CONTROL) if self._controlled else []
        if len(control) == self._size:
            return control, "control"
        if len(self._first) < self._size:
            self._first = self._log.first(self._size, since=self._since)
        seen = {turn.turn_id for turn in self._first}
        if len(self._first) < self._size or any(turn.turn_id in seen for turn in newest):
            return [], "too few turns"
        return of_the_oldest(self._first), "first turns"


def of_the_oldest(first: list[Behaviour]) -> list[Behaviour]:
    """Of the first turns those of their oldest version, where they are enough: versions may come so fast that the rest
    is theirs already."""
    oldest = min(turn.version for turn in first)
    own = [turn for turn in first if turn.version == oldest]
    return own if len(own) >= MIN_BEFORE else first


def before_all(versions: Sequence[PolicyVersion], serving: int, oldest: int) -> tuple[int, ...]:
    """The versions below `oldest`, and version 0, that the serving one descends from and whose files are there, the
    newest first."""
    by_number = {version.number: version for version in versions}
    line = []
    number: int | None = serving
    while number is not None and number in by_number:
        line.append(number)
        number = by_number[number].parent
    fit = [n for n in line if n != serving and by_number[n].path and (n < oldest or n == 0)]
    return tuple(sorted(fit, reverse=True))
