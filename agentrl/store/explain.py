"""Everything known on one turn, from the request to the version that learned it, as plain data for people."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agentrl.errors import StoreError
from agentrl.store import records, taught
from agentrl.store.account import define_fates, fate_of
from agentrl.store.database import attach, connect, reading
from agentrl.store.migrations import LEARNING, LOG, migrate, require_current
from agentrl.types import Turn


@contextmanager
def both_files(log_path: Path, learning_path: Path) -> Iterator[sqlite3.Connection]:
    """A read-only view of both files with the `fates` of turns; a run that never learned counts as an empty file.

    Raises:
        StoreError: log.db is missing, or a file is from another release.
    """
    if learning_path.is_file():
        connection = connect(learning_path, read_only=True)
    else:
        connection = sqlite3.connect(":memory:", isolation_level=None, uri=True)
        connection.row_factory = sqlite3.Row
        migrate(connection, LEARNING)
    try:
        require_current(connection, LEARNING, "main")
        attach(connection, log_path, "log")
        require_current(connection, LOG, "log")
        define_fates(connection)
        yield connection
    except sqlite3.Error as error:
        raise StoreError(f"the logs beside {log_path} could not be read: {error}") from error
    finally:
        connection.close()


def explain(log_path: Path, learning_path: Path, turn_id: str) -> dict[str, Any]:
    """See `SignalLog.explain`. Times are Unix seconds; ids are counted, those that a step trained are listed."""
    with both_files(log_path, learning_path) as connection, reading(connection):
        turn = records.read_turn(connection, turn_id)
        if turn is None:
            raise StoreError(f"the log has no turn {turn_id}")
        state = records.read_next_state(connection, turn_id)
        fate = fate_of(connection, turn_id)
        return {
            "turn": describe(turn),
            "history": _history(connection, turn_id),
            "next_state": None if state is None else plain(state),
            "judgements": _rows(
                connection,
                "SELECT outcome, detail, j.created_at FROM judgements j JOIN turns t ON t.seq = j.turn "
                "WHERE t.id = ? ORDER BY j.id",
                turn_id,
            ),
            "signals": [plain(signal) for signal in records.read_signals(connection, turn_id)],
            "lessons": _rows(
                connection,
                "SELECT DISTINCT l.id, l.text, l.state FROM lesson_hints h JOIN lessons l ON l.id = h.lesson "
                "WHERE h.turn_id = ? ORDER BY l.created_at, l.id",
                turn_id,
            ),
            "fate": fate,
            "claimed_at": next(
                (
                    row["claimed_at"]
                    for row in _rows(connection, "SELECT * FROM claims WHERE turn_id = ?", turn_id)
                ),
                None,
            ),
            # what was written down may count no more: a later signal or a decision has set the turn free
            "rejection": next(
                iter(
                    _rows(
                        connection,
                        "SELECT reason, version, created_at FROM rejections WHERE turn_id = ?",
                        turn_id,
                    )
                    if not (fate or "").startswith("pending:")
                    else ()
                ),
                None,
            ),
            "steps": [_step(connection, row, turn) for row in _rows(connection, _STEPS, turn_id)],
        }


def describe(turn: Turn) -> dict[str, Any]:
    """A turn as plain data, its id streams as counts."""
    done = turn.completion
    data: dict[str, Any] = plain(
        {field.name: getattr(turn, field.name) for field in dataclasses.fields(turn)}
    )
    del data["prompt_ids"], data["completion"]
    data["num_prompt"] = len(turn.prompt_ids)
    data["num_sampled"] = len(done.token_ids)
    data["finish_reason"] = done.finish_reason.value
    data["version_spans"] = plain(done.version_spans)
    data["mean_logprob"] = sum(done.logprobs) / len(done.logprobs) if done.logprobs else None
    return data


def plain(value: Any) -> Any:
    """Records, tuples and enums as dicts, lists and texts."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, str) else value


_STEPS = (
    """SELECT s.*, u.use FROM step_turns u JOIN steps s ON s.id = u.step WHERE u.turn_id = ? ORDER BY s.id"""
)


def _step(connection: sqlite3.Connection, step: dict[str, Any], turn: Turn) -> dict[str, Any]:
    step["metrics"] = json.loads(step["metrics"])
    step["version_history"] = [
        dict(row)
        for row in connection.execute(
            "SELECT state, reason, created_at FROM version_events WHERE policy = ? AND number = ? ORDER BY id",
            (step["policy"], step["version"]),
        )
    ]
    step["taught"] = [_taught(record, turn) for _, record in taught.read(connection, turn.id, step["id"])]
    return step


def _taught(record: taught.Taught, turn: Turn) -> dict[str, Any]:
    """A record as plain data; None in a stream is an id that was not trained."""
    ids = turn.completion.token_ids if record.token_ids is None else record.token_ids
    streams = {name: getattr(record, name) for name in taught.STREAMS}
    return {
        "source": record.source,
        "num_tokens": record.num_tokens,
        "shown": None if record.shown is None else plain(record.shown),
        "measured": plain(record.measured),
        "token_ids": list(ids),
    } | {
        name: None if stream is None else [None if value != value else value for value in stream.tolist()]
        for name, stream in streams.items()
    }


def _history(connection: sqlite3.Connection, turn_id: str) -> list[str]:
    """Ids of the turns before this one in its conversation, first to last."""
    rows = connection.execute(
        """WITH RECURSIVE line (id, parent, distance) AS (
               SELECT id, parent, 0 FROM turns WHERE id = ?
               UNION
               SELECT t.id, t.parent, line.distance + 1 FROM line JOIN turns t ON t.id = line.parent)
           SELECT id FROM line WHERE distance > 0 ORDER BY distance DESC""",
        (turn_id,),
    )
    return [row["id"] for row in rows]


def _rows(connection: sqlite3.Connection, sql: str, turn_id: str) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(sql, (turn_id,))]
