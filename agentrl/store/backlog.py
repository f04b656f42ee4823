"""What the pending turns wait for, one reason a turn: the account's kinds, and of those that wait for the learner why.

    next_state   nothing followed yet
    judge        the judge may still add to it
    approval     its hints wait for approval, or those of like turns do
    group        the recipe compares groups, and too few episodes of this one have ended with a reward
    partner      the recipe compares answers, and there is no other to the same prompt
    episode      the recipe weighs how an episode ends, and this one has not ended
    step         may be claimed as it is: the learner has not taken it yet
    hand         the learner has it, and its step is not made yet
    version      it is in a step whose version does not serve yet

Asked anew each time, and by the very queries that hand turns out.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from agentrl.store import claims, pairs
from agentrl.store.claims import Needs

REASONS = ("next_state", "judge", "approval", "group", "partner", "episode", "step", "hand", "version")
"""In the order that a turn goes through them."""
_OF_KIND = {"open": "next_state", "unjudged": "judge", "review": "approval", "claimed": "version"}
_ALL = 2**62
"""More turns than a log holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The turns that wait for one thing."""

    num_turns: int
    oldest_s: float
    """How long ago the oldest of them was received; of those in hand, taken."""


Backlog = dict[str, Waiting]
"""By reason, in the order of REASONS; those of no turn are absent. Adds up to the account's pending."""


def backlog(
    connection: sqlite3.Connection,
    policy: str,
    *,
    needs: Needs,
    group_size: int,
    oldest: float,
    uses: int,
    now: float,
    ended: bool = False,
) -> Backlog:
    """Why the pending turns of a line of versions are pending.

    Args:
        needs, group_size: of the recipe; see `LearningLog.configure`.
        oldest: turns received before cannot be claimed any more.
        uses: how often a turn may be in a step that counts.
        now: Unix seconds.
        ended: whether turns are claimed only of episodes that have ended.
    """
    ready: set[str] = set()
    lacking = "step"
    if needs == "pair":
        lacking = "partner"
        found = pairs.select(connection, policy, oldest, uses, _ALL)
        ready = {turn_id for pair in found for turn_id in pair.turn_ids}
    elif group_size > 1:
        lacking = "group"
        whole, _ = claims.select_groups(
            connection, policy, oldest, uses, _ALL, group_size, silent_since=0.0, hand_out=False
        )
        ready = set(whole)
    elif ended:
        lacking = "episode"
        ready = set(claims.select(connection, policy, oldest, uses, _ALL, ended=True))
    times: dict[str, list[float]] = {}
    for row in connection.execute(
        """SELECT f.id, f.fate, f.received_at, c.claimed_at FROM fates f LEFT JOIN claims c ON c.turn_id = f.id
           WHERE f.policy = ? AND f.fate LIKE 'pending:%'""",
        (policy,),
    ):
        kind = row["fate"].partition(":")[2]
        if kind == "claimed" and row["claimed_at"] is not None:
            times.setdefault("hand", []).append(row["claimed_at"])
            continue
        reason = _OF_KIND.get(kind, "step" if row["id"] in ready else lacking)
        times.setdefault(reason, []).append(row["received_at"])
    return {
        reason: Waiting(num_turns=len(times[reason]), oldest_s=round(max(now - min(times[reason]), 0.0), 1))
        for reason in REASONS
        if reason in times
    }
