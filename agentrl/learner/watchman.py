"""Asks the watch, and where it raises an alarm does what the run's settings say: pauses, and lets another version
serve.

The learner that notices what serves, and restores itself from it, is the loop. Nothing is lost where this process ends
in between: the next learner raises the alarm again, until it was answered.
"""

from __future__ import annotations

from pathlib import Path

from agentrl.learner.alarm import Alarm
from agentrl.learner.base_answers import NUM_REPLIES, Ids
from agentrl.learner.build import Builder
from agentrl.learner.control import ALARMED, set_paused
from agentrl.learner.fallback import Fallbacks
from agentrl.learner.guard_rules import is_its_own_measure
from agentrl.learner.guards import Guards
from agentrl.learner.journal import Journal
from agentrl.learner.remembering import Remembering
from agentrl.store.learning_log import LearningLog


class Watchman:
    """Call `look` now and then.

    Args:
        guards: know when a look is due, and are told what was done.
        builder: says what a teacher would be shown of the turns behind an alarm.
        memory: is brought up to date before; None where the recipe has none.
        fallbacks: choose what serves again; the trainer has other weights afterwards.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        policy: str,
        guards: Guards,
        log: LearningLog,
        journal: Journal,
        builder: Builder,
        memory: Remembering | None,
        fallbacks: Fallbacks,
    ) -> None:
        self._run_dir = run_dir
        self._policy = policy
        self._guards = guards
        self._log = log
        self._journal = journal
        self._builder = builder
        self._memory = memory
        self._fallbacks = fallbacks

    def look(self, serving: int) -> None:
        """Looks at the turns of late.

        Args:
            serving: the number of the version that serves.
        """
        alarm = self._guards.look(serving)
        if alarm is None:
            return
        reason = "; ".join(alarm.reasons)
        if alarm.acts != "report":
            set_paused(self._run_dir, paused=True, reason=f"{ALARMED}: {reason}")
        self._journal.stage("alarm")
        goes_back = alarm.acts == "rollback" and bool(alarm.targets)
        chosen = self._fallbacks.choose(alarm.targets, self._prompts(alarm)) if goes_back else None
        self._journal.event(
            "alarm",
            acts=alarm.acts,
            target=None if chosen is None else chosen.number,
            passed_over={} if chosen is None else chosen.passed_over,
            reason=reason,
        )
        if chosen is not None:
            self._log.rollback(self._policy, chosen.number, reason)
        self._guards.answered(alarm, chosen)

    def _prompts(self, alarm: Alarm) -> list[tuple[Ids, Ids]]:
        """The prompts of an alarm's turns, each with what version 0 is to read; none where that is no measure."""
        if not is_its_own_measure(self._builder.recipe):
            return []
        if self._memory is not None:
            self._memory.update()
        claims = self._log.records(alarm.turn_ids[:NUM_REPLIES])
        views = [self._builder.view(claim) for claim in claims]
        return [
            (claim.turn.prompt_ids, claim.turn.prompt_ids if view is None else view.token_ids)
            for claim, view in zip(claims, views, strict=True)
        ]
