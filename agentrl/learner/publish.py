"""Steps become a version: written, judged by its gate, published, decided on, and once it serves asked for lessons.

    weights ─write─> folder ─gate─> verdict ─publish─> candidate ─decide─> serving or rejected ─probes─> lessons held

Each part is a transaction or a folder of its own, so that a learner that ends in between leaves a candidate whose gate
never decided, or a folder that no version names; the next learner's start rejects the one and sets the other aside.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agentrl.errors import StoreError
from agentrl.learner import checkpoint
from agentrl.learner.gate import Gate
from agentrl.learner.guards import Guards
from agentrl.learner.journal import Journal
from agentrl.learner.lesson_probes import LessonProbes
from agentrl.learner.trainer import Trainer
from agentrl.store.learning_log import LearningLog
from agentrl.store.version_log import Probe
from agentrl.store.versions import VersionStore
from agentrl.types import PolicyVersion, VersionState

GATE_PROBE = "held_out"


@dataclass(slots=True)
class Unpublished:
    """A step whose weights are in the trainer and in no version."""

    step_id: int
    metrics: dict[str, float]


class Publisher:
    """Makes versions of the weights that a trainer has.

    Args:
        gate: judges them; it is told which serves.
        guards: are told what a version used of its budgets; None tells nobody.
        probes: asks each served version for what was taught; None asks nothing.
        clock: seconds of a monotonic clock.
    """

    def __init__(
        self,
        trainer: Trainer,
        *,
        policy: str,
        log: LearningLog,
        versions: VersionStore,
        gate: Gate,
        journal: Journal,
        guards: Guards | None,
        probes: LessonProbes | None,
        clock: Callable[[], float],
    ) -> None:
        self._trainer = trainer
        self._policy = policy
        self._log = log
        self._versions = versions
        self._gate = gate
        self._journal = journal
        self._guards = guards
        self._probes = probes
        self._clock = clock

    def publish(self, parent: int, steps: Sequence[Unpublished]) -> int | None:
        """The number of the version that serves now; None where none of these weights does, and the learner is to go
        back to what is served.

        Args:
            parent: the version that the weights descend from.
            steps: that were made since.
        """
        began = self._clock()
        # Above those that were set aside too: one of them may have served, and its number may stand in a log.
        number = max(self._log.next_number(self._policy), self._versions.newest() + 1)
        self._journal.stage("write")
        files = self._versions.write(number, lambda folder: checkpoint.save(self._trainer, folder))
        self._journal.stage("judge")
        verdict = self._gate.judge(self._trainer, [step.metrics for step in steps])
        if self._guards is not None:
            self._guards.judged(number, verdict.metrics)
        self._journal.stage("publish")
        try:
            self._log.publish(
                PolicyVersion(
                    policy=self._policy,
                    number=number,
                    parent=parent,
                    state=VersionState.CANDIDATE,
                    path=self._versions.relative_path(number),
                    files=tuple(files),
                    step_ids=tuple(step.step_id for step in steps),
                    metrics=steps[-1].metrics | verdict.metrics,
                    created_at=time.time(),
                )
            )
        except StoreError as error:
            self._journal.event("version", number=number, state="lost", reason=str(error))
            self._versions.delete(number)
            return None
        self._log.record_probe(
            self._policy,
            number,
            Probe(
                name=GATE_PROBE,
                passed=verdict.passed,
                score=verdict.metrics.get("probe_logprob"),
                detail=verdict.reason,
            ),
        )
        self._journal.stage("decide")
        state = VersionState.SERVING if verdict.passed else VersionState.REJECTED
        try:
            self._log.set_state(self._policy, number, state, verdict.reason)
        except StoreError as error:
            # A rollback came between publication and this: it has rejected the candidate with its parent.
            self._journal.event("version", number=number, state="lost", reason=str(error))
            return None
        self._journal.event(
            "version",
            number=number,
            parent=parent,
            state=state.value,
            reason=verdict.reason,
            num_steps=len(steps),
            took_s=self._clock() - began,
            metrics=verdict.metrics,
        )
        if not verdict.passed:
            return None
        self._journal.stage("ask")
        self._gate.accept(self._trainer)
        self._ask(number)
        return number

    def _ask(self, number: int) -> None:
        """Asks the version that serves now for some of what was taught."""
        if self._probes is None:
            return
        rules, others = self._probes.due(number)
        if not rules and not others:
            return
        self._journal.stage("probe")
        if found := self._probes.run(number, rules=rules, others=others):
            lost = sorted(lesson for lesson, held in found.items() if held is False)
            self._journal.event("lessons", version=number, num_asked=len(found), not_held=lost)
