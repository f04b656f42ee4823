"""What the teacher of a claimed turn is shown beyond the served prompt: hints, skills and whatever else a recipe's
context asks for, as blocks and as the prompt with these in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from agentrl.errors import UserError
from agentrl.learner.hints import Chooser, Measuring, hint_option, leaks, measured, sifted
from agentrl.recipes.recipe import Recipe
from agentrl.store.taught import Measured
from agentrl.teacher import contexts
from agentrl.teacher.contexts import SkillSource
from agentrl.teacher.demonstrations import Sibling
from agentrl.teacher.recall import HintMemory, Recalled
from agentrl.types import Block, NextState, Signal, TeacherView, Turn


class Claim(Protocol):
    """`agentrl.store.learning_log.Claimed` is one."""

    @property
    def turn(self) -> Turn: ...
    @property
    def next_state(self) -> NextState | None: ...
    @property
    def signals(self) -> Sequence[Signal]: ...
    @property
    def episode_reward(self) -> float | None: ...


class Inserter(Protocol):
    """`agentrl.text.renderer.Renderer`, as far as views need one."""

    def insert(self, token_ids: Sequence[int], num_prompt: int, blocks: Sequence[Block]) -> TeacherView: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What the turns of one group know of each other."""

    siblings: Sequence[Sibling] = ()
    rewards: tuple[float, ...] = ()
    """Of its judged episodes."""
    corrected: Mapping[str, Sequence[int]]
    """By turn id what would have been right, where that is known and asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The context of one turn."""

    blocks: list[Block]
    hints: list[Recalled]
    """Those among the blocks."""
    wishes: list[Block]
    """Blocks of hints that stand whatever was asked: users' words and rules."""
    measured: Measured | None
    """How useful the turn's hints are, where that was measured."""
    rested: tuple[str, ...]
    """Rules that would be among the hints as well, did the weights not keep them by themselves: `MAX_RULES` at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """A claim as contexts see it, with the hints that the recipe may show."""

    turn: Turn
    next_state: NextState | None
    signals: Sequence[Signal]


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """What contexts are made with; see `agentrl.learner.build.Builder`."""

    recipe: Recipe
    renderer: Inserter
    skills: SkillSource | None
    memory: HintMemory | None
    usefulness: Chooser | None

    def view(self, around: Around, claim: Claim) -> TeacherView | None:
        """The served prompt with the context's blocks; None where there are none or no place for them."""
        blocks = self.context(claim, around).blocks
        if not blocks:
            return None
        try:
            return self.renderer.insert(claim.turn.prompt_ids, len(claim.turn.prompt_ids), blocks)
        except UserError:
            return None

    def context(self, claim: Claim, around: Around) -> Found:
        """The context's blocks, the hints among them, and what was measured of hints."""
        recipe = self.recipe
        skills = self.skills.skills(claim.turn) if self.skills is not None else ()
        failed = claim.episode_reward is not None and claim.episode_reward <= 0
        option = hint_option(recipe)
        record = _Record(turn=claim.turn, next_state=claim.next_state, signals=claim.signals)
        measuring = Measuring.of(option, self.usefulness, claim.turn, around.corrected.get(claim.turn.id, ()))
        if option is not None:
            record = replace(record, signals=sifted(option, claim, measuring))
        hint = contexts.chosen_hint(recipe.context, record, self.memory, has_failed=failed)
        if measuring is not None and hint is not None:
            hint = measured(record, hint, measuring, has_failed=failed)
        if option is not None and hint is not None and not option.may_hold_answer:
            hint = None if leaks(hint.hint, claim.signals) else hint
        standing = self._standing(claim, hint)
        blocks = contexts.blocks(
            recipe.context,
            record,
            skills,
            None if hint is None else hint.hint,
            around.siblings,
            [item.hint for item in standing],
        )
        hints = standing if hint is None else [*standing, hint]
        named = {f"Hint: {item.hint}": item.turn_id for item in hints if item.turn_id != claim.turn.id}
        blocks = [
            replace(block, origin=f"hint of {named[block.text]}") if block.text in named else block
            for block in blocks
        ]
        wishes = [*standing]
        if (
            hint is not None
            and self.memory is not None
            and self.memory.is_wish(claim.turn.scope, hint.turn_id)
        ):
            wishes.append(hint)
        said = {f"Hint: {item.hint}" for item in wishes}
        return Found(
            blocks=blocks,
            wishes=[block for block in blocks if block.text in said],
            hints=[item for item in hints if any(item.hint in block.text for block in blocks)],
            measured=None if measuring is None else measuring.found(hint),
            rested=self._rested(claim, hint, standing),
        )

    def all_leak(self, claim: Claim) -> bool:
        """Whether a turn that has no context was given hints, and all of them hold the answer."""
        option = hint_option(self.recipe)
        given = [signal.hint for signal in claim.signals if signal.hint]
        if option is None or option.may_hold_answer or not given:
            return False
        return all(leaks(text, claim.signals) for text in given)

    def _standing(self, claim: Claim, hint: Recalled | None) -> list[Recalled]:
        """What the teacher of a turn is shown beside its hint."""
        standing = contexts.standing_hints(self.recipe.context, claim, self.memory, hint)
        option = hint_option(self.recipe)
        if option is None or option.may_hold_answer:
            return standing
        return [item for item in standing if not leaks(item.hint, claim.signals)]

    def _rested(self, claim: Claim, hint: Recalled | None, standing: Sequence[Recalled]) -> tuple[str, ...]:
        if self.memory is None or not self.memory.has_resting(claim.turn.scope):
            return ()
        with self.memory.awake():
            return tuple(item.turn_id for item in self._standing(claim, hint) if item not in standing)
