"""A bank of skills for each task, and what became of those that were shown. Skill-SD, arXiv 2604.10674.

A skill's mean reward is of one of two kinds, which the paper leaves open: the reward of the episodes that were taught
with the skill ("groups"), or of those that it was written from ("source").

Statistics live in RUN/skills/skills.db. Its transactions are short, and no reply waits for one: the gateway writes it
from a thread, the learner for itself.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from agentrl.closing import Closing
from agentrl.errors import StoreError
from agentrl.store.database import connect, writing
from agentrl.store.migrations import Migration, migrate, run
from skills.request import Request
from skills.ucb import Arm

BANK_NAME = "skills.db"
MAX_FOLLOWED = 256
"""The newest episodes of a task whose rewards are asked for again."""
MAX_REQUESTS = 50
"""Requests of one skill that a new one is compared with."""

MeanOf = Literal["groups", "source"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An episode that a skill was written from, or merged into one."""

    session: str
    task_key: str
    request: Request
    turn_ids: tuple[str, ...]
    reward: float | None
    draft: str = ""
    """What was written of it; a skill of several episodes may say more, or say it in the words of another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The skill of a task in one iteration; all episodes of the task are taught with it."""

    id: int
    name: str


def m001_bank(connection: sqlite3.Connection) -> None:
    """Skills by task, and what became of them.

    skills      since which iteration a skill, or its newest text, is there
    sources     the episodes behind a skill; each makes it an arm of its task
    selections  one skill a task and iteration, with the text that was shown
    taught      the episodes taught with a selection, and how they had ended
    uses        the turns among them
    episodes    what came of every ended episode
    """
    run(
        connection,
        "CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL)",
        "INSERT INTO counters VALUES ('iteration', 0)",
        """CREATE TABLE skills (
            scope TEXT NOT NULL, name TEXT NOT NULL, iteration INTEGER NOT NULL, PRIMARY KEY (scope, name))""",
        """CREATE TABLE sources (
            scope TEXT NOT NULL, name TEXT NOT NULL, session TEXT NOT NULL, task_key TEXT NOT NULL,
            words TEXT NOT NULL, turn_ids TEXT NOT NULL, reward REAL, created_at REAL NOT NULL,
            PRIMARY KEY (scope, name, session))""",
        "CREATE INDEX sources_by_task ON sources (scope, task_key)",
        "CREATE TABLE texts (digest TEXT PRIMARY KEY, body TEXT NOT NULL)",
        """CREATE TABLE selections (
            id INTEGER PRIMARY KEY, scope TEXT NOT NULL, task_key TEXT NOT NULL, iteration INTEGER NOT NULL,
            name TEXT NOT NULL, digest TEXT NOT NULL, created_at REAL NOT NULL,
            UNIQUE (scope, task_key, iteration))""",
        """CREATE TABLE taught (
            selection INTEGER NOT NULL REFERENCES selections (id), session TEXT NOT NULL, reward REAL,
            PRIMARY KEY (selection, session)) WITHOUT ROWID""",
        """CREATE TABLE uses (
            turn_id TEXT NOT NULL, selection INTEGER NOT NULL REFERENCES selections (id),
            PRIMARY KEY (turn_id, selection)) WITHOUT ROWID""",
        """CREATE TABLE episodes (
            scope TEXT NOT NULL, session TEXT NOT NULL, last_seq INTEGER NOT NULL, outcome TEXT NOT NULL,
            detail TEXT NOT NULL, created_at REAL NOT NULL, PRIMARY KEY (scope, session))""",
    )


def m002_requests(connection: sqlite3.Connection) -> None:
    """The texts of requests, which embeddings compare; of older sources the words alone are known."""
    run(connection, "ALTER TABLE sources ADD COLUMN request TEXT NOT NULL DEFAULT ''")


def m003_drafts(connection: sqlite3.Connection) -> None:
    """What each episode's own draft said, by which the lines of a skill that several gave can be told from others."""
    run(connection, "ALTER TABLE sources ADD COLUMN draft TEXT NOT NULL DEFAULT ''")


BANK: tuple[Migration, ...] = (m001_bank, m002_requests, m003_drafts)


_MEAN: dict[MeanOf, str] = {
    "groups": """SELECT avg(t.reward) FROM taught t JOIN selections s ON s.id = t.selection
        WHERE s.scope = ? AND s.task_key = ? AND s.name = ?""",
    "source": "SELECT avg(reward) FROM sources WHERE scope = ? AND task_key = ? AND name = ?",
}


