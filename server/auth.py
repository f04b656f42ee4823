"""Who may call: API keys, the Host header, foreign pages (law 10).

A key may carry the session, for clients that can set nothing but a key: "KEY/s/SESSION".
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from agentrl.config import ApiKey, ServerConfig
from agentrl.errors import ConfigError
from agentrl.types import Purpose
from server.request import JUDGE_SCOPE, Caller
from server.wire.errors import Refused
from server.wire.sse import json_response

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
OPERATOR = "operator"


def is_loopback(host: str) -> bool:
    if host in LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refuse_open_address(config: ServerConfig) -> None:
    """Raises ConfigError where the server would listen beyond this machine without asking for a key."""
    if not is_loopback(config.host) and not config.api_keys:
        raise ConfigError(
            f"server.host {config.host} is reachable from other machines and no API key is set. Set "
            "server.api_keys (for example --set 'server.api_keys=[{key=\"a-long-secret\"}]'), or listen on 127.0.0.1."
        )


def operator_key(secret: bytes) -> str:
    """The key of whoever can read the run folder: opens /v1/status and /metrics, and nothing else."""
    return "op-" + hmac.new(secret, b"operator", hashlib.sha256).hexdigest()


def judge_key(secret: bytes) -> str:
    """The key of the server's own judge, and of whoever can read the run folder: what is asked with it is never trained
    and shares nothing with any client."""
    return "judge-" + hmac.new(secret, b"judge", hashlib.sha256).hexdigest()


class Keyring:
    """Tells callers by their bearer token. Without configured keys everybody is the default scope."""

    def __init__(self, keys: Sequence[ApiKey], *, secret: bytes) -> None:
        if any(key.scope == JUDGE_SCOPE for key in keys):
            raise ConfigError(f"the scope {JUDGE_SCOPE} is the server's own: give the key another scope")
        self._keys = tuple((key.key.encode(), key) for key in keys)
        self._judge = judge_key(secret).encode()
        self._operator = operator_key(secret).encode()

    def caller(self, headers: Headers) -> Caller:
        """Raises Refused (401) for a missing or unknown key."""
        token, session = bearer(headers)
        if hmac.compare_digest(self._judge, token.encode()):
            return Caller(scope=JUDGE_SCOPE, name="judge", purpose=Purpose.OFF)
        if not self._keys:
            return Caller(scope="default", session=session)
        # Every key is compared, and in constant time: how long the answer takes says nothing of the keys.
        found = [key for raw, key in self._keys if hmac.compare_digest(raw, token.encode())]
        if not found:
            raise unknown_key(present=bool(token))
        key = found[0]
        return Caller(scope=key.scope, name=key.name, purpose=key.purpose, session=session)

    def may_look(self, headers: Headers) -> None:
        """Raises Refused unless the token is the operator's or any client's."""
        token, _ = bearer(headers)
        if not hmac.compare_digest(self._operator, token.encode()):
            self.caller(headers)


def bearer(headers: Headers) -> tuple[str, str | None]:
    """The token and the session that it names: "KEY/s/SESSION" -> ("KEY", "SESSION")."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        token = headers.get("x-api-key", "")
    key, mark, session = token.strip().partition("/s/")
    return key, (session or None) if mark else None


def unknown_key(*, present: bool) -> Refused:
    what = "The API key is not one of this server's" if present else "This server needs an API key"
    return Refused(
        f"{what}. Send 'Authorization: Bearer KEY' with a key from server.api_keys.",
        status=401,
        code="invalid_api_key",
    )


class Door:
    """Refuses requests for foreign hosts (421) and from foreign pages (403) before anything else looks at them.

    A page on the internet can make a browser call a server on loopback under a name of its own (DNS rebinding);
    it cannot make the browser send another Host or leave out Origin.
    """

    def __init__(self, app: ASGIApp, *, config: ServerConfig) -> None:
        self._app = app
        self._hosts = LOOPBACK_NAMES | {config.host.lower()} | {host.lower() for host in config.allowed_hosts}
        self._origins = frozenset(config.allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self.refusal(Headers(scope=scope))
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await json_response(refusal)(scope, receive, send)

    def refusal(self, headers: Headers) -> Refused | None:
        host = headers.get("host", "")
        if hostname(host) not in self._hosts and host.lower() not in self._hosts:
            return Refused(
                f"Host {host!r} is not served here. Add it to server.allowed_hosts if it should be.",
                status=421,
                code="unknown_host",
            )
        origin = headers.get("origin")
        if origin is None or origin in self._origins or urlsplit(origin).netloc.lower() == host.lower():
            return None
        return Refused(
            f"Pages of {origin} may not call this server. Add it to server.allowed_origins if they should.",
            status=403,
            code="foreign_origin",
        )


def hostname(host: str) -> str:
    """The name in a Host header, without its port and brackets; "" where it cannot be read."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
