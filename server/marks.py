"""What a request says of itself: session, purpose, kind, task, whether it is a retry.

The session comes, in this order, from the URL, X-Session-Id, the marks that clients set by themselves, the body,
the key. None of them = the history tells (conversations.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from starlette.datastructures import Headers

from agentrl.engine.base import Priority
from agentrl.types import JSON, Purpose, TurnKind
from server.request import Caller, Marks
from server.wire.errors import Refused

SESSION = re.compile(r"[\x21-\x7e]{1,200}")
MAX_TASK_KEY = 200

# Sent unasked: verifiers and rollout servers, opencode, codex, Claude Code, SGLang's router.
CLIENT_SESSION_HEADERS = (
    "x-session-id",
    "x-session-affinity",
    "session-id",
    "thread-id",
    "x-claude-code-session-id",
    "x-smg-routing-key",
)
OPENCLAW_SESSION = re.compile(r"\bsessionId=([A-Za-z0-9._:-]{1,128})")

# A key or a header may only take a turn further away from training than the URL did, never nearer to it.
_STRICTER = (Purpose.TRAIN, Purpose.EVAL, Purpose.OFF)


def marks_of(
    headers: Headers,
    caller: Caller,
    *,
    url_session: str | None = None,
    url_eval: bool = False,
    messages: Sequence[JSON] = (),
    metadata: Mapping[str, Any] | None = None,
    body_session: str | None = None,
) -> Marks:
    """Raises Refused where a mark is given and cannot be read."""
    metadata = metadata or {}
    sessions = session_marks(headers, caller, url_session, messages, metadata, body_session)
    return Marks(
        session=next((checked_session(*mark) for mark in sessions if mark[1]), None),
        purpose=purpose_of(headers, caller, url_eval=url_eval),
        kind=kind_of(headers),
        task_key=task_key_of(headers, metadata),
        priority=priority_of(headers),
        is_retry=headers.get("x-stainless-retry-count", "0") not in ("", "0"),
    )


def session_marks(
    headers: Headers,
    caller: Caller,
    url_session: str | None,
    messages: Sequence[JSON],
    metadata: Mapping[str, Any],
    body_session: str | None,
) -> Iterator[tuple[str, str | None]]:
    """Where a session may be named and what stands there, the first to be believed first."""
    yield "the URL", url_session
    for name in CLIENT_SESSION_HEADERS:
        yield name, headers.get(name)
    if "traceparent" in headers and headers.get("user-agent", "").startswith("OpenAI/JS"):
        first = next((message for message in messages if message["role"] == "user"), None)
        found = OPENCLAW_SESSION.search(first["content"]) if first else None
        yield "the first message", found.group(1) if found else None
    yield "session_id", body_session
    named = metadata.get("session_id")
    yield "metadata.session_id", named if isinstance(named, str) else None
    yield "the API key", caller.session


def checked_session(where: str, session: str | None) -> str:
    assert session is not None
    if not SESSION.fullmatch(session):
        raise Refused(
            f"The session named by {where} is not usable. Use 1 to 200 printable ASCII characters without spaces.",
            param="session",
            code="invalid_session",
        )
    return session


def purpose_of(headers: Headers, caller: Caller, *, url_eval: bool) -> Purpose:
    given = headers.get("x-purpose", "")
    try:
        asked = Purpose(given.lower()) if given else Purpose.TRAIN
    except ValueError:
        raise Refused(
            f"X-Purpose is {given!r}. Use train, eval or off.", param="X-Purpose", code="invalid_purpose"
        ) from None
    return max(asked, caller.purpose, Purpose.EVAL if url_eval else Purpose.TRAIN, key=_STRICTER.index)


def kind_of(headers: Headers) -> TurnKind | None:
    given = headers.get("x-turn-type", "")
    try:
        return TurnKind(given.lower()) if given else None
    except ValueError:
        raise Refused(
            f"X-Turn-Type is {given!r}. Use main or side.", param="X-Turn-Type", code="invalid_turn_type"
        ) from None


def priority_of(headers: Headers) -> Priority:
    """Nobody comes before the users, so a client may only ask to wait for others."""
    given = headers.get("x-priority", "")
    if given and given.upper() not in Priority.__members__:
        names = ", ".join(each.name.lower() for each in Priority)
        raise Refused(
            f"X-Priority is {given!r}. Use one of {names}.", param="X-Priority", code="invalid_priority"
        )
    return Priority[given.upper()] if given else Priority.USER


def task_key_of(headers: Headers, metadata: Mapping[str, Any]) -> str | None:
    given = headers.get("x-task-key") or metadata.get("task_key")
    return given[:MAX_TASK_KEY] if isinstance(given, str) and given else None
