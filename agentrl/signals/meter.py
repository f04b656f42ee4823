"""What judging costs: everything that was done, counted, and a bound on the calls and tokens of an hour."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from agentrl.types import JSON

HOUR_S: Final = 3600.0
REQUESTS: Final = "requests"
PROMPT_TOKENS: Final = "prompt_tokens"
SAMPLED_TOKENS: Final = "sampled_tokens"


class Meter:
    """Counters since the start and a sliding hour.

    Args:
        max_calls: requests of an hour; 0 = any number.
        max_tokens: of prompts and answers of an hour; 0 = any number.
        clock: seconds.
        told: hears of everything that is counted.
    """

    def __init__(
        self,
        *,
        max_calls: int = 0,
        max_tokens: int = 0,
        clock: Callable[[], float] = time.monotonic,
        told: Callable[[str, int], None] = lambda what, number: None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._max_calls, self._max_tokens = max_calls, max_tokens
        self._clock, self._told = clock, told
        self._hour: deque[tuple[float, int, int]] = deque()
        """(second, calls, tokens)"""
        self._calls = self._tokens = 0

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
        if self._hour and self._hour[-1][0] == second:
            _, more_calls, more_tokens = self._hour.pop()
            self._hour.append((second, calls + more_calls, tokens + more_tokens))
        else:
            self._hour.append((second, calls, tokens))
        self._calls += calls
        self._tokens += tokens

    def _forget(self) -> None:
        while self._hour and self._hour[0][0] <= self._clock() - HOUR_S:
            _, calls, tokens = self._hour.popleft()
            self._calls -= calls
            self._tokens -= tokens
