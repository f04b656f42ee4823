"""What the guards found, in RUN_DIR/guards.json: for `agentrl status`, the doctor, metrics and the next learner.

No torch here: the server reads it too.
"""

from __future__ import annotations

import json
from pathlib import Path

from agentrl.files import replace_json
from agentrl.types import JSON

FILE = "guards.json"


def write_report(run_dir: Path, report: JSON) -> None:
    """Replaces the report."""
    replace_json(run_dir / FILE, report)


def read_report(run_dir: Path) -> JSON:
    """The newest report; empty where there is none, or none that can be read: it only says what was found."""
    try:
        report = json.loads((run_dir / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}
