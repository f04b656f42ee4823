"""The signal log: what was asked, what was sampled, what followed and what it was judged to mean.

One process writes it, the server. Writes go through a group commit (`writer`), reads through connections of their
own (`connection`), so a long read holds up no commit and no commit holds up a read.

Durability: WAL with synchronous=NORMAL. A call that returned is in the file for every other process, and a kill -9
at any moment loses nothing that was acknowledged. A power cut or a crash of the operating system may lose what was
committed since the last checkpoint (16 MB of pages, about a thousand turns), newest first; the file stays whole and
consistent. An fsync a commit would close that gap and cost most of the throughput.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from agentrl.errors import StoreError
from agentrl.store import codec, queries, records
from agentrl.store.connection import LogConnection
from agentrl.store.database import LEARNING_NAME, LOG_NAME, connect, database_path, naming
from agentrl.store.explain import explain
from agentrl.store.log_reader import connect_reader
from agentrl.store.migrations import LOG, migrate
from agentrl.store.packing import pack_turn
from agentrl.store.queries import OpenSession, TurnRef
from agentrl.store.records import PromptCache, TurnIds
from agentrl.store.writer import GroupCommitter
from agentrl.types import NextState, Signal, Turn

T = TypeVar("T")

JUDGE_FAILED = "failed"
"""The outcome that hands a turn to the judge again, up to `max_judge_attempts` times; all others are final."""


class SignalLog:
    """log.db. Made by `open`; an async context manager; `aclose` is idempotent and later calls raise StoreError.

    async with await SignalLog.open(run_dir) as log:
        await log.record_turn(turn, history_key=..., reply_key=...)
    """

    def __init__(
        self,
        path: Path,
        *,
        writer: LogConnection | None,
        lookups: LogConnection,
        reports: LogConnection,
        resources: AsyncExitStack,
        max_judge_attempts: int,
    ) -> None:
        self.path = path
        self._committer = GroupCommitter(writer) if writer is not None else None
        # Two readers, so that a report over the whole log never stands before a request's lineage lookup.
        self._lookups = lookups
        self._reports = reports
        self._resources = resources
        """What `aclose` closes, in the reverse order of its opening."""
        self._max_judge_attempts = max_judge_attempts
        self._prompts = PromptCache()
        self._answered = asyncio.Event()

    @classmethod
    async def open(
        cls, path: Path | str, read_only: bool = False, *, max_judge_attempts: int = 3
    ) -> SignalLog:
        """Opens the log of a run folder (or the file itself), making and upgrading it unless `read_only`.

        Args:
            path: the run's folder, or its log.db.
            read_only: refuse every record_*; any number of processes may read.
            max_judge_attempts: how often a turn whose judge failed is handed out before it counts as failed.

        Raises:
            StoreError: another process writes this log, the file is missing, damaged or from a newer release.
        """
        path = database_path(path, LOG_NAME)
        async with AsyncExitStack() as stack:
            writer = None
            if not read_only:
                stack.callback(os.close, _lock(path))
                # Before the readers, so that it closes after them: the last to close empties the WAL, if it may write.
                writer = await stack.enter_async_context(LogConnection(partial(_connect_writer, path)))
            return cls(
                path,
                writer=writer,
                lookups=await stack.enter_async_context(LogConnection(partial(connect_reader, path))),
                reports=await stack.enter_async_context(LogConnection(partial(connect_reader, path))),
                resources=stack.pop_all(),
                max_judge_attempts=max_judge_attempts,
            )

    async def aclose(self) -> None:
        """Commits what waits, then closes. Idempotent."""
        await self._resources.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # writing

    async def record_turn(self, turn: Turn, *, history_key: str, reply_key: str) -> None:
        """Returns once the turn is committed; only then may the client be told anything it can act on (law 3).

        Args:
            turn: log-probs are kept at float32, all else exactly.
            history_key: key of the turn's history, its reply included, that a later request is recognised by.
            reply_key: key of its reply alone.

        Raises:
            StoreError: not committed; recording an id twice is such an error, never a second row.
            ValueError: the turn holds what cannot be stored (an id above 2**32, a surrogate in a name).
        """

        def write(connection: sqlite3.Connection) -> None:
            packed = pack_turn(turn, history_key, reply_key)
            try:
                records.insert_turn(connection, packed, self._prompts)
            except sqlite3.IntegrityError as error:
                raise StoreError(f"turn {turn.id} was not recorded: {error}") from error

        await self._write(write)

    async def record_next_state(self, state: NextState) -> bool:
        """False where the turn has a next state already: the first stays, the second is counted.

        Raises:
            StoreError: not committed, or the log has no such turn.
        """
        is_first = await self._write(partial(records.insert_next_state, state=state))
        self._answered.set()
        return is_first

    async def record_signal(self, signal: Signal) -> None:
        """Adds a signal; a turn may have any number.

        Raises:
            StoreError: not committed, or the log has no such turn.
            ValueError: a reward or vote is no finite number.
        """
        await self._write(partial(records.insert_signal, signal=signal))

    async def mark_judged(
        self, turn_id: str, outcome: str, detail: str = "", signals: Sequence[Signal] = ()
    ) -> None:
        """Records one attempt of the judge (law 6).

        Args:
            turn_id: a turn that `unjudged` gave.
            outcome: "failed" hands the turn out again until `max_judge_attempts`; any other word is final.
            detail: the failure, or what an abstention rests on.
            signals: what the judge said of it and of other turns; in one transaction, so that a stop in between
                neither loses them nor has the turn judged twice.
        """
        attempts, now = self._max_judge_attempts, time.time()

        def write(connection: sqlite3.Connection) -> None:
            for signal in signals:
                records.insert_signal(connection, signal)
            _mark(connection, turn_id, outcome, detail, attempts, now)

        await self._write(write)

    # reading: by request, before the engine can begin

    async def by_call_id(self, scope: str, call_id: str) -> list[str]:
        """Ids of the turns whose reply made this tool call, oldest first."""
        return await self._lookups.run(partial(queries.by_call_id, scope=scope, call_id=call_id))

    async def by_history(self, scope: str, key: str) -> list[TurnRef]:
        """Turns recorded with this history key, newest first."""
        return await self._lookups.run(partial(queries.by_history, scope=scope, key=key))

    async def by_reply(self, scope: str, session: str, key: str) -> list[TurnRef]:
        """Turns of a session recorded with this reply key, newest first."""
        return await self._lookups.run(partial(queries.by_reply, scope=scope, session=session, key=key))

    async def parent(self, turn_id: str) -> TurnIds | None:
        """What a request that continues this turn is built on."""
        return await self._lookups.run(partial(queries.turn_ids, turn_id=turn_id))

    async def turn_ref(self, turn_id: str) -> TurnRef | None:
        return await self._lookups.run(partial(queries.turn_ref, turn_id=turn_id))

    async def feedback_target(
        self,
        scope: str,
        *,
        turn_id: str | None = None,
        response_id: str | None = None,
        session: str | None = None,
    ) -> str | None:
        """The turn that a feedback names, within its scope; None where there is none.

        The first name given decides: the turn's id, else the id of the response (with or without the dialect's
        prefix), else the newest main turn of the session.
        """
        find = partial(
            queries.feedback_target, scope=scope, turn_id=turn_id, response_id=response_id, session=session
        )
        return await self._lookups.run(find)

    async def find_turn(self, name: str, *, of_any_kind: bool = False) -> str | None:
        """The turn that an operator names, in any scope: its id, a response id, or "last" for the newest that may be
        learned from (no evaluation, no side or control turn), or for the newest `of_any_kind`."""
        return await self._reports.run(partial(queries.find_turn, name=name, of_any_kind=of_any_kind))

    # reading: records

    async def turn(self, turn_id: str) -> Turn | None:
        return await self._lookups.run(partial(records.read_turn, turn_id=turn_id))

    async def next_state(self, turn_id: str) -> NextState | None:
        return await self._lookups.run(partial(records.read_next_state, turn_id=turn_id))

    async def signals(self, turn_id: str) -> list[Signal]:
        return await self._lookups.run(partial(records.read_signals, turn_id=turn_id))

    async def turns_of(self, session: str, scope: str) -> list[Turn]:
        """The turns of a session in the order of their commits."""
        return await self._reports.run(partial(queries.turns_of, session=session, scope=scope))

    # reading: work to be done

    async def answered(self, timeout_s: float) -> None:
        """Waits until a next state was recorded since the last call, at most `timeout_s`. For one caller."""
        # Not wait_for: where the event and a cancellation come together, that of Python 3.11 loses the cancellation.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._answered.wait()
        self._answered.clear()

    async def unjudged(self, limit: int, besides: Collection[str] = ()) -> list[tuple[Turn, NextState]]:
        """Answered main turns of purpose train that the judge has not finished with, without those named in `besides`.

        Those that failed least often come first, then the oldest, so that a turn that always fails holds up no other.
        Turns whose reply nobody saw, that ended in an error or whose lineage is ambiguous are not handed out.
        """
        return await self._reports.run(partial(queries.unjudged, limit=limit, besides=besides))

    async def idle_turns(self, before: float) -> list[str]:
        """Open turns of the sessions whose newest request was received before `before` (Unix seconds)."""
        return await self._reports.run(partial(queries.idle_turns, before=before))

    async def open_turns(self, session: str, scope: str) -> list[str]:
        """Turns of a session that have no next state yet, oldest first."""
        return await self._lookups.run(partial(queries.open_turns, session=session, scope=scope))

    async def open_sessions(self) -> list[OpenSession]:
        """Sessions with at least one open turn, the most recently used first."""
        return await self._reports.run(queries.open_sessions)

    # reading: reports

    async def counts(self) -> dict[str, int]:
        """How much of everything the log holds, under dotted names ("turns.train", "ends.abandoned")."""
        return await self._reports.run(queries.counts)

    async def versions_used(self, policy: str = "default") -> list[int]:
        """Versions that sampled at least one recorded id, ascending. Costs by versions, not by turns."""
        return await self._reports.run(partial(queries.versions_used, policy=policy))

    async def explain(self, turn_id: str) -> dict[str, Any]:
        """Everything known on a turn, from the request to the version that learned it, as plain data.

        Raises:
            StoreError: the log has no such turn.
        """
        learning = self.path.with_name(LEARNING_NAME)
        return await asyncio.to_thread(explain, self.path, learning, turn_id)

    # inside

    async def _write(self, write: Callable[[sqlite3.Connection], T]) -> T:
        if self._committer is None:
            raise StoreError(f"{self.path} was opened read-only")
        return await self._committer.submit(write)


def _connect_writer(path: Path) -> sqlite3.Connection:
    connection = connect(path)
    try:
        with naming(path):
            migrate(connection, LOG)
    except BaseException:
        connection.close()
        raise
    return connection


def _mark(
    connection: sqlite3.Connection, turn_id: str, outcome: str, detail: str, max_attempts: int, now: float
) -> None:
    seq = records.seq_of(connection, turn_id)
    connection.execute(
        "INSERT INTO judgements (turn, outcome, detail, created_at) VALUES (?, ?, ?, ?)",
        (seq, codec.storable(outcome), codec.storable(detail), now),
    )
    if outcome == JUDGE_FAILED:
        connection.execute("UPDATE due_turns SET attempts = attempts + 1 WHERE turn = ?", (seq,))
        connection.execute("DELETE FROM due_turns WHERE turn = ? AND attempts >= ?", (seq, max_attempts))
    else:
        connection.execute("DELETE FROM due_turns WHERE turn = ?", (seq,))


def _lock(path: Path) -> int:
    """Takes the log for this process; the kernel gives it back when the process ends, however it ends."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{path.parent} cannot hold a run: {error.strerror}; name another folder") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise StoreError(
            f"another process writes {path}: stop the server of this run folder, or choose another --run-dir"
        ) from error
    return handle
