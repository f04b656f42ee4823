"""A run with guards, and what is said of its turns."""

import asyncio

from learner_run import Learner, Run

from agentrl.config import CurriculumConfig, GuardsConfig, write_config
from agentrl.learner.held_out import is_held_out
from agentrl.types import Signal, SignalSource, Turn


def guarded(run: Run, curriculum: CurriculumConfig | None = None, **guards: object) -> Run:
    """The run with other guards."""
    update = {"guards": GuardsConfig(**guards), "curriculum": curriculum or CurriculumConfig()}
    run.config = run.config.model_copy(update=update)
    write_config(run.config, run.path / "config.json")
    return run


def say(
    run: Run,
    turn: Turn,
    source: str,
    reward: float | None = None,
    hint: str | None = None,
    at: float = 1.0,
) -> None:
    signal = Signal(turn_id=turn.id, source=SignalSource(source), reward=reward, hint=hint, created_at=at)
    asyncio.run(run._log([], [signal]))


def settled(learner: Learner) -> None:
    """Works until looking again changes nothing: a hand that the guards emptied ends `work` while turns wait."""
    before = None
    while before != learner.run.account():
        before = learner.run.account()
        learner.work()


def held_out_names(num: int) -> list[str]:
    return [name for name in (f"good{i}" for i in range(1600)) if is_held_out(name)][:num]
