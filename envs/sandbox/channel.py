"""The host's end of the socket to a supervisor (see there for the frames), with file descriptors beside."""

from __future__ import annotations

import asyncio
import json
import marshal
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

from agentrl.errors import SandboxError

MAX_FRAME = 16 * 2**20


class Channel:
    """One request at a time; unasked messages go to `on_event`."""

    def __init__(self, end: socket.socket, on_event: Callable[[dict[str, Any]], None]) -> None:
        end.setblocking(False)  # noqa: FBT003 - takes no keyword
        end.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket = end
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        self._data = bytearray()
        self._descriptors: deque[int] = deque()
        self._answer: asyncio.Future[Any] | None = None
        self.closed = False
        self.peer: int | None = None
        """The supervisor's process id on the host, known after its first message."""
        self._loop.add_reader(end.fileno(), self._on_readable)

    async def send(self, message: dict[str, Any]) -> None:
        body = marshal.dumps(message)
        try:
            await self._loop.sock_sendall(self._socket, struct.pack(">I", len(body)) + body)
        except OSError as error:
            raise SandboxError(f"the sandbox has gone: {error}") from error

    async def ask(self, message: dict[str, Any] | None, timeout_s: float) -> Any:
        """Sends a request (None: only waits) and returns what follows "ok".

        Raises:
            SandboxError: the sandbox refused, broke, or did not answer in time; it must be closed then, as its
                answer may still come.
        """
        if self.closed:
            raise SandboxError("the sandbox has gone")
        self._answer = self._loop.create_future()
        try:
            async with asyncio.timeout(timeout_s):
                if message is not None:
                    await self.send(message)
                reply = await self._answer
        except TimeoutError as error:
            raise SandboxError(f"the sandbox did not answer within {timeout_s:g} s") from error
        finally:
            self._answer = None
        if "error" in reply:
            raise SandboxError(f"the sandbox refused: {reply['error']}")
        return reply["ok"]

    def take_descriptors(self, number: int) -> list[int]:
        """The descriptors that came with the last answer."""
        if len(self._descriptors) < number:
            raise SandboxError(f"the sandbox sent {len(self._descriptors)} of {number} descriptors")
        return [self._descriptors.popleft() for _ in range(number)]

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        while self._descriptors:
            os.close(self._descriptors.popleft())
        self._fail("the sandbox has gone")

    def _fail(self, reason: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(SandboxError(reason))

    def _on_readable(self) -> None:
        try:
            data, notes, _, _ = self._socket.recvmsg(1 << 16, 256, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            data, notes = b"", []
        for _, kind, content in notes:
            if kind == socket.SCM_RIGHTS:
                self._descriptors.extend(struct.unpack(f"{len(content) // 4}i", content))
            elif kind == socket.SCM_CREDENTIALS:
                self.peer = struct.unpack("3i", content)[0]
        if not data:
            self.close()
            self._on_event({"closed": True})
            return
        self._data += data
        while len(self._data) >= 4:
            (length,) = struct.unpack_from(">I", self._data)
            if length > MAX_FRAME:
                raise AssertionError(f"a frame of {length} bytes from our own supervisor")
            if len(self._data) < 4 + length:
                return
            message = json.loads(bytes(self._data[4 : 4 + length]))
            del self._data[: 4 + length]
            if "exited" in message:
                self._on_event(message)
            elif self._answer is not None and not self._answer.done():
                self._answer.set_result(message)
