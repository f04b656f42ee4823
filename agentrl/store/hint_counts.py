"""How many hints passed their gates, which gates refused the others, and how often users' words were none. Pure reads
of log.db."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from agentrl.errors import StoreError
from agentrl.store.log_reader import LogReader

_REFUSED = re.compile(r"(?:^|; )hint refused by (\w+): ")
_COUNTS = """SELECT j.detail, count(*) AS num FROM judgements j JOIN turns t ON t.seq = j.turn
    WHERE t.policy = ? AND (j.detail GLOB 'hint refused by *' OR j.detail GLOB 'hint shortened by *'
        OR j.detail GLOB 'hint passed *') GROUP BY j.detail"""
_UNREAD = """SELECT count(*) FROM judgements j JOIN turns t ON t.seq = j.turn
    WHERE t.policy = ? AND j.outcome = 'abstained' AND j.detail GLOB 'the user neither corrected nor approved*'"""


@dataclass(frozen=True, slots=True, kw_only=True)
class HintCounts:
    """Turns with a hint that a judge or their next state gave."""

    num_accepted: int
    """Turns of which a hint was accepted."""
    num_refused: int
    """Turns of which each was refused."""
    refused: dict[str, int] = field(default_factory=dict)
    """By gate how many hints it refused, also of turns of which another was accepted."""
    num_unread: int = 0
    """Turns that a user answered in words which the rules took for neither correction nor approval."""

    @property
    def acceptance_rate(self) -> float | None:
        """None where there was no hint."""
        num = self.num_accepted + self.num_refused
        return self.num_accepted / num if num else None


class HintReader(LogReader):
    """Judgements of a line of versions."""

    def counts(self) -> HintCounts:
        """Those of the whole log. Raises StoreError where it cannot be read."""
        try:
            connection = self._open()
            rows = connection.execute(_COUNTS, (self._policy,)).fetchall()
            [num_unread] = connection.execute(_UNREAD, (self._policy,)).fetchone()
        except sqlite3.Error as error:
            raise StoreError(f"the log cannot be read: {error}") from error
        refused: Counter[str] = Counter()
        num_accepted = 0
        for row in rows:
            num_accepted += row["num"] * ("hint passed " in row["detail"])
            for gate in _REFUSED.findall(row["detail"]):
                refused[gate] += row["num"]
        return HintCounts(
            num_accepted=num_accepted,
            num_refused=sum(row["num"] for row in rows) - num_accepted,
            refused=dict(refused.most_common()),
            num_unread=num_unread,
        )


def hint_counts(run_dir: Path, policy: str) -> HintCounts:
    """`HintReader.counts` of a run's folder."""
    with HintReader(run_dir, policy) as reader:
        return reader.counts()
