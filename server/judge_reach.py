"""Does a judge's endpoint answer at all? Asked once, before anybody needs its word."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Final

import httpx

from agentrl.config import JudgeConfig

REACH_S: Final = 5.0
"""How long an endpoint has for its first word."""
REMEDY: Final = (
    "start it, or mend judge.base_url; until it answers only the rules judge, and judge.backend = 'rules' leaves it "
    "out"
)

logger = logging.getLogger(__name__)


def unreachable(settings: JudgeConfig) -> str | None:
    """Why the endpoint of backend "openai" cannot judge, with the remedy; None where it answers, or none is asked.

    It is asked for its models, which costs nothing. An endpoint without such a list says so, and has answered.
    """
    if settings.backend != "openai":
        return None
    key = os.environ.get(settings.api_key_env, "").strip() if settings.api_key_env else ""
    if not can_be_sent(key):
        return unsendable(settings)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    base = settings.base_url.rstrip("/")
    try:
        reply = httpx.get(f"{base}/models", headers=headers, timeout=min(REACH_S, settings.timeout_s))
    except (
        httpx.HTTPError,
        httpx.InvalidURL,
        UnicodeError,
    ) as error:  # the last of names that no host can have
        why = type(error).__name__ + (f": {error}" if str(error) else "")
        return f"the judge's endpoint {base} does not answer ({why}): {REMEDY}"
    if reply.status_code in (401, 403) and (key or not settings.api_key_env):
        # Without the key that the settings name this process cannot tell: the server may have it.
        return (
            f"the judge's endpoint {base} refuses us with status {reply.status_code}: set judge.api_key_env to the "
            "name of the environment variable that holds a valid key"
        )
    return None


def can_be_sent(key: str) -> bool:
    """Whether a header can carry a key. The HTTP client's error over one that cannot be would hold the key."""
    return key.isascii() and key.isprintable()


def unsendable(settings: JudgeConfig) -> str:
    return (
        f"the key in {settings.api_key_env}, which judge.api_key_env names, holds a line break or another character "
        "that no header can carry: set it to the key alone"
    )


async def warn_unreachable(settings: JudgeConfig) -> None:
    """Says in the server's log where the judge cannot be reached; serving goes on."""
    why = await asyncio.to_thread(unreachable, settings)
    if why is not None:
        logger.warning("%s", why)
