"""Does a version hold what was taught? Each lesson's situation is put to it, without the lesson in view.

    lessons asked least ─at most MAX_PROBES a version─> prompt ─`context_gap`─> score ─> learning.db, "lesson ID"

A lesson is held where the score is at least HOLDS: nowhere in the reply that version 0 gives once it has read the
lesson does the version, which has not, keep less than that share of what is likely there. Where version 0 keeps as much
without having read it, the lesson changes nothing in that situation and nothing can be measured: then the result is
None ("no effect"), or that the version has lost it. So it is too with what version 0 does not understand.

The bound was set on nano, on the programs of one house and the wishes of one user, over 6 and 5 versions: where they
hold by it, .93 and .92 of the replies at temperature 1 did as told (.74 where the named program stood in the greedy
reply), and the greedy reply did in 282 of 283 cases.

The situation is the request of the lesson's first turn until a turn like it was recorded that nothing is trained on: an
evaluation, one of the control arm, a later success. No environment is needed, so a version is asked before anybody
meets its faults, and it costs a bounded number of ids; version 0 is asked once for each lesson and situation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from agentrl.errors import StoreError, UserError
from agentrl.learner.context_gap import Ids, Limits, Wanted, replies, scores, wanted
from agentrl.learner.teacher_weights import Weights
from agentrl.learner.trainer import Trainer
from agentrl.signals.lessons import SKILL, is_like
from agentrl.store.learning_log import LearningLog
from agentrl.store.lesson_rows import PROBE
from agentrl.store.version_log import Probe
from agentrl.teacher.contexts import hint_block, skill_block
from agentrl.text.renderer import Parent, Prompt
from agentrl.text.turns import without_spans
from agentrl.types import JSON, Block, Lesson, LessonState, TeacherView, Turn

MAX_PROBES: Final = 8
"""Lessons that one version is asked for; with more lessons the versions take turns."""
HOLDS: Final = 0.8
"""Least score of a lesson that is held."""
MAX_KNOWN: Final = 256
"""Lessons of which one remembers what version 0 says, 50 kB each."""
REST: Final = 9.0
"""After asking, the learner learns for at least this many times as long before it asks again."""
MAX_DETAIL: Final = 300


class Reader(Protocol):
    """`agentrl.text.renderer.Renderer`, as far as probes need one."""

    @property
    def stop_ids(self) -> tuple[int, ...]: ...

    def prompt(self, messages: Sequence[JSON], tools: Sequence[JSON], parent: Parent | None) -> Prompt: ...

    def insert(self, token_ids: Sequence[int], num_prompt: int, blocks: Sequence[Block]) -> TeacherView: ...

    def decode(self, ids: Sequence[int]) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Situation:
    """Where a lesson is asked for."""

    lesson: str
    prompt: Ids
    view: Ids
    """The same with the lesson."""
    held_out: bool
    """Whether nothing is trained on it."""


class LessonProbes:
    """Asks the weights that the trainer has; nothing where it keeps no version 0 to compare with.

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
        self._limits = Limits(
            stop_ids=frozenset(renderer.stop_ids),
            max_tokens=trainer.recipe.batch.micro_tokens,
            max_len=trainer.max_len,
        )
        self._wanted: dict[str, Wanted] = {}
        """By lesson."""
        self._apart: dict[str, JSON] = {}
        """By skill a situation that nothing is trained on: its file has no place for one."""
        self._rests_until = -float("inf")

    def due(self) -> bool:
        """Whether asking would not hold up learning: versions may come faster than they can be asked."""
        return self._clock() >= self._rests_until

    def run(self, number: int) -> dict[str, bool | None]:
        """Asks the lessons that were asked least, as version `number`, and records it; whether each holds, by id, None
        where it has no effect."""
        began = self._clock()
        results = self._ask(number, self._chosen())
        ended = self._clock()
        self._rests_until = ended + REST * (ended - began)
        return results

    def _ask(self, number: int, chosen: Sequence[Lesson]) -> dict[str, bool | None]:
        base = self._trainer.base
        found = [self._situation(lesson, probe) for lesson, probe in self._situated(chosen)]
        situations = [one for one in found if one is not None]
        if base is None or not situations:
            return {}
        known = self._known(base, situations)
        policy = Weights(self._trainer.policy, None)
        answers = replies(policy, [one.prompt for one in situations], self._limits)
        results: dict[str, bool | None] = {}
        for one, aim, score, answer in zip(
            situations, known, scores(policy, known, self._limits), answers, strict=True
        ):
            held: bool | None = score >= HOLDS  # a NaN fails
            if held and aim.before >= HOLDS:
                held = None
            self._log.record_probe(
                self._policy,
                number,
                Probe(
                    name=PROBE + one.lesson,
                    passed=held,
                    score=score,
                    detail=self._renderer.decode(answer)[:MAX_DETAIL],
                    held_out=one.held_out,
                ),
            )
            results[one.lesson] = held
        return results

    def _known(self, base: Weights, situations: Sequence[_Situation]) -> list[Wanted]:
        """What version 0 says in each situation, asked now where it was not yet."""
        new = [
            one for one in situations if (aim := self._wanted.get(one.lesson)) is None or aim.view != one.view
        ]
        found = wanted(base, [(one.prompt, one.view) for one in new], self._limits)
        self._wanted |= {one.lesson: aim for one, aim in zip(new, found, strict=True)}
        known = [self._wanted[one.lesson] for one in situations]
        while len(self._wanted) > MAX_KNOWN:
            del self._wanted[next(iter(self._wanted))]
        return known

    def _chosen(self) -> list[Lesson]:
        """Approved lessons with a probe, those with the fewest results first, of these the oldest."""
        num_asked = self._log.num_probed(self._policy)
        known = (*self._log.bare_lessons(self._policy, LessonState.APPROVED), *self._skills())
        lessons = [lesson for lesson in known if lesson.probe is not None]
        return sorted(lessons, key=lambda lesson: num_asked.get(lesson.id, 0))[:MAX_PROBES]

    # situations

    def _situated(self, lessons: Sequence[Lesson]) -> list[tuple[Lesson, JSON]]:
        """Each lesson with its probe, whose situation is one that is never trained on wherever there is such a one."""
        probes = [self._apart.get(lesson.id, lesson.probe) or {} for lesson in lessons]
        apart = [] if all(probe.get("held_out") for probe in probes) else self._log.untrained(self._policy)
        found = []
        for lesson, probe in zip(lessons, probes, strict=True):
            turn = None if probe.get("held_out") else self._later(lesson, probe, apart)
            if turn is not None:
                probe = {**probe, "turn_id": turn.id, "held_out": True}
                if lesson.origin == "skill":
                    self._apart[lesson.id] = probe
                else:
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

    def _situation(self, lesson: Lesson, probe: JSON) -> _Situation | None:
        """None where it is not there any more, or cannot be written with the lesson in it."""
        try:
            prompt = self._prompt(probe)
            view = self._renderer.insert(prompt, len(prompt), [self._block(lesson)]).token_ids
        except (StoreError, UserError):
            return None
        if len(view) >= self._trainer.max_len:
            return None
        return _Situation(lesson=lesson.id, prompt=prompt, view=view, held_out=bool(probe.get("held_out")))

    def _prompt(self, probe: JSON) -> Ids:
        if "turn_id" in probe:
            turn = self._log.records([probe["turn_id"]])[0].turn
            # Lessons that stood in the served prompt are none of the weights' doing.
            return without_spans(turn.prompt_ids, turn.block_spans)
        return self._renderer.prompt(probe["messages"], probe.get("tools", ()), None).ids

    def _block(self, lesson: Lesson) -> Block:
        """The lesson as the recipe shows its like to the teacher; in the system message where it shows none."""
        is_skill = lesson.origin == "skill"
        position = next(
            (
                part.params["position"]
                for part in self._trainer.recipe.context.parts
                if part.name == ("skill" if is_skill else "hindsight_hint")
            ),
            "system",
        )
        if not is_skill:
            return hint_block(lesson.text, position)
        return skill_block(lesson.id.removeprefix(SKILL).rpartition("/")[2], lesson.text, position)
