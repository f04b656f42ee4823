"""Handing turns to the learner: which may go, in which order, each at most so many times, groups only whole.

Selecting reads both files and holds nothing; taking is one short write transaction in learning.db that asks again
for each turn, so two learners, or a learner and a rollback, cannot both have one.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, Literal

from agentrl.errors import StoreError
from agentrl.store import balance, records
from agentrl.store.account import RETURNING, REVIVED, REVOCABLE, Reason, fate_of
from agentrl.store.balance import KEY, SESSION, Places
from agentrl.store.database import scalar
from agentrl.store.lesson_rows import taught_signals
from agentrl.store.lines import unsettle
from agentrl.types import NextState, Signal, Turn

Needs = Literal["hint", "reward", "pair", "any"]
"""What a recipe needs of a turn. "pair": another answer to the same prompt that is better or worse
(`agentrl.store.pairs`). "any": whatever there is once the judge has finished, or a signal before anything followed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A turn in the learner's hands, with all that is known of what it led to."""

    turn: Turn
    next_state: NextState | None
    """None where a signal came before any next state did (feedback on the newest turn)."""
    signals: tuple[Signal, ...]
    use: int
    """1 the first time that the turn is handed out."""
    group: str | None = None
    """Group of the turn's session; turns of one group answer the same task."""
    episode_reward: float | None = None
    """The environment's newest reward anywhere in the turn's session; None without one."""
    pair: str | None = None
    """Of recipes that compare answers: turns of one name were claimed together."""
    preferred: bool = False
    """Of a pair, the better answer. Where no turn is, a signal's `preferred` text is."""


_USED = """(SELECT count(*) FROM step_turns u JOIN steps p ON p.id = u.step
    WHERE u.turn_id = {id} AND u.use > 0 AND p.voided_at IS NULL)"""
CLAIMABLE = f"""SELECT seq, id, scope, session, group_key, used FROM (
        SELECT f.*, {_USED.format(id="f.id")} AS used FROM fates f
        WHERE f.policy = :policy AND f.received_at >= :oldest)
    WHERE fate = 'pending:waiting'
       OR (used BETWEEN 1 AND :uses - 1 AND fate IN ('trained:', 'pending:claimed')
           AND id NOT IN (SELECT turn_id FROM claims) AND id NOT IN (SELECT turn_id FROM rejections))
    ORDER BY used, seq DESC"""  # noqa: S608
"""Turns never used come first, then those used least; within that the newest: where turns come faster than they can be
trained, what the policy does now teaches more than what it did long ago, and the rest ages until it expires."""
_ENDED = """EXISTS (SELECT 1 FROM signals e INDEXED BY episode_rewards WHERE e.scope = {t}.scope
        AND e.session = {t}.session AND e.source = 'environment' AND e.reward IS NOT NULL
        AND EXISTS (SELECT 1 FROM turns q WHERE q.seq = e.turn AND q.purpose = 'train'))
    AND NOT EXISTS (SELECT 1 FROM open_turns o WHERE o.scope = {t}.scope AND o.session = {t}.session)"""
"""Whether a turn's session has ended with a reward from the environment."""
_OVER = """EXISTS (SELECT 1 FROM next_states n WHERE n.ending IS NOT NULL AND n.turn = (SELECT q.seq FROM turns q
        WHERE q.scope = {t}.scope AND q.session = {t}.session ORDER BY q.received_at DESC, q.seq DESC LIMIT 1))
    AND NOT EXISTS (SELECT 1 FROM open_turns o WHERE o.scope = {t}.scope AND o.session = {t}.session)"""
"""Whether it has ended at all: its newest turn has a typed end, and none is open."""
IN_ENDED = f"""SELECT * FROM ({CLAIMABLE}) t
    WHERE ({_ENDED.format(t="t")}) OR ({_OVER.format(t="t")}) ORDER BY used, seq DESC"""  # noqa: S608
"""Those whose episodes have ended."""


