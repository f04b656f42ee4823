"""Presets, overrides, refusals and schedules: law 9."""

import inspect
import subprocess
import sys
import tomllib
from pathlib import Path
from types import UnionType
from typing import Any, get_args

import pytest
from presets_cases import refused

from agentrl.losses import objective  # noqa: F401  registers what stands in files of its own
from agentrl.losses.divergence import ADVANTAGES, DIVERGENCES, MINUS_F
from agentrl.losses.estimators import DENSE, SAMPLED
from agentrl.losses.features import FEATURES
from agentrl.losses.masking import AGGREGATES
from agentrl.losses.mix import MIXES
from agentrl.losses.policy_gradient import DENSE_WEIGHTS, OFFPOLICY
from agentrl.losses.regularisers import REGULARISERS
from agentrl.losses.targets import TARGETS
from agentrl.losses.token_weights import TOKEN_WEIGHTS
from agentrl.losses.whole import WHOLE_BATCH
from agentrl.recipes import axes, credit
from agentrl.recipes.recipe import AXES, PRESETS, Recipe, load_recipe, preset_names, read_recipe
from agentrl.recipes.routes import ROUTES
from agentrl.recipes.schedules import Schedules
from agentrl.teacher.contexts import CONTEXTS

OPTION_AXES = (
    "Rollout", "Transform", "Context", "Teacher", "Sync", "Target", "Divergence", "Estimator", "TokenWeight",
    "Route", "Advantage", "Mix", "OffPolicy", "Regulariser", "Aggregate",
)  # fmt: skip


def example(option: type[axes.Option]) -> dict[str, Any]:
    """The option's defaults."""
    fields = option.model_fields.items()
    return {name: field.get_default() for name, field in fields if not field.is_required()}


def options(axis: str) -> dict[str, type[axes.Option]]:
    """The options of an axis by name."""
    union = getattr(axes, axis)
    while not isinstance(union, (UnionType, type)):
        union = get_args(union)[0]
    classes = get_args(union) if isinstance(union, UnionType) else (union,)
    return {option.model_fields["name"].default: option for option in classes}


def test_the_schema_has_fifteen_axes_and_each_is_a_field_of_a_recipe() -> None:
    assert len(AXES) == 15
    assert set(AXES) <= set(Recipe.model_fields)


@pytest.mark.parametrize(
    ("axis", "functions", "first"),
    [
        ("Context", CONTEXTS, 2),
        ("Target", TARGETS, 3),
        ("TokenWeight", TOKEN_WEIGHTS, 4),
        ("Route", ROUTES, 1),
        ("Advantage", credit.ADVANTAGES, 2),
        ("Mix", MIXES, 4),
        ("Regulariser", REGULARISERS, 2),
        ("Aggregate", AGGREGATES, 7),
    ],
)
def test_every_option_has_a_function_with_its_parameters(
    axis: str, functions: dict[str, Any], first: int
) -> None:
    """An option that does nothing, or a parameter that nobody reads, would show here."""
    of_positions = {name for name, option in options(axis).items() if not option.whole_batch}
    assert of_positions <= set(functions) <= set(options(axis))
    for name, function in functions.items():
        arguments = list(inspect.signature(function).parameters)[first:]
        assert set(arguments) == set(options(axis)[name].model_fields) - {"name"}, name


@pytest.mark.parametrize(
    ("functions", "first", "without"),
    [(DIVERGENCES, 2, {"ce"}), (ADVANTAGES, 1, {"ce", "rank"}), (MINUS_F, 1, {"ce", "rank"})],
)
def test_every_divergence_has_terms_and_every_f_divergence_advantages(
    functions: dict[str, Any], first: int, without: set[str]
) -> None:
    assert set(options("Divergence")) - without == set(functions)
    for name, function in functions.items():
        arguments = list(inspect.signature(function).parameters)[first:]
        assert set(arguments) == set(options("Divergence")[name].model_fields) - {"name"}, name


