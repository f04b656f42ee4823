"""Turns in whose prompts lessons stood, and what a server that shows lessons asks learning.db."""

from pathlib import Path

import pytest
from store_samples import answer, hint, judged_with_hint, make_turn, record

from agentrl.store import codec, records
from agentrl.store.account import Reason
from agentrl.store.behaviour import BehaviourLog
from agentrl.store.database import connect
from agentrl.store.learning_log import LearningLog
from agentrl.store.migrations import LOG, migrate
from agentrl.store.signal_log import SignalLog
from agentrl.store.verify import verify
from agentrl.types import Arm, Lesson, LessonState, SignalSource

SHOWN = {"block_spans": ((1, 2),), "shown_lessons": ("L1", "L2")}


async def test_a_request_that_goes_on_learns_where_lessons_stand_in_the_prompt_before(log) -> None:
    await record(log, make_turn("t1", **SHOWN), make_turn("t2"))

    first, second = await log.parent("t1"), await log.parent("t2")
    assert (first.block_spans, first.shown_lessons) == (((1, 2),), ("L1", "L2"))
    assert (second.block_spans, second.shown_lessons) == ((), ())


async def test_a_turn_without_lessons_has_the_checksum_of_earlier_releases(tmp_path: Path) -> None:
    async with await SignalLog.open(tmp_path) as log:
        await record(log, make_turn("t1"), make_turn("t2", **SHOWN))
    connection = connect(tmp_path / "log.db")
    rows = connection.execute("SELECT * FROM turns ORDER BY seq").fetchall()
    known_before = [name for name in records.TURN_COLUMNS if name != "shown_lessons"]

    assert codec.digest(rows[0][name] for name in known_before) == rows[0]["digest"]
    assert codec.digest(rows[1][name] for name in known_before) != rows[1]["digest"]
    connection.close()


async def test_a_log_of_an_earlier_release_keeps_its_turns_and_stays_whole(tmp_path: Path) -> None:
    async with await SignalLog.open(tmp_path) as log:
        await record(log, make_turn("t1", block_spans=((0, 1),)))
    connection = connect(tmp_path / "log.db")
    # What that release left: no such column, no record of the migration that adds it.
    connection.execute("ALTER TABLE turns DROP COLUMN shown_lessons")
    connection.execute("DELETE FROM migrations WHERE name = 'm006_shown_lessons'")

    assert migrate(connection, LOG) == ["m006_shown_lessons"]
    connection.close()
    assert verify(tmp_path) == []
    async with await SignalLog.open(tmp_path) as log:
        turn = await log.turn("t1")
        assert turn is not None
        assert (turn.block_spans, turn.shown_lessons) == (((0, 1),), ())


@pytest.mark.parametrize("value", ["NULL", "'[\"L3\"]'"])
async def test_a_lesson_that_was_taken_out_of_the_record_or_put_into_it_is_missed(
    tmp_path: Path, value: str
) -> None:
    async with await SignalLog.open(tmp_path) as log:
        await record(log, make_turn("t1", **SHOWN))
    assert verify(tmp_path) == []
    connection = connect(tmp_path / "log.db")
    connection.execute(f"UPDATE turns SET shown_lessons = {value}")
    connection.close()

    assert verify(tmp_path) == ["turn t1 does not have its checksum: a value of its row was altered"]


async def test_what_is_done_with_a_lesson_in_view_is_no_behaviour_of_the_weights(log) -> None:
    await record(log, make_turn("t1"), make_turn("t2", **SHOWN))
    for name in ("t1", "t2"):
        await answer(log, name)
    with BehaviourLog(log.path, "default") as behaviour:
        assert [turn.turn_id for turn in behaviour.newest(9, arm=Arm.LEARNING)] == ["t1"]


async def test_the_hints_of_lessons_come_with_their_turns_from_where_the_last_look_ended(
    log, learning
) -> None:
    for number in (1, 2, 3):
        await judged_with_hint(log, make_turn(f"t{number}"))
    lessons = [Lesson(id=name, text=name, state=LessonState.APPROVED, turn_ids=()) for name in ("L1", "L2")]
    new = {item.turn.id: item.signal for item in learning.new_hints()}
    learning.add_lessons(lessons, {new["t1"]: ("t1", "L1"), new["t3"]: ("t3", "L2")})

    found = learning.given({"L1": 0, "L2": 0, "L3": 0}, most=64)
    assert [(one.lesson, one.turn.id, one.hint, one.source) for one in found] == [
        ("L1", "t1", "use ls", SignalSource.JUDGE),
        ("L2", "t3", "use ls", SignalSource.JUDGE),
    ]
    assert found[0].next_state is not None
    assert learning.given({"L1": found[0].signal}, most=64) == []
    assert learning.given({"L2": found[0].signal, "L1": found[0].signal}, most=64) == found[1:]


async def test_the_newest_hints_of_each_lesson_are_kept_however_many_others_have(log, learning) -> None:
    lessons = [Lesson(id=name, text=name, state=LessonState.APPROVED, turn_ids=()) for name in ("L1", "L2")]
    for number in range(1, 7):
        await judged_with_hint(log, make_turn(f"t{number}"))
    new = {item.turn.id: item.signal for item in learning.new_hints()}
    learning.add_lessons(
        lessons, {new[f"t{n}"]: (f"t{n}", "L1" if n <= 2 else "L2") for n in range(1, 7) if n != 3}
    )

    found = learning.given({"L1": 0, "L2": 0}, most=2)
    assert [(one.lesson, one.turn.id) for one in found] == [
        ("L1", "t1"), ("L1", "t2"), ("L2", "t5"), ("L2", "t6")
    ]  # fmt: skip
    hints = {new[name]: name for name in ("t1", "t3")} | {new["t2"]: "another turn"}
    assert learning.gathered(hints) == {new["t1"]}
    assert learning.gathered({}) == frozenset()


async def test_turns_that_were_set_aside_for_what_they_say_are_doubted(log, learning) -> None:
    reasons = [Reason.CONTRADICTED, Reason.GATE, Reason.ROLLED_BACK, Reason.NO_CONTEXT, Reason.EXPIRED]
    lesson = Lesson(id="L1", text="x", state=LessonState.APPROVED, turn_ids=())
    for reason in reasons:
        await record(log, make_turn(reason.name))
        await hint(log, reason.name)
    new = {item.turn.id: item.signal for item in learning.new_hints()}
    learning.add_lessons([lesson], {signal: (name, "L1") for name, signal in new.items()})
    for reason in reasons:
        learning.reject([reason.name], reason)

    assert learning.doubted() == {"CONTRADICTED", "GATE", "ROLLED_BACK"}


async def test_whoever_reads_learning_sees_that_another_has_written_it(log, learning, tmp_path: Path) -> None:
    with LearningLog(learning.path, log_path=log.path, read_only=True) as reader:
        before = reader.changes()
        assert reader.changes() == before
        learning.add_lessons([Lesson(id="L1", text="x", state=LessonState.APPROVED, turn_ids=())])
        assert reader.changes() != before
