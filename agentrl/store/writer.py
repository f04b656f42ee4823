"""Group commit: many callers, one writer thread, one transaction for whatever waits when the last one ended.

    submit(write) -> queue ─┐
    submit(write) -> queue ─┼─> thread: BEGIN IMMEDIATE, every write, COMMIT ─> all callers go on
    submit(write) -> queue ─┘

A lone write commits at once; under load each commit carries what piled up during the one before, so throughput
grows with load and no caller waits for a timer. A write that raises takes nobody with it: the batch is rolled
back and goes again without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from agentrl.errors import StoreError
from agentrl.store.database import writing

T = TypeVar("T")
MAX_BATCH = 256
"""Writes of one transaction: bounds how long the first of them waits for the last."""


@dataclass(slots=True)
class _Job:
    write: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None


class GroupCommitter:
    """Owns the only writing connection of log.db and the thread that uses it.

    Calls come from one event loop. A caller that is cancelled while it waits does not take its write back: the
    transaction may be on its way.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._closed = False
        self.num_commits = 0
        self._thread = threading.Thread(target=self._run, name="agentrl-log-writer", daemon=True)
        self._thread.start()

    async def submit(self, write: Callable[[sqlite3.Connection], T]) -> T:
        """Runs `write` in the next transaction and returns what it returned, after the commit.

        Args:
            write: called with the transaction open; called again where another write of its batch failed.

        Raises:
            StoreError: the transaction failed, or the log is closed.
            ValueError: `write` refused its record.
        """
        if self._closed:
            raise StoreError("the log is closed")
        loop = asyncio.get_running_loop()
        job = _Job(write, loop.create_future())
        self._queue.put(job)
        result: T = await job.future
        return result

    async def aclose(self) -> None:
        """Commits what waits and ends the thread. Idempotent."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        closing = False
        while not closing:
            batch, closing = self._next_batch()
            if batch:
                self._commit(batch)
                self._answer(batch)

    def _next_batch(self) -> tuple[list[_Job], bool]:
        """Waits for one job, then takes what else is there. (jobs, whether the end was asked for)"""
        batch: list[_Job] = []
        item = self._queue.get()
        while item is not None:
            batch.append(item)
            if len(batch) == MAX_BATCH:
                return batch, False
            try:
                item = self._queue.get_nowait()
            except Empty:
                return batch, False
        return batch, True

    def _commit(self, batch: list[_Job]) -> None:
        while batch:
            current: _Job | None = None
            try:
                with writing(self._connection):
                    for job in batch:
                        current = job
                        job.result = job.write(self._connection)
                    current = None
            except Exception as error:  # noqa: BLE001  carried to the caller that it belongs to
                # Without a culprit it was BEGIN or COMMIT that failed, which would fail for each of them.
                blamed = batch if current is None else [current]
                for job in blamed:
                    job.error = error
                batch = [job for job in batch if job.error is None]
            else:
                self.num_commits += 1
                return

    def _answer(self, batch: list[_Job]) -> None:
        # The loop is closed when its program was torn down in mid-write; the rows are committed all the same.
        with contextlib.suppress(RuntimeError):
            batch[0].future.get_loop().call_soon_threadsafe(_settle, batch)


def _settle(jobs: list[_Job]) -> None:
    for job in jobs:
        if job.future.done():
            continue
        if job.error is None:
            job.future.set_result(job.result)
        elif isinstance(job.error, StoreError | ValueError):
            job.future.set_exception(job.error)
        else:
            error = StoreError(f"the log could not be written: {job.error}")
            error.__cause__ = job.error
            job.future.set_exception(error)
