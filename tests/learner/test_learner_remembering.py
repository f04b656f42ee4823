"""Hints that are doubted when they are first read: when they are shown to the teachers of other turns, and when not."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from learner_run import Learner, Run, write_base

from agentrl.learner import quarantine
from agentrl.types import Turn

ASKED = "Compress the file now please"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("model") / "base")


@pytest.fixture
def learner(tmp_path: Path, base: Path) -> Iterator[Learner]:
    """Three sessions do well without the hint of a fourth, whose turn is too old to be trained."""
    run = Run(tmp_path / "run", base)
    run.record(*(run.turn(ASKED, "abc", turn_id=f"right{i}") for i in range(3)), reward=1.0)
    run.record(run.turn(ASKED, "abc", turn_id="doubted"), hint="say xyz")
    with run.learner() as found:
        found.loop.start()
        found.log.reject(["doubted"], "expired")
        read(found)
        yield found


def read(learner: Learner) -> None:
    learner.guards.listen()
    assert learner.loop._memory is not None
    learner.loop._memory.update()


def recalled(learner: Learner, *, without: list[Turn] | None = None) -> str | None:
    """Whose hint a new turn with the same request would be shown."""
    memory = learner.loop._builder.memory
    assert memory is not None
    for turn in without or []:
        memory.forget(turn)
    found = memory.recall(learner.run.turn(ASKED, "def"), None, 0.5)
    return None if found is None else found.turn_id


def test_a_hint_that_was_doubted_is_shown_once_enough_sessions_agree_though_its_turn_never_comes_back(
    learner: Learner,
) -> None:
    assert learner.guards.doubts("doubted")
    assert recalled(learner) is None

    agreed = learner.run.record(
        *(learner.run.turn(ASKED, "abc", turn_id=f"agree{i}") for i in range(4)), hint="say xyz"
    )
    read(learner)

    assert recalled(learner, without=agreed) == "doubted"
    assert learner.log.fate("doubted") == "rejected:expired"


def test_a_doubt_outlives_what_it_rested_on(learner: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns about other things push all four votes out."""
    monkeypatch.setattr(quarantine, "MAX_VOTES", 5)
    learner.run.record(
        *(learner.run.turn(f"Weather in city {i}", "sun", turn_id=f"far{i}") for i in range(5)), reward=1.0
    )
    read(learner)

    assert not learner.guards.knows("doubted")
    assert not learner.guards.doubts("doubted")
    assert recalled(learner) is None


def test_a_hint_from_whom_nobody_listens_to_is_never_remembered(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base)
    guards = run.config.guards.model_copy(update={"trust": {"rule": 0.0}})
    run.config = run.config.model_copy(update={"guards": guards})
    run.record(run.turn(ASKED, "abc"), hint="say xyz")
    with run.learner() as found:
        found.loop.start()
        read(found)
        assert recalled(found) is None
