"""What the learner tells its supervisor: one JSON object a line, on stdout and in RUN_DIR/learner.log."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

HEARTBEAT_S = 2.0
"""A learner without a line for much longer than this and its slowest step hangs."""


class Journal:
    """Events: ready, step, dropped, version, rollback, paused, resumed, housekeeping, heartbeat, failed, stopped."""

    def __init__(self, path: Path, stream: IO[str] | None = None) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)
        # A supervisor may have sent stdout to this very file; every line stands there once.
        self._stream = None if stream is not None and _same_file(self._file, stream) else stream
        self._last = 0.0

    def event(self, event: str, **fields: Any) -> None:
        """Writes one line. Numbers that JSON cannot hold become text."""
        text = json.dumps({"event": event, "at": round(time.time(), 3)} | _plain(fields), ensure_ascii=False)
        self._file.write(text + "\n")
        self._last = time.monotonic()
        if self._stream is not None:
            try:
                self._stream.write(text + "\n")
                self._stream.flush()
            except BrokenPipeError:
                self._stream = None  # the supervisor is gone; the file still tells the story

    def stage(self, name: str) -> None:
        """Marks what the learner is about to do; written when nothing else was for a while."""
        if time.monotonic() - self._last >= HEARTBEAT_S:
            self.event("heartbeat", stage=name)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _same_file(first: IO[str], second: IO[str]) -> bool:
    try:
        return os.path.samestat(os.fstat(first.fileno()), os.fstat(second.fileno()))
    except (OSError, ValueError):  # a stream in memory has no descriptor
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
