"""The demo as a newcomer starts it, from a folder of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest


def demo(folder: Path, *options: str) -> dict[str, Any]:
    """The report of a demo that was started in `folder`."""
    agentrl = Path(sys.executable).with_name("agentrl")
    (folder / "envs").mkdir()
    (folder / "envs" / "__init__.py").write_text("raise RuntimeError('the user\\'s own')")
    done = subprocess.run(
        [agentrl, "demo", *options, "--json"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return cast(dict[str, Any], json.loads(done.stdout))


@pytest.mark.heavy
def test_a_policy_learns_the_house_rules_while_it_serves(tmp_path: Path) -> None:
    report = demo(tmp_path, "--seed", "3")

    assert report["num_failed_requests"] == 0
    assert report["num_eval_turns_in_training"] == 0
    assert report["num_updates"] > 20
    assert report["account"]["accepted"] == report["num_turns"]
    for family, most_before in (("unknown", 0.2), ("reachable", 0.4)):
        before, after, control = (report[family][name] for name in ("before", "after", "control"))
        assert before["num_tasks"] >= 200
        assert before["success"] <= most_before
        # Half of what is required of a quiet machine: this one may be busy, and learning is measured elsewhere.
        assert after["success"] >= 0.5
        assert control["low"] <= before["high"]
        assert before["low"] <= control["high"]
    folder = tmp_path / "runs" / "demo-seed3" / "report"
    assert {path.name for path in folder.iterdir()} == {"curves.png", "report.json", "report.md"}


@pytest.mark.heavy
def test_a_policy_judges_what_its_agents_did_and_the_house_says_how_well(tmp_path: Path) -> None:
    report = demo(tmp_path, "--seed", "4", "--judge", "self")

    assert report["num_failed_requests"] == 0
    assert report["num_eval_turns_in_training"] == 0
    # What the judge was asked is neither among the turns of the agents nor learned from.
    assert report["account"]["accepted"] == report["num_turns"]
    assert report["num_updates"] > 10
    judges = report["judges"]
    rules, itself = judges["asked_afresh"]["rules"], judges["asked_afresh"]["self@0"]
    assert rules["num_turns"] == itself["num_turns"] >= 200
    assert itself["accuracy"] >= 0.8
    assert itself["coverage"] >= rules["coverage"]
    assert itself["hints"]["num_given"] >= 20
    assert itself["hints"]["precision"] >= 0.7
    assert judges["recorded"]["decided_by"]["judge"] > judges["recorded"]["decided_by"].get("rule", 0)
    page = (tmp_path / "runs" / "demo-seed4" / "report" / "report.md").read_text()
    assert "| self@0 |" in page