def select(
    connection: sqlite3.Connection,
    policy: str,
    oldest: float,
    uses: int,
    limit: int,
    places: Places | None = None,
    *,
    ended: bool = False,
) -> list[str]:
    """Ids of up to `limit` turns to claim, for recipes that take turns one by one; the first ones, or by `places`.

    Args:
        ended: only of episodes that have ended.
    """
    values = {"policy": policy, "oldest": oldest, "uses": uses}
    claimable = IN_ENDED if ended else CLAIMABLE
    if places is not None:
        return balance.select(connection, policy, claimable, values, places, limit)
    rows = connection.execute(claimable + " LIMIT :limit", values | {"limit": limit})
    return [row["id"] for row in rows]


def select_groups(
    connection: sqlite3.Connection,
    policy: str,
    oldest: float,
    uses: int,
    limit: int,
    size: int,
    *,
    silent_since: float,
    hand_out: bool,
    places: Places | None = None,
) -> tuple[list[str], list[str]]:
    """Which turns to claim and which to give up, for recipes that compare the turns of a group.

    A group is complete when `size` of its sessions have ended (no open turn, an environment's reward) with a turn
    that may be claimed. A group whose newest request came before `silent_since` is late: incomplete ones are handed
    out as they are or given up, and so are sessions of any late group that never ended.

    Returns:
        (ids to claim, ids to give up). Groups are claimed whole, the oldest first or by `places`, up to `limit` turns;
        the first may exceed it on its own.
    """
    rows = connection.execute(
        f"SELECT * FROM ({CLAIMABLE}) t WHERE group_key IS NOT NULL AND {_ENDED.format(t='t')}",  # noqa: S608
        {"policy": policy, "oldest": oldest, "uses": uses},
    ).fetchall()
    silent = {
        (row["scope"], row["group_key"])
        for row in connection.execute(
            """SELECT scope, group_key FROM turns WHERE policy = ? AND group_key IS NOT NULL
               GROUP BY scope, group_key HAVING max(received_at) < ?""",
            (policy, silent_since),
        )
    }
    unended = connection.execute(
        f"""SELECT f.id, f.scope, f.group_key FROM fates f WHERE f.policy = :policy AND f.group_key IS NOT NULL
            AND f.seq > coalesce((SELECT settled FROM settings WHERE policy = :policy), 0)
            AND f.fate IN ('pending:waiting', 'pending:open', 'pending:unjudged')
            AND NOT ({_ENDED.format(t="f")}) ORDER BY f.seq""",  # noqa: S608
        {"policy": policy},
    ).fetchall()
    late = [row["id"] for row in unended if (row["scope"], row["group_key"]) in silent]
    whole: list[balance.Waiting] = []
    for group in _oldest_first(rows):
        is_late = (group[0]["scope"], group[0]["group_key"]) in silent
        if len({row["session"] for row in group}) >= size or (is_late and hand_out):
            whole.append(_as_one(group))
        elif is_late:
            late += [row["id"] for row in group if row["used"] == 0]
    if places is None:
        places, most = Places(size=limit, balance=()), dict.fromkeys((KEY, SESSION), limit)
    else:
        most = balance.most_of(connection, policy, places)
    return balance.choose(whole, places, most, limit), late


def _as_one(group: Sequence[sqlite3.Row]) -> balance.Waiting:
    scope, player = group[0]["scope"], balance.player_of(group[0]["group_key"])
    return balance.Waiting(
        turn_ids=tuple(row["id"] for row in group),
        used=group[0]["used"],
        owners={KEY: scope, SESSION: (scope, player)},
    )


def _oldest_first(rows: Sequence[sqlite3.Row]) -> list[list[sqlite3.Row]]:
    """Rows by group; groups with unused turns first, then by age, and so within a group."""

    def key(row: sqlite3.Row) -> tuple[str, str]:
        return row["scope"], row["group_key"]

    def age(row: sqlite3.Row) -> tuple[int, int]:
        return row["used"], row["seq"]

    groups = [sorted(members, key=age) for _, members in groupby(sorted(rows, key=key), key=key)]
    return sorted(groups, key=lambda group: age(group[0]))


