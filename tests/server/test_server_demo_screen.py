"""What a person sees while a demo runs."""

import pytest

from server.demo_screen import Screen

PLAYED = {"version": 34, "latency_ms": {"p50": 80.0, "p95": 90.0}}


@pytest.mark.parametrize(
    ("num_refused", "said"), [(0, "version 34 p50 80 ms"), (7, "version 34 (7 refused) p50")]
)
def test_the_line_of_progress_counts_refused_versions_as_soon_as_there_are_any(
    num_refused: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Screen().played(9.0, 120, {"unknown": 0.5, "reachable": 1.0}, num_refused=num_refused, **PLAYED)

    assert said in " ".join(capsys.readouterr().err.split())
