"""What the learning curves are read by."""

import math
from typing import Any

import pytest

from bench.learning import METHODS, band, best_rate, table, turns_to


def row(
    method: str = "grpo", rate: float = 1e-3, seed: int = 0, curve: tuple[float, ...] = (0.0, 1.0)
) -> dict[str, Any]:
    points = [
        {"turns": 100 * index, "version": index, "reachable": value, "unknown": value / 2}
        for index, value in enumerate(curve)
    ]
    return {"method": method, "seed": seed, "rate": rate, "turns": 100, "points": points}


def test_turns_to_a_share_are_read_between_two_points() -> None:
    assert turns_to(row(curve=(0.0, 0.4, 1.0)), "reachable", 0.7) == pytest.approx(150)
    assert turns_to(row(curve=(0.9, 0.1)), "reachable", 0.8) == 0.0
    assert math.isinf(turns_to(row(curve=(0.0, 0.7)), "reachable", 0.8))


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


def test_each_method_is_shown_at_its_best_learning_rate_by_the_reachable_family() -> None:
    found = [
        row(rate=1e-3, curve=(0.0, 0.4)),
        row(rate=1e-4, curve=(0.0, 0.9)),
        row("none", curve=(0.1, 0.1)),
    ]
    assert best_rate(found, "grpo") == 1e-4
    assert best_rate(found, "sdpo") is None
    shown = table(found)
    assert "| grpo | 0.0001 | 1 | 0.90 [0.00, 1.00] | 89 | 0.45 [0.00, 1.00] | never |" in shown
    assert [name for name in METHODS if f"| {name} |" in shown] == ["grpo", "none"]
