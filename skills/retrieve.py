"""Skills for a task never seen, by likeness to what they were written from: of the words, and of the meaning.

Words: SQLite's full-text index finds candidates, shared words rank them. Meaning, where the settings name a model: the
cosine of two requests' embeddings finds for "Erase all" what was learned from "Delete everything". A share of words
and a cosine are on no common scale, so each has its own threshold, and what either finds is ranked by reciprocal rank
fusion (Cormack, Clarke and Buettcher, SIGIR 2009), which looks at places alone.

The index lies in memory and is made anew when the library or the bank has changed: it can neither be stale nor be in
anybody's way. Requests are compared without the arguments that the action took over (`skills.request`), so "Show the
file a.txt" finds what was learned from "Show the file b.md".
"""

from __future__ import annotations

import re
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agentrl.config import SkillsConfig
from agentrl.errors import ConfigError
from agentrl.store.codec import storable
from skills.embed import Embedder, Vector
from skills.request import Request
from skills.skill_file import SkillFile

MAX_CANDIDATES = 32
MAX_EMBEDDED = 8
"""Requests of one skill, the newest, that embeddings compare; words compare all that the bank gives."""
FUSION = 60
"""Reciprocal rank fusion's k: the larger, the less the first places of one ranking count against the other."""

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """How like a skill is to a request."""

    name: str
    likeness: float
    """Of the words; see `SkillIndex.likeness`."""
    cosine: float | None
    """Of the embeddings; None without a model."""
    is_found: bool


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
        requests: name -> the requests that a skill was written from, the newest first.
        embedder: compares meanings; None = words alone.
    """

    def __init__(
        self,
        skills: Sequence[SkillFile],
        requests: Mapping[str, Sequence[Request]],
        embedder: Embedder | None = None,
    ) -> None:
        self._skills = {skill.name: skill for skill in skills}
        self._requests = {skill.name: tuple(requests.get(skill.name, ())) for skill in skills}
        self._embedder = embedder
        self._vectors: dict[str, list[Vector]] | None = None
        self._connection = open_index()
        self._connection.executemany(
            "INSERT INTO skills VALUES (?, ?, ?, ?)",
            [
                (
                    *(skill.name, skill.description),
                    storable(
                        "\n".join(" ".join(sorted(asked.words)) for asked in self._requests[skill.name])
                    ),
                    skill.body,
                )
                for skill in skills
            ],
        )

    def find(self, asked: Request, settings: SkillsConfig, limit: int) -> list[str]:
        """Names of up to `limit` skills that are like a request by their words (`min_likeness`) or by their meaning
        (`min_cosine`), the likest first; of equals that whose episode was rewarded more, then that which words found.
        """
        candidates = self._candidates(asked)
        by_words = self._ranked(
            candidates, lambda name: self.likeness(asked.words, name), settings.min_likeness
        )
        if self._embedder is None:
            return by_words[:limit]
        cosines = self._cosines(asked)
        by_meaning = self._ranked(sorted(cosines), cosines.__getitem__, settings.min_cosine)
        return fused(by_words, by_meaning)[:limit]

    def matches(self, asked: Request, settings: SkillsConfig, limit: int) -> list[Match]:
        """The skills that `find` finds, in its order, and behind them the nearest of the others; up to `limit`."""
        found = self.find(asked, settings, limit)
        cosines = self._cosines(asked)
        matches = {
            name: Match(
                name=name,
                likeness=self.likeness(asked.words, name),
                cosine=cosines.get(name),
                is_found=name in found,
            )
            for name in self._skills
        }
        others = [match for match in matches.values() if not match.is_found]
        others.sort(key=lambda match: (-(match.cosine or 0.0), -match.likeness, match.name))
        return [*(matches[name] for name in found), *others][:limit]

    def likeness(self, asked: frozenset[str], name: str) -> float:
        """How like a request is to those that a skill was written from: the largest share of common words (Jaccard).
        Of a skill from elsewhere, the share of the request's words that stand in its name and description."""
        known = self._requests[name]
        if known:
            return max(len(asked & one.words) / len(asked | one.words) for one in known) if asked else 0.0
        own = {word for text in asked for word in words(text)}
        return len(own & words(_about(self._skills[name]))) / len(own) if own else 0.0

    def _candidates(self, asked: Request) -> list[str]:
        terms = sorted({word.lower() for text in asked.words for word in _WORD.findall(text)})
        if not terms:
            return []
        query = " OR ".join(f'"{term}"' for term in terms)
        rows = self._connection.execute(
            "SELECT name FROM skills WHERE skills MATCH ? ORDER BY bm25(skills), name LIMIT ?",
            (query, MAX_CANDIDATES),
        )
        return [name for (name,) in rows]

    def _ranked(self, names: Sequence[str], likeness: Callable[[str], float], least: float) -> list[str]:
        scored = [
            (value, self._skills[name].score or 0.0, -place, name)
            for place, name in enumerate(names)
            if (value := likeness(name)) >= least
        ]
        return [name for *_, name in sorted(scored, reverse=True)]

    def _cosines(self, asked: Request) -> dict[str, float]:
        """Name -> the largest cosine of the request and those that the skill was written from; of a skill from
        elsewhere that of the request and its name and description. Empty without a model."""
        if self._embedder is None or not self._skills:
            return {}
        if self._vectors is None:  # most iterations ask for known tasks alone
            self._vectors = self._embedded(self._embedder)
        (vector,) = self._embedder.requests([asked.text])
        # Rounded: in float32 the cosine of a vector and itself may be .9999999.
        return {
            name: max(round(float(vector @ one), 4) for one in known) for name, known in self._vectors.items()
        }

    def _embedded(self, embedder: Embedder) -> dict[str, list[Vector]]:
        texts = {name: [one.text for one in known[:MAX_EMBEDDED]] for name, known in self._requests.items()}
        elsewhere = [name for name, known in texts.items() if not known]
        distinct = list(dict.fromkeys(text for known in texts.values() for text in known))
        of_text = dict(zip(distinct, embedder.requests(distinct), strict=True))
        about = embedder.descriptions([_about(self._skills[name]) for name in elsewhere])
        found = {name: [of_text[text] for text in known] for name, known in texts.items()}
        return found | {name: [vector] for name, vector in zip(elsewhere, about, strict=True)}

    def close(self) -> None:
        self._connection.close()


def fused(*rankings: Sequence[str]) -> list[str]:
    """One ranking of several by sum 1 / (60 + place) over those that hold a name, places counted from 1."""
    totals: defaultdict[str, float] = defaultdict(float)
    for ranking in rankings:
        for place, name in enumerate(ranking, start=1):
            totals[name] += 1 / (FUSION + place)
    return sorted(totals, key=lambda name: -totals[name])


def words(text: str) -> frozenset[str]:
    """The words of a text in small letters, those of one or two letters left out."""
    return frozenset(word for word in _WORD.findall(text.lower()) if len(word) > 2)


def _about(skill: SkillFile) -> str:
    """What a skill says of itself, as a sentence."""
    return f"{skill.name.replace('-', ' ')}: {skill.description}"
