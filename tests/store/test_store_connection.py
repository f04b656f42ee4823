"""The connection that the event loop waits for: order, ends, and what it stands on in aiosqlite."""

import asyncio
import inspect
import logging
import os
import sqlite3
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import aiosqlite
import pytest
from store_samples import make_turn, record, rows

from agentrl.errors import StoreError
from agentrl.store.connection import LogConnection
from agentrl.store.database import connect
from agentrl.store.signal_log import SignalLog
from agentrl.store.verify import verify


def test_aiosqlite_still_has_what_the_connection_stands_on() -> None:
    advice = (
        f"aiosqlite {aiosqlite.__version__} changed what agentrl/store/connection.py stands on: "
        "Connection._execute(fn, *args), ._conn and ._thread. Mend LogConnection, then allow the release in pyproject."
    )
    execute = getattr(aiosqlite.Connection, "_execute", None)
    assert inspect.iscoroutinefunction(execute), advice
    parameters = list(inspect.signature(execute).parameters.values())
    assert [parameter.name for parameter in parameters[:2]] == ["self", "fn"], advice
    assert parameters[2].kind is inspect.Parameter.VAR_POSITIONAL, advice
    assert isinstance(getattr(aiosqlite.Connection, "_conn", None), property), advice
    connection = LogConnection(partial(sqlite3.connect, ":memory:"))
    assert isinstance(getattr(connection, "_thread", None), threading.Thread), advice


async def test_functions_run_one_after_another_in_one_thread_that_is_not_the_loop_s(tmp_path: Path) -> None:
    async with LogConnection(partial(connect, tmp_path / "x.db")) as connection:
        entered: list[int] = []

        def number(index: int, raw: sqlite3.Connection) -> int:
            entered.append(index)
            assert raw.execute("SELECT 1").fetchone()[0] == 1
            return threading.get_ident()

        idents = await asyncio.gather(*(connection.run(partial(number, index)) for index in range(50)))

    assert entered == list(range(50))
    assert len(set(idents)) == 1
    assert threading.get_ident() not in idents


async def test_what_a_function_raises_reaches_its_caller_alone(tmp_path: Path) -> None:
    def refuse(_: sqlite3.Connection) -> None:
        raise ValueError("not this one")

    async with LogConnection(partial(connect, tmp_path / "x.db")) as connection:
        refused, missing, well = await asyncio.gather(
            connection.run(refuse),
            connection.run(lambda raw: raw.execute("SELECT * FROM nowhere")),
            connection.run(lambda raw: raw.execute("SELECT 7").fetchone()[0]),
            return_exceptions=True,
        )

    assert isinstance(refused, ValueError)
    assert isinstance(missing, StoreError)
    assert "no such table: nowhere" in str(missing)
    assert well == 7


async def test_a_closed_connection_says_so_and_its_thread_is_gone(tmp_path: Path) -> None:
    connection = LogConnection(partial(connect, tmp_path / "x.db"))
    async with connection:
        waiting = asyncio.ensure_future(connection.run(lambda raw: raw.execute("SELECT 7").fetchone()[0]))
        await asyncio.sleep(0)  # it is handed in

    assert await waiting == 7
    with pytest.raises(StoreError, match="closed"):
        await connection.run(lambda raw: raw.execute("SELECT 7"))
    await connection.close()
    await asyncio.to_thread(connection._thread.join, 10)
    assert not connection._thread.is_alive()


async def test_a_connection_that_cannot_be_made_says_why_and_leaves_no_thread(tmp_path: Path) -> None:
    connection = LogConnection(partial(connect, tmp_path / "x.db", read_only=True))

    with pytest.raises(StoreError, match="does not exist"):
        await connection.__aenter__()

    assert not connection._thread.is_alive()


async def test_a_log_that_cannot_be_opened_gives_its_lock_back(tmp_path: Path) -> None:
    (tmp_path / "log.db").write_bytes(b"no database, " * 1000)
    with pytest.raises(StoreError):
        await SignalLog.open(tmp_path)
    (tmp_path / "log.db").unlink()

    async with await SignalLog.open(tmp_path) as log:
        assert (await log.counts())["turns"] == 0


async def test_a_log_that_was_closed_leaves_one_file_to_be_copied(tmp_path: Path) -> None:
    async with await SignalLog.open(tmp_path) as log:
        await record(log, make_turn())
        assert (await log.counts())["turns"] == 1
        assert (tmp_path / "log.db-wal").stat().st_size > 0

    assert sorted(os.listdir(tmp_path)) == ["log.db", "log.lock"]


NEVER_CLOSED = """
import asyncio, sys, threading
from store_samples import make_turn
from agentrl.store.signal_log import SignalLog

entered, released = threading.Event(), threading.Event()

def slow(connection):
    connection.execute("INSERT INTO scopes (name) VALUES ('under way')")
    entered.set()
    released.wait()

async def main(run_dir):
    global log  # held to the end, so that nothing closes it on the way
    log = await SignalLog.open(run_dir)
    await log.record_turn(make_turn("acknowledged"), history_key="h", reply_key="r")
    asyncio.ensure_future(log._committer.submit(slow))
    await asyncio.to_thread(entered.wait, 10)

asyncio.run(main(sys.argv[1]))
if sys.argv[2] == "the write ends":
    released.set()
    log._committer._connection._thread.join(10)
print("ended")
"""


@pytest.mark.parametrize(("last", "written"), [("the write ends", True), ("the program ends", False)])
def test_a_program_that_never_closes_its_log_ends_and_what_it_wrote_is_whole(
    tmp_path: Path, last: str, written: bool
) -> None:
    """Its loop is torn down in mid-write. Neither that nor the threads of the log keep it from ending."""
    done = subprocess.run(
        [sys.executable, "-c", NEVER_CLOSED, str(tmp_path), last],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )

    assert (done.returncode, done.stdout) == (0, "ended\n")
    assert rows(tmp_path, "SELECT id FROM turns") == [("acknowledged",)]
    assert rows(tmp_path, "SELECT name FROM scopes WHERE name = 'under way'") == [("under way",)] * written
    assert verify(tmp_path) == []


async def test_what_is_written_stands_in_no_program_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        async with LogConnection(partial(connect, tmp_path / "x.db")) as connection:
            await connection.run(partial(lambda secret, _: len(secret), "hunter2"))

    assert "hunter2" not in caplog.text
