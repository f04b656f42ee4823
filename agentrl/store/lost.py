"""Files of a run that somebody took away or put back from an older copy: a start on what is left would use numbers
again and lose trained versions."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from agentrl.errors import StoreError
from agentrl.store.database import ELSEWHERE, LEARNING_NAME, LOG_NAME, connect, naming, scalar
from agentrl.store.migrations import LOG, require_current
from agentrl.store.versions import lines_on_disk


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


def refuse_anew(log: Path) -> None:
    """Raises StoreError where log.db has turns of versions above 0: a learning.db begun beside it would use their
    numbers again."""
    with closing(connect(log, read_only=True)) as connection, naming(log):
        require_current(connection, LOG, "main")
        sampled = _sampled(connection)
    for policy, newest in sampled.items():
        _refuse_sampled(policy, newest)


def refuse_older(learning: Path, log: Path, connection: sqlite3.Connection) -> None:
    """Raises StoreError where learning.db is older than the versions beside it or than the turns of log.db, or was
    begun anew beside them.

    A line is begun before its first version is written; a version is written before it is known, and served after. So
    one folder above those known or set aside may be a crash's, and no turn may be.

    Args:
        learning: path of learning.db; versions/ lies beside it.
        log: path of log.db.
        connection: to learning.db, with log.db attached as "log".
    """
    # What comes first here is written last, so that a learner at work looks like no older copy.
    on_disk = {
        store.policy: (store.root, store.numbers(), store.set_aside())
        for store in lines_on_disk(learning.parent)
    }
    with naming(log):
        sampled = _sampled(connection)
    with naming(learning):
        rows = connection.execute("SELECT policy, max(number) FROM versions GROUP BY policy")
        known = {policy: int(number) for policy, number in rows}
    for policy in sorted({*on_disk, *sampled}):
        root, numbers, set_aside = on_disk.get(policy, (learning.parent, [], []))
        newest = sampled.get(policy, 0)
        if policy not in known:
            if numbers:
                raise StoreError(
                    f"{_holds(root, numbers)} but {LEARNING_NAME} knows none: put the run's own back, {ELSEWHERE}"
                )
            _refuse_sampled(policy, newest)
            continue
        if numbers and numbers[-1] > max(known[policy], *set_aside, 0) + 1:
            newer = _holds(root, numbers[-1:])
        elif newest > known[policy]:
            newer = f"{LOG_NAME} holds turns of version {newest}{_of(policy)}"
        else:
            continue
        raise StoreError(
            f"{newer} but {LEARNING_NAME} knows none above {known[policy]}: it is an older copy; put the run's newest "
            f"back, {ELSEWHERE}"
        )


def refuse_emptied(learning: Path, log: Path, connection: sqlite3.Connection) -> None:
    """Raises StoreError where learning.db learned from turns and log.db has none at all, as one begun anew. That it
    lacks the newest ones is no fault: a power cut may take them.

    Args:
        learning: path of learning.db.
        log: path of log.db.
        connection: to learning.db, with log.db attached as "log".
    """
    with naming(learning):
        learned = scalar(connection, "SELECT 1 FROM step_turns LIMIT 1")
    with naming(log):
        recorded = scalar(connection, "SELECT 1 FROM log.turns LIMIT 1")
    if learned and not recorded:
        raise StoreError(
            f"{LEARNING_NAME} learned from turns but {LOG_NAME} holds none: put the run's own back, {ELSEWHERE}"
        )


def trained_versions(run_dir: Path) -> str:
    """Where whole versions of any line are, and which, as the beginning of a sentence; "" where there are none."""
    found = sorted(number for store in lines_on_disk(run_dir) for number in store.numbers())
    return _holds(run_dir / "versions", found) if found else ""


def _holds(root: Path, numbers: list[int]) -> str:
    first, last = numbers[0], numbers[-1]
    return f"{root} holds " + (f"version {first}" if first == last else f"versions {first} to {last}")


def _sampled(connection: sqlite3.Connection) -> dict[str, int]:
    """By line the newest version that log.db has turns of; one look into the index for each."""
    rows = connection.execute(
        """WITH RECURSIVE lines (policy) AS (
               SELECT min(policy) FROM turns
               UNION ALL
               SELECT (SELECT min(t.policy) FROM turns t WHERE t.policy > lines.policy) FROM lines
               WHERE lines.policy IS NOT NULL)
           SELECT policy, (SELECT max(version) FROM turns t WHERE t.policy = lines.policy) FROM lines
           WHERE policy IS NOT NULL"""
    )
    return {policy: int(newest) for policy, newest in rows}


def _refuse_sampled(policy: str, newest: int) -> None:
    """For a line that learning.db does not know: turns of version 0 keep nobody from beginning it."""
    if newest > 0:
        raise StoreError(
            f"{LOG_NAME} holds turns of version {newest}{_of(policy)} but {LEARNING_NAME} knows none: put the run's "
            f"own {LEARNING_NAME} and versions back, or begin anew in another folder with --run-dir"
        )


def _of(policy: str) -> str:
    return "" if policy == "default" else f" of {policy!r}"
