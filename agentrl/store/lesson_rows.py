"""Lessons to rows and back, and which hints of a turn may be taught. SQL only; transactions are the caller's."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from agentrl.store import codec, records
from agentrl.store.account import STANDS, TAUGHT, Reason
from agentrl.store.database import scalar
from agentrl.types import Lesson, LessonState, NextState, Signal, SignalSource, Turn

PROBE = "lesson "
"""Before a lesson's id, the name of its probe in the table of probes."""
DOUBTS = (Reason.CONTRADICTED, Reason.GATE, Reason.ROLLED_BACK)
"""Why turns are set aside whose hints are not to be believed: because of what they say, or with a version undone."""
BROKEN = 0.5
"""A version that keeps less of a lesson than this has broken it. It takes more to be held: between both a lesson stands
as it stood, or every other version would break some and the next one mend them."""
_LEARNABLE = """t.policy = :policy AND t.purpose = 'train' AND t.arm = 'learning' AND t.kind = 'main'
    AND t.error IS NULL AND t.num_sampled > 0"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewHint:
    """An accepted hint that has no lesson yet."""

    signal: int
    """Its number in log.db."""
    hint: str
    turn: Turn
    next_state: NextState | None
    source: SignalSource = SignalSource.RULE
    """Of imported ones nobody asks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A hint of a lesson."""

    signal: int
    """Its number in log.db."""
    lesson: str
    hint: str
    source: SignalSource
    turn: Turn
    next_state: NextState | None


def taught_signals(connection: sqlite3.Connection, turn: Turn) -> tuple[Signal, ...]:
    """The signals of a turn, without the hints whose lesson is not to be taught. What is offered beside a hint goes
    with it; in review nobody has approved it."""
    rows = connection.execute(
        f"""SELECT {TAUGHT.format(turn="t.id", approve="g.approve")} AS taught, g.approve IS 'review' AS reviewed
            FROM signals s
            JOIN turns t ON t.seq = s.turn LEFT JOIN settings g ON g.policy = t.policy
            WHERE t.id = ? ORDER BY s.id""",  # noqa: S608
        (turn.id,),
    ).fetchall()
    signals = records.read_signals(connection, turn.id)
    both = list(zip(signals, rows, strict=True))
    hints = [row["taught"] and not row["reviewed"] for signal, row in both if signal.hint]
    may_offer = bool(hints) and all(hints)
    return tuple(
        replace(
            signal,
            hint=signal.hint if row["taught"] else None,
            offered=signal.offered if may_offer else None,
        )
        for signal, row in both
    )


def may_teach(connection: sqlite3.Connection, turn_id: str, hint: str) -> bool:
    """Whether a hint of a turn may be shown to a teacher."""
    return bool(
        scalar(
            connection,
            f"""SELECT max({TAUGHT.format(turn="t.id", approve="g.approve")}) FROM signals s
                JOIN turns t ON t.seq = s.turn LEFT JOIN settings g ON g.policy = t.policy
                WHERE t.id = ? AND s.hint = ?""",  # noqa: S608
            (turn_id, hint),
        )
    )


def is_proposed(connection: sqlite3.Connection, turn_id: str, hint: str) -> bool:
    """Whether a hint of a turn waits for a decision."""
    return bool(
        scalar(
            connection,
            f"""SELECT max({STANDS.format(state="proposed")}) FROM signals s JOIN turns t ON t.seq = s.turn
                WHERE t.id = ? AND s.hint = ?""",  # noqa: S608
            (turn_id, hint),
        )
    )


def new_hints(connection: sqlite3.Connection, policy: str, limit: int, after: int = 0) -> list[NewHint]:
    """The oldest hints that belong to no lesson, above a signal's number."""
    # A power cut may take the newest signals of the log, whose numbers then come again: where the last hint that was
    # gathered is not the one that stands there, the log is read from its beginning.
    gathered = int(
        scalar(
            connection,
            """SELECT g.gathered FROM settings g JOIN lesson_hints h ON h.signal = g.gathered
               JOIN signals s ON s.id = h.signal JOIN turns t ON t.seq = s.turn AND t.id = h.turn_id
               WHERE g.policy = ?""",
            (policy,),
        )
        or 0
    )
    rows = connection.execute(
        f"""SELECT s.id, s.hint, s.source, t.id AS turn_id FROM signals s INDEXED BY hints
            JOIN turns t ON t.seq = s.turn
            WHERE s.id > :gathered AND s.hint <> '' AND {_LEARNABLE}
            AND NOT EXISTS (SELECT 1 FROM lesson_hints h WHERE h.signal = s.id AND h.turn_id = t.id)
            ORDER BY s.id LIMIT :limit""",  # noqa: S608
        {"policy": policy, "gathered": max(gathered, after), "limit": limit},
    ).fetchall()
    found = []
    for row in rows:
        turn = records.read_turn(connection, row["turn_id"])
        assert turn is not None, "the snapshot holds the row"
        state = records.read_next_state(connection, turn.id)
        source = SignalSource(row["source"])
        found.append(NewHint(signal=row["id"], hint=row["hint"], source=source, turn=turn, next_state=state))
    return found


def given(connection: sqlite3.Connection, after: Mapping[str, int], most: int) -> list[Given]:
    """The newest `most` hints of each lesson above its number of a signal, in the order of their signals."""
    rows = connection.execute(
        """SELECT * FROM (SELECT h.signal, h.lesson, h.turn_id, s.hint, s.source,
               row_number() OVER (PARTITION BY h.lesson ORDER BY h.signal DESC) AS place
               FROM json_each(?) a CROSS JOIN lesson_hints h ON h.lesson = a.key AND h.signal > a.value
               JOIN signals s ON s.id = h.signal JOIN turns t ON t.seq = s.turn AND t.id = h.turn_id)
           WHERE place <= ? ORDER BY signal""",
        (codec.to_json(dict(after)), most),
    ).fetchall()
    found = []
    for row in rows:
        turn = records.read_turn(connection, row["turn_id"])
        assert turn is not None, "the snapshot holds the row"
        found.append(
            Given(
                signal=row["signal"],
                lesson=row["lesson"],
                hint=row["hint"],
                source=SignalSource(row["source"]),
                turn=turn,
                next_state=records.read_next_state(connection, turn.id),
            )
        )
    return found


