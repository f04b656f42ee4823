"""A small OpenAI-compatible server with a script, on a real socket: the model that a judge asks in tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from server.listener import QuietServer, bound_socket

Body = dict[str, Any]
Script = Callable[[Body], "list[str] | Response"]
"""From a request's body to the texts of its choices, or to a whole reply."""


@dataclass
class Endpoint:
    """What was asked, and where."""

    script: Script
    base_url: str = ""
    bodies: list[Body] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Closed, no reply leaves."""
    waiting: int = 0
    most_waiting: int = 0
    asked: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    usage: bool = True
    """Whether replies say what they cost: 100 tokens read, 10 written a choice."""

    async def complete(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        self.asked.release()
        await self.gate.wait()
        self.waiting -= 1
        said = self.script(body)
        if isinstance(said, Response):
            return said
        reply: Body = {
            "id": "x",
            "object": "chat.completion",
            "choices": [
                {"index": n, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
                for n, text in enumerate(said)
            ],
        }
        if self.usage:
            reply["usage"] = {"prompt_tokens": 100, "completion_tokens": 10 * len(said)}
        return JSONResponse(reply)


@asynccontextmanager
async def endpoint(script: Script, **options: Any) -> AsyncIterator[Endpoint]:
    """The server, answering by `script` on a free port of loopback."""
    served = Endpoint(script, **options)
    served.gate.set()
    app = Starlette(routes=[Route("/v1/chat/completions", served.complete, methods=["POST"])])
    sock = bound_socket("127.0.0.1", 0)
    server = QuietServer(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
    task = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        while not server.started:
            await asyncio.sleep(0.005)
        served.base_url = f"http://127.0.0.1:{sock.getsockname()[1]}/v1"
        yield served
    finally:
        served.gate.set()
        server.should_exit = server.force_exit = True
        await task
        sock.close()


def refusal(status: int, message: str, *, param: str | None = None, **headers: str) -> Response:
    """An error in OpenAI's shape."""
    error = {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": None}}
    return Response(
        json.dumps(error), status_code=status, media_type="application/json", headers=dict(headers)
    )


def verdict(**changes: Any) -> str:
    """An answer to a judge's question: a correction, unless it says otherwise."""
    said = {"evidence": "", "kind": "correction", "fault": "agent", "reward": -1, "hint": None}
    return json.dumps(said | changes)
