"""Real clients: bodies recorded from them, and what they do when they go away."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from server_house import BASH, DATA, GatedLog, SteppedEngine, calls, eventually, says, serving, soon

from agentrl.types import End, FinishReason

RECORDED = sorted((DATA / "client-requests").glob("*.json"))
DROPPED_HEADERS = ("host", "content-length", "accept-encoding", "connection")


def chat_requests(path: Path) -> list[dict[str, Any]]:
    recorded = json.loads(path.read_text(encoding="utf-8"))
    return [one for one in recorded["requests"] if one["path"].endswith("/chat/completions")]


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
async def test_every_recorded_chat_request_is_served(tmp_path: Path, path: Path) -> None:
    requests = chat_requests(path)
    assert requests
    async with serving(
        tmp_path,
        lambda prompt, sampling: calls("echo hi", text="Let me check."),
        name="stub-model",
        engine_options={"max_len": 1 << 17},
    ) as house:
        for request in requests:
            headers = {
                name: value
                for name, value in request["headers"].items()
                if name.lower() not in DROPPED_HEADERS
            }
            response = await house.http.post("/v1/chat/completions", json=request["body"], headers=headers)

            assert response.status_code == 200, response.text
            assert (await house.turn(response.headers["X-Turn-Id"].partition(",")[0])).error is None
            if request["body"].get("stream"):
                assert response.text.endswith("data: [DONE]\n\n")


def test_there_are_recordings_of_every_client_that_speaks_chat() -> None:
    assert len(RECORDED) == 14


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_away_ends_its_request_and_its_turn(tmp_path: Path, stream: bool) -> None:
    reply = says("One two three four five.")
    async with serving(tmp_path, [reply], engine_class=SteppedEngine) as house:
        assert isinstance(house.engine, SteppedEngine)
        body = {"model": "nano", "messages": [{"role": "user", "content": "Count."}], "stream": stream}
        asking = asyncio.create_task(house.http.post("/s/a/v1/chat/completions", json=body))
        await soon(house.engine.arrived.acquire())
        for _ in range(3):
            house.engine.permits.release()

        async def three_sampled() -> bool:
            running = (await house.engine.capacity()).running
            return house.engine.permits.locked() and running == 1

        await eventually(three_sampled)
        asking.cancel()
        (turn,) = await eventually(lambda: house.turns("a"))
        state = await eventually(lambda: house.runtime.log.next_state(turn.id))

        assert turn.completion.token_ids == tuple(reply[:3])
        assert turn.completion.finish_reason is FinishReason.ABORT
        assert turn.error == "ClientGone: the client closed the connection"
        assert state.end is End.CLIENT_GONE
        assert (await house.engine.capacity()).running == 0


async def test_a_client_that_leaves_before_the_first_id_leaves_no_turn(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda prompt, sampling: says("Ok."), engine_class=SteppedEngine) as house:
        assert isinstance(house.engine, SteppedEngine)
        asking = asyncio.create_task(house.ask("Hi", path="/s/a"))
        await soon(house.engine.arrived.acquire())
        asking.cancel()

        async def idle() -> bool:
            return (await house.engine.capacity()).running == 0

        await eventually(idle)
        assert await house.turns("a") == []
        # the same question again is served as if nothing had been
        again = asyncio.create_task(house.ask("Hi", path="/s/a"))
        for _ in range(10):
            house.engine.permits.release()
        assert (await again).status_code == 200


async def test_nobody_trains_on_a_reply_that_its_client_never_took(tmp_path: Path) -> None:
    """The reply is complete and on its way into the log when the client leaves."""
    async with serving(tmp_path, [calls("ls")], log_class=GatedLog) as house:
        log = house.runtime.log
        assert isinstance(log, GatedLog)
        asking = asyncio.create_task(house.ask("Hi", tools=[BASH], path="/s/a"))
        await soon(log.reached.wait())
        asking.cancel()

        async def noticed() -> bool:
            return house.runtime.metrics.total("responses_total", status="499") == 1

        await eventually(noticed)
        log.gate.set()
        (turn,) = await eventually(lambda: house.turns("a"))
        state = await eventually(lambda: log.next_state(turn.id))
        assert turn.completion.token_ids == tuple(calls("ls"))
        assert state.end is End.CLIENT_GONE


async def test_a_deadline_ends_a_request_with_504(tmp_path: Path) -> None:
    async with serving(
        tmp_path, [says("One two.")], engine_class=SteppedEngine, server__request_timeout_s=0.3
    ) as house:
        assert isinstance(house.engine, SteppedEngine)
        house.engine.permits.release()
        refused = await house.ask("Hi", path="/s/a")

        assert refused.status_code == 504
        assert refused.json()["error"]["code"] == "deadline_exceeded"
        (turn,) = await eventually(lambda: house.turns("a"))
        assert turn.error is not None
        assert turn.error.startswith("Deadline: ")
