"""Files of a run that somebody took away or put back from an older copy: a start on what is left would use numbers
again and delete trained versions."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from agentrl.errors import StoreError
from agentrl.store.database import ELSEWHERE, LEARNING_NAME, LOG_NAME, scalar
from agentrl.store.versions import NUMBERED, VersionStore, is_stable


def refuse_lost(run_dir: Path) -> None:
    """Raises StoreError where versions or learning.db are there and a file that knows of them is not."""
    missing = [name for name in (LOG_NAME, LEARNING_NAME) if not (run_dir / name).is_file()]
    trained = trained_versions(run_dir)
    if trained and missing:
        are, them = ("is", "it") if len(missing) == 1 else ("are", "them")
        raise StoreError(f"{trained} but {' and '.join(missing)} {are} missing: put {them} back, {ELSEWHERE}")
    if missing == [LOG_NAME]:
        raise StoreError(
            f"{run_dir / LEARNING_NAME} is there but {LOG_NAME}, whose turns it counts, is missing: put it back, "
            + ELSEWHERE
        )


def refuse_unknown(run_dir: Path) -> None:
    """Raises StoreError where there are versions. For a learning.db that has none, as one begun anew."""
    trained = trained_versions(run_dir)
    if trained:
        raise StoreError(f"{trained} but {LEARNING_NAME} knows none: put the run's own back, {ELSEWHERE}")


def refuse_older(run_dir: Path, connection: sqlite3.Connection) -> None:
    """Raises StoreError where learning.db is older than the versions beside it or than the turns of log.db.

    A version is written before it is known and served after: one folder may be unknown, no turn may.

    Args:
        connection: to learning.db, with log.db attached as "log".
    """
    for (policy,) in connection.execute("SELECT DISTINCT policy FROM versions").fetchall():
        # What comes first here is written last, so that a learner at work looks like no older copy.
        on_disk = max(VersionStore(run_dir, policy).numbers(), default=0)
        sampled = scalar(connection, "SELECT max(version) FROM log.turns WHERE policy = ?", (policy,)) or 0
        known = scalar(connection, "SELECT max(number) FROM versions WHERE policy = ?", (policy,))
        if on_disk > known + 1:
            newer = f"{run_dir / 'versions'} holds version {on_disk}"
        elif sampled > known:
            newer = f"{LOG_NAME} holds turns of version {sampled}"
        else:
            continue
        raise StoreError(
            f"{newer} but {LEARNING_NAME} knows none above {known}: it is an older copy; put the run's newest back, "
            + ELSEWHERE
        )


def refuse_emptied(connection: sqlite3.Connection) -> None:
    """Raises StoreError where learning.db learned from turns and log.db has none at all, as one begun anew. That it
    lacks the newest ones is no fault: a power cut may take them.

    Args:
        connection: to learning.db, with log.db attached as "log".
    """
    if scalar(connection, "SELECT 1 FROM step_turns LIMIT 1") and not scalar(
        connection, "SELECT 1 FROM log.turns LIMIT 1"
    ):
        raise StoreError(
            f"{LEARNING_NAME} learned from turns but {LOG_NAME} holds none: put the run's own back, {ELSEWHERE}"
        )


def trained_versions(run_dir: Path) -> str:
    """Where whole versions of any line are, and which, as the beginning of a sentence; "" where there are none."""
    root = run_dir / "versions"
    found = sorted(
        int(folder.name)
        for folder in (*root.glob("*"), *root.glob("policy=*/*"))
        if NUMBERED.fullmatch(folder.name) and is_stable(folder)
    )
    if not found:
        return ""
    return f"{root} holds " + (
        f"version {found[0]}" if found[0] == found[-1] else f"versions {found[0]} to {found[-1]}"
    )
