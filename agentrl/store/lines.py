"""The lines of policy versions in learning.db: who serves, who descends from whom, and what a change of state does
to the turns behind it.

    publish ──> candidate ──gate accepts──> serving ──its successor serves──> retired
                    │                          │                                │
                    └──gate refuses──> rejected <──────── rollback ─────────────┘ (all but its target, which serves)

A version serves only if it descends from the one that serves now, so the weights that are served always hold every
turn that counts as trained. Candidates on the way that never served themselves retire with it: their steps are in
its weights. Functions here expect an open write transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable

from agentrl.errors import StoreError
from agentrl.store.account import Reason
from agentrl.store.codec import to_json
from agentrl.store.database import scalar
from agentrl.types import PolicyVersion, VersionFile, VersionState

CANDIDATE, SERVING = VersionState.CANDIDATE, VersionState.SERVING
RETIRED, REJECTED = VersionState.RETIRED, VersionState.REJECTED


def read_versions(connection: sqlite3.Connection, policy: str) -> list[PolicyVersion]:
    rows = connection.execute("SELECT * FROM versions WHERE policy = ? ORDER BY number", (policy,)).fetchall()
    return [_version(connection, row) for row in rows]


def read_version(connection: sqlite3.Connection, policy: str, number: int) -> PolicyVersion | None:
    row = connection.execute(
        "SELECT * FROM versions WHERE policy = ? AND number = ?", (policy, number)
    ).fetchone()
    return None if row is None else _version(connection, row)


def serving_number(connection: sqlite3.Connection, policy: str) -> int | None:
    number = scalar(
        connection, "SELECT number FROM versions WHERE policy = ? AND state = 'serving'", (policy,)
    )
    return None if number is None else int(number)


def _version(connection: sqlite3.Connection, row: sqlite3.Row) -> PolicyVersion:
    steps = connection.execute(
        "SELECT id FROM steps WHERE policy = ? AND version = ? ORDER BY id", (row["policy"], row["number"])
    )
    return PolicyVersion(
        policy=row["policy"],
        number=row["number"],
        parent=row["parent"],
        state=VersionState(row["state"]),
        path=row["path"] if row["deleted_at"] is None else "",
        files=tuple(
            VersionFile(path=path, sha256=sha256, size=size)
            for path, sha256, size in json.loads(row["files"])
        ),
        step_ids=tuple(step["id"] for step in steps),
        metrics=json.loads(row["metrics"]),
        created_at=row["created_at"],
        served_at=row["served_at"],
    )


def insert(connection: sqlite3.Connection, version: PolicyVersion, now: float) -> None:
    """Publishes a candidate, or the first version of a line, which serves at once.

    Raises:
        StoreError: the number was used, the parent cannot be built upon, or a step is not this version's to hold.
    """
    first = version.parent is None
    newest = scalar(connection, "SELECT max(number) FROM versions WHERE policy = ?", (version.policy,))
    name = f"version {version.number} of {version.policy!r}"
    if first:
        if newest is not None:
            raise StoreError(
                f"{name} has no parent, but the line began already: name the version it came from"
            )
    else:
        if newest is None or version.number <= newest:
            raise StoreError(
                f"{name} cannot be published: numbers go on above {newest} and are never used again"
            )
        require_sound(connection, version.policy, version.parent)
    for step in version.step_ids:
        taken = connection.execute(
            "UPDATE steps SET version = ? WHERE id = ? AND policy = ? AND version IS NULL AND voided_at IS NULL",
            (version.number, step, version.policy),
        )
        if taken.rowcount != 1:
            raise StoreError(f"{name} cannot hold step {step}: it is unknown, void or in a version already")
    files = [[file.path, file.sha256, file.size] for file in version.files]
    state = SERVING if first else CANDIDATE
    connection.execute(
        "INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
        (
            *(version.policy, version.number, version.parent, state.value, version.path, to_json(files)),
            *(to_json(version.metrics), version.created_at or now, now if first else None),
        ),
    )
    _note(connection, version.policy, version.number, state, "the base" if first else "published", now)


def serve(connection: sqlite3.Connection, policy: str, number: int, reason: str, now: float) -> None:
    """Makes a candidate serving; the turns of its steps, and of candidates before it, are trained from here on."""
    current = serving_number(connection, policy)
    path = ancestry(connection, policy, number)
    if number == current:
        raise StoreError(f"version {number} of {policy!r} serves already")
    if current is None or current not in path:
        raise StoreError(
            f"version {number} of {policy!r} does not descend from version {current}, which serves: "
            "serving it would drop what was learned since; roll back first"
        )
    between = path[: path.index(current)]
    for ancestor in between:
        state = state_of(connection, policy, ancestor)
        if state is not CANDIDATE:
            raise StoreError(f"version {ancestor} of {policy!r} is {state}; only candidates can be served")
    # The serving version first: the index allows one at a time.
    for retired in (current, *between[1:]):
        _set(connection, policy, retired, RETIRED, f"version {number} serves", now)
    _set(connection, policy, number, SERVING, reason, now)
    connection.execute(
        "UPDATE versions SET served_at = ? WHERE policy = ? AND number = ?", (now, policy, number)
    )


def refuse(connection: sqlite3.Connection, policy: str, number: int, reason: str, now: float) -> list[int]:
    """Rejects a candidate and every candidate built upon it; their turns become rejected(gate). All numbers."""
    if state_of(connection, policy, number) is not CANDIDATE:
        raise StoreError(
            f"version {number} of {policy!r} is {state_of(connection, policy, number)}; only a candidate "
            "can be rejected, a version that served is rolled back"
        )
    refused = [number, *descendants(connection, policy, number)]
    for one in refused:
        why = reason if one == number else f"built upon version {number}: {reason}"
        _set(connection, policy, one, REJECTED, why, now)
    set_aside(connection, policy, refused, Reason.GATE, now)
    return refused


def roll_back(connection: sqlite3.Connection, policy: str, number: int, reason: str, now: float) -> list[int]:
    """Makes an ancestor of the serving version serve again and rejects all that came after it. Those numbers.

    Steps that no version holds yet are void: they were computed on weights that are gone. Their turns, which no
    version learned, can be claimed again; the turns behind rejected versions can not.
    """
    _require_restorable(connection, policy, number)
    after = descendants(connection, policy, number)
    for one in after:
        _set(connection, policy, one, REJECTED, f"rolled back to version {number}: {reason}", now)
    set_aside(connection, policy, after, Reason.ROLLED_BACK, now)
    void_steps(connection, policy, f"rolled back to version {number}", now)
    _set(connection, policy, number, SERVING, f"rolled back to: {reason}", now)
    connection.execute(
        "UPDATE versions SET served_at = coalesce(served_at, ?) WHERE policy = ? AND number = ?",
        (now, policy, number),
    )
    return after


def _require_restorable(connection: sqlite3.Connection, policy: str, number: int) -> None:
    """Raises StoreError, with the versions that can, where this one cannot serve again."""
    current = serving_number(connection, policy)
    line = [] if current is None else ancestry(connection, policy, current)
    known = {version.number: version for version in read_versions(connection, policy)}
    fit = [ancestor for ancestor in line[1:] if known[ancestor].path]
    if number in fit:
        return
    if number not in known:
        why = "does not exist"
    elif number == current:
        why = "serves already"
    elif number in line:
        why = "has no files any more (learn.keep_versions keeps more)"
    elif known[number].state is REJECTED:
        why = "was rejected"
    elif known[number].state is CANDIDATE:
        why = "has not passed its gate"
    else:
        why = f"is no ancestor of the serving version {current}"
    none = "there is none before it"
    remedy = none if number == current else f"version {current} serves, and {none}"
    if fit:
        remedy = f"choose one of {', '.join(map(str, fit))}"
    of = "" if policy == "default" else f" of {policy!r}"
    raise StoreError(f"version {number}{of} {why}; {remedy}")


def void_steps(connection: sqlite3.Connection, policy: str, reason: str, now: float) -> list[str]:
    """Gives up the steps that no version holds; returns their turns, which that sets free."""
    rows = connection.execute(
        "SELECT DISTINCT turn_id FROM step_turns JOIN steps ON steps.id = step "
        "WHERE policy = ? AND version IS NULL AND voided_at IS NULL ORDER BY turn_id",
        (policy,),
    ).fetchall()
    connection.execute(
        "UPDATE steps SET voided_at = ?, void_reason = ? "
        "WHERE policy = ? AND version IS NULL AND voided_at IS NULL",
        (now, reason, policy),
    )
    turns = [row["turn_id"] for row in rows]
    unsettle(connection, policy, turns)
    return turns


def abandon_candidates(connection: sqlite3.Connection, policy: str, reason: str, now: float) -> list[str]:
    """Rejects the candidates whose gate never decided; returns their turns, which no fault is known of."""
    rows = connection.execute(
        "SELECT number FROM versions WHERE policy = ? AND state = 'candidate'", (policy,)
    ).fetchall()
    turns: set[str] = set()
    for row in rows:
        number = row["number"]
        _set(connection, policy, number, REJECTED, reason, now)
        held = connection.execute(
            "SELECT turn_id FROM step_turns JOIN steps ON steps.id = step "
            "WHERE policy = ? AND version = ? AND voided_at IS NULL",
            (policy, number),
        )
        turns |= {turn["turn_id"] for turn in held}
        connection.execute(
            "UPDATE steps SET voided_at = ?, void_reason = ? "
            "WHERE policy = ? AND version = ? AND voided_at IS NULL",
            (now, reason, policy, number),
        )
    unsettle(connection, policy, turns)
    return sorted(turns)


def unsettle(connection: sqlite3.Connection, policy: str, turn_ids: Iterable[str]) -> None:
    """Lets `expire` look again at turns that are pending once more, and `account` count them again. Whatever changes
    the fate of turns that may be settled, and are in no learner's hands, calls it."""
    connection.execute(
        """UPDATE settings SET settled = j.before, unsettled = unsettled + 1 FROM
               (SELECT min(t.seq) - 1 AS before FROM turns t JOIN json_each(?) j ON t.id = j.value) j
           WHERE policy = ? AND j.before < settled""",
        (json.dumps(list(turn_ids)), policy),
    )


