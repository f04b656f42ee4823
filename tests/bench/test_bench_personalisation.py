"""By what a personalisation run is read, and one real run of a user without learning."""

import math
from typing import Any

import pytest

from agentrl.types import Purpose
from bench.personal_figures import (
    acquired,
    after_three,
    claims,
    held_out_need,
    later,
    needed,
    right_after,
    score,
    table,
    to_good,
)
from bench.personalisation import MARKS, first_note, one_run, shares
from envs.personal_grader import grade
from envs.runner import Episode

REQUEST = "Describe the lamp: weight 3 kg or 7 lb, height 2 m or 7 ft."


def talk(*, units: bool, form: bool = True, corrected: int = 0) -> dict[str, Any]:
    corrections = {"units": corrected} if corrected else {}
    return {"first": {"units": units, "form": form}, "corrections": corrections}


def point(conversations: int, units: float, form: float, corrected: int = 0) -> dict[str, Any]:
    shown = {"met": {"units": units, "form": form}, "all": units * form, "facts": 1.0}
    corrections = {"units": corrected} if corrected else {}
    return {
        "conversations": conversations,
        "version": conversations,
        "corrections": corrections,
        "sampled": shown,
        "greedy": shown,
    }


def row(talks: list[dict[str, Any]], points: list[dict[str, Any]], arm: str = "learning") -> dict[str, Any]:
    return {
        "arm": arm,
        "preferences": {"units": "metric", "form": "list"},
        "conversations": talks,
        "points": points,
        "feedback_to_serving_s": [1.0, 2.0, 9.0],
    }


# wrong, right by luck, wrong, then right (a later note of the same conversation was not) but for one in the 25 behind
TALKS = [
    talk(units=False, corrected=1),
    talk(units=True),
    talk(units=False, corrected=2),
    talk(units=True, corrected=1),
    *[talk(units=True) for _ in range(7)],
    talk(units=False, corrected=1),
    *[talk(units=True) for _ in range(19)],
]
POINTS = [
    point(0, 0.3, 0.4),
    point(1, 0.7, 0.7, corrected=1),
    point(3, 0.9, 0.7, corrected=3),
    point(8, 1.0, 0.9, corrected=3),
]


def test_a_habit_is_acquired_with_the_first_of_three_right_conversations_in_a_row() -> None:
    assert acquired([False, True, True, False, True, True, True]) == 4
    assert acquired([True, True, True]) == 0
    assert acquired([True, True]) is None
    assert acquired([]) is None


def test_needed_corrections_are_those_before_the_habit_was_acquired() -> None:
    found = row(TALKS, POINTS)
    assert needed(found, "units") == 3.0
    assert needed(found, "form") == 0.0
    assert math.isinf(needed(row(TALKS[:3], POINTS), "units"))


def test_recurrence_is_counted_on_the_fifty_occasions_behind_the_third_correction() -> None:
    mistakes = later(row(TALKS, POINTS), "units")
    assert (sum(mistakes), len(mistakes)) == (1, 28)
    never_corrected = later(row(TALKS, POINTS), "form")
    assert (sum(never_corrected), len(never_corrected)) == (0, 31)
    assert len(later(row([talk(units=True)] * 80, POINTS), "units")) == 50
    assert later(row(TALKS[:3], POINTS), "units") == []


def test_the_score_is_the_mean_over_preferences_and_the_first_point_at_it_counts() -> None:
    found = row(TALKS, POINTS)
    assert score(POINTS[1]) == pytest.approx(0.7)
    assert to_good(found) == 3.0
    assert to_good(found, good=0.95) == 8.0
    assert math.isinf(to_good(found, good=0.96))


def test_the_held_out_share_is_read_behind_the_third_correction_or_at_the_end() -> None:
    found = row(TALKS, POINTS)
    assert after_three(found, "units") == 0.9
    assert after_three(found, "form") == 0.9
    assert right_after(found, "units") == 0.9
    assert right_after(row(TALKS[:2], POINTS), "units") == 0.7, (
        "one correction came, behind which .7 was measured"
    )
    assert right_after(found, "form") is None, "which nobody corrected"
    assert held_out_need(found, "units") == 3.0
    assert held_out_need(found, "form") == 0.0
    assert math.isinf(held_out_need(row(TALKS, POINTS[:2]), "units"))


