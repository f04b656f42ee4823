"""`agentrl settings`: every setting, what it is by default and what it does."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer


def settings(
    name: Annotated[str, typer.Argument(help="Only those whose name holds this: engine, or votes.")] = "",
    json_: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """List the settings of a run, for `--set NAME=VALUE` or a file of `--config`."""
    from agentrl.config import known_settings
    from agentrl.errors import ConfigError

    known = known_settings()
    found = {one: field for one, field in known.items() if name in one}
    if not found:
        raise ConfigError(f"no setting has {name!r} in its name: `agentrl settings` lists all")
    if json_:
        rows = {one: {"default": _plain(field), "about": field.description} for one, field in found.items()}
        typer.echo(json.dumps(rows))
        return
    for one, field in found.items():
        about = " ".join((field.description or "").split())
        typer.echo(f"{one} = {json.dumps(_plain(field))}" + (f"\n    {about}" if about else ""))


def _plain(field: Any) -> Any:
    """The default as JSON; null where there is none."""
    value = field.get_default(call_default_factory=True)
    try:
        json.dumps(value)
    except TypeError:
        return None
    return value
