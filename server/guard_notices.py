"""What the learner's guards have done, on the console of the server: learning that was paused or goes on, and alarms of
the watch with what serves again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from agentrl.learner.control import ALARMED
from server.guard_pages import RESUME, alarm_said, guards_of

LOOK_S: Final = 1.0

logger = logging.getLogger(__name__)


def news(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A sentence for each thing that has changed between two reports of `guards_of`; of a pause without a reason none,
    for somebody has asked for it and knows."""
    found = []
    alarm = now.get("alarm")
    if alarm is not None and alarm != before.get("alarm"):
        found.append(f"{ALARMED} at {alarm_said(alarm)}")
    was, because = before["paused_because"], now["paused_because"]
    if because and not was:
        # the watch pauses first and reports when it has acted: its reasons are told with the alarm, and once
        why = " by the watch" if because.startswith(ALARMED) else f" ({because})"
        found.append(f"learning is paused{why}, serving goes on: {RESUME}")
    if was and not now["paused"]:
        found.append("learning goes on")
    return found


async def tell(run_dir: Path, *, look_s: float = LOOK_S) -> None:
    """Until cancelled: says what is new on the console. A pause from before the start is said too."""
    before = await asyncio.to_thread(guards_of, run_dir)
    _say(news(before | {"paused": False, "paused_because": None}, before))
    while True:
        await asyncio.sleep(look_s)
        now = await asyncio.to_thread(guards_of, run_dir)
        _say(news(before, now))
        before = now


def _say(texts: list[str]) -> None:
    for text in texts:
        logger.warning("%s", text)
