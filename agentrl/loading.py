"""Code of a user's by name: anybody's file or module.

A user's own folder may hold files and packages named like ours (`envs`, `server`, `skills`). A file is therefore loaded
under a name of its own, and the working directory is searched last, so that neither side hides the other.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from agentrl.errors import ConfigError


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


def _load_file(path: Path) -> ModuleType:
    path = path.expanduser().absolute()
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    name = f"agentrl_file_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
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
