"""How conversations ended, by arm: what a comparison of learning with its control is made of. Pure reads of log.db."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from agentrl.errors import StoreError
from agentrl.store.database import reading
from agentrl.store.log_reader import LogReader
from agentrl.types import Arm


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One conversation."""

    arm: Arm
    began_at: float
    """When its first request came, Unix seconds."""
    ended: bool
    """Nothing more will be said of it, as far as one can know: its environment rewarded it, or each of its turns has a
    next state and is judged, or it has been silent for long."""
    value: float | None
    """In [0, 1]; None where nothing judged it. What an environment says of the whole: 1 above 0, else 0. Else the mean
    over its judged turns, -1 as 0 and +1 as 1."""
    scope: str = "default"
    session: str = ""
    task_keys: tuple[str, ...] = ()
    """Of its turns."""
    is_shown: bool = False
    """Whether lessons stood in a prompt of it."""


_OUTCOMES = """SELECT t.scope, t.session, max(t.arm = 'control') AS is_control, min(t.received_at) AS began_at,
    json_group_array(DISTINCT t.task_key) AS task_keys, max(t.shown_lessons IS NOT NULL) AS is_shown,
    max(t.received_at) AS newest,
    EXISTS (SELECT 1 FROM open_turns o WHERE o.scope = t.scope AND o.session = t.session) AS is_open,
    max(EXISTS (SELECT 1 FROM due_turns d WHERE d.turn = t.seq)) AS is_due,
    (SELECT e.reward FROM signals e INDEXED BY episode_rewards WHERE e.scope = t.scope AND e.session = t.session
        AND e.source = 'environment' AND e.reward IS NOT NULL ORDER BY e.id DESC LIMIT 1) AS episode_reward,
    avg((SELECT (max(-1.0, min(1.0, s.reward)) + 1) / 2 FROM signals s WHERE s.turn = t.seq
        AND s.source <> 'environment' AND s.reward IS NOT NULL ORDER BY s.id DESC LIMIT 1)) AS turns_value
    FROM turns t WHERE t.policy = ? AND t.purpose = 'train' AND t.kind = 'main'
    GROUP BY t.scope, t.session ORDER BY began_at, min(t.seq)"""


class Outcomes(LogReader):
    """Conversations of a line of versions."""

    def all(self, *, now: float, idle_s: float) -> list[Outcome]:
        """Every conversation of purpose train, in the order in which they began.

        Args:
            now: Unix seconds.
            idle_s: after so long a silence a conversation has ended.

        Raises:
            StoreError: the log cannot be read.
        """
        try:
            with reading(self._open()) as connection:
                rows = connection.execute(_OUTCOMES, (self._policy,)).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"the log cannot be read: {error}") from error
        return [_outcome(row, now, idle_s) for row in rows]


def outcomes(run_dir: Path, policy: str, *, now: float, idle_s: float) -> list[Outcome]:
    """`Outcomes.all` of a run's folder."""
    with Outcomes(run_dir, policy) as reader:
        return reader.all(now=now, idle_s=idle_s)


def _outcome(row: sqlite3.Row, now: float, idle_s: float) -> Outcome:
    reward = row["episode_reward"]
    is_settled = not row["is_open"] and not row["is_due"]
    return Outcome(
        scope=row["scope"],
        session=row["session"],
        arm=Arm.CONTROL if row["is_control"] else Arm.LEARNING,
        task_keys=tuple(json.loads(row["task_keys"])),
        is_shown=bool(row["is_shown"]),
        began_at=row["began_at"],
        ended=reward is not None or is_settled or now - row["newest"] > idle_s,
        value=row["turns_value"] if reward is None else float(reward > 0),
    )
