"""Where a sorted list is best cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator


def cheapest_runs(
    count: int, plans: Callable[[int], Iterator[tuple[float, bool]]]
) -> list[tuple[int, int, bool]]:
    """The partition of 0..count-1 into runs [begin, end) of least total price, by dynamic programming.

    Args:
        plans: end -> (price, kind) of the runs that end there, the shortest first, up to the longest allowed; the
            shortest is always allowed.

    Returns:
        (begin, end, kind) of each run.
    """
    best = [0.0] + [float("inf")] * count
    cut: list[tuple[int, bool]] = [(0, False)] * (count + 1)
    for end in range(1, count + 1):
        for begin, (price, kind) in zip(range(end - 1, -1, -1), plans(end), strict=False):
            if best[begin] + price < best[end]:
                best[end], cut[end] = best[begin] + price, (begin, kind)
    runs = []
    end = count
    while end:
        begin, kind = cut[end]
        runs.append((begin, end, kind))
        end = begin
    return runs[::-1]
