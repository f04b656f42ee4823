"""Group commit: who shares a transaction, who fails alone, and what a commit never waits for."""

import asyncio
import sqlite3
import threading
from functools import partial
from pathlib import Path

import pytest
from store_samples import judged_with_hint, make_turn, record

from agentrl.errors import StoreError
from agentrl.store.connection import LogConnection
from agentrl.store.database import connect, writing
from agentrl.store.learning_log import LearningLog
from agentrl.store.signal_log import SignalLog
from agentrl.store.writer import GroupCommitter


class Gate:
    """A write that holds the writer thread inside its transaction until it is opened."""

    def __init__(self) -> None:
        self.entered, self._open = threading.Event(), threading.Event()

    def __call__(self, _: sqlite3.Connection) -> None:
        self.entered.set()
        assert self._open.wait(10)

    def open(self) -> None:
        self._open.set()


@pytest.fixture
async def committer(tmp_path: Path):
    async with LogConnection(partial(connect, tmp_path / "x.db")) as connection:
        await connection.run(lambda raw: raw.execute("CREATE TABLE x (value INTEGER UNIQUE)"))
        yield GroupCommitter(connection)


def put(value: int):
    def write(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO x VALUES (?)", (value,))
        return value

    return write


async def behind_a_gate(committer: GroupCommitter, writes: list) -> list:
    """Runs the writes so that all of them wait together while one transaction is open."""
    gate = Gate()
    first = asyncio.ensure_future(committer.submit(gate))
    await asyncio.to_thread(gate.entered.wait, 10)
    waiting = [asyncio.ensure_future(committer.submit(write)) for write in writes]
    await asyncio.sleep(0)  # each of them is handed in
    gate.open()
    await first
    return await asyncio.gather(*waiting, return_exceptions=True)


async def test_writes_that_wait_together_share_one_transaction(committer: GroupCommitter) -> None:
    results = await behind_a_gate(committer, [put(value) for value in range(100)])

    assert results == list(range(100))
    assert committer.num_commits == 2


async def test_no_transaction_carries_more_than_256_writes(committer: GroupCommitter) -> None:
    results = await behind_a_gate(committer, [put(value) for value in range(600)])

    assert results == list(range(600))
    # The gate's own, then 256, 256 and 88.
    assert committer.num_commits == 4


async def test_a_caller_goes_on_only_after_the_commit(tmp_path: Path, committer: GroupCommitter) -> None:
    await committer.submit(put(7))

    other = sqlite3.connect(tmp_path / "x.db")
    assert other.execute("SELECT value FROM x").fetchall() == [(7,)]
    other.close()


async def test_no_caller_waits_for_the_transaction_after_its_own(committer: GroupCommitter) -> None:
    gates = [Gate(), Gate(), Gate()]
    submitted = [asyncio.ensure_future(committer.submit(gates[0]))]
    await asyncio.to_thread(gates[0].entered.wait, 10)
    submitted.append(asyncio.ensure_future(committer.submit(gates[1])))
    beside_it = asyncio.ensure_future(committer.submit(put(1)))
    await asyncio.sleep(0)  # both are handed in, for the second transaction
    gates[0].open()
    await asyncio.to_thread(gates[1].entered.wait, 10)
    submitted.append(asyncio.ensure_future(committer.submit(gates[2])))
    await asyncio.sleep(0)  # it is handed in, for the third
    gates[1].open()

    assert await asyncio.wait_for(beside_it, 10) == 1

    gates[2].open()
    await asyncio.gather(*submitted)
    assert committer.num_commits == 3


async def test_a_write_that_fails_takes_nobody_with_it(tmp_path: Path, committer: GroupCommitter) -> None:
    def refused(_: sqlite3.Connection) -> None:
        raise ValueError("not like this")

    results = await behind_a_gate(committer, [put(1), put(1), refused, put(2), put(1), put(3)])

    assert [results[0], results[3], results[5]] == [1, 2, 3]
    assert isinstance(results[1], StoreError)
    assert "UNIQUE" in str(results[1])
    assert isinstance(results[2], ValueError)
    assert isinstance(results[4], StoreError)
    connection = sqlite3.connect(tmp_path / "x.db")
    assert connection.execute("SELECT value FROM x ORDER BY 1").fetchall() == [(1,), (2,), (3,)]
    connection.close()


async def test_a_write_that_asks_for_the_end_of_the_program_fails_like_any_other(
    committer: GroupCommitter,
) -> None:
    def leaves(_: sqlite3.Connection) -> None:
        raise SystemExit("enough")

    results = await behind_a_gate(committer, [put(1), leaves, put(2)])

    assert [results[0], results[2]] == [1, 2]
    assert isinstance(results[1], StoreError)
    assert "enough" in str(results[1])


async def test_when_the_transaction_itself_fails_everyone_is_told(
    tmp_path: Path, committer: GroupCommitter
) -> None:
    other = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    await committer._connection.run(lambda raw: raw.execute("PRAGMA busy_timeout = 1"))
    other.execute("BEGIN IMMEDIATE")

    results = await asyncio.gather(
        *(committer.submit(put(value)) for value in range(3)), return_exceptions=True
    )

    assert all(isinstance(result, StoreError) and "locked" in str(result) for result in results)
    other.execute("ROLLBACK")
    assert await committer.submit(put(1)) == 1
    other.close()


async def test_a_cancelled_caller_does_not_take_its_write_back(
    tmp_path: Path, committer: GroupCommitter
) -> None:
    gate = Gate()
    first = asyncio.ensure_future(committer.submit(gate))
    await asyncio.to_thread(gate.entered.wait, 10)
    cancelled = asyncio.ensure_future(committer.submit(put(1)))
    await asyncio.sleep(0)  # it is handed in
    cancelled.cancel()
    gate.open()
    await first
    await committer.submit(put(2))

    assert cancelled.cancelled()
    connection = sqlite3.connect(tmp_path / "x.db")
    assert connection.execute("SELECT value FROM x ORDER BY 1").fetchall() == [(1,), (2,)]
    connection.close()


async def test_many_turns_recorded_at_once_are_all_there(tmp_path: Path) -> None:
    async with await SignalLog.open(tmp_path) as log:
        turns = [make_turn(f"t{index}", session=f"s{index % 7}") for index in range(300)]
        await asyncio.gather(*(record(log, turn) for turn in turns))

        assert (await log.counts())["turns"] == 300
        assert [await log.turn(turn.id) for turn in turns] == turns


async def test_a_reader_s_connection_cannot_write(tmp_path: Path) -> None:
    async with await SignalLog.open(tmp_path) as log:
        await record(log, make_turn())
        with pytest.raises(StoreError, match="readonly"):
            await log._reports.run(lambda connection: connection.execute("DELETE FROM turns"))


async def test_the_learning_log_cannot_write_the_server_s_file(tmp_path: Path) -> None:
    async with await SignalLog.open(tmp_path) as log:
        await record(log, make_turn())
        with (
            LearningLog(tmp_path) as learning,
            pytest.raises(StoreError, match="readonly"),
            learning._writing() as connection,
        ):
            connection.execute("DELETE FROM log.turns")


async def test_no_lock_of_the_learner_holds_up_a_commit_of_the_server(tmp_path: Path) -> None:
    """The learner stands inside its widest transaction, with snapshots of both files, while the server commits."""
    async with await SignalLog.open(tmp_path) as log:
        await judged_with_hint(log, make_turn("t1"))
        assert log._committer is not None
        await log._committer._connection.run(lambda raw: raw.execute("PRAGMA busy_timeout = 0"))
        with LearningLog(tmp_path) as learning, learning._open() as connection, writing(connection):
            assert connection.execute("SELECT count(*) FROM fates").fetchone()[0] == 1
            connection.execute("INSERT INTO claims VALUES ('t1', 'default', 1, 0)")

            await record(log, make_turn("t2"))

            # Still the snapshot from before: the read was open all the while.
            assert connection.execute("SELECT count(*) FROM fates").fetchone()[0] == 1
        with LearningLog(tmp_path) as learning:
            assert learning.account().accepted == 2


async def test_a_long_report_does_not_hold_up_the_lookups_of_requests(tmp_path: Path) -> None:
    async with await SignalLog.open(tmp_path) as log:
        await record(log, make_turn())
        gate = Gate()
        report = asyncio.ensure_future(log._reports.run(gate))
        await asyncio.to_thread(gate.entered.wait, 10)

        assert await asyncio.wait_for(log.turn("t1"), 10) == make_turn()

        gate.open()
        await report
