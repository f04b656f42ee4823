"""The runner against an endpoint with scripted replies on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agentrl.errors import ConfigError, UserError
from agentrl.types import Purpose, Reply
from envs.house_rules import HouseRules
from envs.protocol import Observation, StepResult, Task
from envs.runner import Episode, run_episodes
from envs.terminal import Terminal

Answer = Callable[[dict[str, Any]], dict[str, Any] | Response]


class Endpoint:
    """Records every request and answers by a function of the body."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.feedback: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.url = ""

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        self.requests.append((request.url.path, body))
        self.keys.add(request.headers["authorization"])
        message = self.answer(body)
        if isinstance(message, Response):
            return message
        choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
        reply = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [choice],
        }
        return JSONResponse(reply, headers={"X-Policy-Version": "7"})

    async def take_feedback(self, request: Request) -> Response:
        self.feedback.append(await request.json())
        return JSONResponse({})


@contextlib.asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[Endpoint]:
    endpoint = Endpoint(answer)
    routes = [
        Route(path, endpoint.chat, methods=["POST"])
        for path in ("/s/{session}/v1/chat/completions", "/s/{session}/eval/v1/chat/completions")
    ]
    routes.append(Route("/v1/feedback", endpoint.take_feedback, methods=["POST"]))
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), log_level="error", lifespan="off"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        endpoint.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield endpoint
        finally:
            server.should_exit = True
            await task


class Guess:
    """Two replies: the first is told to go on, the second is judged by the task's number."""

    name = "guess"

    def __init__(self) -> None:
        self.num_steps = 0
        self.closed = False

    def task(self, split: str, index: int) -> Task:
        return Task(key=f"{split}-{index}", split=split, data=index)  # type: ignore[arg-type]

    async def reset(self, task: Task) -> Observation:
        self.number, self.num_steps = task.data, 0
        return Observation(messages=({"role": "user", "content": f"say {task.data}"},))

    async def step(self, reply: Reply) -> StepResult:
        self.num_steps += 1
        if self.num_steps == 1:
            return StepResult(messages=({"role": "user", "content": "again"},))
        return StepResult(
            reward=float(reply.text == f"say {self.number}"), done=True, info={"said": reply.text}
        )

    async def aclose(self) -> None:
        self.closed = True


def repeat(body: dict[str, Any]) -> dict[str, Any]:
    return {"content": body["messages"][0]["content"]}


async def test_sessions_groups_rewards_and_history_are_as_a_server_expects() -> None:
    told: list[Episode] = []
    async with serving(repeat) as endpoint:
        episodes = await run_episodes(
            Guess, endpoint.url, "m@3", api_key="secret-key", num_agents=3, num_episodes=5, group_size=2,
            temperature=0.5, first_task=10, on_episode=told.append,
        )  # fmt: skip
    assert [episode.index for episode in episodes] == [0, 1, 2, 3, 4, 5]
    assert [episode.task_key for episode in episodes] == [f"train-{n}" for n in (10, 10, 11, 11, 12, 12)]
    run = episodes[0].session.split("~")[0]
    assert [episode.session for episode in episodes] == [
        f"{run}~g{g}~{k}" for g in range(3) for k in range(2)
    ]
    assert all(episode.reward == 1.0 and episode.num_turns == 2 for episode in episodes)
    assert all(episode.versions == (7, 7) and len(episode.latencies_s) == 2 for episode in episodes)
    assert {episode.session for episode in told} == {episode.session for episode in episodes}
    assert endpoint.keys == {"Bearer secret-key"}
    assert sorted(body["session"] for body in endpoint.feedback) == [episode.session for episode in episodes]
    assert all(
        body == {"session": body["session"], "reward": 1.0, "end_session": True, "source": "environment"}
        for body in endpoint.feedback
    )
    mine = [body for path, body in endpoint.requests if path == f"/s/{run}~g0~0/v1/chat/completions"]
    assert [body["model"] for body in mine] == ["m@3", "m@3"]
    assert [body["temperature"] for body in mine] == [0.5, 0.5]
    assert "tools" not in mine[0]
    assert mine[1]["messages"] == [
        {"role": "user", "content": "say 10"},
        {"role": "assistant", "content": "say 10"},
        {"role": "user", "content": "again"},
    ]


