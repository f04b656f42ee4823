"""The hints of a claimed turn as a recipe wants them: which there are, which may be shown, what would have been right.

Of records alone; `agentrl.learner.usefulness` measures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from agentrl.recipes import axes
from agentrl.recipes.recipe import Recipe
from agentrl.signals.candidates import MAX_LATER, Candidate, is_said_later, later_success, references
from agentrl.signals.gates import Case, admit, as_hint, leak
from agentrl.store.taught import Measured
from agentrl.teacher.contexts import PREFERENCE, Record, hint_of, preferred_of
from agentrl.teacher.recall import Recalled
from agentrl.types import Block, NextState, Signal, TeacherView, Turn

Measure = Literal["lift", "overlap"]
MAX_MEASURED = 4
"""Hints of a turn that are measured: each is a forward pass of the teacher."""


class Claim(Protocol):
    """`agentrl.store.learning_log.Claimed` is one."""

    @property
    def turn(self) -> Turn: ...
    @property
    def next_state(self) -> NextState | None: ...
    @property
    def signals(self) -> Sequence[Signal]: ...


class Writer(Protocol):
    """`agentrl.text.renderer.Renderer`, as far as hints are measured with it."""

    def answer(self, turn: Turn, text: str) -> tuple[int, ...] | None: ...

    def insert(self, token_ids: Sequence[int], num_prompt: int, blocks: Sequence[Block]) -> TeacherView: ...


class Chooser(Protocol):
    """`agentrl.learner.usefulness.Usefulness` is one."""

    def values(
        self, turn: Turn, hints: Sequence[str], position: str, measure: Measure, corrected: Sequence[int]
    ) -> Mapping[str, float]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Measuring:
    """Chooses among the hints of one turn by measuring them, each once.

    A hint whose lift is not above 0 is not shown: with it the teacher does no more of what was right than without. An
    overlap has no such zero, so that it refuses nothing.
    """

    chooser: Chooser
    turn: Turn
    position: str
    measure: Measure
    corrected: Sequence[int]
    """Ids of what would have been right; only the lift asks for them."""
    values: dict[str, float] = field(default_factory=dict)
    """By hint what was found."""

    @classmethod
    def of(
        cls, option: axes.HindsightHint | None, chooser: Chooser | None, turn: Turn, corrected: Sequence[int]
    ) -> Measuring | None:
        """None where a recipe does not measure. The lift needs to know what would have been right; where nobody does,
        the overlap is measured."""
        if option is None or option.choose == "trusted" or chooser is None:
            return None
        measure: Measure = "lift" if option.choose == "lift" and corrected else "overlap"
        return cls(chooser=chooser, turn=turn, position=option.position, measure=measure, corrected=corrected)

    def best(self, hints: Sequence[str]) -> str | None:
        """The most useful one, of equals the first, that is the most trusted; None where none may be shown."""
        if self.measure == "lift" or len(hints) > 1:
            fresh = [hint for hint in hints if hint not in self.values]
            found = self.chooser.values(self.turn, fresh, self.position, self.measure, self.corrected)
            self.values.update(found)
        placed = [hint for hint in hints if hint in self.values]
        if not placed:  # nothing to choose, or no place for any, which is said of the first
            return next(iter(hints), None)
        best = max(placed, key=self.values.__getitem__)
        return best if self.measure == "overlap" or self.values[best] > 0 else None

    def found(self, shown: Recalled | None) -> Measured | None:
        """What was measured, for the record; None where nothing was."""
        if not self.values:
            return None
        chosen = None if shown is None else shown.hint
        return Measured(measure=self.measure, values=tuple(self.values.items()), chosen=chosen)


def hint_choice(recipe: Recipe) -> Literal["trusted", "lift", "overlap"]:
    """How a recipe chooses among the hints of a turn."""
    option = hint_option(recipe)
    return "trusted" if option is None else option.choose


def hint_option(recipe: Recipe) -> axes.HindsightHint | None:
    """The context that shows hints; None where the recipe shows none."""
    return next((part for part in recipe.context.parts if isinstance(part, axes.HindsightHint)), None)


def sifted(option: axes.HindsightHint, claim: Claim, measuring: Measuring | None) -> Sequence[Signal]:
    """The claim's signals, whose hints are those that the option may show: of several the chosen one alone. A recipe
    that measures chooses among what was offered beside them as well."""
    if option.may_hold_answer and option.choose == "trusted":
        return claim.signals
    hints = hints_of(claim.signals, may_leak=option.may_hold_answer)
    if measuring is None:
        return with_hints(claim.signals, hints)
    best = measuring.best(offered_of(claim.signals, hints, may_leak=option.may_hold_answer))
    return with_hints(claim.signals, [] if best is None else [best])


def measured(
    record: Record, recalled: Recalled, measuring: Measuring, *, has_failed: bool
) -> Recalled | None:
    """What like requests brought, or the record's own hint where it is the more useful one; equally good: its own. None
    where neither may be shown.

    Args:
        has_failed: whether the record's episode is known to have failed; its own hint is not in question then.
    """
    own = hint_of(record.signals)
    if own == recalled.hint:  # it was chosen
        return recalled
    best = measuring.best([recalled.hint] if own is None or has_failed else [own, recalled.hint])
    if best is None or best == recalled.hint:
        return recalled if best else None
    return Recalled(hint=best, turn_id=record.turn.id)


def leaks(text: str, signals: Sequence[Signal]) -> bool:
    """Whether a text holds the literal answer that a signal would have preferred."""
    candidate = Candidate(text=text, origin="judge", trusted=True)
    return not leak(candidate, Case(answer=preferred_of(signals))).accepted


def leaking(recipe: Recipe, claims: Sequence[Claim]) -> list[tuple[str, str]]:
    """(turn id, text) of the hints that give the answer of their own turn away, where the recipe forbids that."""
    option = hint_option(recipe)
    if option is None or option.may_hold_answer:
        return []
    return [
        (claim.turn.id, text)
        for claim in claims
        for text in hints_of(claim.signals, may_leak=True)
        if leaks(text, claim.signals)
    ]


def hints_of(signals: Sequence[Signal], *, may_leak: bool) -> list[str]:
    """The different hints of a turn, the most trusted source's first, of one source in their order.

    Args:
        may_leak: whether those that hold the preferred text stay.
    """
    found: dict[str, None] = {}
    for source in PREFERENCE:
        for signal in signals:
            text = (signal.hint or "").strip() if signal.source == source else ""
            if text and (may_leak or not leaks(text, signals)):
                found[text] = None
    return list(found)


def offered_of(signals: Sequence[Signal], hints: Sequence[str], *, may_leak: bool) -> list[str]:
    """The hints of a turn, then what else may stand in their place: what was offered beside them, and the reference.
    At most MAX_MEASURED."""
    answer = None if may_leak else preferred_of(signals)
    known = [as_hint(item) for item in admit(references(signals), Case(answer=answer)).accepted]
    offers = [signal.offered.strip() for signal in signals if signal.offered]
    offers = [text for text in offers if may_leak or not leaks(text, signals)]
    # The reference first: where there is one, it alone is known to be right.
    return list(dict.fromkeys((*hints, *known, *offers)))[:MAX_MEASURED]


def with_hints(signals: Sequence[Signal], hints: Sequence[str]) -> tuple[Signal, ...]:
    """The signals with only the named hints; one that was offered or preferred is a hint of its signal then."""

    def kept(signal: Signal) -> str | None:
        texts = (signal.hint, signal.offered, *(as_hint(item) for item in references([signal])))
        return next((text for text in texts if text and text.strip() in hints), None)

    return tuple(replace(signal, hint=kept(signal)) for signal in signals)


def corrected_ids(claims: Sequence[Claim], writer: Writer) -> Mapping[str, tuple[int, ...]]:
    """By turn id the ids of the action that would have been right, where somebody knows it: the sampled ids of a later
    turn that worked, else the text that a signal would have preferred, ended as a reply is ended. Where a call was
    called wrong once its request was closed, what worked until then is not known to be right."""
    by_parent = {claim.turn.parent: claim for claim in claims if claim.turn.parent is not None}
    found = {}
    for claim in claims:
        text = preferred_of(claim.signals)
        hint = hint_of(claim.signals)
        is_late = hint is not None and is_said_later(hint, claim.signals)
        right = None if is_late else _first_success(claim, by_parent)
        if right is not None:
            found[claim.turn.id] = right.completion.token_ids
        elif text is not None and (ids := writer.answer(claim.turn, text)) is not None:
            found[claim.turn.id] = ids
    return found


def _first_success(claim: Claim, by_parent: Mapping[str, Claim]) -> Turn | None:
    """The first of the next MAX_LATER turns that did the same in another way, and it worked."""
    after = by_parent.get(claim.turn.id)
    for _ in range(MAX_LATER):
        if after is None or later_success(claim.turn, [(after.turn, after.next_state)]) is not None:
            break
        after = by_parent.get(after.turn.id)
    else:
        return None
    return None if after is None else after.turn
