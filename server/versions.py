"""Which policy versions can be asked for, and the loop that brings new ones into the engine (laws 4 and 8).

    learning.db ──poll──> newest serving version ──> Engine.load_version(serve) ──> new requests begin on it
                                                                                    old ones go by themselves
    name@7 ──> resident? ──no──> Engine.load_version(hold), the longest unused held version makes room;
                                 it can be asked for as long as it is held, also when its files are gone

Only versions that passed their gate and served are offered. learning.db is read and never written here.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from agentrl.config import Config
from agentrl.engine.base import Engine
from agentrl.errors import ConfigError, EngineError, ModelError, StoreError, UserError
from agentrl.store.database import LEARNING_NAME
from agentrl.store.learning_log import LearningLog
from agentrl.store.versions import VersionStore
from agentrl.types import PolicyVersion, VersionState
from server.metrics import Metrics
from server.wire.errors import Refused

logger = logging.getLogger(__name__)

BASE = 0
"""The model's own folder; control conversations are served from it."""
REREAD_S = 5.0
"""How often all versions are read while the serving one stays: files of old ones come to be deleted."""
FILES_GONE = "can serve no more: its files were deleted"
RETRY_S = 5.0
"""A version that could not be loaded is tried again after this long; what serves goes on serving."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What learning.db says can be served."""

    newest: int
    paths: dict[int, Path] = field(default_factory=dict)
    """Folder of every version that passed its gate and still has its files."""
    retired: frozenset[int] = frozenset()
    """Versions that served and were neither rejected nor rolled back, with or without files."""
    absent: dict[int, str] = field(default_factory=dict)
    """Why each of the other versions cannot be asked for."""


