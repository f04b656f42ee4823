"""Agents that play against a server of this process: `agentrl rollout` as a child, its episodes line by line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from agentrl.errors import AgentRLError


async def play(
    base_url: str,
    go_on: Callable[[dict[str, Any]], bool],
    *,
    env_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> None:
    """Runs `agentrl rollout` and gives each episode's line to `go_on`; False ends it after the episodes at hand.

    Args:
        base_url: of the server, without /v1.
        env_options: arguments of the environment.
        options: of the command, with underscores for dashes.

    Raises:
        AgentRLError: the agents ended with a failure.
    """
    command = [sys.executable, "-P", "-m", "server.cli", "rollout", "--lines"]
    for name, value in {"base_url": base_url + "/v1", **options}.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    for name, value in (env_options or {}).items():
        command += ["--env-set", f"{name}={json.dumps(value)}"]
    async with running(command) as process:
        assert process.stdout is not None
        asked_to_end = False
        async for raw in process.stdout:
            line = json.loads(raw)
            if "session" not in line:
                continue  # the summary at the end
            if not go_on(line) and not asked_to_end:
                asked_to_end = True
                process.send_signal(signal.SIGTERM)
        if await process.wait() != 0:
            raise AgentRLError(
                f"the agents ended with status {process.returncode}; their output stands above"
            )


@asynccontextmanager
async def running(command: Sequence[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """A child process that does not outlive the block."""
    # The folder that the demo is started in may hold an `envs` of its own: only our own search path counts.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, env=environment, limit=2**20
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
