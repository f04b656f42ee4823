"""Every failure in OpenAI's error shape: {"error": {"message", "type", "param", "code"}}.

The one place that knows which exception becomes which status. Nothing else in the server builds an error body.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from agentrl.errors import (
    AgentRLError,
    EngineBusy,
    EngineError,
    EngineGone,
    RequestError,
    StoreError,
    VersionGone,
)
from agentrl.types import JSON


class Refused(RequestError):
    """A request refused with a status and a code of its own; `retry_after_s` becomes the Retry-After header."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, param=param, status=status)
        self.code = code
        self.retry_after_s = retry_after_s


class Deadline(AgentRLError):
    """A request took longer than server.request_timeout_s."""


class ServerStopping(AgentRLError):
    """The server is shutting down and the request was ended."""


class ClientGone(AgentRLError):
    """The client closed the connection before it had the whole reply."""

    def __init__(self) -> None:
        super().__init__("the client closed the connection")


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorReply:
    status: int
    message: str
    type: str
    param: str | None = None
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def body(self) -> JSON:
        return {
            "error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code},
        }


_FIELDS = {"grammar": "response_format"}
"""What the engine calls a field, and what clients do."""

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def error_reply(error: Exception) -> ErrorReply:
    """The reply to a request that raised `error`. An error that nobody planned for says nothing of its inside."""
    match error:
        case RequestError():
            return ErrorReply(
                status=error.status,
                message=str(error),
                type=_TYPES.get(
                    error.status, "invalid_request_error" if error.status < 500 else "server_error"
                ),
                param=_FIELDS.get(error.param or "", error.param),
                code=getattr(error, "code", None),
                headers=retry_after(getattr(error, "retry_after_s", None)),
            )
        case EngineBusy():
            return ErrorReply(
                status=429,
                message=f"{error} Try again after the time in Retry-After, or raise engine.max_queued.",
                type="rate_limit_error",
                code="engine_busy",
                headers=retry_after(error.retry_after_s),
            )
        case EngineGone():
            return unavailable(f"The engine died and is being restarted: {error}", "engine_gone")
        case VersionGone():
            return unavailable(
                f"The policy version was let go while the request waited: {error}", "version_gone"
            )
        case EngineError():
            return unavailable(f"The engine failed: {error}", "engine_failed")
        case StoreError():
            return unavailable(
                f"The turn could not be recorded, so it was not served: {error}", "store_failed"
            )
        case ServerStopping():
            return unavailable("The server is shutting down.", "server_stopping")
        case Deadline():
            return ErrorReply(status=504, message=str(error), type="server_error", code="deadline_exceeded")
        case _:
            return ErrorReply(
                status=500,
                message="The server failed; its log says why.",
                type="server_error",
                code="internal",
            )


def unavailable(message: str, code: str) -> ErrorReply:
    return ErrorReply(status=503, message=message, type="server_error", code=code, headers=retry_after(1.0))


def retry_after(seconds: float | None) -> dict[str, str]:
    return {} if seconds is None else {"Retry-After": str(max(1, math.ceil(seconds)))}
