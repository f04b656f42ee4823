"""Figures of a demo, read from the raw tables of its two logs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from agentrl.store.database import attach, connect
from agentrl.types import PolicyVersion


@contextmanager
def both_logs(folder: Path) -> Iterator[sqlite3.Connection]:
    """learning.db with log.db attached as `log`, read-only."""
    with closing(connect(folder / "learning.db", read_only=True)) as connection:
        attach(connection, folder / "log.db", "log")
        yield connection


def num_eval_turns_in_training(folder: Path) -> int:
    """Turns of steps whose purpose was not "train". Must be 0."""
    with both_logs(folder) as connection:
        (number,) = connection.execute(
            "SELECT count(*) FROM step_turns s JOIN log.turns t ON t.id = s.turn_id WHERE t.purpose <> 'train'"
        ).fetchone()
    return int(number)


def feedback_to_serving_s(folder: Path) -> list[float]:
    """For each turn that was trained for itself, seconds from its first signal to the first served version that learned
    from it."""
    with both_logs(folder) as connection:
        rows = connection.execute(
            """SELECT min(v.served_at) - min(s.created_at)
               FROM step_turns u
               JOIN steps p ON p.id = u.step AND p.voided_at IS NULL
               JOIN versions v ON v.policy = p.policy AND v.number = p.version AND v.served_at IS NOT NULL
               JOIN log.turns t ON t.id = u.turn_id
               JOIN log.signals s ON s.turn = t.seq
               WHERE u.use > 0
               GROUP BY u.turn_id"""
        ).fetchall()
    return [float(row[0]) for row in rows if row[0] is not None]


def served_since(versions: Sequence[PolicyVersion], start: float) -> list[float]:
    """Seconds after `start` (Unix) at which versions began to serve."""
    return [version.served_at - start for version in versions if version.served_at is not None]
