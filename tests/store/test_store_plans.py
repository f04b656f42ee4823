"""What is asked with every step, and with every version that is asked for lessons, reads no table from end to end."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentrl.store.learning_log import LearningLog
from agentrl.store.signal_log import SignalLog
from agentrl.types import Lesson, LessonState

RULE = Lesson(id="R1", text="Use metric units.", state=LessonState.APPROVED, turn_ids=(), origin="import")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LearningLog]:
    async def begin() -> None:
        async with await SignalLog.open(tmp_path):
            pass

    asyncio.run(begin())
    with LearningLog(tmp_path) as log:
        yield log


def plan(log: LearningLog, ask: Callable[[LearningLog], object]) -> list[str]:
    """The steps of all selects that are made, in their order."""
    asked: list[str] = []
    with log._open() as connection:
        connection.set_trace_callback(asked.append)
        ask(log)
        connection.set_trace_callback(None)
        plans = [connection.execute(f"EXPLAIN QUERY PLAN {sql}") for sql in asked if sql.startswith("SELECT")]
        return [row["detail"] for steps in plans for row in steps]


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        (
            lambda log: log.with_results([RULE]),
            "SEARCH p USING INDEX probes_by_name (policy=? AND name=?)",
        ),
        (lambda log: log.num_probed(), "SEARCH probes USING COVERING INDEX probes_by_name (policy=?)"),
    ],
)
def test_what_was_found_of_lessons_is_read_by_their_names(
    log: LearningLog, ask: Callable[[LearningLog], object], expected: str
) -> None:
    assert expected in plan(log, ask)


def test_the_newest_turns_of_a_scope_are_not_sorted(log: LearningLog) -> None:
    assert plan(log, lambda log: log.answered_in("default")) == [
        "SEARCH turns USING INDEX answered_turns (scope=? AND policy=?)"
    ]


def test_turns_that_nothing_is_trained_on_are_looked_for_among_the_newest_alone(log: LearningLog) -> None:
    assert plan(log, lambda log: log.untrained())[:2] == [
        "SEARCH turns",
        "SEARCH t USING INTEGER PRIMARY KEY (rowid>?)",
    ]
