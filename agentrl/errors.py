"""Failures, named after the boundary they crossed.

AgentRLError
├── UserError (also ValueError)      something the caller can mend; the message says how
│   ├── ConfigError                  a setting, a recipe or a combination that cannot work
│   ├── ModelError                   a model that cannot be loaded
│   └── RequestError                 a request that cannot be served as asked (HTTP 400)
├── EngineError                      generation or scoring failed
│   ├── EngineBusy                   the queue is full; try again later (HTTP 429)
│   ├── EngineGone                   the engine died while the request ran
│   └── VersionGone                  the version asked for is not resident
├── StoreError                       the log could not be written or read
├── JudgeError                       a judge failed, timed out or could not be parsed; never a reward
├── SandboxError                     the sandbox could not be started or broke
└── LearnerError                     a step or a publication failed
"""

from __future__ import annotations


class AgentRLError(Exception):
    """Anything this project raises on purpose."""


class UserError(AgentRLError, ValueError):
    """Something the caller can mend; the message names the remedy."""


class ConfigError(UserError):
    """A setting, a recipe or a combination that cannot work."""


class ModelError(UserError):
    """A model that cannot be loaded."""


class RequestError(UserError):
    """A request that cannot be served as asked. `param` names the offending field."""

    def __init__(self, message: str, *, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.param = param
        self.status = status


class EngineError(AgentRLError):
    """Generation or scoring failed."""


class EngineBusy(EngineError):
    """The queue is full. `retry_after_s` is a guess at when a place is free."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class EngineGone(EngineError):
    """The engine died while the request ran."""


class VersionGone(EngineError):
    """The version asked for is not resident in the engine."""


class StoreError(AgentRLError):
    """The log could not be written or read."""


class JudgeError(AgentRLError):
    """A judge failed, timed out or could not be parsed. Never a reward."""


class SandboxError(AgentRLError):
    """The sandbox could not be started or broke."""


class LearnerError(AgentRLError):
    """A step or a publication failed."""
