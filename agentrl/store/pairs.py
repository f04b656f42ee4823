"""Which turns are answers to one prompt of which one was preferred, for recipes that compare answers.

A live stream says so by itself, in three ways, the most trusted first:

    corrected    a signal of the turn holds a `preferred` text, from feedback or because the user rewrote the answer:
                 the turn is rejected, the text preferred
    superseded   the user had it answered again (regenerated, edited): every such turn is rejected, the answer with
                 which the conversation went on is preferred, unless that was a failure as well
    outcome      two turns of one task key, one rewarded and one that failed

Answers are compared only where their prompts are the same, id by id, within one scope. The turns of a pair are claimed
together or not at all. A turn without a partner goes on waiting, until its age has it expire as others do.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace

from agentrl.store import claims, records
from agentrl.store.claims import Claimed
from agentrl.types import End, SignalSource

SUPERSEDED = (End.REGENERATED, End.EDITED)
"""Ends by which the user asked for another answer."""
ASKED_AGAIN = (*SUPERSEDED, End.RETRIED)
"""Ends behind which another answer stands. A retry is a client's own, and no judgement of the reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Turns to be claimed together, the preferred one last."""

    turn_ids: tuple[str, ...]
    preferred: str | None
    """None where a signal's text is preferred to all of them."""
    used: int
    seq: int
    """Of its newest turn."""

    @property
    def name(self) -> str:
        return self.turn_ids[-1]


def _names(ends: Sequence[End]) -> str:
    return ", ".join(f"'{end}'" for end in ends)


_TRUST = "CASE s.source WHEN 'user' THEN 0 WHEN 'environment' THEN 1 WHEN 'judge' THEN 2 ELSE 3 END"
_OWN = f"""(SELECT s.{{column}} FROM signals s WHERE s.turn = t.seq AND s.reward IS NOT NULL
    ORDER BY {_TRUST}, s.created_at DESC, s.id DESC LIMIT 1)"""  # noqa: S608
_TOLD = f"""WITH window (first) AS (SELECT min(seq) FROM turns WHERE policy = :policy AND received_at >= :oldest)
    SELECT n.turn FROM window, next_states n WHERE n.turn >= first AND n.ending IN ({_names(SUPERSEDED)})
    UNION SELECT a.seq FROM window, next_states n JOIN turns a ON a.request_id = n.answered_by
        WHERE n.turn >= first AND n.ending IN ({_names(ASKED_AGAIN)})
    UNION SELECT s.turn FROM window, signals s WHERE s.turn >= first AND (s.reward IS NOT NULL OR s.preferred <> '')
    UNION SELECT a.seq FROM turns a WHERE a.policy = :policy AND a.received_at >= :oldest
        AND EXISTS (SELECT 1 FROM signals e INDEXED BY episode_rewards WHERE e.scope = a.scope
            AND e.session = a.session AND e.source = 'environment' AND e.reward IS NOT NULL)"""  # noqa: S608
"""Turns of which something is known that makes pairs, or that stand in another's place. Most of a live stream are
neither, and what follows costs too much to ask of each."""
_CANDIDATES = f"""SELECT c.seq, c.id, c.scope, c.used, t.request_id, t.task_key, t.num_prompt, n.turn AS followed,
    n.ending, n.answered_by,
    EXISTS (SELECT 1 FROM signals s WHERE s.turn = t.seq AND s.preferred <> '') AS corrected,
    {_OWN.format(column="reward")} AS reward, {_OWN.format(column="source")} AS source,
    (SELECT e.reward FROM signals e INDEXED BY episode_rewards WHERE e.scope = t.scope AND e.session = t.session
        AND e.source = 'environment' AND e.reward IS NOT NULL
        AND EXISTS (SELECT 1 FROM turns q WHERE q.seq = e.turn AND q.purpose = 'train')
        ORDER BY e.id DESC LIMIT 1) AS episode_reward
    FROM ({claims.CLAIMABLE}) c JOIN turns t ON t.seq = c.seq LEFT JOIN next_states n ON n.turn = c.seq
    WHERE c.seq IN ({_TOLD}) ORDER BY c.seq"""  # noqa: S608


def select(connection: sqlite3.Connection, policy: str, oldest: float, uses: int, limit: int) -> list[Pair]:
    """Complete pairs of up to `limit` turns, those never used first, then the newest; the first may exceed the limit
    on its own. A turn is in one pair at most.

    Args:
        oldest: turns received before are left alone.
        uses: how often a turn may be in a step that counts.
    """
    rows = connection.execute(_CANDIDATES, {"policy": policy, "oldest": oldest, "uses": uses}).fetchall()
    finder = _Finder(connection, rows)
    pairs = finder.superseded() + finder.corrected() + finder.by_outcome()
    chosen: list[Pair] = []
    num_turns = 0
    for pair in sorted(pairs, key=lambda pair: (pair.used, -pair.seq)):
        if chosen and num_turns + len(pair.turn_ids) > limit:
            break
        chosen.append(pair)
        num_turns += len(pair.turn_ids)
    return chosen


def take(
    connection: sqlite3.Connection, policy: str, pairs: Sequence[Pair], uses: int, now: float
) -> list[tuple[Pair, dict[str, int]]]:
    """Claims the pairs of which every turn is still free, in an open write transaction, with the use of each turn."""
    taken = []
    for pair in pairs:
        mine = claims.take(connection, policy, pair.turn_ids, uses, now)
        if len(mine) == len(pair.turn_ids):
            taken.append((pair, mine))
        elif mine:
            claims.free(connection, list(mine))
    return taken


