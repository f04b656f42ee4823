"""A run from start to stop: folder, log, engine, gateway, loops, learner, web server.

    async with Runtime(config) as runtime:
        client = AsyncOpenAI(base_url=runtime.base_url + "/v1", api_key="any")

The learner is a process of its own and the engine another; what joins them to this one is the run folder and a pipe.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from agentrl.config import Config, write_config
from agentrl.engine.base import Engine
from agentrl.engine.local_process import LocalProcessEngine
from agentrl.errors import AgentRLError, ConfigError, ModelError, StoreError
from agentrl.learner.guard_rules import refuse
from agentrl.recipes.files import refuse_foreign_vocabulary, refuse_missing_files
from agentrl.recipes.recipe import load_recipe
from agentrl.signals.judge import Judge
from agentrl.signals.loop import SignalLoop
from agentrl.signals.meter import HOUR_NAME
from agentrl.store.database import LEARNING_NAME, LOG_NAME
from agentrl.store.learning_log import LearningLog
from agentrl.store.lost import refuse_anew, refuse_lost
from agentrl.store.signal_log import SignalLog
from agentrl.text.lineage import Lineage
from agentrl.text.own_patterns import own_redactor, refuse_slow
from agentrl.text.renderer import ChatRenderer, load_renderer
from server.app import Api, create_app
from server.auth import Keyring, judge_key, operator_key, refuse_open_address
from server.conversations import Conversations
from server.feedback import Feedback
from server.gateway import Gateway
from server.guard_notices import tell
from server.guard_pages import guards_of, numbers
from server.judge_reach import warn_unreachable
from server.judges import Bench, make_bench
from server.learner_child import LearnerChild
from server.listener import Listener
from server.metrics import Metrics
from server.model_folder import model_folder, refuse_incomplete
from server.outcomes import Outcomes
from server.prompts import Prompts
from server.recall import Recall
from server.recorder import Recorder
from server.redacted import SessionRedactor
from server.run_files import remove_server_file, write_server_file
from server.run_folder import folders_made, refuse_another_model, run_secret, take_away
from server.sampler import Sampler
from server.shown import POSITION, ShownLessons, refuse_to_show
from server.skills_loop import own_model, own_writer, skill_loop, writes_skills
from server.status import Status
from server.versions import BASE, Versions
from server.wire.errors import Refused
from skills.embed import refuse_missing

logger = logging.getLogger(__name__)

SWEEP_S = 30.0
"""Most seconds between two looks for idle sessions."""
LOOP_PAUSE_S = 1.0
"""A loop that failed goes on after this long."""

OpenLog = Callable[[Path], Coroutine[Any, Any, SignalLog]]
MakeEngine = Callable[[Path, Config, int, Path], Coroutine[Any, Any, Engine]]


class Runtime:
    """Builds, starts, supervises and stops. `start` undoes itself where it fails; `stop` is idempotent.

    Args:
        config: the resolved settings.
        make_engine: builds the engine in place of the local one: (model folder, config, version, its folder).
        open_log: opens the run folder's log.
        judge: what turns next states into rewards and hints, in place of the settings' judge.
    """

    log: SignalLog
    versions: Versions
    engine: Engine
    gateway: Gateway

    def __init__(
        self,
        config: Config,
        *,
        make_engine: MakeEngine | None = None,
        open_log: OpenLog = SignalLog.open,
        judge: Judge | None = None,
    ) -> None:
        refuse_open_address(config.server)
        self.config = config
        self.base_url = ""
        self.metrics = Metrics()
        self._make_engine = make_engine or local_engine
        self._open_log = open_log
        self._judge = judge
        self._stack = AsyncExitStack()
        self._stopping = asyncio.Event()
        self._made: list[Path] = []
        """Folders that go again where the start fails: those that it made."""

    async def __aenter__(self) -> Runtime:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Raises ConfigError, ModelError, StoreError or EngineError; nothing is left behind then."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def wait(self) -> None:
        """Until SIGINT, SIGTERM or `request_stop`."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.request_stop)
        try:
            await self._stopping.wait()
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def request_stop(self) -> None:
        self._stopping.set()

    async def stop(self) -> None:
        """What started last stops first; every step is bounded."""
        await self._stack.aclose()

    async def _start(self) -> None:
        config, stack = self.config, self._stack
        if config.learn.enabled:
            # A recipe that cannot work is refused here, before a model is loaded (law 9).
            recipe = load_recipe(config.learn.recipe, config.learn.overrides)
            refuse_missing_files(recipe)
            refuse(config, recipe)
            refuse_to_show(config, recipe)
            if recipe.shows_skills:
                refuse_missing(config.skills.embeddings)
        rules = own_redactor(config.server.redact_patterns)
        await asyncio.to_thread(refuse_slow, config.server.redact_patterns)
        model_path = model_folder(config.model)
        if self._make_engine is local_engine:
            refuse_incomplete(model_path)  # before the tokenizer is loaded, which would speak of itself only
        if config.learn.enabled:
            await asyncio.to_thread(refuse_foreign_vocabulary, recipe, model_path)
        renderer = load_renderer(model_path, thinking_retention=config.thinking_retention)
        run_dir = Path(config.run_dir)
        refuse_lost(run_dir)
        refuse_another_model(run_dir, config.model)
        # The log first: it has one writer, so from here on the folder is ours and may be written to.
        self._made = folders_made(run_dir)
        stack.callback(lambda: take_away(self._made))
        try:
            self.log = await stack.enter_async_context(await self._open_log(run_dir))
        except StoreError:
            self._made = []  # another start may have been faster, and its turns are in there
            raise
        write_config(config, run_dir / "config.json")
        secret = run_secret(run_dir)
        self.metrics.read_guards = lambda: numbers(guards_of(run_dir))
        self.metrics.num_refused = self.metrics.refused()

        bench = self._make_bench(secret)
        stack.push_async_callback(bench.aclose)
        self.versions = Versions(config, model_path=model_path, metrics=self.metrics)
        stack.callback(self.versions.close)
        await asyncio.to_thread(upgrade, run_dir, learns=config.learn.enabled)
        number, path = await self.versions.begin()
        self._refuse_unknown_versions()
        try:
            self.engine = await self._make_engine(model_path, config, number, path)
        except ModelError as error:
            if number == BASE or str(path) not in str(error):
                raise  # of a setting, or of the model's own folder: another version would help with neither
            raise ModelError(f"version {number} cannot be served: {error}; {self.versions.remedy}") from error
        stack.push_async_callback(self.engine.aclose)
        await self.versions.attach(self.engine)

        lineage = Lineage(secret)
        redactor = SessionRedactor(renderer, rules=rules)
        recall = Recall()
        serve_unrecorded = config.server.on_store_failure == "serve_unrecorded"
        outcomes = Outcomes(self.log, redactor, self.metrics, serve_unrecorded=serve_unrecorded)
        shown = self._make_shown(renderer, secret)
        conversations = Conversations(self.log, lineage, outcomes, self.metrics, secret=secret)
        sampler = Sampler(
            config=config,
            engine=self.engine,
            renderer=renderer,
            recorder=Recorder(
                self.log,
                lineage,
                redactor,
                recall,
                self.metrics,
                serve_unrecorded=serve_unrecorded,
            ),
            conversations=conversations,
            outcomes=outcomes,
            metrics=self.metrics,
        )
        self.gateway = Gateway(
            config=config,
            engine=self.engine,
            conversations=conversations,
            prompts=Prompts(renderer, self.log, recall, max_len=self.engine.max_len, shown=shown),
            sampler=sampler,
            versions=self.versions,
            secret=secret,
        )
        stack.push_async_callback(self.gateway.aclose)

        self._own(self.versions.follow, "versions")
        if shown is not None:
            self._own(shown.follow, "lessons to show")
        self._own(lambda: sweep(outcomes, redactor, recall, config.server.idle_s), "idle sessions")
        self._own(lambda: tell(run_dir), "guards")
        learner = self._start_learner(run_dir)
        status = Status(
            config=config,
            engine=self.engine,
            log=self.log,
            versions=self.versions,
            metrics=self.metrics,
            learner=learner,
            bench=bench,
            shown=shown,
        )
        api = Api(
            gateway=self.gateway,
            keyring=Keyring(config.server.api_keys, secret=secret),
            feedback=Feedback(self.log, redactor, outcomes, self.metrics),
            versions=self.versions,
            metrics=self.metrics,
            config=config.server,
            status=status,
        )
        listener = Listener(create_app(api, config.server), config.server, cut=self.gateway.aclose)
        stack.push_async_callback(listener.stop)
        await listener.start()
        self._made = []  # from here on turns may be recorded
        self.base_url = listener.base_url
        logger.info("serving %s at %s", config.served_name, self.base_url)
        # Behind the listener: the judge, and who writes skills, may be this server's own model.
        if writes_skills(config):
            self._write_skills(run_dir, secret)
        signals = SignalLoop(
            self.log,
            bench.judge,
            timeout_s=bench.timeout_s,
            batch=bench.at_once,
            retry_s=bench.retry_s,
            counted=lambda outcome: self.metrics.hints.labels(outcome).inc(),
        )
        self._own(signals.run, "signals")
        if self._judge is None:
            self._own(lambda: warn_unreachable(config.judge), "judge's endpoint")
        write_server_file(run_dir, base_url=self.base_url, pid=os.getpid(), key=operator_key(secret))
        stack.callback(remove_server_file, run_dir)

    def _make_bench(self, secret: bytes) -> Bench:
        if self._judge is not None:
            return Bench(judge=self._judge)
        return make_bench(
            self.config,
            own_url=lambda: self.base_url + "/v1",
            own_key=judge_key(secret),
            told=lambda what, number: self.metrics.judge.labels(what).inc(number),
            spent=Path(self.config.run_dir) / HOUR_NAME,
        )

    def _make_shown(self, renderer: ChatRenderer, secret: bytes) -> ShownLessons | None:
        """Raises ConfigError where lessons are to be shown and this model's prompts have no place for them."""
        if not self.config.learn.show_lessons:
            return None
        if POSITION not in renderer.positions:
            raise ConfigError(
                "learn.show_lessons inserts lessons into prompts, and this model's chat template writes messages in "
                "no format that agentrl knows: leave it out, or use a model with a ChatML template"
            )
        return ShownLessons(self.config, log=self.versions.learning_log, writer=renderer, secret=secret)

    def _refuse_unknown_versions(self) -> None:
        """Raises ConfigError where the served model is to judge, or to write skills, as a version that there is not."""
        settings, writer = self.config.judge, own_model(self.config)
        asked = {"judge.model": settings.model if settings.backend == "self" else ""}
        asked["skills.summariser"] = writer or ""
        for name, model in asked.items():
            try:
                self.versions.resolve(model or self.config.served_name)
            except Refused as error:
                raise ConfigError(f"{name} cannot be asked: {error}") from error

    def _write_skills(self, run_dir: Path, secret: bytes) -> None:
        own = own_writer(self.config, own_url=lambda: self.base_url + "/v1", own_key=judge_key(secret))
        if own is not None:
            self._stack.push_async_callback(own.aclose)
        self._own(skill_loop(run_dir, self.config, own).run, "skills")

    def _start_learner(self, run_dir: Path) -> LearnerChild | None:
        if not self.config.learn.enabled:
            return None
        learner = LearnerChild(run_dir, crashed=self.metrics.learner_restarts.inc)
        # Pushed first, so that it runs after the task that would start the process again is gone.
        self._stack.push_async_callback(learner.stop)
        self._own(learner.run, "learner")
        return learner

    def _own(self, run: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Runs a loop until the stop; one that fails is told of and goes on."""
        task = asyncio.create_task(supervised(run, name), name=name)

        async def end() -> None:
            task.cancel()
            await asyncio.wait([task])

        self._stack.push_async_callback(end)


async def local_engine(model_path: Path, config: Config, number: int, path: Path) -> Engine:
    """The local engine in a child process, serving `number` from `path` at first."""
    return await LocalProcessEngine.start(model_path, config.engine, number=number, path=path)


def upgrade(run_dir: Path, *, learns: bool) -> None:
    """Brings learning.db of an earlier release up to date. A learner would too late, or never where learning is off:
    until then the server could not read it, and would serve version 0. Raises StoreError where it cannot be done,
    where the file is lost, or where a learner (`learns`) could not begin one."""
    refuse_lost(run_dir)
    if (run_dir / LEARNING_NAME).is_file():
        LearningLog(run_dir).close()
    elif learns and (run_dir / LOG_NAME).is_file():
        refuse_anew(run_dir / LOG_NAME)


async def supervised(run: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
    """Runs a loop to its end. A failure costs a line in the log and a pause, never the server."""
    while True:
        try:
            await run()
            return
        except AgentRLError as error:
            logger.error("%s failed and goes on in %g s: %s", name, LOOP_PAUSE_S, error)
        except Exception:
            logger.exception("%s failed and goes on in %g s", name, LOOP_PAUSE_S)
        await asyncio.sleep(LOOP_PAUSE_S)


async def sweep(outcomes: Outcomes, redactor: SessionRedactor, recall: Recall, idle_s: float) -> None:
    """Until cancelled: ends the open turns of sessions that were idle for `idle_s`."""
    while True:
        await asyncio.sleep(min(SWEEP_S, idle_s / 4))
        num_ended = await outcomes.abandon_idle(time.time() - idle_s)
        redactor.forget_before(time.monotonic() - idle_s)
        recall.forget_before(time.monotonic() - idle_s)
        if num_ended:
            logger.info("%d turns of idle sessions were abandoned", num_ended)
