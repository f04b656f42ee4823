"""Settings of a run: defaults, then a TOML file, then dotted overrides; the result is written into the run folder.

agentrl serve MODEL --config run.toml --set engine.max_running=8 --set learn.recipe=grpo
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo

from agentrl.errors import ConfigError
from agentrl.types import Purpose, SignalSource

Precision = Literal["auto", "fp32", "bf16"]
CLOSE = 0.75
"""Least likeness, of 1, of a name that may have been meant."""
RENAMED = {"guards.max_approvals": "guards.approval_span"}
"""Settings of earlier releases, with what they are called now."""


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
    redact_patterns: tuple[str, ...] = ()
    """Regular expressions of secrets of your own, kept from disk like those that are known; where one has groups, only
    what these matched. One that does not compile or takes too long is refused at the start."""


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
    approve: Literal["auto", "review"] = "auto"
    """review = a hint is taught, and a skill shown to a teacher, only once `agentrl lessons approve` said so; until
    then its turns wait. What stands as approved stays so. Recipes that learn from rewards or from anything else that
    is no lesson are refused."""
    max_age_s: float = Field(default=3600.0, gt=0)
    """A turn that waits longer than this is rejected as expired. With approve = "review" the default is seven days."""
    keep_versions: int = Field(default=4, ge=1)
    """Newest retired versions kept on disk beyond those that law 8 protects, and at most as many older ones, each about
    twice as old as the one before: with 4, `agentrl rollback` reaches back some 60 versions."""
    show_lessons: bool = False
    """A new lesson stands in the prompts of like conversations of its scope until the weights hold it: until its probe
    passes, or until it is retired where it has none. Such turns are marked and never trained."""
    show_share: float = Field(default=0.5, gt=0, lt=1)
    """Share of the conversations in which lessons may stand; the others teach the weights."""
    max_shown: int = Field(default=3, ge=1)
    """Lessons that one conversation is shown."""
    max_shown_tokens: int = Field(default=256, ge=16)
    """Most ids that they may take together."""
    explained_turns: int = Field(default=1000, ge=0)
    """Newest trained turns of which `agentrl explain` shows what the teacher read and the loss of every id; 0 records
    none and deletes what there is."""
    lora_rank: int = Field(default=0, ge=0)
    """0 trains all weights; above 0 trains an adapter of this rank (peft)."""

    @model_validator(mode="before")
    @classmethod
    def _waits_for_people(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("approve") == "review":
            return {"max_age_s": 7 * 86400.0} | data
        return data


class CurriculumConfig(Section):
    """Which of the waiting turns, or groups of them, an update is made of; not for recipes that compare pairs."""

    balance: tuple[Literal["key", "session", "signal"], ...] = ("key", "session", "signal")
    """Places of an update go round among API keys, then among sessions, then among the sources of signals. What is not
    named is not looked at; with none of them the newest turns come first."""
    tasks: Literal["equal", "edge"] = "equal"
    """edge = a turn weighs 4p(1-p) by the pass rate p of its task key, so that tasks that always or never succeed weigh
    least. A task key rewarded fewer than twice weighs 1."""
    min_weight: float = Field(default=0.1, gt=0, le=1)
    """Least weight by pass rate: a task that always succeeds is not forgotten."""


class GuardsConfig(Section):
    """Against being taught wrong. What they hold back waits or is set aside with a reason; see `agentrl status`."""

    trust: dict[str, float] = {}
    """By source of a signal ("user", "environment", "judge", "rule") or by source and scope of the API key
    ("user:guests"): 1, the default, in full; below 1 a turn taught by it weighs less; 0 = not listened to."""
    max_session_share: float | None = Field(default=None, gt=0, le=1)
    """Most of one update that one session may have, while others are active; by default a half, and no bound for
    recipes that compare whole groups or pairs."""
    max_key_share: float | None = Field(default=None, gt=0, le=1)
    """The same of one API key's scope; by default a half, and no bound where pairs are compared."""
    max_source_share: float = Field(default=1.0, gt=0, le=1)
    """The same of one source of signals."""
    max_penalty: float | None = Field(default=None, ge=0)
    """Most that the penalties of an update may weigh for each unit of its praise, where rewards are advantages as they
    are, one turn at a time (`openclaw_rl`); by default 1 there, 0 = no bound. At 1 a policy that mostly hears what was
    wrong does not learn to talk instead of trying; an update that praises nothing teaches what hints say, no more."""
    active_s: float = Field(default=600.0, gt=0)
    """Who sent a turn within this time of the newest counts as active; who is alone may have the whole update."""
    quarantine: Literal["auto", "on", "off"] = "auto"
    """Sets aside turns whose signal contradicts those of other sessions in the same situation, until more agree with
    it, and with a turn its group; auto = for recipes that take turns one by one and for groups whose hints a teacher is
    shown."""
    min_sessions: int = Field(default=1, ge=1)
    """Sessions that must have given like hints in like situations, or after the same command, before one is taught;
    until then it is in quarantine; of a skill only what as many said is shown. 1 = a hint is taught at once, and a
    user's correction also of what worked in other sessions. Raise it where strangers send turns: a correction then
    counts for nothing where one in eight of the newest sessions did well by what it speaks against; a tool's whatever
    these had asked, a user's after a like request."""
    approval_span: int = Field(default=20, ge=0)
    """A user's approval counts where one of so many ratings of the same API key, before it or behind it, was less than
    half as good, and of its session too where that gave as many before: who approves of everything says nothing.
    0 = all approvals count. A program that grades is no user: its feedback says "source": "environment"."""
    max_kl_update: float = Field(default=0.25, ge=0)
    """Most KL(new || served version), in nats an id, of one version: on the held-out probe, and where fewer than four
    turns of that can be compared, on the served version's own replies to recent prompts beyond what it does with the
    lesson in view. 0 = no bound. A version that exceeds it by no more than the standard error of the mean over its
    turns or replies, and at most twice, passes."""
    max_kl_base: float = Field(default=0.5, ge=0)
    """Most KL(new || version 0), in nats an id, over all versions, with the same allowance for its error: on held-out
    turns that version 0 did well, and on its own answers to recent prompts beyond what it does with the lesson in view.
    0 = no bound. Where all weights are trained, those of version 0 are kept in memory for it."""
    max_fall: float = Field(default=1.0, ge=0)
    """Most that the mean log-prob of the probe may fall below what it was when it was sampled, in nats an id, over all
    versions; 0 = no bound."""
    max_surprise: float = Field(default=3.0, ge=0)
    """Most nats an id by which version 0 may find a version's own replies to recent prompts less likely than its own,
    asked where fewer than four held-out turns can be compared and version 0 is kept, for `max_kl_base` or as
    the recipe's teacher or reference; 0 = no bound."""
    watch: Literal["rollback", "pause", "report", "off"] = "rollback"
    """What happens when entropy, reply length or the rates of tool errors, questions and edits leave their bounds."""
    watch_turns: int = Field(default=64, ge=16)
    """Newest turns that are compared with as many of the control arm, or else with the first ones of the run or behind
    the last alarm. Without a control arm other tasks may look like another policy: learn.control_share helps."""

    @field_validator("trust")
    @classmethod
    def _knows_the_sources(cls, trust: dict[str, float]) -> dict[str, float]:
        for name, value in trust.items():
            source, _, _ = name.partition(":")
            if source not in list(SignalSource):
                known = ", ".join(SignalSource)
                raise ValueError(
                    f"{name!r} names no source of signals: write one of {known}, or SOURCE:SCOPE"
                )
            if not 0 <= value <= 1:
                raise ValueError(f"the trust of {name!r} is {value:g}: write a number from 0 to 1")
        return trust


