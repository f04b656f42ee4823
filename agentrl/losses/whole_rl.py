"""Advantages that need the whole batch: entropies, groups and tokens are compared over all of it.

Each function is an option's stage of `agentrl.losses.whole`: the batch scored without gradient -> a changed copy. The
base's values stand in the batch's advantages when it is called. Shapes: N positions of S sequences.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import torch

from agentrl.losses.batch import RecipeLike
from agentrl.losses.masking import sequence_sum
from agentrl.losses.policy_gradient import ratio_of
from agentrl.losses.whole import WHOLE_BATCH, WholeBatch
from agentrl.losses.whole_sequences import (
    by_episode,
    compares_episodes,
    groups,
    judged_sequences,
    old_logprobs,
    right_sequences,
    rows_of,
    sequence_mean,
    standardised,
    trained_lengths,
)


def entropy_shift(
    batch: WholeBatch, recipe: RecipeLike, *, base: Any, gamma: float, max_entropy: float | None
) -> WholeBatch:
    """A_t − γ·H̄_i, H̄_i the mean entropy of sequence i; above `max_entropy` the sequence trains nothing.

    GTPO, arXiv 2508.03772. What is left out is out of the reward's denominators as well.

    Args:
        batch: with the base's advantages.
        recipe, base: not used.
        gamma: γ.
        max_entropy: nats.
    """
    del recipe, base
    mean = sequence_mean(batch, batch.out["entropy"])
    shifted = torch.where(batch.rl, batch.advantages - gamma * mean[batch.sequence], batch.advantages)
    if max_entropy is None:
        return replace(batch, advantages=shifted)
    wild = batch.rl & (mean > max_entropy)[batch.sequence]
    kept = batch.rl & ~wild
    denominators = replace(
        batch.denominators,
        rl_tokens=batch.denominators.rl_tokens - int(wild.sum()),
        rl_sequences=batch.denominators.rl_sequences - torch.unique(batch.sequence[wild]).numel(),
    )
    scale = torch.where(kept | ~batch.rl, batch.rl_scale, 0.0)
    return replace(batch, advantages=shifted, rl_scale=scale, denominators=denominators)


@compares_episodes
def conflict(batch: WholeBatch, recipe: RecipeLike, *, base: Any, gain: float) -> WholeBatch:
    """Weights of ids that a better (A > 0) and a worse (A < 0) answer of one group share at one place: gain, and 0.

    GTPO, arXiv 2508.03772: the places are counted from the beginning in the leading run of equal ids, and from the
    end in the trailing run. An answer is an episode's trained ids, turn behind turn.

    Args:
        batch: with the base's advantages.
        recipe, base: not used.
        gain: of the better answer's.
    """
    del recipe, base
    rows = rows_of(batch, batch.rl)
    sign = [float(batch.advantages[own].sum()) for own in rows]
    scale = batch.rl_scale.clone()
    for index, own in enumerate(rows):
        shared = torch.zeros(own.numel(), dtype=torch.bool, device=own.device)
        for other, theirs in enumerate(rows):
            apart = sign[index] * sign[other] < 0
            if apart and batch.members.group[index] == batch.members.group[other]:
                size = min(own.numel(), theirs.numel())
                mine, others = batch.token_ids[own], batch.token_ids[theirs]
                leading = int((mine[:size] == others[:size]).long().cumprod(0).sum())
                trailing = int((mine.flip(0)[:size] == others.flip(0)[:size]).long().cumprod(0).sum())
                shared[:leading] = True
                shared[own.numel() - trailing :] = True
        scale[own[shared]] *= gain if sign[index] > 0 else 0.0
    return replace(batch, rl_scale=scale)


def top_tokens(
    batch: WholeBatch,
    recipe: RecipeLike,
    *,
    base: Any,
    frac: float,
    score: Literal["entropy", "advantage_entropy"],
) -> WholeBatch:
    """Weight n/k on the k = ⌈frac·n⌉ of the n tokens with reward that score highest, else 0.

    D3S with score |A|·H; SPINE's forking tokens, and arXiv 2506.01939, with score H. Of equal scores the earlier
    position goes first.

    Args:
        batch: with the base's advantages.
        recipe, base: not used.
        frac: in (0, 1]; 1 changes nothing.
        score: what is compared.
    """
    del recipe, base
    rows = torch.nonzero(batch.rl).squeeze(-1)
    if rows.numel() == 0:
        return batch
    values = batch.out["entropy"][rows]
    if score == "advantage_entropy":
        values = values * batch.advantages[rows].abs()
    keep = math.ceil(frac * rows.numel())
    order = torch.argsort(values, descending=True, stable=True)
    scale = torch.where(batch.rl, torch.zeros_like(batch.rl_scale), batch.rl_scale)
    chosen = rows[order[:keep]]
    scale[chosen] = batch.rl_scale[chosen] * (rows.numel() / keep)
    return replace(batch, rl_scale=scale)


@compares_episodes
def tempered(
    batch: WholeBatch,
    recipe: RecipeLike,
    *,
    base: Any,
    entropy: float,
    width: float,
    warm: float,
    cold: float,
    threshold: float,
) -> WholeBatch:
    """(1−α)·A + α·1[R ≥ threshold]·π_T(y)/μ(y); T = warm while the batch's entropy H < H*, else cold.

    DCPO. α = x/(1+x), x = min(|H*−H|, width)/(share of right episodes); without a right answer nothing is right and
    α's limit, 1, would leave no advantage, so A stays.

    Args:
        batch: with warm_logprob and cold_logprob, and the base's advantages.
        recipe, base: not used.
        entropy: H*, nats.
        width, warm, cold, threshold: as above.
    """
    del recipe, base
    right = right_sequences(batch, threshold)
    judged = judged_sequences(batch)
    if not bool(right.any()) or not bool(batch.rl.any()):
        return batch
    mean = float(batch.out["entropy"][batch.rl].mean())
    x = min(abs(entropy - mean), width) / float(right.sum() / judged.sum())
    alpha = x / (1.0 + x)
    goal = batch.out["warm_logprob" if mean < entropy else "cold_logprob"]
    bonus = torch.where(right[batch.sequence], ratio_of(goal, batch.behavior_logprobs), 0.0)
    mixed = torch.where(batch.rl, (1.0 - alpha) * batch.advantages + alpha * bonus, batch.advantages)
    return replace(batch, advantages=mixed, shared={**batch.shared, "tempered_alpha": alpha})


def process(batch: WholeBatch, recipe: RecipeLike, *, base: Any, beta: float) -> WholeBatch:
    """A − β·Σ_t log(π/π_0) over the turn, all detached.

    PRL: the reward of a step in the decomposition of max E[R] − β·KL(π‖π_0).

    Args:
        batch: with ref_logprob, and the base's advantages.
        recipe, base: not used.
        beta: β.
    """
    del recipe, base
    gap = torch.where(batch.rl, batch.out["logprob"] - batch.out["ref_logprob"], 0.0)
    total = sequence_sum(gap, batch.sequence, batch.num_sequences)[batch.sequence]
    return replace(batch, advantages=torch.where(batch.rl, batch.advantages - beta * total, batch.advantages))


@compares_episodes
def entropy_rank(
    batch: WholeBatch, recipe: RecipeLike, *, base: Any, bonus: float, threshold: float
) -> WholeBatch:
    """(R' − mean R')/std R' by groups, R' = R + bonus·(n−1−rank)/(n−1) on the group's n wrong answers.

    R3, arXiv 2601.19620. An answer is an episode; rank 0 is the wrong one of least mean entropy. A single wrong answer
    gets no bonus, a constant group 0.

    Args:
        batch: rewards of its members.
        recipe: not used.
        base: whose eps is added to the standard deviation, where it has one.
        bonus: largest addition; less than the distance to a right answer's reward.
        threshold: right from this reward on.
    """
    del recipe
    entropies = sequence_mean(batch, batch.out["entropy"])
    judged = judged_sequences(batch)
    advantages = torch.zeros_like(entropies)
    for members in groups(batch, judged):
        rewards = batch.members.reward[members].to(entropies.dtype)
        wrong = torch.nonzero(rewards < threshold).squeeze(-1)
        if wrong.numel() > 1:
            order = torch.argsort(entropies[members][wrong], stable=True)
            steps = torch.arange(wrong.numel() - 1, -1, -1, dtype=rewards.dtype, device=rewards.device)
            rewards[wrong[order]] += bonus * steps / (wrong.numel() - 1)
        advantages[members] = standardised(rewards, float(base.params.get("eps", 0.0)))
    return replace(batch, advantages=torch.where(batch.rl, advantages[batch.sequence], batch.advantages))


def discriminative(
    batch: WholeBatch, recipe: RecipeLike, *, tau: float, shortness: float | None, threshold: float
) -> WholeBatch:
    """A_i = −S/Q·∂/∂s_i of −(Σ₊ w_i s_i − τ·log mean₋ e^{s_i/τ}) in each of the Q groups with answers of both kinds.

    DisCO: under seq_mean the gradient is that of its objective. s_i is the mean over episode i of log π, or of ρ where
    the off-policy axis differentiates ρ; w_i = 1/n₊ or, with `shortness` λ, ∝ e^{−length_i/(λ·longest)} among the right
    answers (DRPO). S counts sequences, as seq_mean does: a turn has the share of A_i that it has of its episode's ids.
    Over a group it sums to 0. Groups of one kind have advantage 0.

    Args:
        batch: rewards of its members.
        recipe: with its off-policy axis.
        tau: τ; large values make wrong answers all alike.
        shortness: λ.
        threshold: right from this reward on.
    """
    offpolicy = recipe.offpolicy
    by_ratio = offpolicy.name == "ratio" or offpolicy.params.get("score") == "ratio"
    score = (
        ratio_of(batch.out["logprob"], old_logprobs(batch, offpolicy.params))
        if by_ratio
        else batch.out["logprob"]
    )
    episodes = by_episode(batch)
    mean, lengths = sequence_mean(episodes, score), trained_lengths(episodes)
    right = right_sequences(episodes, threshold)
    judged = groups(episodes, judged_sequences(episodes))
    mixed = [members for members in judged if bool(right[members].any()) and not bool(right[members].all())]
    advantages = torch.zeros_like(mean)
    for members in mixed:
        good, bad = members[right[members]], members[~right[members]]
        sizes = torch.zeros_like(lengths[good])
        if shortness is not None:
            sizes = -lengths[good] / (shortness * lengths[good].max())
        advantages[good] = torch.softmax(sizes, dim=0)
        advantages[bad] = -torch.softmax(mean[bad] / tau, dim=0)
    advantages = advantages * (batch.denominators.rl_sequences / max(len(mixed), 1))
    of_turns = trained_lengths(batch)[batch.sequence] / lengths[episodes.sequence].clamp(min=1.0)
    own = advantages[episodes.sequence] * of_turns
    return replace(batch, advantages=torch.where(batch.rl, own, batch.advantages))


WHOLE_BATCH |= {
    "entropy_shift": entropy_shift,
    "conflict": conflict,
    "top_tokens": top_tokens,
    "tempered": tempered,
    "process": process,
    "entropy_rank": entropy_rank,
    "discriminative": discriminative,
}