def test_each_claim_holds_or_fails_by_its_number() -> None:
    quick = [talk(units=False, corrected=1), *[talk(units=True) for _ in range(60)]]
    good = row(quick, [point(0, 0.3, 0.4), point(1, 0.9, 0.9, corrected=1)])
    assert [holds for _, holds in claims([good]).values()] == [True, True, True, True, True, None]
    assert "median 2.0, p95 9.0" in next(reversed(claims([good]).values()))[0]

    slow = [talk(units=index % 2 == 0, form=False, corrected=1) for index in range(60)]
    bad = row(slow, [point(0, 0.3, 0.4), point(24, 0.5, 0.1, corrected=12)])
    assert [holds for _, holds in claims([bad]).values()] == [False, False, False, False, False, None]
    assert claims([good | {"arm": "none"}]) == {}


def test_absence_after_three_corrections_is_a_mean_over_habits_by_either_reading() -> None:
    # units: once corrected, .7 right behind it and 1.0 at the end; form: nobody ever corrected it, .95 at the end
    once = row(
        [talk(units=False, corrected=1)], [point(0, 0.3, 0.9), point(1, 0.7, 0.9), point(8, 1.0, 0.95)]
    )
    # units: three times corrected, .88 right behind the third
    thrice = row(
        TALKS, [point(0, 0.3, 0.4), point(4, 0.88, 0.8, corrected=3), point(8, 1.0, 0.8, corrected=3)]
    )

    right = "absent behind at most 3 corrections, right behind the last, mean at least 0.9"
    fewer = "the same, with the last version where there were fewer than 3, mean at least 0.9"
    said = claims([once, thrice])
    assert said[right] == ("0.790 of 2 habits, 0 of them at 0.9 or more", False)
    assert said[fewer] == ("0.907 of 4 habits, 2 of them at 0.9 or more", True), "however many are at .9"
    assert f"- {fewer}: 0.907 of 4 habits, 2 of them at 0.9 or more (holds)" in table([once, thrice])
    assert claims([row([talk(units=True)], [point(0, 0.9, 0.9)])])[right] == ("no habit", None)


def test_the_table_has_a_line_for_each_arm_that_was_run() -> None:
    shown = table([row(TALKS, POINTS), row(TALKS, POINTS[:1], arm="none")])
    assert "| learning | 1 | 0.35 | 0.95 | 0.95 | 0.90 | 1.00 | 3 |" in shown
    assert "| no learning | 1 | 0.35 | 0.35 | 0.35 | 0.12 | 1.00 | never |" in shown
    assert "preference in the prompt" not in shown


def test_shares_are_counted_over_grades() -> None:
    notes = ["The lamp has weight 3 kg and height 2 m.", "| weight | 3 kg |\n| height | 9 m |"]
    found = shares([grade(REQUEST, note) for note in notes], {"form": "table", "units": "metric"})
    assert found == {"met": {"form": 0.5, "units": 1.0}, "all": 0.5, "facts": 0.5}


def test_a_conversation_is_graded_by_its_first_reply() -> None:
    messages = (
        {"role": "system", "content": "s"},
        {"role": "user", "content": REQUEST},
        {"role": "assistant", "content": "| weight | 3 kg |\n| height | 2 m |"},
        {"role": "user", "content": "No, use a list."},
        {"role": "assistant", "content": "The lamp:\n- weight: 3 kg\n- height: 2 m"},
    )
    episode = Episode(
        session="s", task_key="t", index=0, group=0, purpose=Purpose.TRAIN, reward=None, num_turns=2,
        latencies_s=(), num_failed_requests=0, versions=(0,), messages=messages,
    )  # fmt: skip
    assert first_note(episode).form == "table"


async def test_a_user_whom_nobody_learns_from_is_measured_over_http() -> None:
    found = await one_run(
        "held_out", 0, "none", preferences=2, conversations=1, model="nano", changes={}, num_held_out=(4, 2)
    )
    assert [each["conversations"] for each in found["points"]] == [0, 1]
    assert {each["version"] for each in found["points"]} == {0}
    assert len(found["conversations"]) == 1
    assert 1 <= found["conversations"][0]["num_turns"] <= 8
    assert set(found["points"][0]["sampled"]["met"]) == set(found["preferences"])
    assert len(found["preferences"]) == 2
    assert MARKS[:2] == (0, 1)
