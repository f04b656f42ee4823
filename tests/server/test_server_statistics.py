import pytest

from server.statistics import p50_p95, percentile, share


def test_the_wilson_interval_of_nine_in_ten() -> None:
    found = share(9, 10)

    assert found.success == 0.9
    assert (found.low, found.high) == pytest.approx((0.5958, 0.9821), abs=1e-4)


def test_the_interval_of_nothing_is_everything() -> None:
    assert (share(0, 0).low, share(0, 0).high) == (0.0, 1.0)


def test_certain_results_keep_an_interval() -> None:
    assert share(200, 200).low == pytest.approx(0.9812, abs=1e-4)
    assert share(0, 200).high == pytest.approx(0.0188, abs=1e-4)


def test_percentiles_are_values_that_occurred() -> None:
    assert percentile([5.0, 1.0, 3.0, 2.0], 0.5) == 2.0
    assert percentile([], 0.5) is None
    assert p50_p95([float(i) for i in range(1, 101)]) == {"p50": 50.0, "p95": 95.0}
