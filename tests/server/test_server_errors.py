"""Every refusal has OpenAI's shape, a status of its own and says what to do."""

import json
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from server_house import says, serving
from starlette.datastructures import Headers

from agentrl.config import ServerConfig
from agentrl.errors import ConfigError, EngineBusy, EngineGone
from server.auth import Door, bearer, operator_key, refuse_open_address
from server.run_folder import read_secret

HI = [{"role": "user", "content": "Hi"}]


def error_of(response: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


async def test_an_unknown_model_is_404_with_the_known_ones(tmp_path: Path) -> None:
    async with serving(tmp_path, []) as house:
        with pytest.raises(openai.NotFoundError) as refused:
            await house.client().chat.completions.create(model="gpt-4", messages=HI)  # type: ignore[arg-type]

        assert refused.value.code == "model_not_found"
        assert refused.value.message.endswith(
            "There is no model 'gpt-4' here. Known: nano, nano@0. `agentrl serve --set name=NAME` serves under "
            "another name."
        )


async def test_a_wrong_method_is_told_the_right_one(tmp_path: Path) -> None:
    async with serving(tmp_path, []) as house:
        refused = await house.http.get("/v1/chat/completions")

        assert (refused.status_code, refused.headers["Allow"]) == (405, "POST")
        assert error_of(refused) == {
            "message": "/v1/chat/completions does not take GET. Use POST.",
            "type": "invalid_request_error",
            "param": None,
            "code": "method_not_allowed",
        }


async def test_a_full_engine_is_429_with_a_time_to_wait(tmp_path: Path) -> None:
    async with serving(tmp_path, [EngineBusy("The queue is full.", retry_after_s=2.2)]) as house:
        with pytest.raises(openai.RateLimitError) as refused:
            await house.client().chat.completions.create(model="nano", messages=HI)  # type: ignore[arg-type]

        assert refused.value.response.headers["Retry-After"] == "3"
        assert refused.value.code == "engine_busy"


async def test_a_client_that_retries_is_served_once_there_is_room(tmp_path: Path) -> None:
    async with serving(tmp_path, [EngineBusy("Full.", retry_after_s=0.1), says("Ok.")]) as house:
        client = house.client(max_retries=2)
        reply = await client.chat.completions.create(model="nano", messages=HI)  # type: ignore[arg-type]

        assert reply.choices[0].message.content == "Ok."


async def test_a_dead_engine_is_503_and_named(tmp_path: Path) -> None:
    async with serving(tmp_path, [EngineGone("pulled")]) as house:
        refused = await house.ask("Hi")

        assert refused.status_code == 503
        assert error_of(refused)["code"] == "engine_gone"


async def test_an_unplanned_failure_tells_nothing_of_the_inside(tmp_path: Path) -> None:
    async with serving(tmp_path, [RuntimeError("secret detail")]) as house:
        refused = await house.ask("Hi")

        assert refused.status_code == 503
        assert "secret detail" not in refused.text
        assert (await house.http.get("/v1/models")).status_code == 200


@pytest.mark.parametrize(
    "body", ["", "{", "[]", '"x"', '{"model": "nano"}', '{"model": "nano", "messages": []}']
)
async def test_a_malformed_body_is_400(tmp_path: Path, body: str) -> None:
    async with serving(tmp_path, []) as house:
        refused = await house.http.post(
            "/v1/chat/completions", content=body, headers={"Content-Type": "application/json"}
        )
        assert refused.status_code == 400
        assert error_of(refused)["type"] == "invalid_request_error"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
async def test_a_body_that_does_not_say_it_is_json_is_415(tmp_path: Path, kind: str | None) -> None:
    async with serving(tmp_path, []) as house:
        refused = await house.http.post(
            "/v1/chat/completions",
            content=json.dumps({"model": "nano", "messages": HI}),
            headers={} if kind is None else {"Content-Type": kind},
        )
        assert refused.status_code == 415
        error_of(refused)


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_large_is_413(tmp_path: Path, chunked: bool) -> None:
    async def chunks() -> Any:
        for _ in range(20):
            yield b"x" * 100

    async with serving(tmp_path, [], server__max_body_bytes=1000) as house:
        refused = await house.http.post(
            "/v1/chat/completions",
            content=chunks() if chunked else b"x" * 2000,
            headers={"Content-Type": "application/json"},
        )
        assert refused.status_code == 413
        error_of(refused)


async def test_an_unknown_path_says_where_the_api_is(tmp_path: Path) -> None:
    async with serving(tmp_path, []) as house:
        missing = await house.http.post("/v1/responses", json={})
        wrong_method = await house.http.get("/v1/chat/completions")

        assert missing.status_code == 404
        assert "/v1/chat/completions" in error_of(missing)["message"]
        assert wrong_method.status_code == 405
        assert wrong_method.headers["Allow"] == "POST"
        error_of(wrong_method)


# keys


async def test_a_bad_key_is_401(tmp_path: Path) -> None:
    keys = [{"key": "right-key", "scope": "team"}]
    async with serving(tmp_path, [says("Ok.")], server__api_keys=keys) as house:
        with pytest.raises(openai.AuthenticationError) as refused:
            await house.client(key="wrong-key").models.list()
        assert refused.value.code == "invalid_api_key"
        assert (await house.ask("Hi")).status_code == 401

        raw = await house.client(key="right-key/s/s1").chat.completions.with_raw_response.create(
            model="nano",
            messages=HI,  # type: ignore[arg-type]
        )
        turn = await house.turn(raw.headers["X-Turn-Id"])
        assert (turn.scope, turn.session) == ("team", "s1")


async def test_the_run_folder_opens_status_and_metrics_and_nothing_else(tmp_path: Path) -> None:
    async with serving(tmp_path, [], server__api_keys=[{"key": "right-key"}]) as house:
        secret = read_secret(tmp_path)
        assert secret is not None
        operator = {"Authorization": f"Bearer {operator_key(secret)}"}

        assert (await house.http.get("/v1/status")).status_code == 401
        assert (await house.http.get("/v1/status", headers=operator)).status_code == 200
        assert (await house.http.get("/metrics", headers=operator)).status_code == 200
        assert (await house.http.get("/v1/models", headers=operator)).status_code == 401
        assert (await house.http.get("/healthz")).status_code == 200


def test_a_key_may_name_a_session() -> None:
    assert bearer(Headers({"authorization": "Bearer abc/s/one"})) == ("abc", "one")
    assert bearer(Headers({"authorization": "Bearer abc"})) == ("abc", None)
    assert bearer(Headers({"x-api-key": "abc"})) == ("abc", None)
    assert bearer(Headers({})) == ("", None)


# the door


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1:8765"}, None),
        ({"host": "localhost"}, None),
        ({"host": "[::1]:8765"}, None),
        ({"host": "gpu.example.org:8765"}, None),
        ({"host": "evil.example.org"}, 421),
        ({"host": "127.0.0.1.evil.example.org"}, 421),
        ({}, 421),
        ({"host": "localhost:1", "origin": "http://localhost:1"}, None),
        ({"host": "localhost:1", "origin": "https://ours.example.org"}, None),
        ({"host": "localhost:1", "origin": "http://localhost:2"}, 403),
        ({"host": "localhost:1", "origin": "null"}, 403),
        ({"host": "localhost:1", "origin": "https://evil.example.org"}, 403),
    ],
)
def test_the_door_knows_hosts_and_origins(headers: dict[str, str], status: int | None) -> None:
    config = ServerConfig(allowed_hosts=("gpu.example.org",), allowed_origins=("https://ours.example.org",))

    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    refusal = Door(app, config=config).refusal(Headers(headers))
    assert (refusal.status if refusal else None) == status


