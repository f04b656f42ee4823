"""A learning method as data: fifteen axes, optimiser, batch and limits; loaded from a preset or a TOML file.

    recipe = load_recipe("hint_opsd", {"optim.lr": 1e-4, "sync": "live"})

Whatever a recipe cannot do is refused here, before anything is sampled or trained, with the remedy in the message.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agentrl.config import put, sections_in
from agentrl.errors import ConfigError
from agentrl.recipes import axes
from agentrl.recipes.rules import conflicts
from agentrl.recipes.schedule_specs import ScheduleSpec
from agentrl.recipes.schedules import schedule

PRESETS = resources.files("agentrl.recipes") / "presets"


AXES = (
    "rollout", "transform", "context", "teacher", "sync", "target", "divergence", "estimator", "token_weight",
    "route", "advantage", "mix", "offpolicy", "regularisers", "aggregate",
)  # fmt: skip


OWN_WORDS = ("evidence", "doubt", "alias_of")
"""What a recipe says of itself and does not hand down by `extends`."""


SCHEDULABLE = (
    "target", "divergence", "estimator", "token_weight", "mix", "offpolicy", "regularisers", "aggregate",
    "optim.lr", "optim.max_grad_norm", "limits.max_logprob_gap",
)  # fmt: skip
"""Settings that the trainer reads anew at every step."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class Optim(_Section):
    """AdamW."""

    lr: float = Field(default=1e-5, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    """The learning rate rises linearly over this many steps."""


STREAM_TURNS = 8
"""Of a step on a live stream, where nothing else is said."""


class Batch(_Section):
    """When a step is made, and of what."""

    turns_per_step: int = Field(default=16, ge=1)
    """Where nothing else is said 8 on a live stream, so that users soon see an effect."""
    max_wait_s: float = Field(default=60.0, ge=0)
    """A step is made with fewer turns once the oldest has waited this long."""
    uses_per_turn: int = Field(default=1, ge=1)
    """In how many steps a turn may be trained, within `limits`."""
    steps_per_version: int = Field(default=1, ge=1)
    micro_tokens: int = Field(default=8192, ge=1)
    """Most ids, padding included, of one forward pass; a longer sample has a pass of its own."""


class Limits(_Section):
    """Law 7: what is older than this is dropped and counted."""

    max_version_lag: int = Field(default=8, ge=0)
    """Most versions between the one that sampled a turn and the newest."""
    max_logprob_gap: float = Field(default=1.0, gt=0)
    """Largest mean |log π − log μ| over a sequence's trained ids, in nats, where μ is known."""


class Recipe(_Section):
    """One point in the space of learning methods. Immutable; see `agentrl.recipes.axes` for the options."""

    name: str
    summary: str = ""
    paper: str = ""
    evidence: str = ""
    """What is known of the method: C code read, P paper read, S summary read, A abstract read; joined by commas."""
    doubt: str = ""
    """Where sources disagree, or what had to be chosen for want of a source."""
    alias_of: str | None = None
    """The preset that has the same axes under another name."""
    lacks: str = ""
    """The mechanism that the method needs and that is not there; such a preset is refused by name when it is loaded."""

    rollout: axes.Rollout = axes.Stream()
    transform: axes.Transform = axes.NoTransform()
    context: axes.Context = axes.NoContext()
    teacher: axes.Teacher = axes.NoTeacher()
    sync: axes.Sync = axes.Fixed()
    target: axes.Target = axes.TeacherTarget()
    divergence: axes.Divergence = axes.Fkl()
    estimator: axes.Estimator = axes.Full()
    token_weight: axes.TokenWeight = axes.One()
    route: axes.Route = axes.All()
    advantage: axes.Advantage = axes.NoAdvantage()
    mix: axes.Mix
    offpolicy: axes.OffPolicy = axes.NoCorrection()
    regularisers: tuple[axes.Regulariser, ...] = ()
    aggregate: axes.Aggregate = axes.TokenMean()

    optim: Optim = Optim()
    batch: Batch = Batch()
    limits: Limits = Limits()
    schedules: dict[str, ScheduleSpec] = {}
    """Settings that change from step to step, by dotted name: {"mix.kd" = {name = "linear", ...}}."""

    @model_validator(mode="before")
    @classmethod
    def _steps_soon_on_a_stream(cls, data: Any) -> Any:
        """A live stream steps at `STREAM_TURNS` turns unless the recipe says otherwise."""
        if not isinstance(data, dict):
            return data
        batch = data.get("batch", {})
        if _rollout(data) == "stream" and isinstance(batch, dict):
            return data | {"batch": {"turns_per_step": STREAM_TURNS} | batch}
        return data

    @property
    def group_size(self) -> int:
        """Turns that are claimed together; 1 on live traffic."""
        return self.rollout.group_size if isinstance(self.rollout, axes.Student) else 1

    @property
    def reward_weights(self) -> tuple[float, float] | None:
        """Of how an episode ended and of how its turn was judged; None where a turn has one reward."""
        first = self.advantage.parts[0]
        return first.weights if isinstance(first, axes.Raw | axes.StepIndexGroup) else None

    @property
    def waits_for_outcome(self) -> bool:
        """Whether a turn of a live stream is claimed only when its episode has ended: how it ended was asked for."""
        weights = self.reward_weights
        return self.group_size == 1 and self.uses_rl and weights is not None and weights[0] > 0

    @property
    def num_beside(self) -> int:
        """Samples of a step that come from elsewhere than the claimed turns."""
        share, turns = self.rollout.beside, self.batch.turns_per_step
        return turns if share == 1 else min(max(round(share * turns), int(share > 0)), turns - 1)

    @property
    def num_live(self) -> int:
        """Claimed turns of a full step."""
        return self.batch.turns_per_step - self.num_beside

    @property
    def uses_kd(self) -> bool:
        """Whether a teacher's scores are needed."""
        return not isinstance(self.mix, axes.RlOnly | axes.PairLoss) or isinstance(
            self.offpolicy, axes.Anchor
        )

    @property
    def uses_rl(self) -> bool:
        """Whether rewards are used."""
        return not isinstance(self.mix, axes.KdOnly | axes.PairLoss)

    @property
    def uses_pairs(self) -> bool:
        """Whether preferred answers are compared with rejected ones, in the place of distillation and reward."""
        return isinstance(self.mix, axes.PairLoss)

    @property
    def kd_needs_reward(self) -> bool:
        """Whether the teacher only bends the reward's loss, so that a turn without reward has nothing to learn."""
        return isinstance(self.mix, axes.AdvMult) or isinstance(self.offpolicy, axes.Anchor)

    @property
    def uses_reference(self) -> bool:
        """Whether version 0 must score the plain prompt: LossBatch.ref_hidden."""
        scores = not self.features.isdisjoint({"ref_logprob", "delta_loss"})
        return (
            scores
            or isinstance(self.target, axes.Extrap | axes.Geo)
            or any("ref" in feature for feature in self.features)
        )

    @property
    def references(self) -> dict[str, str]:
        """Folders of models that stand where version 0 stood, by the setting that names them: the mean of version 0 and
        a soup's model, or the reference of a token weight."""
        found = {
            f"regularisers.{number}.soup": item.soup
            for number, item in enumerate(self.regularisers)
            if isinstance(item, axes.KlRef)
        }
        if isinstance(self.token_weight, axes.TopFrac | axes.BatchTopFrac):
            found["token_weight.reference"] = self.token_weight.reference or ""
        return {setting: path for setting, path in found.items() if path}

    @property
    def options(self) -> tuple[axes.Option, ...]:
        """The option of every axis, in their order; regularisers and the parts of combined options one by one."""
        found: list[axes.Option] = []
        for name in AXES:
            value = getattr(self, name)
            for option in value if isinstance(value, tuple) else (value,):
                found.extend(option.parts)
        return tuple(found)

    @property
    def features(self) -> frozenset[str]:
        """What must be computed at each trained position."""
        return frozenset().union(*(option.features for option in self.options))

    @property
    def whole_batch_options(self) -> tuple[axes.Option, ...]:
        """Options that look at the whole batch before any gradient is taken, in the order of their axes."""
        return tuple(option for option in self.options if option.whole_batch)

    @property
    def uses_policy_gradient(self) -> bool:
        """Whether some loss is a policy gradient on sampled ids."""
        return self.uses_rl or isinstance(self.estimator, axes.Pg)

    @property
    def uses_sampled_ids(self) -> bool:
        """Whether some loss looks at the sampled id alone, so that forced ids must not take it (law 7)."""
        return (
            self.uses_rl
            or self.uses_pairs
            or isinstance(self.estimator, axes.Pg | axes.K2 | axes.K3 | axes.IwK3)
        )

    @property
    def pg_denominators(self) -> frozenset[axes.Denominator]:
        """Whose log-probs the policy-gradient ratios divide by; empty without such ratios."""
        if not self.uses_policy_gradient:
            return frozenset()
        named = axes.Ppo | axes.Tis | axes.Anchor | axes.Corrections
        ratios = [part for part in self.offpolicy.parts if isinstance(part, named)]
        return frozenset(part.denominator for part in ratios)

    @property
    def needs_behavior_logprobs(self) -> bool:
        """Whether a ratio divides by the sampler's log-probs: turns without raw ones are then refused and counted."""
        iw = (
            self.uses_kd and isinstance(self.estimator, axes.IwK3) and self.estimator.denominator == "sampler"
        )
        capped = any(
            isinstance(part, axes.IsClip) and part.denominator == "sampler" for part in self.offpolicy.parts
        )
        held = any(
            isinstance(item, axes.KlRef) and (item.to == "sampler" or item.estimator == "iw_k3")
            for item in self.regularisers
        )
        tempered = any(isinstance(part, axes.Tempered) for part in self.advantage.parts)
        return iw or capped or held or tempered or "sampler" in self.pg_denominators

    @property
    def needs(self) -> Literal["hint", "reward", "pair", "any"]:
        """What a turn must have to be worth claiming."""
        if self.uses_pairs:
            return "pair"
        if not self.uses_kd or self.kd_needs_reward:
            return "reward"
        own_hints = (
            isinstance(self.context, axes.HindsightHint)
            and self.context.recall == 0
            and not self.context.standing
        )
        if not self.uses_rl and own_hints and not self.holds:
            return "hint"
        return "any"

    @property
    def holds(self) -> bool:
        """Whether turns without context that were right are held to the teacher."""
        return any(isinstance(part, axes.ContextOrHeld) and part.weight > 0 for part in self.route.parts)

    @property
    def hold_logprob(self) -> float:
        """Least log-prob that the teacher gives each id of a held turn."""
        bounds = [part.min_logprob for part in self.route.parts if isinstance(part, axes.ContextOrHeld)]
        return max(bounds, default=0.0)

    @property
    def num_rehearsed(self) -> int:
        """The teacher's own answers to everyday requests that each step holds."""
        rows = [part.rehearsed for part in self.route.parts if isinstance(part, axes.ContextOrHeld)]
        return max(rows, default=0) if self.uses_kd and self.holds and self.sync.name == "fixed" else 0

    @property
    def shows_skills(self) -> bool:
        """Whether its teacher reads skills, so that a learner needs a source of them."""
        return any(part.name == "skill" for part in self.context.parts)

    def replaced(self, values: Mapping[str, Any]) -> Recipe:
        """A copy with settings changed by dotted name, checked like a new one.

        Raises:
            ConfigError: a name or value is not accepted, or the combination cannot work.
        """
        return _checked(_with(self.model_dump(), values))


def preset_names() -> list[str]:
    """The names of the presets that ship."""
    return sorted(
        entry.name.removesuffix(".toml") for entry in PRESETS.iterdir() if entry.name.endswith(".toml")
    )


def read_recipe(name_or_path: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """A preset by name, or a TOML file by path, changed by dotted names: its axes as they stand, to be looked at.

    Raises:
        ConfigError: as `load_recipe`, which also refuses what cannot run.
    """
    return _checked(_with(_read(name_or_path), overrides or {}))


def load_recipe(name_or_path: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Loads a preset by name, or a TOML file by path, changes it by dotted names and checks it.

    A file may begin with `extends = "PRESET"`; it then holds only what differs, and naming an option replaces it
    with its parameters.

    Raises:
        ConfigError: unknown name, unreadable file, a setting that is not accepted, a combination that cannot work, or
            a mechanism that is not there; the message says what to do.
    """
    recipe = read_recipe(name_or_path, overrides)
    if recipe.lacks:
        raise ConfigError(f"recipe {recipe.name!r} cannot work yet, it needs {recipe.lacks}")
    scheduled = {name: schedule(spec) for name, spec in recipe.schedules.items()}
    for name, item in scheduled.items():
        later = recipe.advantage.whole_batch and not name.startswith("advantage.base")
        if not (name.startswith(SCHEDULABLE) or (name.startswith("advantage.") and later)):
            raise ConfigError(
                f"recipe {recipe.name!r}: {name} is read once, when the learner starts, so a schedule would not change "
                f"it; settings that can change are {', '.join(SCHEDULABLE)}"
            )
        inputs = {_inputs(recipe.replaced({name: extreme})) for extreme in item.extremes()}
        if len(inputs) > 1:
            raise ConfigError(
                f"recipe {recipe.name!r}: the schedule of {name} would change which turns are claimed or what is "
                "recorded with them: let it change values or options that need the same inputs"
            )
    return recipe.replaced({name: item.value(0) for name, item in scheduled.items()})


def _inputs(recipe: Recipe) -> tuple[object, ...]:
    """What the rest of the learner prepares for a recipe, once."""
    uses = (recipe.uses_kd, recipe.uses_rl, recipe.uses_pairs, recipe.uses_reference, recipe.uses_sampled_ids)
    return recipe.needs, recipe.needs_behavior_logprobs, tuple(recipe.references.items()), *uses


def _read(name_or_path: str | Path) -> dict[str, Any]:
    """The settings of a preset or file with those it extends, options as tables."""
    path = Path(name_or_path)
    is_file = isinstance(name_or_path, Path) or path.suffix == ".toml" or len(path.parts) > 1
    try:
        data = tomllib.loads(
            (path if is_file else PRESETS / f"{name_or_path}.toml").read_text(encoding="utf-8")
        )
    except OSError as error:
        if is_file:
            raise ConfigError(f"cannot read the recipe {path}: {error.strerror}") from error
        raise ConfigError(_unknown("recipe", str(name_or_path), preset_names())) from error
    except ValueError as error:  # no TOML, or no UTF-8 text
        raise ConfigError(f"the recipe {name_or_path} is not valid TOML: {error}") from error
    data = {key: _option(key, value) for key, value in data.items()}
    parent = data.pop("extends", None)
    # What is known of the method that a recipe begins with is not known of the recipe.
    known = {} if parent is None else {k: v for k, v in _read(parent).items() if k not in OWN_WORDS}
    merged = _streamed(known, _merged(known, data), is_said="turns_per_step" in str(data.get("batch")))
    return {"name": path.stem} | merged | ({"name": path.stem} if "name" not in data else {})


def _option(key: str, value: Any) -> Any:
    """Axis values as tables, so that `extends` and dotted overrides can reach their parameters."""
    return {"name": value} if key in AXES and isinstance(value, str) else value


def _with(data: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`data` with values put at dotted names, in order; naming an option replaces it with its parameters."""
    before = {"rollout": data.get("rollout")}
    for name, value in values.items():
        head, _, rest = name.partition(".")
        if head == "regularisers" and rest:
            _put_in_list(data, name, value)
        else:
            put(data, name.split("."), _option(name, value))
    is_said = "batch.turns_per_step" in values or "turns_per_step" in str(values.get("batch"))
    return _streamed(before, data, is_said=is_said)


def _streamed(before: Mapping[str, Any], after: dict[str, Any], *, is_said: bool) -> dict[str, Any]:
    """`after`, without how many turns of groups made a step where groups gave way to a live stream; what was said of it
    there stays."""
    batch = after.get("batch")
    if is_said or not isinstance(batch, dict) or _rollout(before) == "stream" or _rollout(after) != "stream":
        return after
    return after | {"batch": {key: value for key, value in batch.items() if key != "turns_per_step"}}


def _rollout(data: Mapping[str, Any]) -> Any:
    """The name of a recipe's rollout; a live stream where nothing is said."""
    option = axes.named(data.get("rollout") or "stream")
    return option.get("name") if isinstance(option, Mapping) else getattr(option, "name", None)


def _put_in_list(data: dict[str, Any], name: str, value: Any) -> None:
    """Puts a value at AXIS.NUMBER.PARAMETER: the axis holds a list of options, counted from 0."""
    axis, number, *rest = name.split(".")
    items = [dict(axes.named(item)) for item in data.get(axis, ())]
    if not number.isdecimal() or int(number) >= len(items) or not rest:
        raise ConfigError(
            f"{name} cannot be set: {axis} is a list of {len(items)}, so write {axis}.0.NAME for the first"
        )
    put(items[int(number)], rest, value)
    data[axis] = items


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes`: sections are merged by key, an option of another name replaces the old one whole."""
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        if (
            isinstance(old, dict)
            and isinstance(value, dict)
            and value.get("name", old.get("name")) == old.get("name")
        ):
            result[key] = {**old, **value}
        else:
            result[key] = value
    return result


def _checked(data: dict[str, Any]) -> Recipe:
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_explain(str(data.get("name", "?")), error)) from error
    reasons = conflicts(recipe)
    if reasons:
        raise ConfigError(f"recipe {recipe.name!r} cannot work: " + "; ".join(reasons))
    return recipe


def _explain(name: str, error: ValidationError) -> str:
    """A pydantic error as one sentence a setting, with the known names where a name is unknown."""
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        if item["type"] == "union_tag_invalid":
            known = [tag.strip().strip("'") for tag in item["ctx"]["expected_tags"].split(",")]
            lines.append(_unknown(f"option of {where}:", str(item["ctx"]["tag"]), known))
        elif item["type"] == "extra_forbidden" and len(item["loc"]) == 1:
            lines.append(_unknown("setting", where, list(Recipe.model_fields)))
        elif item["type"] == "extra_forbidden":
            parent = ".".join(str(part) for part in item["loc"][:-1])
            known = [f"{parent}.{name}" for name in _siblings(item["loc"])]
            lines.append(
                _unknown("setting", where, known)
                if known
                else f"unknown setting {where!r}: {parent} has no settings"
            )
        else:
            lines.append(f"{where}: {item['msg']} (got {item.get('input')!r})")
    return f"recipe {name!r}: " + "; ".join(lines)


def _siblings(loc: Sequence[int | str]) -> list[str]:
    """The settings that stand where an unknown one was given."""
    models: list[type[BaseModel]] = [Recipe]
    for part in loc[:-1]:
        if isinstance(part, int):
            continue
        chosen = [m for m in models if "name" in m.model_fields and m.model_fields["name"].default == part]
        inside = [m.model_fields[part].annotation for m in models if part in m.model_fields]
        models = chosen or [section for annotation in inside for section in sections_in(annotation)]
    return [name for model in models for name in model.model_fields if name != "name"]


def _unknown(kind: str, name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    guess = f", did you mean {close[0]!r}?" if close else ";"
    return f"unknown {kind} {name!r}{guess} known are: {', '.join(known)}"
