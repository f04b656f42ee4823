"""Commands as they have to be typed: of a run and a scope what a command does not mean by itself."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, Final

from agentrl.config import Config

_OWN_RUN: Final = Path(Config.model_fields["run_dir"].default)
_OWN_SCOPE: Final = "default"
_GIVEN: Final = (
    "serve|learner|lessons|skills|progress|doctor|status|explain|versions|rollback|pause|resume|store"
)
_NAMED: Final = re.compile(rf"`agentrl ((?:{_GIVEN})\b[^`]*)`")
"""Commands that a run is given to, where sentences name them."""


def command(words: str, run_dir: Path, scope: str = _OWN_SCOPE) -> str:
    """One command, in backquotes."""
    said = ["agentrl", words]
    if scope != _OWN_SCOPE:
        said.append(f"--scope {shlex.quote(scope)}")
    if run_dir != _OWN_RUN:
        said.append(f"--run-dir {shlex.quote(str(run_dir))}")
    return f"`{' '.join(said)}`"


def serve_again(model: str, run_dir: Path = _OWN_RUN) -> str:
    """What to do where a run's server has ended."""
    return f"start {command(f'serve {shlex.quote(model)}', run_dir)} again, with the --recipe and --set that it had"


def of_run(said: Any, run_dir: Path) -> Any:
    """The same of every command that texts name in backquotes, in plain data of any depth."""
    if isinstance(said, dict):
        return {name: of_run(value, run_dir) for name, value in said.items()}
    if isinstance(said, list | tuple):
        return [of_run(value, run_dir) for value in said]
    if not isinstance(said, str):
        return said
    return _NAMED.sub(lambda found: found[0] if "--run-dir" in found[1] else command(found[1], run_dir), said)