async def test_a_foreign_host_and_a_foreign_page_are_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, []) as house:
        rebound = await house.http.get("/v1/models", headers={"Host": "evil.example.org"})
        page = await house.ask("Hi", headers={"Origin": "https://evil.example.org"})

        assert (rebound.status_code, error_of(rebound)["code"]) == (421, "unknown_host")
        assert (page.status_code, error_of(page)["code"]) == (403, "foreign_origin")


async def test_a_page_that_is_allowed_may_read_the_reply(tmp_path: Path) -> None:
    page = "https://ours.example.org"
    async with serving(tmp_path, [says("Ok.")], server__allowed_origins=[page]) as house:
        asked = {"Origin": page, "Access-Control-Request-Method": "POST"}
        preflight = await house.http.options(
            "/v1/chat/completions", headers=asked | {"Access-Control-Request-Headers": "content-type"}
        )
        reply = await house.ask("Hi", headers={"Origin": page})

        assert preflight.status_code == 200
        assert reply.headers["Access-Control-Allow-Origin"] == page
        assert "X-Turn-Id" in reply.headers["Access-Control-Expose-Headers"]


def test_another_address_than_loopback_needs_a_key() -> None:
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org"):
        with pytest.raises(ConfigError, match="api_keys"):
            refuse_open_address(ServerConfig(host=host))
        refuse_open_address(ServerConfig.model_validate({"host": host, "api_keys": [{"key": "long-enough"}]}))
    for host in ("127.0.0.1", "127.0.0.2", "localhost", "::1"):
        refuse_open_address(ServerConfig(host=host))


async def test_health_asks_the_engine_and_not_only_the_web_server(tmp_path: Path) -> None:
    async with serving(tmp_path, []) as house:
        assert (await house.http.get("/healthz")).json()["status"] == "ok"

    class Gone(type(house.engine)):  # type: ignore[misc]
        async def capacity(self) -> Any:
            raise EngineGone("pulled")

    async with serving(tmp_path, [], engine_class=Gone) as house:
        response = await house.http.get("/healthz")
        assert response.status_code == 503
        assert error_of(response)["code"] == "engine_gone"


async def test_metrics_are_in_prometheus_form(tmp_path: Path) -> None:
    async with serving(tmp_path, [says("Ok.")]) as house:
        await house.ask("Hi")
        text = (await house.http.get("/metrics")).text

        assert 'agentrl_turns_total{arm="learning",kind="main",purpose="train"} 1.0' in text
        assert 'agentrl_responses_total{status="200"} 1.0' in text
        assert "agentrl_turn_seconds_bucket" in text
        assert "agentrl_policy_version 0.0" in text
