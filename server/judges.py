"""The judge of a run by its settings: rules alone, or a model behind them. What cannot work is refused at the start."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

from agentrl.config import Config, JudgeConfig
from agentrl.errors import ConfigError, JudgeError
from agentrl.loading import load_object
from agentrl.signals.asker import Asker, CallableAsker, OpenAIAsker
from agentrl.signals.counted import CountedJudge
from agentrl.signals.judge import Judge, Judgement
from agentrl.signals.llm import LlmJudge, RulesFirst
from agentrl.signals.meter import Meter
from agentrl.signals.rules import RuleJudge
from agentrl.signals.threads import Beside
from agentrl.types import JSON, NextState, SignalSource, Turn
from server.judge_reach import can_be_sent, unsendable

Answer = Judgement | Awaitable[Judgement]
Told = Callable[[str, int], None]

AT_ONCE: Final = 64
"""Turns that are judged at the same time where nobody waits for a model."""
TIMEOUT_S: Final = 60.0
"""Of one judgement by a judge of the user's."""
RETRY_S: Final = 15.0
"""Before a turn that a model failed to judge is judged again."""
SESSION_S: Final = 600.0
"""How long what the server asks itself is one session."""
_OF_ENDPOINTS: Final = ("base_url", "api_key_env")
_OF_ASKED: Final = (
    "votes", "temperature", "min_agreement", "max_tokens", "max_chars", "timeout_s", "max_retries", "max_concurrent",
    "max_queued", "max_tokens_per_hour",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A judge and what belongs to it."""

    judge: Judge
    timeout_s: float | None = TIMEOUT_S
    """Of one judgement; None where the judge bounds itself."""
    retry_s: float = 0.0
    """Before a turn whose judge failed is judged again."""
    at_once: int = AT_ONCE
    """Turns that may be judged at the same time, those that wait for a model included."""
    meter: Meter | None = None
    """Of a judge that costs something."""
    asker: Asker | None = None

    def report(self) -> JSON:
        """For `agentrl status`."""
        return {"name": self.judge.name} | ({} if self.meter is None else self.meter.report())

    async def aclose(self) -> None:
        if self.asker is not None:
            await self.asker.aclose()


def make_bench(
    config: Config,
    *,
    own_url: Callable[[], str] = lambda: "",
    own_key: str = "",
    told: Told = lambda what, number: None,
    spent: Path | None = None,
    with_rules: bool = True,
) -> Bench:
    """The judge of a run.

    Args:
        own_url: of our own server, up to and with /v1; asked when a question is asked.
        own_key: what our own server knows its judge by.
        told: hears of everything that a model is asked and costs.
        spent: the file that keeps what the hour cost beyond this process; None = none does.
        with_rules: before the model; without them it is asked about everything.

    Raises:
        ConfigError: a setting is missing, wrong, or would have no effect.
    """
    settings = config.judge
    refuse_idle(settings)
    meter = Meter(
        max_calls=settings.max_calls_per_hour, max_tokens=settings.max_tokens_per_hour, told=told, path=spent
    )
    asker: Asker
    match settings.backend:
        case "rules":
            return Bench(judge=RuleJudge())
        case "self":
            refuse_crowding(config)
            asker = OpenAIAsker(
                own_url,
                settings.model or config.served_name,
                meter=meter,
                api_key=own_key,
                max_tokens=settings.max_tokens,
                form=settings.response_format,
                headers=own_headers,
                is_local=True,
            )
        case "openai":
            asker = OpenAIAsker(
                settings.base_url,
                settings.model,
                meter=meter,
                api_key=_key(settings),
                max_tokens=settings.max_tokens,
                form=settings.response_format,
            )
        case "callable":
            made = judge_of(settings.callable)
            if hasattr(made, "judge"):
                rest = [name for name in _OF_ASKED if getattr(settings, name) != _default(name)]
                if rest:
                    raise ConfigError(f"judge.{rest[0]} has no effect: {settings.callable} judges by itself")
                own = CountedJudge(cast(Judge, made), meter=meter)
                if not with_rules:
                    return Bench(judge=own, meter=meter)
                first = RulesFirst(RuleJudge(), own, when=settings.when, timeout_s=TIMEOUT_S)
                return Bench(judge=first, timeout_s=None, meter=meter)
            asker = CallableAsker(made, meter=meter, name=settings.callable)
    model = LlmJudge(
        asker, settings, meter=meter, name=settings.model or settings.callable or settings.backend
    )
    return Bench(
        judge=RulesFirst(RuleJudge(), model, when=settings.when) if with_rules else model,
        timeout_s=None,
        retry_s=RETRY_S,
        # However many questions wait, there is room for turns that the rules judge.
        at_once=settings.max_queued + settings.max_concurrent + AT_ONCE,
        meter=meter,
        asker=asker,
    )


def own_headers(priority: str = "judge") -> dict[str, str]:
    """What the server asks itself: behind every request of a user, apart from every conversation, a session for some
    minutes, so that neither sessions nor open turns pile up."""
    session = f"{priority}-{int(time.time() // SESSION_S)}"
    return {
        "X-Purpose": "off",
        "X-Turn-Type": "side",
        "X-Priority": priority,
        "X-Session-Id": session,
    }


def refuse_crowding(config: Config) -> None:
    """Raises ConfigError where the judge's votes would take the places of users' requests in the engine."""
    judge, places = config.judge, config.engine.max_running
    if 2 * judge.votes * judge.max_concurrent > places:
        raise ConfigError(
            f"judge.votes = {judge.votes} times judge.max_concurrent = {judge.max_concurrent} would take more than "
            f"half of the {places} places of engine.max_running from the users: lower one of them, or raise "
            "engine.max_running"
        )


def refuse_idle(settings: JudgeConfig) -> None:
    """Raises ConfigError for settings that are missing, cannot work, or would do nothing."""
    changed = {name for name in JudgeConfig.model_fields if getattr(settings, name) != _default(name)}
    backend = settings.backend
    idle = {
        "rules": changed - {"backend"},
        "self": changed & {*_OF_ENDPOINTS, "callable"},
        "openai": changed & {"callable"},
        "callable": changed & {*_OF_ENDPOINTS, "model", "max_tokens", "response_format"},
    }[backend]
    if idle:
        raise ConfigError(
            f"judge.{min(idle)} has no effect with judge.backend = {backend!r}: leave it out, or choose "
            f"{_backend_for(min(idle))}"
        )
    if settings.votes > 1 and settings.temperature == 0:
        raise ConfigError(
            f"judge.votes = {settings.votes} at judge.temperature = 0 are one answer {settings.votes} times: raise the "
            "temperature, or set judge.votes = 1"
        )
    if backend == "openai":
        address = urlsplit(settings.base_url)
        if address.username or address.password:
            raise ConfigError(
                "judge.base_url holds a name or a password, and settings are written to disk: leave them out, and name "
                "an environment variable that holds the key as judge.api_key_env"
            )
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ConfigError(
                f"judge.base_url is {settings.base_url!r}: write the address of the endpoint, for example "
                "https://api.example.com/v1"
            )
        if not settings.model:
            raise ConfigError("judge.model is empty: write the model's name at judge.base_url")
    if backend == "callable" and not settings.callable:
        raise ConfigError('judge.callable is empty: write "path/file.py:Name" or "module:Name"')


def judge_of(name: str) -> Judge | Callable[..., object]:
    """What "path/file.py:Name" or "module:Name" names: a judge, or a function that is asked with chat messages.

    A class with `async def judge(self, turn, next_state)` and a function of (turn, next_state) are judges; a function
    with one parameter is asked.

    Raises:
        ConfigError: there is nothing of that name, or it is none of these.
    """
    if ":" not in name or "://" in name:
        raise ConfigError(f"no judge is named {name!r}: write rules, path/file.py:Name or module:Name")
    found = load_object(name, "judge", is_judge)
    if inspect.isclass(found):
        if not is_judge(found):
            raise ConfigError(f"{name} is no judge: it lacks `async def judge(self, turn, next_state)`")
        return cast(Judge, found())
    if not callable(found):
        raise ConfigError(f"{name} is a {type(found).__name__}, not a Judge class or a function")
    required = [
        each
        for each in inspect.signature(found).parameters.values()
        if each.default is each.empty and each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    if len(required) == 2:
        return CallableJudge(found, name=name)
    if len(required) != 1:
        raise ConfigError(
            f"{name} takes {len(required)} values: write ask(messages) or judge(turn, next_state)"
        )

    return cast("Callable[..., object]", found)


def is_judge(value: object) -> bool:
    """Whether a value is a class with the Judge protocol's method."""
    return inspect.isclass(value) and inspect.iscoroutinefunction(getattr(value, "judge", None))


class CallableJudge:
    """A user's function of (Turn, NextState) as a judge; one that is not async runs in a thread."""

    source = SignalSource.JUDGE

    def __init__(self, answer: Callable[[Turn, NextState], Answer], *, name: str) -> None:
        self._answer = Beside(answer)
        self.name = name

    async def judge(self, turn: Turn, state: NextState) -> Judgement:
        said = await self._answer(turn, state)
        if not isinstance(said, Judgement):
            raise JudgeError(f"{self.name} returned a {type(said).__name__}, not a Judgement")
        return said


def _key(settings: JudgeConfig) -> str | None:
    if not settings.api_key_env:
        return None
    key = os.environ.get(settings.api_key_env, "").strip()
    if not key:
        raise ConfigError(
            f"judge.api_key_env names {settings.api_key_env}, which the environment lacks: set it, or leave the "
            "setting out where the endpoint wants no key"
        )
    if not can_be_sent(key):
        raise ConfigError(unsendable(settings))
    return key


def _default(name: str) -> Any:
    return JudgeConfig.model_fields[name].default


def _backend_for(name: str) -> str:
    """A backend in which a setting does something."""
    if name in _OF_ENDPOINTS:
        return "judge.backend = 'openai'"
    return "judge.backend = 'callable'" if name == "callable" else "judge.backend = 'self' or 'openai'"
