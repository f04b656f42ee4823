"""learning.db with log.db attached read-only: opening, closing, and the two ways to use the connection."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agentrl.closing import Closing
from agentrl.errors import StoreError
from agentrl.store.account import Counted, define_fates
from agentrl.store.database import (
    LEARNING_NAME,
    LOG_NAME,
    attach,
    connect,
    database_path,
    naming,
    reading,
    remedy,
    require_file,
    writing,
)
from agentrl.store.lost import refuse_anew, refuse_emptied, refuse_lost, refuse_older
from agentrl.store.migrations import LEARNING, LOG, migrate, require_current


class LearningFile(Closing):
    """A context manager; `close` is idempotent and later calls raise StoreError.

    Any thread may call; calls on one object wait for each other.

    Args:
        path: the run's folder, or its learning.db; made and upgraded unless `read_only`.
        log_path: log.db when it does not lie beside it.
        read_only: refuse every change.
        clock: Unix seconds.

    Raises:
        StoreError: a file is missing (log.db must always be there; learning.db where there are versions, or turns of
            them), damaged, an older copy, or from another release.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        log_path: Path | None = None,
        read_only: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = database_path(path, LEARNING_NAME)
        self._clock = clock
        self._lock = threading.RLock()
        log = log_path or self.path.with_name(LOG_NAME)
        if log_path is None:
            refuse_lost(self.path.parent)
        require_file(log)  # before this file is made
        if not read_only and not self.path.exists():
            refuse_anew(log)
        connection = connect(self.path, read_only=read_only, synchronous="FULL")
        try:
            with naming(self.path):
                if read_only:
                    require_current(connection, LEARNING, "main")
                else:
                    migrate(connection, LEARNING)
            attach(connection, log, "log")
            with naming(log):
                require_current(connection, LOG, "log")
                define_fates(connection)
            refuse_older(self.path, log, connection)
            refuse_emptied(self.path, log, connection)
        except BaseException:
            connection.close()
            raise
        self._counted: dict[str, Counted] = {}
        """By policy, the turns whose fate stands."""
        self._connection: sqlite3.Connection | None = connection
        self._read_only = read_only

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._connection is None:
                raise StoreError("the learning log is closed")
            try:
                yield self._connection
            except sqlite3.Error as error:
                raise StoreError(f"the learning log failed: {error}{remedy(error)}") from error

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._open() as connection, reading(connection):
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        if self._read_only:
            raise StoreError(f"{self.path} was opened read-only")
        with self._open() as connection, writing(connection):
            yield connection