_SUCCESSES = """SELECT t.id FROM turns t LEFT JOIN rejections r ON r.turn_id = t.id
    WHERE t.policy = :policy AND t.version BETWEEN :oldest AND :newest AND t.version_spans IS NULL
    AND t.purpose = 'train' AND t.arm = 'learning' AND t.kind = 'main' AND t.error IS NULL AND t.num_sampled > 0
    AND t.block_spans IS NULL AND t.redacted_spans IS NULL
    AND (r.reason = :expired OR (r.turn_id IS NULL AND EXISTS (
        SELECT 1 FROM step_turns u JOIN steps p ON p.id = u.step
        JOIN versions v ON v.policy = p.policy AND v.number = p.version
        WHERE u.turn_id = t.id AND u.use > 0 AND p.voided_at IS NULL AND v.state IN ('serving', 'retired'))))
    AND NOT EXISTS (SELECT 1 FROM claims c WHERE c.turn_id = t.id)
    AND coalesce((SELECT s.reward FROM signals s WHERE s.turn = t.seq AND s.reward IS NOT NULL
            ORDER BY s.created_at DESC, s.id DESC LIMIT 1),
        (SELECT e.reward FROM signals e INDEXED BY episode_rewards WHERE e.scope = t.scope
            AND e.session = t.session AND e.source = 'environment' AND e.reward IS NOT NULL
            ORDER BY e.id DESC LIMIT 1)) > 0
    ORDER BY t.seq DESC LIMIT :limit"""


def successes(connection: sqlite3.Connection, policy: str, oldest: int, newest: int, limit: int) -> list[str]:
    """See `LearningLog.successes`."""
    values = {"policy": policy, "oldest": oldest, "newest": newest, "limit": limit}
    rows = connection.execute(_SUCCESSES, values | {"expired": Reason.EXPIRED})
    return [row["id"] for row in rows]


_NOT_FOLLOWED = (
    # not to be believed
    Reason.CONTRADICTED, Reason.GATE, Reason.ROLLED_BACK, Reason.AMBIGUOUS, Reason.NOT_CHOSEN, Reason.CLIENT_GONE,
    "untrusted",
    # judged, and not praised
    Reason.NO_PRAISE,
    # a hint of its own that is not to be taught: it was corrected
    Reason.LESSON_REJECTED, Reason.LESSON_RETIRED, "hint holds the answer",
    # its ids cannot be used, or are kept for a measurement
    Reason.ERROR, Reason.EMPTY, Reason.SIDE, Reason.LESSON_SHOWN, Reason.OPERATOR_BLOCK,
    "redacted sample", "teacher's ids differ", "gradient not finite", Reason.HELD_OUT,
)  # fmt: skip
"""Reasons of answers that are not learned for the turn before them either. With any other, `no context` above all, an
answer taught nothing by itself and is none the worse for it."""
_FOLLOWED = f"""NOT EXISTS (SELECT 1 FROM rejections r WHERE r.turn_id = t.id
        AND r.reason IN ({", ".join("?" * len(_NOT_FOLLOWED))}))"""  # noqa: S608
"""Of a turn t; its parameters are `_NOT_FOLLOWED`."""

_GOES_ON = "t.scope = p.scope AND t.session = p.session AND t.parent = p.id"
_USABLE = f"""t.received_at >= p.received_at AND t.purpose = 'train' AND t.arm = 'learning' AND t.kind = 'main'
    AND t.policy = p.policy AND t.error IS NULL AND t.num_sampled > 0 AND t.finish_reason IN ('stop', 'tool_calls')
    AND t.block_spans IS NULL AND t.redacted_spans IS NULL
    -- what goes on from somebody else's words answers those
    AND NOT EXISTS (SELECT 1 FROM next_states n WHERE n.turn = p.seq AND n.ending = 'edited')
    AND NOT EXISTS (SELECT 1 FROM signals s WHERE s.turn = t.seq
        AND (s.reward < 0 OR s.hint <> '' OR s.preferred <> ''))
    AND {_FOLLOWED}"""  # noqa: S608
