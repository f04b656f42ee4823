"""Where a lesson is asked for: prompts, each without the lesson and with it as version 0 reads it.

lesson of a request    the request of its first turn, until a turn like it was recorded that was not trained: an
                       evaluation, one of the control arm, a later success, or else one that waits and brought no
                       hint of its own
rule (of no request)   up to RULE_SITUATIONS newest requests of its scope, of those that nothing is trained on where
                       there are any; others as long as the rule changes nothing in them

From then on nothing is trained on that turn (`LearningLog.hold_out`): a lesson costs one turn that might have taught it
once more. That another turn with the same request is trained cannot be helped where all ask the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from agentrl.errors import StoreError, UserError
from agentrl.learner.context_gap import Ids
from agentrl.signals.lessons import is_like, name_of_skill
from agentrl.store.learning_log import LearningLog
from agentrl.teacher.contexts import hint_block, skill_block
from agentrl.teacher.recall import is_rule
from agentrl.text.renderer import Parent, Prompt
from agentrl.text.turns import without_spans
from agentrl.types import JSON, Block, Lesson, TeacherView, Turn

RULE_SITUATIONS: Final = 4
HAS_EFFECT: Final = "has_effect"
"""In a rule's probe: whether version 0 did anything else there once it had read the rule."""


class Reader(Protocol):
    """`agentrl.text.renderer.Renderer`, as far as probes need one."""

    @property
    def stop_ids(self) -> tuple[int, ...]: ...

    def prompt(self, messages: Sequence[JSON], tools: Sequence[JSON], parent: Parent | None) -> Prompt: ...

    def insert(self, token_ids: Sequence[int], num_prompt: int, blocks: Sequence[Block]) -> TeacherView: ...

    def decode(self, ids: Sequence[int]) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Where a lesson is asked for."""

    lesson: str
    prompt: Ids
    view: Ids
    """The same with the lesson."""
    held_out: bool
    """Whether nothing is trained on it."""


class Situations:
    """Finds them, and remembers with each lesson those that stay.

    Args:
        log: has lessons and turns.
        renderer: of the policy's model.
        positions: by "hint" and "skill" where the recipe shows such a block to the teacher.
        max_len: a longer prompt with its lesson is none.
    """

    def __init__(
        self,
        log: LearningLog,
        renderer: Reader,
        *,
        policy: str,
        positions: dict[str, str],
        max_len: int,
    ) -> None:
        self._log = log
        self._renderer = renderer
        self._policy = policy
        self._positions = positions
        self._max_len = max_len
        self._apart: dict[str, JSON] = {}
        """By skill a situation that nothing is trained on: its file has no place for one. After a restart one is
        looked for anew, first among the turns that are held out already."""
        self._of_rules: dict[str, JSON] = {}
        """By rule the probe that was used last."""

    def settle(self, lessons: Sequence[Lesson]) -> None:
        """Gives each lesson of a request a situation that is never trained, wherever there is one by now. It takes
        turns from training, so when it is called must follow from the log (law 11)."""
        probes: dict[str, JSON] = {}
        for lesson in lessons:
            if not is_rule(lesson):
                probes[lesson.id] = self._checked(self._known(lesson))
                if probes[lesson.id] != self._known(lesson):
                    self._move(lesson, probes[lesson.id])
        if all(probe.get("held_out") for probe in probes.values()):
            return
        apart, waiting = self._log.untrained(self._policy), self._log.waiting(self._policy)
        for lesson in lessons:
            if lesson.id in probes and not probes[lesson.id].get("held_out"):
                turn = self._later(lesson, probes[lesson.id], apart, waiting)
                if turn is not None:
                    self._move(lesson, {**probes[lesson.id], "turn_id": turn.id, "held_out": True})

    def of(self, lessons: Sequence[Lesson], most: int) -> list[Situation]:
        """Those of the first lessons, up to `most` situations. Passed over is a lesson that has none any more, or whose
        text has no place there."""
        apart: list[Turn] = []
        if any(is_rule(lesson) and not (lesson.probe or {}).get("held_out") for lesson in lessons):
            apart = self._log.untrained(self._policy)
        found: list[Situation] = []
        for lesson in lessons:
            probe = self._known(lesson)
            if is_rule(lesson):
                probe = self._of_rules[lesson.id] = self._of_rule(lesson, probe, apart)
            own = [
                one for name in _turn_ids(probe) if (one := self._situation(lesson, probe, name)) is not None
            ]
            if len(found) + len(own) > most:
                break
            found += own
            if len(found) == most:
                break
        return found

    def matter(self, lesson: Lesson, *, has_effect: bool) -> None:
        """Writes down where a rule was asked for, and whether it changed anything there."""
        probe = self._of_rules[lesson.id] | {HAS_EFFECT: has_effect}
        if has_effect:
            probe = self._checked(probe)
        if probe != lesson.probe:
            self._log.set_probe(lesson.id, probe)

    def _checked(self, probe: JSON) -> JSON:
        """A probe that says whether its turns are held out: one of an earlier release may have been trained since."""
        names = [name for name in _turn_ids(probe) if name is not None]
        if not probe.get("held_out") or all(self._log.hold_out(self._policy, name) for name in names):
            return probe
        return {**probe, "held_out": False}

    def _of_rule(self, lesson: Lesson, probe: JSON, apart: Sequence[Turn]) -> JSON:
        """A rule's probe, chosen anew until the rule has an effect, and once more where there are turns that nothing is
        trained on; `matter` writes it down."""
        unseen = [turn for turn in apart if turn.scope == lesson.scope]
        if probe.get(HAS_EFFECT) and (probe["held_out"] or not unseen):
            return probe
        turns = unseen or self._log.answered_in(lesson.scope, self._policy)
        newest: dict[str, str] = {}
        for turn in turns:  # the newest come first
            newest.setdefault(turn.task_key, turn.id)
        chosen = list(newest.values())[:RULE_SITUATIONS]
        return {"turn_ids": chosen[::-1], "held_out": bool(unseen), "names": []}

    def _known(self, lesson: Lesson) -> JSON:
        return self._apart.get(lesson.id, lesson.probe) or {}

    def _move(self, lesson: Lesson, probe: JSON) -> None:
        if lesson.origin == "skill":
            self._apart[lesson.id] = probe
        else:
            self._log.set_probe(lesson.id, probe)

    def _later(
        self, lesson: Lesson, probe: JSON, apart: Sequence[Turn], waiting: Sequence[Turn]
    ) -> Turn | None:
        """A turn like the lesson's at the same place of its conversation, held out from now on: one that nothing was
        trained on, else one that waits and is not the lesson's own; of all the first that was asked in other words."""
        own = self._turn(probe.get("turn_id"))
        length = len(probe.get("messages", ())) if own is None else len(own.messages)
        others = [turn for turn in waiting if own is None or turn.id != own.id]
        like = [
            turn
            for turn in (*apart, *others)
            if turn.scope == lesson.scope
            and len(turn.messages) == length
            and ((own is not None and turn.task_key == own.task_key) or is_like(turn, lesson))
        ]
        like.sort(key=lambda turn: own is not None and turn.messages == own.messages)
        return next((turn for turn in like if self._log.hold_out(self._policy, turn.id)), None)

    def _turn(self, turn_id: str | None) -> Turn | None:
        if turn_id is None:
            return None
        try:
            return self._log.records([turn_id])[0].turn
        except StoreError:
            return None

    def _situation(self, lesson: Lesson, probe: JSON, turn_id: str | None) -> Situation | None:
        try:
            prompt = self._prompt(probe, turn_id)
            view = self._renderer.insert(prompt, len(prompt), [self._block(lesson)]).token_ids
        except (StoreError, UserError):
            return None
        if len(view) >= self._max_len:
            return None
        return Situation(lesson=lesson.id, prompt=prompt, view=view, held_out=bool(probe.get("held_out")))

    def _prompt(self, probe: JSON, turn_id: str | None) -> Ids:
        if turn_id is not None:
            turn = self._log.records([turn_id])[0].turn
            # Lessons that stood in the served prompt are none of the weights' doing.
            return without_spans(turn.prompt_ids, turn.block_spans)
        return self._renderer.prompt(probe["messages"], probe.get("tools", ()), None).ids

    def _block(self, lesson: Lesson) -> Block:
        """The lesson as the recipe shows its like to the teacher; in the system message where it shows none."""
        if lesson.origin != "skill":
            return hint_block(lesson.text, self._positions.get("hint", "system"))
        name = name_of_skill(lesson)
        return skill_block(name, lesson.text, self._positions.get("skill", "system"))


def _turn_ids(probe: JSON) -> list[str | None]:
    """The turns that a probe asks at; None for a request that came with the lesson."""
    names: list[str | None] = probe.get("turn_ids", [probe.get("turn_id")])
    return names
