"""Does a version hold what was taught? Each lesson's situation is put to it, without the lesson in view.

    lessons asked least ─at most MAX_PROBES a version─> prompt ─`context_gap`─> score ─> learning.db, "lesson ID"

A lesson is held where the score is at least HOLDS: nowhere in the reply that version 0 gives once it has read the
lesson does the version, which has not, keep less than that share of what is likely there. Where version 0 keeps as much
without having read it, the lesson changes nothing in that situation and nothing can be measured: then the result is
None ("no effect"), or that the version has lost it. Where version 0 does not understand a lesson, its reply says
nothing of what the lesson names: then what it says is nobody's measure, and the result is None whatever a version says.

The bound was set on nano, on the programs of one house and the wishes of one user, over 6 and 5 versions: where they
hold by it, .93 and .92 of the replies at temperature 1 did as told (.74 where the named program stood in the greedy
reply), and the greedy reply did in 282 of 283 cases.

Where a lesson is asked for: `situations`. A rule is asked for in several places, and held where it is in all in which
it has an effect; it is taught as long as it is not, and again once it is broken (`agentrl.signals.standing`). No
environment is needed, so a version is asked before anybody meets its faults, and it costs a bounded number of ids;
version 0 is asked once for each lesson and situation.

What is found of rules decides what teachers are shown, and a turn that is held out for a lesson is not trained. So it
is the log that says when rules are asked for and lessons get their situations: at every `RULES_EVERY`-th version
served. Of the other answers nothing hangs: they are asked for as time allows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from agentrl.learner.context_gap import Ids, Limits, Wanted, replies, scores, wanted
from agentrl.learner.situations import Reader, Situation, Situations
from agentrl.learner.teacher_weights import Weights
from agentrl.learner.trainer import Trainer
from agentrl.signals.lessons import names_in
from agentrl.store.learning_log import LearningLog
from agentrl.store.lesson_rows import PROBE
from agentrl.store.version_log import Probe
from agentrl.teacher.recall import is_rule
from agentrl.types import Lesson, LessonState

MAX_PROBES: Final = 8
"""Situations that one version is asked in; with more lessons the versions take turns."""
HOLDS: Final = 0.8
"""Least score of a lesson that is held."""
MAX_KNOWN: Final = 256
"""Lessons of which one remembers what version 0 says, 50 kB each."""
REST: Final = 9.0
"""After asking, the learner learns for at least this many times as long before it asks again."""
RULES_EVERY: Final = 4
"""Served versions of which one is asked for rules."""
MAX_DETAIL: Final = 300


SHOWN: Final = {"hindsight_hint": "hint", "skill": "skill"}
"""Contexts that show lessons, and what of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What one version said in one situation."""

    situation: Situation
    before: float
    """The score of version 0 without the lesson."""
    score: float
    answer: Ids
    is_understood: bool
    """Whether what version 0 says with the lesson in view holds what the lesson names, if anything."""

    @property
    def held(self) -> bool | None:
        """None where the lesson has no effect, or not the one that it names."""
        held = self.score >= HOLDS  # a NaN fails
        return None if not self.is_understood or (held and self.before >= HOLDS) else held


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
        shown = {
            part.name: part.params["position"] for part in trainer.recipe.context.parts if part.name in SHOWN
        }
        self._situations = Situations(
            log,
            renderer,
            policy=policy,
            positions={SHOWN[name]: position for name, position in shown.items()},
            max_len=trainer.max_len,
        )
        self._wanted: dict[tuple[str, Ids], Wanted] = {}
        """By lesson and view."""
        self._rests_until = -float("inf")

    def due(self, number: int) -> tuple[bool, bool]:
        """Whether version `number`, which serves, is to be asked for rules, and whether asking for the other lessons
        would not hold up learning: versions may come faster than they can be asked."""
        rules = self._log.num_served(self._policy, before=number) % RULES_EVERY == 0
        return rules, self._clock() >= self._rests_until

    def run(self, number: int, *, rules: bool = True, others: bool = True) -> dict[str, bool | None]:
        """Asks the lessons that were asked least, rules first, as version `number`, and records it; whether each holds,
        by id, None where it has no effect.

        Args:
            rules: whether rules are asked for, and the others get situations that are never trained.
            others: whether other lessons are.
        """
        began = self._clock()
        if rules and self._trainer.base is not None:
            self._situations.settle(self._known_lessons(rules=False, others=True))
        results = self._ask(number, self._known_lessons(rules=rules, others=others))
        ended = self._clock()
        self._rests_until = ended + REST * (ended - began)
        return results

    def _ask(self, number: int, lessons: Sequence[Lesson]) -> dict[str, bool | None]:
        base = self._trainer.base
        situations = [] if base is None else self._situations.of(lessons, MAX_PROBES)
        if base is None or not situations:
            return {}
        known = self._known(base, situations)
        policy = Weights(self._trainer.policy, None)
        answers = replies(policy, [one.prompt for one in situations], self._limits)
        asked: dict[str, list[_Asked]] = {}
        by_id = {lesson.id: lesson for lesson in lessons}
        for one, aim, score, answer in zip(
            situations, known, scores(policy, known, self._limits), answers, strict=True
        ):
            named, said = names_in(by_id[one.lesson].probe), self._renderer.decode(aim.reply)
            found = _Asked(
                situation=one,
                before=aim.before,
                score=score,
                answer=answer,
                is_understood=not named or any(name in said for name in named),
            )
            asked.setdefault(one.lesson, []).append(found)
        return {name: self._record(number, by_id[name], some) for name, some in asked.items()}

    def _record(self, number: int, lesson: Lesson, asked: Sequence[_Asked]) -> bool | None:
        """What a version said wherever a lesson was asked for: held is what is held in each of those places in which it
        has an effect. The least of them is written down."""
        telling = [one for one in asked if one.held is not None]
        if is_rule(lesson):
            self._situations.matter(lesson, has_effect=any(one.before < HOLDS for one in asked))
        # a NaN is less than all
        least = min(telling or asked, key=lambda one: one.score if one.score == one.score else -1.0)
        self._log.record_probe(
            self._policy,
            number,
            Probe(
                name=PROBE + lesson.id,
                passed=least.held,
                score=least.score,
                detail=self._renderer.decode(least.answer)[:MAX_DETAIL],
                held_out=least.situation.held_out,
            ),
        )
        return least.held

    def _known(self, base: Weights, situations: Sequence[Situation]) -> list[Wanted]:
        """What version 0 says in each situation, asked now where it was not yet."""
        keys = [(one.lesson, one.view) for one in situations]
        new = [one for one, key in zip(situations, keys, strict=True) if key not in self._wanted]
        found = wanted(base, [(one.prompt, one.view) for one in new], self._limits)
        self._wanted |= {(one.lesson, one.view): aim for one, aim in zip(new, found, strict=True)}
        known = [self._wanted[key] for key in keys]
        while len(self._wanted) > MAX_KNOWN:
            del self._wanted[next(iter(self._wanted))]
        return known

    def _known_lessons(self, *, rules: bool, others: bool) -> list[Lesson]:
        """Rules, then approved lessons with a probe; of each those with the fewest results first, of these the oldest.
        How often others were asked hangs on time: rules do not share places with them."""
        num_asked = self._log.num_probed(self._policy)
        known = (*self._log.bare_lessons(self._policy, LessonState.APPROVED), *self._skills())
        wanted = [
            lesson for lesson in known if (rules if is_rule(lesson) else others and lesson.probe is not None)
        ]
        return sorted(wanted, key=lambda lesson: (not is_rule(lesson), num_asked.get(lesson.id, 0)))
