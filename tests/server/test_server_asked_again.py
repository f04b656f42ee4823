"""The same question again: a user who wants another answer, a client that retries, a program that samples."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from openai import InternalServerError
from rewrites_house import ask, end_of, pairs_of, reply, signal_of, user
from server_house import BASH, SteppedEngine, calls, says, serving, soon

from agentrl.engine.base import Finished, Sampled
from agentrl.engine.scripted import ScriptedEngine
from agentrl.errors import EngineError

ASKED = user("Name a colour.")
THANKS = user("Thanks. And a shape?")
PATHS = ("/s/a/v1", "/v1")
NAMED = "/s/a/v1"
COLOURS = [says(f"{name}.") for name in ("Red", "Blue", "Green", "Black", "White", "Brown", "Grey", "Pink")]


async def test_the_answer_that_a_user_had_replaced_loses_to_the_one_he_goes_on_from(tmp_path: Path) -> None:
    async with serving(tmp_path, COLOURS) as house:
        client = house.client(NAMED)
        red = await ask(client, ASKED)
        blue = await ask(client, ASKED)
        assert (red.text, blue.text) == ("Red.", "Blue.")
        assert await end_of(house, red) is None  # nobody knows yet which one is kept

        await ask(client, ASKED, blue.message, THANKS)

        assert [await end_of(house, told) for told in (red, blue)] == ["regenerated", "answered"]
        assert ((await signal_of(house, red)).reward, (await signal_of(house, red)).preferred) == (-1.0, None)
        assert pairs_of(tmp_path) == [("Red.", False), ("Blue.", True)]


@pytest.mark.parametrize("path", PATHS)
async def test_the_second_reply_of_a_conversation_can_be_replaced_twice_and_streamed(
    tmp_path: Path, path: str
) -> None:
    async with serving(tmp_path, COLOURS) as house:
        client = house.client(path)
        red = await ask(client, ASKED)
        said: Any = [ASKED, red.message, THANKS]
        blue = await ask(client, *said)
        stream = await client.chat.completions.create(model="nano", messages=said, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "Green."
        black = await ask(client, *said)
        await ask(client, *said, black.message, user("And a number?"))

        assert [await end_of(house, told) for told in (red, blue, black)] == [
            "answered",
            "regenerated",
            "answered",
        ]
        assert pairs_of(tmp_path) == [("Blue.", False), ("Green.", False), ("Black.", True)]


async def test_two_users_of_one_client_who_begin_alike_replace_nothing_of_each_other(tmp_path: Path) -> None:
    """Nobody named their sessions. Behind a reply of ours each is known, and may have the next one replaced."""
    async with serving(tmp_path, COLOURS) as house:
        anna, bert = house.client(), house.client()
        red, blue = await ask(anna, ASKED), await ask(bert, ASKED)
        green = await ask(bert, ASKED, blue.message, THANKS)
        assert [await end_of(house, told) for told in (red, blue)] == [None, "answered"]
        assert (await house.turn(red.turn_id)).session != (await house.turn(blue.turn_id)).session

        black = await ask(anna, ASKED, red.message, THANKS)
        white = await ask(bert, ASKED, blue.message, THANKS)
        await ask(bert, ASKED, blue.message, THANKS, white.message, user("And a number?"))
        ends = [await end_of(house, told) for told in (red, blue, green, black, white)]
        assert ends == ["answered", "answered", "regenerated", None, "answered"]
        assert pairs_of(tmp_path) == [("Green.", False), ("White.", True)]


async def test_what_was_replaced_and_then_rewritten_loses_to_what_was_written(tmp_path: Path) -> None:
    async with serving(tmp_path, COLOURS) as house:
        client = house.client(NAMED)
        red, blue = await ask(client, ASKED), await ask(client, ASKED)
        await ask(client, ASKED, reply("A deep green."), THANKS)

        assert [await end_of(house, told) for told in (red, blue)] == ["regenerated", "edited"]
        assert (await signal_of(house, blue)).preferred == "A deep green."
        assert pairs_of(tmp_path) == [("Red.", False), ("Blue.", False), ("A deep green.", True)]


async def test_who_returns_to_the_first_answer_preferred_nothing_to_it(tmp_path: Path) -> None:
    async with serving(tmp_path, COLOURS) as house:
        client = house.client("/s/a/v1")
        red, blue, green = [await ask(client, ASKED) for _ in range(3)]
        await ask(client, ASKED, blue.message, THANKS)

        assert [await end_of(house, told) for told in (red, blue, green)] == [None, "answered", None]


@asynccontextmanager
async def losing_the_first_reply(base_url: str) -> AsyncIterator[str]:
    """A proxy that takes the first reply from the server whole and then drops the client's connection."""
    where = urlsplit(base_url)
    num_requests = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal num_requests
        num_requests += 1
        loses = num_requests == 1
        request = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in request.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        )
        body = await reader.readexactly(length)
        head, _, rest = request.partition(b"\r\n")
        upstream, out = await asyncio.open_connection(where.hostname, where.port)
        kept = b"\r\n".join(
            line for line in rest.split(b"\r\n") if not line.lower().startswith(b"connection")
        )
        out.write(head + b"\r\nConnection: close\r\n" + kept + body)
        answer = await upstream.read()
        out.close()
        if not loses:
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("path", PATHS)
async def test_what_the_sdk_sends_again_after_a_lost_reply_is_a_retry(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path, COLOURS) as house, losing_the_first_reply(house.runtime.base_url) as url:
        client = house.client(path, max_retries=2).with_options(base_url=url + path)
        blue = await ask(client, ASKED)
        assert blue.text == "Blue."  # the engine answered twice, the client saw one answer
        await ask(client, ASKED, blue.message, THANKS)

        session = (await house.turn(blue.turn_id)).session
        red, *_ = await house.turns(session)
        state = await house.runtime.log.next_state(red.id)
        assert (red.reply.text, state and state.end) == ("Red.", "retried")
        assert pairs_of(tmp_path) == []


