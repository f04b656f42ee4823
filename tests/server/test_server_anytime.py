"""The comparison of two arms: its identities, its bounds, and what it says of simulated streams."""

import itertools
import math
import random

import numpy as np
import pytest

from bench.progress import first_better
from server.anytime import STAKES, differences, interval, log_wealth


def test_a_difference_is_unbiased_whatever_came_before() -> None:
    """E[Z] over the draw of the arm is Y(learning) - Y(control), here .9 - .4, with any earlier conversations."""
    for share in (0.5, 0.8):
        for before in ([], [(True, 1.0)], [(False, 0.0), (True, 0.3), (False, 0.9)]):
            arms, outcomes = [arm for arm, _ in before], [outcome for _, outcome in before]
            learning = differences([*arms, True], [*outcomes, 0.9], share).values[-1]
            control = differences([*arms, False], [*outcomes, 0.4], share).values[-1]

            assert share * learning + (1 - share) * control == pytest.approx(0.5)


def test_the_bounds_are_known_before_the_value_and_hold() -> None:
    for share in (0.1, 0.5, 0.9):
        for arms in itertools.product([False, True], repeat=3):
            for outcomes in itertools.product([0.0, 0.5, 1.0], repeat=3):
                found = differences(list(arms), list(outcomes), share)
                assert (found.lows <= found.values + 1e-12).all()
                assert (found.values <= found.highs + 1e-12).all()
                flipped = differences([*arms[:2], not arms[2]], [*outcomes[:2], 1 - outcomes[2]], share)
                assert found.lows[2] == flipped.lows[2]


def test_the_first_difference_by_hand() -> None:
    """Nothing is known, so m = .5: a success in the learning arm of probability .8 counts (1 - .5) / .8 = .625."""
    found = differences([True, False], [1.0, 1.0], 0.8)

    assert found.values[0] == pytest.approx(0.625)
    assert (found.lows[0], found.highs[0]) == (pytest.approx(-2.5), pytest.approx(2.5))
    # then the learning arm's mean is (.5 + 1) / 2 and the control's .5, so m = .2 * .75 + .8 * .5 = .55
    assert found.values[1] == pytest.approx(-(1 - 0.55) / 0.2)


def test_the_wealth_of_who_bets_against_the_truth_is_one_in_the_mean() -> None:
    """Enumerated over all draws of three conversations without effect: arm 1/2, success 1/4."""
    mean = np.zeros(3)
    for arms in itertools.product([False, True], repeat=3):
        for outcomes in itertools.product([0.0, 1.0], repeat=3):
            chance = 0.5**3 * math.prod(0.25 if outcome else 0.75 for outcome in outcomes)
            found = differences(list(arms), list(outcomes), 0.5)
            mean += chance * np.exp(log_wealth(found.values, found.lows, 0.0))

    assert mean == pytest.approx([1.0, 1.0, 1.0])


def test_the_wealth_is_the_mean_of_the_bettors() -> None:
    """One value z = .5 with low = -1 against an effect of 0: each bettor has 1 + .5 f."""
    wealth = math.exp(log_wealth(np.array([0.5]), np.array([-1.0]), 0.0)[0])

    assert wealth == pytest.approx(sum(1 + 0.5 * stake for stake in STAKES) / len(STAKES))


def test_without_conversations_nothing_is_known() -> None:
    found = interval(differences([], [], 0.5))

    assert (found.effect, found.low, found.high) == (0.0, -1.0, 1.0)


def test_the_interval_is_mirrored_when_the_arms_change_places() -> None:
    rng = random.Random(0)
    arms = [rng.random() < 0.5 for _ in range(200)]
    outcomes = [float(rng.random() < (0.8 if arm else 0.3)) for arm in arms]
    one = interval(differences(arms, outcomes, 0.5))
    other = interval(differences([not arm for arm in arms], outcomes, 0.5))

    assert (one.effect, one.low, one.high) == pytest.approx(
        (-other.effect, -other.high, -other.low), abs=1e-6
    )
    assert 0 < one.low < 0.5 < one.high < 1


def test_a_bound_is_where_the_wealth_reaches_one_over_its_share_of_alpha() -> None:
    rng = random.Random(1)
    arms = [rng.random() < 0.5 for _ in range(300)]
    found = differences(arms, [float(rng.random() < (0.9 if arm else 0.4)) for arm in arms], 0.5)
    low = interval(found, alpha=0.1).low

    assert log_wealth(found.values, found.lows, low)[-1] == pytest.approx(math.log(20), abs=1e-5)


@pytest.mark.parametrize(("arms", "outcomes", "share"), [([True], [1.2], 0.5), ([True], [0.5], 1.0)])
def test_what_is_out_of_range_is_refused(arms: list[bool], outcomes: list[float], share: float) -> None:
    with pytest.raises(ValueError, match=r"between 0 and 1|must be in"):
        differences(arms, outcomes, share)
    with pytest.raises(ValueError, match=r"shorter|longer"):
        differences([True], [0.5, 0.5], 0.5)


def test_without_an_effect_few_streams_ever_look_better_at_any_of_their_looks() -> None:
    """100 streams of 500; at most 2.5 % may in the long run, 7 of 100 would be a chance of one in 100."""
    found = [first_better(seed, 0.5, lambda _: 0.5, lambda _: 0.5, 500) for seed in range(100)]

    assert sum(number is not None for number in found) <= 6


def test_a_gain_of_twenty_points_is_found_within_300_conversations_in_the_median() -> None:
    found = [first_better(seed, 0.2, lambda _: 0.7, lambda _: 0.5, 1000) for seed in range(100)]
    lengths = sorted(1000 if number is None else number for number in found)

    assert lengths[50] <= 300
