"""Turns that were rewarded, as they come: what the learner's gate chooses its held-out probe from."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from agentrl.errors import StoreError
from agentrl.store import records
from agentrl.store.database import LOG_NAME, connect, database_path, reading
from agentrl.store.migrations import LOG, require_current
from agentrl.types import Turn


class RewardedTurns:
    """Reads log.db and never writes it. `close` is idempotent.

    Args:
        path: the run's folder, or its log.db.
        policy: the line of versions whose turns are wanted.

    Raises:
        StoreError: the file is missing or from another release.
    """

    def __init__(self, path: Path | str, policy: str) -> None:
        self._policy = policy
        self._seen = 0
        connection = connect(database_path(path, LOG_NAME), read_only=True)
        try:
            require_current(connection, LOG, "main")
        except BaseException:
            connection.close()
            raise
        self._connection: sqlite3.Connection | None = connection

    def new(self, choose: Callable[[str, str], bool]) -> list[Turn]:
        """Turns that got a positive reward of their own since the last call, in the order of their signals.

        Only agent's turns that may be learned from at all: purpose train, learning arm, ended without an error.

        Args:
            choose: by turn id and session; only the chosen are read whole.
        """
        if self._connection is None:
            raise StoreError("the log is closed")
        try:
            with reading(self._connection) as connection:
                rows = connection.execute(
                    """SELECT s.id, t.id AS turn_id, t.session FROM signals s JOIN turns t ON t.seq = s.turn
                       WHERE s.id > ? AND s.reward > 0 AND t.policy = ? AND t.purpose = 'train'
                       AND t.arm = 'learning' AND t.kind = 'main' AND t.error IS NULL AND t.num_sampled > 0
                       AND t.block_spans IS NULL AND t.redacted_spans IS NULL ORDER BY s.id""",
                    (self._seen, self._policy),
                ).fetchall()
                chosen = dict.fromkeys(
                    row["turn_id"] for row in rows if choose(row["turn_id"], row["session"])
                )
                found = [records.read_turn(connection, turn_id) for turn_id in chosen]
        except sqlite3.Error as error:
            raise StoreError(f"the log cannot be read: {error}") from error
        if rows:
            self._seen = rows[-1]["id"]
        return [turn for turn in found if turn is not None]

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