class FailingSecond(ScriptedEngine):
    async def generate(self, *args: Any, **options: Any) -> AsyncIterator[Sampled | Finished]:
        async for event in super().generate(*args, **options):
            yield event
            if len(self.requests) == 2:
                raise EngineError("The engine is gone.")


async def test_an_answer_that_failed_in_between_was_not_replaced(tmp_path: Path) -> None:
    async with serving(tmp_path, COLOURS, engine_class=FailingSecond) as house:
        client = house.client(NAMED)
        red = await ask(client, ASKED)
        with pytest.raises(InternalServerError) as failed:
            await ask(client, ASKED)
        green = await ask(client, ASKED)
        await ask(client, ASKED, green.message, THANKS)

        assert [await end_of(house, told) for told in (red, green)] == ["regenerated", "answered"]
        counts = await house.runtime.log.counts()
        assert (failed.value.status_code, counts["turns.errors"], counts["ends.regenerated"]) == (503, 1, 1)


async def test_more_samples_than_a_user_asks_for_are_nobodys_dissatisfaction(tmp_path: Path) -> None:
    async with serving(tmp_path, COLOURS) as house:
        client = house.client(NAMED)
        samples = [await ask(client, ASKED, temperature=1.0) for _ in range(6)]
        await ask(client, ASKED, samples[-1].message, THANKS)

        assert [await end_of(house, told) for told in samples] == [None] * 5 + ["answered"]


@pytest.mark.parametrize("path", PATHS)
async def test_samples_that_overlap_are_nobodys_dissatisfaction(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path, COLOURS, engine_class=SteppedEngine) as house:
        assert isinstance(house.engine, SteppedEngine)
        client = house.client(path)
        tasks = []
        for _ in range(3):
            tasks.append(asyncio.create_task(ask(client, ASKED, temperature=1.0)))
            await soon(house.engine.arrived.acquire())
        for _ in range(100):
            house.engine.permits.release()
        samples = [await soon(task) for task in tasks]
        await ask(client, ASKED, samples[-1].message, THANKS)

        assert "regenerated" not in [await end_of(house, told) for told in samples]


async def test_conversations_that_begin_alike_are_no_replaced_answers(tmp_path: Path) -> None:
    """Another request in between, another session, another client: nobody had an answer replaced."""
    async with serving(tmp_path, COLOURS) as house:
        client = house.client()
        first = await ask(client, ASKED)
        await ask(client, user("Something else."))
        second = await ask(client, ASKED, extra_headers={"User-Agent": "another"})
        third = await ask(client, ASKED)
        await ask(client, ASKED, third.message, THANKS)
        fourth = await ask(client, ASKED, extra_headers={"X-Session-Id": "run~g7~1"})
        fifth = await ask(client, ASKED, extra_headers={"X-Session-Id": "run~g7~2"})
        await ask(client, ASKED, fifth.message, THANKS, extra_headers={"X-Session-Id": "run~g7~2"})

        ends = [await end_of(house, told) for told in (first, second, third, fourth, fifth)]
        assert ends == [None, None, "answered", None, "answered"]


async def test_an_agent_that_goes_on_with_what_its_tool_returned_has_replaced_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path, [says("No."), calls("ls"), says("Done.")]) as house:
        options: dict[str, Any] = {"tools": [BASH], "headers": {"X-Session-Id": "a"}}
        no = (await house.ask(ASKED, **options)).headers["X-Turn-Id"]
        call = (await house.ask(ASKED, **options)).json()["choices"][0]["message"]
        result = {"role": "tool", "tool_call_id": call["tool_calls"][0]["id"], "content": "a.txt"}
        await house.ask(ASKED, {"role": "assistant", "tool_calls": call["tool_calls"]}, result, **options)

        assert await house.runtime.log.next_state(no) is None


async def test_an_evaluation_replaces_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path, COLOURS) as house:
        client = house.client("/s/a/eval/v1")
        red, blue = await ask(client, ASKED), await ask(client, ASKED)
        await ask(client, ASKED, blue.message, THANKS)

        assert [await end_of(house, told) for told in (red, blue)] == [None, "answered"]


async def test_the_same_answer_twice_is_gone_on_from(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda *_: says("Red.")) as house:
        client = house.client("/s/a/v1")
        first, again = await ask(client, ASKED), await ask(client, ASKED)
        third = await ask(client, ASKED, again.message, THANKS)

        assert (await house.turn(third.turn_id)).parent == again.turn_id
        assert [await end_of(house, told) for told in (first, again)] == ["regenerated", "answered"]
