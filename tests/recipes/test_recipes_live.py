"""Methods of groups on single live turns: what each gives up for it, and its baseline."""

from pathlib import Path
from typing import Any

import pytest
from presets_cases import Sampled, on_f

from agentrl.recipes.live import live_line, on_live_turns
from agentrl.recipes.recipe import load_recipe, preset_names, read_recipe

RAW: dict[str, Any] = {"rollout": "stream", "advantage": "raw"}
BASE_RAW: dict[str, Any] = {"rollout": "stream", "advantage.base": "raw"}
LIVE: dict[str, dict[str, Any] | None] = {
    "ampo": None,
    "apo": None,
    "bapo": RAW,
    "c3po": RAW,
    "caopd": None,
    "chi2_reg": RAW,
    "clip_cov": RAW,
    "d3s": None,
    "dapo": RAW | {"transform": "none"},
    "dcpo": BASE_RAW,
    "disco": None,
    "dph_rl": RAW | {"rollout": {"name": "stream", "rehearsal": 0.25}},
    "drpo": None,
    "fg_expo": RAW | {"route": "all"},
    "grpo": RAW,
    "gtpo": BASE_RAW,
    "herl": None,
    "kdrl": RAW,
    "kepo": None,
    "kimi_pg": RAW | {"regularisers": []},
    "kl_cov": RAW,
    "laser": RAW | {"schedules": {}},
    "mdpo": RAW,
    "paced": {"rollout": "stream", "route": "has_context"},
    "pi_distill": RAW,
    "pi_opsd": RAW,
    "prl": BASE_RAW,
    "r2vpo": RAW,
    "r3": None,
    "rapo": RAW,
    "rlad": RAW,
    "rlsd": RAW,
    "rltf_fm": RAW,
    "rltf_sd": RAW,
    "safe": RAW,
    "salsa": RAW,
    "scope": {"rollout": "stream", "route": "correct_ce_wrong_kd"},
    "sdar": RAW | {"context": "env_feedback"},
    "sdpo": {"rollout": "stream", "context": "env_feedback"},
    "skill_sd": RAW,
    "spine": BASE_RAW,
    "srpo": RAW | {"context": "env_feedback"},
}
"""Every preset of groups; None compares the attempts of one by its nature."""
ON_F: dict[str, dict[str, Any]] = {"gtpo": {"advantage.max_entropy": 5.0}}
"""H(π) of fixture F is 1.03 nats, more than the ln 2 above which gtpo leaves an answer out."""
TWO_STAGES = ("pi_distill", "rltf_fm", "rltf_sd")
"""Their samples come from a second generation: tests of the learner train them."""


def test_the_table_holds_every_method_of_groups_that_can_run() -> None:
    found = {name: read_recipe(name) for name in preset_names()}
    assert set(LIVE) == {name for name, own in found.items() if own.group_size > 1 and not own.lacks}


@pytest.mark.parametrize("name", LIVE)
def test_a_method_of_groups_says_what_it_gives_up_on_single_live_turns_and_its_baseline(name: str) -> None:
    recipe, changes = read_recipe(name), LIVE[name]
    assert on_live_turns(recipe) == changes
    line = live_line(recipe)
    if changes is None:
        assert line.startswith("needs groups")
        return
    assert all(f"{setting} = " in line for setting in changes)
    assert ("baseline 0" in line) == recipe.uses_rl
    live = load_recipe(name, changes)
    assert live.group_size == 1
    assert on_live_turns(live) == {}


@pytest.mark.parametrize("name", [name for name, own in LIVE.items() if own is not None])
def test_a_method_of_groups_learns_from_single_live_turns_and_adds_nothing_to_their_rewards(
    name: str,
) -> None:
    """A turn of reward 1 beside one of reward 0: without a baseline their raw advantages are 1 and 0."""
    if name in TWO_STAGES:
        return
    wide = {"limits.max_logprob_gap": 9.0} | ON_F.get(name, {})
    recipe = load_recipe(name, wide | (LIVE[name] or {}))
    found = on_f(recipe, [Sampled(ids=(2, 0), reward=1.0), Sampled(ids=(1,), reward=0.0)])
    assert found.gradient.abs().sum() > 0
    if name == "grpo":  # −ρ·1 of ids 0 (1.25, clipped at 1.2) and 2 (1.0), and 0 of id 1, over three tokens
        assert found.loss == pytest.approx(-(1.2 + 1.0) / 3)


@pytest.mark.parametrize(
    ("preset", "changes", "turns"),
    [
        ("sdpo", {}, 32),
        ("sdpo", {"rollout": "stream", "context": "env_feedback"}, 8),
        ("sdpo", {"rollout": {"name": "stream"}, "context": "env_feedback", "batch.max_wait_s": 9.0}, 8),
        ("sdpo", {"batch.turns_per_step": 32, "rollout": "stream", "context": "env_feedback"}, 32),
        ("sdpo", {"rollout": "stream", "context": "env_feedback", "batch": {"turns_per_step": 24}}, 24),
        ("hint_opsd", {"rollout": "stream", "batch.turns_per_step": 5}, 5),
        ("lightning_opd", {"teacher.path": "x", "optim.lr": 1e-4}, 256),
    ],
)
def test_groups_that_give_way_to_a_stream_step_as_streams_do_unless_something_else_is_said(
    preset: str, changes: dict[str, Any], turns: int
) -> None:
    assert read_recipe(preset, changes).batch.turns_per_step == turns


def test_a_file_that_puts_a_method_of_groups_on_a_stream_steps_as_streams_do(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('extends = "sdpo"\nrollout = "stream"\ncontext = "env_feedback"\n')
    assert read_recipe(path).batch.turns_per_step == 8

    path.write_text(path.read_text() + "batch = { turns_per_step = 16, max_wait_s = 5.0 }\n")
    assert (read_recipe(path).batch.turns_per_step, read_recipe(path).batch.max_wait_s) == (16, 5.0)
    group = read_recipe("sdpo").replaced({"rollout": "stream", "context": "env_feedback"})
    assert group.batch.turns_per_step == 8
