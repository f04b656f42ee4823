"""`agentrl progress`: which lessons the model holds by itself, and whether learning helps."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

import numpy as np

from agentrl.config import Config
from agentrl.signals.lessons import gather
from agentrl.signals.standing import rests, standing
from agentrl.store.database import LEARNING_NAME, LOG_NAME
from agentrl.store.hint_counts import hint_counts
from agentrl.store.learning_log import LearningLog
from agentrl.store.lost import refuse_lost
from agentrl.store.outcomes import Outcome, outcomes
from agentrl.teacher.recall import is_rule
from agentrl.types import Arm, Lesson, LessonState
from server.anytime import ALPHA, Differences, differences, interval
from server.lessons_pages import HELD_BACK, held_back_of, of_skills
from server.run_files import existing_run, settings_of
from server.run_folder import read_secret
from server.shown import may_show

POINTS: Final = 8
"""Moments at which the comparison is shown as it stood."""
SURPRISE: Final = 4.5
"""Standard deviations by which the arms' sizes may differ from what learn.control_share makes likely."""


def progress_of(run_dir: Path) -> dict[str, Any]:
    """What learning has brought so far, as plain data. Raises StoreError, UserError."""
    config = settings_of(run_dir)
    path = existing_run(run_dir)
    refuse_lost(path)
    found: dict[str, Any] = {"hints": None, "lessons": None, "learning": None}
    if (path / LOG_NAME).is_file() and (path / LEARNING_NAME).is_file():
        with LearningLog(path) as log:
            gather(log, config.policy, config.learn.approve)
            lessons = all_lessons(log, path, config.policy)
            asked = log.num_probed(config.policy)
            found["lessons"] = of_lessons(lessons, asked, held_back_of(path, lessons))
    if (path / LOG_NAME).is_file():
        hints = hint_counts(path, config.policy)
        found["hints"] = asdict(hints) | {"acceptance_rate": hints.acceptance_rate}
        conversations = outcomes(path, config.policy, now=time.time(), idle_s=config.server.idle_s)
        alone = without_help(conversations, config, read_secret(path))
        found["learning"] = of_arms(alone, config) | {"num_helped": len(conversations) - len(alone)}
    return found


def all_lessons(log: LearningLog, run_dir: Path, policy: str) -> list[Lesson]:
    """Hints' lessons and skills', with what probes found."""
    lessons = log.lessons(policy)
    scopes = sorted({"default", *(lesson.scope for lesson in lessons)})
    skills = [skill for scope in scopes for skill in of_skills(run_dir, scope, policy)]
    return lessons + log.with_results(skills, policy)


def of_lessons(
    lessons: Sequence[Lesson], asked: Collection[str], held_back: Collection[str] = ()
) -> dict[str, Any]:
    """How many of the approved lessons hold, and which do not; each of them is counted once.

    Args:
        asked: those that a version has been asked for.
        held_back: those that the guards keep from every teacher.
    """
    approved = [lesson for lesson in lessons if lesson.state is LessonState.APPROVED]
    stands = {lesson.id: standing(lesson) for lesson in approved}
    for lesson in approved:
        if lesson.id in held_back:
            stands[lesson.id] = "held back", None
        elif stands[lesson.id][0] == "not yet" and lesson.id not in asked:
            stands[lesson.id] = "not asked", None

    def named(how: str) -> list[dict[str, Any]]:
        return [
            {
                "id": lesson.id,
                "text": lesson.text,
                "version": stands[lesson.id][1],
                "last_held": max((*lesson.held_by, *lesson.without_effect), default=None),
            }
            for lesson in approved
            if stands[lesson.id][0] == how
        ]

    return {
        "num_lessons": len(approved),
        "num_held": len(named("holds")),
        "num_held_apart": sum(stands[lesson.id][0] == "holds" and lesson.is_apart for lesson in approved),
        # a rule has none before the first request to ask it by
        "num_with_probe": sum(
            lesson.probe is not None and stands[lesson.id][0] != "no effect" for lesson in approved
        ),
        "num_without_effect": len(named("no effect")),
        "num_without_probe": len(named("-")),
        "broken": named("broken"),
        "not_yet": named("not yet"),
        "not_asked": named("not asked"),
        "held_back": named("held back"),
        "num_resting": sum(is_rule(lesson) and rests(lesson) for lesson in approved),
        "states": {state.value: sum(lesson.state is state for lesson in lessons) for state in LessonState},
    }


