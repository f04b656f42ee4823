"""Which of the waiting turns an update is made of, so that no loud user owns it.

Places go round: first to the API key (its scope) that has fewest in the update so far, within it to the session that
has fewest, within it to the source of signals that has fewest, and then to the newest turn. Beyond its places nobody
gets more while others are active; the rest waits for the next update. Turns never used come before those used once.

Groups take their places whole: as many as they have turns, the oldest first, and the part of a session's name before
its group stands for the session.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

KEY, SESSION, SIGNAL = "key", "session", "signal"
MAX_LOOKED = 2048
"""Waiting turns that are looked at: of each session the newest one, then of each the second newest, and so on, so that
no backlog of one hides the others; older ones come up when these are gone."""

_SOURCE = """(SELECT s.source FROM signals s WHERE s.turn = c.seq AND (s.reward IS NOT NULL OR s.hint <> '')
    ORDER BY CASE s.source WHEN 'user' THEN 0 WHEN 'environment' THEN 1 WHEN 'judge' THEN 2 ELSE 3 END LIMIT 1)"""
_ACTIVE = """SELECT count(DISTINCT scope) AS keys, count(DISTINCT scope || char(0) || session) AS sessions FROM turns
    WHERE policy = :policy AND purpose = 'train' AND arm = 'learning' AND kind = 'main' AND received_at >=
        (SELECT max(received_at) FROM turns WHERE policy = :policy) - :active_s"""
_SOURCES = """SELECT count(DISTINCT s.source) FROM turns t CROSS JOIN signals s ON s.turn = t.seq
    WHERE t.policy = :policy AND t.purpose = 'train' AND t.received_at >=
        (SELECT max(received_at) FROM turns WHERE policy = :policy) - :active_s"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """How the places of an update are given away."""

    size: int
    """Places of a full update."""
    balance: tuple[str, ...] = (KEY, SESSION, SIGNAL)
    """What the places go round among."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """By KEY, SESSION and SIGNAL the most of an update that one of a kind may have; absent = all of it."""
    active_s: float = 600.0
    """Who sent a turn within this time of the newest is active."""
    held: Mapping[str, Sequence[object]] = field(default_factory=dict)
    """Who has the places that are taken already, by kind, one entry a turn."""

    def most(self, kind: str, num_active: int) -> int:
        """Places that one of a kind may have, of which `num_active` are there: who is alone may have all, and of n at
        least the n-th part is everybody's."""
        share = max(self.shares.get(kind, 1.0), 1.0 / max(num_active, 1))
        return max(1, int(share * self.size + 1e-9))


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A turn that may be claimed, or the turns of a group."""

    turn_ids: tuple[str, ...]
    used: int
    owners: Mapping[str, object]
    """By kind, KEY first: the scope, (scope, session), of a turn also the source of its most trusted signal."""


def select(
    connection: sqlite3.Connection,
    policy: str,
    claimable: str,
    values: Mapping[str, object],
    places: Places,
    limit: int,
) -> list[str]:
    """Ids of up to `limit` turns to claim.

    Args:
        claimable: the statement that lists what may be claimed, the best first.
        values: its parameters.
    """
    rows = connection.execute(
        f"""SELECT c.*, {_SOURCE} AS source FROM (
                SELECT *, row_number() OVER (PARTITION BY used, scope, session ORDER BY seq DESC) AS nth
                FROM ({claimable}) ORDER BY used, nth, seq DESC LIMIT {MAX_LOOKED}) c
            ORDER BY c.used, c.seq DESC""",  # noqa: S608
        dict(values),
    ).fetchall()
    if not rows:
        return []
    waiting = [
        Waiting(
            turn_ids=(row["id"],),
            used=row["used"],
            owners={KEY: row["scope"], SESSION: (row["scope"], row["session"]), SIGNAL: row["source"]},
        )
        for row in rows
    ]
    return choose(waiting, places, most_of(connection, policy, places), limit)


def most_of(connection: sqlite3.Connection, policy: str, places: Places) -> dict[str, int]:
    """By kind the places of an update that one owner may have, as many as are active now."""
    window = {"policy": policy, "active_s": places.active_s}
    active = connection.execute(_ACTIVE, window).fetchone()
    sources = connection.execute(_SOURCES, window).fetchone()[0]
    return {
        KEY: places.most(KEY, active["keys"]),
        SESSION: places.most(SESSION, active["sessions"]),
        SIGNAL: places.most(SIGNAL, sources),
    }


def choose(waiting: Iterable[Waiting], places: Places, most: Mapping[str, int], limit: int) -> list[str]:
    """The turns that get the next `limit` places. A group is not cut, and the first may exceed the limit on its own.

    Args:
        waiting: the best first.
        most: places of an update that one owner of a kind may have.
    """
    taken = {kind: Counter(places.held.get(kind, ())) for kind in (KEY, SESSION, SIGNAL)}
    # Turns with the same owners and uses are chosen in their order, so only the first of each is compared.
    queues: dict[tuple[object, ...], deque[tuple[int, Waiting]]] = {}
    for place, turn in enumerate(waiting):
        queues.setdefault((turn.used, *turn.owners.values()), deque()).append((place, turn))
    chosen: list[str] = []
    while len(chosen) < limit:
        heads = [
            (name, *queue[0])
            for name, queue in queues.items()
            if all(taken[kind][owner] < most[kind] for kind, owner in queue[0][1].owners.items())
        ]
        if not heads:
            break
        name, _, turn = min(heads, key=lambda head: (*_rank(head[2], taken, places.balance), head[1]))
        if chosen and len(chosen) + len(turn.turn_ids) > limit:
            break
        queues[name].popleft()
        if not queues[name]:
            del queues[name]
        chosen.extend(turn.turn_ids)
        for kind, owner in turn.owners.items():
            taken[kind][owner] += len(turn.turn_ids)
    return chosen


def _rank(turn: Waiting, taken: Mapping[str, Counter[object]], balance: Sequence[str]) -> tuple[int, ...]:
    own = (_places(turn, taken, kind) for kind in turn.owners if kind in balance)
    return turn.used, *own


def player_of(group: str) -> str:
    """Who plays a group: the part of its name that other groups have too."""
    return group.rpartition("~g")[0]


def _places(turn: Waiting, taken: Mapping[str, Counter[object]], kind: str) -> int:
    """Places that the turn's owner has. A turn without a signal comes behind those that have one."""
    owner = turn.owners[kind]
    return sum(taken[kind].values()) + 1 if owner is None else taken[kind][owner]
