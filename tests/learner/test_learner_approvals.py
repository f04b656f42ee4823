"""Approvals are evidence as far as their user also disapproves: the flattered are not heard, the honest are."""

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from math import prod

import pytest

from agentrl.learner.approvals import Approvals, rating_of
from agentrl.signals.labelled import as_turn, from_json
from agentrl.types import Reply, Signal, SignalSource, ToolCall, Turn

BASE = {
    "id": "t", "domain": "chat", "half": "dev", "made_by": "hand", "messages": [{"role": "user", "content": "Hi."}],
    "tools": [], "reply": {"text": "Done.", "calls": []}, "next": [], "end": None,
    "label": {"reward": 0, "fault": "agent", "kind": "praise", "should_hint": False, "hint_contains": []}, "reason": "",
}  # fmt: skip
FIRST, _ = as_turn(from_json(BASE))
SPAN = 20


def said(
    number: int, reward: float | None, *, session: str = "s", key: str = "k", source: str = "user"
) -> tuple[Turn, Signal]:
    turn = replace(FIRST, id=f"t{number}", session=session, scope=key)
    return turn, Signal(turn_id=turn.id, source=SignalSource(source), reward=reward)


def counted(given: Sequence[tuple[Turn, Signal]], span: int = SPAN) -> tuple[list[int], list[int]]:
    """Which of the approvals count at once, and which in the end."""
    approvals = Approvals(span)
    at_once = []
    for number, (turn, signal) in enumerate(given):
        approvals.add(turn, signal)
        at_once += [number] * (approvals.heard(turn, [signal])[0].reward is not None and signal.reward > 0)  # type: ignore[operator]
    end = [
        number
        for number, (turn, signal) in enumerate(given)
        if (signal.reward or 0) > 0 and approvals.heard(turn, [signal])[0].reward is not None
    ]
    return at_once, end


@pytest.mark.parametrize("source", ["user", "rule"])
@pytest.mark.parametrize(
    ("sessions", "each"), [(1, 1), (1, 4), (1, 8), (1, 150), (50, 1), (50, 4), (50, 8), (5, 150)]
)
def test_who_approves_of_everything_is_never_heard(sessions: int, each: int, source: str) -> None:
    given = [
        said(number, 1.0, session=f"s{number // each}", source=source) for number in range(sessions * each)
    ]

    assert counted(given) == ([], [])


def test_a_disapproval_speaks_for_the_twenty_ratings_before_it_and_behind_it() -> None:
    given = [said(number, -1.0 if number == 30 else 1.0) for number in range(61)]

    at_once, end = counted(given)
    assert at_once == list(range(31, 51))
    assert end == [*range(10, 30), *range(31, 51)]


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5])
def test_an_honest_users_approval_counts_as_likely_as_the_rule_says(rate: float) -> None:
    at_once = end = 0.0
    for others in product((1.0, -1.0), repeat=6):
        chance = prod(rate if reward < 0 else 1 - rate for reward in others)
        given = [said(number, reward) for number, reward in enumerate((*others[:3], 1.0, *others[3:]))]
        first, last = counted(given, span=3)
        at_once += chance * (3 in first)
        end += chance * (3 in last)

    assert at_once == pytest.approx(1 - (1 - rate) ** 3)
    assert end == pytest.approx(1 - (1 - rate) ** 6)


@pytest.mark.parametrize(("rate", "most_lost"), [(0.1, 3.0), (0.2, 0.2), (0.5, 0.0)])
def test_an_honest_user_loses_at_most_three_approvals_of_his_first_sixty_ratings(
    rate: float, most_lost: float
) -> None:
    lost = 0
    for user in range(100):
        draw = random.Random(f"{rate} {user}")
        given = [said(number, 0.0 if draw.random() < rate else 1.0) for number in range(60)]
        approved = sum((signal.reward or 0) > 0 for _, signal in given)
        lost += approved - len(counted(given)[1])

    assert lost / 100 <= most_lost


def test_ratings_from_0_to_1_tell_good_from_bad_by_their_size() -> None:
    graded = [said(number, reward) for number, reward in enumerate((0.9, 0.2, 0.8, 0.3))]
    praise = [said(number, reward) for number, reward in enumerate((1.0, 0.8, 0.9, 0.6, 0.5))]

    assert counted(graded)[1] == [0, 2]
    assert counted(praise)[1] == []


@pytest.mark.parametrize(
    "told", [{"hint": "Use zip."}, {"preferred": "zip it"}, {"reward": 0.0}, {"reward": -0.5}]
)
def test_a_correction_is_a_disapproval_and_silence_is_none(told: dict[str, object]) -> None:
    approvals = Approvals(SPAN)
    good, signal = said(1, 1.0)
    approvals.add(good, signal)
    silent = replace(FIRST, id="quiet", scope="k")
    assert approvals.add(silent, Signal(turn_id="quiet", source=SignalSource.USER, evidence="hm")) == []

    bad = replace(FIRST, id="bad", scope="k", session="other")
    assert approvals.add(bad, Signal(turn_id="bad", source=SignalSource.USER, **told)) == ["t1"]  # type: ignore[arg-type]
    assert len(approvals) == 0


def test_only_the_own_keys_disapprovals_count() -> None:
    given = [said(0, 1.0), said(1, -1.0, key="other"), said(2, 1.0)]

    assert counted(given)[1] == []


def test_among_honest_users_of_one_key_a_session_that_approves_of_everything_is_heard_twenty_times() -> None:
    given = []
    for number in range(0, 300, 2):
        given += [said(number, 1.0, session="flattered"), said(number + 1, -1.0, session=f"honest{number}")]

    flattered = [number for number in counted(given)[1] if given[number][0].session == "flattered"]
    assert len(flattered) == 20


def test_environments_judges_and_tools_are_no_users() -> None:
    turn = replace(FIRST, scope="k")
    call = ToolCall(id="c1", name="bash", arguments='{"command": "ls"}')
    called = replace(turn, reply=Reply(text="", tool_calls=(call,)))

    def of(who: str, reward: float, where: Turn) -> float | None:
        return rating_of(where, Signal(turn_id="t", source=SignalSource(who), reward=reward))

    assert [of(who, 1.0, turn) for who in ("user", "rule", "judge", "environment")] == [1.0, 1.0, None, None]
    assert [of(who, 1.0, called) for who in ("user", "rule")] == [1.0, None]
    assert [of(who, 0.0, turn) for who in ("user", "rule")] == [0.0, None]


def test_a_program_that_grades_as_environment_is_heard_whatever_it_says() -> None:
    given = [said(number, 1.0, source="environment") for number in range(50)]

    assert len(counted(given)[0]) == 50


def test_an_approval_that_counted_counts_still_when_it_is_said_again() -> None:
    approvals = Approvals(2)
    given = [said(1, -1.0), said(2, 1.0), said(3, 1.0), said(2, 1.0)]
    for turn, signal in given:
        approvals.add(turn, signal)

    assert [approvals.is_void(turn.id) for turn, _ in given[1:3]] == [False, False]


def test_without_a_span_every_approval_counts() -> None:
    given = [said(number, 1.0) for number in range(150)]

    assert len(counted(given, span=0)[0]) == 150
