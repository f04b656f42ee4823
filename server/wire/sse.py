"""Bytes on the wire: JSON bodies, server-sent events, and a body read with a bound."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from agentrl.types import JSON
from server.wire.errors import Refused, error_reply

T = TypeVar("T")

DONE = b"data: [DONE]\n\n"


def dumps(body: JSON) -> bytes:
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(
        # A lone surrogate can be sampled byte by byte; it must not break the reply it stands in.
        errors="backslashreplace"
    )


def event(body: JSON) -> bytes:
    return b"data: " + dumps(body) + b"\n\n"


def json_response(body: JSON | Exception, headers: Mapping[str, str] | None = None) -> Response:
    """A body as it stands (200), or an error with its status and headers."""
    if isinstance(body, Exception):
        reply = error_reply(body)
        return Response(
            dumps(reply.body()),
            status_code=reply.status,
            headers={**(headers or {}), **reply.headers},
            media_type="application/json",
        )
    return Response(dumps(body), headers=dict(headers or {}), media_type="application/json")


class EventStream(StreamingResponse):
    """Server-sent events. `leave` is called however the response ends, the client's going away included."""

    def __init__(
        self, chunks: AsyncIterator[bytes], *, headers: Mapping[str, str], leave: Callable[[], None]
    ) -> None:
        # Proxies that buffer would turn a stream of tokens into one late lump.
        quiet = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(chunks, headers={**quiet, **headers}, media_type="text/event-stream")
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`, or None as soon as the client is gone; `work` is cancelled then."""
    task = asyncio.create_task(work)
    gone = asyncio.create_task(disconnected(request.receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.wait({task, gone})
        if not task.cancelled():
            # Retrieved even where nobody is left to be told, or the loop would complain of it.
            task.exception()


async def disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def read_json_body(request: Request, *, max_bytes: int) -> bytes:
    """The body of a request that says it is JSON. Raises Refused with 415 or 413."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # A form or text/plain post needs no preflight, so any page could send it blindly.
        raise Refused(
            f"Content-Type is {kind or 'missing'!r}. Send application/json.",
            status=415,
            code="unsupported_media_type",
        )
    too_large = Refused(
        f"The body is larger than {max_bytes} bytes. Shorten the conversation or raise server.max_body_bytes.",
        status=413,
        code="body_too_large",
    )
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > max_bytes:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise too_large
    return bytes(body)
