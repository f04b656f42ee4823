"""The learning log: claims, steps, versions, and the account of every turn.

Written by the learner and the CLI, read by the server. log.db is attached read-only: SQLite refuses a write to it
through this class, and a reader in WAL mode holds no lock that the server's commits wait for. Everything is read and
computed first, then written in one short BEGIN IMMEDIATE; no snapshot is held between calls. synchronous=FULL: what a
call acknowledged survives a power cut, so a version that serves stays known.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from agentrl.errors import StoreError
from agentrl.store import claims, lines, pairs
from agentrl.store.account import REVOCABLE, Account, Counted, Reason, account, fate_of
from agentrl.store.backlog import Backlog, backlog
from agentrl.store.balance import Places
from agentrl.store.claims import Claimed, Needs
from agentrl.store.codec import to_json
from agentrl.store.database import scalar
from agentrl.store.lesson_log import Approve, LessonLog
from agentrl.store.taught import Taught
from agentrl.store.taught import write as write_taught
from agentrl.types import JSON, Turn

__all__ = ["Account", "Claimed", "LearningLog", "Needs", "Reason", "Step"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One optimiser step as recorded."""

    id: int
    policy: str
    recipe: str
    seed: int
    metrics: JSON
    parent: int
    """Version whose weights it changed."""
    version: int | None
    """Version that holds it; None while unpublished."""
    turn_ids: tuple[str, ...]
    created_at: float
    voided: str | None
    """Why its weights were given up; None for a step that counts."""


