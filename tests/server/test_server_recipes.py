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
