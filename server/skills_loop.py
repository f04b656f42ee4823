"""The skills loop as the server runs it: whether, and with which summariser."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import cast

from agentrl.config import Config
from agentrl.errors import ConfigError
from agentrl.recipes.recipe import load_recipe
from agentrl.signals.threads import Beside
from agentrl.types import JSON
from envs.loading import load_object
from skills.llm import LlmSummariser
from skills.loop import SkillLoop
from skills.summarise import RuleSummariser, Summariser, SummariserError


def writes_skills(config: Config) -> bool:
    """Whether a run's episodes are summarised."""
    if config.skills.write != "auto":
        return config.skills.write == "always"
    return config.learn.enabled and load_recipe(config.learn.recipe, config.learn.overrides).shows_skills


def skill_loop(run_dir: Path, config: Config) -> SkillLoop:
    """The loop of a run. Raises ConfigError where there is no such summariser."""
    return SkillLoop(
        run_dir,
        policy=config.policy,
        settings=config.skills.model_copy(update={"review": config.reviews_skills}),
        summariser=summariser(config.skills.summariser),
    )


def summariser(name: str) -> Summariser:
    """A summariser by name; see `skills.summariser` in the settings.

    Raises:
        ConfigError: there is nothing of that name, or it cannot write skills.
    """
    if name == "rules":
        return RuleSummariser()
    if ":" not in name or "://" in name:
        raise ConfigError(f"no summariser is named {name!r}: write rules, path/file.py:Name or module:Name")
    found = load_object(name, "summariser", is_summariser)
    if is_summariser(found):
        return cast(Summariser, found())
    if inspect.isclass(found) or not callable(found):
        raise ConfigError(
            f"{name} is neither a function `ask(messages) -> str` nor a class with `async def summarise(self, episode)`"
        )
    return LlmSummariser(asking(found))


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