"""Of a turn t behind a turn p; its parameters are `_NOT_FOLLOWED`."""
_NEXT = f"""SELECT t.id FROM turns p JOIN turns t ON {_GOES_ON} WHERE p.id = ? AND {_USABLE}
    ORDER BY t.received_at DESC, t.seq DESC LIMIT 1"""  # noqa: S608
MAX_LATER: Final = 8
"""Steps behind a turn's next answer at which further ones are looked for, and how many."""
_LATER = f"""WITH RECURSIVE behind (id, depth) AS (
        SELECT ?, 0
        UNION ALL SELECT t.id, b.depth + 1 FROM behind b JOIN turns p ON p.id = b.id JOIN turns t ON {_GOES_ON}
            WHERE b.depth <= {MAX_LATER} LIMIT 64)
    SELECT t.id FROM behind b JOIN turns t ON t.id = b.id JOIN turns p ON p.id = t.parent
    WHERE b.depth > 1 AND {_USABLE}
    ORDER BY b.depth, t.received_at DESC, t.seq DESC LIMIT {MAX_LATER}"""  # noqa: S608


def answered_next(connection: sqlite3.Connection, turn_id: str) -> Turn | None:
    """See `LearningLog.next_turns`."""
    row = connection.execute(_NEXT, (turn_id, *_NOT_FOLLOWED)).fetchone()
    return None if row is None else records.read_turn(connection, row["id"])


def answered_later(connection: sqlite3.Connection, turn_id: str) -> list[Turn]:
    """See `LearningLog.later_turns`."""
    rows = connection.execute(_LATER, (turn_id, *_NOT_FOLLOWED)).fetchall()
    return [turn for row in rows if (turn := records.read_turn(connection, row["id"])) is not None]


_BEGAN = f"""WITH RECURSIVE before (id, parent) AS (
        SELECT id, parent FROM turns WHERE id = ?
        UNION SELECT t.id, t.parent FROM before b JOIN turns t ON t.id = b.parent)
    SELECT t.id FROM before b JOIN turns t ON t.id = b.id WHERE b.parent IS NULL AND t.redacted_spans IS NULL
    AND EXISTS (SELECT 1 FROM signals s WHERE s.turn = t.seq AND s.hint <> '')
    -- such a turn is never held out any more (`hold_out`)
    AND (t.id IN (SELECT value FROM json_each(?))
        OR EXISTS (SELECT 1 FROM step_turns u JOIN steps p ON p.id = u.step
            WHERE u.turn_id = t.id AND p.voided_at IS NULL))
    AND {_FOLLOWED}"""  # noqa: S608


def began_with(connection: sqlite3.Connection, turn_ids: Sequence[str]) -> dict[str, Turn]:
    """See `LearningLog.corrected_beginnings`."""
    found: dict[str, str] = {}
    together = json.dumps(list(turn_ids))
    for turn_id in turn_ids:
        row = connection.execute(_BEGAN, (turn_id, together, *_NOT_FOLLOWED)).fetchone()
        if row is not None:
            found[turn_id] = row["id"]
    read = {begun: records.read_turn(connection, begun) for begun in set(found.values())}
    return {turn_id: turn for turn_id, begun in found.items() if (turn := read[begun]) is not None}


def take(
    connection: sqlite3.Connection, policy: str, turn_ids: Sequence[str], uses: int, now: float
) -> dict[str, int]:
    """Claims the turns that are still free, in an open write transaction. turn id -> which use this is."""
    taken: dict[str, int] = {}
    for turn_id in turn_ids:
        row = connection.execute(
            f"""INSERT INTO claims SELECT :id, :policy, {_USED.format(id=":id")} + 1, :now
                WHERE {_USED.format(id=":id")} < :uses
                AND NOT EXISTS (SELECT 1 FROM claims WHERE turn_id = :id)
                AND NOT EXISTS (SELECT 1 FROM rejections WHERE turn_id = :id AND reason NOT IN {REVOCABLE})
                RETURNING use""",  # noqa: S608
            {"id": turn_id, "policy": policy, "now": now, "uses": uses},
        ).fetchone()
        if row is not None:
            taken[turn_id] = row["use"]
    return taken


