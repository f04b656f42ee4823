"""Environments by name: ours, anybody's file, a module, or an entry point.

A user's own folder may hold files and packages named like ours (`envs`, `server`, `skills`). A file is therefore loaded
under a name of its own, and the working directory is searched last, so that neither side hides the other.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from agentrl.errors import ConfigError
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


def load_object(spec: str, what: str, is_wanted: Callable[[Any], bool]) -> Any:
    """What "path/file.py:Name" or "module:Name" names, whatever it is.

    Args:
        spec: the place and the name.
        what: what the caller looks for, in a word, for the message.
        is_wanted: whether a value is such a thing, for the names in the message.

    Raises:
        ConfigError: there is nothing of that name.
    """
    place, _, name = spec.rpartition(":")
    module = _load_file(Path(place)) if place.endswith(".py") else _load_module(place)
    found = getattr(module, name, None)
    if found is None:
        wanted = [each for each, value in vars(module).items() if is_wanted(value)]
        known = f"it has {', '.join(wanted)}" if wanted else f"it holds no {what}"
        raise ConfigError(f"{place} has no {name!r}; {known}")
    return found


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


def _load_file(path: Path) -> ModuleType:
    path = path.expanduser().absolute()
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    name = f"agentrl_environment_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    _search_last(path.parent)
    # Dataclasses and pickle look a class's module up by name while it is being made.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, Exception):
            raise ConfigError(f"{path} could not be imported: {type(error).__name__}: {error}") from error
        raise
    return module


def _load_module(name: str) -> ModuleType:
    _search_last(Path.cwd())
    try:
        return importlib.import_module(name)
    except ImportError as error:
        parts = name.split(".")
        package = sys.modules.get(parts[0])
        own = Path.cwd().joinpath(*parts).with_suffix(".py")
        note = ""
        if own.is_file() and package is not None and package.__file__:
            note = f" ({parts[0]} is {package.__file__}; for your own file write {own.relative_to(Path.cwd())}:CLASS)"
        raise ConfigError(f"the module {name} could not be imported: {error}{note}") from error


def _search_last(folder: Path) -> None:
    """Lets a user's file import its neighbours, after everything that is installed."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _is_environment(value: Any) -> bool:
    return inspect.isclass(value) and all(callable(getattr(value, method, None)) for method in _METHODS)


def _check(found: Any, spec: str) -> Factory:
    if not callable(found):
        raise ConfigError(f"{spec} is a {type(found).__name__}, not a class or a function that makes one")
    if inspect.isclass(found) and not _is_environment(found):
        missing = [method for method in _METHODS if not callable(getattr(found, method, None))]
        raise ConfigError(f"{spec} is no environment: it lacks {', '.join(missing)} (see envs.protocol)")
    return cast(Factory, found)
