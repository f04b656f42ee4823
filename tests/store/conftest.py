"""A run folder with its two logs, and a clock that stands."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from store_samples import Clock

from agentrl.store.learning_log import LearningLog
from agentrl.store.signal_log import SignalLog


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def log(tmp_path: Path):
    async with await SignalLog.open(tmp_path) as log:
        yield log


@pytest.fixture
def learning(tmp_path: Path, log: SignalLog, clock: Clock) -> Iterator[LearningLog]:
    with LearningLog(tmp_path, clock=clock) as learning:
        learning.ensure_base("default", "base")
        learning.configure(needs="hint")
        yield learning