class SkillsConfig(Section):
    write: Literal["auto", "always", "never"] = "auto"
    """Write skills from episodes that have ended; auto = where the recipe shows skills to the teacher."""
    summariser: str = "rules"
    """Who writes them: rules; self, the model that is served, or self@NUMBER, a version of it that stays; or
    "path/file.py:Name" or "module:Name" of a function `ask(messages) -> str` that asks a model, async or not, or of a
    class with `async def summarise(self, episode)`."""
    review: bool = False
    """A new or imported skill is shown to no teacher until `agentrl skills approve`; an approved one keeps its text."""
    mean_of: Literal["groups", "source"] = "groups"
    """A skill's mean reward is that of the episodes taught with it, or of those that it was written from: the
    environment's, and where it gave none 1 or -1 by what was said last of one of the episode's turns."""
    exploration: float = Field(default=2**0.5, ge=0)
    """UCB1's c: the larger, the more evenly the skills of a task are chosen."""
    min_likeness: float = Field(default=0.5, ge=0, le=1)
    """Least share of common words of a new task's request and those that a skill was written from."""
    embeddings: str | None = None
    """Folder of a sentence-transformers model that finds skills for new tasks beside the words, by meaning; by default
    words alone find them. Needs the extra: pip install 'agentrl-live[embeddings]'."""
    min_cosine: float = Field(default=0.6, ge=-1, le=1)
    """With `embeddings`, the least cosine of the two requests for which a skill is found where words do not find it.
    What counts as near differs from model to model: `agentrl skills find TEXT` shows the figures."""
    max_per_task: int = Field(default=8, ge=1)
    """Skills of one task; beyond, those of the lowest mean reward leave, and retire where no task has them."""


Backend = Literal["rules", "self", "openai", "callable"]


