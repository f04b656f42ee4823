"""Questions to log.db: pure reads of a connection, and the rows they answer with."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass

from agentrl.store import codec, records
from agentrl.store.database import reading, scalar
from agentrl.store.records import TurnIds
from agentrl.types import NextState, Turn, TurnKind


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRef:
    """As much of a turn as lineage decides by."""

    id: str
    session: str
    num_messages: int
    """Messages of the turn's own request; its reply is one more."""
    received_at: float
    answered: bool
    """Whether it has a next state already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSession:
    scope: str
    session: str
    num_open: int
    """Turns without a next state."""
    received_at: float
    """When its newest request came, Unix seconds."""


_REF = """SELECT id, session, num_messages, received_at,
    EXISTS (SELECT 1 FROM next_states WHERE turn = turns.seq) AS answered FROM turns """


def _ref(row: sqlite3.Row) -> TurnRef:
    return TurnRef(
        id=row["id"],
        session=row["session"],
        num_messages=row["num_messages"],
        received_at=row["received_at"],
        answered=bool(row["answered"]),
    )


def turn_ref(connection: sqlite3.Connection, turn_id: str) -> TurnRef | None:
    row = connection.execute(_REF + "WHERE id = ?", (turn_id,)).fetchone()
    return None if row is None else _ref(row)


def by_call_id(connection: sqlite3.Connection, scope: str, call_id: str) -> list[str]:
    rows = connection.execute(
        "SELECT t.id FROM call_ids c JOIN turns t ON t.seq = c.turn WHERE c.scope = ? AND c.call_id = ? "
        "ORDER BY t.seq",
        (scope, call_id),
    )
    return [row["id"] for row in rows]


def by_history(connection: sqlite3.Connection, scope: str, key: str) -> list[TurnRef]:
    rows = connection.execute(_REF + "WHERE scope = ? AND history_key = ? ORDER BY seq DESC", (scope, key))
    return [_ref(row) for row in rows]


def by_reply(connection: sqlite3.Connection, scope: str, session: str, key: str) -> list[TurnRef]:
    rows = connection.execute(
        _REF + "WHERE scope = ? AND session = ? AND reply_key = ? ORDER BY seq DESC", (scope, session, key)
    )
    return [_ref(row) for row in rows]


def turn_ids(connection: sqlite3.Connection, turn_id: str) -> TurnIds | None:
    row = connection.execute(
        "SELECT seq, num_messages, token_ids, block_spans, shown_lessons FROM turns WHERE id = ?", (turn_id,)
    ).fetchone()
    if row is None:
        return None
    return TurnIds(
        prompt_ids=codec.ids_of(records.prompt_bytes(connection, row["seq"])),
        completion_ids=codec.unpack_ids(row["token_ids"]),
        num_messages=row["num_messages"],
        **records.blocks_of(row),
    )


_LEARNABLE = "WHERE purpose = 'train' AND arm = 'learning' AND kind = 'main'"


def find_turn(connection: sqlite3.Connection, name: str, *, of_any_kind: bool) -> str | None:
    if name == "last":
        which = "" if of_any_kind else _LEARNABLE
        row = connection.execute(f"SELECT id FROM turns {which} ORDER BY seq DESC LIMIT 1").fetchone()  # noqa: S608
        return None if row is None else str(row[0])
    # "chatcmpl-ID": a dialect's prefix stands before the request's id.
    for candidate in (name, name.partition("-")[2], name.partition("_")[2]):
        row = connection.execute(
            "SELECT id FROM turns WHERE id = :name OR request_id = :name ORDER BY id = :name DESC, seq LIMIT 1",
            {"name": candidate},
        ).fetchone()
        if row is not None:
            return str(row[0])
    return None


def feedback_target(
    connection: sqlite3.Connection,
    scope: str,
    turn_id: str | None,
    response_id: str | None,
    session: str | None,
) -> str | None:
    row = None
    if turn_id is not None:
        row = connection.execute(
            "SELECT id FROM turns WHERE id = ? AND scope = ?", (turn_id, scope)
        ).fetchone()
    elif response_id is not None:
        # "chatcmpl-ID", "resp_ID", "msg_ID": every dialect has a prefix of its own before the turn's id.
        for name in (response_id, response_id.partition("-")[2], response_id.partition("_")[2]):
            row = (
                row
                or connection.execute(
                    "SELECT id FROM turns WHERE (id = :name OR request_id = :name) AND scope = :scope "
                    "ORDER BY id = :name DESC, seq LIMIT 1",
                    {"name": name, "scope": scope},
                ).fetchone()
            )
    elif session is not None:
        row = connection.execute(
            "SELECT id FROM turns WHERE scope = ? AND session = ? AND kind = ? "
            "ORDER BY purpose = 'train' DESC, received_at DESC, seq DESC LIMIT 1",
            (scope, session, TurnKind.MAIN.value),
        ).fetchone()
    return None if row is None else str(row["id"])


def turns_of(connection: sqlite3.Connection, session: str, scope: str) -> list[Turn]:
    with reading(connection):
        rows = connection.execute(
            "SELECT id FROM turns WHERE scope = ? AND session = ? ORDER BY seq", (scope, session)
        ).fetchall()
        turns = (records.read_turn(connection, row["id"]) for row in rows)
        return [turn for turn in turns if turn is not None]


def unjudged(
    connection: sqlite3.Connection, limit: int, besides: Collection[str]
) -> list[tuple[Turn, NextState]]:
    with reading(connection):
        rows = connection.execute(
            "SELECT t.id FROM due_turns d JOIN turns t ON t.seq = d.turn "
            "WHERE t.id NOT IN (SELECT value FROM json_each(?)) ORDER BY d.attempts, d.turn LIMIT ?",
            (json.dumps(list(besides)), limit),
        ).fetchall()
        pairs = [
            (records.read_turn(connection, row["id"]), records.read_next_state(connection, row["id"]))
            for row in rows
        ]
    return [(turn, state) for turn, state in pairs if turn is not None and state is not None]


def idle_turns(connection: sqlite3.Connection, before: float) -> list[str]:
    rows = connection.execute(
        """SELECT t.id FROM open_turns o JOIN turns t ON t.seq = o.turn
           WHERE (SELECT max(s.received_at) FROM turns s WHERE s.scope = o.scope AND s.session = o.session) < ?
           ORDER BY t.seq""",
        (before,),
    )
    return [row["id"] for row in rows]


def open_turns(connection: sqlite3.Connection, session: str, scope: str) -> list[str]:
    rows = connection.execute(
        "SELECT t.id FROM open_turns o JOIN turns t ON t.seq = o.turn WHERE o.scope = ? AND o.session = ? "
        "ORDER BY t.seq",
        (scope, session),
    )
    return [row["id"] for row in rows]


def open_sessions(connection: sqlite3.Connection) -> list[OpenSession]:
    rows = connection.execute(
        """SELECT o.scope, o.session, count(*) AS num_open,
               (SELECT max(received_at) FROM turns s WHERE s.scope = o.scope AND s.session = o.session) AS newest
           FROM open_turns o GROUP BY o.scope, o.session ORDER BY newest DESC, o.scope, o.session"""
    )
    return [
        OpenSession(
            scope=row["scope"], session=row["session"], num_open=row["num_open"], received_at=row["newest"]
        )
        for row in rows
    ]


def versions_used(connection: sqlite3.Connection, policy: str) -> list[int]:
    # A skip scan: each step of the recursion is one seek in the index to the next larger version.
    with reading(connection):
        first = connection.execute(
            """WITH RECURSIVE used (version) AS (
                   SELECT min(version) FROM turns WHERE policy = :policy
                   UNION ALL
                   SELECT (SELECT min(version) FROM turns WHERE policy = :policy AND version > used.version)
                   FROM used WHERE used.version IS NOT NULL)
               SELECT version FROM used WHERE version >= 0""",
            {"policy": policy},
        ).fetchall()
        moved = connection.execute(
            "SELECT version_spans FROM turns WHERE policy = ? AND version_spans IS NOT NULL", (policy,)
        ).fetchall()
    spans = {int(span[0]) for row in moved for span in json.loads(row["version_spans"])}
    return sorted({int(row["version"]) for row in first} | spans)


_COUNTS = {
    "turns": "SELECT purpose, count(*) FROM turns GROUP BY 1",
    "kinds": "SELECT kind, count(*) FROM turns GROUP BY 1",
    "arms": "SELECT arm, count(*) FROM turns GROUP BY 1",
    "matched_by": "SELECT matched_by, count(*) FROM turns GROUP BY 1",
    "prompts": "SELECT CASE WHEN prompt_built_by = 'extended' THEN 'extended' ELSE 'rendered' END, count(*) "
    "FROM turns GROUP BY 1",
    "ends": "SELECT coalesce(ending, 'answered'), count(*) FROM next_states GROUP BY 1",
    "signals": "SELECT source, count(*) FROM signals GROUP BY 1",
    "judgements": "SELECT outcome, count(*) FROM judgements GROUP BY 1",
}
_TOTALS = {
    "turns": "SELECT count(*) FROM turns",
    "turns.open": "SELECT count(*) FROM open_turns",
    "turns.errors": "SELECT count(*) FROM turns WHERE error IS NOT NULL",
    "turns.moved": "SELECT count(*) FROM turns WHERE version_spans IS NOT NULL",
    "turns.redacted": "SELECT count(*) FROM turns WHERE redacted_spans IS NOT NULL",
    "next_states": "SELECT count(*) FROM next_states",
    "next_states.repeated": "SELECT count(*) FROM repeated_next_states",
    "signals": "SELECT count(*) FROM signals",
    "judgements.due": "SELECT count(*) FROM due_turns",
    "messages": "SELECT count(*) FROM messages",
    "sessions.open": "SELECT count(*) FROM (SELECT DISTINCT scope, session FROM open_turns)",
    "tokens.sampled": "SELECT coalesce(sum(num_sampled), 0) FROM turns",
    "tokens.prompt": "SELECT coalesce(sum(num_prompt), 0) FROM turns",
}


def counts(connection: sqlite3.Connection) -> dict[str, int]:
    with reading(connection):
        found = {name: int(scalar(connection, sql)) for name, sql in _TOTALS.items()}
        for name, sql in _COUNTS.items():
            found |= {f"{name}.{row[0]}": int(row[1]) for row in connection.execute(sql)}
    return found
