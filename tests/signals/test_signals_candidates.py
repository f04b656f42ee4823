"""Where hints come from: the user, the error, the reference, and what worked later."""

from dataclasses import replace

import pytest
from attempts import NO, OK, REFUSED, after, answered, ran

from agentrl.signals.candidates import candidates, later_success, references, ways_out
from agentrl.types import NextState, Reply, Signal, SignalSource, ToolCall


def test_candidates_come_from_the_user_the_error_the_reference_and_the_later_success() -> None:
    state = NextState(
        turn_id="t1",
        messages=(
            {"role": "tool", "content": "cat: refused, use zorp\n[exit code 1]"},
            {"role": "user", "content": "No, use zorp there."},
        ),
    )
    signals = [Signal(turn_id="t1", source=SignalSource.ENVIRONMENT, preferred="zorp a.txt")]
    later = [(ran("ls"), answered("a\n[exit code 1]")), (ran("zorp a.txt"), answered("milk\n[exit code 0]"))]

    found = [*candidates(state), *references(signals), later_success(ran("cat a.txt"), later)]

    assert [(item.origin, item.text, item.trusted) for item in found if item] == [
        ("error_text", "cat: refused, use zorp", False),
        ("correction", "No, use zorp there.", False),
        ("reference", "zorp a.txt", True),
        ("later_success", "cat does not work here; zorp works", False),
    ]


@pytest.mark.parametrize(
    ("wrong", "right", "text"),
    [
        ("cat a.txt", "zorp a.txt", "cat does not work here; zorp works"),
        ("head -n a.txt", "head -n 5 a.txt", "`head -n a.txt` failed; `head -n 5 a.txt` worked"),
        ("cat a.txt", "ls docs", None),
        ("cat a.txt", "cat a.txt", None),
        ("cat a.txt", "cat a.txt " + "x" * 200, None),
    ],
)
def test_a_later_success_is_told_by_what_is_different(wrong: str, right: str, text: str | None) -> None:
    found = later_success(ran(wrong), [(ran(right), answered("ok\n[exit code 0]"))])

    assert (None if found is None else found.text) == text


def test_a_later_call_that_failed_or_was_of_another_tool_teaches_nothing() -> None:
    call = ToolCall(id="c", name="python", arguments='{"command": "zorp a"}')
    other = replace(ran("x"), reply=Reply(text="", tool_calls=(call,)))

    assert later_success(ran("cat a"), [(ran("zorp a"), answered("no\n[exit code 2]"))]) is None
    assert later_success(ran("cat a"), [(other, answered("ok\n[exit code 0]"))]) is None


@pytest.mark.parametrize(
    ("calls", "found"),
    [
        ([("cat a.txt", NO), ("ls docs", NO), ("less a.txt", NO)], [(1, False), (3, False)]),
        ([("cat a.txt", REFUSED), ("less a.txt", NO)], [(1, False), (2, True)]),
        ([("cat a.txt", NO), ("less a.txt", OK)], []),
        ([("cat a.txt", NO), ("ls docs", OK)], [(2, False)]),
        ([("zorp a.txt", NO)], []),
        ([("cat a.txt", NO), *[("ls docs", NO)] * 7], [(8, False)]),
        ([("cat a.txt", NO), *[("ls docs", NO)] * 8], []),
    ],
)
def test_a_success_is_the_way_out_of_the_failures_before_it_that_nothing_else_had_mended(
    calls: list[tuple[str, str]], found: list[tuple[int, bool]]
) -> None:
    ways = ways_out(after(*calls))

    assert [(way.num_back, way.is_told) for way in ways] == found
    assert {way.candidate.text.partition(" works")[0][-4:] for way in ways} <= {"zorp"}


def test_a_failure_before_the_newest_request_is_not_looked_at() -> None:
    turn = after(("cat a.txt", NO))
    asked = replace(turn, messages=(*turn.messages, {"role": "user", "content": "Go on."}))

    assert len(ways_out(turn)) == 1
    assert ways_out(asked) == []
