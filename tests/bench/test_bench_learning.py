"""What the learning curves are read by."""

import itertools
import math
import random
from pathlib import Path
from typing import Any

import pytest

from agentrl.recipes.recipe import load_recipe
from bench.curves import (
    Reached,
    band,
    best_rate,
    chosen,
    draw,
    forgotten,
    interval,
    long_runs,
    misled,
    recovered,
    shown_turns,
    table,
    tables,
    turns_to,
)
from bench.learning import _with_change, marks
from bench.methods import METHODS
from bench.orderings import factor, orderings
from bench.runs import COMMON
from bench.significance import p_value


def row(
    method: str = "grpo",
    rate: float = 1e-3,
    seed: int = 0,
    curve: tuple[float, ...] = (0.0, 1.0),
    **more: Any,
) -> dict[str, Any]:
    points = [
        {"turns": 100 * index, "version": index, "reachable": value, "unknown": value / 2}
        for index, value in enumerate(curve)
    ]
    return {"method": method, "seed": seed, "rate": rate, "turns": 100, "points": points, **more}


def reached(by: float) -> Reached:
    return Reached(after=0.0, by=by)


def test_turns_to_a_share_are_known_as_far_as_points_lie_apart() -> None:
    assert turns_to(row(curve=(0.0, 0.4, 1.0)), "reachable", 0.7) == Reached(after=100.0, by=200.0)
    assert turns_to(row(curve=(0.9, 0.1)), "reachable", 0.8) == Reached(after=0.0, by=0.0)
    assert turns_to(row(curve=(0.0, 0.7)), "reachable", 0.8) == Reached(after=100.0, by=math.inf)


def test_turns_since_a_change_are_counted_from_it_and_by_the_rules_after_it() -> None:
    changing = row(curve=(0.0, 1.0, 0.2, 1.0))
    for point, turns in zip(changing["points"], (0, 100, 100, 250), strict=True):
        point["turns"] = turns
    assert turns_to(changing, "reachable", 0.6, since=100) == Reached(after=0.0, by=150.0)
    assert turns_to(changing, "reachable", 0.6) == Reached(after=0.0, by=100.0)


def test_the_band_is_students_over_seeds() -> None:
    mean, low, high = band([0.4, 0.6])
    assert mean == pytest.approx(0.5)
    assert (low, high) == (0.0, 1.0)  # 12.706 · 0.1414 / √2 = 1.27 on either side, cut to the unit interval
    mean, low, high = band([0.5, 0.6, 0.55, 0.45, 0.65])
    assert (mean, high - mean) == (
        pytest.approx(0.55),
        pytest.approx(2.776 * 0.0790569 / math.sqrt(5), rel=1e-4),
    )
    assert band([0.3]) == (0.3, 0.0, 1.0)


def test_every_learning_rate_is_shown_and_the_best_one_is_marked() -> None:
    found = [
        row(rate=1e-3, curve=(0.0, 0.4)),
        row(rate=1e-4, curve=(0.0, 0.9)),
        row("none", curve=(0.1, 0.1)),
    ]
    assert best_rate(found, "grpo", 100) == 1e-4
    assert best_rate(found, "sdpo", 100) is None
    assert best_rate(found, "grpo", 200) is None
    shown = table(found)
    assert "| grpo | 100 | 0.0001 * | 1 | 0.90 [0.00, 1.00] | 100 | 0.45 [0.00, 1.00] | never |" in shown
    assert "| grpo | 100 | 0.001 | 1 | 0.40 [0.00, 1.00] | never | 0.20 [0.00, 1.00] | never |" in shown
    assert [name for name in METHODS if f"| {name} |" in shown] == ["grpo", "none"]
    assert "never draws them" in shown


