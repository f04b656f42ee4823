"""The local engine in a child process, behind the same contract. This side never imports torch.

    parent (asyncio)                                   child (python -m agentrl.engine.local_child)
      Frontend ── one message a command ─────────────>   listening thread ──> Worker ──> Scheduler
      Frontend <── one message a step, all streams ───   Worker

When the child dies, it is started again with the newest version that was served and those that were held. Requests
that had handed out an id get EngineGone; all others are sent again and wait, as long as their callers do.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from agentrl.config import EngineConfig
from agentrl.engine import frames
from agentrl.engine.frontend import Frontend
from agentrl.engine.messages import Abort, Command, Facts, Report
from agentrl.errors import AgentRLError, EngineGone

log = logging.getLogger(__name__)

MAX_SENDS = 2
"""Children that a request may be sent to: one that kills them must not kill every one that follows."""
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
CLOSE_S = 5.0
"""Time that a child gets to end by itself."""


@dataclass(slots=True, eq=False)
class Child:
    """One started process and the parent's end of its socket."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def end(self) -> None:
        """Closes the socket, which ends the child, and kills it if it does not."""
        self.writer.close()
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


class LocalProcessEngine(Frontend):
    """Implements the engine contract over a Hugging Face model folder, in a child process."""

    def __init__(self, model_path: Path, config: EngineConfig, serving: tuple[int, Path | None]) -> None:
        super().__init__(config)
        self.model_path = model_path
        self.num_restarts = 0
        self._serving = serving
        """Number and folder of the newest version served; None = the model folder."""
        self._held: dict[int, Path] = {}
        self._child: Child | None = None
        self._keeper: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls, model_path: Path, config: EngineConfig, *, number: int = 0, path: Path | None = None
    ) -> Self:
        """Starts the child and waits until it serves.

        Args:
            model_path: Hugging Face folder, version 0.
            config: engine settings.
            number: the version to serve first.
            path: its folder; None = the model folder.

        Raises:
            ModelError, ConfigError: the model cannot be served.
            EngineGone: the child died before it could say so.
        """
        engine = cls(Path(model_path), config, (number, path))
        child = await engine._spawn()
        engine._keeper = asyncio.create_task(engine._keep(child), name="agentrl-engine")
        return engine

    @property
    def pid(self) -> int | None:
        """Process id of the child; None while it is being started again."""
        return None if self._child is None else self._child.process.pid

    async def load_version(self, number: int, path: Path, *, serve: bool = True) -> None:
        """As `Frontend.load_version`; the version is remembered for a restart."""
        await super().load_version(number, path, serve=serve)
        if serve:
            self._serving = (number, Path(path))
        else:
            self._held[number] = Path(path)

    async def drop_version(self, number: int) -> None:
        await super().drop_version(number)
        self._held.pop(number, None)

    async def aclose(self) -> None:
        """Ends the child. Open requests get EngineGone. Idempotent."""
        if self._gone is None:
            self._end_all(EngineGone("the engine was closed"))
        if self._keeper is not None:
            keeper, self._keeper = self._keeper, None
            keeper.cancel()
            await asyncio.wait([keeper])
        if self._child is not None:  # the keeper had not begun, so it could not end its child
            child, self._child = self._child, None
            await child.end()

    # -- the link -----------------------------------------------------------------------------------------------

    def _send(self, command: Command) -> None:
        # Without a child nothing is lost: what is open is sent when the next one serves.
        if self._child is not None:
            self._child.writer.write(frames.frame(command))

    async def _spawn(self) -> Child:
        """Starts a child and reads its facts. Raises what kept it from serving."""
        ours, theirs = frames.pair()
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            # Each arena keeps what its threads freed: with one for every thread a long run grows without need.
            "MALLOC_ARENA_MAX": os.environ.get("MALLOC_ARENA_MAX", "2"),
            "OMP_NUM_THREADS": str(self.config.num_threads),
            # By default OpenMP's threads spin for each other as long as there are as many cores. Beside a gateway
            # and a learner there are not: the spinner holds the core that the other waits for, and a step of one
            # millisecond takes a time slice of the operating system for every operation in it.
            "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "1000"),
        }
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # the folder that we were started in holds nothing of ours
                "-m",
                "agentrl.engine.local_child",
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=environment,
                # Ctrl-C in a terminal goes to a whole process group: it is ours to answer, also before the child can.
                start_new_session=True,
            )
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        child = Child(process, reader, writer)
        number, path = self._serving
        settings = self.config.model_dump()
        if self._facts is not None:
            # The probe could pick another number type this time; log-probs of one run must come from one.
            settings["precision"] = self._facts.precision
        try:
            # A version can outlive its files in memory, but not a restart.
            self._held = {number: path for number, path in self._held.items() if path.exists()}
            held = {number: str(path) for number, path in self._held.items()}
            writer.write(frames.frame((str(self.model_path), settings, number, path and str(path), held)))
            answer: Any = await frames.read(reader)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            await child.end()
            code = process.returncode
            raise EngineGone(f"the engine's process ended with code {code} before it served") from error
        except asyncio.CancelledError:
            # It serves nobody yet, and could be reading a large model for long.
            process.kill()
            await child.end()
            raise
        if isinstance(answer, AgentRLError):
            await child.end()
            raise answer
        assert isinstance(answer, Facts)
        self._facts = answer
        self._status = Report(resident=(number,))
        self._child = child
        return child

    async def _keep(self, child: Child) -> None:
        """Hands out the child's reports; starts another whenever it dies. Runs until cancelled."""
        try:
            while True:
                await self._listen(child)
                self._child = None
                await child.end()
                log.warning(
                    "the engine's process ended with code %s; starting another", child.process.returncode
                )
                self._part()
                child = await self._spawn_again()
                self.num_restarts += 1
                self._resend()
        except Exception as error:
            # Nobody awaits this task before the end: without this, callers would wait for ever.
            self._end_all(EngineGone(f"the engine failed: {error!r}"))
            raise
        finally:
            self._child = None
            await child.end()

    async def _listen(self, child: Child) -> None:
        try:
            while True:
                self._deliver(await frames.read(child.reader))
        except (asyncio.IncompleteReadError, ConnectionError):
            return

    async def _spawn_again(self) -> Child:
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await self._spawn()
            except (AgentRLError, OSError) as error:
                log.error("the engine cannot be started (%s); trying again in %.1f s", error, pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _part(self) -> None:
        """Tells those that cannot begin anew."""
        self._status = Report()
        gone = EngineGone("the engine's process died while the request ran")
        for stream in self._streams.values():
            if not stream.ended and (stream.started or stream.num_sends >= MAX_SENDS):
                self._end(stream, gone)
        for call in self._calls.values():
            if call.num_sends >= MAX_SENDS and not call.answer.done():
                call.answer.set_exception(gone)

    def _resend(self) -> None:
        """Sends the new child everything that is still open."""
        for call in self._calls.values():
            call.num_sends += 1
            self._send(call.command)
        for stream in self._streams.values():
            if not stream.ended:
                stream.num_sends += 1
                self._send(stream.command)
                if stream.aborted:
                    self._send(Abort(job=stream.command.job))
