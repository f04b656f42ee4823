"""The HTTP application: a list of routes. Every path may stand under /s/SESSION, /s/SESSION/eval or /eval."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from agentrl.config import ServerConfig
from agentrl.errors import AgentRLError
from agentrl.types import JSON
from server.auth import Door, Keyring
from server.exchange import Exchange
from server.feedback import RESPONSE_PREFIX, Feedback, read_feedback
from server.gateway import Gateway
from server.marks import marks_of
from server.metrics import Metrics
from server.request import ChatRequest
from server.versions import Versions
from server.wire.chat import ChatWriter, read_body, sampling_of
from server.wire.chat_body import ChatBody, messages_of
from server.wire.errors import Refused
from server.wire.near_miss import HEADER, NearMisses
from server.wire.sse import EventStream, json_response, read_json_body, while_connected

logger = logging.getLogger(__name__)

PREFIXES = ("", "/eval", "/s/{session}", "/s/{session}/eval")
HEALTH_TIMEOUT_S = 2.0
CLIENT_GONE = 499
"""What nginx made the custom for a client that left; nobody receives it."""

Handler = Callable[[Request], Awaitable[Response]]


class Api:
    """The handlers and what they need. Every handler may raise; `guarded` turns errors into replies."""

    def __init__(
        self,
        *,
        gateway: Gateway,
        keyring: Keyring,
        feedback: Feedback,
        versions: Versions,
        metrics: Metrics,
        config: ServerConfig,
        status: Callable[[], Awaitable[JSON]],
    ) -> None:
        self._gateway = gateway
        self._keyring = keyring
        self._feedback = feedback
        self._versions = versions
        self._metrics = metrics
        self._config = config
        self._status = status
        self._started = int(time.time())
        self._near_misses = NearMisses(ChatBody.model_fields)

    def routes(self) -> list[Route]:
        routes = [
            Route("/healthz", guarded(self.health)),
            Route("/metrics", guarded(self.exposition)),
            Route("/v1/status", guarded(self.status)),
        ]
        for prefix in PREFIXES:
            chat = partial(self.counted_chat, is_eval=prefix.endswith("/eval"))
            routes += [
                Route(f"{prefix}/v1/chat/completions", chat, methods=["POST"]),
                Route(f"{prefix}/v1/models", guarded(self.models)),
                Route(f"{prefix}/v1/models/{{model:path}}", guarded(self.model)),
                Route(f"{prefix}/v1/feedback", guarded(self.feedback), methods=["POST"]),
            ]
        return routes

    async def counted_chat(self, request: Request, *, is_eval: bool) -> Response:
        response = await guarded(partial(self.chat, is_eval=is_eval))(request)
        self._metrics.responses.labels(str(response.status_code)).inc()
        return response

    async def chat(self, request: Request, *, is_eval: bool) -> Response:
        clock, received_at = time.perf_counter(), time.time()
        caller = self._keyring.caller(request.headers)
        data = await read_json_body(request, max_bytes=self._config.max_body_bytes)
        body = read_body(data)
        version = self._versions.resolve(body.model)
        messages = messages_of(body)
        chat = ChatRequest(
            caller=caller,
            marks=marks_of(
                request.headers,
                caller,
                url_session=request.path_params.get("session"),
                url_eval=is_eval,
                messages=messages,
                metadata=body.metadata,
                body_session=body.session_id,
            ),
            messages=messages,
            tools=body.offered_tools(),
            has_tools=bool(body.tools),
            sampling=sampling_of(body, max_tokens=self._config.max_tokens),
            num_choices=body.n or 1,
            version=version,
            client=request.headers.get("user-agent", "")[:200],
            received_at=received_at,
            clock=clock,
        )
        exchange = await while_connected(request, self._gateway.open(chat))
        if exchange is None:
            return Response(status_code=CLIENT_GONE)
        writer = ChatWriter(
            body=body,
            response_id=RESPONSE_PREFIX + exchange.request_id,
            created=int(received_at),
            model=body.model,
            fingerprint=f"{self._gateway.policy}@{exchange.version}",
        )
        slips = self._near_misses.of(body.ignored)
        more = {HEADER: ",".join(slips)} if slips else {}
        if body.stream:
            headers = exchange.headers() | more
            return EventStream(writer.stream(exchange.events()), headers=headers, leave=exchange.leave)
        return await self._plain(request, exchange, writer, more)

    async def _plain(
        self, request: Request, exchange: Exchange, writer: ChatWriter, more: dict[str, str]
    ) -> Response:
        try:
            ended = await while_connected(request, exchange.collect())
        finally:
            exchange.leave()
        if ended is None:
            return Response(status_code=CLIENT_GONE)
        return json_response(writer.plain(ended), exchange.headers() | more)

    async def models(self, request: Request) -> Response:
        self._keyring.caller(request.headers)
        return json_response({"object": "list", "data": [self._model(name) for name in self._versions.names]})

    async def model(self, request: Request) -> Response:
        self._keyring.caller(request.headers)
        name = request.path_params["model"]
        self._versions.resolve(name)
        return json_response(self._model(name))

    def _model(self, name: str) -> JSON:
        version = self._versions.resolve(name)
        number = self._versions.newest if version is None else version
        return {
            "id": name,
            "object": "model",
            "created": int(self._versions.served_since(number)) or self._started,
            "owned_by": "agentrl",
            "max_model_len": self._gateway.max_len,
            "policy_version": number,
        }

    async def feedback(self, request: Request) -> Response:
        caller = self._keyring.caller(request.headers)
        data = await read_json_body(request, max_bytes=self._config.max_body_bytes)
        body = read_feedback(data, url_session=request.path_params.get("session"))
        return json_response(await self._feedback.record(body, caller.scope))

    async def health(self, request: Request) -> Response:
        """200 where the engine answers: a web server before a dead engine is not healthy."""
        async with asyncio.timeout(HEALTH_TIMEOUT_S):
            capacity = await self._gateway.capacity()
        return json_response(
            {
                "status": "ok",
                "policy_version": self._versions.newest,
                "running": capacity.running,
                "queued": capacity.queued,
            }
        )

    async def exposition(self, request: Request) -> Response:
        self._keyring.may_look(request.headers)
        self._metrics.version.set(self._versions.newest)
        self._metrics.observe(await self._gateway.capacity())
        return Response(self._metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def status(self, request: Request) -> Response:
        self._keyring.may_look(request.headers)
        return json_response(await self._status())


def guarded(handler: Handler) -> Handler:
    """Turns what a handler raises on purpose into its reply; everything else reaches the outermost handler."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except AgentRLError as error:
            return json_response(error)
        except ClientDisconnect:  # while its body was read
            return Response(status_code=CLIENT_GONE)
        except TimeoutError:
            return json_response(
                Refused("The engine does not answer.", status=503, code="engine_silent", retry_after_s=1.0)
            )

    return answer


def create_app(api: Api, config: ServerConfig) -> Starlette:
    middleware = [Middleware(Door, config=config)]
    if config.allowed_origins:
        # Inside the door: only origins that it lets pass are ever told that they may read the replies.
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(config.allowed_origins),
                allow_methods=["GET", "POST"],
                allow_headers=["*"],
                expose_headers=["X-Turn-Id", "X-Policy-Version", "X-Session-Id", "X-Agentrl-Lessons", HEADER],
            )
        )
    return Starlette(
        routes=list(api.routes()),
        middleware=middleware,
        exception_handlers={HTTPException: on_http_exception, Exception: on_unplanned},
    )


async def on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return json_response(
            Refused(
                f"There is no {request.method} {request.url.path} here. Clients of OpenAI's chat API use "
                "/v1/chat/completions; point the base URL at /v1.",
                status=404,
                code="unknown_route",
            )
        )
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        return json_response(
            Refused(
                f"{request.url.path} does not take {request.method}. Use {allowed}.",
                status=405,
                code="method_not_allowed",
            ),
            error.headers,
        )
    return json_response(Refused(str(error.detail), status=error.status_code), error.headers)


async def on_unplanned(request: Request, error: Exception) -> Response:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return json_response(error)
