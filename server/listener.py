"""The web server on its socket: uvicorn, started and stopped by us."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from agentrl.config import ServerConfig
from agentrl.errors import ConfigError

DRAIN_S = 10.0
"""How long requests may finish when the server stops; after that they are ended and recorded as far as they came."""
LEAVE_S = 2.0
"""How long clients may take to read the end of a response that was cut by the stop."""
START_POLL_S = 0.01


class QuietServer(uvicorn.Server):
    """uvicorn without its signal handlers: who handles signals is the program's choice, not the library's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Listener:
    """`cut` ends what is still being answered once the drain is over."""

    def __init__(
        self,
        app: ASGIApp,
        config: ServerConfig,
        *,
        cut: Callable[[], Awaitable[None]],
        drain_s: float = DRAIN_S,
        leave_s: float = LEAVE_S,
    ) -> None:
        self.base_url = ""
        self._host, self._port = config.host, config.port
        self._cut = cut
        self._drain_s, self._leave_s = drain_s, leave_s
        self._socket: socket.socket | None = None
        self._serving: asyncio.Task[None] | None = None
        self._server = QuietServer(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                proxy_headers=False,
            )
        )

    async def start(self) -> None:
        """Returns once requests are answered. Raises ConfigError where the address cannot be had."""
        self._socket = bound_socket(self._host, self._port)
        self.base_url = f"http://{url_host(self._host)}:{self._socket.getsockname()[1]}"
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="http")
        while not self._server.started:
            if self._serving.done():
                self._serving.result()
                raise ConfigError(f"the web server ended before it served on {self._host}:{self._port}")
            await asyncio.sleep(START_POLL_S)

    async def stop(self) -> None:
        """Takes no more requests, lets open ones finish, then cuts them. Idempotent, and bounded."""
        serving, self._serving = self._serving, None
        if serving is not None:
            self._server.should_exit = True
            done, _ = await asyncio.wait([serving], timeout=self._drain_s)
            if not done:
                await self._cut()
                done, _ = await asyncio.wait([serving], timeout=self._leave_s)
            if not done:
                # A client that does not read would keep its connection open for ever.
                self._server.force_exit = True
                await asyncio.wait([serving])
        if self._socket is not None:
            self._socket.close()


def bound_socket(host: str, port: int) -> socket.socket:
    """Bound here and not by uvicorn, so that port 0 is known before the first request. Raises ConfigError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}. Choose another port (`agentrl serve --port N`, or "
            "server.port in the settings); 0 takes any free one."
        ) from error
    return sock


def url_host(host: str) -> str:
    """The host as this machine's clients write it."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
