"""The learner's process: started, watched, started again. Its crash is a line in the log, never a failed request.

It lowers its own priority (learn.nice) and ends by itself when this process dies.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from agentrl.errors import UserError
from agentrl.learner.journal import rotated
from agentrl.learner.process import PARENT, is_at_work
from server.run_files import ask_server

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
HEALTHY_S = 60.0
"""A learner that ran this long is started again at once; one that dies sooner waits twice as long each time."""
STOP_TIMEOUT_S = 10.0
REFUSED = 2
"""Exit status of a learner that cannot work with its settings: starting it again would change nothing."""

WORKING = ("starting", "running", "paused", "waiting to be restarted")
"""States in which the process works on the run or will again."""


def refuse_beside_another(run_dir: Path) -> None:
    """For a learner that is not the server's own. Raises UserError where the run has one: at once, where the learner
    itself would wait for the end of a dying one."""
    live = ask_server(run_dir, "/v1/status")
    if live is not None and live["learner"]["state"] in WORKING:
        raise UserError(
            f"the server of {run_dir} runs a learner of its own: stop it, or start it with --no-learn"
        )
    if is_at_work(run_dir):
        raise UserError(f"another learner works on {run_dir}: stop it first")


class LearnerChild:
    """`run` until cancelled, then `stop`."""

    def __init__(
        self,
        run_dir: Path,
        *,
        crashed: Callable[[], None],
        command: Sequence[str] | None = None,
        first_pause_s: float = FIRST_PAUSE_S,
        stop_timeout_s: float = STOP_TIMEOUT_S,
    ) -> None:
        self.state = "starting"
        self.num_crashes = 0
        self._command = tuple(command or (sys.executable, "-P", "-m", "server.learner_main", str(run_dir)))
        self._output = run_dir / "learner.log"
        self._crashed = crashed
        self._first_pause_s = first_pause_s
        self._stop_timeout_s = stop_timeout_s
        self._process: asyncio.subprocess.Process | None = None

    async def run(self) -> None:
        pause_s = self._first_pause_s
        while True:
            began = time.monotonic()
            status = await self._once()
            if status in (0, REFUSED):
                self.state = "finished" if status == 0 else "refused its settings"
                logger.log(
                    logging.INFO if status == 0 else logging.ERROR,
                    "the learner ended with status %d; %s says why",
                    status,
                    self._output,
                )
                return
            self.num_crashes += 1
            self._crashed()
            if time.monotonic() - began >= HEALTHY_S:
                pause_s = self._first_pause_s
            self.state = "waiting to be restarted"
            logger.error(
                "the learner crashed with status %d and starts again in %g s; serving goes on; see %s",
                status,
                pause_s,
                self._output,
            )
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _once(self) -> int:
        """Runs one process to its end; returns its exit status."""
        rotated(self._output)  # a learner that dies before its journal begins would let the file grow
        with self._output.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C in a terminal goes to a whole process group: `stop` says when the learner ends.
                start_new_session=True,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                    "MALLOC_ARENA_MAX": os.environ.get("MALLOC_ARENA_MAX", "2"),
                    # Batches differ in shape, and oneDNN keeps a compiled product for each shape, 1,024 of them by
                    # default: 500 MiB more for a small model, and no step is faster for it.
                    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": os.environ.get(
                        "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128"
                    ),
                    PARENT: str(os.getpid()),
                },
            )
        self.state = "running"
        return await self._process.wait()

    async def stop(self) -> None:
        """Asks the process to end, then makes it. A step that it was in the middle of is done again next time."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), self._stop_timeout_s)
        except TimeoutError:
            process.kill()
            await process.wait()
        self.state = "stopped"