def test_learning_rates_are_compared_on_the_houses_that_all_of_them_have() -> None:
    hard = [row(rate=7e-4, seed=seed, curve=(0.0, end)) for seed, end in enumerate((0.95, 0.6, 0.6))]
    stopped = [*hard, row(rate=2e-4, curve=(0.0, 0.9))]
    assert best_rate(stopped, "grpo", 100) == 7e-4
    assert len(chosen(stopped)["grpo", 100]) == 3
    assert best_rate([*hard[1:], row(rate=2e-4, curve=(0.0, 0.9))], "grpo", 100) == 7e-4


def test_an_interval_is_students_however_many_seeds_there_are() -> None:
    alternating = [0.4, 0.6] * 6  # 12 seeds: 2.201 · 0.10445 / √12 = 0.0664
    assert interval(alternating)[2] == pytest.approx(0.5664, abs=1e-4)
    # 24 seeds, taken as 20: 2.093 · 0.10215 / √24 = 0.0436
    assert interval(alternating * 2)[2] == pytest.approx(0.5436, abs=1e-4)
    # Equal values that are coarse: 4.303 · 0.3 / √3 = 0.745
    assert interval([0.5] * 3, 0.3)[2] == pytest.approx(1.2453, abs=1e-4)


def test_a_method_is_shown_once_for_each_number_of_turns() -> None:
    longer = row(curve=(0.0, 0.5)) | {"turns": 900}
    assert list(chosen([longer, row(), row(seed=1)])) == [("grpo", 100), ("grpo", 900)]


def test_turns_are_told_by_the_points_at_which_seeds_were_there_and_how_many_never_were() -> None:
    assert shown_turns([reached(100), reached(50), reached(100)]) == "100 (50 to 100)"
    assert shown_turns([reached(1200), reached(1200)]) == "1,200"
    assert shown_turns([reached(100), reached(math.inf), reached(300)]) == "300 (1 of 3 never)"
    assert shown_turns([reached(100), reached(math.inf), reached(math.inf)]) == "never (2 of 3 never)"
    assert shown_turns([reached(math.inf), reached(math.inf)]) == "never"


def test_methods_are_compared_seed_by_seed_in_factors_of_the_turns_that_others_need_at_least() -> None:
    fast = [row("hint_opsd", seed=seed, curve=(0.0, 1.0)) | {"turns": 400} for seed in (0, 1, 2)]  # by 100
    slow = [
        row(seed=seed, curve=(0.0, 0.0, 0.0, 0.0, 1.0)) | {"turns": 400} for seed in (0, 1, 2)
    ]  # after 300
    known = factor(fast, slow)
    assert known is not None
    assert known.mean == pytest.approx(3.0)
    # All seeds agree, but a first point at 100 says no more than "from 1 to 100": ln 100 / √12 = 1.33 as the spread.
    assert known.high == pytest.approx(3 * math.exp(4.303 * math.log(100) / math.sqrt(12) / math.sqrt(3)))
    assert factor(slow, fast) is None  # it may have been there at once
    # Who never gets there needs at least the whole run; who is there at once has no factor, nor has one seed.
    never = [row("sdpo", seed=seed, curve=(0.0, 0.1, 0.1, 0.1, 0.1)) | {"turns": 400} for seed in (0, 1)]
    known = factor(fast, never)
    assert known is not None
    assert known.mean == pytest.approx(4.0)
    assert factor(never, fast) is None
    assert factor([row("none", seed=seed, curve=(0.9, 0.9)) for seed in (0, 1)], slow) is None
    assert factor(fast[:1], slow) is None


def reaching(method: str, seed: int, by: int) -> dict[str, Any]:
    """A curve with points every 50 turns that is good from one of them on."""
    points = [
        {"turns": turns, "version": turns, "reachable": float(turns >= by), "unknown": 0.0}
        for turns in range(0, 1001, 50)
    ]
    return row(method, seed=seed) | {"turns": 1000, "points": points}


