"""A connection to log.db that the event loop can wait for: aiosqlite's thread and queue, a function at a time."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from typing import Self, TypeVar

import aiosqlite

from agentrl.errors import StoreError

T = TypeVar("T")
# At DEBUG it would print every function with what is bound to it, whole messages of users among them.
logging.getLogger("aiosqlite").setLevel(logging.INFO)


class LogConnection(aiosqlite.Connection):
    """An aiosqlite connection that runs whole functions, one after another in the order of the calls.

    async with LogConnection(partial(connect, path)) as connection:
        await connection.run(read)

    aiosqlite's own calls hand over one statement each, and a turn takes about ten of them that commit or fail as one:
    the ways to the thread and back would nearly double what it costs. Handing over a function is what each of those
    calls does inside, through `_execute(fn, *args)`. It is protected, so pyproject allows the release series that has
    it, and a test says what is missing should a newer one change it.
    """

    def __init__(self, connector: Callable[[], sqlite3.Connection]) -> None:
        """Args: connector: makes the connection, in the thread that will use it; what it raises is raised on entry."""
        super().__init__(connector, iter_chunk_size=64)
        # Else a program that dies without closing its log would wait for this thread for ever.
        self._thread.daemon = True

    async def __aenter__(self) -> Self:
        try:
            await self
        except BaseException:
            # The thread still answers to the loop that it ends; a loop closed before that would be an error in it.
            await asyncio.to_thread(self._thread.join)
            raise
        return self

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `work` returns or raises. A caller that is cancelled does not stop it.

        Raises:
            StoreError: the connection is closed, or SQLite failed.
        """
        try:
            connection = self._conn
        except ValueError as error:
            raise StoreError("the log is closed") from error
        try:
            result: T = await self._execute(work, connection)  # type: ignore[no-untyped-call]
        except sqlite3.Error as error:  # of a read: a write's errors are named by the writer
            raise StoreError(f"the log could not be read: {error}") from error
        return result
