"""Asking a model over a real socket, and a function: votes, refusals, limits, and what is counted."""

import asyncio
import json
from typing import Any

import pytest
from judge_endpoint import Body, Endpoint, endpoint, refusal
from starlette.responses import JSONResponse, Response

from agentrl.errors import JudgeError
from agentrl.signals.asker import AskError, CallableAsker, OpenAIAsker, estimated
from agentrl.signals.meter import Meter

SCHEMA = {"type": "object"}
MESSAGES = [{"role": "user", "content": "Was it right?"}]


async def ask(asker: OpenAIAsker | CallableAsker, num: int = 3, timeout_s: float = 10.0) -> list[str]:
    try:
        return await asker.ask(MESSAGES, schema=SCHEMA, num=num, temperature=0.5, timeout_s=timeout_s)
    finally:
        await asker.aclose()


def choices(body: Body) -> list[str]:
    return [f"vote {n}" for n in range(body.get("n", 1))]


async def test_votes_are_one_request_with_the_schema_and_what_it_cost_is_counted() -> None:
    meter = Meter()
    async with endpoint(choices) as served:
        asker = OpenAIAsker(served.base_url, "m", meter=meter, api_key="sk-key", max_tokens=77)
        assert await ask(asker) == ["vote 0", "vote 1", "vote 2"]

    assert served.bodies == [
        {
            "model": "m",
            "messages": MESSAGES,
            "temperature": 0.5,
            "n": 3,
            "max_tokens": 77,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "verdict", "schema": SCHEMA, "strict": True},
            },
        }
    ]
    assert served.headers[0]["authorization"] == "Bearer sk-key"
    assert meter.counts == {"requests": 1, "prompt_tokens": 100, "sampled_tokens": 30}


async def test_one_vote_asks_for_no_n_and_no_key_sends_none() -> None:
    async with endpoint(choices) as served:
        await ask(OpenAIAsker(served.base_url, "m", meter=Meter()), num=1)

    assert "n" not in served.bodies[0]
    assert "authorization" not in served.headers[0]


@pytest.mark.parametrize(("form", "sent"), [("json_object", {"type": "json_object"}), ("text", None)])
async def test_the_form_is_the_one_that_the_settings_name(form: Any, sent: Any) -> None:
    async with endpoint(choices) as served:
        await ask(OpenAIAsker(served.base_url, "m", meter=Meter(), form=form))

    assert served.bodies[0].get("response_format") == sent


@pytest.mark.parametrize(
    "refused",
    [
        lambda: refusal(400, "Only one completion choice is allowed", param="n"),
        lambda: refusal(400, "n must be 1"),
        lambda: refusal(422, "'n': greater than 1 is not supported, n should be 1"),
        lambda: Response(json.dumps({"detail": "multiple choices are not implemented"}), status_code=501),
    ],
)
async def test_where_n_is_refused_every_vote_is_a_request_at_the_same_time(refused: Any) -> None:
    def script(body: Body) -> list[str] | Response:
        return refused() if body.get("n", 1) > 1 else ["one"]

    async with endpoint(script) as served:
        asker = OpenAIAsker(served.base_url, "m", meter=Meter())
        first = await asker.ask(MESSAGES, schema=SCHEMA, num=3, temperature=0.5, timeout_s=10)
        served.gate.clear()
        second = asyncio.create_task(ask(asker))
        for _ in range(4 + 3):
            await served.asked.acquire()
        assert served.waiting == 3
        served.gate.set()
        assert (first, await second) == (["one"] * 3, ["one"] * 3)

    # Learned once: 1 refused + 3, then 3.
    assert [body.get("n") for body in served.bodies] == [3, None, None, None, None, None, None]


async def test_an_endpoint_that_reads_over_n_is_asked_for_the_missing_votes() -> None:
    async with endpoint(lambda body: ["one"]) as served:
        asker = OpenAIAsker(served.base_url, "m", meter=Meter())
        assert await asker.ask(MESSAGES, schema=SCHEMA, num=3, temperature=0.5, timeout_s=10) == ["one"] * 3
        assert await ask(asker, num=2) == ["one"] * 2

    assert [body.get("n") for body in served.bodies] == [3, None, None, None, None]


async def test_of_votes_asked_one_by_one_those_that_came_are_kept() -> None:
    left = iter([["one"], refusal(500, "out of memory"), ["two"]])
    async with endpoint(lambda body: refusal(400, "n must be 1") if "n" in body else next(left)) as served:
        assert sorted(await ask(OpenAIAsker(served.base_url, "m", meter=Meter()))) == ["one", "two"]


async def test_a_refusal_for_another_reason_is_no_reason_to_ask_one_by_one() -> None:
    async with endpoint(lambda body: refusal(400, "unknown parameter", param="model")) as served:
        with pytest.raises(AskError, match="unknown parameter"):
            await ask(OpenAIAsker(served.base_url, "m", meter=Meter()))

    assert len(served.bodies) == 1