class JudgeConfig(Section):
    """Who says how good a turn was. Rules are free and always there; a model is asked about what they leave."""

    backend: Backend = "rules"
    """rules alone; self: the model that is served, whose answers as a judge are never trained; openai: an endpoint with
    OpenAI's chat API; callable: code of yours."""
    when: Literal["silent", "always"] = "silent"
    """Ask the model only where the rules are silent, or about every turn of which they are not certain."""
    model: str = ""
    """The model's name at the endpoint; for self empty or NAME@NUMBER, a version that stays."""
    base_url: str = ""
    """Of backend openai, up to and with /v1."""
    api_key_env: str = ""
    """Name of the environment variable that holds the endpoint's key; empty sends none."""
    callable: str = ""
    """Of backend callable: "path/file.py:Name" or "module:Name" of a function `ask(messages) -> str`, of a function of
    (turn, next_state) that returns a Judgement, or of a class with `async def judge(self, turn, next_state)`."""
    votes: int = Field(default=3, ge=1, le=16)
    """Answers to one question."""
    temperature: float = Field(default=0.7, ge=0, le=2)
    min_agreement: float = Field(default=0.6, ge=0, le=1)
    """Least share of the votes that agree; below, the judge abstains. `agentrl judge score --target .9` finds one."""
    max_tokens: int = Field(default=400, ge=16)
    """Of one answer."""
    max_chars: int = Field(default=12_000, ge=500)
    """Of a question; what is longer is cut, and says so."""
    response_format: Literal["json_schema", "json_object", "text"] = "json_schema"
    """What the endpoint is asked to enforce."""
    timeout_s: float = Field(default=30.0, gt=0)
    """Of one time that a question is asked."""
    max_retries: int = Field(default=2, ge=0)
    """How often a question is asked again after a failure that may pass."""
    max_concurrent: int = Field(default=2, ge=1)
    """Questions at the same time."""
    max_queued: int = Field(default=256, ge=1)
    """Questions that wait for their turn; beyond, only the rules judge."""
    max_calls_per_hour: int = Field(default=1000, ge=0)
    """Requests; 0 = any number. Once they are spent only the rules judge."""
    max_tokens_per_hour: int = Field(default=2_000_000, ge=0)
    """Of prompts and answers; 0 = any number."""


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
    judge: JudgeConfig = JudgeConfig()
    curriculum: CurriculumConfig = CurriculumConfig()
    guards: GuardsConfig = GuardsConfig()

    @property
    def reviews_skills(self) -> bool:
        """Whether a new skill waits for approval."""
        return self.skills.review or self.learn.approve == "review"

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
        except ValueError as error:  # no TOML, or no UTF-8 text
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
    """A pydantic error as one line a setting, with what the setting is for."""
    settings = known_settings()
    lines = []
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"])
        setting = ".".join(part for part in item["loc"] if isinstance(part, str))
        if item["type"] == "extra_forbidden":
            known = [*settings, *(one for one in Config.model_fields if one not in settings)]
            near = [RENAMED[setting]] if setting in RENAMED else nearest(setting, known)
            guess = f": did you mean {' or '.join(near)}? " if near else "; "
            lines.append(f"{name} is no setting{guess}`agentrl settings` lists all")
        else:
            own_words = item["type"] == "value_error"
            about = settings[setting].description if setting in settings and not own_words else None
            said = f"{name}: {item['msg']} (got {item.get('input')!r})"
            lines.append(f"{said}. {' '.join(about.split())}" if about else said)
    return "; ".join(lines)


def known_settings(section: type[BaseModel] | None = None, prefix: str = "") -> dict[str, FieldInfo]:
    """Every setting under its dotted name, in the order of the sections; those of tuples of sections among them."""
    found: dict[str, FieldInfo] = {}
    for name, field in (section or Config).model_fields.items():
        inner = sections_in(field.annotation)
        for one in inner:
            found |= known_settings(one, f"{prefix}{name}.")
        if not inner:
            found[prefix + name] = field
    return found


def sections_in(annotation: Any) -> list[type[BaseModel]]:
    """The groups of settings that a value of this type may be made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in get_args(annotation) for section in sections_in(part)]


def nearest(name: str, known: Sequence[str]) -> list[str]:
    """Up to three known names that may have been meant: those whose last part is most like this one's."""

    def likeness(one: str) -> tuple[float, float]:
        own, other = name.rpartition(".")[2], one.rpartition(".")[2]
        return (
            difflib.SequenceMatcher(None, own, other).ratio(),
            difflib.SequenceMatcher(None, name, one).ratio(),
        )

    close = [one for one in known if likeness(one)[0] >= CLOSE]
    return sorted(close, key=likeness, reverse=True)[:3]


def read_config(path: Path) -> Config:
    """The settings as `write_config` wrote them, in this release or an earlier one: renamed settings keep their values.

    Raises:
        ConfigError: the file cannot be read, or an earlier release wrote what this one does not take.
    """
    try:
        return Config.model_validate(_renamed(json.loads(path.read_text(encoding="utf-8"))))
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error)}; `agentrl serve` writes the file anew") from error
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}; start the run once, it writes the file"
        ) from error


def _renamed(data: Any) -> Any:
    """What an earlier release wrote, under the names of this one. A value under the new name stays."""
    for old, new in RENAMED.items():
        *sections, name = old.split(".")
        *new_sections, new_name = new.split(".")
        found, target = _table(data, sections), _table(data, new_sections)
        if found is not None and target is not None and name in found:
            target.setdefault(new_name, found.pop(name))
    return data


def _table(data: Any, keys: Sequence[str]) -> dict[str, Any] | None:
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else None


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
