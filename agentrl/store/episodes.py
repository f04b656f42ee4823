"""Episodes of the log that have ended, whole: what skills are written from. Reads log.db, never writes it.

An episode is a session. It has ended once no turn of it waits for what comes next and either the environment has
rewarded it or its last turn, of whatever kind, has a typed end (closed, abandoned, ...); or once the log has gone on
for a day without it. Only turns that may be learned from are handed out: purpose train, learning arm, the agent's task,
ended without an error.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agentrl.errors import StoreError
from agentrl.store import records
from agentrl.store.database import reading, scalar
from agentrl.store.log_reader import LogReader
from agentrl.types import NextState, Signal, Turn

IDLE_S = 24 * 3600.0
"""Between the newest turn of a session and that of the log: a session that nobody ended keeps no place for ever."""
MAX_TURNS = 64
"""The newest turns of an episode that are read; memory does not grow with how long somebody talked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A turn and what followed it."""

    turn: Turn
    next_state: NextState | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """A session that has ended."""

    scope: str
    session: str
    last_seq: int
    """Grows when the session goes on after all."""
    steps: tuple[Step, ...]
    """At least one, in their order."""
    reward: float | None
    """The environment's newest; None where it gave none."""

    @property
    def group(self) -> str | None:
        """Group of the session; episodes of one group play the same task."""
        return records.group_key(self.session)

    @property
    def task_key(self) -> str:
        return self.steps[0].turn.task_key

    @property
    def turn_ids(self) -> tuple[str, ...]:
        return tuple(step.turn.id for step in self.steps)

    @property
    def version(self) -> int:
        """The newest policy version that sampled in it."""
        return max(step.turn.completion.version for step in self.steps)


_LEARNABLE = """policy = :policy AND purpose = 'train' AND arm = 'learning' AND kind = 'main'
    AND error IS NULL AND num_sampled > 0"""
_SESSIONS = f"""SELECT scope, session, min(seq) AS first, max(seq) AS last FROM turns
    WHERE seq > :seen AND {_LEARNABLE} GROUP BY scope, session ORDER BY last"""  # noqa: S608
_LAST = "SELECT seq, received_at FROM turns WHERE scope = ? AND session = ? ORDER BY received_at DESC, seq DESC LIMIT 1"
_NEWEST = "SELECT received_at FROM turns ORDER BY seq DESC LIMIT 1"
_REWARD = """SELECT reward FROM signals e INDEXED BY episode_rewards WHERE scope = ? AND session = ?
    AND source = 'environment' AND reward IS NOT NULL
    AND EXISTS (SELECT 1 FROM turns q WHERE q.seq = e.turn AND q.purpose = 'train') ORDER BY id DESC LIMIT 1"""

_SAID = f"""SELECT t.id FROM turns t JOIN signals s ON s.turn = t.seq
    WHERE t.scope = :scope AND t.session = :session AND {_LEARNABLE} AND t.block_spans IS NULL
    AND s.source <> 'environment' AND (s.reward IS NOT NULL OR s.hint <> '' OR s.preferred <> '')
    GROUP BY t.id ORDER BY max(s.id) DESC LIMIT {MAX_TURNS}"""  # noqa: S608


class Episodes(LogReader):
    """Reads on from where the last call ended."""

    def __init__(self, path: Path | str, policy: str) -> None:
        super().__init__(path, policy)
        # `_seen`: every session up to this seq of turns was handed out or known.
        self._known: dict[tuple[str, str], int] = {}
        """Last seq of the sessions after it that are known, so that `is_known` is not asked again at every poll."""

    def ended(self, is_known: Callable[[str, str, int], bool], limit: int) -> list[Episode]:
        """Up to `limit` episodes that have ended, the oldest first.

        Args:
            is_known: by scope, session and last seq: whether the episode was dealt with before.
        """
        connection = self._open()
        try:
            with reading(connection):
                found: list[Episode] = []
                waiting: list[int] = []
                rows = connection.execute(_SESSIONS, {"seen": self._seen, "policy": self._policy}).fetchall()
                before, self._known = self._known, {}
                for row in rows:
                    key = (row["scope"], row["session"])
                    if before.get(key) == row["last"] or is_known(*key, row["last"]):
                        self._known[key] = row["last"]
                        continue
                    if len(found) < limit and self._has_ended(row):
                        found.append(self._episode(row))
                    else:
                        waiting.append(row["first"])
                # Those handed out now come again until `is_known` knows them: a crash in between loses none.
                waiting += [row["first"] for row in rows if self._is_in(found, row)]
                last = max((row["last"] for row in rows), default=self._seen)
                self._seen = min(waiting, default=last + 1) - 1
                return found
        except sqlite3.Error as error:
            raise StoreError(f"the log cannot be read: {error}") from error

    def reward(self, scope: str, session: str) -> float | None:
        """The environment's newest reward of an episode."""
        try:
            found = scalar(self._open(), _REWARD, (scope, session))
        except sqlite3.Error as error:
            raise StoreError(f"the log cannot be read: {error}") from error
        return None if found is None else float(found)

    def said(self, scope: str, session: str) -> Iterator[tuple[Turn, list[Signal]]]:
        """The turns of an episode of which anybody but the environment said something, with all that was said of each;
        first the one that was spoken of last. None that a lesson was shown to: that is no deed of the weights."""
        values = {"scope": scope, "session": session, "policy": self._policy}
        try:
            with reading(self._open()) as connection:
                for row in connection.execute(_SAID, values).fetchall():
                    turn = records.read_turn(connection, row["id"])
                    assert turn is not None, "the snapshot holds the row"
                    yield turn, records.read_signals(connection, row["id"])
        except sqlite3.Error as error:
            raise StoreError(f"the log cannot be read: {error}") from error

    @staticmethod
    def _is_in(found: list[Episode], row: sqlite3.Row) -> bool:
        return any(one.scope == row["scope"] and one.session == row["session"] for one in found)

    def _has_ended(self, row: sqlite3.Row) -> bool:
        connection, key = self._open(), (row["scope"], row["session"])
        # The last turn may be one that nothing is learned from, for example an error: the end of the session is its.
        last, at = connection.execute(_LAST, key).fetchone()
        if scalar(connection, _NEWEST) - at > IDLE_S:
            return True
        if scalar(connection, "SELECT 1 FROM open_turns WHERE scope = ? AND session = ? LIMIT 1", key):
            return False
        ending = "SELECT 1 FROM next_states WHERE turn IN (?, ?) AND ending IS NOT NULL"
        return (
            scalar(connection, ending, (row["last"], last)) is not None
            or scalar(connection, _REWARD, key) is not None
        )

    def _episode(self, row: sqlite3.Row) -> Episode:
        connection = self._open()
        ids = connection.execute(
            f"""SELECT id FROM turns WHERE scope = :scope AND session = :session AND {_LEARNABLE}
                ORDER BY received_at DESC, seq DESC LIMIT {MAX_TURNS}""",  # noqa: S608
            {"scope": row["scope"], "session": row["session"], "policy": self._policy},
        ).fetchall()
        steps = []
        for turn_id in (each["id"] for each in reversed(ids)):
            turn = records.read_turn(connection, turn_id)
            assert turn is not None, "the snapshot holds the row"
            steps.append(Step(turn=turn, next_state=records.read_next_state(connection, turn_id)))
        return Episode(
            scope=row["scope"],
            session=row["session"],
            last_seq=row["last"],
            steps=tuple(steps),
            reward=scalar(connection, _REWARD, (row["scope"], row["session"])),
        )
