"""The lessons of learning.db: gathered from the hints of log.db, decided on by users, obeyed by claims.

What a turn may be taught follows from the states that stand here at the moment it is asked (`account.TAUGHT`), so a
decision has its whole effect in the transaction that records it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from agentrl.errors import StoreError
from agentrl.store import claims, lesson_rows, records
from agentrl.store.account import REVIVED, Reason
from agentrl.store.codec import storable, to_json
from agentrl.store.database import scalar
from agentrl.store.lesson_rows import Given, NewHint
from agentrl.store.version_log import VersionLog
from agentrl.types import JSON, Lesson, LessonState, Turn

Approve = Literal["auto", "review"]
RECENT = 64
"""Turns among which a later occurrence of a lesson's situation is looked for."""
_LEFT = "f.fate <> 'trained:' AND f.fate NOT LIKE 'pending:%' AND f.fate NOT IN ({})".format(
    ", ".join(f"'rejected:{reason}'" for reason in REVIVED)
)
"""Of turns that wait for nothing."""
_WAITS = """f.fate = 'pending:waiting' AND t.group_key IS NULL
    AND NOT EXISTS (SELECT 1 FROM settings g WHERE g.policy = t.policy AND g.needs = 'pair')
    AND NOT EXISTS (SELECT 1 FROM signals s WHERE s.turn = t.seq AND s.hint <> '')"""
"""Of turns that need no other and teach nothing of their own."""