async def test_newer_models_call_the_limit_by_another_name() -> None:
    def script(body: Body) -> list[str] | Response:
        if "max_tokens" in body:
            return refusal(400, "Use 'max_completion_tokens' instead of 'max_tokens'.", param="max_tokens")
        return choices(body)

    async with endpoint(script) as served:
        assert len(await ask(OpenAIAsker(served.base_url, "m", meter=Meter(), max_tokens=9))) == 3

    assert served.bodies[-1]["max_completion_tokens"] == 9
    assert "max_tokens" not in served.bodies[-1]


async def test_requests_under_way_when_the_other_name_is_learned_are_sent_again_as_well() -> None:
    def script(body: Body) -> list[str] | Response:
        if "max_tokens" in body:
            return refusal(400, "Use 'max_completion_tokens' instead.", param="max_tokens")
        return choices(body)

    async with endpoint(script) as served:
        served.gate.clear()
        asker = OpenAIAsker(served.base_url, "m", meter=Meter())
        asked = [
            asyncio.create_task(asker.ask(MESSAGES, schema=SCHEMA, num=1, temperature=0.5, timeout_s=10))
            for _ in range(2)
        ]
        for _ in asked:
            await served.asked.acquire()
        served.gate.set()
        assert await asyncio.gather(*asked) == [["vote 0"], ["vote 0"]]
        await asker.aclose()


async def test_no_part_of_a_key_that_an_endpoint_repeats_is_passed_on() -> None:
    key = "sk-" + "k" * 60
    async with endpoint(lambda body: refusal(400, "x" * 280 + key)) as served:
        with pytest.raises(AskError) as failure:
            await ask(OpenAIAsker(served.base_url, "m", meter=Meter(), api_key=key))

    assert "***" in str(failure.value)
    assert "sk-k" not in str(failure.value)


async def test_votes_that_are_requests_of_their_own_stay_within_the_calls_of_the_hour() -> None:
    meter = Meter(max_calls=3)
    async with endpoint(lambda body: refusal(400, "n must be 1") if "n" in body else ["one"]) as served:
        assert await ask(OpenAIAsker(served.base_url, "m", meter=meter), num=5) == ["one"] * 2
        with pytest.raises(AskError, match="of this hour are spent"):
            await ask(OpenAIAsker(served.base_url, "m", meter=meter), num=1)

    assert len(served.bodies) == meter.counts["requests"] == 3

    meter = Meter(max_calls=2)
    assert await ask(CallableAsker(lambda messages: "one", meter=meter), num=5) == ["one"] * 2
    assert meter.counts["requests"] == 2


@pytest.mark.parametrize(
    ("status", "message", "may_pass", "too_long", "words"),
    [
        (400, "bad", False, False, "status 400: bad"),
        (401, "no such key sk-key", False, False, r"\*\*\*.*judge.api_key_env"),
        (403, "no", False, False, "judge.api_key_env"),
        (404, "no such model", False, False, "no such model"),
        (400, "response_format is not supported", False, False, "judge.response_format to 'json_object'"),
        (400, "maximum context length is 4096 tokens", False, True, "4096"),
        (400, "The conversation is refused (context_length_exceeded)", False, True, "refused"),
        (429, "slow down", True, False, "429"),
        (500, "oops", True, False, "500"),
        (503, "loading", True, False, "503"),
    ],
)
async def test_a_failure_says_whether_it_may_pass_and_what_to_do(
    status: int, message: str, may_pass: bool, too_long: bool, words: str
) -> None:
    async with endpoint(lambda body: refusal(status, message)) as served:
        with pytest.raises(AskError, match=words) as caught:
            await ask(OpenAIAsker(served.base_url, "m", meter=Meter(), api_key="sk-key"))

    assert (caught.value.may_pass, caught.value.too_long) == (may_pass, too_long)
    assert "sk-key" not in str(caught.value)
    assert isinstance(caught.value, JudgeError)


async def test_how_long_to_wait_is_taken_from_the_reply() -> None:
    async with endpoint(lambda body: refusal(429, "slow down", **{"retry-after": "7"})) as served:
        with pytest.raises(AskError) as caught:
            await ask(OpenAIAsker(served.base_url, "m", meter=Meter()))

    assert caught.value.retry_after_s == 7


@pytest.mark.parametrize(
    "reply",
    [
        lambda: Response("<html>"),
        lambda: JSONResponse({"choices": []}),
        lambda: JSONResponse({"choices": [{"text": "old"}]}),
        lambda: JSONResponse({"choices": [1]}),
        lambda: JSONResponse([]),
    ],
)
async def test_something_else_than_a_completion_is_a_failure(reply: Any) -> None:
    async with endpoint(lambda body: reply()) as served:
        with pytest.raises(AskError) as caught:
            await ask(OpenAIAsker(served.base_url, "m", meter=Meter()), num=1)

    assert caught.value.may_pass


