"""The skills loop as the server runs it: whether, and with which summariser."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import cast

from agentrl.config import Config
from agentrl.errors import ConfigError
from agentrl.loading import load_object
from agentrl.recipes.recipe import load_recipe
from agentrl.signals.asker import OpenAIAsker
from agentrl.signals.meter import Meter
from agentrl.signals.threads import Beside
from agentrl.types import JSON
from server.judges import own_headers
from skills.llm import LlmSummariser
from skills.loop import SkillLoop
from skills.summarise import RuleSummariser, Summariser, SummariserError

SELF = "self"
MAX_TOKENS = 800
"""Of a skill that the served model writes."""
TIMEOUT_S = 120.0


def writes_skills(config: Config) -> bool:
    """Whether a run's episodes are summarised."""
    if config.skills.write != "auto":
        return config.skills.write == "always"
    return config.learn.enabled and load_recipe(config.learn.recipe, config.learn.overrides).shows_skills


def skill_loop(run_dir: Path, config: Config, own: OpenAIAsker | None = None) -> SkillLoop:
    """The loop of a run. Raises ConfigError where there is no such summariser.

    Args:
        own: asks the model that is served, where it is that which writes.
    """
    return SkillLoop(
        run_dir,
        policy=config.policy,
        settings=config.skills.model_copy(update={"review": config.reviews_skills}),
        summariser=summariser(config.skills.summariser, own),
    )


def own_model(config: Config) -> str | None:
    """The served model as clients name it, where it writes the skills."""
    name, at, number = config.skills.summariser.partition("@")
    return config.served_name + at + number if name == SELF else None


def own_writer(config: Config, *, own_url: Callable[[], str], own_key: str) -> OpenAIAsker | None:
    """What asks the served model for skills; None where others write them.

    Args:
        own_url: of our own server, up to and with /v1; asked when a question is asked.
        own_key: what our own server knows itself by.
    """
    model = own_model(config)
    if model is None:
        return None
    return OpenAIAsker(
        own_url,
        model,
        meter=Meter(),
        api_key=own_key,
        max_tokens=MAX_TOKENS,
        form="text",
        headers=partial(own_headers, "summariser"),
        is_local=True,
    )


def summariser(name: str, own: OpenAIAsker | None = None) -> Summariser:
    """A summariser by name; see `skills.summariser` in the settings.

    Args:
        own: asks the model that is served.

    Raises:
        ConfigError: there is nothing of that name, or it cannot write skills.
    """
    if name == "rules":
        return RuleSummariser()
    if own is not None:
        return LlmSummariser(answering(own))
    if ":" not in name or "://" in name:
        raise ConfigError(
            f"no summariser is named {name!r}: write rules, self, self@NUMBER, path/file.py:Name or module:Name"
        )
    found = load_object(name, "summariser", is_summariser)
    if is_summariser(found):
        return cast(Summariser, found())
    if inspect.isclass(found) or not callable(found):
        raise ConfigError(
            f"{name} is neither a function `ask(messages) -> str` nor a class with `async def summarise(self, episode)`"
        )
    return LlmSummariser(asking(found))


def answering(own: OpenAIAsker) -> Callable[[Sequence[JSON]], Awaitable[str]]:
    """The served model as `skills.llm.Ask`: its likeliest answer."""

    async def asked(messages: Sequence[JSON]) -> str:
        [text] = await own.ask(messages, schema={}, num=1, temperature=0.0, timeout_s=TIMEOUT_S)
        return text

    return asked


def is_summariser(value: object) -> bool:
    """Whether a value is a class with the Summariser protocol's method."""
    return inspect.isclass(value) and inspect.iscoroutinefunction(getattr(value, "summarise", None))


def asking(ask: Callable[[Sequence[JSON]], object]) -> Callable[[Sequence[JSON]], Awaitable[str]]:
    """A user's function, async or not, as `skills.llm.Ask`; whatever it raises is a failed summary."""

    call = Beside(ask)

    async def asked(messages: Sequence[JSON]) -> str:
        try:
            said = await call(messages)
        except Exception as error:
            raise SummariserError(f"{type(error).__name__}: {error}") from error
        if not isinstance(said, str):
            raise SummariserError(f"the function answered with a {type(said).__name__}, not with a text")
        return said

    return asked