def test_an_order_is_claimed_of_the_methods_with_the_most_seeds_that_points_and_seeds_tell_apart() -> None:
    fast = [reaching("hint_opsd", seed, 100) for seed in range(5)]
    slow = [reaching("grpo", seed, 900 + 50 * (seed % 2)) for seed in range(5)]
    near = [reaching("openclaw_rl", seed, 150) for seed in range(5)]
    given = [reaching("rules in the prompt", seed, 0) for seed in range(5)]

    shown = orderings([*fast, *slow, *near, *given])

    # 850 or 900 turns against 100: factor 8.7; against 150: 5.8. From 100 to 150 is a step of the points, no more.
    assert "Of 3 comparisons 2 hold together" in shown
    assert [line.split(" [")[0] for line in shown.splitlines()[2:]] == [
        "- hint_opsd, 1,000 turns, 5 seeds: grpo 8.7",
        "- openclaw_rl, 1,000 turns, 5 seeds: grpo 5.8",
    ]
    # Four seeds are too few to stand beside five.
    assert "grpo" not in orderings([*fast, *slow[:4], *near])


def test_methods_that_the_seeds_do_not_tell_apart_are_in_no_order() -> None:
    one = [row("hint_opsd", seed=0, curve=(0.0, 1.0)), row("hint_opsd", seed=1, curve=(0.0, 0.0, 1.0))]
    two = [row("openclaw_rl", seed=0, curve=(0.0, 0.0, 1.0)), row("openclaw_rl", seed=1, curve=(0.0, 1.0))]
    for each in (*one, *two):
        each["turns"] = 200
    assert orderings([*one, *two]) == ""


def test_what_chance_tells_apart_among_many_equal_methods_is_not_claimed() -> None:
    chance = random.Random(3)
    found: dict[str, list[dict[str, Any]]] = {}
    for name in list(METHODS)[:16]:
        for seed in range(5):
            at = chance.uniform(100, 900)
            points = [
                {"turns": turns, "unknown": 0.0, "reachable": share}
                for turns, share in ((0, 0.0), (at - 10, 0.0), (at, 1.0))
            ]
            found.setdefault(name, []).append(row(name, seed=seed) | {"turns": 1000, "points": points})
    by = {name: [turns_to(each, "reachable").by for each in own] for name, own in found.items()}
    apart = [
        p_value([math.log(mine / their) for mine, their in zip(by[one], by[other], strict=True)])
        for one, other in itertools.combinations(by, 2)
    ]

    assert len(apart) == 120
    assert sum(p < 0.05 for p in apart) >= 3
    assert orderings([each for own in found.values() for each in own]) == ""


def test_every_arm_is_a_recipe_that_is_accepted() -> None:
    for method in METHODS.values():
        if method.recipe is not None:
            load_recipe(method.recipe, {**COMMON, **method.overrides})


def test_opsd_without_its_clip_differs_from_opsd_in_nothing_else() -> None:
    published, without = (
        load_recipe("opsd", {**COMMON, **METHODS[name].overrides})
        for name in ("opsd", "opsd without its clip")
    )

    assert published != without
    assert published.replaced({"estimator": {"name": "full"}}) == without
    assert METHODS["opsd"].solutions
    assert METHODS["opsd without its clip"].solutions


def test_plain_distillation_of_skills_is_the_log_ratio_to_version_0_and_nothing_else() -> None:
    method = METHODS["skill_opd, plain"]
    found = load_recipe(method.recipe or "", {**COMMON, **method.overrides})

    assert (method.recipe, method.group_size, found.group_size) == ("opd", 4, 4)
    assert [part.name for part in found.context.parts] == ["skill"]
    assert (found.teacher.name, found.target.name, found.mix.name) == ("self", "q", "kd")
    assert (found.divergence.name, found.estimator.name, found.advantage.name) == ("rkl", "pg", "none")
    assert found.sync.params == {"version": 0}
    assert found.estimator.params == load_recipe("opd").estimator.params
    assert not found.uses_rl


def test_points_lie_closer_in_short_runs_and_the_last_one_at_the_end() -> None:
    assert marks(1200) == [25, 50, 100, 150, 200, 400, 600, 800, 1000, 1200]
    assert marks(300) == [25, 50, 100, 150, 200, 250, 300]
    assert marks(10_000) == [1000 * number for number in range(1, 11)]