def without_help(conversations: Sequence[Outcome], config: Config, secret: bytes | None) -> list[Outcome]:
    """Those in which no lesson could stand, where lessons are shown or were: what the prompt did is not what the
    weights learned. Both arms lose the same share, drawn by the same hash, so that they stay comparable. Without the
    run's secret nobody can draw again, and those are left out that lessons stood in."""
    alone = [one for one in conversations if not one.is_shown]
    shows = config.learn.show_lessons or len(alone) < len(conversations)
    if not shows or secret is None:
        return alone
    return [
        one
        for one in alone
        if not any(
            may_show(secret, config.learn.show_share, one.scope, one.session, task_key)
            for task_key in one.task_keys
        )
    ]


def of_arms(conversations: Sequence[Outcome], config: Config) -> dict[str, Any]:
    """The learning arm beside the control arm.

    Conversations count in the order in which they began, up to the first that has not ended: which of two ends first
    may depend on its arm. One that nothing judged says nothing and is left out, counted.
    """
    share = config.learn.control_share
    ended = list(takewhile(lambda one: one.ended, conversations))
    judged = [one for one in ended if one.value is not None]
    arms = {
        arm.value: _mean([one.value for one in judged if one.arm is arm and one.value is not None])
        for arm in Arm
    }
    found: dict[str, Any] = {
        "control_share": share,
        "num_conversations": len(conversations),
        "num_waiting": len(conversations) - len(ended),
        "num_unjudged": len(ended) - len(judged),
        "arms": arms,
        "effect": None,
        "low": None,
        "high": None,
        "over_time": [],
    }
    why = _why_not(ended, share)
    if why is None and not judged:
        why = f"nothing to compare yet: of {len(conversations)} conversations none has ended and was judged"
    if why is not None:
        return found | {"verdict": why}
    compared = differences(
        [one.arm is Arm.LEARNING for one in judged],
        [one.value for one in judged if one.value is not None],
        1 - share,
    )
    now = interval(compared)
    verdict = "better" if now.low > 0 else "worse" if now.high < 0 else "undecided"
    return found | {
        "effect": now.effect,
        "low": now.low,
        "high": now.high,
        "verdict": verdict,
        "over_time": _over_time(compared),
    }


def sentences(found: dict[str, Any]) -> list[str]:
    """The same for people."""
    hints = found.get("hints")
    return [
        *_of_lessons(found["lessons"]),
        *_of_hints(hints),
        *_of_words(hints),
        *_of_learning(found["learning"]),
    ]


def _why_not(ended: Sequence[Outcome], share: float) -> str | None:
    """Why the arms cannot be compared."""
    if not 0 < share < 1:
        return (
            f"learn.control_share is {share:g}: there is nothing to compare with; set it to 0.2 at the start (with "
            "0.1 it takes about twice as many conversations)"
        )
    # by all conversations and not by the judged ones: what a judge can judge may depend on the arm
    num_control = sum(one.arm is Arm.CONTROL for one in ended)
    spread = math.sqrt(len(ended) * share * (1 - share))
    if spread and abs(num_control - len(ended) * share) > SURPRISE * max(spread, 1.0):
        return (
            f"{num_control} of {len(ended)} conversations are in the control arm, which learn.control_share = "
            f"{share:g} does not explain: it was changed during the run; compare in a run that had one share "
            "from its start"
        )
    return None


def _mean(values: Sequence[float]) -> dict[str, Any]:
    return {"num": len(values), "mean": sum(values) / len(values) if values else None}


def _over_time(found: Differences) -> list[dict[str, Any]]:
    """The comparison as it stood after equal shares of the conversations."""
    length = len(found.values)
    rows: list[dict[str, Any]] = []
    for end in sorted({math.ceil(length * point / POINTS) for point in range(1, POINTS + 1)} - {0}):
        part = Differences(values=found.values[:end], lows=found.lows[:end], highs=found.highs[:end])
        then = interval(part)
        row = {"conversations": end, "effect": then.effect, "low": then.low, "high": then.high}
        rows.append(
            row | {"lately": float(np.mean(found.values[rows[-1]["conversations"] if rows else 0 : end]))}
        )
    return rows


def _since(item: dict[str, Any]) -> str:
    """Not every version is asked for every lesson: one that was not may have broken it first."""
    held = item["last_held"]
    return "" if held is None or held == item["version"] - 1 else f" or one since {held}, which held it"


