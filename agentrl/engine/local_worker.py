"""The loop around the scheduler: takes commands from other threads, steps, and hands out one report a step."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch
from tokenizers import Tokenizer

from agentrl.config import EngineConfig
from agentrl.engine.grammar import Grammar, Grammars, unusable
from agentrl.engine.local_job import Decode
from agentrl.engine.local_model import Decoder, Model, open_model
from agentrl.engine.local_scheduler import Scheduler
from agentrl.engine.messages import Command, Facts, Load, Report
from agentrl.errors import AgentRLError, ModelError, RequestError

log = logging.getLogger(__name__)


class Worker:
    """Owns a scheduler. `run` is the body of its thread or process; `post` and `stop` may come from any thread."""

    def __init__(
        self,
        folder: Path,
        config: EngineConfig,
        number: int = 0,
        path: Path | None = None,
        held: Mapping[int, str] = MappingProxyType({}),
    ) -> None:
        """
        Args:
            folder: the model.
            config: engine settings.
            number: the version to serve first.
            path: its folder; None = the model folder.
            held: versions to hold from the start. One that cannot be read is left out: requests that name it are
                refused.

        Raises:
            ModelError, ConfigError: the model cannot be served.
        """
        torch.set_num_threads(config.num_threads)
        self.model: Model = open_model(folder, config)
        decode = text_of(folder)
        grammars = None if decode is None else Grammars(folder, self.model.vocab_size)
        decoder = self.model.load(path or folder)
        self.scheduler = Scheduler(
            self.model, config, number=number, decoder=decoder, decode=decode, grammars=grammars
        )
        for other, folder_name in held.items():
            self._hold(Load(call=0, number=other, path=folder_name, serve=False))
        self.facts = Facts(
            max_len=self.model.max_len,
            vocab_size=self.model.vocab_size,
            precision=self.model.precision,
            has_text=decode is not None,
            version=number,
        )
        self._num_threads = config.num_threads
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="agentrl-load")
        self._compiler = ThreadPoolExecutor(1, thread_name_prefix="agentrl-grammar")

    def _hold(self, load: Load) -> None:
        residents = self.scheduler.versions.residents
        if load.number in residents:
            residents[load.number].held = True
            return
        try:
            self.scheduler.install(load, self.model.load(Path(load.path)))
        except ModelError as error:
            log.warning("version %d cannot be held any more: %s", load.number, error)

    def post(self, command: Command) -> None:
        self._inbox.put(partial(self.scheduler.handle, command))

    def stop(self) -> None:
        self._inbox.put(None)

    def run(self, deliver: Callable[[Report], None]) -> None:
        """Steps until stopped. `deliver` is called on this thread, at most once a step."""
        torch.set_num_threads(self._num_threads)
        scheduler = self.scheduler
        with torch.inference_mode():
            worked, told = False, (0, tuple(scheduler.versions.residents))
            while self._take_inbox(wait=not worked):
                worked = scheduler.step()
                load = scheduler.take_load()
                if load is not None:
                    self._loader.submit(self._read, load).add_done_callback(partial(self._loaded, load))
                for text in scheduler.take_grammars():
                    assert scheduler.grammars is not None
                    compiling = self._compiler.submit(scheduler.grammars.compile, text)
                    compiling.add_done_callback(partial(self._compiled, text))
                report = scheduler.take_report()
                status = (report.running, report.resident)
                if report or status != told:
                    told = status
                    deliver(report)
        self._loader.shutdown(wait=False)
        self._compiler.shutdown(wait=False, cancel_futures=True)

    def _take_inbox(self, *, wait: bool) -> bool:
        """Runs what was posted, waiting for the first where there is nothing else to do. False = stop."""
        if wait:
            deadline = self.scheduler.deadline()
            timeout = None if deadline is None else max(0.0, deadline - self.scheduler.clock())
            try:
                action = self._inbox.get(timeout=timeout)
            except queue.Empty:
                return True
            if action is None:
                return False
            action()
        while not self._inbox.empty():
            action = self._inbox.get()
            if action is None:
                return False
            action()
        return True

    def _read(self, load: Load) -> Decoder:
        """Reads weights beside the decoding; the time in which the two share a core is the file's few milliseconds."""
        return self.model.load(Path(load.path))

    def _loaded(self, load: Load, future: Future[Decoder]) -> None:
        error = future.exception()
        if error is None:
            self._inbox.put(partial(self.scheduler.install, load, future.result()))
        elif isinstance(error, AgentRLError):
            self._inbox.put(partial(self.scheduler.fail_load, load, error))
        else:
            self._inbox.put(partial(reraise, error))

    def _compiled(self, text: str, future: Future[Grammar]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            self._inbox.put(partial(self.scheduler.install_grammar, text, future.result()))
            return
        if not isinstance(error, RequestError):
            # A client wrote the text: whatever it does to the compiler ends the requests that asked for it, no other.
            log.error("a grammar broke the compiler", exc_info=error)
            error = unusable(f"compiling it failed ({type(error).__name__})")
        self._inbox.put(partial(self.scheduler.fail_grammar, text, error))


def reraise(error: BaseException) -> None:
    """Ends the worker with what went wrong on another thread."""
    raise error


def text_of(folder: Path) -> Decode | None:
    """Ids to text, control tokens included, from the model's own tokenizer; None where it has none."""
    path = folder / "tokenizer.json"
    if not path.exists():
        return None
    tokenizer = Tokenizer.from_file(str(path))

    def decode(token_ids: Sequence[int]) -> str:
        text: str = tokenizer.decode(list(token_ids), skip_special_tokens=False)
        return text

    return decode
