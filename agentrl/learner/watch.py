"""Watches how the policy behaves and says when it leaves its bounds: what no single update shows, many can add up to.

    newest turns ─┬─ mean reply length          at most `TIMES` times longer or `SHORTER` times shorter
                  ├─ entropy                    at most `TIMES` times higher and `MORE_NATS` more, no collapse
                  └─ rates of tool errors,      at most `MORE` more
                     questions and edits
    compared with   as many of the control arm's newest, where the run has one, else with the run's first turns, or
                    the first ones behind the last alarm

The bounds are wide: who asks for brief answers gets shorter ones, and a policy that changes its mind about a command is
unsure for a while (.6 nats where .1 was before, measured on runs in which all went well).

Every bound must be left by more than chance explains (`Z` standard errors), so that a change of tasks is not taken
for one of the policy lightly. Where tasks change much, a control arm (learn.control_share) is the better reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agentrl.signals.commands import failures, made_calls
from agentrl.store.behaviour import Behaviour

TIMES = 3.0
SHORTER = 10.0
MORE_NATS = 2.0
COLLAPSED, ALIVE = 0.005, 0.1
"""Entropy in nats an id: below the one where it was above the other, the policy has stopped choosing."""
MORE = 0.2
Z = 4.0

RATES: dict[str, Callable[[Behaviour], bool | None]] = {
    "tool_errors": lambda turn: (
        bool(failures(made_calls(turn.calls), turn.outputs)) if turn.outputs else None
    ),
    "questions": lambda turn: turn.asks,
    "edits": lambda turn: turn.edited,
}
"""Each says of a turn whether it is one; None = it does not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One property of the newest turns beside that of the reference."""

    name: str
    now: float
    reference: float
    alarm: str | None
    """What is wrong with it, as a sentence."""


def figures(newest: Sequence[Behaviour], reference: Sequence[Behaviour]) -> list[Figure]:
    """What can be compared; nothing of a property that too few turns have."""
    found = [_length(newest, reference), _entropy(newest, reference)]
    found += [_rate(name, newest, reference) for name in RATES]
    return [figure for figure in found if figure is not None]


def _length(newest: Sequence[Behaviour], reference: Sequence[Behaviour]) -> Figure | None:
    now, before = ([float(turn.num_sampled) for turn in turns] for turns in (newest, reference))
    if not now or not before:
        return None
    mean, was = _mean(now), _mean(before)
    alarm = None
    if (mean > TIMES * was or mean * SHORTER < was) and _is_far(now, before):
        alarm = f"replies have {mean:.0f} ids in the mean, {was:.0f} in the reference"
    return Figure(name="reply_ids", now=mean, reference=was, alarm=alarm)


def _entropy(newest: Sequence[Behaviour], reference: Sequence[Behaviour]) -> Figure | None:
    now, before = (
        [turn.surprise for turn in turns if turn.surprise is not None] for turns in (newest, reference)
    )
    if not now or not before:
        return None
    mean, was = _mean(now), _mean(before)
    risen = mean > TIMES * was and mean > was + MORE_NATS
    alarm = None
    if (risen or (mean < COLLAPSED and was > ALIVE)) and _is_far(now, before):
        alarm = f"the entropy is {mean:.3f} nats an id, {was:.3f} in the reference"
    return Figure(name="entropy", now=mean, reference=was, alarm=alarm)


def _rate(name: str, newest: Sequence[Behaviour], reference: Sequence[Behaviour]) -> Figure | None:
    now, before = (
        [float(one) for one in map(RATES[name], turns) if one is not None] for turns in (newest, reference)
    )
    if not now or not before:
        return None
    mean, was = _mean(now), _mean(before)
    # the standard error under the hypothesis that both have one rate, with half a turn of each kind added
    pooled = (sum(now) + sum(before) + 0.5) / (len(now) + len(before) + 1.0)
    error = math.sqrt(pooled * (1.0 - pooled) * (1.0 / len(now) + 1.0 / len(before)))
    alarm = None
    if mean > was + MORE and mean - was > Z * error:
        alarm = f"the rate of {name.replace('_', ' ')} is {mean:.2f}, {was:.2f} in the reference"
    return Figure(name=name, now=mean, reference=was, alarm=alarm)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _is_far(now: Sequence[float], before: Sequence[float]) -> bool:
    """Whether the means differ by more than `Z` standard errors (Welch)."""
    error = math.sqrt(_variance(now) / len(now) + _variance(before) / len(before))
    return abs(_mean(now) - _mean(before)) > Z * error


def _variance(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.fsum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1)