def test_every_option_of_the_whole_batch_has_a_function_with_its_parameters() -> None:
    names = []
    for axis in OPTION_AXES:
        for name, option in options(axis).items():
            if option.whole_batch:
                names.append(name)
                arguments = list(inspect.signature(WHOLE_BATCH[name]).parameters)[2:]
                assert set(arguments) == set(option.model_fields) - {"name"}, name
    assert len(names) == len(set(names)), "an option of the whole batch is known by its name alone"
    assert set(names) == set(WHOLE_BATCH)


def test_every_feature_that_an_option_asks_for_is_computed() -> None:
    for axis in OPTION_AXES:
        for option in options(axis).values():
            assert option.model_construct(**example(option)).features <= set(FEATURES)


def test_every_estimator_and_correction_has_a_function_with_its_parameters() -> None:
    """The objective itself reads `denominator`."""
    assert set(options("Estimator")) == set(DENSE) | SAMPLED
    for name, function in DENSE.items():
        expected = set(options("Estimator")[name].model_fields) - {"name"}
        assert set(list(inspect.signature(function).parameters)[3:]) == expected
    assert set(options("OffPolicy")) - {"split"} == set(OFFPOLICY) | set(DENSE_WEIGHTS)
    for functions, first in ((OFFPOLICY, 3), (DENSE_WEIGHTS, 2)):
        for name, function in functions.items():
            expected = set(options("OffPolicy")[name].model_fields) - {"name", "denominator"}
            given = set(list(inspect.signature(function).parameters)[first:])
            assert given - {"teacher_logprobs", "where"} == expected


@pytest.mark.parametrize("module", ["recipe", "credit", "routes", "schedules", "eligibility"])
def test_recipes_and_contexts_do_not_import_torch(module: str) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        f"import agentrl.recipes.{module}, agentrl.teacher.contexts, agentrl.losses"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_five_to_fifteen_lines_and_names_its_paper(name: str) -> None:
    lines = (PRESETS / f"{name}.toml").read_text().splitlines()
    recipe = read_recipe(name)

    assert 5 <= len([line for line in lines if line.strip()]) <= 15
    assert recipe.name == name
    assert recipe.summary.endswith(".")
    assert "arXiv" in recipe.paper


def test_the_vetted_defaults_of_the_method_for_live_traffic() -> None:
    recipe = load_recipe("hint_opsd")

    assert recipe.rollout == axes.Stream()
    assert recipe.context == axes.HindsightHint(position="tail", recall=0.8)
    assert (recipe.teacher, recipe.sync) == (axes.SelfTeacher(), axes.Fixed())
    assert (recipe.divergence, recipe.estimator) == (axes.Fkl(), axes.Full())
    assert (recipe.route, recipe.mix, recipe.aggregate) == (
        axes.ContextOrHeld(),
        axes.KdOnly(),
        axes.TokenMean(),
    )
    assert (recipe.needs, recipe.group_size, recipe.needs_behavior_logprobs) == ("any", 1, False)


def test_what_the_other_presets_ask_for() -> None:
    grpo, binary, opsd = (load_recipe(name) for name in ("grpo", "openclaw_rl_binary", "opsd"))

    assert (grpo.needs, grpo.group_size, grpo.needs_behavior_logprobs) == ("reward", 8, True)
    assert (binary.needs, binary.group_size, binary.advantage) == ("reward", 1, axes.Raw())
    combined, opd = load_recipe("openclaw_rl"), load_recipe("openclaw_rl_hint")
    assert (combined.needs, combined.mix, combined.estimator) == ("any", axes.AdvAdd(), axes.Pg())
    assert (opd.needs, opd.mix, opd.divergence) == ("hint", axes.KdOnly(), axes.Rkl())
    assert (opsd.needs, opsd.context, opsd.estimator) == (
        "any",
        axes.Solution(),
        axes.Full(pointwise_clip=0.05),
    )


