"""Replies in a form that the client demands: `response_format`, from the body to the model and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from httpx import AsyncClient
from openai import AsyncOpenAI, BadRequestError
from server_house import BASH, MODEL, TOKENIZER, says, serving

from agentrl.config import load_config
from server.runtime import Runtime

VERDICT = {
    "type": "object",
    "properties": {
        "why": {"type": "string", "maxLength": 12},
        "reward": {"enum": [-1, 0, 1]},
        "marks": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
    },
    "required": ["why", "reward", "marks"],
    "additionalProperties": False,
}
ASKED = [{"role": "user", "content": "Was the command right?"}]


def form(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "verdict", "schema": schema, "strict": True}}


def written(run_dir: Path) -> bytes:
    return b"".join(path.read_bytes() for path in run_dir.iterdir() if path.is_file())


async def test_nano_answers_in_the_form_that_was_asked_for(tmp_path: Path) -> None:
    config = load_config(
        model="nano",
        run_dir=str(tmp_path),
        server__port=0,
        learn__enabled=False,
        engine__precision="fp32",
        engine__max_len=1024,
    )
    async with (
        Runtime(config) as runtime,
        AsyncOpenAI(base_url=runtime.base_url + "/v1", api_key="any", max_retries=0) as client,
    ):
        ask: dict[str, Any] = {"model": "nano", "messages": ASKED, "temperature": 1.0, "max_tokens": 200}
        for seed in range(4):
            raw = await client.chat.completions.with_raw_response.create(
                **ask, seed=seed, response_format=form(VERDICT)
            )
            choice = raw.parse().choices[0]
            value = json.loads(choice.message.content or "")
            assert choice.finish_reason == "stop"
            # The fields come as the schema lists them: what is thought of first is written first.
            assert list(value) == ["why", "reward", "marks"]
            assert len(value["why"]) <= 12
            assert value["reward"] in (-1, 0, 1)
            assert 1 <= len(value["marks"]) <= 3
            assert {type(mark) for mark in value["marks"]} == {bool}

            stream = await client.chat.completions.create(
                **ask, seed=seed, response_format=form(VERDICT), stream=True
            )
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
            assert "".join(pieces) == choice.message.content

            turn = await runtime.log.turn(raw.headers["X-Turn-Id"])
            assert turn is not None
            assert json.loads(turn.sampling.grammar or "") == VERDICT
            sampled = turn.completion
            assert sampled.num_allowed is not None
            assert sampled.raw_logprobs is not None
            forced = [i for i, count in enumerate(sampled.num_allowed) if count == 1]
            assert len(forced) > 5
            assert {sampled.logprobs[i] for i in forced} == {0.0}
            assert min(sampled.raw_logprobs[i] for i in forced) < -0.1

        short = await client.chat.completions.create(
            **{**ask, "max_tokens": 3}, response_format=form(VERDICT)
        )
        assert short.choices[0].finish_reason == "length"
        plain = await client.chat.completions.create(**ask, seed=1, response_format={"type": "json_object"})
        assert (plain.choices[0].message.content or "").startswith("{")
        if plain.choices[0].finish_reason == "stop":
            assert isinstance(json.loads(plain.choices[0].message.content or ""), dict)

        with pytest.raises(BadRequestError, match="uniqueItems") as refused:
            await client.chat.completions.create(
                **ask, response_format=form({"type": "array", "uniqueItems": True})
            )
        assert refused.value.param == "response_format"
        head = {"Content-Type": "application/json"}
        for schema in ('{"maximum":1e999}', '{"maximum":NaN}', '{"items":' * 150 + "{}" + "}" * 150):
            asked = json.dumps(ask | {"response_format": form({})}).replace(
                '"schema": {}', f'"schema": {schema}'
            )
            async with AsyncClient(base_url=runtime.base_url) as plain_client:
                answer = await plain_client.post("/v1/chat/completions", content=asked, headers=head)
            assert answer.status_code == 400, answer.text
        # The engine is still the same one.
        after = await client.chat.completions.create(**ask, seed=0, response_format=form(VERDICT))
        assert json.loads(after.choices[0].message.content or "")


async def test_the_form_reaches_the_engine_in_the_clients_order(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda prompt, sampling: says("{}")) as house:
        for response_format in (form(VERDICT), {"type": "json_object"}, {"type": "text"}):
            assert (await house.ask("Hi", response_format=response_format)).status_code == 200

        asked = [request.sampling for request in house.engine.requests]
        assert [one.grammar for one in asked] == [json.dumps(VERDICT), '{"type":"object"}', None]
        assert {one.grammar_after for one in asked} == {None}


async def test_a_form_beside_tools_that_may_be_called_is_refused_with_the_remedy(tmp_path: Path) -> None:
    async with serving(tmp_path, [says("{}"), says("Ok.")]) as house:
        refused = await house.ask("Hi", tools=[BASH], response_format=form(VERDICT))
        error = refused.json()["error"]

        assert (refused.status_code, error["param"]) == (400, "response_format")
        assert "tool_choice 'none'" in error["message"]
        served = await house.ask("Hi", tools=[BASH], tool_choice="none", response_format=form(VERDICT))
        assert served.status_code == 200
        assert (await house.ask("Hi", tools=[BASH], response_format={"type": "text"})).status_code == 200


async def test_a_secret_in_a_form_is_served_and_never_written(tmp_path: Path) -> None:
    key = "sk-abcdefghijklmnop1234"
    async with serving(tmp_path, [says("{}")]) as house:
        reply = await house.ask("Hi", response_format=form({"enum": [key]}))
        turn = await house.turn(reply.headers["X-Turn-Id"])

        assert key in (house.engine.requests[0].sampling.grammar or "")
        assert json.loads(turn.sampling.grammar or "") == {"enum": ["*" * len(key)]}
    assert key.encode() not in written(tmp_path)


@pytest.mark.parametrize("given", [{}, {"name": "x"}, {"name": "x", "schema": [1]}])
async def test_a_json_schema_without_a_schema_is_refused(tmp_path: Path, given: dict[str, Any]) -> None:
    async with serving(tmp_path, []) as house:
        refused = await house.ask("Hi", response_format={"type": "json_schema", "json_schema": given})

        assert refused.status_code == 400
        assert "json_schema.schema" in refused.json()["error"]["message"]


async def test_where_prompts_open_reasoning_the_form_begins_behind_it(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for path in MODEL.iterdir():
        (model / path.name).write_bytes(path.read_bytes())
    settings = json.loads((model / "tokenizer_config.json").read_text())
    settings["chat_template"] = settings["chat_template"].replace(
        "{{ '<|im_start|>assistant\\n' }}\n{%- if enable_thinking",
        "{{ '<|im_start|>assistant\\n<think>\\n' }}\n{%- if enable_thinking",
    )
    (model / "tokenizer_config.json").write_text(json.dumps(settings))

    async with serving(tmp_path / "run", lambda prompt, sampling: says("Ok."), model=str(model)) as house:
        await house.ask("Hi", response_format=form(VERDICT))
        await house.ask("Hi")

        bound, free = [request.sampling for request in house.engine.requests]
        assert bound.grammar_after == TOKENIZER.token_to_id("</think>")
        assert free.grammar_after is None
