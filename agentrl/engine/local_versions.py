"""Which policy versions are live, which request runs on which, and when a version goes.

    candidate ── room? ──> loading ──> resident: serving ──newer one──> superseded ──unused──> gone
       │                                  │                                │
       └─ a newer candidate replaces it   └─ held: asked for by            └─ after max_pin_s its requests move
                                             number, until it is dropped      to the serving version

- A request without a version begins on the serving one, except that for `stick_s` after a version was superseded a
  conversation with keys and values there goes on there. A request that names a version stays on it to its end.
- At most `max_resident` versions are live. Where all but one place are held there is no room for the old version
  beside the new: the new one takes the place and the requests move at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from agentrl.engine.kv import Conversation, Rows
from agentrl.engine.local_job import Job
from agentrl.engine.local_model import Decoder
from agentrl.engine.messages import Load
from agentrl.errors import EngineError, VersionGone

DROPPED = float("-inf")
"""Superseded before all times: the version goes as soon as nobody uses it."""


@dataclass(slots=True, eq=False)
class Resident:
    """A live version: its weights, its rows and the requests on it. The request in `line[r]` owns row r.

    The first `num_decoding` of the line decode, the others are being prefilled: so the rows of a decode step are
    always the first ones, without gaps.
    """

    number: int
    decoder: Decoder
    rows: Rows
    held: bool
    superseded_at: float | None = None
    """Seconds of the scheduler's clock; None while serving, and for one that never served."""
    line: list[Job] = field(default_factory=list)
    num_decoding: int = 0
    num_waiting: int = 0
    """Queued requests that named this version."""

    @property
    def used(self) -> bool:
        return bool(self.line or self.num_waiting)

    def join(self, job: Job) -> None:
        """Gives a request the next free row."""
        job.row, job.version = len(self.line), self.number
        self.line.append(job)
        self.rows.reserve(len(self.line), len(job.ids))

    def start_decoding(self, job: Job) -> None:
        """Takes a prefilled request into the decoding part; one swap of rows where it overtakes another."""
        target = self.num_decoding
        assert job.row >= target
        if job.row != target:
            other = self.line[target]
            self.rows.swap(job.row, target, max(job.filled, other.filled))
            self.line[job.row], self.line[target] = other, job
            other.row, job.row = job.row, target
        self.num_decoding += 1

    def leave(self, row: int) -> None:
        """Frees a row and closes the gap: the last of each part moves up."""
        if row < self.num_decoding:
            self.num_decoding -= 1
            self._fill(row, self.num_decoding)
            row = self.num_decoding
        self._fill(row, len(self.line) - 1)
        self.line.pop()

    def _fill(self, gap: int, source: int) -> None:
        if gap != source:
            job = self.line[source]
            self.rows.move(source, gap, job.filled)
            self.line[gap], job.row = job, gap


