"""Runs side by side, and what they leave behind."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.jobs import code, rows, run_all


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
    assert [row["code"] for row in found[1:]] == [code()] * 2, "the commit that made them"
    said = capsys.readouterr().err
    assert "a is done" in said
    assert "('b', 0) failed" in said
    assert "b cannot be divided by 0" in said


def test_no_rows_are_there_before_the_first_run(tmp_path: Path) -> None:
    assert rows(tmp_path / "rows.jsonl") == []


def test_a_row_says_by_which_commit_it_was_made_and_whether_files_were_changed_since(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
        return subprocess.run(
            ["git", *who, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    assert code(tmp_path) == ""
    git("init", "-q")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-q", "-m", "one")
    assert code(tmp_path) == git("rev-parse", "--short", "HEAD").strip()
    (tmp_path / "a").write_text("2")
    assert code(tmp_path) == git("rev-parse", "--short", "HEAD").strip() + "+"
