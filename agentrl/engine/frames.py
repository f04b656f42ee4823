"""Messages over a socket between a parent and the child that it started: four bytes of length, then a pickle.

Pickle is safe here and only here: both ends are this program, and the socket is a pair that nobody else can open.
"""

from __future__ import annotations

import asyncio
import pickle
import socket
import struct
from typing import Any

HEADER = struct.Struct("<I")
BUFFER_BYTES = 1 << 20
"""Socket buffers: some seconds of reports, so that a parent busy with other work does not stop the decoding."""


def frame(message: Any) -> bytes:
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return HEADER.pack(len(body)) + body


async def read(stream: asyncio.StreamReader) -> Any:
    """Raises asyncio.IncompleteReadError or ConnectionError when the other end is gone."""
    (size,) = HEADER.unpack(await stream.readexactly(HEADER.size))
    return pickle.loads(await stream.readexactly(size))  # noqa: S301


def receive(link: socket.socket) -> Any:
    """Blocks for the next message. Raises EOFError when the other end is gone."""
    (size,) = HEADER.unpack(exactly(link, HEADER.size))
    return pickle.loads(exactly(link, size))  # noqa: S301


def exactly(link: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        try:
            more = link.recv(min(size - len(data), BUFFER_BYTES))
        except OSError as error:
            raise EOFError(str(error)) from error
        if not more:
            raise EOFError("the other end is closed")
        data += more
    return bytes(data)


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets with large buffers."""
    ends = socket.socketpair()
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    return ends
