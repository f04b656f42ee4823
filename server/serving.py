"""`agentrl serve`: a run in the foreground, from its start to the signal that ends it."""

from __future__ import annotations

import asyncio
import signal

import typer

from agentrl.config import Config
from agentrl.errors import AgentRLError
from server.notices import notices
from server.runtime import Runtime


def serve_until_signal(settings: Config) -> int:
    """Serves until SIGINT or SIGTERM; returns the exit status: 0, or 128 and the signal where nothing was served yet.

    Raises AgentRLError where the run cannot start.
    """
    early: list[signal.Signals] = []
    try:
        asyncio.run(_serve(settings, early))
    except (asyncio.CancelledError, AgentRLError):
        # A service manager's signal also reaches the engine, whose end may be seen first.
        if not early:
            raise
        typer.echo(f"agentrl: ended by {early[0].name} before it served", err=True)
        return 128 + early[0]
    except KeyboardInterrupt:
        pass  # a second Ctrl-C while what was served is being closed
    return 0


async def _serve(settings: Config, early: list[signal.Signals]) -> None:
    task = asyncio.current_task()
    assert task is not None

    def end(number: signal.Signals) -> None:
        if not early:  # what was begun is being undone already
            task.cancel()
        early.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end, number)
    async with Runtime(settings) as runtime:
        typer.echo(f"serving {settings.served_name} at {runtime.base_url}/v1 (run folder {settings.run_dir})")
        for text in await asyncio.to_thread(notices, settings):
            typer.echo(text)
        await runtime.wait()
