"""The hints of a claimed turn as a recipe wants them: which there are, which may be shown, what would have been right.

Pure functions of records; `agentrl.learner.usefulness` measures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, Protocol

from agentrl.recipes import axes
from agentrl.recipes.recipe import Recipe
from agentrl.signals.candidates import Candidate, later_success
from agentrl.signals.gates import Case, leak
from agentrl.teacher.contexts import PREFERENCE, preferred_of
from agentrl.types import Block, NextState, Signal, TeacherView, Turn

Measure = Literal["lift", "overlap"]


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

    @property
    def stop_ids(self) -> tuple[int, ...]: ...

    def encode_plain(self, text: str) -> list[int]: ...

    def insert(self, token_ids: Sequence[int], num_prompt: int, blocks: Sequence[Block]) -> TeacherView: ...


class Chooser(Protocol):
    """`agentrl.learner.usefulness.Usefulness` is one."""

    def best(
        self,
        turn: Turn,
        hints: Sequence[str],
        position: str,
        *,
        measure: Measure,
        corrected: Sequence[int] = (),
    ) -> str | None: ...


def hint_choice(recipe: Recipe) -> Literal["trusted", "lift", "overlap"]:
    """How a recipe chooses among the hints of a turn."""
    option = hint_option(recipe)
    return "trusted" if option is None else option.choose


def hint_option(recipe: Recipe) -> axes.HindsightHint | None:
    """The context that shows hints; None where the recipe shows none."""
    return next((part for part in recipe.context.parts if isinstance(part, axes.HindsightHint)), None)


def sifted(
    option: axes.HindsightHint, claim: Claim, chooser: Chooser | None, corrected: Sequence[int]
) -> Sequence[Signal]:
    """The claim's signals, whose hints are those that the option may show: of several the chosen one alone."""
    if option.may_hold_answer and option.choose == "trusted":
        return claim.signals
    hints = hints_of(claim.signals, may_leak=option.may_hold_answer)
    if option.choose != "trusted" and len(hints) > 1 and chooser is not None:
        best = chooser.best(claim.turn, hints, option.position, measure=option.choose, corrected=corrected)
        hints = hints if best is None else [best]
    return with_hints(claim.signals, hints)


def leaks(text: str, signals: Sequence[Signal]) -> bool:
    """Whether a text holds the literal answer that a signal would have preferred."""
    candidate = Candidate(text=text, origin="judge", trusted=True)
    return not leak(candidate, Case(answer=preferred_of(signals))).accepted


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


def with_hints(signals: Sequence[Signal], hints: Sequence[str]) -> tuple[Signal, ...]:
    """The signals, of whose hints only the named ones are left."""
    return tuple(
        signal if signal.hint is None or signal.hint.strip() in hints else replace(signal, hint=None)
        for signal in signals
    )


def corrected_ids(claims: Sequence[Claim], writer: Writer) -> Mapping[str, tuple[int, ...]]:
    """By turn id the ids of the action that would have been right, where somebody knows it: the sampled ids of the
    turn that followed and worked, else the text that a signal would have preferred, ended as a reply is ended."""
    by_parent = {claim.turn.parent: claim for claim in claims if claim.turn.parent is not None}
    found = {}
    for claim in claims:
        after = by_parent.get(claim.turn.id)
        text = preferred_of(claim.signals)
        if after is not None and later_success(claim.turn, [(after.turn, after.next_state)]) is not None:
            found[claim.turn.id] = after.turn.completion.token_ids
        elif text is not None:
            found[claim.turn.id] = (*writer.encode_plain(text), writer.stop_ids[0])
    return found
