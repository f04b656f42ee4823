"""Group commit: many callers, one connection, one transaction for whatever waits when the last one ended.

    submit(write) ─┐
    submit(write) ─┼─> the connection's thread: BEGIN IMMEDIATE, every write that waits, COMMIT ─> all callers go on
    submit(write) ─┘

Each caller hands the connection one function; the first that it comes to commits for all that wait, and the others
find their write done. So a lone write commits at once; under load each commit carries what piled up during the one
before, throughput grows with load and no caller waits for a timer. A write that raises takes nobody with it: the
batch is rolled back and goes again without it.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from agentrl.errors import StoreError
from agentrl.store.connection import LogConnection
from agentrl.store.database import writing

T = TypeVar("T")
MAX_BATCH = 256
"""Writes of one transaction: bounds how long the first of them waits for the last."""


@dataclass(slots=True)
class _Job:
    write: Callable[[sqlite3.Connection], Any]
    result: Any = None
    error: Exception | None = None
    done: bool = False


class GroupCommitter:
    """Shares the transactions of log.db's only writing connection among all who write.

    Calls come from one event loop. A caller that is cancelled while it waits does not take its write back: the
    transaction may be on its way. Closing the connection commits what waits, since the connection closes in its turn.
    """

    def __init__(self, connection: LogConnection) -> None:
        self._connection = connection
        # Filled by the loop, emptied by the connection's thread; always in the order of the functions handed over.
        self._waiting: deque[_Job] = deque()
        self.num_commits = 0

    async def submit(self, write: Callable[[sqlite3.Connection], T]) -> T:
        """Runs `write` in the next transaction and returns what it returned, after the commit.

        Args:
            write: called with the transaction open; called again where another write of its batch failed.

        Raises:
            StoreError: the transaction failed, or the log is closed.
            ValueError: `write` refused its record.
        """
        job = _Job(write)
        self._waiting.append(job)
        await self._connection.run(partial(self._settle, job))
        if not job.done:  # nothing may call a write committed that no transaction ended
            raise StoreError("the log could not be written: its transaction did not end")
        if job.error is not None:
            raise job.error
        result: T = job.result
        return result

    def _settle(self, job: _Job, connection: sqlite3.Connection) -> None:
        """Commits the batch that begins with `job`, unless an earlier one had it. In the connection's thread."""
        if not job.done:
            self._commit(
                connection, [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
            )

    def _commit(self, connection: sqlite3.Connection, batch: list[_Job]) -> None:
        left = batch
        while left:
            current: _Job | None = None
            try:
                with writing(connection):
                    for job in left:
                        current = job
                        job.result = job.write(connection)
                    current = None
            except BaseException as error:  # noqa: BLE001  carried to the caller that it belongs to
                # Without a culprit it was BEGIN or COMMIT that failed, which would fail for each of them.
                for job in left if current is None else [current]:
                    job.error = _named(error)
                left = [job for job in left if job.error is None]
            else:
                self.num_commits += 1
                break
        for job in batch:
            job.done = True


def _named(error: BaseException) -> Exception:
    if isinstance(error, StoreError | ValueError):
        return error
    named = StoreError(f"the log could not be written: {error}")
    named.__cause__ = error
    return named
