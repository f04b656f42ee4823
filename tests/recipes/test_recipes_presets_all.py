"""What holds for the presets together."""

import itertools
import re

import pytest

from agentrl.errors import ConfigError
from agentrl.recipes.recipe import AXES, PRESETS, Recipe, load_recipe, preset_names, read_recipe

LACKING = {
    "alp", "cord", "f_dpg", "hybrid_replay", "mallowspo", "papo", "proact", "pu_rl", "recap", "red",
    "rlhs", "sinkd", "sparsepo", "star",
}  # fmt: skip
"""Methods that need a mechanism which is not there. A name leaves this list when its mechanism comes."""


def point(recipe: Recipe) -> str:
    """The fifteen axes and their schedules: what makes two recipes the same method."""
    shown = {axis: repr(getattr(recipe, axis)) for axis in AXES}
    return repr(shown) + repr(sorted((name, repr(spec)) for name, spec in recipe.schedules.items()))


def test_two_presets_with_the_same_axes_are_one_method_and_one_of_them_says_so() -> None:
    """What cannot run is told apart by the mechanism that it lacks, since that is what would make the difference."""
    known = [read_recipe(name) for name in preset_names()]
    for first, second in itertools.combinations(known, 2):
        if point(first) == point(second) and first.lacks == second.lacks:
            assert second.name == first.alias_of or first.name == second.alias_of, (
                f"{first.name} and {second.name} are the same point"
            )
    aliases = {recipe.name: recipe.alias_of for recipe in known if recipe.alias_of is not None}
    assert aliases == {"chain_of_hindsight": "agent_distill"}
    for name, other in aliases.items():
        assert point(read_recipe(name)) == point(read_recipe(other))
        assert not read_recipe(name).lacks


def test_what_cannot_run_names_the_method_that_it_would_otherwise_be() -> None:
    """As stored it has the axes of another method, which is what it would be without the mechanism that it lacks."""
    runs = {point(read_recipe(name)): name for name in preset_names() if name not in LACKING}
    stored = {name: runs[point(read_recipe(name))] for name in LACKING if point(read_recipe(name)) in runs}
    assert stored == {"mallowspo": "dpo", "pu_rl": "dpo", "sparsepo": "dpo"}
    for name, other in stored.items():
        assert f"{other}" in read_recipe(name).summary.lower() + read_recipe(name).doubt.lower()


def test_the_methods_that_cannot_run_yet_are_those_of_the_list_and_say_what_they_need() -> None:
    assert {name for name in preset_names() if read_recipe(name).lacks} == LACKING
    for name in LACKING:
        with pytest.raises(ConfigError, match=rf"recipe '{name}' cannot work yet, it needs \w"):
            load_recipe(name)


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_short_and_names_its_paper_and_what_is_known_of_it(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe.summary.endswith((".", "?"))
    if name == "hybrid_replay":  # nobody here has read of it more than its name
        assert (recipe.paper, recipe.evidence) == ("no arXiv paper is known here", "")
        return
    assert re.fullmatch(r"[CPSA](,[CPSA])*", recipe.evidence), recipe.evidence
    assert re.search(r"arXiv \d{4}\.\d{4,5}", recipe.paper), recipe.paper
    lines = (PRESETS / f"{name}.toml").read_text().splitlines()
    assert len(lines) <= 25