def load(connection: sqlite3.Connection, taken: dict[str, int]) -> list[Claimed]:
    """The records behind claims, in the order given.

    Raises:
        StoreError: a turn cannot be read back.
    """
    return [_load(connection, turn_id, use) for turn_id, use in taken.items()]


def _load(connection: sqlite3.Connection, turn_id: str, use: int) -> Claimed:
    turn = records.read_turn(connection, turn_id)
    if turn is None:
        raise StoreError(f"turn {turn_id} is claimed, but the log does not hold it")
    return Claimed(
        turn=turn,
        next_state=records.read_next_state(connection, turn_id),
        signals=taught_signals(connection, turn),
        use=use,
        group=records.group_key(turn.session),
        episode_reward=scalar(
            connection,
            """SELECT reward FROM signals e INDEXED BY episode_rewards WHERE scope = ? AND session = ?
               AND source = 'environment' AND reward IS NOT NULL
               AND EXISTS (SELECT 1 FROM turns q WHERE q.seq = e.turn AND q.purpose = 'train')
               ORDER BY id DESC LIMIT 1""",
            (turn.scope, turn.session),
        ),
    )


def free(connection: sqlite3.Connection, turn_ids: Sequence[str]) -> int:
    """Gives claims back, in an open write transaction; how many there were."""
    wanted = json.dumps(list(turn_ids))
    policies = connection.execute(
        "SELECT DISTINCT policy FROM claims WHERE turn_id IN (SELECT value FROM json_each(?))", (wanted,)
    ).fetchall()
    for row in policies:
        unsettle(connection, row["policy"], turn_ids)
    return connection.execute(
        "DELETE FROM claims WHERE turn_id IN (SELECT value FROM json_each(?))", (wanted,)
    ).rowcount


def reject(connection: sqlite3.Connection, turn_ids: Sequence[str], reason: str, now: float) -> None:
    """Sets turns aside for good, in an open write transaction. The first reason stays.

    Of a claimed turn it dates from the claim: what was said since was not heard yet. Where the clock was set back it
    dates from the newest word, or the turn would come back until that time.

    Raises:
        StoreError: the log has no such turn.
    """
    for row in connection.execute("SELECT policy FROM settings").fetchall():
        unsettle(connection, row["policy"], turn_ids)
    decided = scalar(connection, "SELECT max(changed_at) FROM lessons") or 0.0
    for turn_id in turn_ids:
        seq = records.seq_of(connection, turn_id)
        claimed = scalar(connection, "DELETE FROM claims WHERE turn_id = ? RETURNING claimed_at", (turn_id,))
        said = scalar(connection, "SELECT max(created_at) FROM signals WHERE turn = ?", (seq,)) or 0.0
        newest = max(said, decided)
        heard = newest if newest > now else claimed or now
        connection.execute(
            f"""INSERT INTO rejections VALUES (:id, :reason, NULL, :heard) ON CONFLICT (turn_id) DO UPDATE
               SET reason = :reason, created_at = :heard WHERE reason IN {REVOCABLE}""",  # noqa: S608
            {"id": turn_id, "reason": str(reason), "heard": heard},
        )


