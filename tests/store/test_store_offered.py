"""Hints that were offered beside the one of their turn: kept, counted as no hint, and shown only with it."""

from pathlib import Path

from store_samples import answer, make_turn, record

from agentrl.store import codec, records
from agentrl.store.database import connect
from agentrl.store.migrations import LOG, migrate
from agentrl.store.signal_log import SignalLog
from agentrl.store.verify import verify
from agentrl.types import Lesson, LessonState, Signal, SignalSource


async def offering(log: SignalLog, turn_id: str, hint: str | None, *offers: str) -> None:
    await record(log, make_turn(turn_id, session=f"session-{turn_id}"))
    await answer(log, turn_id)
    said = [Signal(turn_id=turn_id, source=SignalSource.RULE, hint=hint, reward=-1.0, created_at=1002.0)]
    said += [
        Signal(turn_id=turn_id, source=SignalSource.RULE, offered=text, created_at=1002.0) for text in offers
    ]
    await log.mark_judged(turn_id, "judged", "", said)


def shown(learning, turn_id: str) -> list[tuple[str | None, str | None]]:
    [record_] = learning.records([turn_id])
    return [(signal.hint, signal.offered) for signal in record_.signals]


def decided(learning, turn_id: str, state: LessonState, text: str = "x") -> None:
    """Gives the hint of a turn a lesson in a state."""
    [item] = [item for item in learning.new_hints() if item.turn.id == turn_id]
    lesson = Lesson(id=f"L{turn_id}", text=text, state=state, turn_ids=())
    learning.add_lessons([lesson], {item.signal: (turn_id, lesson.id)})


async def test_what_is_offered_is_read_back_and_is_no_hint_to_be_gathered(log, learning) -> None:
    await offering(log, "t1", "use zorp", "use zap", "zorp works")

    assert [(s.hint, s.offered) for s in await log.signals("t1")] == [
        ("use zorp", None),
        (None, "use zap"),
        (None, "zorp works"),
    ]
    assert [item.hint for item in learning.new_hints()] == ["use zorp"]
    assert (await log.explain("t1"))["signals"][1]["offered"] == "use zap"


async def test_a_turn_that_only_has_an_offer_has_no_hint(log, learning) -> None:
    await offering(log, "t1", None, "use zap")
    learning.configure(needs="hint", approve="auto")

    assert learning.fate("t1") == "rejected:no_hint"


async def test_an_offer_goes_with_the_hint_that_it_stands_beside(log, learning) -> None:
    for name in ("t1", "t2", "t3", "t4"):
        await offering(log, name, f"hint of {name}" if name != "t4" else None, "use zap")
    learning.configure(needs="any", approve="auto")
    decided(learning, "t2", LessonState.RETIRED)
    decided(learning, "t3", LessonState.APPROVED)

    assert shown(learning, "t1") == [("hint of t1", None), (None, "use zap")]
    assert shown(learning, "t2") == [(None, None), (None, None)]
    assert shown(learning, "t3") == [("hint of t3", None), (None, "use zap")]
    assert shown(learning, "t4") == [(None, None), (None, None)]


async def test_in_review_nothing_is_offered_since_nobody_has_approved_it(log, learning) -> None:
    await offering(log, "t1", "use zorp", "use zap")
    learning.configure(needs="any", approve="review")
    decided(learning, "t1", LessonState.APPROVED)

    assert shown(learning, "t1") == [("use zorp", None), (None, None)]


async def test_a_log_of_an_earlier_release_keeps_its_signals_and_an_offer_put_into_it_is_noticed(
    tmp_path: Path,
) -> None:
    async with await SignalLog.open(tmp_path) as log:
        await offering(log, "t1", "use zorp")
    connection = connect(tmp_path / "log.db")
    row = connection.execute("SELECT * FROM signals").fetchone()
    known_before = [name for name in records.SIGNAL_COLUMNS if name != "offered"]
    assert codec.digest(row[name] for name in known_before) == row["digest"]
    # What that release left: no such column, no record of the migration that adds it.
    connection.execute("ALTER TABLE signals DROP COLUMN offered")
    connection.execute("DELETE FROM migrations WHERE name = 'm007_offered_hints'")

    assert migrate(connection, LOG) == ["m007_offered_hints"]
    assert verify(tmp_path) == []

    connection.execute("UPDATE signals SET offered = 'use zap'")
    connection.close()
    assert verify(tmp_path) == ["signal 1 does not have its checksum: a value of its row was altered"]
