"""Pausing the learner from another process: a file in the run folder. No torch here, the CLI imports it."""

from __future__ import annotations

from pathlib import Path

PAUSE_FILE = "learner.paused"


def set_paused(run_dir: Path, *, paused: bool) -> bool:
    """Pauses the learner of a run or lets it go on; returns whether that changed anything.

    A paused learner finishes the step it is in, claims nothing more, and still follows a rollback.
    """
    path = run_dir / PAUSE_FILE
    before = path.exists()
    if paused:
        path.touch()
    else:
        path.unlink(missing_ok=True)
    return before != paused


def is_paused(run_dir: Path) -> bool:
    return (run_dir / PAUSE_FILE).exists()
