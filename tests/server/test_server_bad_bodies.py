"""A client that sends something wrong is told what, in the names and places of what it sent."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from server_house import eventually, says, serving

HI = [{"role": "user", "content": "Hi"}]


def said(content: Any, role: str = "user") -> dict[str, Any]:
    return {"messages": [*HI, {"role": role, "content": content}]}


@pytest.mark.parametrize(
    ("change", "param", "message"),
    [
        (said(5), "messages[1].content", "messages[1].content must be a string or a list of parts (got 5)."),
        (
            said({"type": "text", "text": "Hi"}),
            "messages[1].content",
            "messages[1].content must be a string or a list of parts (got an object).",
        ),
        (
            said([{"type": 5}, 7]),
            "messages[1].content[0].type",
            "messages[1].content[0].type must be a string (got 5) (and 1 more).",
        ),
        (
            said([{"type": "image_url", "image_url": {"url": "data:"}}]),
            "messages[1].content",
            "messages[1].content[0] is of type 'image_url'; this model takes text only",
        ),
        (
            said([{"type": "text"}]),
            "messages[1].content",
            "messages[1].content[0] is of type 'text' and holds no text",
        ),
        (
            said("4", role="function"),
            "messages[1].role",
            "messages[1].role must be 'system', 'developer', 'user', 'assistant' or 'tool' (got \"function\").",
        ),
        (
            {"messages": [*HI, {"role": "user"}]},
            "messages[1].content",
            "messages[1].content is missing: a user message needs a text.",
        ),
        (
            said(None, role="system"),
            "messages[1].content",
            "messages[1].content is missing: a system message needs a text.",
        ),
        (
            {"messages": [*HI, {"role": "tool", "tool_call_id": "call1"}]},
            "messages[1].content",
            "messages[1].content is missing: a tool message needs a text.",
        ),
        ({"messages": []}, "messages", "messages must not be empty."),
        ({"messages": "Hi"}, "messages", 'messages must be a list (got "Hi").'),
        ({"messages": "x" * 99}, "messages", "messages must be a list (got 99 characters)."),
        ({"stop": 5}, "stop", "stop must be a string or a list of strings (got 5)."),
        ({"stop": ["a", 5]}, "stop[1]", "stop[1] must be a string (got 5)."),
        (
            {"tool_choice": "any"},
            "tool_choice",
            "tool_choice must be 'none', 'auto' or 'required' or an object that names a function (got \"any\").",
        ),
        ({"tool_choice": {"type": "function"}}, "tool_choice.function", "tool_choice.function is missing."),
        (
            {"tools": [{"type": "function", "function": {"name": ""}}]},
            "tools[0].function.name",
            "tools[0].function.name must not be empty.",
        ),
        (
            {"temperature": 11, "n": 2.5},
            "n",
            "n must be a whole number (got 2.5) (and 1 more).",
        ),
        ({"top_p": 0}, "top_p", "top_p must be above 0 (got 0)."),
        ({"n": 17}, "n", "n must be at most 16 (got 17)."),
        ({"max_tokens": 0}, "max_tokens", "max_tokens must be at least 1 (got 0)."),
        ({"logprobs": "perhaps"}, "logprobs", 'logprobs must be true or false (got "perhaps").'),
        (
            {"logit_bias": {"50256": "no"}},
            "logit_bias.50256",
            'logit_bias.50256 must be a number (got "no").',
        ),
        ({"response_format": "json"}, "response_format", 'response_format must be an object (got "json").'),
    ],
)
async def test_the_openai_client_is_told_what_is_wrong_where(
    tmp_path: Path, change: dict[str, Any], param: str, message: str
) -> None:
    async with serving(tmp_path, lambda prompt, sampling: says("Ok.")) as house:
        request = {"model": "nano", "messages": HI} | change
        with pytest.raises(openai.BadRequestError) as refused:
            await house.client().chat.completions.create(**request)

        assert refused.value.body == {
            "message": message,
            "type": "invalid_request_error",
            "param": param,
            "code": refused.value.code,
        }
        assert refused.value.code in ("invalid_value", None)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "The body is not valid JSON: EOF while parsing a value at line 1 column 0."),
        ('{"model": "nano",}', "The body is not valid JSON: trailing comma at line 1 column 18."),
        ("[1]", "The body must be an object (got a list)."),
        ('{"model": "nano"}', "messages is missing."),
        ('{"messages": [{"role": "user"}, {}]}', "model is missing (and 1 more)."),
    ],
)
async def test_a_body_that_is_no_request_says_so(tmp_path: Path, body: str, message: str) -> None:
    async with serving(tmp_path, []) as house:
        refused = await post(house.http, "/v1/chat/completions", body)

        assert (refused.status_code, refused.json()["error"]["message"]) == (400, message)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            '{"rewrd": 1}',
            "There is no field 'rewrd'. Known: turn_id, response_id, session, reward, text, preferred, end_session, "
            "source.",
        ),
        ('{"reward": 2}', "reward must be at most 1 (got 2)."),
        ('{"source": "me"}', "source must be 'user' or 'environment' (got \"me\")."),
        (
            '{"text": "' + "a" * 2001 + '"}',
            "text must be at most 2000 characters long (got 2001 characters).",
        ),
    ],
)
async def test_feedback_that_cannot_be_read_names_the_field(tmp_path: Path, body: str, message: str) -> None:
    async with serving(tmp_path, []) as house:
        refused = await post(house.http, "/v1/feedback", body)

        assert (refused.status_code, refused.json()["error"]["message"]) == (400, message)


async def post(http: httpx.AsyncClient, path: str, body: str) -> httpx.Response:
    return await http.post(path, content=body, headers={"Content-Type": "application/json"})


async def test_only_an_assistants_message_may_hold_calls_and_no_text(tmp_path: Path) -> None:
    call = {"id": "call1", "type": "function", "function": {"name": "bash", "arguments": "{}"}}
    result = {"role": "tool", "tool_call_id": "call1", "content": ""}
    async with serving(tmp_path, [says("Hi.")]) as house:
        reply = await house.ask(*HI, {"role": "assistant", "tool_calls": [call]}, result)

        assert reply.status_code == 200


async def test_a_client_that_goes_away_while_its_body_is_read_leaves_no_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path, [says("Hi.")]) as house:
        for path in ("chat/completions", "feedback"):
            _, writer = await asyncio.open_connection(
                "127.0.0.1", int(house.runtime.base_url.rpartition(":")[2])
            )
            head = f"POST /v1/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            writer.write(f"{head}Content-Length: 9999\r\n\r\n{{".encode())
            await writer.drain()
            writer.close()
            await writer.wait_closed()

        async def is_counted() -> bool:
            return 'responses_total{status="499"}' in (await house.http.get("/metrics")).text

        await eventually(is_counted)

    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