def gathered(connection: sqlite3.Connection, hints: Mapping[int, str]) -> frozenset[int]:
    """Those of the hints (signal -> turn id) that belong to a lesson."""
    rows = connection.execute(
        """SELECT h.signal FROM json_each(?) a CROSS JOIN lesson_hints h ON h.signal = CAST(a.key AS INTEGER)
           WHERE h.turn_id = a.value""",
        (codec.to_json({str(signal): turn_id for signal, turn_id in hints.items()}),),
    )
    return frozenset(row["signal"] for row in rows)


def doubted(connection: sqlite3.Connection, reasons: Sequence[str]) -> frozenset[str]:
    """The turns of lessons that were set aside for one of the reasons."""
    rows = connection.execute(
        "SELECT DISTINCT h.turn_id FROM lesson_hints h JOIN rejections r ON r.turn_id = h.turn_id "
        "WHERE r.reason IN (SELECT value FROM json_each(?))",
        (codec.to_json(list(reasons)),),
    )
    return frozenset(row["turn_id"] for row in rows)


def insert_lesson(connection: sqlite3.Connection, policy: str, lesson: Lesson, now: float) -> None:
    """Writes a lesson that is new; one that is there stays as it is."""
    values = (
        *(lesson.id, policy, lesson.scope, lesson.origin, codec.storable(lesson.text)),
        *(codec.storable(lesson.form), codec.storable(codec.to_json(lesson.situation))),
        None if lesson.probe is None else codec.storable(codec.to_json(lesson.probe)),
        *(lesson.state.value, codec.storable(lesson.reason), *(lesson.created_at or now,) * 2),
        codec.storable(lesson.source),
    )
    places = ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO lessons VALUES ({places}) ON CONFLICT (id) DO NOTHING", values)  # noqa: S608


def read_lessons(
    connection: sqlite3.Connection, policy: str, state: LessonState | None = None
) -> list[Lesson]:
    """Lessons of a line in the order of their making, all or those in one state."""
    turns: dict[str, dict[str, None]] = {}
    for row in connection.execute("SELECT lesson, turn_id FROM lesson_hints ORDER BY signal"):
        turns.setdefault(row["lesson"], {})[row["turn_id"]] = None
    found = [
        replace(lesson, turn_ids=tuple(turns.get(lesson.id, ())))
        for lesson in bare_lessons(connection, policy, state)
    ]
    return with_results(connection, policy, found)


def bare_lessons(
    connection: sqlite3.Connection, policy: str, state: LessonState | None = None
) -> list[Lesson]:
    """The same without their turns and results, of which there are as many as hints and versions."""
    rows = connection.execute(
        """SELECT * FROM lessons WHERE policy = :policy AND (:state IS NULL OR state = :state)
           ORDER BY created_at, id""",
        {"policy": policy, "state": None if state is None else state.value},
    )
    return [_lesson(row) for row in rows]


def with_results(connection: sqlite3.Connection, policy: str, lessons: Sequence[Lesson]) -> list[Lesson]:
    """The lessons with the served versions that hold them and those that broke them."""
    results: dict[str, list[sqlite3.Row]] = {}
    names = dict.fromkeys(PROBE + lesson.id for lesson in lessons)
    # Of several results of one version the newest stands; rejected versions never were what users met.
    for row in connection.execute(
        """SELECT p.name, p.number, p.passed, p.score, p.held_out FROM json_each(?) a
           CROSS JOIN probes p ON p.policy = ? AND p.name = a.value
           JOIN versions v ON v.policy = p.policy AND v.number = p.number
           WHERE v.state IN ('serving', 'retired')
           AND NOT EXISTS (SELECT 1 FROM probes q WHERE q.policy = p.policy AND q.number = p.number
               AND q.name = p.name AND q.id > p.id) ORDER BY p.number""",
        (json.dumps(list(names)), policy),
    ):
        results.setdefault(row["name"], []).append(row)
    return [_with(lesson, results.get(PROBE + lesson.id, ())) for lesson in lessons]


def _with(lesson: Lesson, results: Sequence[sqlite3.Row]) -> Lesson:
    first = min((row["number"] for row in results if row["passed"] != 0), default=None)
    return replace(
        lesson,
        held_by=tuple(row["number"] for row in results if row["passed"]),
        broken_by=tuple(
            row["number"]
            for row in results
            if row["passed"] == 0 and first is not None and row["number"] > first and _is_lost(row)
        ),
        without_effect=tuple(row["number"] for row in results if row["passed"] is None),
        is_apart=bool(results and results[-1]["held_out"]),
    )


def _is_lost(row: sqlite3.Row) -> bool:
    # Earlier releases gave no score.
    return row["score"] is None or row["score"] < BROKEN


def _lesson(row: sqlite3.Row) -> Lesson:
    return Lesson(
        id=row["id"],
        text=row["text"],
        state=LessonState(row["state"]),
        turn_ids=(),
        scope=row["scope"],
        origin=row["origin"],
        source=row["source"],
        form=row["form"],
        situation=tuple(json.loads(row["situation"])),
        probe=None if row["probe"] is None else json.loads(row["probe"]),
        reason=row["reason"],
        created_at=row["created_at"],
    )
