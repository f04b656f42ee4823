"""Skills for a task never seen, by likeness: SQLite's full-text index finds candidates, shared words rank them.

The index lies in memory and is made anew when the library or the bank has changed: it can neither be stale nor be in
anybody's way. Requests are compared by their words without the arguments that the action took over
(`agentrl.teacher.recall.request_words`), so "Show the file a.txt" finds what was learned from "Show the file b.md".
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping, Sequence

from agentrl.errors import ConfigError
from skills.skill_file import SkillFile

MAX_CANDIDATES = 32

_WORD = re.compile(r"\w+")


def open_index() -> sqlite3.Connection:
    """An empty index. Raises ConfigError where SQLite was built without FTS5."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    try:
        connection.execute("CREATE VIRTUAL TABLE skills USING fts5 (name, about, requests, body)")
    except sqlite3.OperationalError as error:
        connection.close()
        raise ConfigError(
            f"skills are found by SQLite's full-text index FTS5, which this Python's SQLite {sqlite3.sqlite_version} "
            f"lacks ({error}): use a Python whose SQLite was built with ENABLE_FTS5"
        ) from error
    return connection


class SkillIndex:
    """The skills of one scope, found by what is asked.

    Args:
        skills: what may be found.
        requests: name -> the words of the requests that a skill was written from.
    """

    def __init__(self, skills: Sequence[SkillFile], requests: Mapping[str, Sequence[frozenset[str]]]) -> None:
        self._about = {skill.name: words(f"{skill.name} {skill.description}") for skill in skills}
        self._scores = {skill.name: skill.score or 0.0 for skill in skills}
        self._requests = {skill.name: tuple(requests.get(skill.name, ())) for skill in skills}
        self._connection = open_index()
        self._connection.executemany(
            "INSERT INTO skills VALUES (?, ?, ?, ?)",
            [
                (
                    *(skill.name, skill.description),
                    "\n".join(" ".join(sorted(asked)) for asked in self._requests[skill.name]),
                    skill.body,
                )
                for skill in skills
            ],
        )

    def find(self, asked: frozenset[str], least: float, limit: int) -> list[str]:
        """Names of up to `limit` skills whose likeness is at least `least`, the likest first; of equals that whose
        episode was rewarded more.

        Args:
            asked: words of the request.
            least: in [0, 1]; see `likeness`.
        """
        terms = sorted({word.lower() for text in asked for word in _WORD.findall(text)})
        if not terms:
            return []
        query = " OR ".join(f'"{term}"' for term in terms)
        rows = self._connection.execute(
            "SELECT name FROM skills WHERE skills MATCH ? ORDER BY bm25(skills), name LIMIT ?",
            (query, MAX_CANDIDATES),
        ).fetchall()
        scored = [
            (self.likeness(asked, name), self._scores[name], -place, name)
            for place, (name,) in enumerate(rows)
        ]
        return [name for score, *_, name in sorted(scored, reverse=True) if score >= least][:limit]

    def likeness(self, asked: frozenset[str], name: str) -> float:
        """How like a request is to those that a skill was written from: the largest share of common words (Jaccard).
        Of a skill from elsewhere, the share of the request's words that stand in its name and description."""
        known = self._requests[name]
        if known:
            return max(len(asked & other) / len(asked | other) for other in known) if asked else 0.0
        own = {word for text in asked for word in words(text)}
        return len(own & self._about[name]) / len(own) if own else 0.0

    def close(self) -> None:
        self._connection.close()


def words(text: str) -> frozenset[str]:
    """The words of a text in small letters, those of one or two letters left out."""
    return frozenset(word for word in _WORD.findall(text.lower()) if len(word) > 2)
