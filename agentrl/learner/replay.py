"""Samples that a step gets beside the claimed turns: the policy's own earlier answers, or a file's.

    replay       rewarded answers of the last `max_lag` versions            trained as live turns are
    rehearsal    rewarded answers of version 0                              for the regulariser that rehearses them

Own answers come from the run's log: turns that were trained, or that expired before their turn came. What a gate or a
rollback has set aside stays aside. They are drawn from the seed and the number of the step (law 11), are counted once,
when they were first trained (law 3), and stand with the step that used them again (law 8).
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Protocol

from agentrl.learner.build import Builder, reward_of
from agentrl.learner.offline import Drawn, OfflineFile, PromptWriter
from agentrl.recipes import axes
from agentrl.recipes.recipe import Recipe
from agentrl.signals.lessons import without_refused
from agentrl.store.claims import Claimed
from agentrl.store.learning_log import LearningLog
from agentrl.types import TrainingSample


class Beside(Protocol):
    """A source of samples beside the claimed turns."""

    def has_more(self, step: int) -> bool:
        """Whether the step behind `step` others could be made of it alone."""
        ...

    def draw(self, step: int, newest_version: int) -> Drawn: ...

    def skip(self) -> None:
        """What was drawn last gave no step."""
        ...


class OwnAnswers:
    """Rewarded answers from the run's own log.

    Args:
        recipe: with the rollout `replay`, or with rehearsal.
        log: the run's.
        builder: makes samples of replayed turns as it does of live ones.
        policy: the line of versions.
        seed: of the drawing.
    """

    def __init__(self, recipe: Recipe, log: LearningLog, builder: Builder, *, policy: str, seed: int) -> None:
        self._recipe = recipe
        self._log = log
        self._builder = builder
        self._policy = policy
        self._seed = seed

    def has_more(self, step: int) -> bool:
        """They stand beside live turns and make no step alone."""
        del step
        return False

    def skip(self) -> None:
        """The next step has other live turns; its number says what stands beside them."""

    def draw(self, step: int, newest_version: int) -> Drawn:
        rollout = self._recipe.rollout
        replays = isinstance(rollout, axes.Replay)
        span = (
            (newest_version - rollout.max_lag, newest_version) if isinstance(rollout, axes.Replay) else (0, 0)
        )
        names = sorted(self._log.successes(self._policy, oldest_version=span[0], newest_version=span[1]))
        draw = random.Random(f"{self._seed}/{step}")
        chosen = self._log.records(draw.sample(names, min(self._recipe.num_beside, len(names))))
        samples = self._replayed(chosen) if replays else [_rehearsed(claim) for claim in chosen]
        fitting = [sample for sample in samples if len(sample.token_ids) <= self._builder.max_len]
        used = [turn_id for sample in fitting for turn_id in sample.turn_ids]
        return Drawn(
            samples=tuple(replace(sample, turn_ids=()) for sample in fitting),
            origin={"replayed" if replays else "rehearsed": used},
        )

    def _replayed(self, claims: list[Claimed]) -> list[TrainingSample]:
        # Their age was judged by the rollout's own bound, so that the limit for live turns does not apply.
        claims = without_refused(self._log, claims, self._policy)
        built = self._builder.build(claims, newest_version=0, beside=True)
        return [replace(sample, source="replay") for sample in built.samples]


def beside_of(
    recipe: Recipe, *, log: LearningLog, builder: Builder, writer: PromptWriter, policy: str, seed: int
) -> Beside | None:
    """What the recipe's rollout wants beside the claimed turns; None for nothing.

    Raises:
        ConfigError: a file that the recipe names cannot be learned from.
    """
    if isinstance(recipe.rollout, axes.Offline | axes.Mixed):
        return OfflineFile(recipe, writer, max_len=builder.max_len, seed=seed)
    if recipe.num_beside:
        return OwnAnswers(recipe, log, builder, policy=policy, seed=seed)
    return None


def _rehearsed(claim: Claimed) -> TrainingSample:
    """An answer of version 0 as it was sampled, with version 0's own log-probs."""
    turn, done = claim.turn, claim.turn.completion
    prompt, length = len(turn.prompt_ids), len(done.token_ids)
    own = reward_of(claim.signals)
    return TrainingSample(
        turn_ids=(turn.id,),
        token_ids=turn.prompt_ids + done.token_ids,
        loss_mask=(False,) * prompt + (True,) * length,
        behavior_logprobs=None if done.raw_logprobs is None else (0.0,) * prompt + done.raw_logprobs,
        num_allowed=None if done.num_allowed is None else (0,) * prompt + done.num_allowed,
        teacher=None,
        advantages=None,
        version=done.version,
        reward=claim.episode_reward if own is None else own,
        source="rehearsal",
    )
