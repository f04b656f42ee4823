"""Runs side by side, and what they leave behind."""

from pathlib import Path
from typing import Any

import pytest

from bench.jobs import rows, run_all


def work(name: str, number: int) -> dict[str, Any]:
    if number == 0:
        raise ValueError(f"{name} cannot be divided by 0")
    return {"name": name, "result": 12 / number}


def test_each_run_leaves_its_row_and_one_that_fails_does_not_take_the_others_along(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "rows.jsonl"
    path.parent.mkdir()
    path.write_text('{"name": "old", "result": 1.0}\n')
    cases = [("a", 3), ("b", 0), ("c", 4)]

    num_failed = run_all(work, cases, path, jobs=2, say=lambda row: f"{row['name']} is done")

    assert num_failed == 1
    found = rows(path)
    assert found[0] == {"name": "old", "result": 1.0}
    assert {row["name"]: row["result"] for row in found[1:]} == {"a": 4.0, "c": 3.0}
    said = capsys.readouterr().err
    assert "a is done" in said
    assert "('b', 0) failed" in said
    assert "b cannot be divided by 0" in said


def test_no_rows_are_there_before_the_first_run(tmp_path: Path) -> None:
    assert rows(tmp_path / "rows.jsonl") == []
