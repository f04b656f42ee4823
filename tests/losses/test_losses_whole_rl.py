"""Reward options that look at the whole batch: what each does to it, and I30 and I31 for all of them."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from rl_cases import batch_of, looked, recipe, run
from torch import Tensor

from agentrl.losses.objective import LossBatch, count_tokens, objective
from agentrl.losses.whole import whole_batch
from agentrl.types import TrainingSample


def varied(seed: int = 0) -> tuple[LossBatch, list[TrainingSample]]:
    """Four sequences of a group of two kinds; other logits at every position."""
    generator = torch.Generator().manual_seed(seed)
    sequences = [(1, 0, 2), (1, 4), (3, 0, 0, 2), (2, 2)]
    batch, samples = batch_of(
        sequences,
        [1.0, 0.0, 0.0, 1.0],
        policy=torch.full((5,), 0.2).double(),
        reference=torch.full((5,), 0.2).double(),
    )
    hidden = torch.randn(11, 5, generator=generator, dtype=torch.float64)
    own = hidden.log_softmax(-1).gather(1, batch.token_ids[:, None]).squeeze(1)
    return replace(
        batch,
        hidden=hidden.requires_grad_(),
        ref_hidden=hidden.detach() + 0.3 * torch.randn(11, 5, generator=generator, dtype=torch.float64),
        behavior_logprobs=own.detach() + 0.3 * torch.randn(11, generator=generator, dtype=torch.float64),
        advantages=torch.tensor([1.0, 1, 1, -1, -1, -1, -1, -1, -1, 1, 1]).double(),
    ), samples


STUDENT = {"rollout": {"name": "student", "group_size": 4}, "advantage": "group"}


def test_tokens_of_greatest_entropy_train_at_a_weight_that_keeps_the_mean() -> None:
    batch, samples = varied()
    logp = batch.hidden.detach().log_softmax(-1)
    entropy = -(logp.exp() * logp).sum(-1)
    best = set(entropy.argsort(descending=True)[:4].tolist())
    made = recipe(**STUDENT | {"advantage": {"name": "top_tokens", "frac": 0.3}})
    seen = looked(made, batch, samples)

    assert set(torch.nonzero(seen.rl_scale).flatten().tolist()) == best
    assert seen.rl_scale[sorted(best)].tolist() == pytest.approx([11 / 4] * 4)
    assert looked(made.replaced({"advantage.frac": 1.0}), batch, samples).rl_scale.tolist() == [1.0] * 11


def test_shared_ends_are_counted_from_the_end() -> None:
    """(1,0,2) good against (3,0,0,2) bad: the last two agree; against (1,4): the first. (2,2) ends as (3,0,0,2)."""
    seen = looked(recipe(**STUDENT | {"advantage": {"name": "conflict", "gain": 3.0}}), *varied())
    assert seen.rl_scale.tolist() == [3, 3, 3, 0, 1, 1, 1, 0, 0, 1, 3]


def test_answers_of_another_group_share_nothing() -> None:
    batch, samples = varied()
    alone = [replace(sample, group=str(index)) for index, sample in enumerate(samples)]
    seen = looked(recipe(**STUDENT | {"advantage": "conflict"}), batch, alone)
    assert seen.rl_scale.tolist() == [1.0] * 11


def test_a_sequence_above_the_entropy_leaves_the_denominators() -> None:
    batch, samples = varied()
    logp = batch.hidden.detach().log_softmax(-1)
    entropy = -(logp.exp() * logp).sum(-1)
    means = [entropy[batch.sequence == i].mean().item() for i in range(4)]
    worst = max(range(4), key=lambda i: means[i])
    bound = sorted(means)[2] + 1e-9
    made = recipe(
        **STUDENT | {"advantage": {"name": "entropy_shift", "gamma": 0.2, "max_entropy": bound}},
        aggregate="seq_mean",
    )
    seen = looked(made, batch, samples)

    length = [3, 2, 4, 2][worst]
    assert seen.denominators.rl_tokens == 11 - length
    assert seen.denominators.rl_sequences == 3
    assert (seen.rl_scale == 0).tolist() == (batch.sequence == worst).tolist()
    assert seen.advantages[0].item() == pytest.approx(1.0 - 0.2 * means[0])


def test_the_most_certain_wrong_answer_earns_most_of_the_bonus() -> None:
    batch, samples = varied()
    logp = batch.hidden.detach().log_softmax(-1)
    entropy = -(logp.exp() * logp).sum(-1)
    first = entropy[3:5].mean() < entropy[5:9].mean()
    rewards = torch.tensor([1.0, 0.4, 0.0, 1.0] if first else [1.0, 0.0, 0.4, 1.0]).double()
    expected = (rewards - rewards.mean()) / (rewards.std(correction=0) + 1e-6)
    seen = looked(recipe(**STUDENT | {"advantage": {"name": "entropy_rank", "bonus": 0.4}}), batch, samples)
    torch.testing.assert_close(seen.advantages, expected[batch.sequence], atol=1e-6, rtol=0)


def test_self_scores_take_their_share_of_the_advantage() -> None:
    batch, samples = varied()
    item = {"name": "last_token_mse", "token": 3, "beta": 0.5, "share": 0.25, "min_std": 0.01}
    seen = looked(recipe(**STUDENT, regularisers=[item]), batch, samples)
    gap = batch.hidden.detach().log_softmax(-1)[:, 3] - batch.ref_hidden.log_softmax(-1)[:, 3]
    score = 0.5 * gap[[2, 4, 8, 10]]
    standard = (score - score.mean()) / (score.std(correction=0) + 1e-6)
    expected = 0.75 * batch.advantages + 0.25 * standard[batch.sequence]
    torch.testing.assert_close(seen.advantages, expected, atol=1e-12, rtol=0)
    quiet = looked(recipe(**STUDENT, regularisers=[item | {"min_std": 9.0}]), batch, samples)
    torch.testing.assert_close(quiet.advantages, 0.75 * batch.advantages)


def test_what_was_not_judged_is_neither_right_nor_wrong() -> None:
    """Law 6: an unjudged sequence has no class, no score and no group."""
    batch, samples = varied()
    unknown = [replace(samples[0], reward=None), *samples[1:]]
    zeros = (batch.sequence != 0).double()
    batch = replace(batch, rl_weights=zeros, rewards=torch.where(zeros == 0, torch.nan, batch.rewards))
    unknown[0] = replace(unknown[0], weights={"rl": (0.0,) * 4})
    item = {"name": "last_token_mse", "token": 3}
    seen = looked(recipe(**STUDENT, regularisers=[item]), batch, unknown)

    assert seen.shared["last_token_right"] == pytest.approx(3 / 2)
    assert seen.shared["last_token_wrong"] == pytest.approx(3 / 4)
    output, grad = run(recipe(**STUDENT, regularisers=[item]), batch, unknown)
    assert torch.isfinite(grad).all()
    assert torch.isfinite(output.loss)


OPTIONS: dict[str, dict[str, Any]] = {
    "entropy_shift": {"advantage": "entropy_shift"},
    "conflict": {"advantage": "conflict"},
    "top_tokens": {"advantage": {"name": "top_tokens", "frac": 0.5, "score": "advantage_entropy"}},
    "tempered": {"advantage": {"name": "tempered", "entropy": 1.0}},
    "process": {"advantage": {"name": "process", "beta": 0.5}},
    "entropy_rank": {"advantage": "entropy_rank"},
    "discriminative": {"advantage": {"name": "discriminative", "shortness": 1.0}, "aggregate": "seq_mean"},
    "adaptive_clip": {"offpolicy": {"name": "adaptive_clip", "denominator": "sampler", "low": (0.6, 0.9)}},
    "kl_constraint": {
        "offpolicy": {"name": "kl_constraint", "denominator": "sampler", "delta": 0.0, "beta": 9.0}
    },
    "clip_cov": {"offpolicy": {"name": "clip_cov", "denominator": "sampler", "frac": 0.2, "between": (0, 5)}},
    "kl_cov": {"offpolicy": {"name": "kl_cov", "denominator": "sampler", "frac": 0.3}},
    "sequence": {
        "offpolicy": {"name": "sequence", "denominator": "sampler", "eps_low": 0.2, "eps_high": 0.2}
    },
    "square": {"offpolicy": {"name": "square", "denominator": "sampler"}, "aggregate": "seq_mean"},
    "sum_const": {"aggregate": {"name": "sum_const", "budget": 7}},
    "rapo": {"regularisers": [{"name": "kl_ref_weighted", "coef": 0.5}]},
    "apo": {
        "regularisers": [{"name": "kl_ref_weighted", "coef": 0.5, "by": "difficulty"}, {"name": "length"}]
    },
    "laser": {"regularisers": [{"name": "last_token_mse", "token": 3, "share": 0.3}]},
    "band": {"regularisers": [{"name": "entropy_band", "coef": 0.1, "low": 1.2, "high": 1.3}]},
    "chi2": {"regularisers": [{"name": "chi2", "coef": 0.1}]},
    "forward": {"regularisers": [{"name": "kl_ref", "coef": 0.1, "direction": "forward"}]},
    "to_sampler": {"regularisers": [{"name": "kl_ref", "coef": 0.1, "to": "sampler", "estimator": "iw_k3"}]},
}


def taken(batch: LossBatch, rows: Tensor) -> LossBatch:
    streams = {}
    for name in batch.__dataclass_fields__:
        value = getattr(batch, name)
        streams[name] = value[rows] if isinstance(value, Tensor) and "head" not in name else value
    return LossBatch(**streams)


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_micro_batches_of_whole_sequences_add_up_to_the_batch(name: str) -> None:
    """I30, the stage before included: scored in parts or at once, trained in parts or at once."""
    made = recipe(**STUDENT | OPTIONS[name])
    batch, samples = varied()
    order = [torch.tensor([5, 6, 7, 8]), torch.tensor([9, 10]), torch.tensor([0, 1, 2, 3, 4])]
    of = count_tokens(made, samples)
    together, exact = run(made, batch, samples)

    parts = [(replace(taken(batch, rows), hidden=batch.hidden.detach()[rows]), rows) for rows in order]
    seen = whole_batch(made, parts, samples, of)
    total = torch.zeros_like(exact)
    loss = 0.0
    for rows in order:
        own = {key: stream[rows] for key, stream in seen.streams().items()}
        output = objective(made, replace(taken(batch, rows), shared=seen.shared, **own), seen.denominators)
        total += torch.autograd.grad(output.loss, batch.hidden)[0]
        loss += output.loss.item()

    assert loss == pytest.approx(together.loss.item(), abs=1e-12)
    torch.testing.assert_close(total, exact, atol=1e-12, rtol=0)
    assert exact.abs().max() > 1e-6


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_what_takes_no_loss_changes_nothing(name: str) -> None:
    """I31: a sequence of weight 0 may hold anything, infinities of the sampler included."""
    made = recipe(**STUDENT | OPTIONS[name])
    batch, samples = varied()
    outside = batch.sequence == 1
    weights = (~outside).double()
    batch = replace(batch, rl_weights=weights)
    samples[1] = replace(samples[1], weights={"rl": (0.0, 0.0, 0.0)})
    before, exact = run(made, batch, samples)

    def edited(stream: Tensor, value: float) -> Tensor:
        copy = stream.detach().clone()
        copy[outside] = value
        return copy

    other = replace(
        batch,
        hidden=edited(batch.hidden, 2.0).requires_grad_(),
        ref_hidden=edited(batch.ref_hidden, -4.0),
        behavior_logprobs=edited(batch.behavior_logprobs, -torch.inf),
        advantages=edited(batch.advantages, torch.nan),
        rewards=edited(batch.rewards, torch.nan),
    )
    after, grad = run(made, other, samples)

    assert after.loss.item() == pytest.approx(before.loss.item(), abs=1e-12)
    assert (grad[outside] == 0).all()
    torch.testing.assert_close(grad[~outside], exact[~outside], atol=1e-12, rtol=0)


DIFFERENTIABLE = ("kl_constraint", "square", "to_sampler", "sequence", "chi2", "band", "forward", "kl_cov")


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_losses_of_these_options_agree_with_finite_differences(name: str) -> None:
    """Those whose advantages and factors do not move with the policy."""
    made = recipe(**STUDENT | OPTIONS[name] | ({"advantage": "group"}))
    if name == "kl_constraint":  # its bracket is detached
        made = made.replaced({"offpolicy.beta": 1e-9, "offpolicy.score": "ratio"})
    batch, samples = varied()
    _, exact = run(made, batch, samples)
    step = 1e-6
    for row, column in ((0, 1), (3, 4), (8, 0)):
        values = []
        for sign in (1, -1):
            moved = batch.hidden.detach().clone()
            moved[row, column] += sign * step
            values.append(run(made, replace(batch, hidden=moved.requires_grad_()), samples)[0].loss.item())
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(exact[row, column].item(), abs=1e-6)
