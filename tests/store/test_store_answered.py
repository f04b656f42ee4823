"""Waiting for the log, and being stopped at that."""

import asyncio
from pathlib import Path

import pytest
from store_samples import answer, make_turn, record

from agentrl.store.signal_log import SignalLog


@pytest.mark.parametrize("num_turns", range(6))
async def test_who_waits_for_news_can_be_stopped_at_the_moment_they_come(
    tmp_path: Path, num_turns: int
) -> None:
    async with await SignalLog.open(tmp_path) as log:
        await record(log, make_turn("t1"))
        waiting = asyncio.create_task(log.answered(60.0))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await answer(log, "t1")
        # So many turns of the event loop after the news.
        for _ in range(num_turns):
            await asyncio.sleep(0)

        if waiting.cancel():
            await asyncio.wait([waiting])
            assert waiting.cancelled()


async def test_without_news_the_wait_ends_in_time(tmp_path: Path) -> None:
    async with await SignalLog.open(tmp_path) as log:
        await asyncio.wait_for(log.answered(0.01), 10)