class SkillBank(Closing):
    """The statistics of a run's skills. `close` is idempotent.

    Args:
        root: the run's folder of skills.
        mean_of: whose reward an arm's mean is of.

    Raises:
        StoreError: the file cannot be opened, or is from a newer release.
    """

    def __init__(self, root: Path, *, mean_of: MeanOf = "groups") -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._mean_of = mean_of
        self._connection = connect(root / BANK_NAME)
        try:
            migrate(self._connection, BANK)
        except BaseException:
            self._connection.close()
            raise

    # iterations

    @property
    def iteration(self) -> int:
        """How many times the learner has begun to build a step."""
        return int(self.scalar("SELECT value FROM counters WHERE name = 'iteration'"))

    def begin_iteration(self) -> None:
        with self._writing() as connection:
            connection.execute("UPDATE counters SET value = value + 1 WHERE name = 'iteration'")

    # what the loop writes

    def is_known(self, scope: str, session: str, last_seq: int) -> bool:
        """Whether an episode was dealt with as it is."""
        sql = "SELECT last_seq FROM episodes WHERE scope = ? AND session = ?"
        found = self.scalar(sql, (scope, session))
        return found is not None and found >= last_seq

    def close_episode(
        self,
        scope: str,
        source: Source,
        *,
        last_seq: int,
        outcome: str,
        detail: str = "",
        name: str | None = None,
        is_new: bool = False,
    ) -> None:
        """Records what came of an episode.

        Args:
            name: the skill that it taught, an arm of its task from the next iteration on.
            is_new: whether the skill's text is of this moment.
        """
        now = time.time()
        with self._writing() as connection:
            if name is not None:
                connection.execute(
                    """INSERT INTO skills SELECT :scope, :name, value FROM counters WHERE name = 'iteration'
                       ON CONFLICT DO UPDATE SET iteration = excluded.iteration WHERE :is_new""",
                    {"scope": scope, "name": name, "is_new": is_new},
                )
                connection.execute(
                    "INSERT OR REPLACE INTO sources VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        *(scope, name, source.session, source.task_key),
                        *(json.dumps(sorted(source.request.words)), json.dumps(source.turn_ids)),
                        *(source.reward, now, source.request.text, source.draft),
                    ),
                )
            connection.execute(
                "INSERT OR REPLACE INTO episodes VALUES (?, ?, ?, ?, ?, ?)",
                (scope, source.session, last_seq, outcome, detail, now),
            )

    # what the learner asks

    def names_of(self, scope: str, task_key: str) -> list[str]:
        """The bank of a task: skills written from its episodes, the oldest first."""
        sql = """SELECT name, min(created_at) AS born FROM sources WHERE scope = ? AND task_key = ?
                 GROUP BY name ORDER BY born, name"""
        return [row["name"] for row in self.rows(sql, (scope, task_key))]

    def is_usable(self, scope: str, name: str, counts: Callable[[str, Sequence[str]], bool]) -> bool:
        """Whether a skill may teach an episode: it was there before this iteration began, and an episode that counts
        is behind it. A skill put in by hand always may.

        Args:
            counts: by session and turns of an episode that the skill was written from: neither the taught one or of
                its group, nor set aside.
        """
        born = self.scalar("SELECT iteration FROM skills WHERE scope = ? AND name = ?", (scope, name))
        if born is None:
            return True
        rows = self.rows("SELECT session, turn_ids FROM sources WHERE scope = ? AND name = ?", (scope, name))
        return born < self.iteration and any(
            counts(row["session"], json.loads(row["turn_ids"])) for row in rows
        )

    def drafts(self, scope: str, name: str, counts: Callable[[str, Sequence[str]], bool]) -> list[str]:
        """What was written of each of a skill's episodes that counts; see `is_usable`."""
        rows = self.rows(
            "SELECT session, turn_ids, draft FROM sources WHERE scope = ? AND name = ?", (scope, name)
        )
        return [row["draft"] for row in rows if counts(row["session"], json.loads(row["turn_ids"]))]

    def arms(self, scope: str, task_key: str, names: Sequence[str]) -> list[Arm]:
        """The statistics of skills for a task, in the order given."""
        return [self._arm(scope, task_key, name) for name in names]

    def selected(self, scope: str, task_key: str) -> Selection | None:
        """The skill chosen for a task in this iteration."""
        rows = self.rows(
            """SELECT id, name FROM selections WHERE scope = ? AND task_key = ?
               AND iteration = (SELECT value FROM counters WHERE name = 'iteration')""",
            (scope, task_key),
        )
        return Selection(id=rows[0]["id"], name=rows[0]["name"]) if rows else None

    def select(self, scope: str, task_key: str, name: str, *, digest: str, body: str) -> Selection:
        """Chooses the skill of a task for this iteration; the first to choose is right."""
        with self._writing() as connection:
            connection.execute("INSERT OR IGNORE INTO texts VALUES (?, ?)", (digest, body))
            connection.execute(
                """INSERT OR IGNORE INTO selections (scope, task_key, iteration, name, digest, created_at)
                   SELECT ?, ?, value, ?, ?, ? FROM counters WHERE name = 'iteration'""",
                (scope, task_key, name, digest, time.time()),
            )
        found = self.selected(scope, task_key)
        assert found is not None, "written just now, or by whoever was first"
        return found

    def teach(self, selection: Selection, turn_id: str, session: str, reward: float | None) -> None:
        """A turn is taught with a selection; `reward` is its episode's, None where not known (yet)."""
        with self._writing() as connection:
            connection.execute("INSERT OR IGNORE INTO uses VALUES (?, ?)", (turn_id, selection.id))
            connection.execute(
                """INSERT INTO taught VALUES (?, ?, ?)
                   ON CONFLICT DO UPDATE SET reward = excluded.reward""",
                (selection.id, session, reward),
            )

    def settle(self, scope: str, task_key: str, reward_of: Callable[[str], float | None]) -> None:
        """Follows the rewards of a task's newest episodes: they may come late, change, or be doubted later."""
        taught = self.rows(
            f"""SELECT t.selection, t.session, t.reward FROM taught t JOIN selections s ON s.id = t.selection
                WHERE s.scope = ? AND s.task_key = ? ORDER BY t.selection DESC LIMIT {MAX_FOLLOWED}""",  # noqa: S608
            (scope, task_key),
        )
        sources = self.rows(
            f"""SELECT name, session, reward FROM sources
                WHERE scope = ? AND task_key = ? ORDER BY created_at DESC LIMIT {MAX_FOLLOWED}""",  # noqa: S608
            (scope, task_key),
        )
        now = {session: reward_of(session) for session in {row["session"] for row in (*taught, *sources)}}
        fresh = [row for row in taught if row["reward"] != now[row["session"]]]
        fresh_sources = [row for row in sources if row["reward"] != now[row["session"]]]
        if not fresh and not fresh_sources:
            return
        with self._writing() as connection:
            connection.executemany(
                "UPDATE taught SET reward = ? WHERE selection = ? AND session = ?",
                [(now[row["session"]], row["selection"], row["session"]) for row in fresh],
            )
            connection.executemany(
                "UPDATE sources SET reward = ? WHERE scope = ? AND name = ? AND session = ?",
                [(now[row["session"]], scope, row["name"], row["session"]) for row in fresh_sources],
            )

    # what retrieval asks

    def requests(self, scope: str) -> dict[str, list[Request]]:
        """Skill -> the requests that it was written from, no two of the same words, the newest first, at most 50."""
        found: dict[str, dict[frozenset[str], Request]] = {}
        sql = "SELECT name, words, request FROM sources WHERE scope = ? ORDER BY created_at DESC"
        for row in self.rows(sql, (scope,)):
            words = json.loads(row["words"])
            known = found.setdefault(row["name"], {})
            if len(known) < MAX_REQUESTS:
                # Runs that began before texts were kept have the words, in the order of the alphabet.
                text = row["request"] or " ".join(words)
                known.setdefault(frozenset(words), Request(words=frozenset(words), text=text))
        return {name: list(known.values()) for name, known in found.items()}

    def crowded(self, scope: str, task_key: str, most: int) -> list[str]:
        """The arms of a task beyond `most`, those of the lowest mean reward first. One that no reward is known of
        stays: it has had no chance yet."""
        arms = self.arms(scope, task_key, self.names_of(scope, task_key))
        judged = [(arm.mean_reward, arm.name) for arm in arms if arm.mean_reward is not None]
        return [name for _, name in sorted(judged)[: max(0, len(arms) - most)]]

    def is_elsewhere(self, scope: str, task_key: str, name: str) -> bool:
        """Whether a skill is in the bank of another task than this one."""
        sql = "SELECT 1 FROM sources WHERE scope = ? AND name = ? AND task_key <> ? LIMIT 1"
        return self.scalar(sql, (scope, name, task_key)) is not None

    def drop(self, scope: str, task_key: str, name: str) -> None:
        """Takes a skill out of a task's bank."""
        with self._writing() as connection:
            connection.execute(
                "DELETE FROM sources WHERE scope = ? AND task_key = ? AND name = ?", (scope, task_key, name)
            )

    def _arm(self, scope: str, task_key: str, name: str) -> Arm:
        key = (scope, task_key, name)
        selected = self.scalar(
            "SELECT count(*) FROM selections WHERE scope = ? AND task_key = ? AND name = ?", key
        )
        return Arm(name=name, num_selected=int(selected), mean_reward=self.scalar(_MEAN[self._mean_of], key))

    def scalar(self, sql: str, values: Sequence[object] = ()) -> Any:
        """The first column of the first row; None without a row. Raises StoreError."""
        rows = self.rows(sql, values)
        return rows[0][0] if rows else None

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[sqlite3.Row]:
        """Raises StoreError."""
        try:
            return self._connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"{BANK_NAME} cannot be read: {error}") from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            with writing(self._connection) as connection:
                yield connection
        except sqlite3.Error as error:
            raise StoreError(f"{BANK_NAME} cannot be written: {error}") from error

    def close(self) -> None:
        self._connection.close()