def hold_out(connection: sqlite3.Connection, policy: str, turn_id: str, now: float) -> bool:
    """Keeps a turn from ever being trained, in an open write transaction; False where it was trained, is in hand, or
    waits for somebody's word. Who is set aside for good keeps his reason."""
    kind, _, why = (fate_of(connection, turn_id) or "").partition(":")
    is_aside = kind == "apart" or (kind == "rejected" and why not in (*REVIVED, *RETURNING))
    is_free = why in RETURNING or (kind, why) == ("pending", "waiting")
    if not is_aside and not is_free:
        return False
    if scalar(connection, "SELECT 1 FROM step_turns WHERE turn_id = ?", (turn_id,)):
        return False
    if is_free:
        unsettle(connection, policy, [turn_id])
        connection.execute(
            """INSERT INTO rejections VALUES (:id, :reason, NULL, :now)
               ON CONFLICT (turn_id) DO UPDATE SET reason = :reason, created_at = :now""",
            {"id": turn_id, "reason": Reason.HELD_OUT, "now": now},
        )
    return True


def reconsider(connection: sqlite3.Connection, policy: str) -> None:
    """Sets the turns free that wait for the approval of another turn's hint, in an open write transaction."""
    freed = connection.execute(
        """DELETE FROM rejections WHERE reason = ? AND EXISTS
           (SELECT 1 FROM turns t WHERE t.id = turn_id AND t.policy = ?) RETURNING turn_id""",
        (Reason.REVIEW, policy),
    ).fetchall()
    if freed:
        unsettle(connection, policy, [row["turn_id"] for row in freed])


def readmit(connection: sqlite3.Connection, turn_ids: Sequence[str], reason: Reason) -> int:
    """Sets turns free that were set aside for a reason, in an open write transaction; how many were."""
    wanted = json.dumps(list(turn_ids))
    freed = connection.execute(
        """DELETE FROM rejections WHERE reason = ? AND turn_id IN (SELECT value FROM json_each(?))
           RETURNING turn_id""",
        (reason, wanted),
    ).fetchall()
    for row in connection.execute("SELECT policy FROM settings").fetchall():
        unsettle(connection, row["policy"], [item["turn_id"] for item in freed])
    return len(freed)


def quarantined(connection: sqlite3.Connection, policy: str, limit: int) -> dict[str, tuple[str, str | None]]:
    """The newest turns in quarantine by id, each with its scope and group."""
    rows = connection.execute(
        """SELECT r.turn_id, t.scope, t.group_key FROM rejections r JOIN turns t ON t.id = r.turn_id
           WHERE r.reason = ? AND t.policy = ? ORDER BY t.seq DESC LIMIT ?""",
        (Reason.CONTRADICTED, policy, limit),
    )
    return {row["turn_id"]: (row["scope"], row["group_key"]) for row in rows}


def settle(connection: sqlite3.Connection, policy: str, oldest: float) -> tuple[dict[str, str], int]:
    """What age decides: turns received before `oldest` and their reasons, and the seq up to which all is decided.

    A pending turn that nobody holds has expired; a rejection that was only derived is now recorded, so that a signal
    which comes later cannot bring the turn back. So is that of a turn whose answer was lent: it is trained all the
    same.
    """
    settled = int(scalar(connection, "SELECT settled FROM settings WHERE policy = ?", (policy,)) or 0)
    rows = connection.execute(
        "SELECT id, fate FROM own_fates f WHERE seq > ? AND policy = ? AND received_at < ? "
        "AND fate NOT IN ('trained:', 'pending:claimed') AND fate NOT LIKE 'apart:%' "
        "AND (fate LIKE 'pending:%' OR NOT EXISTS "
        "(SELECT 1 FROM rejections r WHERE r.turn_id = f.id AND r.reason <> ?))",
        (settled, policy, oldest, Reason.REVIEW),
    ).fetchall()
    reasons = {}
    for row in rows:
        kind, _, detail = row["fate"].partition(":")
        reasons[row["id"]] = detail if kind == "rejected" else Reason.EXPIRED.value
    first_young = scalar(
        connection,
        "SELECT min(seq) FROM turns WHERE seq > ? AND policy = ? AND received_at >= ?",
        (settled, policy, oldest),
    )
    newest = int(scalar(connection, "SELECT max(seq) FROM turns") or 0)
    return reasons, newest if first_young is None else first_young - 1
