"""Plays agents in environments against any OpenAI-compatible endpoint, and sends the environment's rewards back.

Every agent is an ordinary client: it knows a base URL, a model and a key, and resends its conversation with each
request. An episode is a session, named in the URL; the episodes of a group play the same task.

    agents ──> environment.reset ──> messages ──POST /s/<session>/v1/chat/completions──> reply
                    environment.step(reply) ──> messages ...  until done
                    POST /v1/feedback {"session", "reward", "end_session": true}
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from openai import APIError, APIStatusError, AsyncOpenAI, DefaultAsyncHttpxClient
from openai.types.chat import ChatCompletionMessage

from agentrl.errors import AgentRLError, ConfigError, UserError
from agentrl.types import JSON, Purpose, Reply, ToolCall
from envs.protocol import Environment, Split, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One finished episode."""

    session: str
    task_key: str
    index: int
    """Of the episode; the episodes of a group are neighbours."""
    group: int
    purpose: Purpose
    reward: float | None
    """None when it did not come to an end (`error` says why), or was not judged."""
    num_turns: int
    latencies_s: tuple[float, ...]
    """Of each answered request, from sending to the whole reply."""
    num_failed_requests: int
    versions: tuple[int, ...]
    """Policy version that answered each turn, where the server tells it (X-Policy-Version)."""
    info: JSON = field(default_factory=dict)
    """The environment's figures."""
    error: str | None = None
    started_at: float = 0.0
    """Unix seconds."""
    elapsed_s: float = 0.0
    messages: tuple[JSON, ...] = ()
    """The conversation."""


OnEpisode = Callable[[Episode], Awaitable[None] | None]


