"""Does a version hold what was taught? Each lesson's situation is put to it, without the lesson in view.

    lessons asked least ─at most MAX_PROBES a version─> prompt ids ─greedy─> answer ─check─> learning.db, "lesson ID"

The situation is the request of the lesson's first turn until a turn like it was recorded that nothing is trained on: an
evaluation, one of the control arm, a later success. No environment is needed, so a version is asked before anybody
meets its faults, and it costs a bounded number of ids.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from agentrl.errors import StoreError, UserError
from agentrl.learner.generate import generate
from agentrl.learner.teacher_weights import Weights
from agentrl.learner.trainer import Trainer
from agentrl.signals.lessons import holds, is_like
from agentrl.store.learning_log import LearningLog
from agentrl.store.lesson_rows import PROBE
from agentrl.store.version_log import Probe
from agentrl.text.renderer import Parent, Prompt
from agentrl.text.turns import without_spans
from agentrl.types import JSON, Lesson, LessonState, Reply, Sampling, Turn

MAX_PROBES: Final = 8
"""Lessons that one version is asked for; with more lessons the versions take turns."""
MAX_ANSWER: Final = 64
"""Sampled ids of an answer: what a lesson names stands near its beginning."""
REST: Final = 9.0
"""After asking, the learner learns for at least this many times as long before it asks again."""
MAX_DETAIL: Final = 300


class Reader(Protocol):
    """`agentrl.text.renderer.Renderer`, as far as probes need one."""

    @property
    def stop_ids(self) -> tuple[int, ...]: ...

    def prompt(self, messages: Sequence[JSON], tools: Sequence[JSON], parent: Parent | None) -> Prompt: ...

    def parse(self, ids: Sequence[int], tools: Sequence[JSON]) -> Reply: ...

    def decode(self, ids: Sequence[int]) -> str: ...


class LessonProbes:
    """Asks the weights that the trainer has.

    Args:
        log: gives lessons and situations, takes results.
        renderer: of the policy's model.
        skills: lessons that are no hints: those of the skills that the teacher may be shown.
        clock: seconds of a monotonic clock.
    """

    def __init__(
        self,
        log: LearningLog,
        renderer: Reader,
        trainer: Trainer,
        *,
        policy: str,
        skills: Callable[[], Sequence[Lesson]] = tuple,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._renderer = renderer
        self._trainer = trainer
        self._policy = policy
        self._skills = skills
        self._clock = clock
        self._rests_until = -float("inf")

    def due(self) -> bool:
        """Whether asking would not hold up learning: versions may come faster than they can be asked."""
        return self._clock() >= self._rests_until

    def run(self, number: int) -> dict[str, bool]:
        """Asks the lessons that were asked least, as version `number`, and records it; whether each holds, by id."""
        began = self._clock()
        results = self._ask(number, self._chosen())
        ended = self._clock()
        self._rests_until = ended + REST * (ended - began)
        return results

    def _ask(self, number: int, chosen: Sequence[Lesson]) -> dict[str, bool]:
        prompts: list[tuple[Lesson, JSON, Sequence[int], Sequence[JSON]]] = []
        for lesson, probe in self._situated(chosen):
            found = self._prompt(probe)
            if found is not None and len(found[0]) < self._trainer.max_len:
                prompts.append((lesson, probe, *found))
        if not prompts:
            return {}
        answers = generate(
            Weights(self._trainer.policy, None),
            [ids for _, _, ids, _ in prompts],
            [0] * len(prompts),
            sampling=Sampling(temperature=0.0, max_tokens=MAX_ANSWER),
            stop_ids=frozenset(self._renderer.stop_ids),
            max_tokens=self._trainer.recipe.batch.micro_tokens,
            max_len=self._trainer.max_len,
            version=number,
        )
        results: dict[str, bool] = {}
        for (lesson, probe, _, tools), answer in zip(prompts, answers, strict=True):
            held = holds(probe["check"], self._renderer.parse(answer.token_ids, tools))
            said = self._renderer.decode(answer.token_ids)[:MAX_DETAIL]
            self._log.record_probe(
                self._policy, number, Probe(name=PROBE + lesson.id, passed=held, detail=said)
            )
            results[lesson.id] = held
        return results

    def _chosen(self) -> list[Lesson]:
        """Approved lessons with a probe, those with the fewest results first, of these the oldest."""
        num_asked = self._log.num_probed(self._policy)
        known = (*self._log.bare_lessons(self._policy, LessonState.APPROVED), *self._skills())
        lessons = [lesson for lesson in known if lesson.probe is not None]
        return sorted(lessons, key=lambda lesson: num_asked.get(lesson.id, 0))[:MAX_PROBES]

    def _situated(self, lessons: Sequence[Lesson]) -> list[tuple[Lesson, JSON]]:
        """Each lesson with its probe, whose situation is one that is never trained on wherever there is such a one."""
        open_ones = [lesson for lesson in lessons if not (lesson.probe or {}).get("held_out")]
        apart = self._log.untrained(self._policy) if open_ones else []
        found = []
        for lesson in lessons:
            probe = lesson.probe
            assert probe is not None, "lessons without a probe are not chosen"
            turn = None if probe.get("held_out") else self._later(lesson, probe, apart)
            if turn is not None:
                probe = {"turn_id": turn.id, "held_out": True, "check": probe["check"]}
                self._log.set_probe(lesson.id, probe)
            found.append((lesson, probe))
        return found

    def _later(self, lesson: Lesson, probe: JSON, apart: Sequence[Turn]) -> Turn | None:
        """The newest turn like the lesson's that stands at the same place of its conversation."""
        own = self._turn(probe.get("turn_id"))
        length = len(probe.get("messages", ())) if own is None else len(own.messages)
        for turn in apart:
            same = own is not None and turn.task_key == own.task_key
            if (
                turn.scope == lesson.scope
                and len(turn.messages) == length
                and (same or is_like(turn, lesson))
            ):
                return turn
        return None

    def _turn(self, turn_id: str | None) -> Turn | None:
        if turn_id is None:
            return None
        try:
            return self._log.records([turn_id])[0].turn
        except StoreError:
            return None

    def _prompt(self, probe: JSON) -> tuple[Sequence[int], Sequence[JSON]] | None:
        """Prompt ids and tools; None where the situation is not there any more or cannot be written."""
        if "turn_id" in probe:
            turn = self._turn(probe["turn_id"])
            # Lessons that stood in the served prompt are none of the weights' doing.
            return None if turn is None else (without_spans(turn.prompt_ids, turn.block_spans), turn.tools)
        try:
            return self._renderer.prompt(probe["messages"], probe.get("tools", ()), None).ids, probe.get(
                "tools", ()
            )
        except UserError:
            return None