def test_the_point_at_a_change_is_measured_by_the_rules_before_and_after_it() -> None:
    points = [{"turns": turns, "version": turns} for turns in (0, 100, 200, 300, 400)]
    assert [(point["turns"], point["after"]) for point in _with_change(points, 400)] == [
        (0, False), (100, False), (200, False), (200, True), (300, True), (400, True),
    ]  # fmt: skip


def changing_row() -> dict[str, Any]:
    found = row("rules change", curve=(0.0, 1.0, 0.5, 1.0, 1.0))
    figures = ((0, 0.0, 0.0), (100, 1.0, 1.0), (100, 0.0, 1.0), (200, 0.6, 0.7), (300, 1.0, 0.9))
    for point, (turns, changed, unchanged) in zip(found["points"], figures, strict=True):
        point |= {"turns": turns, "changed": changed, "unchanged": unchanged}
    return found | {"turns": 300}


def test_a_change_is_told_by_the_recovery_of_the_changed_rules_and_the_loss_of_the_others() -> None:
    shown = recovered([changing_row()])
    # .6 at 200, 1.0 at 300: .8 by 200 turns after the change.
    assert "| rules change | 100 of 300 | 1 | 200 | 1.00 [0.00, 1.00] | 1.00 [0.00, 1.00] | 0.70" in shown
    assert recovered([row()]) == ""


def test_wrong_hints_are_told_by_how_often_they_are_followed() -> None:
    lied = row("wrong hints", curve=(0.2, 0.0))
    for point, (unknown, reachable) in zip(lied["points"], ((0.0, 0.1), (0.75, 0.5)), strict=True):
        point["misled"] = {"unknown": unknown, "reachable": reachable}
    shown = misled([lied])
    one = "[0.00, 1.00]"
    assert f"| reachable | 0.10 {one} | 0.50 {one} | 0.20 {one} | 0.00 {one} |" in shown
    assert f"| unknown | 0.00 {one} | 0.75 {one} |" in shown


def test_a_collapse_shows_between_the_best_point_and_the_end() -> None:
    run = row("live teacher", curve=(0.0, 1.0, 0.25))
    for point, entropy in zip(run["points"][1:], (0.5, 0.1), strict=True):
        point |= {"entropy": entropy, "length": 20 * entropy}
    shown = long_runs([run])
    assert "| 1.00 [0.00, 1.00] | 0.25 [0.00, 1.00] | 0.50" in shown
    assert "| 0.500 to 0.100 | 10.0 to 2.0 |" in shown
    assert long_runs([row()]) == ""


def test_what_is_kept_stands_below_what_version_0_could_do() -> None:
    found = [
        row(kept={"before": {"done": 1.0, "hint": 0.9}, "after": {"done": 0.5, "hint": 0.9}}),
        row(seed=1, kept={"before": {"done": 1.0, "hint": 0.9}, "after": {"done": 1.0, "hint": 0.7}}),
        row("none", kept={"before": {"done": 1.0, "hint": 0.9}}),
        row("sdpo"),
    ]
    assert forgotten(found).splitlines() == [
        "| kept | turns | seeds | done | hint |",
        "|---|---:|---:|---|---|",
        "| version 0 | 0 | | 1.00 | 0.90 |",
        "| grpo | 100 | 2 | 0.75 | 0.80 |",
    ]
    assert forgotten([row()]) == ""


def test_all_tables_are_made_of_whatever_rows_are_there() -> None:
    shown = tables([row(), changing_row()])
    assert shown.count("\n\n") == 2  # one table with its note, one of the change
    assert "turns to .8 of the changed" in shown


def test_curves_are_drawn_of_rows_whose_points_lie_at_different_turns(tmp_path: Path) -> None:
    finer = row(seed=1, curve=(0.0, 0.5, 1.0))
    finer["points"][1]["turns"] = 50
    finer["points"][2]["turns"] = 100
    draw([row(), finer, changing_row()], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
