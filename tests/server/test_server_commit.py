"""Law 3: what a client can act on leaves after the turn was committed."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from openai import APIError, InternalServerError
from openai.types.chat import ChatCompletionChunk
from server_house import BASH, MODEL, GatedLog, House, SteppedEngine, calls, says, serving, soon

from agentrl.errors import StoreError
from agentrl.store.signal_log import SignalLog
from agentrl.types import NextState

T = TypeVar("T")


class FullLog(SignalLog):
    """A log on a disk without room."""

    async def record_turn(self, *args: Any, **options: Any) -> None:
        raise StoreError("the disk is full")


def gated(house: House) -> GatedLog:
    assert isinstance(house.runtime.log, GatedLog)
    return house.runtime.log


async def gather(source: AsyncIterable[T], into: list[T]) -> None:
    """Keeps what came before an error."""
    async for item in source:
        into.append(item)  # noqa: PERF401


async def settled() -> None:
    """Lets everything that can happen without the gate happen: bytes cross the loopback socket in a few turns.

    That nothing comes is what is tested, and no event tells of it.
    """
    for _ in range(200):
        await asyncio.sleep(0.001)


async def test_a_plain_body_waits_for_the_commit(tmp_path: Path) -> None:
    async with serving(tmp_path, [says("Done.")], log_class=GatedLog) as house:
        asking = asyncio.create_task(house.ask("Hi"))
        await soon(gated(house).reached.wait())
        await settled()
        assert not asking.done()

        gated(house).gate.set()
        reply = await asking
        assert (await house.turn(reply.headers["X-Turn-Id"])).reply.text == "Done."


@pytest.mark.parametrize("reply", [calls("ls"), calls("ls", "pwd", text="Two calls."), says("Done.")])
async def test_no_event_that_a_client_can_act_on_leaves_before_the_commit(
    tmp_path: Path, reply: list[int]
) -> None:
    body = {"model": "nano", "stream": True, "messages": [{"role": "user", "content": "Hi"}], "tools": [BASH]}
    async with (
        serving(tmp_path, [reply], log_class=GatedLog) as house,
        house.http.stream("POST", "/v1/chat/completions", json=body) as response,
    ):
        lines: list[str] = []
        reading = asyncio.create_task(gather(response.aiter_lines(), lines))
        await soon(gated(house).reached.wait())
        await settled()
        before = [json.loads(line.removeprefix("data: "))["choices"][0] for line in lines if line]

        assert all(choice["finish_reason"] is None for choice in before)
        assert not any("tool_calls" in choice["delta"] for choice in before)
        gated(house).gate.set()
        await reading
        after = "".join(lines)
        assert "finish_reason" in after
        assert after.endswith("[DONE]")
        assert after.count('"name":"bash"') == sum(token == calls("x")[0] for token in reply)


async def test_a_reply_that_cannot_be_recorded_is_an_error(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda prompt, sampling: says("Lost."), log_class=FullLog) as house:
        with pytest.raises(InternalServerError, match="the disk is full") as refused:
            await house.client().chat.completions.create(
                model="nano", messages=[{"role": "user", "content": "Hi"}]
            )
        assert refused.value.status_code == 503
        assert refused.value.code == "store_failed"
        assert house.runtime.metrics.total("store_failures_total") == 1


async def test_a_stream_that_cannot_be_recorded_ends_in_an_error_event(tmp_path: Path) -> None:
    reply = calls("ls", text="Looking.")
    async with serving(tmp_path, [reply], log_class=FullLog, engine_class=SteppedEngine) as house:
        assert isinstance(house.engine, SteppedEngine)
        house.engine.permits.release()
        stream = await house.client().chat.completions.create(
            model="nano", messages=[{"role": "user", "content": "Hi"}], tools=[BASH], stream=True
        )
        for _ in range(len(reply)):
            house.engine.permits.release()
        chunks: list[ChatCompletionChunk] = []

        with pytest.raises(APIError, match="the disk is full"):
            await gather(stream, chunks)
        assert chunks
        assert all(chunk.choices[0].finish_reason is None for chunk in chunks)
        assert not any(chunk.choices[0].delta.tool_calls for chunk in chunks)


async def test_an_operator_may_choose_to_serve_unrecorded_and_is_told_how_often(tmp_path: Path) -> None:
    async with serving(
        tmp_path,
        lambda prompt, sampling: says("Served."),
        log_class=FullLog,
        server__on_store_failure="serve_unrecorded",
    ) as house:
        reply = (await house.ask("Hi")).json()["choices"][0]
        stream = await house.client().chat.completions.create(
            model="nano", messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        last = [chunk async for chunk in stream][-1].choices[0]

        assert (reply["message"]["content"], reply["agentrl"]["recorded"]) == ("Served.", False)
        assert last.finish_reason == "stop"
        assert (last.model_extra or {})["agentrl"]["recorded"] is False
        assert house.runtime.metrics.total("unrecorded_turns_total") == 2


class FillingLog(SignalLog):
    """The disk fills up behind the first turn."""

    num_turns = 0

    async def record_turn(self, *args: Any, **options: Any) -> None:
        self.num_turns += 1
        if self.num_turns > 1:
            raise StoreError("the disk is full")
        await super().record_turn(*args, **options)

    async def record_next_state(self, state: NextState) -> bool:
        raise StoreError("the disk is full")


@pytest.mark.parametrize(("choice", "status"), [("refuse", 503), ("serve_unrecorded", 200)])
async def test_a_next_state_that_cannot_be_recorded_follows_the_operator_s_choice(
    tmp_path: Path, choice: str, status: int
) -> None:
    async with serving(
        tmp_path, lambda *_: says("Ok."), log_class=FillingLog, server__on_store_failure=choice
    ) as house:
        await house.ask("Hi")
        said = {"role": "assistant", "content": "Ok."}
        second = await house.ask({"role": "user", "content": "Hi"}, said, "Go on.")

        assert second.status_code == status
        assert house.runtime.metrics.total("store_failures_total") >= 1


SERVER = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from server_house import says, serving

async def main():
    async with serving(Path(sys.argv[2]), lambda prompt, sampling: says("Kept.")) as house:
        print(house.runtime.base_url, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_an_acknowledged_turn_survives_kill_9(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SERVER,
        str(Path(__file__).parent),
        str(tmp_path),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(MODEL.parents[3])},
    )
    assert process.stdout is not None
    base_url = (await process.stdout.readline()).decode().strip()
    async with httpx.AsyncClient(base_url=base_url, timeout=20) as http:
        body = {"model": "nano", "messages": [{"role": "user", "content": "Hi"}]}
        replies = await asyncio.gather(*(http.post("/v1/chat/completions", json=body) for _ in range(20)))
    process.send_signal(signal.SIGKILL)
    await process.wait()

    async with await SignalLog.open(tmp_path) as log:
        for reply in replies:
            turn = await log.turn(reply.headers["X-Turn-Id"])
            assert turn is not None
            assert turn.reply.text == "Kept."
