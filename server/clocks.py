"""Times as people read them: ISO 8601, local, to the second."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any


def clock(at: float) -> str:
    """Unix seconds as "2026-11-21T16:13:43+00:00"."""
    return datetime.fromtimestamp(at, UTC).astimezone().isoformat(timespec="seconds")


def with_clocks(data: Any) -> Any:
    """Nested data for people: what its name says is a time (`..._at`) in that form."""
    if isinstance(data, dict):
        return {
            name: clock(value)
            if str(name).endswith("_at") and isinstance(value, float)
            else with_clocks(value)
            for name, value in data.items()
        }
    return [with_clocks(item) for item in data] if isinstance(data, list | tuple) else data