@pytest.mark.parametrize(
    "sync", ["fixed", "live", {"name": "ema", "rate": 0.01}, {"name": "copy_every", "steps": 4}]
)
def test_the_teacher_may_follow_the_policy_in_every_way(sync: object) -> None:
    recipe = load_recipe("hint_opsd", {"sync": sync, "route": "has_context"})
    assert recipe.sync.name == (sync if isinstance(sync, str) else sync["name"])


def test_overrides_go_by_dotted_names_in_order() -> None:
    recipe = load_recipe(
        "hint_opsd",
        {"divergence": "jsd", "divergence.beta": 0.25, "optim.lr": 1e-3, "context.position": "system"},
    )
    assert recipe.divergence == axes.Jsd(beta=0.25)
    assert recipe.optim.lr == 1e-3
    assert recipe.context == axes.HindsightHint(position="system", recall=0.8)


def test_a_file_may_extend_a_preset(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'extends = "grpo"\nsummary = "Mine."\nrollout = { group_size = 4 }\nadvantage = "loo"\noptim = { eps = 1e-6 }\n'
    )
    mine, grpo = load_recipe(path), load_recipe("grpo")

    assert mine.name == "mine"
    assert mine.rollout == axes.Student(group_size=4)
    assert mine.advantage == axes.LeaveOneOut()
    assert (mine.optim.lr, mine.optim.eps) == (grpo.optim.lr, 1e-6)
    assert mine.offpolicy == grpo.offpolicy
    assert load_recipe(str(path)) == mine


def test_a_recipe_survives_being_written_and_read() -> None:
    recipe = load_recipe("grpo", {"regularisers": [{"name": "kl_ref", "coef": 0.02}]})
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_an_unknown_preset_lists_the_known_ones_and_the_closest() -> None:
    message = refused("hint_ospd")
    assert "unknown recipe 'hint_ospd', did you mean 'hint_opsd'?" in message
    assert all(name in message for name in preset_names())


def test_an_unknown_option_lists_the_known_ones_of_its_axis() -> None:
    assert "unknown option of divergence: 'fk', did you mean 'fkl'? known are: fkl, rkl, jsd" in refused(
        "hint_opsd", {"divergence": "fk"}
    )


def test_unknown_and_impossible_settings_are_refused_by_name() -> None:
    assert "unknown setting 'divergance', did you mean 'divergence'?" in refused(
        "hint_opsd", {"divergance": "fkl"}
    )
    assert "divergence.jsd.beta" in refused("hint_opsd", {"divergence": {"name": "jsd", "beta": 1.5}})
    assert "divergence.fkl.beta" in refused("hint_opsd", {"divergence.beta": 0.5})
    assert "optim.lr" in refused("hint_opsd", {"optim.lr": float("nan")})
    assert "optim.lr cannot be set" in refused("hint_opsd", {"optim": 3, "optim.lr": 3})


def test_an_unknown_setting_inside_an_option_is_refused_with_those_that_it_has() -> None:
    said = refused("hint_opsd", {"optim.lrr": 1.0})
    assert "unknown setting 'optim.lrr', did you mean 'optim.lr'? known are: optim.lr, optim.betas" in said
    said = refused("hint_opsd", {"context.recal": 1.0})
    assert "'context.hindsight_hint.recal', did you mean 'context.hindsight_hint.recall'?" in said
    said = refused("hint_opsd", {"divergence.beta": 0.5})
    assert "unknown setting 'divergence.fkl.beta': divergence.fkl has no settings" in said


def test_a_ratio_without_a_named_denominator_is_refused() -> None:
    """Law 7: ratios name their denominator."""
    assert "offpolicy.ppo.denominator: Field required" in refused("grpo", {"offpolicy": "ppo"})
    assert "offpolicy.tis.denominator: Field required" in refused("grpo", {"offpolicy": "tis"})


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("mix = \n")
    assert "cannot read the recipe" in refused(tmp_path / "absent.toml")
    assert "not valid TOML" in refused(broken)


