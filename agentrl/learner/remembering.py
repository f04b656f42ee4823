"""What the learner remembers of the log's hints: those that the teacher may be shown, and those that wait for a word.

hints of log.db ─trusted─┬─may be taught─> the teacher's memory (`agentrl.teacher.recall`)
                         └─proposed──────> withheld: whose request is like one of these waits with it

What others say against a hint is asked when it is to be shown, each time: one that is doubted when it is read is shown
once nothing speaks against it any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agentrl.learner.build import Dropped
from agentrl.learner.guards import Guards
from agentrl.signals.candidates import said_by_user
from agentrl.signals.standing import rests
from agentrl.store.account import SET_ASIDE, Reason
from agentrl.store.claims import Claimed
from agentrl.store.feeds import HintedTurns
from agentrl.store.learning_log import LearningLog
from agentrl.teacher.recall import HintMemory, is_rule
from agentrl.types import Lesson, LessonState, SignalSource, Turn


class Remembering:
    """Keeps a memory in step with the log and with what was decided on lessons.

    Args:
        memory: the one that the builder asks.
        similarity: least likeness of requests that hints are recalled for; 0 recalls none.
        num_standing: hints of users that are shown whatever was asked; 0 = none.
        in_review: whether turns wait for approvals; else only imported lessons are not taught, and turns that nothing
            else could be shown to have no context until one is approved.
        guards: against being taught wrong; None = every hint is believed.
    """

    def __init__(
        self,
        memory: HintMemory,
        hinted: HintedTurns,
        log: LearningLog,
        *,
        policy: str,
        similarity: float,
        num_standing: int = 0,
        in_review: bool,
        guards: Guards | None,
    ) -> None:
        self._memory = memory
        self._withheld = HintMemory()
        self._hinted = hinted
        self._log = log
        self._policy = policy
        self._similarity = similarity
        self._num_standing = num_standing
        self._in_review = in_review
        self._guards = guards
        self._decided: tuple[int, float, int] | None = None
        """Which decisions on lessons the memory has followed."""
        self._imported: list[tuple[HintMemory, Lesson]] = []
        self._doubted: set[str] = set()
        """Turns whose hints were doubted when they were read."""
        if guards is not None:  # what is believed today may be doubted tomorrow, and the other way round
            for one in (self._memory, self._withheld):
                one.heed(self._may_be_shown)

    def restart(self) -> None:
        """Forgets everything; `update` reads the log anew."""
        self._memory.clear()
        self._withheld.clear()
        self._doubted.clear()
        self._hinted.rewind()

    def update(self) -> None:
        """Takes in what came since; a hint whose turn was set aside with a version is not to be taught again (law 8),
        nor one whose lesson nobody approved or that was rejected or retired."""
        decided = self._log.decided(self._policy)
        if decided != self._decided:
            self._decided = decided
            self.restart()
            self._imported = [
                (memory, lesson)
                for memory, state in (
                    (self._memory, LessonState.APPROVED),
                    (self._withheld, LessonState.PROPOSED),
                )
                for lesson in self._log.bare_lessons(self._policy, state)
                if lesson.origin == "import"
            ]
        kept = self._kept_rules()
        for memory, lesson in self._imported:
            if lesson.id in kept:
                memory.rest(lesson)
            else:
                memory.learn(lesson)
        for end in self._hinted.outcomes():
            for memory in (self._memory, self._withheld):
                memory.ended(end.scope, end.session, end.reward, end.calls)
        for turn, hint, source in self._hinted.new():
            heard = self._guards is None or self._guards.hears(turn, hint)
            if not heard or self._log.fate(turn.id) in SET_ASIDE:
                continue
            if self._guards is not None and self._guards.doubts(turn.id):
                self._doubted.add(turn.id)
            by_user = self._is_by_user(turn, hint, source)
            if self._log.may_teach(turn.id, hint):
                self._memory.add(turn, hint, by_user=by_user)
            elif self._log.is_proposed(turn.id, hint):
                self._withheld.add(turn, hint, by_user=by_user)

    def _kept_rules(self) -> set[str]:
        """Rules that the weights keep by themselves: a rule stands for every turn, so that each would have a context,
        and nothing that is right already would be held beside what is learned."""
        rules = [lesson for memory, lesson in self._imported if memory is self._memory and is_rule(lesson)]
        return (
            {lesson.id for lesson in self._log.with_results(rules, self._policy) if rests(lesson)}
            if rules
            else set()
        )

    def _may_be_shown(self, hint_of: str, turn_id: str) -> bool:
        """Whether the teacher of one turn may be shown the hint of another. A doubt stands when what it rested on is
        forgotten: else a flood of other turns would lift it."""
        assert self._guards is not None, "only guards are heeded"
        if hint_of in self._doubted and not self._guards.knows(hint_of):
            return False
        return self._guards.may_be_shown(hint_of, turn_id)

    def add(self, claims: Sequence[Claimed]) -> None:
        """Remembers hints that are believed again."""
        for claim in claims:
            for signal in claim.signals:
                if signal.hint:
                    by_user = said_by_user(signal.hint, signal.source, claim.next_state)
                    self._memory.add(claim.turn, signal.hint, by_user=by_user)

    def _is_by_user(self, turn: Turn, hint: str, source: SignalSource) -> bool:
        if not self._num_standing:
            return False  # nobody asks
        [record] = self._log.records([turn.id])
        return said_by_user(hint, source, record.next_state)

    def forget(self, turns: Sequence[Turn]) -> None:
        """Forgets hints that are believed no more."""
        for turn in turns:
            self._memory.forget(turn)
            self._withheld.forget(turn)

    def put_off(self, dropped: Sequence[Dropped], claims: Sequence[Claimed]) -> tuple[Dropped, ...]:
        """Lets the turns wait that have no context only because nobody has approved another turn's hint yet; returns
        the other ones."""
        turns = {claim.turn.id: claim.turn for claim in claims}
        waiting = {
            turn_id
            for item in dropped
            if item.reason in (Reason.NO_CONTEXT, Reason.ALREADY_RIGHT) and self._in_review
            for turn_id in item.turn_ids
            if self._could_be_shown(turns[turn_id])
        }
        if not waiting:
            return tuple(dropped)
        assert self._decided is not None, "`update` came before the turns were built"
        self._log.wait_for_approval(sorted(waiting), self._decided, self._policy)
        left = [tuple(name for name in item.turn_ids if name not in waiting) for item in dropped]
        return tuple(replace(item, turn_ids=ids) for item, ids in zip(dropped, left, strict=True) if ids)

    def _could_be_shown(self, turn: Turn) -> bool:
        """Whether a hint that waits for a decision would be a context for a turn."""
        # A rule concerns every turn: they do not all wait for it, its approval frees them.
        if self._num_standing and self._withheld.standing(turn, None, self._num_standing):
            return True
        return bool(self._similarity) and self._withheld.recall(turn, None, self._similarity) is not None
