"""Options that compare answers count an episode once, however many turns it took.

One identity holds for all of them: an episode in several turns, trained in any order, is the episode in one turn.
"""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from rl_cases import batch_of, looked, recipe, run
from torch import Tensor

from agentrl.losses.objective import LossBatch
from agentrl.recipes.recipe import Recipe
from agentrl.types import TrainingSample

GROUPED = {"rollout": {"name": "student", "group_size": 4}, "advantage": "group"}
EPISODES = ((1, 0, 2, 4), (1, 0, 3), (3, 0, 0, 2), (2, 2, 0, 4, 4))
REWARDS = (1.0, 0.0, 0.0, 1.0)
TURNS = ((2, 2), (1, 2), (4,), (1, 1, 3))
"""Into how many ids each turn of an episode falls."""
ORDER = (5, 3, 0, 6, 1, 4, 2, 7)
"""A batch may hold the turns in any order."""


def whole() -> tuple[LossBatch, list[TrainingSample]]:
    """Four episodes of one turn; other logits at every position, and a sampler near the policy."""
    batch, samples = batch_of(
        EPISODES,
        REWARDS,
        policy=torch.full((5,), 0.2).double(),
        reference=torch.full((5,), 0.2).double(),
    )
    generator = torch.Generator().manual_seed(1)
    number = batch.token_ids.numel()
    hidden = torch.randn(number, 5, generator=generator, dtype=torch.float64)
    own = hidden.log_softmax(-1).gather(1, batch.token_ids[:, None]).squeeze(1)
    off = torch.randn(number, 5, generator=generator, dtype=torch.float64)
    assert batch.rewards is not None
    return replace(
        batch,
        hidden=hidden.requires_grad_(),
        ref_hidden=hidden.detach() + 0.3 * off,
        teacher_hidden=hidden.detach() - 0.5 * off,
        teacher_head=batch.head,
        behavior_logprobs=own + 0.2 * off[:, 0],
        advantages=torch.where(batch.rewards > 0.5, 1.0, -1.0).double(),
    ), samples


def split(batch: LossBatch, samples: list[TrainingSample]) -> tuple[LossBatch, list[TrainingSample], Tensor]:
    """The same ids as `whole`, in the turns of TURNS and the order of ORDER; and where each position was before."""
    turns: list[tuple[TrainingSample, list[int]]] = []
    row = 0
    for index, (sample, sizes) in enumerate(zip(samples, TURNS, strict=True)):
        for place, size in enumerate(sizes):
            rows = list(range(row, row + size))
            row += size
            own = tuple(batch.token_ids[rows].tolist())
            turns.append(
                (
                    replace(
                        sample,
                        turn_ids=(f"{index}.{place}",),
                        token_ids=(0, *own),
                        loss_mask=(False, *[True] * size),
                        weights={name: stream[: size + 1] for name, stream in sample.weights.items()},
                        episode=f"episode {index}",
                        turn_index=place,
                    ),
                    rows,
                )
            )
    turns = [turns[index] for index in ORDER]
    before = torch.tensor([row for _, rows in turns for row in rows])
    streams: dict[str, Any] = {}
    for name in batch.__dataclass_fields__:
        value = getattr(batch, name)
        streams[name] = value[before] if isinstance(value, Tensor) and "head" not in name else value
    streams["sequence"] = torch.tensor([i for i, (_, rows) in enumerate(turns) for _ in rows])
    streams["hidden"] = streams["hidden"].detach().requires_grad_()
    return LossBatch(**streams), [sample for sample, _ in turns], before


OPTIONS: dict[str, dict[str, Any]] = {
    "conflict": {"advantage": {"name": "conflict", "gain": 3.0}},
    "tempered": {"advantage": {"name": "tempered", "entropy": 1.0}},
    "entropy_rank": {"advantage": {"name": "entropy_rank", "bonus": 0.4}},
    "kl_ref_weighted by reward": {"regularisers": [{"name": "kl_ref_weighted", "coef": 0.5}]},
    "kl_ref_weighted by difficulty": {
        "regularisers": [{"name": "kl_ref_weighted", "coef": 0.5, "by": "difficulty"}]
    },
    "length": {"regularisers": [{"name": "length", "coef": 0.5}]},
    "last_token_mse": {
        "regularisers": [{"name": "last_token_mse", "token": 3, "share": 0.3, "min_std": 0.0, "beta": 0.5}]
    },
    "ppl_softmax in a group": {"route": {"name": "ppl_softmax", "tau": 0.5}},
    "ppl_softmax in the batch": {"route": {"name": "ppl_softmax", "tau": 0.5, "within": "batch"}},
    "ppl_softmax of a teacher": {
        "mix": "sum",
        "estimator": "full",
        "divergence": "fkl",
        "context": "hindsight_hint",
        "route": {"name": "ppl_softmax", "tau": 0.5},
    },
}


