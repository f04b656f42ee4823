"""What must be known of the whole batch before any gradient is taken.

Some methods rank tokens over the batch, widen a clip until enough tokens pass it, compare the sequences of a group, or
have a loss that couples sequences (a preferred and a rejected answer). The batch is scored once without gradient, such
an option turns the scores into streams, and the micro batches then only use them: cutting a batch into micro batches
never changes a gradient.

A loss L that couples positions through their log-probs goes the same way. With c_t = ∂L/∂log π_t taken here,
Σ_t c_t·log π_t has the gradient of L, whatever micro batch a position stands in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from agentrl.losses.batch import Denominators, LossBatch, RecipeLike, episode_numbers
from agentrl.losses.chunked import Outputs
from agentrl.losses.mix import MIXES
from agentrl.losses.positions import Positions
from agentrl.losses.regularisers import REGULARISERS
from agentrl.types import TrainingSample


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """What is known of each sequence of the batch beside its tokens, [S] each."""

    group: Tensor
    """int64; sequences that are compared with each other share one number."""
    reward: Tensor
    """nan where not judged."""
    pair: Tensor
    """int64; both answers of a pair share one number; -1 for all others."""
    preferred: Tensor
    """bool; of a pair, the answer that is to be preferred."""
    episode: Tensor
    """int64 0..E-1; the turns of one episode share one number, and their group and reward."""

    @classmethod
    def of(cls, samples: Sequence[TrainingSample], device: torch.device) -> Members:
        """Sequence i of the batch is samples[i]; one without a group is alone in its own."""

        def numbered(names: Sequence[str | None]) -> list[int]:
            known = {name: number for number, name in enumerate(dict.fromkeys(names))}
            return [known[name] for name in names]

        groups = [f"group {s.group}" if s.group is not None else f"alone {i}" for i, s in enumerate(samples)]
        pairs = numbered([sample.pair for sample in samples])
        pair = [-1 if s.pair is None else number for s, number in zip(samples, pairs, strict=True)]
        rewards = [torch.nan if s.reward is None else s.reward for s in samples]
        return cls(
            group=torch.tensor(numbered(groups), device=device),
            reward=torch.tensor(rewards, dtype=torch.float32, device=device),
            pair=torch.tensor(pair, device=device),
            preferred=torch.tensor([sample.preferred for sample in samples], device=device),
            episode=torch.tensor(episode_numbers(samples), device=device),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeBatch:
    """N trained positions of all S sequences, scored without gradient. An option's function returns a changed copy."""

    out: Outputs
    """[N] by name (`agentrl.losses.features`), detached."""
    token_ids: Tensor
    """[N]"""
    sequence: Tensor
    """[N] 0..S-1."""
    num_sequences: int
    turn_index: Tensor
    """[N] int64, turns of the episode before a position's."""
    kd: Tensor
    """[N] bool: trained by distillation."""
    rl: Tensor
    """[N] bool: trained by reward."""
    forced: Tensor
    """[N] bool: the support was one id."""
    behavior_logprobs: Tensor
    """[N] the sampler's; the policy's own where they are unknown."""
    members: Members
    denominators: Denominators
    """An option may change them; it is the method's formula that says what divides."""
    advantages: Tensor
    """[N] reward advantages, 0 where there is none. An option may change them."""
    kd_scale: Tensor
    """[N] factors of the distillation loss, 1 at first. An option may change them."""
    rl_scale: Tensor
    """[N] factors of the reward loss, 1 at first. An option may change them."""
    penalty_scale: Tensor
    """[N] factors of the regulariser `kl_ref_weighted`, 1 at first. An option may change them."""
    mark_weights: Tensor | None = None
    """[N] weights of the regulariser `last_token_mse`; None without it."""
    shared: Mapping[str, float] = field(default_factory=dict)
    """Numbers that hold for the whole step, by name; they reach the objective, and the metrics as `shared/NAME`."""
    coupled: Tensor | None = None
    """[N] c_t = ∂L/∂log π_t of a loss that couples positions; None without one."""
    coupled_loss: float = 0.0
    """L itself."""

    @property
    def either(self) -> Tensor:
        """[N] bool: kd or rl."""
        return self.kd | self.rl

    def idle(self, recipe: RecipeLike) -> set[int]:
        """Sequences that were to be trained and to which the options have left no part of the loss.

        A penalty holds every trained id, whatever the scales; `entropy_band` those whose rl_scale is not 0.

        Args:
            recipe: with this step's numbers.
        """
        penalties = {
            item.name for item in recipe.regularisers if item.name in REGULARISERS and item.params["coef"]
        }
        live = torch.zeros_like(self.kd)
        if recipe.mix.name in MIXES:
            live = (self.kd & (self.kd_scale != 0)) | (self.rl & (self.rl_scale != 0))
        if self.coupled is not None:
            live = live | (self.coupled != 0)
        if "entropy_band" in penalties:
            live = live | (self.either & (self.rl_scale != 0))
        if penalties - {"entropy_band", "js_rehearsal"}:
            live = live | self.either
        trained = set(self.sequence[self.either].tolist())
        return trained - set(self.sequence[live].tolist())

    def with_coupled(self, loss: Callable[[Tensor], Tensor]) -> WholeBatch:
        """A copy with a coupled loss added.

        Args:
            loss: [N] log π of the sampled ids -> [] L.
        """
        with torch.enable_grad():
            logprobs = self.out["logprob"].detach().double().requires_grad_()
            value = loss(logprobs)
            (coefs,) = torch.autograd.grad(value, logprobs)
        before = torch.zeros_like(coefs) if self.coupled is None else self.coupled
        return replace(self, coupled=before + coefs, coupled_loss=self.coupled_loss + float(value.detach()))

    def streams(self) -> dict[str, Any]:
        """[N] streams that replace those of `LossBatch`, by its names."""
        changed: dict[str, Any] = {"advantages": self.advantages, "kd_scale": self.kd_scale}
        changed |= {"rl_scale": self.rl_scale, "penalty_scale": self.penalty_scale}
        if self.mark_weights is not None:
            changed["mark_weights"] = self.mark_weights
        if self.coupled is not None:
            changed["coupled"] = self.coupled
            share = self.coupled_loss / max(self.coupled.numel(), 1)
            changed["coupled_loss"] = torch.full_like(self.coupled, share)
        return changed


