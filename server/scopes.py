"""Which scopes a run has."""

from __future__ import annotations

from agentrl.config import Config
from agentrl.errors import UserError


def of_keys(config: Config) -> set[str]:
    """The scopes of a run's API keys, whether they have spoken or not; without keys everybody is the default one."""
    return {key.scope for key in config.server.api_keys} or {"default"}


def require_key(config: Config, scope: str) -> None:
    """Raises UserError where no key has a scope: what is brought there would reach nobody."""
    known = of_keys(config)
    if scope not in known:
        raise UserError(
            f"nobody has the scope {scope!r}: this run has {', '.join(sorted(known))}; name one with --scope"
        )