@dataclass(slots=True)
class Versions:
    """The live versions of one engine."""

    max_resident: int
    stick_s: float
    max_pin_s: float
    residents: dict[int, Resident] = field(default_factory=dict)
    """By number, in the order in which they became live."""
    serving: int = -1
    waiting: list[Load] = field(default_factory=list)
    """Candidates without a place."""
    loading: Load | None = None

    def __getitem__(self, number: int) -> Resident:
        return self.residents[number]

    def __iter__(self) -> Iterator[Resident]:
        return iter(tuple(self.residents.values()))

    def begin_on(self, matches: Sequence[tuple[Conversation, int]], now: float) -> Resident:
        """Where a request without a version begins: the serving version, or its conversation's for a while."""
        stick_s = min(self.stick_s, self.max_pin_s)
        for entry, _ in matches:
            resident = self.residents.get(entry.version)
            if entry.saved is None or resident is None:
                continue
            at = resident.superseded_at
            # A candidate without a place needs the old versions to empty: nobody new may begin there.
            if at is not None and now < at + stick_s and not self.waiting:
                return resident
            if entry.version == self.serving:
                break
        return self.residents[self.serving]

    def ask(self, load: Load) -> list[Load]:
        """Queues a candidate. Returns those that it replaces: they will not become live.

        Raises:
            EngineError: it would be held, but every place beside the serving version's is held already.
        """
        replaced: list[Load] = []
        if load.serve:
            replaced = [other for other in self.waiting if other.serve]
            self.waiting = [other for other in self.waiting if not other.serve]
        elif not self._is_held(load.number) and self._line_places() <= 1:
            raise EngineError(
                f"no place to hold version {load.number}: max_resident_versions is {self.max_resident} and one place "
                "must stay for the serving version; drop a held version or raise the limit"
            )
        self.waiting.append(load)
        return replaced

    def _is_held(self, number: int) -> bool:
        return number in self.residents and self.residents[number].held

    def _line_places(self) -> int:
        """Places for the serving version and those that it supersedes: all that are not held, or promised to be."""
        coming = [*self.waiting, *([self.loading] if self.loading else [])]
        held = sum(1 for resident in self.residents.values() if resident.held)
        return self.max_resident - held - sum(1 for load in coming if not load.serve)

    @property
    def crowded(self) -> bool:
        """More versions are live than may be: the old one must empty at once."""
        return len(self.residents) > self.max_resident

    def settle(self, now: float) -> list[Load]:
        """Answers candidates that are live already (a rollback, a repetition) without loading anything."""
        known = [load for load in self.waiting if load.number in self.residents]
        for load in known:
            self.waiting.remove(load)
            self._admit(self.residents[load.number], load, now)
        return known

    def next_load(self) -> Load | None:
        """The candidate whose weights may be read now, if there is one and a place for it."""
        if self.loading is not None or not self.waiting:
            return None
        load = next((load for load in self.waiting if load.serve), self.waiting[0])
        places = self.max_resident + (1 if load.serve and self._line_places() <= 1 else 0)
        if len(self.residents) >= places:
            return None
        self.waiting.remove(load)
        self.loading = load
        return load

    def install(self, load: Load, resident: Resident, now: float) -> None:
        """Makes a loaded candidate live."""
        self.loading = None
        self.residents[load.number] = resident
        self._admit(resident, load, now)

    def _admit(self, resident: Resident, load: Load, now: float) -> None:
        if not load.serve:
            resident.held = True
            if resident.superseded_at == DROPPED:
                resident.superseded_at = now
            return
        if self.serving != load.number:
            if self.serving in self.residents:
                self.residents[self.serving].superseded_at = now
            self.serving, resident.superseded_at = load.number, None

    def release(self, number: int) -> None:
        """Ends the holding of a version; it goes once nobody uses it.

        Raises:
            EngineError: it is the serving version, and not held beyond that.
        """
        resident = self.residents.get(number)
        if resident is None:
            return
        if number != self.serving:
            resident.superseded_at = DROPPED
        elif not resident.held:
            raise EngineError(f"version {number} is being served; serve another before dropping it")
        resident.held = False

    def named(self, number: int) -> Resident:
        """Raises VersionGone when the version is not live."""
        resident = self.residents.get(number)
        if resident is None or resident.superseded_at == DROPPED:
            live = ", ".join(map(str, self.residents))
            raise VersionGone(f"version {number} is not live in the engine (live: {live})")
        return resident

    def overdue(self, now: float) -> list[Job]:
        """Requests that must move to the serving version: their own was superseded too long ago."""
        pin_s = 0.0 if self.crowded else self.max_pin_s
        return [
            job
            for resident in self.residents.values()
            if resident.superseded_at is not None and now >= resident.superseded_at + pin_s
            for job in resident.line
            if job.pinned is None
        ]

    def gone(self, now: float) -> list[Resident]:
        """Takes out the versions that nobody uses or may come back to."""
        full = bool(self.waiting) and len(self.residents) >= self.max_resident
        unused = [
            resident
            for resident in self.residents.values()
            if resident.number != self.serving and not resident.held and not resident.used
        ]
        leaving = [r for r in unused if full or self.crowded or now >= self._until(r)]
        for resident in leaving:
            del self.residents[resident.number]
        return leaving

    def _until(self, resident: Resident) -> float:
        return DROPPED if resident.superseded_at is None else resident.superseded_at + self.stick_s

    def deadline(self) -> float | None:
        """When an unused version goes although nothing else happens; None when there is none."""
        times = [
            self._until(resident)
            for resident in self.residents.values()
            if resident.number != self.serving and not resident.held and not resident.used
        ]
        return min(times, default=None)
