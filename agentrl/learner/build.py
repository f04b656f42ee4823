"""Claimed turns -> training samples. Sampled ids go through verbatim (law 1); what cannot be trained is dropped with
its reason (law 3).

    turn       prompt ids [P] + sampled ids [T]                    token_ids [L = P + T]
    recipe     eligibility, context, credit, route                 refused, or advantages and weights
    renderer   privileged blocks inserted into the same ids        teacher's view
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from agentrl.errors import UserError
from agentrl.learner.pack import teacher_positions
from agentrl.recipes import credit, routes
from agentrl.recipes.eligibility import refusal
from agentrl.recipes.recipe import Recipe
from agentrl.teacher import contexts
from agentrl.teacher.contexts import PREFERENCE, SkillSource
from agentrl.teacher.recall import HintMemory
from agentrl.types import Block, NextState, Signal, TeacherView, TrainingSample, Turn

SAMPLED_PATH = "completion.token_ids"
"""Redacted spans of this path count sampled ids; of other paths, characters."""


class Claim(Protocol):
    """`agentrl.store.learning_log.Claimed` is one."""

    @property
    def turn(self) -> Turn: ...
    @property
    def next_state(self) -> NextState | None: ...
    @property
    def signals(self) -> Sequence[Signal]: ...
    @property
    def group(self) -> str | None: ...
    @property
    def episode_reward(self) -> float | None: ...


class Inserter(Protocol):
    """`agentrl.text.renderer.Renderer`, as far as samples need one."""

    def insert(self, token_ids: Sequence[int], num_prompt: int, blocks: Sequence[Block]) -> TeacherView: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """Turns that train nothing, and the reason that is counted."""

    turn_ids: tuple[str, ...]
    reason: str
    detail: str = ""
    """A sentence for whoever must find out why; lengths, for example."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """Every claimed turn is in one of both, once."""

    samples: tuple[TrainingSample, ...]
    dropped: tuple[Dropped, ...]
    recalled: dict[str, str]
    """Turns whose teacher was shown another turn's hint -> that turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Builder:
    """What samples are built with."""

    recipe: Recipe
    renderer: Inserter
    max_len: int
    """Most ids of a sequence, the teacher's included."""
    skills: SkillSource | None = None
    """Only the context "skill" asks it."""
    memory: HintMemory | None = None
    """Hints of earlier turns; only the context "hindsight_hint" asks it."""

    def build(self, claims: Sequence[Claim], *, newest_version: int) -> Built:
        """Samples of the claimed turns, in their order.

        Args:
            newest_version: the newest version of the line, which a turn's age is counted from.
        """
        samples: list[TrainingSample] = []
        dropped: list[Dropped] = []
        recalled: dict[str, str] = {}
        for members in self._groups(claims):
            rewards = {claim.turn.session: self._reward(claim) for claim in members}
            # an episode counts once in its group's mean, however many turns it took
            advantages = credit.advantages(self.recipe.advantage, list(rewards.values()))
            advantage_of = dict(zip(rewards, advantages, strict=True))
            for claim in members:
                session = claim.turn.session
                sample = self._sample(
                    claim, rewards[session], advantage_of[session], newest_version, recalled
                )
                if isinstance(sample, TrainingSample):
                    samples.append(sample)
                else:
                    dropped.append(sample)
        return Built(samples=tuple(samples), dropped=tuple(dropped), recalled=recalled)

    def _groups(self, claims: Sequence[Claim]) -> list[list[Claim]]:
        """Claims whose rewards are compared with each other, in the order of their first members. On live traffic
        every turn stands alone."""
        groups: dict[str, list[Claim]] = {}
        for claim in claims:
            grouped = self.recipe.group_size > 1 and claim.group is not None
            key = f"group {claim.turn.scope} {claim.group}" if grouped else f"turn {claim.turn.id}"
            groups.setdefault(key, []).append(claim)
        return list(groups.values())

    def _reward(self, claim: Claim) -> float | None:
        """Groups compare how episodes ended; a turn of live traffic has its own reward where it was given one."""
        if self.recipe.group_size > 1:
            return claim.episode_reward
        own = reward_of(claim.signals)
        return claim.episode_reward if own is None else own

    def _sample(
        self,
        claim: Claim,
        reward: float | None,
        advantage: float | None,
        newest_version: int,
        recalled: dict[str, str],
    ) -> TrainingSample | Dropped:
        """The sample, or why there is none; `recalled` takes down whose hint it shows."""
        recipe, turn = self.recipe, claim.turn

        def drop(reason: str, detail: str = "") -> Dropped:
            return Dropped(turn_ids=(turn.id,), reason=reason, detail=detail)

        reason = refusal(recipe, turn, newest_version=newest_version)
        if reason is not None:
            return drop(reason)
        ids = turn.prompt_ids + turn.completion.token_ids
        if len(ids) > self.max_len:
            return drop("longer than the model", f"{len(ids)} ids of {self.max_len}")
        mask = _loss_mask(turn)
        if not any(mask):
            return drop("redacted sample")

        skills = self.skills.skills(turn) if self.skills is not None else ()
        blocks: list[Block] = []
        if recipe.uses_kd:
            failed = claim.episode_reward is not None and claim.episode_reward <= 0
            hint = contexts.chosen_hint(recipe.context, claim, self.memory, has_failed=failed)
            blocks = contexts.blocks(recipe.context, claim, skills, None if hint is None else hint.hint)
            if hint is not None and hint.turn_id != turn.id:
                recalled[turn.id] = hint.turn_id
        route = routes.weights(recipe, has_context=bool(blocks), advantage=advantage)
        if not route.trains:
            return drop(routes.why_not(recipe))
        view = None
        if blocks and route.kd:
            try:
                view = self.renderer.insert(ids, len(turn.prompt_ids), blocks)
            except UserError as error:
                return drop("no place for the context", str(error))
            if len(view.token_ids) > self.max_len:
                return drop(
                    "longer than the model with its context", f"{len(view.token_ids)} ids of {self.max_len}"
                )
            try:
                teacher_positions(view, ids, ())
            except ValueError as error:
                return drop("teacher's ids differ", str(error))

        streams: dict[str, tuple[float, ...]] = {}
        if recipe.uses_kd and route.kd != 1.0:
            streams["kd"] = (route.kd,) * len(ids)
        if recipe.uses_rl and route.rl != 1.0:
            streams["rl"] = (route.rl,) * len(ids)
        # Behind a redacted id the recorded log-probs belong to another text.
        raw = (
            None
            if turn.redacted_spans and not recipe.needs_behavior_logprobs
            else turn.completion.raw_logprobs
        )
        return TrainingSample(
            turn_ids=(turn.id,),
            token_ids=ids,
            loss_mask=mask,
            behavior_logprobs=None if raw is None else _behind(turn, 0.0, raw),
            num_allowed=(
                None
                if turn.completion.num_allowed is None
                else tuple(int(number) for number in _behind(turn, 0, turn.completion.num_allowed))
            ),
            teacher=view,
            advantages=tuple(float(advantage or 0.0) if trained else 0.0 for trained in mask)
            if recipe.uses_rl
            else None,
            weights=streams,
            group=claim.group,
            version=turn.completion.version,
            reward=reward,
        )


