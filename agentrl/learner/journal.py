"""What the learner tells its supervisor: one JSON object a line, on stdout and in RUN_DIR/learner.log.

The newest lines are always in learner.log. Once it has MAX_BYTES it becomes learner.log.1, that one learner.log.2, and
so on to KEPT; the oldest goes.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import IO, Any

from agentrl.closing import Closing
from agentrl.errors import UserError

HEARTBEAT_S = 2.0
"""A learner without a line for much longer than this and its slowest step hangs."""
MAX_BYTES = 8 * 2**20
"""Of learner.log; the line that passes it is the first of a new file."""
KEPT = 3
"""Older files that stay."""


class Journal(Closing):
    """Events: ready, step, dropped, version, rollback, paused, resumed, housekeeping, heartbeat, discarded, failed,
    stopped."""

    def __init__(self, path: Path, stream: IO[str] | None = None, *, max_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._file = path.open("a", encoding="utf-8", buffering=1)
        # A supervisor may have sent stdout to this very file; every line stands there once.
        self._stream = None if stream is not None and _same_file(self._file, stream) else stream
        self._last = 0.0

    def event(self, event: str, **fields: Any) -> None:
        """Writes one line. Numbers that JSON cannot hold become text."""
        text = json.dumps({"event": event, "at": round(time.time(), 3)} | _plain(fields), ensure_ascii=False)
        if rotated(self._path, self._max_bytes):
            self._reopen()
        self._file.write(text + "\n")
        self._last = time.monotonic()
        if self._stream is not None:
            try:
                self._stream.write(text + "\n")
                self._stream.flush()
            except BrokenPipeError:
                self._stream = None  # the supervisor is gone; the file still tells the story

    def failed(self, error: Exception, *, again: bool) -> None:
        """Writes why the learner ends into the file alone. Who watches stdout is told in a sentence; what is no
        UserError is raised and says so itself.

        Args:
            again: whether starting the learner again may help.
        """
        is_watched, self._stream = self._stream is not None, None
        self.event("failed", error=type(error).__name__, message=str(error), again=again)
        if is_watched and isinstance(error, UserError):
            sys.stderr.write(f"agentrl: {error}\n")

    def stage(self, name: str) -> None:
        """Marks what the learner is about to do; written when nothing else was for a while."""
        if time.monotonic() - self._last >= HEARTBEAT_S:
            self.event("heartbeat", stage=name)

    def _reopen(self) -> None:
        """Goes on in a new file. Where the supervisor has sent stdout or stderr to the old one they follow: what a
        crash says last is looked for in learner.log."""
        old, self._file = self._file, self._path.open("a", encoding="utf-8", buffering=1)
        for descriptor in (1, 2):
            if _is_at(old, descriptor):
                os.dup2(self._file.fileno(), descriptor)
        old.close()

    def close(self) -> None:
        self._file.close()


def rotated(path: Path, max_bytes: int = MAX_BYTES) -> bool:
    """Moves a log that has `max_bytes` out of the way, for a new one to begin; whether it did.

    Whoever holds the file open goes on writing to the moved one.
    """
    if not path.exists() or path.stat().st_size < max_bytes:
        return False
    for number in range(KEPT, 0, -1):
        older = path if number == 1 else _older(path, number - 1)
        if older.exists():
            older.replace(_older(path, number))
    return True


def _older(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _same_file(first: IO[str], second: IO[str]) -> bool:
    try:
        return _is_at(first, second.fileno())
    except (OSError, ValueError):  # a stream in memory has no descriptor
        return False


def _is_at(file: IO[str], descriptor: int) -> bool:
    """Whether a descriptor of this process is open on the file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.fstat(descriptor))
    except OSError:  # it is closed
        return False


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity, and `metrics` must stay readable: six digits."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if value - value == 0.0 else str(value)
    return value
