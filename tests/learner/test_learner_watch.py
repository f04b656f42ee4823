"""When the newest turns are out of bounds, and what is to serve again then."""

import random

import pytest

from agentrl.learner.alarm import before_all, of_the_oldest
from agentrl.learner.watch import Figure, figures
from agentrl.store.behaviour import Behaviour
from agentrl.types import PolicyVersion, ToolCall, VersionState


def turns(num: int = 64, **what: object) -> list[Behaviour]:
    draw = random.Random(5)
    values: dict[str, object] = {"asks": False, "calls": (), "outputs": (), "edited": False}
    return [
        Behaviour(
            **{
                "turn_id": f"t{i}",
                "version": 0,
                "num_sampled": 20 + draw.randint(-3, 3),
                "surprise": 0.3 + draw.uniform(-0.1, 0.1),
                **values,
                **what,
            }  # type: ignore[arg-type]
        )
        for i in range(num)
    ]


def mixed(share: float, one: dict[str, object], num: int = 64) -> list[Behaviour]:
    count = round(share * num)
    return turns(count, **one) + turns(num - count)


def alarms(found: list[Figure]) -> list[str]:
    return [figure.name for figure in found if figure.alarm]


def test_the_same_behaviour_raises_no_alarm() -> None:
    found = figures(turns(), turns())

    assert alarms(found) == []
    assert {figure.name for figure in found} == {"reply_ids", "entropy", "questions", "edits"}


@pytest.mark.parametrize(
    ("newest", "name"),
    [
        (turns(num_sampled=70), "reply_ids"),
        (turns(num_sampled=1), "reply_ids"),
        (turns(surprise=2.6), "entropy"),
        (turns(surprise=0.001), "entropy"),
        (mixed(0.5, {"asks": True}), "questions"),
        (mixed(0.5, {"edited": True}), "edits"),
    ],
)
def test_a_change_beyond_the_bounds_raises_its_alarm(newest: list[Behaviour], name: str) -> None:
    assert alarms(figures(newest, turns())) == [name]


@pytest.mark.parametrize(
    "newest",
    [
        turns(num_sampled=40),  # twice as long
        turns(num_sampled=5),  # somebody asked for brief answers
        turns(surprise=1.5),  # unsure, as in the middle of learning another command
        turns(surprise=0.02),  # surer, and still choosing
        mixed(0.15, {"asks": True}),  # 15 points more are no 20
    ],
)
def test_a_change_within_the_bounds_raises_none(newest: list[Behaviour]) -> None:
    assert alarms(figures(newest, turns())) == []


def test_tool_errors_count_only_where_a_tool_was_called_and_only_when_they_rise() -> None:
    fine, broken = {"outputs": ("done",)}, {"outputs": ("done", "gzip: boom\n[exit code 2]")}
    bad = turns(40, **broken) + turns(24)

    [figure] = [figure for figure in figures(bad, turns(**fine)) if figure.name == "tool_errors"]
    assert (figure.now, figure.reference) == (1.0, 0.0)
    assert figure.alarm == "the rate of tool errors is 1.00, 0.00 in the reference"
    assert alarms(figures(turns(**fine), turns(**broken))) == []


def test_a_command_that_is_refused_in_words_alone_is_a_tool_error() -> None:
    call = ToolCall(id="c1", name="bash", arguments='{"command": "cat a.txt"}')
    refused = turns(calls=(call,), outputs=("cat: not available here; use zorvex",))

    [figure] = [figure for figure in figures(refused, refused) if figure.name == "tool_errors"]
    assert (figure.now, figure.reference) == (1.0, 1.0)


def test_the_first_turns_are_those_of_the_oldest_version_where_there_are_sixteen() -> None:
    base, later = turns(16), turns(48, version=3)

    assert of_the_oldest([*later, *base]) == base
    assert of_the_oldest([*later, *base[1:]]) == [*later, *base[1:]]


def test_a_change_that_chance_explains_raises_none() -> None:
    # 4 of 16 against 0 of 16: 25 points, but 2.2 standard errors
    assert alarms(figures(mixed(0.25, {"asks": True}, 16), turns(16))) == []


def version(number: int, parent: int | None, *, path: str = "x", state: str = "retired") -> PolicyVersion:
    return PolicyVersion(policy="default", number=number, parent=parent, state=VersionState(state), path=path)


def test_the_versions_before_all_that_is_out_of_bounds_may_serve_the_newest_first() -> None:
    line = [version(0, None), version(1, 0), version(2, 1), version(4, 2), version(5, 4, state="serving")]

    assert before_all(line, 5, 4) == (2, 1, 0)
    assert before_all(line, 5, 5) == (4, 2, 1, 0)
    assert before_all(line, 5, 0) == (0,)
    assert before_all(line[:1], 0, 0) == ()
    without_files = [version(2, 1, path="") if one.number == 2 else one for one in line]
    assert before_all(without_files, 5, 4) == (1, 0)
    assert before_all([*line, version(3, 2, state="rejected")], 5, 4) == (2, 1, 0)