def set_aside(
    connection: sqlite3.Connection, policy: str, numbers: Iterable[int], reason: Reason, now: float
) -> None:
    """The turns in the steps of these versions are not claimed again, and what holds one of them lets go."""
    for number in numbers:
        rows = connection.execute(
            """SELECT DISTINCT turn_id FROM step_turns JOIN steps ON steps.id = step
               WHERE policy = ? AND version = ? AND voided_at IS NULL""",
            (policy, number),
        ).fetchall()
        unsettle(connection, policy, [row["turn_id"] for row in rows])
        connection.execute(
            """DELETE FROM claims WHERE turn_id IN (SELECT turn_id FROM step_turns JOIN steps ON steps.id = step
               WHERE policy = ? AND version = ? AND voided_at IS NULL)""",
            (policy, number),
        )
        connection.execute(
            """INSERT OR REPLACE INTO rejections
               SELECT DISTINCT turn_id, ?, ?, ? FROM step_turns JOIN steps ON steps.id = step
               WHERE policy = ? AND version = ? AND voided_at IS NULL""",
            (reason.value, number, now, policy, number),
        )


def ancestry(connection: sqlite3.Connection, policy: str, number: int) -> list[int]:
    """[number, its parent, .., the first version]; empty for an unknown number."""
    rows = connection.execute(
        """WITH RECURSIVE line (number, parent) AS (
               SELECT number, parent FROM versions WHERE policy = :policy AND number = :number
               UNION
               SELECT v.number, v.parent FROM line JOIN versions v
               ON v.policy = :policy AND v.number = line.parent)
           SELECT number FROM line ORDER BY number DESC""",
        {"policy": policy, "number": number},
    )
    return [row["number"] for row in rows]