def reward_of(signals: Iterable[Signal]) -> float | None:
    """The reward of the most trusted source that gave one, the newest of that source; None = not judged (law 6)."""
    known = [signal for signal in signals if signal.reward is not None]
    for source in PREFERENCE:
        own = [signal for signal in known if signal.source == source]
        if own:
            return max(own, key=lambda signal: signal.created_at).reward
    return None


def _loss_mask(turn: Turn) -> tuple[bool, ...]:
    """[L] True on sampled ids that stand as they were sampled."""
    start = len(turn.prompt_ids)
    mask = [False] * start + [True] * len(turn.completion.token_ids)
    for span in turn.redacted_spans:
        if span.path == SAMPLED_PATH:
            mask[start + span.start : start + span.end] = [False] * (span.end - span.start)
    located = any(span.path == SAMPLED_PATH for span in turn.redacted_spans)
    if not located and any(span.path.startswith("reply") for span in turn.redacted_spans):
        return (False,) * len(
            mask
        )  # something sampled was replaced and nobody says which ids: none is trusted
    mask[0] = False  # predicted by nothing
    return tuple(mask)


def _behind(turn: Turn, filler: float, stream: Sequence[float]) -> tuple[float, ...]:
    """[L] a stream of the sampled ids, with `filler` on the prompt's.

    Raises:
        ValueError: the stream is not as long as the completion.
    """
    if len(stream) != len(turn.completion.token_ids):
        raise ValueError(
            f"a stream has {len(stream)} entries for {len(turn.completion.token_ids)} sampled ids"
        )
    return (filler,) * len(turn.prompt_ids) + tuple(stream)