async def test_evaluation_uses_its_own_url_and_the_held_out_tasks() -> None:
    async with serving(repeat) as endpoint:
        episodes = await run_episodes(Guess, endpoint.url, "m", num_episodes=2, purpose=Purpose.EVAL)
    assert {episode.task_key for episode in episodes} == {"held_out-0", "held_out-1"}
    assert all("/eval/v1/" in path for path, _ in endpoint.requests)


async def test_sampling_seeds_differ_between_turns_and_repeat_between_runs() -> None:
    seeds = []
    for _ in range(2):
        async with serving(repeat) as endpoint:
            await run_episodes(Guess, endpoint.url, "m", num_agents=1, num_episodes=3, group_size=3, seed=4)
        seeds.append([body["seed"] for _, body in endpoint.requests])
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0])) == 6


async def test_a_failed_request_ends_its_episode_without_a_reward_and_is_counted() -> None:
    def answer(body: dict[str, Any]) -> dict[str, Any] | Response:
        if body["messages"][0]["content"] == "say 1" and len(body["messages"]) > 1:
            return JSONResponse({"error": {"message": "the engine is gone"}}, status_code=503)
        return repeat(body)

    async with serving(answer) as endpoint:
        episodes = await run_episodes(Guess, endpoint.url, "m", num_episodes=3)
    assert [episode.reward for episode in episodes] == [1.0, None, 1.0]
    assert [episode.num_failed_requests for episode in episodes] == [0, 1, 0]
    assert "the engine is gone" in str(episodes[1].error)
    assert len(endpoint.requests) == 6
    ended = {body["session"]: body["reward"] for body in endpoint.feedback}
    assert ended[episodes[1].session] is None


async def test_a_wrong_key_stops_the_run_with_the_servers_words() -> None:
    made: list[Guess] = []

    def make() -> Guess:
        made.append(Guess())
        return made[-1]

    refused = JSONResponse({"error": {"message": "unknown key"}}, status_code=401)
    async with serving(lambda body: refused) as endpoint:
        with pytest.raises(UserError, match="unknown key"):
            await run_episodes(make, endpoint.url, "m", num_agents=2)
    assert all(env.closed for env in made)


async def test_counts_that_are_not_positive_are_refused() -> None:
    with pytest.raises(ConfigError, match="group_size is 0"):
        await run_episodes(Guess, "http://127.0.0.1:1", "m", group_size=0)


async def test_an_endpoint_that_is_not_there_is_counted_and_not_raised() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        episodes = await run_episodes(Guess, url, "m", num_episodes=2)
    assert [episode.num_failed_requests for episode in episodes] == [1, 1]
    assert [episode.num_turns for episode in episodes] == [0, 0]


def follow_errors(rules: HouseRules, env: Terminal) -> Answer:
    """An agent that knows the usual commands and does what an error says."""
    commands = {}
    for split_index in range(200):
        task = env.task("train", split_index).data
        commands[task.text] = task

    def answer(body: dict[str, Any]) -> dict[str, Any]:
        task = commands[body["messages"][1]["content"]]
        last = body["messages"][-1]
        way = task.operation.command
        rule = rules.rule(task.operation.key)
        if last["role"] == "tool":
            assert rule is not None
            assert rule.new in last["content"]
            way = rule.new
        arguments = json.dumps({"command": task.operation.line(way, task.values)})
        call = {"id": "call1", "type": "function", "function": {"name": "bash", "arguments": arguments}}
        return {"content": None, "tool_calls": [call]}

    return answer


async def test_an_agent_that_follows_errors_succeeds_in_the_real_terminal() -> None:
    rules = HouseRules.draw(3)
    env = Terminal(seed=3, rules=rules)
    async with serving(follow_errors(rules, env)) as endpoint:
        episodes = await run_episodes(
            lambda: Terminal(seed=3, rules=rules), endpoint.url, "m", num_agents=8, num_episodes=48
        )
    assert [episode.reward for episode in episodes] == [1.0] * 48
    assert all(episode.num_turns == (1 if episode.info["first_try"] else 2) for episode in episodes)
    unknown = [episode for episode in episodes if episode.info["family"] == "unknown"]
    assert len(unknown) == 24
    assert not any(episode.info["first_try"] for episode in unknown)
    second = episodes[0].messages[-1]
    assert second["role"] == "tool"