def test_a_linear_schedule_moves_a_setting_step_by_step_and_stops_at_its_end() -> None:
    schedules = Schedules(load_recipe("hint_opsd", {"schedules": {"optim.lr": LINEAR}}))
    seen = []
    for _ in range(6):
        seen.append(schedules.current().optim.lr)
        schedules.advance({})
    assert seen == pytest.approx([1e-3, 7.75e-4, 5.5e-4, 3.25e-4, 1e-4, 1e-4])
    assert seen[-1] == 1e-4


LINEAR = {"name": "linear", "start": 1e-3, "end": 1e-4, "steps": 4}


SWITCH = {"name": "switch", "before": "fkl", "after": {"name": "jsd", "beta": 0.3}, "at": 2}


def test_a_switch_changes_a_whole_option_at_its_step() -> None:
    schedules = Schedules(load_recipe("hint_opsd", {"schedules": {"divergence": SWITCH}}))
    seen = []
    for _ in range(4):
        seen.append(schedules.current().divergence)
        schedules.advance({})
    assert seen == [axes.Fkl(), axes.Fkl(), axes.Jsd(beta=0.3), axes.Jsd(beta=0.3)]


def test_a_constant_schedule_sets_a_value_once_and_for_all() -> None:
    recipe = load_recipe("hint_opsd", {"schedules": {"optim.lr": {"name": "constant", "value": 3e-4}}})
    assert recipe.optim.lr == 3e-4
    assert Schedules(recipe).current() == recipe


def test_a_loaded_recipe_holds_the_values_of_the_first_step() -> None:
    assert load_recipe("hint_opsd", {"schedules": {"optim.lr": LINEAR}}).optim.lr == 1e-3


def test_schedules_resume_where_they_were_saved() -> None:
    recipe = load_recipe("hint_opsd", {"schedules": {"optim.lr": LINEAR, "divergence": SWITCH}})
    first, second = Schedules(recipe), Schedules(recipe)
    for _ in range(3):
        first.advance({"loss": 1.0})
    second.load_state_dict(first.state_dict())

    assert second.step == 3
    assert second.current() == first.current() != recipe
    with pytest.raises(ValueError, match="the recipe for"):
        Schedules(load_recipe("hint_opsd")).load_state_dict(first.state_dict())


def test_a_schedule_that_would_lead_to_an_impossible_recipe_is_refused_when_it_is_loaded() -> None:
    """Law 9 at every step, not only the first."""
    later = {"schedules": {"estimator": {"name": "switch", "before": "full", "after": "iw_k3", "at": 500}}}
    assert "estimator 'iw_k3'" in refused("hint_opsd", later)
    sinking = {"schedules": {"optim.lr": {"name": "linear", "start": 1e-3, "end": 0.0, "steps": 10}}}
    assert "optim.lr" in refused("hint_opsd", sinking)
    assert "unknown setting" in refused("hint_opsd", {"schedules": {"mixture.kd": LINEAR}})


def test_a_schedule_that_would_do_nothing_or_need_other_turns_is_refused() -> None:
    """What the learner reads once, at its start, cannot follow a schedule."""
    sync = {"name": "switch", "before": "fixed", "after": "live", "at": 5}
    assert "sync is read once" in refused("hint_opsd", {"schedules": {"sync": sync}})
    assert "optim.betas is read once" in refused("hint_opsd", {"schedules": {"optim.betas": LINEAR}})
    forced = {"name": "switch", "before": "full", "after": "iw_k3", "at": 5}
    message = refused("hint_opsd", {"divergence": "rkl", "schedules": {"estimator": forced}})
    assert "the schedule of estimator would change which turns are claimed" in message


def test_the_presets_are_plain_toml() -> None:
    for name in preset_names():
        assert "mix" in tomllib.loads((PRESETS / f"{name}.toml").read_text())
