"""The versions of learning.db: published by the learner, judged by the gate, read by the server.

`lines` says what each change of state means; this is its door, one transaction a call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agentrl.errors import StoreError
from agentrl.store import lines
from agentrl.store.database import scalar
from agentrl.store.learning_file import LearningFile
from agentrl.types import PolicyVersion, VersionFile, VersionState

Choose = Callable[[Sequence[PolicyVersion], Mapping[int, Sequence[str]]], Sequence[int]]
"""(versions of a line, who holds which) -> numbers whose files may go; see `versions.disposable`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a check of a version found."""

    name: str
    passed: bool | None
    """None: there was nothing to find."""
    score: float | None = None
    detail: str = ""
    held_out: bool = False
    """Whether it was asked in a situation that nothing is trained on."""
    created_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The versions of a line that were made and never served."""

    num_versions: int
    newest: int
    """Its number."""
    reason: str
    """Why the newest does not serve."""


class VersionLog(LearningFile):
    """What is known of policy versions. Files are `versions.VersionStore`'s."""

    def ensure_base(self, policy: str, path: str, files: Sequence[VersionFile] = ()) -> PolicyVersion:
        """Begins a line with version 0, the base model, which serves at once; does nothing where it has begun.

        Args:
            path: folder of the base model.
            files: with checksums where `verify` should watch them.
        """
        base = PolicyVersion(
            policy=policy, number=0, parent=None, state=VersionState.SERVING, path=path, files=tuple(files)
        )
        with self._writing() as connection:
            if not scalar(connection, "SELECT 1 FROM versions WHERE policy = ?", (policy,)):
                lines.insert(connection, base, self._clock())
        return self.serving(policy)

    def next_number(self, policy: str = "default") -> int:
        """The number of the next version: numbers only go up, through rejections and rollbacks."""
        with self._open() as connection:
            newest = scalar(connection, "SELECT max(number) FROM versions WHERE policy = ?", (policy,))
        return 0 if newest is None else int(newest) + 1

    def publish(self, version: PolicyVersion) -> None:
        """Adds a candidate with the steps that it holds beyond its parent. A first version, without parent, serves.

        Raises:
            StoreError: the number is not above all earlier ones, the parent was rejected, or a step is void, unknown or
                in another version.
        """
        with self._writing() as connection:
            lines.insert(connection, version, self._clock())

    def set_state(self, policy: str, number: int, state: VersionState, reason: str) -> None:
        """The gate's word on a candidate, in one transaction with what it means for the turns.

        SERVING: the version before it retires, and the turns of its steps are trained from this commit on.
        REJECTED: it and candidates built upon it are rejected, and the turns of their steps become rejected(gate).

        Raises:
            StoreError: unknown, no candidate, or not a descendant of the version that serves.
            ValueError: another state; versions retire when their successor serves, and served ones are rolled back.
        """
        with self._writing() as connection:
            if state is VersionState.SERVING:
                lines.serve(connection, policy, number, reason, self._clock())
            elif state is VersionState.REJECTED:
                lines.refuse(connection, policy, number, reason, self._clock())
            else:
                raise ValueError(
                    f"a version cannot be set {state}: pass SERVING or REJECTED, or call rollback"
                )

    def rollback(self, policy: str, to_number: int, reason: str) -> list[int]:
        """Makes an ancestor of the serving version serve again; returns the numbers that are rejected for it.

        The turns in the steps of those versions become rejected(rolled_back), unless a version that stays holds them
        too, and none of them is claimed again. Unpublished steps are void. Later numbers go on above all earlier ones.

        Raises:
            StoreError: not an ancestor of the serving version, or its files were deleted.
        """
        with self._writing() as connection:
            return lines.roll_back(connection, policy, to_number, reason, self._clock())

    def versions(self, policy: str = "default") -> list[PolicyVersion]:
        """All versions of a line, ascending; `path` is empty where the files were deleted."""
        with self._reading() as connection:
            return lines.read_versions(connection, policy)

    def version(self, policy: str, number: int) -> PolicyVersion | None:
        with self._reading() as connection:
            return lines.read_version(connection, policy, number)

    def serving(self, policy: str = "default") -> PolicyVersion:
        """The version that new requests begin on.

        Raises:
            StoreError: the line has not begun; see `ensure_base`.
        """
        with self._reading() as connection:
            number = lines.serving_number(connection, policy)
            version = None if number is None else lines.read_version(connection, policy, number)
        if version is None:
            raise StoreError(
                f"no version of {policy!r} serves yet: call ensure_base with the model's folder first"
            )
        return version

    def num_served(self, policy: str, *, before: int) -> int:
        """How many versions of lower number serve or served and were not rolled back."""
        with self._open() as connection:
            number = scalar(
                connection,
                """SELECT count(*) FROM versions
                   WHERE policy = ? AND number < ? AND state IN ('serving', 'retired')""",
                (policy, before),
            )
        return int(number)

    def events(self, policy: str, number: int) -> list[tuple[VersionState, str, float]]:
        """Every state that a version went through: (state, reason, Unix seconds)."""
        with self._open() as connection:
            rows = connection.execute(
                "SELECT state, reason, created_at FROM version_events WHERE policy = ? AND number = ? ORDER BY id",
                (policy, number),
            ).fetchall()
        return [(VersionState(row["state"]), row["reason"], row["created_at"]) for row in rows]

    def refused(self, policy: str = "default") -> Refused | None:
        """The versions that were refused before they served; None where there is none."""
        with self._reading() as connection:
            row = connection.execute(
                """SELECT count(*) OVER () AS num_versions, v.number AS newest, e.reason FROM versions v
                   JOIN version_events e ON e.policy = v.policy AND e.number = v.number AND e.state = 'rejected'
                   WHERE v.policy = ? AND v.state = 'rejected' AND v.served_at IS NULL
                     AND e.reason NOT LIKE 'rolled back to version %'
                   ORDER BY v.number DESC LIMIT 1""",
                (policy,),
            ).fetchone()
        return None if row is None else Refused(**row)

    def pin(self, policy: str, number: int, holder: str) -> None:
        """Keeps a version's files; `holder` says for whom ("teacher", "name@7").

        Raises:
            StoreError: unknown version, or its files are gone.
        """
        with self._writing() as connection:
            version = lines.read_version(connection, policy, number)
            if version is None or not version.path:
                raise StoreError(f"version {number} of {policy!r} cannot be pinned: its files are not there")
            connection.execute(
                "INSERT OR IGNORE INTO pins VALUES (?, ?, ?, ?)", (policy, number, holder, self._clock())
            )

    def unpin(self, policy: str, number: int, holder: str) -> None:
        with self._writing() as connection:
            connection.execute(
                "DELETE FROM pins WHERE policy = ? AND number = ? AND holder = ?", (policy, number, holder)
            )

    def pins(self, policy: str = "default") -> dict[int, list[str]]:
        """number -> who holds it."""
        found: dict[int, list[str]] = {}
        with self._open() as connection:
            for row in connection.execute(
                "SELECT number, holder FROM pins WHERE policy = ? ORDER BY number, holder", (policy,)
            ):
                found.setdefault(row["number"], []).append(row["holder"])
        return found

    def forget_files(self, policy: str, choose: Choose) -> list[int]:
        """Marks versions whose files `choose(versions, pins)` gives up; the caller deletes them afterwards.

        Chosen and marked in one transaction, so that nothing can be pinned or rolled back to in between. A crash before
        the deletion leaves a folder that `VersionStore.clean` removes.
        """
        with self._writing() as connection:
            pinned = self.pins(policy)
            numbers = list(choose(lines.read_versions(connection, policy), pinned))
            connection.executemany(
                "UPDATE versions SET deleted_at = ? WHERE policy = ? AND number = ?",
                [(self._clock(), policy, number) for number in numbers],
            )
        return numbers

    def record_probe(self, policy: str, number: int, probe: Probe) -> None:
        """What a check of a version found."""
        with self._writing() as connection:
            lines.state_of(connection, policy, number)
            connection.execute(
                "INSERT INTO probes (policy, number, name, passed, score, detail, held_out, created_at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(policy, number, probe.name, probe.passed, probe.score, probe.detail, probe.held_out),
                    probe.created_at or self._clock(),
                ),
            )

    def probes(self, policy: str, number: int) -> list[Probe]:
        with self._open() as connection:
            rows = connection.execute(
                "SELECT * FROM probes WHERE policy = ? AND number = ? ORDER BY id", (policy, number)
            ).fetchall()
        return [
            Probe(
                name=row["name"],
                passed=None if row["passed"] is None else bool(row["passed"]),
                score=row["score"],
                detail=row["detail"],
                held_out=bool(row["held_out"]),
                created_at=row["created_at"],
            )
            for row in rows
        ]