def load(connection: sqlite3.Connection, taken: Sequence[tuple[Pair, dict[str, int]]]) -> list[Claimed]:
    """The records behind claimed pairs, in the order given.

    Raises:
        StoreError: a turn cannot be read back.
    """
    return [
        replace(claim, pair=pair.name, preferred=claim.turn.id == pair.preferred)
        for pair, uses in taken
        for claim in claims.load(connection, uses)
    ]


class _Finder:
    """Pairs among turns that may be claimed; each finding takes its turns out of the others' sight."""

    def __init__(self, connection: sqlite3.Connection, rows: Sequence[sqlite3.Row]) -> None:
        self._connection = connection
        self._free = {row["id"]: row for row in rows}
        self._prompts: dict[int, bytes] = {}

    def superseded(self) -> list[Pair]:
        """Answers that were asked for again, with the one that was kept; with its correction, where it has one."""
        losers: dict[str, list[sqlite3.Row]] = {}
        for row in self._free.values():
            if row["ending"] in SUPERSEDED and not row["corrected"]:
                kept = self._kept(row)
                if kept is not None and self._same_prompt(row, kept):
                    losers.setdefault(kept["id"], []).append(row)
        return [
            self._pair([*rows, kept], preferred=None if kept["corrected"] else kept["id"])
            for kept, rows in [(self._free[name], rows) for name, rows in losers.items()]
        ]

    def corrected(self) -> list[Pair]:
        """Turns of which somebody wrote what they should have said."""
        return [self._pair([row], preferred=None) for row in list(self._free.values()) if row["corrected"]]

    def by_outcome(self) -> list[Pair]:
        """A turn that failed and one that was rewarded, oldest with oldest."""
        tasks: dict[tuple[str, str, int], list[sqlite3.Row]] = {}
        for row in self._free.values():
            tasks.setdefault((row["scope"], row["task_key"], row["num_prompt"]), []).append(row)
        pairs = []
        for rows in tasks.values():
            outcomes = [(row, _outcome(row)) for row in rows]
            failed = [row for row, good in outcomes if good is False]
            for winner in [row for row, good in outcomes if good]:
                loser = next((row for row in failed if self._same_prompt(row, winner)), None)
                if loser is not None:
                    failed.remove(loser)
                    pairs.append(self._pair([loser, winner], preferred=winner["id"]))
        return pairs

    def _pair(self, rows: Sequence[sqlite3.Row], *, preferred: str | None) -> Pair:
        for row in rows:
            del self._free[row["id"]]
        return Pair(
            turn_ids=tuple(row["id"] for row in rows),
            preferred=preferred,
            used=min(row["used"] for row in rows),
            seq=max(row["seq"] for row in rows),
        )

    def _kept(self, row: sqlite3.Row) -> sqlite3.Row | None:
        """The last of the answers that were asked for in the place of this one, once something followed it; None
        while that is open, where it may not be claimed, and where nothing says that it was any better."""
        request, seen = row["answered_by"], set()
        while request is not None and request not in seen:
            seen.add(request)
            turns = self._connection.execute(
                """SELECT t.id, n.turn AS followed, n.ending, n.answered_by FROM turns t
                   LEFT JOIN next_states n ON n.turn = t.seq WHERE t.request_id = ? AND t.scope = ? ORDER BY t.seq""",
                (request, row["scope"]),
            ).fetchall()
            again = [turn["answered_by"] for turn in turns if turn["ending"] in ASKED_AGAIN]
            found = [
                self._free[turn["id"]]
                for turn in turns
                if turn["id"] in self._free
                and turn["followed"] is not None
                # one that was rewritten lends its place to what was written
                and (turn["ending"] not in ASKED_AGAIN or _is_rewritten(self._free[turn["id"]]))
            ]
            better = [turn for turn in found if _may_be_preferred(turn)]
            if better:
                return better[0]
            request = again[0] if again else None
        return None

    def _same_prompt(self, first: sqlite3.Row, second: sqlite3.Row) -> bool:
        return first["num_prompt"] == second["num_prompt"] and self._prompt(first) == self._prompt(second)

    def _prompt(self, row: sqlite3.Row) -> bytes:
        if row["seq"] not in self._prompts:
            self._prompts[row["seq"]] = records.prompt_bytes(self._connection, row["seq"])
        return self._prompts[row["seq"]]


def _is_rewritten(row: sqlite3.Row) -> bool:
    """Whether the user went on from an answer that he had written anew."""
    return bool(row["ending"] == End.EDITED and row["corrected"])


def _may_be_preferred(row: sqlite3.Row) -> bool:
    """Whether an answer may stand for the better one: the user went on from it and nothing calls it a failure, or it
    was rewarded. One that was corrected lends only its place: its correction is preferred."""
    outcome = _outcome(row)
    return bool(row["corrected"]) or outcome is True or (outcome is None and row["ending"] is None)


def _outcome(row: sqlite3.Row) -> bool | None:
    """Whether a turn was rewarded (True) or failed; None where nobody knows. Its own reward counts before its
    episode's. 0 is a failure in an environment's mouth; from people and judges it is neutral."""
    reward, source = row["reward"], row["source"]
    if reward is None:
        reward, source = row["episode_reward"], SignalSource.ENVIRONMENT
    if reward is None:
        return None
    if reward > 0:
        return True
    return False if reward < 0 or source == SignalSource.ENVIRONMENT else None
