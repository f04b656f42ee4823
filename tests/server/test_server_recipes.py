"""`agentrl recipes`: the methods that ship, and one with its axes resolved."""

import json

import pytest
from typer.testing import CliRunner

from agentrl.errors import ConfigError
from agentrl.recipes.recipe import AXES, preset_names
from server.cli import app
from server.recipe_pages import formula, listed, page


def run(*words: str) -> str:
    result = CliRunner().invoke(app, ["recipes", *words], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def test_every_preset_is_listed_with_its_paper_and_what_it_needs() -> None:
    rows = json.loads(run("--json"))
    assert [row["name"] for row in rows] == preset_names()
    for row in rows:
        assert row["paper"], row["name"]
        assert row["needs"], row["name"]
    (grpo,) = [row for row in rows if row["name"] == "grpo"]
    assert "agentrl rollout --group-size 8" in grpo["needs"]
    assert "hint_opsd" in run()


def test_every_preset_says_how_it_runs_on_single_live_turns_and_with_which_baseline() -> None:
    rows = {row["name"]: row["live"] for row in json.loads(run("--json"))}
    assert rows["grpo"] == "with rollout = stream, advantage = raw: baseline 0"
    assert rows["dph_rl"].startswith("with rollout = { name = stream, rehearsal = 0.25 }, advantage = raw:")
    assert rows["sdpo"].endswith("context = env_feedback: no baseline, for it uses no reward")
    assert rows["rltf_sd"].endswith(
        "baseline 0, and the first answer's reward for what is learnt from the second"
    )
    assert rows["openclaw_rl"] == "as it is, baseline 0"
    assert rows["disco"] == "needs groups: it compares the attempts of one with each other"
    assert rows["agent_distill"] == "takes none: it reads its file alone"
    assert "single live turns: with rollout = stream, advantage = raw: baseline 0" in run("show", "grpo")


def test_a_method_that_reads_a_file_says_so_and_asks_for_no_hints() -> None:
    rows = {row["name"]: row["needs"] for row in listed()}
    assert rows["agent_distill"] == "a file of answers (rollout.path)"
    assert rows["gkd"].startswith("hints or rewards, a file of answers (rollout.path)")
    assert rows["adaspec"].endswith("another model for its reference (token_weight.reference)")
    assert rows["dpo"] == "pair, version 0 as reference"


def test_evidence_is_given_in_the_marks_of_the_legend() -> None:
    for row in listed():
        marks = set(row["evidence"].split(",")) if row["evidence"] else set()
        assert marks <= {"C", "P", "S", "A"}, row["name"]


def test_one_method_is_shown_with_every_axis_and_its_formula() -> None:
    text = run("show", "grpo")
    for axis in AXES:
        assert f"\n  {axis} (" in text
    assert "L(θ) = (1/Z)" in text
    assert "A = group(r, std=population, eps=1e-06)" in text
    assert "ppo(ρ, A, denominator=sampler, eps_low=0.2, eps_high=0.2)" in text


def test_a_changed_setting_is_shown_as_it_would_run() -> None:
    assert "KD = full(rkl(π, q))" in run("show", "hint_opsd", "--set", "divergence=rkl")


def test_the_formula_names_only_what_the_method_has() -> None:
    from agentrl.recipes.recipe import load_recipe

    assert not any(line.startswith(("RL", "A =")) for line in formula(load_recipe("hint_opsd")))
    assert not any(line.startswith(("KD", "q =")) for line in formula(load_recipe("grpo")))


def test_a_wrong_name_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'hint_opsd'"):
        page("hint_opds")