def descendants(connection: sqlite3.Connection, policy: str, number: int) -> list[int]:
    """Versions built upon this one that are not rejected yet, ascending."""
    rows = connection.execute(
        """WITH RECURSIVE line (number) AS (
               SELECT number FROM versions WHERE policy = :policy AND parent = :number
               UNION
               SELECT v.number FROM line JOIN versions v ON v.policy = :policy AND v.parent = line.number)
           SELECT number FROM line JOIN versions USING (number)
           WHERE policy = :policy AND state <> 'rejected' ORDER BY number""",
        {"policy": policy, "number": number},
    )
    return [row["number"] for row in rows]


def state_of(connection: sqlite3.Connection, policy: str, number: int) -> VersionState:
    """Raises StoreError for an unknown version."""
    state = scalar(connection, "SELECT state FROM versions WHERE policy = ? AND number = ?", (policy, number))
    if state is None:
        raise StoreError(f"there is no version {number} of {policy!r}")
    return VersionState(state)


def require_sound(connection: sqlite3.Connection, policy: str, number: int | None) -> None:
    assert number is not None
    if state_of(connection, policy, number) is REJECTED:
        raise StoreError(
            f"version {number} of {policy!r} was rejected or rolled back and cannot be built upon: "
            f"restore the learner from version {serving_number(connection, policy)}"
        )


def _set(
    connection: sqlite3.Connection, policy: str, number: int, state: VersionState, reason: str, now: float
) -> None:
    connection.execute(
        "UPDATE versions SET state = ? WHERE policy = ? AND number = ?", (state.value, policy, number)
    )
    _note(connection, policy, number, state, reason, now)


def _note(
    connection: sqlite3.Connection, policy: str, number: int, state: VersionState, reason: str, now: float
) -> None:
    connection.execute(
        "INSERT INTO version_events (policy, number, state, reason, created_at) VALUES (?, ?, ?, ?, ?)",
        (policy, number, state.value, reason, now),
    )
