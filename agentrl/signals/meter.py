"""What judging costs: everything that was done, counted, and a bound on the calls and tokens of an hour, which outlives
the process where it has a file."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agentrl.types import JSON

logger = logging.getLogger(__name__)

HOUR_S: Final = 3600.0
HOUR_NAME: Final = "judge_hour.txt"
"""In a run's folder: a line for what was spent at a time, "SECOND CALLS TOKENS"; Unix seconds."""
MAX_LINES: Final = 20_000
"""Of the file; then it is written anew, without what is older than an hour."""
REQUESTS: Final = "requests"
PROMPT_TOKENS: Final = "prompt_tokens"
SAMPLED_TOKENS: Final = "sampled_tokens"


class Meter:
    """Counters since the start and a sliding hour.

    Args:
        max_calls: requests of an hour; 0 = any number.
        max_tokens: of prompts and answers of an hour; 0 = any number.
        clock: Unix seconds.
        told: hears of everything that is counted.
        path: where the hour is kept, a line before each request: who is killed loses none. None = nowhere.
    """

    def __init__(
        self,
        *,
        max_calls: int = 0,
        max_tokens: int = 0,
        clock: Callable[[], float] = time.time,
        told: Callable[[str, int], None] = lambda what, number: None,
        path: Path | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._max_calls, self._max_tokens = max_calls, max_tokens
        self._clock, self._told = clock, told
        self._hour: deque[tuple[float, int, int]] = deque()
        """(second, calls, tokens)"""
        self._calls = self._tokens = 0
        self._path = path
        self._num_lines = 0
        if path is not None:
            self._read(path)

    def add(self, what: str, number: int = 1) -> None:
        """Counts. Requests and tokens also count against the hour."""
        self.counts[what] += number
        self._told(what, number)
        if what == REQUESTS:
            self._spend(number, 0)
        elif what in (PROMPT_TOKENS, SAMPLED_TOKENS):
            self._spend(0, number)

    def admits(self) -> bool:
        """Whether a request may be made now. What it costs in tokens is known afterwards, so the token bound may be
        passed by the requests that were under way when it was reached."""
        self._forget()
        within = not self._max_calls or self._calls < self._max_calls
        return within and (not self._max_tokens or self._tokens < self._max_tokens)

    def report(self) -> JSON:
        """The counters, and the hour beside its bounds."""
        self._forget()
        hour = {
            "calls": self._calls,
            "max_calls": self._max_calls,
            "tokens": self._tokens,
            "max_tokens": self._max_tokens,
        }
        return {"counts": dict(self.counts), "hour": hour}

    def _spend(self, calls: int, tokens: int) -> None:
        second = float(int(self._clock()))
        self._remember(second, calls, tokens)
        self._forget()
        self._write(f"{second:.0f} {calls} {tokens}\n")

    def _remember(self, second: float, calls: int, tokens: int) -> None:
        if self._hour and self._hour[-1][0] == second:
            _, more_calls, more_tokens = self._hour.pop()
            self._hour.append((second, calls + more_calls, tokens + more_tokens))
        else:
            self._hour.append((second, calls, tokens))
        self._calls += calls
        self._tokens += tokens

    def _read(self, path: Path) -> None:
        """Takes up the hour where an earlier process left it."""
        try:
            lines = path.read_text(encoding="ascii", errors="replace").splitlines()
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            self._fail(error)
            return
        now = self._clock()
        for line in lines:
            try:
                second, calls, tokens = map(int, line.split())
                self._remember(min(float(second), now), calls, tokens)
            except (ValueError, OverflowError):  # cut off when the machine stopped
                continue
        self._forget()
        try:
            self._rewrite()
        except (OSError, ValueError, OverflowError) as error:
            self._fail(error)

    def _write(self, line: str) -> None:
        if self._path is None:
            return
        try:
            with self._path.open("a", encoding="ascii") as file:
                file.write(line)
            self._num_lines += 1
            if self._num_lines > MAX_LINES:
                self._forget()
                self._rewrite()
        except (OSError, ValueError, OverflowError) as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """A full disk or a file that is none is no reason to judge no more."""
        self.counts["unsaved"] += 1
        logger.warning("what the judge costs is not written down: %s", error)

    def _rewrite(self) -> None:
        assert self._path is not None
        fresh = self._path.with_suffix(".new")
        lines = [f"{second:.0f} {calls} {tokens}\n" for second, calls, tokens in self._hour]
        fresh.write_text("".join(lines), encoding="ascii")
        os.replace(fresh, self._path)
        self._num_lines = len(lines)

    def _forget(self) -> None:
        now = self._clock()
        if self._hour and self._hour[-1][0] > now:  # the clock was set back
            self._hour = deque((min(second, now), calls, tokens) for second, calls, tokens in self._hour)
        while self._hour and self._hour[0][0] <= now - HOUR_S:
            _, calls, tokens = self._hour.popleft()
            self._calls -= calls
            self._tokens -= tokens
