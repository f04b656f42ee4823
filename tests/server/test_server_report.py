from pathlib import Path

from server.report import FAMILIES, Outcome, Play, draw_curves, moving_success, page
from server.statistics import share


def play(at_s: float, family: str, first: bool) -> Play:
    return Play(at_s=at_s, family=family, is_first_try=first)


OUTCOME = Outcome(
    before={family: share(0, 200) for family in FAMILIES},
    after={family: share(190, 200) for family in FAMILIES},
    control={family: share(1, 200) for family in FAMILIES},
)


def test_the_moving_window_forgets_what_is_older() -> None:
    plays = [
        play(1, "unknown", False),
        play(2, "reachable", True),
        play(3, "unknown", True),
        play(4, "unknown", True),
    ]

    assert moving_success(plays, "unknown", window=2) == [(1, 0.0), (3, 0.5), (4, 1.0)]


def test_the_picture_is_a_png_also_when_nothing_was_played(tmp_path: Path) -> None:
    draw_curves([], OUTCOME, [], tmp_path / "empty.png")
    draw_curves([play(1, "unknown", True)], OUTCOME, [0.5], tmp_path / "one.png")

    assert (tmp_path / "empty.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert (tmp_path / "one.png").stat().st_size > 5000


def test_the_page_shows_each_family_with_its_intervals() -> None:
    text = page({"seed": 7, **OUTCOME.as_dict()}, ["unknown: show a file: `zorvex`"], "a note")

    assert "| unknown | 0.00 [0.00, 0.02] | 0.01 [0.00, 0.03] | 0.95 [0.91, 0.97] |" in text
    assert "- unknown: show a file: `zorvex`" in text
