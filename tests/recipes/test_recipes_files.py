"""What a recipe reads is looked for before anything is served."""

from pathlib import Path

import pytest

from agentrl.errors import ConfigError
from agentrl.recipes.files import refuse_missing_files
from agentrl.recipes.recipe import load_recipe


@pytest.mark.parametrize(
    ("name", "setting"),
    [("opd", "teacher.path"), ("gkd", "rollout.path"), ("redi", "rollout.path"), ("ampo", "transform.path")],
)
def test_a_file_that_is_not_named_or_not_there_is_refused_with_its_setting(
    name: str, setting: str, tmp_path: Path
) -> None:
    there = {"teacher.path": str(tmp_path)} if name == "gkd" else {}
    with pytest.raises(ConfigError, match=rf"nobody says which: set learn\.overrides\.{setting}"):
        refuse_missing_files(load_recipe(name, there))
    with pytest.raises(ConfigError, match=rf"learn\.overrides\.{setting} = '/no/such' is not there"):
        refuse_missing_files(load_recipe(name, there | {setting: "/no/such"}))
    refuse_missing_files(load_recipe(name, there | {setting: str(tmp_path)}))


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