async def test_an_answer_without_text_is_an_empty_one() -> None:
    message = {"choices": [{"message": {"content": None, "refusal": "no"}}]}
    async with endpoint(lambda body: JSONResponse(message)) as served:
        assert await ask(OpenAIAsker(served.base_url, "m", meter=Meter()), num=1) == [""]


async def test_nobody_at_the_address_is_a_failure_that_may_pass() -> None:
    async with endpoint(choices) as served:
        pass
    with pytest.raises(AskError, match="does not answer") as caught:
        await ask(OpenAIAsker(served.base_url, "m", meter=Meter()))
    assert caught.value.may_pass


async def test_an_endpoint_that_is_silent_is_given_up_in_time() -> None:
    meter = Meter()
    async with endpoint(choices) as served:
        served.gate.clear()
        with pytest.raises(AskError, match=r"no answer within 0.05 s") as caught:
            await ask(OpenAIAsker(served.base_url, "m", meter=meter), timeout_s=0.05)

    assert caught.value.may_pass
    assert meter.counts["timeouts"] == 1


async def test_what_an_endpoint_does_not_say_it_cost_is_estimated_and_said_to_be() -> None:
    meter = Meter()
    async with endpoint(choices, usage=False) as served:
        await ask(OpenAIAsker(served.base_url, "m", meter=meter))

    # 13 characters asked, 3 x 6 answered, 4 to a token, rounded up
    assert meter.counts == {"requests": 1, "estimated": 1, "prompt_tokens": 4, "sampled_tokens": 5}
    assert estimated([{"content": None}], [""]) == (0, 0)


async def test_an_address_that_is_known_later_is_looked_up_for_every_question() -> None:
    async with endpoint(choices) as served:
        where = Endpoint(choices)
        asker = OpenAIAsker(lambda: where.base_url, "m", meter=Meter())
        where.base_url = served.base_url
        assert len(await ask(asker)) == 3


# functions


async def test_a_function_is_asked_once_a_vote_and_given_what_it_takes() -> None:
    seen: list[Any] = []

    async def later(messages: Any, *, schema: Any, temperature: float) -> str:
        seen.append((messages, schema, temperature))
        return "a"

    def plain(messages: Any) -> str:
        return str(messages[0]["content"])

    meter = Meter()
    assert await ask(CallableAsker(later, meter=meter)) == ["a"] * 3
    assert seen == [(MESSAGES, SCHEMA, 0.5)] * 3
    assert await ask(CallableAsker(plain, meter=meter), num=1) == ["Was it right?"]
    assert (meter.counts["requests"], meter.counts["estimated"]) == (4, 4)


async def test_a_function_that_fails_on_some_votes_has_given_the_others() -> None:
    left = iter(["a", ValueError("no"), 3])

    def ask_once(messages: Any) -> Any:
        said = next(left)
        if isinstance(said, Exception):
            raise said
        return said

    assert await ask(CallableAsker(ask_once, meter=Meter())) == ["a"]


@pytest.mark.parametrize(("value", "words"), [(ValueError("no key"), "ValueError: no key"), (3, "a int")])
async def test_a_function_that_fails_always_is_a_failure(value: Any, words: str) -> None:
    def fail(messages: Any) -> Any:
        if isinstance(value, Exception):
            raise value
        return value

    with pytest.raises(AskError, match=words):
        await ask(CallableAsker(fail, meter=Meter()))


async def test_a_function_that_never_returns_is_given_up_in_time() -> None:
    async def never(messages: Any) -> str:
        await asyncio.Event().wait()
        return ""

    with pytest.raises(AskError, match="no answer within"):
        await ask(CallableAsker(never, meter=Meter()), timeout_s=0.01)


# the meter


def test_the_hour_slides_and_admits_again_what_it_refused() -> None:
    now = [0.0]
    heard: list[tuple[str, int]] = []
    meter = Meter(max_calls=2, clock=lambda: now[0], told=lambda what, number: heard.append((what, number)))

    meter.add("requests")
    now[0] = 1800.0
    meter.add("requests")
    assert not meter.admits()
    now[0] = 3599.0
    assert not meter.admits()
    now[0] = 3600.0
    assert meter.admits()
    meter.add("requests")
    assert not meter.admits()
    assert meter.report() == {
        "counts": {"requests": 3},
        "hour": {"calls": 2, "max_calls": 2, "tokens": 0, "max_tokens": 0},
    }
    assert heard == [("requests", 1)] * 3


def test_tokens_of_prompts_and_answers_count_against_the_hour_and_nothing_else_does() -> None:
    meter = Meter(max_tokens=10, clock=lambda: 0.0)

    meter.add("votes", 100)
    meter.add("prompt_tokens", 6)
    assert meter.admits()
    meter.add("sampled_tokens", 4)
    assert not meter.admits()


def test_without_bounds_everything_is_admitted() -> None:
    meter = Meter()
    meter.add("requests", 10**6)
    meter.add("prompt_tokens", 10**9)

    assert meter.admits()
