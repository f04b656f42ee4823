"""Settings of a run: defaults, then a TOML file, then dotted overrides; the result is written into the run folder.

agentrl serve MODEL --config run.toml --set engine.max_running=8 --set learn.recipe=grpo
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentrl.errors import ConfigError
from agentrl.types import Purpose

Precision = Literal["auto", "fp32", "bf16"]


class Section(BaseModel):
    """A group of settings. Unknown names are refused, values are checked on assignment."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ApiKey(Section):
    key: str = Field(min_length=8)
    """The bearer token."""
    name: str = "default"
    scope: str = "default"
    """Turns, lineage, hints and cached keys and values never cross scopes."""
    purpose: Purpose = Purpose.TRAIN


class ServerConfig(Section):
    host: str = "127.0.0.1"
    """Another address than loopback needs at least one API key."""
    port: int = Field(default=8765, ge=0, le=65535)
    """0 = any free port."""
    api_keys: tuple[ApiKey, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    """Host header values accepted beyond loopback names and `host`."""
    allowed_origins: tuple[str, ...] = ()
    """Origins of browser pages that may call; none by default."""
    idle_s: float = Field(default=900.0, gt=0)
    """A session without a request for this long is abandoned: its open turns get that end."""
    request_timeout_s: float = Field(default=600.0, gt=0)
    """Deadline of one request, queueing included."""
    max_body_bytes: int = Field(default=32 * 2**20, gt=0)
    max_tokens: int = Field(default=1024, gt=0)
    """Most ids of one reply when the client names no limit, and the clamp when it names a larger one."""
    on_store_failure: Literal["refuse", "serve_unrecorded"] = "refuse"


class EngineConfig(Section):
    kind: Literal["local"] = "local"
    device: str = "cpu"
    precision: Precision = "auto"
    """auto = the faster of fp32 and bf16 by a one-second probe at start."""
    num_threads: int = Field(default=1, ge=1)
    max_len: int = Field(default=4096, ge=16)
    """Most ids of prompt and reply together; clamped to the model's own limit."""
    max_running: int = Field(default=16, ge=1)
    max_queued: int = Field(default=256, ge=0)
    prefill_chunk: int = Field(default=256, ge=1)
    """Prompt ids computed between two decode steps."""
    max_cached_tokens: int = Field(default=65536, ge=0)
    """Ids of finished conversations whose keys and values are kept for reuse."""
    max_resident_versions: int = Field(default=3, ge=1)
    stick_s: float = Field(default=2.0, ge=0)
    """A conversation stays on its version for at most this long, so that its keys and values can be reused."""
    max_pin_s: float = Field(default=30.0, gt=0)
    """After this long a request on an old version is moved to the newest between two decode steps."""


class LearnConfig(Section):
    enabled: bool = True
    recipe: str = "hint_opsd"
    """A preset's name or the path of a TOML file."""
    overrides: dict[str, Any] = {}
    """Recipe settings changed for this run, dotted names: {"optim.lr" = 1e-4}."""
    control_share: float = Field(default=0.0, ge=0, le=1)
    """Share of conversations that stays on the base version and never trains."""
    device: str = "cpu"
    precision: Precision = "auto"
    num_threads: int = Field(default=1, ge=1)
    nice: int = Field(default=10, ge=0, le=19)
    seed: int = 0
    max_age_s: float = Field(default=3600.0, gt=0)
    """A turn that waits longer than this is rejected as expired."""
    keep_versions: int = Field(default=4, ge=1)
    """Retired versions kept on disk beyond those that law 8 protects."""
    lora_rank: int = Field(default=0, ge=0)
    """0 trains all weights; above 0 trains an adapter of this rank (peft)."""


class SkillsConfig(Section):
    write: Literal["auto", "always", "never"] = "auto"
    """Write skills from episodes that have ended; auto = where the recipe shows skills to the teacher."""
    summariser: str = "rules"
    """Who writes them: rules, or "path/file.py:Name" or "module:Name" of a function `ask(messages) -> str` that asks a
    model, async or not, or of a class with `async def summarise(self, episode)`."""
    review: bool = False
    """A new or imported skill is shown to no teacher until `agentrl skills approve`; an approved one keeps its text."""
    mean_of: Literal["groups", "source"] = "groups"
    """A skill's mean reward is that of the episodes taught with it, or of those that it was written from."""
    exploration: float = Field(default=2**0.5, ge=0)
    """UCB1's c: the larger, the more evenly the skills of a task are chosen."""
    min_likeness: float = Field(default=0.5, ge=0, le=1)
    """Least share of common words of a new task's request and those that a skill was written from."""
    max_per_task: int = Field(default=8, ge=1)
    """Skills of one task; beyond, those of the lowest mean reward leave, and retire where no task has them."""


class Config(Section):
    model: str = "nano"
    """Folder of a Hugging Face model, or "nano", the model that ships with agentrl."""
    name: str = ""
    """The model name that clients see; empty = the last part of `model`."""
    run_dir: str = "runs/default"
    policy: str = "default"
    thinking_retention: Literal["template", "all"] = "template"
    server: ServerConfig = ServerConfig()
    engine: EngineConfig = EngineConfig()
    learn: LearnConfig = LearnConfig()
    skills: SkillsConfig = SkillsConfig()

    @property
    def served_name(self) -> str:
        return self.name or Path(self.model).name


def load_config(path: Path | None = None, overrides: Sequence[str] = (), **settings: Any) -> Config:
    """Builds the configuration of a run.

    Args:
        path: TOML file.
        overrides: "dotted.name=value" texts; values are read as TOML, else as plain text.
        settings: dotted names with `__` for the dot (`engine__max_running=8`); None leaves the value alone.

    Raises:
        ConfigError: the file cannot be read, or a name or value is not accepted; the message names both.
    """
    data: dict[str, Any] = {}
    if path is not None:
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read the config file {path}: {error.strerror}") from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path} is not valid TOML: {error}") from error
    for name, value in settings.items():
        if value is not None:
            put(data, name.split("__"), value)
    for text in overrides:
        name, mark, raw = text.partition("=")
        if not mark:
            raise ConfigError(f"--set {text!r} has no '='; write --set engine.max_running=8")
        put(data, name.strip().split("."), parse_value(raw.strip()))
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(explain(error)) from error


def put(data: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    """Sets data[k0][k1]... = value, making tables on the way. `learn.overrides` keeps dotted names whole."""
    for depth, key in enumerate(keys[:-1]):
        data = data.setdefault(key, {})
        if key == "overrides":
            keys = [*keys[: depth + 1], ".".join(keys[depth + 1 :]).strip('"')]
            break
        if not isinstance(data, dict):
            raise ConfigError(f"{'.'.join(keys)} cannot be set: {key} is not a table")
    data[keys[-1]] = value


def parse_value(raw: str) -> Any:
    """A TOML value where the text is one, else the text itself."""
    try:
        return tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        return raw


def explain(error: ValidationError) -> str:
    """A pydantic error as one line a setting."""
    lines = []
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"])
        lines.append(f"{name}: {item['msg']} (got {item.get('input')!r})")
    return "; ".join(lines)


def write_config(config: Config, path: Path) -> None:
    """Writes the resolved settings as JSON, API keys blanked."""
    data = config.model_copy(
        update={
            "server": config.server.model_copy(
                update={
                    "api_keys": tuple(
                        key.model_copy(update={"key": "********"}) for key in config.server.api_keys
                    )
                }
            )
        }
    )
    path.write_text(data.model_dump_json(indent=2) + "\n", encoding="utf-8")
