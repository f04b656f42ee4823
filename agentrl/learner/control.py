"""What other processes tell the learner through the run folder: a file that pauses it, and that something changed. No
torch here, the CLI imports it."""

from __future__ import annotations

from pathlib import Path

PAUSE_FILE = "learner.paused"
ALARMED = "the watch raised an alarm"
"""How the reason of a pause by the watch begins."""


def set_paused(run_dir: Path, *, paused: bool, reason: str = "") -> bool:
    """Pauses the learner of a run or lets it go on; returns whether that changed anything.

    A paused learner finishes the step it is in, claims nothing more, and still follows a rollback. The first reason of
    a pause stays.
    """
    path = run_dir / PAUSE_FILE
    before = path.exists()
    if paused:
        if not before:
            path.write_text(reason, encoding="utf-8")
    else:
        path.unlink(missing_ok=True)
    return before != paused


def is_paused(run_dir: Path) -> bool:
    return (run_dir / PAUSE_FILE).exists()


def pause_reason(run_dir: Path) -> str:
    """Why the learner is paused; empty where it is not, or where nobody said."""
    try:
        return (run_dir / PAUSE_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def signature_of(run_dir: Path) -> object:
    """Changes whenever another process has written to the log, to the learning log or to the pause file."""
    found = []
    for name in ("log.db", "log.db-wal", "learning.db", "learning.db-wal", PAUSE_FILE):
        try:
            status = (run_dir / name).stat()
            found.append((status.st_mtime_ns, status.st_size))
        except FileNotFoundError:
            found.append((0, 0))
    return tuple(found)
