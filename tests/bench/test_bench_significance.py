"""Student and Holm, against tables."""

import math

import pytest

from bench.significance import holm, p_value, tail


@pytest.mark.parametrize(
    ("t", "num_free", "p"),
    [
        # Two-sided 5 % and 1 % points of the tables.
        (12.706, 1, 0.05),
        (4.303, 2, 0.05),
        (3.182, 3, 0.05),
        (2.776, 4, 0.05),
        (2.262, 9, 0.05),
        (4.604, 4, 0.01),
        (63.657, 1, 0.01),
        (-2.776, 4, 0.05),
        (0.0, 4, 1.0),
        (0.0, 5, 1.0),
    ],
)
def test_the_tails_are_those_of_the_tables(t: float, num_free: int, p: float) -> None:
    assert tail(t, num_free) == pytest.approx(p, rel=2e-3)


def test_paired_differences_are_judged_by_their_mean_and_spread() -> None:
    # mean 2, spread 1, five of them: t = 2 / (1.5811 / 2.2361) = 2.828 with 4 degrees of freedom.
    assert p_value([0.0, 1.0, 2.0, 3.0, 4.0]) == pytest.approx(0.0474, abs=1e-4)
    assert p_value([-1.0, 1.0]) == 1.0
    assert p_value([2.0, 2.0, 2.0]) == 0.0
    assert p_value([0.0, 0.0]) == 1.0
    # Equal but coarse: t = 2 / (1 / √3) = 3.46 with 2 degrees of freedom.
    assert p_value([2.0, 2.0, 2.0], 1.0) == pytest.approx(0.0742, abs=1e-4)
    assert p_value([math.log(8)] * 4 + [math.log(8.1)]) < 1e-6


def test_the_level_is_shared_among_the_comparisons() -> None:
    assert holm({"a": 0.04}) == {"a"}
    assert holm({"a": 0.04, "b": 0.5}) == set()  # .04 > .05 / 2
    assert holm({"a": 0.02, "b": 0.04}) == {"a", "b"}  # .02 <= .025, then .04 <= .05
    assert holm({"a": 0.02, "b": 0.03, "c": 0.04}) == set()  # .02 > .05 / 3
    # What comes behind one that does not hold does not hold either.
    assert holm({"a": 0.001, "b": 0.04, "c": 0.045}) == {"a"}
    assert holm({}) == set()