Stage = Callable[..., WholeBatch]
WHOLE_BATCH: dict[str, Stage] = {}
"""Functions of the options that say `whole_batch`, by the option's name:
(batch, recipe, **the option's parameters) -> a changed copy."""


def whole_batch(
    recipe: RecipeLike,
    parts: Sequence[tuple[LossBatch, Tensor]],
    samples: Sequence[TrainingSample],
    denominators: Denominators,
) -> WholeBatch:
    """Scores a batch and lets the recipe's options look at all of it.

    Args:
        recipe: with this step's numbers.
        parts: batches that together hold every trained position once, each with the [n] slots of its positions among
            the N; `sequence` holds indices of `samples`.
        samples: the batch's sequences.
        denominators: of the whole batch.
    """
    total = sum(slots.numel() for _, slots in parts)
    scored = []
    with torch.no_grad():
        for batch, slots in parts:
            scored.append((batch, slots, Positions.of(recipe, batch, None)))
    names = frozenset.intersection(*(frozenset(positions.out) for _, _, positions in scored))

    def joined(of: Callable[[LossBatch, Positions], Tensor]) -> Tensor:
        pieces = [of(batch, positions) for batch, _, positions in scored]
        whole = torch.zeros(total, dtype=pieces[0].dtype, device=pieces[0].device)
        for piece, (_, slots, _) in zip(pieces, scored, strict=True):
            whole[slots] = piece
        return whole

    def advantages(batch: LossBatch, positions: Positions) -> Tensor:
        none = torch.zeros_like(positions.out["logprob"])
        if batch.advantages is None:
            return none
        return torch.where(positions.rl, batch.advantages.to(none.dtype), none)

    logprob = joined(lambda _, positions: positions.out["logprob"])
    sequence = joined(lambda batch, _: batch.sequence)
    turns = torch.tensor([sample.turn_index for sample in samples], device=sequence.device)
    whole = WholeBatch(
        out={name: joined(partial(_output, name)) for name in sorted(names)},
        token_ids=joined(lambda batch, _: batch.token_ids),
        sequence=sequence,
        num_sequences=len(samples),
        turn_index=turns[sequence],
        kd=joined(lambda _, positions: positions.kd),
        rl=joined(lambda _, positions: positions.rl),
        forced=joined(lambda _, positions: positions.forced),
        behavior_logprobs=joined(lambda _, positions: positions.behavior_logprobs),
        members=Members.of(samples, logprob.device),
        denominators=denominators,
        advantages=joined(advantages),
        kd_scale=torch.ones_like(logprob),
        rl_scale=torch.ones_like(logprob),
        penalty_scale=torch.ones_like(logprob),
    )
    for option in recipe.whole_batch_options:
        whole = WHOLE_BATCH[option.name](whole, recipe, **option.params)
    return whole


def _output(name: str, _: LossBatch, positions: Positions) -> Tensor:
    return positions.out[name]
