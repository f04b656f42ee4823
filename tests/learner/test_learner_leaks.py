"""Hints that hold the answer, where a recipe forbids them: refused at the step, and counted once each."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from learner_run import NOW, Run, write_base

from agentrl.learner.guard_report import read_report
from agentrl.types import Signal, SignalSource


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("model") / "base")


@pytest.mark.parametrize(("may_hold_answer", "leaks", "trained"), [(False, 2, 1), (True, None, 3)])
def test_hints_with_the_answer_are_counted_where_a_recipe_forbids_them(
    tmp_path: Path, base: Path, *, may_hold_answer: bool, leaks: int | None, trained: int
) -> None:
    run = Run(tmp_path / "run", base, context__may_hold_answer=may_hold_answer, context__recall=0.0)
    turns = [run.turn(f"request {number}", "abc") for number in range(3)]
    for turn, hint in zip(turns, ("say 4711 now", "it is 4711", "say a number"), strict=True):
        word = Signal(turn_id=turn.id, source=SignalSource.USER, preferred="4711", created_at=NOW)
        asyncio.run(run._log([turn], [word, replace(word, preferred=None, hint=hint)]))
    with run.learner() as learner:
        learner.loop.start()
        learner.work()

        assert read_report(run.path).get("leaks") == leaks
        assert run.account()[:2] == (3, trained)
        assert run.account()[2] == ({} if leaks is None else {"hint holds the answer": 2})
        learner.guards.weigh((), learner.log.records([turn.id for turn in turns]))
        assert read_report(run.path).get("leaks") == leaks, "the same hints are met again"
    with run.learner() as learner:
        learner.guards.weigh((), ())
        assert read_report(run.path).get("leaks") == leaks, "the count outlives the learner"
