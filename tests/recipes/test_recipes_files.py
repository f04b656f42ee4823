"""What a recipe reads is looked for before anything is served."""

from pathlib import Path

import pytest

from agentrl.errors import ConfigError
from agentrl.recipes.files import path_of, refuse_missing_files
from agentrl.recipes.recipe import load_recipe


@pytest.mark.parametrize(
    ("name", "setting", "remedy"),
    [
        ("opd", "teacher.path", "set teacher = 'self'"),
        ("gkd", "rollout.path", "set rollout = 'stream'"),
        ("redi", "rollout.path", "set rollout = 'stream'"),
        ("ampo", "transform.path", r"set transform\.source = 'retry'"),
        ("lightning_opd", "teacher.path", r"write one with agentrl\.learner\.external_teacher\.score_turns"),
        ("lightning_opd", "teacher.model", "set teacher = 'self'"),
        ("salsa", "regularisers.0.soup", "remove it"),
        ("adaspec", "token_weight.reference", "remove it"),
    ],
)
def test_a_file_that_is_not_named_or_not_there_is_refused_with_its_setting(
    name: str, setting: str, remedy: str, tmp_path: Path
) -> None:
    others = {
        "gkd": {"teacher.path"},
        "adaspec": {"teacher.path", "rollout.path"},
        "lightning_opd": {"teacher.path", "teacher.model"},
    }
    there = {other: str(tmp_path) for other in others.get(name, set()) - {setting}}
    unnamed, absent = load_recipe(name, there), load_recipe(name, there | {setting: "/no/such"})
    for check in (refuse_missing_files, lambda recipe: path_of(recipe, setting)):
        with pytest.raises(
            ConfigError, match=rf"says which: --set learn\.overrides\.{setting}=PATH, or {remedy}"
        ):
            check(unnamed)
        with pytest.raises(
            ConfigError, match=rf"learn\.overrides\.{setting} = '/no/such' is not there: .*, or {remedy}"
        ):
            check(absent)
    whole = load_recipe(name, there | {setting: str(tmp_path)})
    refuse_missing_files(whole)
    assert path_of(whole, setting) == tmp_path


def test_a_fingerprint_names_a_teacher_that_need_not_be_there(tmp_path: Path) -> None:
    settings = {"teacher.path": str(tmp_path), "teacher.model": "sha256:0123"}
    refuse_missing_files(load_recipe("lightning_opd", settings))


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert path_of(load_recipe("opd", {"teacher.path": "~"}), "teacher.path") == tmp_path


def test_a_recipe_that_reads_nothing_is_let_through() -> None:
    refuse_missing_files(load_recipe("hint_opsd"))


def test_what_is_known_of_a_preset_is_not_known_of_a_recipe_that_begins_with_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('extends = "sdpo"\n')
    mine, theirs = load_recipe(path), load_recipe("sdpo")
    assert theirs.evidence
    assert theirs.doubt
    assert (mine.evidence, mine.doubt) == ("", "")
    assert mine.divergence == theirs.divergence


def test_a_recipe_that_begins_with_one_whose_mechanism_is_missing_is_refused_as_well(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('extends = "sinkd"\n')
    with pytest.raises(ConfigError, match="cannot work yet"):
        load_recipe(path)