class Versions:
    """Knows the versions and moves them into the engine. One task calls `follow`."""

    def __init__(self, config: Config, *, model_path: Path, metrics: Metrics) -> None:
        self.name = config.served_name
        self.newest = BASE
        """The version on which requests begin that name none."""
        self._policy = config.policy
        self._run_dir = Path(config.run_dir)
        self._metrics = metrics
        self._paths: dict[int, Path] = {BASE: model_path}
        self._absent: dict[int, str] = {}
        self._served_since: dict[int, float] = {BASE: time.time()}
        self._keeps_base = config.learn.control_share > 0
        self._num_held = config.engine.max_resident_versions - 2
        """Places for named versions: one is the serving version's, one its successor's."""
        self._held: OrderedDict[int, None] = OrderedDict()
        self._lock = asyncio.Lock()
        self._log: LearningLog | None = None
        self._opening = threading.Lock()
        """The poll opens learning.db in a thread, a status report on the event loop."""
        self._num_unopened = 0
        """How often learning.db was there and could not be opened."""
        self._engine: Engine | None = None
        self._failed: tuple[int, float] | None = None
        self._read_at = 0.0
        if self._keeps_base and config.engine.max_resident_versions < 2:
            raise ConfigError(
                "learn.control_share keeps version 0 beside the newest, so engine.max_resident_versions must be 2 or "
                f"more (it is {config.engine.max_resident_versions})."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Every model id that is served: the bare name is the newest version."""
        return (self.name, *(f"{self.name}@{number}" for number in sorted(self._paths, reverse=True)))

    def path(self, number: int) -> Path:
        return self._paths[number]

    def served_since(self, number: int) -> float:
        """Unix seconds."""
        return self._served_since.get(number, 0.0)

    def resolve(self, model: str) -> int | None:
        """The version that a model id pins, None for the newest. Raises Refused (404) for an unknown id."""
        name, _, number = model.rpartition("@")
        if model == self.name:
            return None
        if name == self.name and number.isdecimal():
            if int(number) in self._paths:
                return int(number)
            if int(number) in self._absent:
                raise self._cannot_serve(int(number), self._absent[int(number)])
        known = f"There is no model {model!r} here. Known: {', '.join(self.names)}."
        raise _not_found(
            known if name else f"{known} `agentrl serve --set name=NAME` serves under another name."
        )

    def _cannot_serve(self, number: int, why: str) -> Refused:
        others = ", ".join(name for name in self.names if name != f"{self.name}@{number}")
        return _not_found(f"Version {number} {why}. Can be served: {others}; `agentrl versions` lists all.")

    # the engine

    async def begin(self) -> tuple[int, Path]:
        """What the engine should start on: number and folder. Raises ModelError where its files are not those that
        were published; a changed byte is `agentrl store verify`'s to find."""
        offer = await asyncio.to_thread(self._read)
        if offer is not None:
            self._take(offer)
            self.newest = offer.newest
            faults = await asyncio.to_thread(self._faults, offer.newest)
            if faults:
                raise ModelError(f"{faults[0]}; {self.remedy}")
        return self.newest, self._paths[self.newest]

    @property
    def remedy(self) -> str:
        """What helps where the serving version cannot be loaded."""
        where = f"--run-dir {self._run_dir}"
        return (
            f"put a copy of the version's folder back, or serve an earlier one: `agentrl versions {where}` lists them, "
            f"`agentrl rollback NUMBER {where}` goes back"
        )

    def _faults(self, number: int) -> list[str]:
        log = self.learning_log()
        version = None if log is None or number == BASE else log.version(self._policy, number)
        if version is None:
            return []
        try:
            return VersionStore(self._run_dir, self._policy).unfit(version)
        except OSError as error:
            return [f"version {number} of {self._policy!r} cannot be read: {error}"]

    async def attach(self, engine: Engine) -> None:
        """The engine has started on what `begin` said."""
        self._engine = engine
        self._served_since[self.newest] = time.time()
        if self._keeps_base:
            await engine.load_version(BASE, self._paths[BASE], serve=False)

    async def follow(self, poll_s: float = 0.25) -> None:
        """Until cancelled: brings every new serving version into the engine, rollbacks included."""
        while True:
            await self.catch_up()
            await asyncio.sleep(poll_s)

    async def catch_up(self) -> bool:
        """Looks once. True where another version serves now. A failure is counted and serving goes on."""
        offer = await asyncio.to_thread(self._read)
        if offer is None:
            return False
        assert self._engine is not None
        self._take(offer)
        for gone in [number for number in self._held if number not in self._paths]:
            del self._held[gone]
            await self._engine.drop_version(gone)
        if offer.newest == self.newest or self._failed_lately(offer.newest):
            return False
        try:
            await self._engine.load_version(offer.newest, self._paths[offer.newest], serve=True)
            self._held.pop(offer.newest, None)
            if self._keeps_base:
                # A version that served is held no more; after a rollback to it the base was such a one.
                await self._engine.load_version(BASE, self._paths[BASE], serve=False)
        except (EngineError, UserError) as error:
            # UserError: the folder cannot be loaded, which is this server's trouble and not a request's.
            self._failed = (offer.newest, time.monotonic())
            self._metrics.version_failures.inc()
            logger.error("version %d could not be loaded, %d goes on: %s", offer.newest, self.newest, error)
            return False
        logger.info("version %d serves now, after %d", offer.newest, self.newest)
        self.newest = offer.newest
        self._served_since[offer.newest] = time.time()
        return True

    async def make_resident(self, number: int) -> None:
        """Sees to it that a named version can answer. Raises Refused where there is no place for it."""
        assert self._engine is not None
        if number == self.newest or (number == BASE and self._keeps_base):
            return
        async with self._lock:
            if number in self._held:
                self._held.move_to_end(number)
                return
            limit = self._num_held - self._keeps_base
            if limit < 1:
                if number in (await self._engine.capacity()).resident_versions:
                    return
                raise Refused(
                    f"Version {number} is not live and there is no place for it beside the newest. Raise "
                    "engine.max_resident_versions.",
                    status=503,
                    code="no_place_for_version",
                )
            while len(self._held) >= limit:
                oldest, _ = self._held.popitem(last=False)
                await self._engine.drop_version(oldest)
            path = self._paths.get(number)
            if path is None:  # the learner has deleted it while the request waited for its place
                raise self._cannot_serve(number, FILES_GONE)
            try:
                await self._engine.load_version(number, path, serve=False)
            except UserError as error:
                # The folder is broken, or somebody else has taken it away: no fault of the request, and for good.
                logger.error("version %d could not be loaded for a request: %s", number, error)
                raise self._cannot_serve(number, "cannot be loaded: the server's log says why") from error
            self._held[number] = None

    def close(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None

    # learning.db

    def learning_log(self) -> LearningLog | None:
        """learning.db, read-only; None until a learner has made it, or where it cannot be read."""
        with self._opening:
            if self._log is None and (self._run_dir / LEARNING_NAME).is_file():
                try:
                    self._log = LearningLog(self._run_dir, read_only=True)
                except StoreError as error:
                    self._num_unopened += 1
                    if self._num_unopened == 2:  # the first time, a learner may be making it
                        logger.warning("no versions are offered, version %d goes on: %s", self.newest, error)
            return self._log

    def _read(self) -> Offer | None:
        log = self.learning_log()
        if log is None:
            return None
        try:
            serving = log.serving(self._policy).number
            if serving == self.newest and time.monotonic() - self._read_at < REREAD_S:
                return None
            versions = log.versions(self._policy)
        except StoreError as error:
            # Also the ordinary beginning: the learner has made the file and not yet begun the line.
            logger.debug("learning.db offers nothing, version %d goes on: %s", self.newest, error)
            return None
        self._read_at = time.monotonic()
        return offer_of(versions, self._run_dir)

    def _take(self, offer: Offer) -> None:
        base = self._paths[BASE]
        # A version that somebody evaluates stays in the engine's memory when the learner deletes its files.
        held = {number: self._paths[number] for number in self._held if number in offer.retired}
        self._paths = {**held, **offer.paths, BASE: base}
        self._absent = offer.absent

    def _failed_lately(self, number: int) -> bool:
        return (
            self._failed is not None
            and self._failed[0] == number
            and time.monotonic() - self._failed[1] < RETRY_S
        )


def offer_of(versions: Iterable[PolicyVersion], run_dir: Path) -> Offer | None:
    """None where no version serves: the line has not begun."""
    versions = list(versions)
    served = [
        version
        for version in versions
        if version.served_at is not None and version.state in (VersionState.SERVING, VersionState.RETIRED)
    ]
    newest = next((version.number for version in served if version.state is VersionState.SERVING), None)
    if newest is None:
        return None
    paths = {version.number: run_dir / version.path for version in served if version.path}
    return Offer(
        newest=newest,
        paths=paths,
        retired=frozenset(v.number for v in served if v.state is VersionState.RETIRED),
        absent={v.number: _why_absent(v) for v in versions if v.number not in paths},
    )


def _why_absent(version: PolicyVersion) -> str:
    if version.state is VersionState.CANDIDATE:
        return "does not serve yet: its gate has not decided"
    if version.state is VersionState.REJECTED:
        return "was refused by its gate, or rolled back"
    return FILES_GONE if version.served_at is not None else "never served: a later one did"


def _not_found(message: str) -> Refused:
    return Refused(message, status=404, code="model_not_found", param="model")