def made_by(option: dict[str, Any]) -> Recipe:
    return recipe(**GROUPED | option)


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_an_episode_in_several_turns_gives_the_numbers_of_one_in_a_single_turn(name: str) -> None:
    made = made_by(OPTIONS[name])
    batch, samples = whole()
    turns, several, before = split(batch, samples)
    one, many = looked(made, batch, samples), looked(made, turns, several)

    for stream in ("advantages", "rl_scale", "kd_scale", "penalty_scale"):
        torch.testing.assert_close(getattr(many, stream), getattr(one, stream)[before], atol=1e-12, rtol=0)
    assert many.shared == pytest.approx(one.shared)
    assert many.num_sequences == 8
    assert many.sequence.tolist() == turns.sequence.tolist()
    together, exact = run(made, batch, samples)
    output, grad = run(made, turns, several)
    assert output.loss.item() == pytest.approx(together.loss.item(), abs=1e-12)
    torch.testing.assert_close(grad, exact[before], atol=1e-12, rtol=0)
    assert exact.abs().max() > 1e-3


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_turns_that_were_compared_one_by_one_would_be_found_out(name: str) -> None:
    """The broken variant: each turn an episode of its own."""
    made = made_by(OPTIONS[name])
    batch, samples = whole()
    turns, several, before = split(batch, samples)
    _, exact = run(made, batch, samples)
    _, grad = run(made, turns, [replace(sample, episode=None) for sample in several])

    assert (grad - exact[before]).abs().max() > 1e-4


@pytest.mark.parametrize("shortness", [None, 0.5])
def test_a_score_of_an_episode_is_the_mean_over_all_its_turns(shortness: float | None) -> None:
    """DisCO and DRPO on one group, from the definition: the mean of log π over the ids of all turns."""
    option = {"name": "discriminative", "tau": 2.0, "shortness": shortness}
    made = recipe(**GROUPED | {"advantage": option, "aggregate": "seq_mean", "offpolicy": "none"})
    batch, samples = whole()
    turns, several, before = split(batch, samples)
    hidden = batch.hidden.detach().clone().requires_grad_()
    logprobs = hidden.log_softmax(-1).gather(1, batch.token_ids[:, None]).squeeze(1)
    scores = [logprobs[batch.sequence == index].mean() for index in range(4)]
    good = [math.exp(-size / (0.5 * 5)) for size in (4, 5)] if shortness else [1.0, 1.0]
    right = (good[0] * scores[0] + good[1] * scores[3]) / sum(good)
    wrong = 2.0 * ((scores[1] / 2.0).exp() / 2 + (scores[2] / 2.0).exp() / 2).log()
    (expected,) = torch.autograd.grad(-(right - wrong), hidden)

    torch.testing.assert_close(run(made, batch, samples)[1], expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(run(made, turns, several)[1], expected[before], atol=1e-12, rtol=0)


def test_the_lengths_ranks_and_shares_are_those_of_episodes() -> None:
    """Four episodes of 4, 3, 4 and 5 ids in 2, 2, 1 and 3 turns; two of four are right."""
    turns, several, _ = split(*whole())
    seen = looked(made_by(OPTIONS["length"]), turns, several)
    change = {0: 0.0, 1: 0.0, 2: 0.0, 3: -0.5}  # ½ − (n − 3)/2, and at most 0 where the answer is wrong
    sign = {0: 1.0, 1: -1.0, 2: -1.0, 3: 1.0}
    owner = [int(sample.turn_ids[0][0]) for sample in several]
    expected = [sign[owner[i]] + 0.5 * change[owner[i]] for i in turns.sequence.tolist()]
    assert seen.advantages.tolist() == pytest.approx(expected)

    weighted = looked(made_by(OPTIONS["kl_ref_weighted by difficulty"]), turns, several)
    half = [0.5 if sign[owner[i]] > 0 else 0.0 for i in turns.sequence.tolist()]
    assert weighted.penalty_scale.tolist() == half
    marked = looked(made_by(OPTIONS["last_token_mse"]), turns, several)
    assert marked.mark_weights is not None
    assert sorted(marked.mark_weights.tolist()) == [0.0] * 12 + [1.0] * 4