def _of_lessons(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return ["lessons: none yet"]
    versions = sorted({item["version"] for item in found["broken"]})
    apart = f" ({found['num_held_apart'] or 'none'} of them at turns that are never trained)"
    parts = [
        *_part(len(found["broken"]), f"broken by version {', '.join(map(str, versions))}"),
        *_part(len(found["not_yet"]), "not yet"),
        *_part(len(found["not_asked"]), "not asked yet"),
        *_part(len(found["held_back"]), "held back"),
        *_part(found["num_without_effect"], "without effect"),
        *_part(found["num_without_probe"], "that nothing can ask for"),
    ]
    lines = ["lessons: none approved"]
    if found["num_lessons"]:
        many = f"{found['num_lessons']} lesson{'s' * (found['num_lessons'] != 1)}"
        holds = f"holds {found['num_held']} of {many}{apart if found['num_held'] else ''}"
        lines = [f"{holds}; {', '.join(parts)}" if parts else holds]
    lines += [
        f"  broken by {item['version']}{_since(item)}: {item['id']} {_brief(item['text'])}"
        for item in found["broken"]
    ]
    lines += [f"  not yet: {item['id']} {_brief(item['text'])}" for item in found["not_yet"]]
    if found["not_asked"]:
        lines.append(
            "  not asked yet: a version is asked for a few lessons, those asked least first, and for rules every few "
            "versions once there are requests to ask them by"
        )
    if found["held_back"]:
        lines.append(f"  held back: {HELD_BACK}")
    if found["num_without_effect"]:
        lines.append(
            "  without effect: where they are asked for, version 0 does without them what it does once it has read them"
        )
    if found["num_without_probe"]:
        lines.append("  that nothing can ask for: they came with no request")
    if found["num_resting"]:
        lines.append(f"  {found['num_resting']} are rules that rest: taught again once a version breaks them")
    if found["states"]["proposed"]:
        lines.append(
            f"  {found['states']['proposed']} wait for your word: `agentrl lessons list --state proposed`"
        )
    return lines


def _of_hints(found: dict[str, Any] | None) -> list[str]:
    if found is None or found["acceptance_rate"] is None:
        return []
    num = found["num_accepted"] + found["num_refused"]
    refused = ", ".join(f"{number} by {gate}" for gate, number in found["refused"].items())
    return [
        f"hints: {found['num_accepted']} of {num} turns with one passed its gates "
        f"({found['acceptance_rate']:.0%})" + (f"; refused {refused}" if refused else "")
    ]


def _of_words(found: dict[str, Any] | None) -> list[str]:
    if found is None or not found["num_unread"]:
        return []
    unread = found["num_unread"]
    return [
        f"words: {unread} {'reply was' if unread == 1 else 'replies were'} followed by words of a user that were read "
        "as neither correction nor approval; a correction among them taught nothing: one that begins with 'No,' is "
        "heard more often, and /v1/feedback takes a hint"
    ]


def _part(number: int, what: str) -> list[str]:
    return [f"{number} {what}"] if number else []


def _of_learning(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return ["learning: no conversation yet"]
    if found["effect"] is None:
        return [f"learning: {found['verdict']}"]
    learning, control = found["arms"]["learning"], found["arms"]["control"]
    lines = [
        f"learning is {found['verdict']}: {found['effect']:+.2f} ({1 - ALPHA:.0%} interval {found['low']:+.2f} to "
        f"{found['high']:+.2f}, valid at every look)",
        f"  learning {_points(learning)}, control {_points(control)}" + _difference(learning, control),
        "  the interval is of the mean effect on a conversation: however often you look, it misses it in "
        f"{ALPHA:.0%} of runs at most, and so it is wider than one for a single look; the figure before it weighs a "
        "conversation by its arm's share and comes near the rates' difference with many",
    ]
    lines += [
        f"  after {row['conversations']}: {row['effect']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f}), since the "
        f"row before {row['lately']:+.2f}"
        for row in found["over_time"]
    ]
    if found.get("num_helped"):
        lines.append(
            f"  {found['num_helped']} in whose prompts lessons may stand (learn.show_lessons) count in neither arm"
        )
    if found["num_unjudged"]:
        lines.append(
            f"  {found['num_unjudged']} conversations were judged by nothing and count in neither arm"
        )
    if found["num_waiting"]:
        lines.append(f"  {found['num_waiting']} wait for a conversation that began before them and goes on")
    return lines


def _difference(learning: dict[str, Any], control: dict[str, Any]) -> str:
    if learning["mean"] is None or control["mean"] is None:
        return ""
    return f": a difference of {learning['mean'] - control['mean']:+.2f}"


def _points(arm: dict[str, Any]) -> str:
    mean = "-" if arm["mean"] is None else f"{arm['mean']:.2f}"
    return f"{mean} of {arm['num']} conversations"


def _brief(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else line[:79] + "…"