class LessonLog(VersionLog):
    """Lessons, by line of versions. One transaction a call."""

    def new_hints(self, policy: str = "default", *, limit: int = 500, after: int = 0) -> list[NewHint]:
        """The oldest hints of turns that may be learned from and that belong to no lesson yet.

        Args:
            after: those of signals up to this number are left out.
        """
        with self._reading() as connection:
            return lesson_rows.new_hints(connection, policy, limit, after)

    def add_lessons(
        self,
        lessons: Sequence[Lesson],
        hints: Mapping[int, tuple[str, str]] | None = None,
        policy: str = "default",
    ) -> None:
        """Adds lessons, of which those that are there already stay as they are, and the hints that belong to them.

        Args:
            lessons: with the state that they begin in.
            hints: signal of log.db -> (turn id, lesson id).
        """
        with self._writing() as connection:
            for lesson in lessons:
                lesson_rows.insert_lesson(connection, policy, lesson, self._clock())
            found = hints or {}
            connection.executemany(
                "INSERT OR REPLACE INTO lesson_hints VALUES (?, ?, ?)",
                [(signal, turn_id, lesson) for signal, (turn_id, lesson) in found.items()],
            )
            if found:
                connection.execute("UPDATE settings SET gathered = ? WHERE policy = ?", (max(found), policy))

    def lessons(self, policy: str = "default", state: LessonState | None = None) -> list[Lesson]:
        """Lessons in the order of their making, all or those in one state, with what probes found."""
        with self._reading() as connection:
            return lesson_rows.read_lessons(connection, policy, state)

    def bare_lessons(self, policy: str = "default", state: LessonState | None = None) -> list[Lesson]:
        """The same without their turns and what probes found, which cost the more the longer a run is."""
        with self._reading() as connection:
            return lesson_rows.bare_lessons(connection, policy, state)

    def with_results(self, lessons: Sequence[Lesson], policy: str = "default") -> list[Lesson]:
        """Lessons that do not stand here, with what probes found of them."""
        with self._reading() as connection:
            return lesson_rows.with_results(connection, policy, lessons)

    def given(self, after: Mapping[str, int], *, most: int) -> list[Given]:
        """The newest hints that belong to lessons, in the order of their signals.

        Args:
            after: lesson -> a signal's number, above which they stand.
            most: of each lesson.
        """
        with self._reading() as connection:
            return lesson_rows.given(connection, after, most)

    def gathered(self, hints: Mapping[int, str]) -> frozenset[int]:
        """Those of the hints (signal of log.db -> turn id) that belong to a lesson."""
        with self._reading() as connection:
            return lesson_rows.gathered(connection, hints)

    def doubted(self, *reasons: str) -> frozenset[str]:
        """The turns of lessons that were set aside for one of the reasons; without any, those whose hints are not to be
        believed: in quarantine, or set aside with a version."""
        with self._open() as connection:
            return lesson_rows.doubted(connection, reasons or lesson_rows.DOUBTS)

    def changes(self) -> tuple[int, int]:
        """Numbers that differ once another connection, of whatever process, has written learning.db or log.db."""
        with self._open() as connection:
            return (
                int(scalar(connection, "PRAGMA main.data_version")),
                int(scalar(connection, "PRAGMA log.data_version")),
            )

    def decide(
        self, lesson_ids: Sequence[str], state: LessonState, reason: str = "", policy: str = "default"
    ) -> None:
        """Gives lessons a state. Turns in a learner's hands with a hint that may be taught no more are taken back from
        it, whatever other hints they have: it read them before. Those in a step stay there.

        Raises:
            StoreError: there is no such lesson; nothing is changed then.
        """
        with self._writing() as connection:
            for lesson_id in lesson_ids:
                changed = connection.execute(
                    "UPDATE lessons SET state = ?, reason = ?, changed_at = ? WHERE id = ? AND policy = ?",
                    (state.value, storable(reason), self._clock(), lesson_id, policy),
                ).rowcount
                if not changed:
                    raise StoreError(f"there is no lesson {lesson_id}")
            claims.reconsider(connection, policy)
            if state is LessonState.APPROVED:
                return
            held = connection.execute(
                """SELECT DISTINCT c.turn_id FROM claims c JOIN lesson_hints h ON h.turn_id = c.turn_id
                   JOIN settings g ON g.policy = c.policy AND g.approve IS NOT NULL
                   WHERE c.policy = ? AND h.lesson IN (SELECT value FROM json_each(?))""",
                (policy, to_json(list(lesson_ids))),
            ).fetchall()
            claims.free(connection, [row["turn_id"] for row in held])

    def approve_proposed(self, policy: str = "default") -> int:
        """Approves what was proposed while reviews were on; returns how many lessons. What came from elsewhere goes on
        waiting for somebody to read it: nobody vouches for it."""
        those = "policy = ? AND state = 'proposed' AND origin <> 'import'"
        with self._open() as connection:
            if scalar(connection, f"SELECT 1 FROM lessons WHERE {those} LIMIT 1", (policy,)) is None:  # noqa: S608
                return 0
        with self._writing() as connection:
            claims.reconsider(connection, policy)
            return connection.execute(
                f"UPDATE lessons SET state = 'approved', changed_at = ? WHERE {those}",  # noqa: S608
                (self._clock(), policy),
            ).rowcount

    def wait_for_approval(
        self, turn_ids: Sequence[str], decided: tuple[int, float, int], policy: str = "default"
    ) -> None:
        """Lets claimed turns wait that could only be shown another turn's hint, which nobody has approved yet.

        Args:
            decided: what `decided` said when that was found; where something was decided since, the turns are merely
                given back.
        """
        with self._writing() as connection:
            if self.decided(policy) == decided:
                claims.reject(connection, turn_ids, Reason.REVIEW, self._clock())
            else:
                claims.free(connection, turn_ids)

    def set_probe(self, lesson_id: str, probe: JSON) -> None:
        """Gives a lesson another probe."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE lessons SET probe = ? WHERE id = ?", (storable(to_json(probe)), lesson_id)
            )

    def may_teach(self, turn_id: str, hint: str) -> bool:
        """Whether a hint of a turn may be shown to a teacher."""
        with self._open() as connection:
            return lesson_rows.may_teach(connection, turn_id, hint)

    def is_proposed(self, turn_id: str, hint: str) -> bool:
        """Whether a hint of a turn waits for a decision."""
        with self._open() as connection:
            return lesson_rows.is_proposed(connection, turn_id, hint)

    def decided(self, policy: str = "default") -> tuple[int, float, int]:
        """Changes whenever the state of a lesson does, or one is imported."""
        with self._open() as connection:
            row = connection.execute(
                """SELECT coalesce(sum(changed_at > created_at), 0),
                       coalesce(max(CASE WHEN changed_at > created_at THEN changed_at END), 0),
                       coalesce(sum(origin = 'import'), 0) FROM lessons WHERE policy = ?""",
                (policy,),
            ).fetchone()
        return int(row[0]), float(row[1]), int(row[2])

    def lesson_counts(self, policy: str = "default") -> dict[str, int]:
        """How many lessons are in each state."""
        with self._open() as connection:
            rows = connection.execute(
                "SELECT state, count(*) FROM lessons WHERE policy = ? GROUP BY state", (policy,)
            ).fetchall()
        return dict.fromkeys((state.value for state in LessonState), 0) | {row[0]: row[1] for row in rows}

    def learned_from(
        self, turn_ids: Sequence[str], sources: Sequence[str] = (), policy: str = "default"
    ) -> list[int]:
        """Versions that serve or served with a step over one of these turns, ascending.

        Args:
            sources: turns or lessons; versions also count in whose steps the hint of one was shown for other turns.
        """
        with self._open() as connection:
            rows = connection.execute(
                """SELECT DISTINCT p.version FROM steps p
                   JOIN versions v ON v.policy = p.policy AND v.number = p.version
                   WHERE p.policy = ? AND p.voided_at IS NULL AND v.state IN ('serving', 'retired') AND (
                       EXISTS (SELECT 1 FROM step_turns u WHERE u.step = p.id
                           AND u.turn_id IN (SELECT value FROM json_each(?)))
                       OR EXISTS (SELECT 1 FROM json_tree(p.metrics, '$.hints_from') h
                           WHERE h.atom IN (SELECT value FROM json_each(?)))) ORDER BY p.version""",
                (policy, to_json(list(turn_ids)), to_json(list(sources))),
            ).fetchall()
        return [row["version"] for row in rows]

    def scopes(self, policy: str = "default") -> set[str]:
        """The scopes that have turns or lessons."""
        with self._reading() as connection:
            rows = connection.execute(
                """SELECT DISTINCT scope FROM turns WHERE policy = :policy
                   UNION SELECT DISTINCT scope FROM lessons WHERE policy = :policy""",
                {"policy": policy},
            ).fetchall()
        return {row["scope"] for row in rows}

    def num_probed(self, policy: str = "default") -> dict[str, int]:
        """How many results each lesson's probe has, by lesson."""
        with self._open() as connection:
            rows = connection.execute(
                "SELECT substr(name, ?), count(*) FROM probes WHERE policy = ? AND name LIKE ? GROUP BY 1",
                (len(lesson_rows.PROBE) + 1, policy, f"{lesson_rows.PROBE}%"),
            ).fetchall()
        return {row[0]: row[1] for row in rows}

    def untrained(self, policy: str = "default", *, limit: int = RECENT) -> list[Turn]:
        """Of the newest turns those that nothing was trained on and that wait for nothing: evaluation, control, set
        aside. Some may come back (see `hold_out`); those that do not come first."""
        return self._newest(policy, limit, _LEFT)

    def waiting(self, policy: str = "default", *, limit: int = RECENT) -> list[Turn]:
        """Of the newest turns those that wait to be trained, by themselves and without a hint of their own, which
        would be lost without them."""
        return self._newest(policy, limit, _WAITS)

    def hold_out(self, policy: str, turn_id: str) -> bool:
        """Sees to it that a turn is never trained. False where that is too late, or where it is set aside until
        somebody says otherwise."""
        with self._writing() as connection:
            return claims.hold_out(connection, policy, turn_id, self._clock())

    def _newest(self, policy: str, limit: int, condition: str) -> list[Turn]:
        with self._reading() as connection:
            newest = int(scalar(connection, "SELECT max(seq) FROM turns") or 0)
            # + keeps SQLite from taking all turns of the policy by an index of it
            rows = connection.execute(
                f"""SELECT f.id FROM fates f JOIN turns t ON t.seq = f.seq
                   WHERE f.seq > ? AND +f.policy = ? AND t.kind = 'main' AND t.error IS NULL
                   AND t.block_spans IS NULL AND t.redacted_spans IS NULL AND {condition}
                   AND f.id NOT IN (SELECT turn_id FROM step_turns)
                   ORDER BY f.fate LIKE 'apart:%' OR f.fate = 'rejected:{Reason.HELD_OUT}' DESC, f.seq DESC""",  # noqa: S608
                (newest - limit, policy),
            ).fetchall()
            found = [records.read_turn(connection, row["id"]) for row in rows]
        return [turn for turn in found if turn is not None]

    def answered_in(self, scope: str, policy: str = "default", *, limit: int = RECENT) -> list[Turn]:
        """The newest whole turns of a scope that may be learned from, whatever became of them."""
        with self._reading() as connection:
            rows = connection.execute(
                """SELECT id FROM turns WHERE scope = ? AND policy = ? AND purpose = 'train' AND kind = 'main'
                   AND error IS NULL AND num_sampled > 0 AND redacted_spans IS NULL ORDER BY seq DESC LIMIT ?""",
                (scope, policy, limit),
            ).fetchall()
            found = [records.read_turn(connection, row["id"]) for row in rows]
        return [turn for turn in found if turn is not None]
