"""What holds for the presets together."""

import itertools
import re

import pytest

from agentrl.errors import ConfigError
from agentrl.recipes.recipe import AXES, PRESETS, Recipe, load_recipe, preset_names, read_recipe

LACKING = {
    "adaspec", "alp", "chain_of_hindsight", "cord", "f_dpg", "mallowspo", "papo", "proact", "pu_rl", "recap", "red",
    "rlhs", "sinkd", "sparsepo", "star",
}  # fmt: skip
"""Methods that need a mechanism which is not there. A name leaves this list when its mechanism comes."""


def point(recipe: Recipe) -> str:
    """The fifteen axes and their schedules: what makes two recipes the same method."""
    shown = {axis: repr(getattr(recipe, axis)) for axis in AXES}
    return repr(shown) + repr(sorted((name, repr(spec)) for name, spec in recipe.schedules.items()))


def test_two_presets_with_the_same_axes_are_one_method_and_one_of_them_says_so() -> None:
    known = [read_recipe(name) for name in preset_names() if name not in LACKING]
    for first, second in itertools.combinations(known, 2):
        if point(first) == point(second):
            assert second.name in (first.alias_of, first.name) or first.name == second.alias_of, (
                f"{first.name} and {second.name} are the same point"
            )
    for recipe in known:
        if recipe.alias_of is not None:
            assert point(recipe) == point(read_recipe(recipe.alias_of)), recipe.name


def test_the_methods_that_cannot_run_yet_are_those_of_the_list_and_say_what_they_need() -> None:
    assert {name for name in preset_names() if read_recipe(name).lacks} == LACKING
    for name in LACKING:
        with pytest.raises(ConfigError, match=rf"recipe '{name}' cannot work yet, it needs \w"):
            load_recipe(name)


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_short_and_names_its_paper_and_what_is_known_of_it(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe.paper
    assert recipe.summary.endswith((".", "?"))
    assert re.fullmatch(r"[CPSA](,[CPSA])*", recipe.evidence), recipe.evidence
    lines = (PRESETS / f"{name}.toml").read_text().splitlines()
    assert len(lines) <= 25
