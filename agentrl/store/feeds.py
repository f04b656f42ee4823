"""Turns as their signals come: rewarded ones for the learner's gate, hinted ones for the teacher's memory.

Only turns that may be learned from at all: purpose train, learning arm, the agent's task, ended without an error.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentrl.errors import StoreError
from agentrl.store import records
from agentrl.store.database import reading
from agentrl.store.log_reader import LogReader
from agentrl.types import Signal, SignalSource, ToolCall, Turn

MAX_TURNS = 64
"""Of an episode that failed, the newest ones whose calls are read."""

_LEARNABLE = """t.policy = ? AND t.purpose = 'train' AND t.arm = 'learning' AND t.kind = 'main'
    AND t.error IS NULL AND t.num_sampled > 0"""


class _Feed(LogReader):
    """Signals with their turns, from where the last call ended."""

    def _new(self, condition: str, choose: Callable[[sqlite3.Row], bool]) -> list[tuple[sqlite3.Row, Turn]]:
        """Signals since the last call that fit `condition` and are chosen, each with its turn, in their order."""
        log = self._open()
        try:
            with reading(log) as connection:
                rows: Sequence[sqlite3.Row] = connection.execute(
                    f"""SELECT s.id, s.hint, s.source, t.id AS turn_id, t.session FROM signals s
                        JOIN turns t ON t.seq = s.turn
                        WHERE s.id > ? AND {_LEARNABLE} AND {condition} ORDER BY s.id""",  # noqa: S608
                    (self._seen, self._policy),
                ).fetchall()
                found = [(row, records.read_turn(connection, row["turn_id"])) for row in rows if choose(row)]
        except sqlite3.Error as error:
            raise StoreError(f"the log cannot be read: {error}") from error
        if rows:
            self._seen = rows[-1]["id"]
        return [(row, turn) for row, turn in found if turn is not None]


class RewardedTurns(_Feed):
    """Turns that got a positive reward of their own."""

    def new(self, choose: Callable[[str, str], bool]) -> list[Turn]:
        """Those rewarded since the last call, each once, in the order of their signals.

        Args:
            choose: by turn id and session; only the chosen are read whole.
        """
        condition = "s.reward > 0 AND t.block_spans IS NULL AND t.redacted_spans IS NULL"
        rows = self._new(condition, lambda row: choose(row["turn_id"], row["session"]))
        return list({turn.id: turn for _, turn in rows}.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeEnd:
    """An episode that got its reward."""

    scope: str
    session: str
    reward: float
    calls: tuple[ToolCall, ...]
    """Of its newest `MAX_TURNS` turns where it failed; else none are read."""


class HintedTurns(_Feed):
    """Turns that got a hint, with the hint. A new feed begins with the newest `most` hints of the log."""

    def __init__(self, path: Path | str, policy: str, *, most: int) -> None:
        super().__init__(path, policy)
        self._most = most
        self._seen_outcome = 0
        self.rewind()

    def rewind(self) -> None:
        """Begins again: the next call brings up to `most` hints that were there before."""
        row = (
            self._open()
            .execute(
                "SELECT id FROM signals WHERE hint <> '' ORDER BY id DESC LIMIT 1 OFFSET ?", (self._most,)
            )
            .fetchone()
        )
        self._seen = self._seen_outcome = 0 if row is None else row["id"]

    def outcomes(self) -> list[EpisodeEnd]:
        """The episodes rewarded by their environment since the last call, in order.

        Raises:
            StoreError: the log cannot be read.
        """
        try:
            with reading(self._open()) as connection:
                rows = connection.execute(
                    """SELECT s.id, s.scope, s.session, s.reward, s.turn FROM signals s JOIN turns t ON t.seq = s.turn
                       WHERE s.id > ? AND s.source = 'environment' AND s.reward IS NOT NULL AND t.purpose = 'train'
                       ORDER BY s.id""",
                    (self._seen_outcome,),
                ).fetchall()
                found = [
                    EpisodeEnd(
                        **{name: row[name] for name in ("scope", "session", "reward")},
                        calls=_calls(connection, row) if row["reward"] <= 0 else (),
                    )
                    for row in rows
                ]
        except (sqlite3.Error, ValueError, TypeError) as error:
            raise StoreError(f"the log cannot be read: {error}") from error
        if rows:
            self._seen_outcome = rows[-1]["id"]
        return found

    def new(self) -> list[tuple[Turn, str, SignalSource]]:
        """Those hinted since the last call, in the order of their signals, with whose hint it is."""
        found = self._new("s.hint <> ''", lambda row: True)
        return [(turn, row["hint"], SignalSource(row["source"])) for row, turn in found]


def _calls(connection: sqlite3.Connection, end: sqlite3.Row) -> tuple[ToolCall, ...]:
    """Those that were made before the reward: a session may go on with another task."""
    rows = connection.execute(
        """SELECT reply FROM turns WHERE scope = ? AND session = ? AND seq <= ? AND purpose = 'train'
           ORDER BY seq DESC LIMIT ?""",
        (end["scope"], end["session"], end["turn"], MAX_TURNS),
    )
    return tuple(call for row in rows for call in records.reply_of(row).tool_calls)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A turn of which something new is said."""

    turn: Turn
    signals: tuple[Signal, ...]
    """All of the turn's, in the order of their arrival."""
    num_new: int
    """How many of them, the last ones, came since the last call."""


class SignalledTurns(_Feed):
    """Turns of which something is said. A new feed begins with the newest `most` signals of the log, not counting those
    that merely offer a hint."""

    def __init__(self, path: Path | str, policy: str, *, most: int) -> None:
        super().__init__(path, policy)
        row = (
            self._open()
            .execute(
                "SELECT id FROM signals WHERE offered IS NULL ORDER BY id DESC LIMIT 1 OFFSET ?", (most,)
            )
            .fetchone()
        )
        self._seen = 0 if row is None else row["id"]

    def new(self) -> Iterator[Said]:
        """Each turn once, in the order of the first new signal of each; to be read to its end. Turns are read one by
        one: a new feed has thousands, and each holds a whole conversation."""
        try:
            with reading(self._open()) as connection:
                rows = connection.execute(
                    f"""SELECT s.id, t.id AS turn_id FROM signals s JOIN turns t ON t.seq = s.turn
                        WHERE s.id > ? AND {_LEARNABLE} ORDER BY s.id""",  # noqa: S608
                    (self._seen, self._policy),
                ).fetchall()
                for turn_id, num in Counter(row["turn_id"] for row in rows).items():
                    turn = records.read_turn(connection, turn_id)
                    if turn is not None:
                        signals = tuple(records.read_signals(connection, turn_id))
                        yield Said(turn=turn, signals=signals, num_new=num)
        except sqlite3.Error as error:
            raise StoreError(f"the log cannot be read: {error}") from error
        if rows:
            self._seen = rows[-1]["id"]
