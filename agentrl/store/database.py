"""Opening SQLite files the one way this room does it: WAL, explicit transactions, named errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agentrl.errors import StoreError

LOG_NAME = "log.db"
LEARNING_NAME = "learning.db"
ELSEWHERE = "or name another folder with --run-dir"

BUSY_TIMEOUT_S = 5.0
"""How long a statement waits for another process's write to the same file. Each file has one busy writer, so
this is met only when the CLI writes learning.db at the very moment the learner does."""


CHECKPOINT_PAGES = 4000
"""Pages of 4 kB in the WAL before they are moved into the file."""


def database_path(path: Path | str, name: str) -> Path:
    """The file `name` of a run: `path` is the run's folder or the file itself."""
    path = Path(path)
    return path if path.suffix == ".db" else path / name


def connect(path: Path, *, read_only: bool = False, synchronous: str = "NORMAL") -> sqlite3.Connection:
    """A connection in autocommit mode: nothing is held open between statements, transactions are explicit.

    Args:
        path: the file; made when missing unless `read_only`.
        read_only: refuse every write, and never make the file.
        synchronous: NORMAL survives the death of the process; FULL survives a power cut as well.

    Raises:
        StoreError: the file is missing or is not a database.
    """
    if read_only and not path.is_file():
        raise StoreError(f"{path} does not exist: start the run once, it makes the file")
    mode = "ro" if read_only else "rwc"
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.row_factory = sqlite3.Row
        if not read_only:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {synchronous}")
            connection.execute("PRAGMA foreign_keys = ON")
            # Fewer checkpoints, each of which waits for the disk and writes every page that changed since the last.
            connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
            # A long reader lets the WAL grow; without a limit the file would keep that size for ever.
            connection.execute(f"PRAGMA journal_size_limit = {64 * 2**20}")
    except sqlite3.Error as error:
        raise StoreError(f"cannot open {path}: {error}{remedy(error)}") from error
    return connection


def remedy(error: sqlite3.Error) -> str:
    """What to do about it, to stand behind its words, where it says that the file is damaged or no database."""
    # Its own class for those alone; what may go by itself, such as a lock, has a subclass.
    damaged = type(error) is sqlite3.DatabaseError
    return f"; put back a copy, {ELSEWHERE}" if damaged else ""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Of a file that SQLite first reads in the body: its errors as StoreError, with the path."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"cannot read {path}: {error}{remedy(error)}") from error


def require_file(path: Path) -> None:
    if not path.is_file():
        raise StoreError(f"{path} does not exist: start the server once, it makes the file")


def attach(connection: sqlite3.Connection, path: Path, alias: str) -> None:
    """Makes the tables of another file readable, and only readable, through `connection`.

    Raises:
        StoreError: the file is missing or is not a database.
    """
    require_file(path)
    with naming(path):
        connection.execute(f"ATTACH DATABASE ? AS {alias}", (f"{path.absolute().as_uri()}?mode=ro",))


@contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """BEGIN IMMEDIATE .. COMMIT; everything is rolled back when the body or the commit fails."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        # A failed COMMIT may have ended the transaction already; rolling back twice is an error of its own.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def reading(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """One snapshot of every attached file for all statements of the body."""
    connection.execute("BEGIN DEFERRED")
    try:
        yield connection
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def columns(connection: sqlite3.Connection) -> dict[str, dict[str, str]]:
    """table -> column -> declared type, for every table of the main file."""
    tables = connection.execute(
        "SELECT name FROM main.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
    ).fetchall()
    return {
        table["name"]: {
            column["name"]: column["type"]
            for column in connection.execute("SELECT name, type FROM pragma_table_info(?)", (table["name"],))
        }
        for table in tables
    }


def scalar(connection: sqlite3.Connection, sql: str, values: Any = ()) -> Any:
    """The first column of the first row; None without a row."""
    row = connection.execute(sql, values).fetchone()
    return None if row is None else row[0]
