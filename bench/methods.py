"""What is compared in the terminal world: methods, what is put in their way, and the worlds that they learn in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.changing import Changing
from bench.projects import RULES_EACH, Projects
from bench.runs import EXTRAP, UNHELD, Unrewarded
from envs.protocol import Environment
from envs.terminal import Terminal

TURNS = 1200
MANY_RULES = 200
World = Literal["house", "projects", "changing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """What one curve stands for."""

    recipe: str | None
    """None: nothing is learned."""
    overrides: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the server."""
    group_size: int = 1
    turns: int = TURNS
    """By default."""
    world: World = "house"
    """house: 12 rules; projects: 200, twenty of a project each; changing: half of 12 change with half of the turns."""
    env_options: dict[str, Any] = field(default_factory=dict)
    rewarded: bool = True
    """Whether the server is told how an episode ended."""
    solutions: bool = False
    """Whether it is told the right command of each task; an episode is then one reply."""


SKILL = {"name": "skill"}
HINT = {"name": "hindsight_hint", "position": "tail", "recall": 0.8}
SKILL_OPD = {"context": SKILL, "teacher": "self", "sync": "fixed", "rollout.group_size": 4}
"""Of `opd`: what Skill-SD (arXiv 2604.10674) is compared with as on-policy distillation. The teacher is version 0 with
the skill in its prompt, and log q - log π of each sampled id is its advantage; no reward and no target beyond q. The
groups are skill_sd's, so that both play the same tasks as often and share a skill in the same way."""
CORRECTED = {
    "transform": {"name": "retry", "by": "policy", "temperature": 0.1, "max_tokens": 64},
    "teacher": "none", "divergence": "ce", "route": "has_context",
}  # fmt: skip
"""Cross entropy of what the policy itself answers with the hint in view: the corrected command. Not quite greedy,
because forced ids train nothing (law 7)."""
UNGUARDED = {
    "guards__watch": "off",
    "guards__max_kl_update": 0.0,
    "guards__max_kl_base": 0.0,
    "guards__max_fall": 0.0,
}
"""Of arms that the guards against collapse would stop: what happens without them is what is asked."""
UNBOUNDED = {"guards__max_penalty": 0.0}
"""As published; `bounded` is the preset as it ships, where penalties weigh no more than praise."""
METHODS = {
    "hint_opsd": Method(recipe="hint_opsd"),
    "hint_opsd with skills": Method(
        recipe="hint_opsd", overrides={"context": {"name": "several", "contexts": [HINT, SKILL]}}
    ),
    "hint_opsd_extrap": Method(recipe="hint_opsd", overrides=EXTRAP),
    "hint_opsd, by lift": Method(recipe="hint_opsd", overrides={"context": HINT | {"choose": "lift"}} | EXTRAP),
    "hint_opsd_unheld": Method(recipe="hint_opsd", overrides=UNHELD | EXTRAP),
    "skill_opsd": Method(recipe="hint_opsd", overrides={"context": SKILL} | UNHELD | EXTRAP),
    "hint_skill_opsd": Method(
        recipe="hint_opsd", overrides={"context": {"name": "several", "contexts": [HINT, SKILL]}} | UNHELD | EXTRAP
    ),
    "skill_opd, plain": Method(recipe="opd", group_size=4, overrides=SKILL_OPD),
    "skill_sd": Method(recipe="skill_sd", group_size=4),
    "skill_sd_kd.1": Method(recipe="skill_sd", group_size=4, overrides={"mix": {"name": "sum", "kd": 0.1}}),
    "grpo4": Method(recipe="grpo", group_size=4, overrides={"rollout.group_size": 4}),
    "openclaw_rl": Method(recipe="openclaw_rl", settings=UNBOUNDED),
    "openclaw_rl, bounded": Method(recipe="openclaw_rl"),
    "openclaw_rl_binary": Method(recipe="openclaw_rl_binary", settings=UNBOUNDED),
    "openclaw_rl_hint": Method(recipe="openclaw_rl_hint"),
    "opsd": Method(recipe="opsd", solutions=True),
    "opsd without its clip": Method(recipe="opsd", solutions=True, overrides={"estimator": "full"}),
    "sdpo": Method(recipe="sdpo", group_size=8),
    "srpo": Method(recipe="srpo", group_size=8),
    "grpo": Method(recipe="grpo", group_size=8),
    "supervised": Method(recipe="hint_opsd", overrides=CORRECTED, settings=UNGUARDED),
    "negative": Method(recipe="openclaw_rl_binary", rewarded=False, settings=UNBOUNDED),
    "wrong hints": Method(recipe="hint_opsd", overrides=EXTRAP, env_options={"wrong_hints": 1.0}),
    "half wrong hints": Method(recipe="hint_opsd", overrides=EXTRAP, env_options={"wrong_hints": 0.5}),
    "200 rules": Method(
        recipe="hint_opsd", overrides={"context": HINT | {"recall": 0.9}, **EXTRAP}, world="projects",
        settings={"guards__quarantine": "off"}, turns=16_000,
    ),
    "rules change": Method(recipe="hint_opsd", overrides=EXTRAP, world="changing", turns=2 * TURNS),
    **{
        f"{name} teacher{', plain' if plain else ''}": Method(
            recipe="hint_opsd", turns=10_000, settings=UNGUARDED,
            overrides={"sync": sync, **UNHELD, **({} if plain else EXTRAP)},
        )
        for plain in (False, True)
        for name, sync in (("fixed", "fixed"), ("ema", {"name": "ema", "rate": 0.05}), ("live", "live"))
    },
    "none": Method(recipe=None),
    "rules in the prompt": Method(recipe=None, env_options={"told": True}),
}  # fmt: skip
"""`hint_opsd` is the preset as it ships; arms with `EXTRAP` have the demo's target, which was chosen on houses 0 and 3.
`opsd` is the preset as published, with the right command as its reference solution: nano's teacher is sure of a
command that it is shown, so each id worth learning has a term far above the clip, and the rest of the loss pushes it
away.
`negative`: of the rule judge's votes in this world every one is -1, on a failed call; what works is no proof to it.
With several rules for like requests (`200 rules`) hints are recalled for requests that share nine tenths of their
words, and the quarantine is off: it takes requests that differ in a word for one situation."""


def make_env(
    method: Method, seed: int, *, has_changed: Callable[[], bool] = lambda: True, **options: Any
) -> Environment:
    """The world of a method.

    Args:
        method: the method.
        seed: of the house.
        has_changed: whether the rules have, where they do.
        options: of the environment, beside the method's own.
    """
    own = {"seed": seed, "shell": "simulated", **method.env_options, **options}
    if method.world == "projects":
        return Projects(num_projects=MANY_RULES // RULES_EACH, **own)
    if method.world == "changing":
        return Changing(has_changed=has_changed, **own)
    return Terminal(**own)


def training_env(method: Method, seed: int, has_changed: Callable[[], bool]) -> Environment:
    """The same as agents play it to be learned from."""
    env = make_env(method, seed, has_changed=has_changed, **({"max_steps": 1} if method.solutions else {}))
    return env if method.rewarded else Unrewarded(env)
