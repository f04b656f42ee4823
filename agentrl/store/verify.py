"""`agentrl store verify`: derives again everything that can be derived, and names what does not agree.

Read-only and from one snapshot, so it may run beside the server and the learner.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from agentrl.errors import StoreError
from agentrl.store import codec, records, taught
from agentrl.store.account import account
from agentrl.store.conversations import content_hash, message_hash, scope_key
from agentrl.store.database import LEARNING_NAME, LOG_NAME, reading
from agentrl.store.explain import both_files
from agentrl.store.lines import read_versions
from agentrl.store.lost import refuse_emptied, refuse_lost, refuse_older
from agentrl.store.versions import VersionStore, checksum, lines_on_disk


def verify(run_dir: Path | str, *, is_live: bool = False) -> list[str]:
    """Checks a run's folder; sentences naming each fault, none where everything holds.

    Reads all of log.db, learning.db and versions/.

    Args:
        is_live: a learner is at work: a version above all that are known is being published.

    Raises:
        StoreError: there is no log, or there are versions and no file that knows of them.
    """
    run_dir = Path(run_dir)
    log, learning = run_dir / LOG_NAME, run_dir / LEARNING_NAME
    refuse_lost(run_dir)
    if not log.is_file():
        raise StoreError(f"{log} does not exist: there is nothing to verify")
    faults: list[str] = []
    try:
        with both_files(log, learning) as connection:
            with reading(connection):
                for check in (
                    _pages,
                    _contents,
                    _messages,
                    _turns,
                    _next_states,
                    _signals,
                    _derived,
                    _learning,
                ):
                    try:
                        faults += check(connection)
                    except sqlite3.DatabaseError as error:
                        faults.append(f"{check.__name__.strip('_')} cannot be read: {error}")
            found = account(connection)
            if not found.balanced:
                faults.append(f"the account does not balance: {found}")
            refused: list[str] = []
            for refuse in (refuse_older, refuse_emptied):
                try:
                    refuse(learning, log, connection)
                except StoreError as error:
                    refused.append(str(error))
            faults += [*refused, *_files(connection, run_dir, starts=not refused, is_live=is_live)]
    except StoreError as error:
        faults.append(str(error))
    return faults


def _pages(connection: sqlite3.Connection) -> Iterator[str]:
    for schema, name in (("log", LOG_NAME), ("main", LEARNING_NAME)):
        for (sentence,) in connection.execute(f"PRAGMA {schema}.integrity_check"):
            if sentence != "ok":
                yield f"{name}: {sentence}"
        for row in connection.execute(f"PRAGMA {schema}.foreign_key_check"):
            yield f"{name}: row {row[1]} of {row[0]} names a row of {row[2]} that is not there"


def _contents(connection: sqlite3.Connection) -> Iterator[str]:
    keys = {row["id"]: scope_key(row["name"]) for row in connection.execute("SELECT * FROM scopes")}
    for row in connection.execute("SELECT * FROM contents"):
        try:
            sound = content_hash(keys[row["scope"]], codec.unpack_text(row["body"])) == row["hash"]
        except (ValueError, KeyError):
            sound = False
        if not sound:
            yield f"content {row['id']} does not have its hash: its text or its hash was altered"


def _messages(connection: sqlite3.Connection) -> Iterator[str]:
    rows = connection.execute(
        """SELECT m.id, m.parent, m.hash, c.hash AS content, s.name AS scope, p.hash AS before
           FROM messages m LEFT JOIN contents c ON c.id = m.content LEFT JOIN scopes s ON s.id = c.scope
           LEFT JOIN messages p ON p.id = m.parent"""
    )
    for row in rows:
        before = row["before"] if row["parent"] is not None else scope_key(row["scope"] or "")
        if None in (before, row["content"]) or message_hash(before, row["content"]) != row["hash"]:
            yield f"message {row['id']} does not have the hash of its content after its parent"


def _turns(connection: sqlite3.Connection) -> Iterator[str]:
    for row in connection.execute("SELECT * FROM turns ORDER BY seq"):
        name = f"turn {row['id']}"
        if records.optional_digest([row[column] for column in records.TURN_COLUMNS]) != row["digest"]:
            yield f"{name} does not have its checksum: a value of its row was altered"
        try:
            turn = records.turn_of(connection, row)
        except (ValueError, KeyError, TypeError) as error:
            yield f"{name} cannot be read back: {error}"
            continue
        if len(turn.messages) != row["num_messages"]:
            yield f"{name} has {len(turn.messages)} messages, recorded were {row['num_messages']}"
        if records.group_key(turn.session) != row["group_key"]:
            yield f"{name} has the group {row['group_key']!r}, which its session does not name"
        calls = {call.id for call in turn.reply.tool_calls}
        stored = (
            {
                found["call_id"]
                for found in connection.execute(
                    "SELECT call_id FROM call_ids WHERE scope = ? AND turn = ?", (turn.scope, row["seq"])
                )
            }
            if calls
            else calls
        )
        if stored != calls:
            yield f"{name} made the tool calls {sorted(calls)}, but is found by {sorted(stored)}"


def _next_states(connection: sqlite3.Connection) -> Iterator[str]:
    rows = connection.execute("SELECT n.*, t.id FROM next_states n LEFT JOIN turns t ON t.seq = n.turn")
    for row in rows:
        name = f"the next state of turn {row['id']}"
        if codec.digest(row[column] for column in records.NEXT_STATE_COLUMNS) != row["digest"]:
            yield f"{name} does not have its checksum: a value of its row was altered"
            continue
        try:
            records.read_next_state(connection, row["id"])
        except StoreError as error:
            yield str(error)


def _signals(connection: sqlite3.Connection) -> Iterator[str]:
    for row in connection.execute("SELECT * FROM signals"):
        if records.optional_digest([row[column] for column in records.SIGNAL_COLUMNS]) != row["digest"]:
            yield f"signal {row['id']} does not have its checksum: a value of its row was altered"


def _derived(connection: sqlite3.Connection) -> Iterator[str]:
    """The lists that are kept so that nothing need be searched: each must be what a search would find."""
    open_but_answered = connection.execute(
        "SELECT t.id FROM turns t LEFT JOIN next_states n ON n.turn = t.seq LEFT JOIN open_turns o ON o.turn = t.seq "
        "WHERE (n.turn IS NULL) <> (o.turn IS NOT NULL)"
    )
    for row in open_but_answered:
        yield f"turn {row['id']} stands wrongly in (or is missing from) the list of open turns"
    finished = connection.execute(
        "SELECT t.id FROM due_turns d JOIN turns t ON t.seq = d.turn WHERE EXISTS "
        "(SELECT 1 FROM judgements j WHERE j.turn = d.turn AND j.outcome <> 'failed')"
    )
    for row in finished:
        yield f"turn {row['id']} was judged, but stands in the list of turns to judge"
    attempts = connection.execute(
        "SELECT t.id, d.attempts, (SELECT count(*) FROM judgements j WHERE j.turn = d.turn) AS made "
        "FROM due_turns d JOIN turns t ON t.seq = d.turn WHERE d.attempts <> made"
    )
    for row in attempts:
        yield f"turn {row['id']} counts {row['attempts']} attempts of the judge, recorded are {row['made']}"


def _learning(connection: sqlite3.Connection) -> Iterator[str]:
    yield from taught.faults(connection)
    for table in ("claims", "step_turns", "rejections", "lesson_hints", "taught"):
        lost = connection.execute(
            f"SELECT DISTINCT turn_id FROM {table} WHERE turn_id NOT IN (SELECT id FROM turns)"  # noqa: S608
        )
        for row in lost:
            yield (
                f"{table} names turn {row['turn_id']}, which the log does not hold; a power cut may have taken "
                "the log's last turns"
            )
    for row in connection.execute(
        "SELECT u.turn_id, u.use, count(*) AS number FROM step_turns u JOIN steps s ON s.id = u.step "
        "WHERE s.voided_at IS NULL AND u.use > 0 GROUP BY u.turn_id, u.use HAVING number > 1"
    ):
        yield f"turn {row['turn_id']} was used {row['number']} times as its use {row['use']}"
    for row in connection.execute(
        "SELECT DISTINCT policy FROM versions EXCEPT SELECT policy FROM versions WHERE state = 'serving'"
    ):
        yield f"no version of {row['policy']!r} serves"
    for row in connection.execute(
        "SELECT v.policy, v.number, v.parent FROM versions v LEFT JOIN versions p "
        "ON p.policy = v.policy AND p.number = v.parent "
        "WHERE v.parent IS NOT NULL AND (p.number IS NULL OR p.number >= v.number)"
    ):
        yield f"version {row['number']} of {row['policy']!r} has no parent {row['parent']} before it"
    for row in connection.execute(
        "SELECT v.policy, v.number FROM versions v JOIN versions p ON p.policy = v.policy AND p.number = v.parent "
        "WHERE p.state = 'rejected' AND v.state <> 'rejected'"
    ):
        yield f"version {row['number']} of {row['policy']!r} stands although what it was built upon was rejected"
    for row in connection.execute(
        "SELECT s.id, s.policy, s.version FROM steps s LEFT JOIN versions v "
        "ON v.policy = s.policy AND v.number = s.version WHERE s.version IS NOT NULL AND v.number IS NULL"
    ):
        yield f"step {row['id']} is in version {row['version']} of {row['policy']!r}, which is not there"
    for row in connection.execute(
        "SELECT v.policy, v.number, v.state, (SELECT e.state FROM version_events e WHERE e.policy = v.policy "
        "AND e.number = v.number ORDER BY e.id DESC LIMIT 1) AS last FROM versions v WHERE v.state IS NOT last"
    ):
        yield f"version {row['number']} of {row['policy']!r} is {row['state']}, its last event says {row['last']}"
    for row in connection.execute("SELECT id, metrics FROM steps"):
        try:
            json.loads(row["metrics"])
        except ValueError:
            yield f"the metrics of step {row['id']} are not JSON"


def _files(connection: sqlite3.Connection, run_dir: Path, *, starts: bool, is_live: bool) -> Iterator[str]:
    """`starts`: whether a learner would, and clear away what no version names."""
    stores = {store.policy: store for store in lines_on_disk(run_dir)}
    for (policy,) in connection.execute("SELECT DISTINCT policy FROM versions"):
        stores.setdefault(policy, VersionStore(run_dir, policy))
    for policy, store in stores.items():
        versions = read_versions(connection, policy)
        for version in versions:
            if not version.path:
                continue
            if version.parent is not None:
                yield from store.verify(version)
                continue
            # The base is the user's own folder: only what was recorded of it is held against it.
            for file in version.files:
                path = run_dir / version.path / file.path
                if not path.is_file() or checksum(path) != file.sha256:
                    yield f"the base of {policy!r}: {path} is missing or was altered"
        has_files = {version.number: bool(version.path) for version in versions}
        published_now = max(has_files, default=0) + 1 if is_live else None
        for number in store.numbers():
            if has_files.get(number) or number == published_now:
                continue
            clears = "removes it" if number in has_files else "sets it aside"
            yield f"{store.path(number)} belongs to no version" + (
                f"; the learner {clears} when it starts" if starts else ""
            )