class LearningLog(LessonLog):
    """learning.db beside log.db: turns, steps and, by inheritance, lessons and versions. See `LearningFile` for
    opening.

    with LearningLog(run_dir) as log:
        batch = log.claim(limit=16, needs="hint", max_age_s=3600.0)
    """

    # turns

    def configure(
        self,
        policy: str = "default",
        *,
        needs: Needs,
        group_size: int = 1,
        approve: Approve | None = None,
    ) -> None:
        """Tells the account what the recipe needs; the learner calls it when it starts.

        Args:
            needs: what a turn must have to be of use.
            group_size: turns are compared within groups of this many sessions; 1 = one by one.
            approve: whether hints are taught as they come or wait for approval; None = no teacher is shown hints.
        """
        with self._writing() as connection:
            connection.execute(
                # allow_blocks: a column that nobody reads and that takes no NULL
                """INSERT INTO settings (policy, needs, group_size, allow_blocks, settled, approve)
                   VALUES (:policy, :needs, :size, 0, 0, :approve) ON CONFLICT (policy) DO UPDATE
                   SET needs = :needs, group_size = :size, approve = :approve""",
                {"policy": policy, "needs": needs, "size": group_size, "approve": approve},
            )

    def claim(
        self,
        *,
        limit: int,
        needs: Needs,
        max_age_s: float,
        uses: int = 1,
        policy: str = "default",
        group_size: int = 1,
        group_timeout_s: float = 600.0,
        on_group_timeout: Literal["reject", "hand_out"] = "reject",
        ended: bool = False,
        places: Places | None = None,
    ) -> list[Claimed]:
        """Hands out turns, those never used first, then the newest. They stay claimed until a step, a rejection,
        a release or `recover` has them.

        Never handed out: turns of the control arm, of purpose eval or off, and those that were set aside.

        Args:
            limit: most turns; a complete group or pair is not cut and may exceed it on its own.
            needs: see `configure`; where it differs from what is recorded there, the record follows.
            max_age_s: turns received longer ago stay where they are, for `expire`.
            uses: how often a turn may be in a step that counts.
            group_size: above 1, only whole groups: sessions `<anything>~g<group>~<k>`, of which this many have
                ended (no open turn) with a reward from the environment.
            group_timeout_s: a group without a request for this long is decided as it is:
            on_group_timeout: "reject" sets its turns aside as group_incomplete; "hand_out" claims those of its
                ended sessions and sets the others aside.
            ended: only turns of episodes that have ended, with a reward from the environment or with a typed end,
                where turns are handed out one by one; the others wait.
            places: how they are shared out among users, where no pairs are handed out; None = in order.
        """
        self._follow(policy, needs, group_size)
        now = self._clock()
        if needs == "pair":
            return self._claim_pairs(limit, now, now - max_age_s, uses, policy)
        late: list[str] = []
        with self._reading() as connection:
            if group_size == 1:
                chosen = claims.select(connection, policy, now - max_age_s, uses, limit, places, ended=ended)
            else:
                chosen, late = claims.select_groups(
                    connection,
                    policy,
                    now - max_age_s,
                    uses,
                    limit,
                    group_size,
                    silent_since=now - group_timeout_s,
                    hand_out=on_group_timeout == "hand_out",
                    places=places,
                )
        if not chosen and not late:
            return []
        with self._writing() as connection:
            taken = claims.take(connection, policy, chosen, uses, now)
            claims.reject(connection, late, Reason.GROUP_INCOMPLETE, now)
        with self._reading() as connection:
            return claims.load(connection, taken)

    def _claim_pairs(self, limit: int, now: float, oldest: float, uses: int, policy: str) -> list[Claimed]:
        """Hands out the turns of whole pairs, or none of a pair."""
        with self._reading() as connection:
            found = pairs.select(connection, policy, oldest, uses, limit)
        if not found:
            return []
        with self._writing() as connection:
            taken = pairs.take(connection, policy, found, uses, now)
        with self._reading() as connection:
            return pairs.load(connection, taken)

    def successes(
        self, policy: str = "default", *, oldest_version: int, newest_version: int, limit: int = 1024
    ) -> list[str]:
        """Ids of rewarded turns that may be looked at once more, the newest first: trained in a version that counts,
        or expired; not in anybody's hands.

        Args:
            oldest_version, newest_version: bounds, both included, of the version that sampled the whole turn.
            limit: most turns.
        """
        with self._reading() as connection:
            return claims.successes(connection, policy, oldest_version, newest_version, limit)

    def records(self, turn_ids: Sequence[str]) -> list[Claimed]:
        """What is known of turns, without claiming them.

        Raises:
            StoreError: the log has no such turn.
        """
        with self._reading() as connection:
            return claims.load(connection, dict.fromkeys(turn_ids, 0))

    def next_turns(self, turn_ids: Sequence[str]) -> dict[str, Turn]:
        """By turn id the whole answer that its conversation got next, nobody's lesson in view; of several the newest.
        Nothing where that was set aside or has secrets."""
        with self._reading() as connection:
            found = {turn_id: claims.answered_next(connection, turn_id) for turn_id in turn_ids}
        return {turn_id: turn for turn_id, turn in found.items() if turn is not None}

    def later_turns(self, turn_id: str) -> list[Turn]:
        """Such answers that its conversation got behind the next one, the nearest first; at most `claims.MAX_LATER`.
        None of a turn behind which more than 64 turns branch off before them."""
        with self._reading() as connection:
            return claims.answered_later(connection, turn_id)

    def corrected_beginnings(self, turn_ids: Sequence[str]) -> dict[str, Turn]:
        """By turn id the turn that its conversation began with, where that one brought a hint, is among these turns or
        in a step that counts, and was not set aside or redacted."""
        with self._reading() as connection:
            return claims.began_with(connection, turn_ids)

    def release(self, turn_ids: Sequence[str]) -> int:
        """Gives claimed turns back unused; returns how many were claimed."""
        with self._writing() as connection:
            return claims.free(connection, turn_ids)

    def reject(self, turn_ids: Sequence[str], reason: str) -> None:
        """Sets turns aside for good; `reason` is a `Reason` or a short word of the caller's own.

        A turn that is trained already stays trained and is not claimed again.

        Raises:
            StoreError: the log has no such turn.
        """
        with self._writing() as connection:
            claims.reject(connection, turn_ids, reason, self._clock())

    def held(self, policy: str = "default") -> set[str]:
        """Ids of the turns in a learner's hands; a decision on a lesson or a rollback may have taken some back."""
        with self._open() as connection:
            rows = connection.execute("SELECT turn_id FROM claims WHERE policy = ?", (policy,)).fetchall()
        return {row["turn_id"] for row in rows}

    def readmit(self, turn_ids: Sequence[str], reason: Reason) -> int:
        """Lets turns that were set aside for a reason be claimed again; returns how many were."""
        with self._writing() as connection:
            return claims.readmit(connection, turn_ids, reason)

    def quarantined(self, policy: str = "default", *, limit: int) -> dict[str, tuple[str, str | None]]:
        """The newest turns in quarantine by id, the newest first, each with its scope and group."""
        with self._reading() as connection:
            return claims.quarantined(connection, policy, limit)

    def expire(self, max_age_s: float, policy: str = "default") -> int:
        """Rejects what has been pending for longer than `max_age_s`; returns how many turns were.

        Claimed turns are left to the learner. Turns of that age whose rejection was only derived so far (no_hint, say)
        keep that reason for good.
        """
        now = self._clock()
        self._follow(policy)
        with self._lock:
            with self._reading() as connection:
                reasons, settled = claims.settle(connection, policy, now - max_age_s)
                seen = scalar(connection, "PRAGMA main.data_version")
            with self._writing() as connection:
                # A turn may have been claimed since it was read; then it is the learner's.
                connection.executemany(
                    f"""INSERT INTO rejections SELECT ?1, ?2, NULL, ?3
                        WHERE NOT EXISTS (SELECT 1 FROM claims WHERE turn_id = ?1) ON CONFLICT (turn_id) DO UPDATE
                        SET reason = ?2, created_at = ?3 WHERE reason IN {REVOCABLE}""",  # noqa: S608
                    [(turn_id, reason, now) for turn_id, reason in reasons.items()],
                )
                # Where another process wrote meanwhile, it may have given turns back: they are looked at the next time.
                if scalar(connection, "PRAGMA main.data_version") == seen:
                    connection.execute("UPDATE settings SET settled = ? WHERE policy = ?", (settled, policy))
        return sum(reason == Reason.EXPIRED for reason in reasons.values())

    def account(self, policy: str | None = None) -> Account:
        """Counted from the raw tables of both files, in one snapshot; of all lines or of one.

        Of one line what this object has counted once it does not count again, as long as it stands.
        """
        with self._open() as connection:
            counted = None if policy is None else self._counted.setdefault(policy, Counted())
            return account(connection, policy, counted)

    def backlog(
        self,
        policy: str = "default",
        *,
        needs: Needs,
        group_size: int,
        max_age_s: float,
        uses: int = 1,
        ended: bool = False,
    ) -> Backlog:
        """What the pending turns wait for; the arguments are those of `claim`."""
        now = self._clock()
        with self._reading() as connection:
            return backlog(
                connection,
                policy,
                needs=needs,
                group_size=group_size,
                oldest=now - max_age_s,
                uses=uses,
                ended=ended,
                now=now,
            )

    def fate(self, turn_id: str) -> str | None:
        """Where a turn stands: 'trained', 'rejected:REASON', 'pending:KIND', 'apart:WHY'; None when unknown."""
        with self._open() as connection:
            return fate_of(connection, turn_id)

    # steps

    def record_step(
        self,
        turn_ids: Sequence[str],
        *,
        recipe: str,
        seed: int,
        metrics: JSON,
        version_parent: int,
        policy: str = "default",
        lent: Sequence[str] = (),
        taught: Sequence[Taught] = (),
        keep_taught: int = 0,
    ) -> int:
        """Records an optimiser step over claimed turns and returns its id; their claims pass to the step.

        Args:
            lent: turns whose answers were learned on the prompt of one of these. Their use is 0: whatever else comes of
                them, they may still be claimed for themselves.
            taught: what it taught of them, for people.
            keep_taught: the newest records of that, of any step, which stay; older ones are deleted.

        Raises:
            StoreError: a turn is not claimed any more, or `version_parent` was rejected or rolled back meanwhile;
                nothing is recorded, and the learner goes back to the serving version.
            ValueError: a turn stands twice.
        """
        if len(set(turn_ids)) != len(turn_ids):
            raise ValueError("a step names a turn twice; a turn is in a step at most once")
        with self._writing() as connection:
            lines.require_sound(connection, policy, version_parent)
            cursor = connection.execute(
                "INSERT INTO steps (policy, recipe, seed, metrics, parent, created_at) VALUES (?, ?, ?, ?, ?, ?)",
                (policy, recipe, seed, to_json(metrics), version_parent, self._clock()),
            )
            step = cursor.lastrowid
            assert step is not None
            for turn_id in turn_ids:
                use = scalar(
                    connection,
                    "DELETE FROM claims WHERE turn_id = ? AND policy = ? RETURNING use",
                    (turn_id, policy),
                )
                if use is None:
                    raise StoreError(f"turn {turn_id} is not claimed any more, so no step may use it")
                connection.execute("INSERT INTO step_turns VALUES (?, ?, ?)", (step, turn_id, use))
            lines.unsettle(connection, policy, lent)
            connection.executemany(
                "INSERT INTO step_turns VALUES (?, ?, 0) ON CONFLICT (step, turn_id) DO NOTHING",
                [(step, turn_id) for turn_id in lent],
            )
            write_taught(connection, step, taught, keep_taught)
        return step

    def last_recipe(self, policy: str = "default") -> str | None:
        """The recipe of the newest step that stands; None before the first."""
        with self._reading() as connection:
            recipe = scalar(
                connection,
                "SELECT recipe FROM steps WHERE policy = ? AND voided_at IS NULL ORDER BY id DESC LIMIT 1",
                (policy,),
            )
        return None if recipe is None else str(recipe)

    def step(self, step_id: int) -> Step | None:
        with self._reading() as connection:
            row = connection.execute("SELECT * FROM steps WHERE id = ?", (step_id,)).fetchone()
            turns = connection.execute(
                "SELECT turn_id FROM step_turns WHERE step = ? AND use > 0 ORDER BY turn_id", (step_id,)
            ).fetchall()
        if row is None:
            return None
        return Step(
            id=row["id"],
            policy=row["policy"],
            recipe=row["recipe"],
            seed=row["seed"],
            metrics=json.loads(row["metrics"]),
            parent=row["parent"],
            version=row["version"],
            turn_ids=tuple(turn["turn_id"] for turn in turns),
            created_at=row["created_at"],
            voided=row["void_reason"],
        )

    def newest_trained(self, policy: str = "default") -> str | None:
        """A turn of the newest step that counts; None where none was taken."""
        with self._reading() as connection:
            row = connection.execute(
                """SELECT u.turn_id FROM steps p JOIN step_turns u ON u.step = p.id
                   WHERE p.policy = ? AND p.voided_at IS NULL AND u.use > 0
                   ORDER BY p.id DESC, u.turn_id DESC LIMIT 1""",
                (policy,),
            ).fetchone()
        return None if row is None else str(row["turn_id"])

    def recover(self, policy: str = "default") -> list[str]:
        """Brings the log to where a learner starts: from the serving version, with nothing in hand.

        Held claims are released, steps that no version holds are void, and candidates whose gate never decided are
        rejected, their steps void too. The turns of all these, which no served version learned, are pending again.
        An older learner that still runs finds its claims gone and cannot record its step.

        Returns:
            Ids of the turns that came back.
        """
        now, why = self._clock(), "the learner started anew before its gate had decided"
        with self._writing() as connection:
            held = connection.execute("SELECT turn_id FROM claims WHERE policy = ?", (policy,)).fetchall()
            back = {row["turn_id"] for row in held}
            claims.free(connection, sorted(back))
            back |= set(lines.abandon_candidates(connection, policy, why, now))
            back |= set(lines.void_steps(connection, policy, why, now))
        return sorted(back)

    # inside

    def _follow(self, policy: str, needs: Needs | None = None, group_size: int = 1) -> None:
        """Makes the settings row say what the claims go by; without `needs` it only has to be there."""
        with self._open() as connection:
            row = connection.execute("SELECT * FROM settings WHERE policy = ?", (policy,)).fetchone()
        if row is None:
            self.configure(policy, needs=needs or "any", group_size=group_size)
        elif needs is not None and (row["needs"], row["group_size"]) != (needs, group_size):
            self.configure(policy, needs=needs, group_size=group_size, approve=row["approve"])
