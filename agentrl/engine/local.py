"""The local engine with its scheduler in a thread of this process.

For scripts, tests and learners. A server takes `LocalProcessEngine`: decoding beside a busy Python loop in the same
process loses most of its speed to the interpreter lock.
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Self

from agentrl.config import EngineConfig
from agentrl.engine.frontend import Frontend
from agentrl.engine.local_worker import Worker
from agentrl.engine.messages import Command, Report
from agentrl.errors import EngineGone


class LocalEngine(Frontend):
    """Implements the engine contract over a Hugging Face model folder, in a thread."""

    def __init__(self, worker: Worker, config: EngineConfig) -> None:
        super().__init__(config)
        self._facts = worker.facts
        self._status = worker.scheduler.take_report()
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="agentrl-engine", daemon=True)
        self._thread.start()

    @classmethod
    async def start(
        cls, model_path: Path, config: EngineConfig, *, number: int = 0, path: Path | None = None
    ) -> Self:
        """Loads the model and starts serving.

        Args:
            model_path: Hugging Face folder, version 0.
            config: engine settings.
            number: the version to serve first.
            path: its folder; None = the model folder.

        Raises:
            ModelError, ConfigError: the model cannot be served.
        """
        worker = await asyncio.to_thread(Worker, Path(model_path), config, number, path)
        return cls(worker, config)

    def _send(self, command: Command) -> None:
        self._worker.post(command)

    def _run(self) -> None:
        error: Exception | None = None
        try:
            self._worker.run(self._hand_over)
        except Exception as failure:  # noqa: BLE001  the thread's end is told to every open request
            error = failure
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._thread_ended, error)

    def _hand_over(self, report: Report) -> None:
        self._loop.call_soon_threadsafe(self._deliver, report)

    def _thread_ended(self, error: Exception | None) -> None:
        gone = EngineGone("the engine was closed" if error is None else f"the engine failed: {error!r}")
        gone.__cause__ = error
        self._end_all(gone)
        self._ended.set()

    async def aclose(self) -> None:
        """Ends the engine. Open requests get EngineGone. Idempotent."""
        self._worker.stop()
        await self._ended.wait()