async def run_episodes(
    env_factory: Callable[[], Environment],
    base_url: str,
    model: str,
    *,
    api_key: str = "none",
    num_agents: int = 8,
    num_episodes: int = 64,
    group_size: int = 1,
    temperature: float = 1.0,
    max_tokens: int | None = None,
    purpose: Purpose = Purpose.TRAIN,
    split: Split | None = None,
    seed: int = 0,
    first_task: int = 0,
    timeout_s: float = 600.0,
    feedback: bool = True,
    on_episode: OnEpisode | None = None,
    stop: asyncio.Event | None = None,
) -> list[Episode]:
    """Plays episodes with several agents at once.

    Args:
        env_factory: makes one environment for each agent.
        base_url: of the server, without `/v1`.
        num_agents: agents at work at the same time.
        num_episodes: in all; rounded up to whole groups.
        group_size: episodes of one task.
        temperature: of the sampling.
        max_tokens: of one reply; None = the server's limit.
        purpose: EVAL uses the evaluation URL, whose turns are never trained on.
        split: which tasks; by default held-out ones for EVAL and training ones otherwise.
        seed: sampling seeds are drawn from it, one for each turn.
        first_task: number of the first task, for a run that goes on where another ended.
        timeout_s: deadline of one request.
        feedback: send the rewards to the server's /v1/feedback; False for endpoints that have none.
        on_episode: called with each episode as it ends.
        stop: once set, agents finish the episode at hand and begin no other.

    Returns:
        The episodes in the order of their index.

    Raises:
        ConfigError: a count is not positive, or the server does not know the model or the key.
        SandboxError: an environment cannot be started.
    """
    for name, number in (
        ("num_agents", num_agents),
        ("num_episodes", num_episodes),
        ("group_size", group_size),
    ):
        if number < 1:
            raise ConfigError(f"{name} is {number}; it must be at least 1")
    num_groups = -(-num_episodes // group_size)
    run = f"run{secrets.token_hex(4)}"
    jobs: Iterator[tuple[int, int]] = (
        (group, member) for group in range(num_groups) for member in range(group_size)
    )
    episodes: list[Episode] = []
    async with DefaultAsyncHttpxClient(timeout=timeout_s) as http:
        client = Client(http, base_url, model, api_key, temperature, max_tokens, purpose, feedback)

        async def agent(env: Environment) -> None:
            for group, member in jobs:
                if stop is not None and stop.is_set():
                    return
                index = group * group_size + member
                session = f"{run}~g{group}~{member}"
                try:
                    task = env.task(
                        split or ("held_out" if purpose is Purpose.EVAL else "train"), first_task + group
                    )
                    episode = await play(
                        client, env, task, session=session, index=index, group=group, seed=seed
                    )
                except AgentRLError:
                    raise
                except Exception as error:  # noqa: BLE001 - an environment is anybody's code; a fault of it is data
                    episode = Episode(
                        session=session,
                        task_key="",
                        index=index,
                        group=group,
                        purpose=purpose,
                        reward=None,
                        num_turns=0,
                        latencies_s=(),
                        num_failed_requests=0,
                        versions=(),
                        error=f"the environment {type(env).__name__} failed: {type(error).__name__}: {error}",
                    )
                episodes.append(episode)
                told = on_episode(episode) if on_episode is not None else None
                if told is not None:
                    await told

        environments = [env_factory() for _ in range(min(num_agents, num_groups * group_size))]
        try:
            async with asyncio.TaskGroup() as agents:
                for env in environments:
                    agents.create_task(agent(env))
        except* AgentRLError as errors:
            raise errors.exceptions[0] from None
        finally:
            await asyncio.gather(*(env.aclose() for env in environments))
    return sorted(episodes, key=lambda episode: episode.index)


@dataclass(frozen=True, slots=True)
class Client:
    """What all agents share: the connections and how to ask."""

    http: DefaultAsyncHttpxClient
    base_url: str
    model: str
    api_key: str
    temperature: float
    max_tokens: int | None
    purpose: Purpose
    feedback: bool

    def session(self, name: str) -> AsyncOpenAI:
        """An SDK client whose requests belong to one session. It never repeats a request of its own accord."""
        middle = "/eval" if self.purpose is Purpose.EVAL else ""
        return self._sdk(f"/s/{name}{middle}/v1")

    def _sdk(self, path: str) -> AsyncOpenAI:
        url = self.base_url.rstrip("/") + path
        return AsyncOpenAI(base_url=url, api_key=self.api_key, http_client=self.http, max_retries=0)

    async def ask(
        self, client: AsyncOpenAI, messages: list[JSON], tools: tuple[JSON, ...], seed: int
    ) -> tuple[ChatCompletionMessage, int | None]:
        """One request: the message and the policy version. openai.APIError when it failed."""
        options: dict[str, Any] = {"temperature": self.temperature, "seed": seed}
        if tools:
            options["tools"] = list(tools)
        if self.max_tokens is not None:
            options["max_tokens"] = self.max_tokens
        raw = await client.chat.completions.with_raw_response.create(
            model=self.model, messages=cast(Any, messages), **options
        )
        version = raw.headers.get("x-policy-version", "")
        return raw.parse().choices[0].message, int(version) if version.isdigit() else None

    async def reward(self, session: str, reward: float | None) -> None:
        """Ends a session with its reward. openai.APIError when that failed."""
        body = {"session": session, "reward": reward, "end_session": True, "source": "environment"}
        await self._sdk("/v1").post("/feedback", cast_to=object, body=body)


async def play(
    client: Client, env: Environment, task: Task, *, session: str, index: int, group: int, seed: int
) -> Episode:
    """One episode. A failed request ends it and is counted; it gets no reward then."""
    began, started_at = time.perf_counter(), time.time()
    observation = await env.reset(task)
    messages = list(observation.messages)
    sdk = client.session(session)
    latencies: list[float] = []
    versions: list[int] = []
    num_failed, reward, error = 0, None, None
    info: JSON = {}
    while True:
        sent = time.perf_counter()
        try:
            turn_seed = (seed * 1_000_003 + index * 101 + len(latencies)) % 2**31
            answer, version = await client.ask(sdk, messages, observation.tools, turn_seed)
        except APIError as failure:
            _refuse_wrong_settings(failure, client)
            num_failed += 1
            error = f"{type(failure).__name__}: {failure.message}"
            break
        latencies.append(time.perf_counter() - sent)
        versions += [version] if version is not None else []
        messages.append(echo(answer))
        step = await env.step(as_reply(answer))
        messages += step.messages
        info = dict(step.info)
        if step.done:
            reward = step.reward
            break
    if client.feedback and latencies:  # a session without a turn is not known to the server
        try:
            await client.reward(session, reward)
        except APIError as failure:
            num_failed += 1
            error = error or f"the reward was not taken: {failure.message}"
    return Episode(
        session=session,
        task_key=task.key,
        index=index,
        group=group,
        purpose=client.purpose,
        reward=reward,
        num_turns=len(latencies),
        latencies_s=tuple(latencies),
        num_failed_requests=num_failed,
        versions=tuple(versions),
        info=info,
        error=error,
        started_at=started_at,
        elapsed_s=time.perf_counter() - began,
        messages=tuple(messages),
    )


def _refuse_wrong_settings(failure: APIError, client: Client) -> None:
    """A wrong key or model fails every request alike: said once, instead of counted a thousand times."""
    if isinstance(failure, APIStatusError) and failure.status_code in (401, 403, 404):
        raise UserError(
            f"{client.base_url} refused the request for {client.model!r}: {failure.message}"
        ) from failure


def as_reply(message: ChatCompletionMessage) -> Reply:
    """The SDK's message as a reply."""
    calls = tuple(
        ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments)
        for call in message.tool_calls or ()
        if call.type == "function"
    )
    return Reply(text=message.content or "", tool_calls=calls)


def echo(message: ChatCompletionMessage) -> JSON:
    """The message as a client sends it back in the next request."""
    sent: JSON = {"role": "assistant", "content": message.content}
    if message.tool_calls:
        sent["tool_calls"] = [
            call.model_dump(include={"id", "type", "function"}) for call in message.tool_calls
        ]
    return sent
