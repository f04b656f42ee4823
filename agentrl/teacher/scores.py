"""Scores that a teacher gave beforehand: log-probs of sampled ids in one SQLite file, found again by the ids.

    key = sha256 of the ids that the teacher read (prompt, inserted blocks, reply)   ->   log q of the reply's ids

A file holds the scores of one teacher and says which, by the hash of its weights: scores of another teacher than the
recipe expects would pull the policy towards a mixture of both, which no loss shows. Lightning OPD, arXiv 2604.13010.
"""

from __future__ import annotations

import hashlib
import sqlite3
import struct
import time
from array import array
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from agentrl.closing import Closing
from agentrl.errors import ConfigError, ModelError

HASHED = "sha256:"
_FORMAT = "1"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS scores (
    key BLOB PRIMARY KEY, start INTEGER NOT NULL, logprobs BLOB NOT NULL,
    policy TEXT NOT NULL, version INTEGER NOT NULL, scored_at REAL NOT NULL
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a teacher said of one reply."""

    start: int
    """Position of the first scored id among the ids that the teacher read."""
    logprobs: tuple[float, ...]
    """log q of the ids from `start` on, at temperature 1; fp32."""
    policy: str
    version: int
    """The policy version that had sampled the reply."""

    def at(self, positions: Sequence[int]) -> tuple[float, ...] | None:
        """log q at positions of the teacher's ids; None when one of them was not scored."""
        if any(not self.start <= position < self.start + len(self.logprobs) for position in positions):
            return None
        return tuple(self.logprobs[position - self.start] for position in positions)


class ScoreFile(Closing):
    """One file of scores; `create` opens it for writing, `open` for reading. Close it, or use it in `with`."""

    def __init__(self, path: Path, connection: sqlite3.Connection, teacher: str) -> None:
        self.path = path
        self.teacher = teacher
        """Fingerprint of the model that gave the scores."""
        self._connection = connection

    @classmethod
    def create(cls, path: Path, *, teacher: str) -> ScoreFile:
        """Begins a file, or goes on with one of the same teacher.

        Raises:
            ConfigError: the file holds another teacher's scores, or is none of ours.
        """
        try:
            connection = sqlite3.connect(path)
        except sqlite3.Error as error:
            raise ConfigError(f"{path} cannot be written: {error}") from error
        try:
            connection.executescript(_SCHEMA)
            with connection:
                about = [("format", _FORMAT), ("teacher", teacher)]
                connection.executemany("INSERT OR IGNORE INTO about VALUES (?, ?)", about)
            return cls._checked(path, connection, teacher)
        except sqlite3.Error as error:
            connection.close()
            raise ConfigError(f"{path} cannot be written as a file of scores: {error}") from error
        except ConfigError:
            connection.close()
            raise

    @classmethod
    def open(cls, path: Path, *, teacher: str) -> ScoreFile:
        """Opens a file for reading.

        Args:
            path: the file.
            teacher: fingerprint of the model that must have given the scores.

        Raises:
            ConfigError: the file cannot be read, or its scores are another teacher's.
        """
        try:
            connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        except sqlite3.Error as error:
            raise ConfigError(f"{path} cannot be read as a file of scores: {error}") from error
        try:
            return cls._checked(path, connection, teacher)
        except sqlite3.Error as error:
            connection.close()
            raise ConfigError(f"{path} cannot be read as a file of scores: {error}") from error
        except ConfigError:
            connection.close()
            raise

    @classmethod
    def _checked(cls, path: Path, connection: sqlite3.Connection, teacher: str) -> ScoreFile:
        about = dict(connection.execute("SELECT name, value FROM about").fetchall())
        if about.get("format") != _FORMAT:
            raise ConfigError(f"{path} has format {about.get('format')!r} of scores, known is {_FORMAT!r}")
        if about["teacher"] != teacher:
            raise ConfigError(
                f"{path} holds the scores of the teacher {about['teacher']}, expected is {teacher}: score the turns "
                "again with the expected teacher into a new file, or name the file's teacher as teacher.model"
            )
        return cls(path, connection, teacher)

    def close(self) -> None:
        self._connection.close()

    def put(self, token_ids: Sequence[int], score: Score) -> None:
        """Stores what the teacher said of the ids from `score.start` on.

        Raises:
            ValueError: there is not one log-prob for each of them (law 1).
        """
        if score.start + len(score.logprobs) != len(token_ids):
            raise ValueError(
                f"{len(score.logprobs)} log-probs from position {score.start} for {len(token_ids)} ids"
            )
        row = (key_of(token_ids), score.start, array("f", score.logprobs).tobytes())
        with self._connection:
            self._connection.execute(
                "INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?, ?, ?)",
                (*row, score.policy, score.version, time.time()),
            )

    def get(self, token_ids: Sequence[int]) -> Score | None:
        """What the teacher said of these ids; None when it was not asked."""
        row = self._connection.execute(
            "SELECT start, logprobs, policy, version FROM scores WHERE key = ?", (key_of(token_ids),)
        ).fetchone()
        if row is None:
            return None
        values = array("f")
        values.frombytes(row[1])
        return Score(start=row[0], logprobs=tuple(values), policy=row[2], version=row[3])

    def versions(self) -> dict[tuple[str, int], int]:
        """(policy, version) -> how many of its replies were scored."""
        rows = self._connection.execute(
            "SELECT policy, version, COUNT(*) FROM scores GROUP BY policy, version ORDER BY policy, version"
        )
        with closing(rows):
            return {(policy, version): count for policy, version, count in rows}


def key_of(token_ids: Sequence[int]) -> bytes:
    """sha256 of the ids, each as 4 bytes, least significant first."""
    return hashlib.sha256(struct.pack(f"<{len(token_ids)}I", *token_ids)).digest()


def fingerprint(model: str | Path) -> str:
    """ "sha256:..." of a model's weights: of its folder's *.safetensors files, in the order of their names. A text that
    already is a fingerprint stays.

    Raises:
        ModelError: the folder holds no weights.
    """
    if str(model).startswith(HASHED):
        return str(model)
    files = sorted(Path(model).expanduser().glob("*.safetensors"))
    if not files:
        raise ModelError(f"{model} holds no *.safetensors, so nobody can say which model it is")
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return f"{HASHED}{whole.hexdigest()}"
