"""A user's function beside the event loop: it blocks nothing, takes no place of the server's, and is bounded."""

import asyncio
import threading
from typing import Any

import pytest

from agentrl.errors import JudgeError
from agentrl.signals.threads import Beside


async def test_a_function_that_blocks_holds_up_neither_the_loop_nor_the_pool_of_threads() -> None:
    go = threading.Event()

    def blocks(number: int) -> int:
        assert go.wait(30)
        return number

    calls = [asyncio.create_task(Beside(blocks)(number)) for number in range(40)]
    try:
        # More wait than the pool has threads; the loop and the pool go on.
        async with asyncio.timeout(20):
            assert await asyncio.to_thread(lambda: "served") == "served"
        assert not any(call.done() for call in calls)
    finally:
        go.set()
    assert await asyncio.gather(*calls) == list(range(40))


async def test_calls_that_nobody_waits_for_any_more_count_until_they_come_back() -> None:
    go, came = threading.Event(), threading.Semaphore(0)

    def blocks() -> int:
        came.release()
        assert go.wait(30)
        return 1

    beside = Beside(blocks, max_threads=2)
    calls = [asyncio.create_task(beside()) for _ in range(2)]
    for _ in range(2):
        assert await asyncio.to_thread(came.acquire, timeout=20)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    left = [thread for thread in threading.enumerate() if thread.name == "judge"]
    try:
        with pytest.raises(JudgeError, match="2 calls have not come back"):
            async with asyncio.timeout(10):
                await beside()
        assert len(left) == 2
        assert all(thread.daemon for thread in left)
    finally:
        go.set()
    for thread in left:
        await asyncio.to_thread(thread.join)
    async with asyncio.timeout(10):
        assert await beside() == 1


@pytest.mark.parametrize("error", [ValueError("no"), StopIteration("no"), SystemExit("no")])
async def test_whatever_a_function_raises_reaches_who_waits(error: BaseException) -> None:
    def fails() -> None:
        raise error

    with pytest.raises((ValueError, RuntimeError), match="no"):
        async with asyncio.timeout(20):
            await Beside(fails)()


async def test_a_function_may_be_async_or_return_what_is_awaited() -> None:
    async def later(value: str) -> str:
        return value

    def lazily(value: str) -> Any:
        return later(value)

    assert [await Beside(later)("a"), await Beside(lazily)(value="b")] == ["a", "b"]
