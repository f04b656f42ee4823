"""Environments by name: ours, anybody's file, a module, or an entry point."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, cast

from agentrl.errors import ConfigError
from agentrl.loading import load_object
from envs.protocol import Environment

ENTRY_POINTS = "agentrl.environments"
BUILT_IN = {"terminal": "envs.terminal:Terminal", "personal": "envs.personal:Personal"}
_METHODS = ("task", "reset", "step", "aclose")

Factory = Callable[..., Environment]


def load_environment(spec: str) -> Factory:
    """The environment's class, or a function that makes one.

    Args:
        spec: "terminal", "personal", "path/file.py:Class", "module:Class", or the name of an entry point in the group
            "agentrl.environments".

    Raises:
        ConfigError: nothing of that name, or it is not an environment; the message says what was tried.
    """
    if spec in BUILT_IN:
        return load_environment(BUILT_IN[spec])
    if ":" not in spec:
        return _check(_entry_point(spec), spec)
    return _check(load_object(spec, "environment", _is_environment), spec)


def _entry_point(name: str) -> Any:
    points = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in points:
        known = ", ".join([*BUILT_IN, *points])
        raise ConfigError(
            f"no environment is named {name!r}: known are {known}. "
            "Otherwise write path/file.py:Class or module:Class"
        )
    try:
        return points[name].load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"the entry point {name} = {points[name].value} cannot be loaded: {error}"
        ) from error


def _is_environment(value: Any) -> bool:
    return inspect.isclass(value) and all(callable(getattr(value, method, None)) for method in _METHODS)


def _check(found: Any, spec: str) -> Factory:
    if not callable(found):
        raise ConfigError(f"{spec} is a {type(found).__name__}, not a class or a function that makes one")
    if inspect.isclass(found) and not _is_environment(found):
        missing = [method for method in _METHODS if not callable(getattr(found, method, None))]
        raise ConfigError(f"{spec} is no environment: it lacks {', '.join(missing)} (see envs.protocol)")
    return cast(Factory, found)
