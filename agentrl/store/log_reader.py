"""Reading log.db: the connection, and whoever reads on from where its last call ended."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from agentrl.closing import Closing
from agentrl.errors import StoreError
from agentrl.store import records
from agentrl.store.database import LOG_NAME, connect, database_path, naming
from agentrl.store.migrations import LOG, require_current
from agentrl.types import Turn


def connect_reader(path: Path) -> sqlite3.Connection:
    """A connection that reads log.db and can change nothing in it.

    Raises:
        StoreError: the file is missing, damaged or from another release.
    """
    connection = connect(path, read_only=True)
    try:
        with naming(path):
            require_current(connection, LOG, "main")
    except BaseException:
        connection.close()
        raise
    return connection


class LogReader(Closing):
    """What the readers of log.db have in common. `close` is idempotent; later calls raise StoreError.

    Args:
        path: the run's folder, or its log.db.
        policy: the line of versions whose turns are wanted.

    Raises:
        StoreError: the file is missing or from another release.
    """

    def __init__(self, path: Path | str, policy: str) -> None:
        self._policy = policy
        self._seen = 0
        """What was read, as a row number of the reader's own table."""
        self._connection: sqlite3.Connection | None = connect_reader(database_path(path, LOG_NAME))

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError("the log is closed")
        return self._connection

    def turn(self, turn_id: str) -> Turn | None:
        """One turn; None where the log has none of that name. Raises StoreError."""
        try:
            return records.read_turn(self._open(), turn_id)
        except sqlite3.Error as error:
            raise StoreError(f"the log cannot be read: {error}") from error

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
