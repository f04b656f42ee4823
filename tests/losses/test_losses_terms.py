"""What single positions add to a loss, noted beside it."""

import math
from dataclasses import replace

import pytest
import torch
from losses_cases import RECIPES, full_batch, hidden_gradient, recipe, run, samples_of

from agentrl.losses.batch import Denominators, LossBatch
from agentrl.losses.objective import count_tokens
from agentrl.losses.whole import whole_batch
from agentrl.recipes.recipe import Recipe, preset_names

SO_THAT_SOME_TRAIN = {"sdft": {"token_weight.n": 1}, "gtpo": {"advantage.max_entropy": 9.0}}
ALL = sorted({*RECIPES, *preset_names()})


def case(name: str) -> tuple[Recipe, LossBatch, Denominators]:
    """Nine positions of three sequences, the second too far from its sampler; what a recipe compares is there."""
    made = recipe(name).replaced({"limits.max_logprob_gap": 0.5} | SO_THAT_SOME_TRAIN.get(name, {}))
    everywhere = {"rl_weights": None, "num_allowed": None} if made.whole_batch_options else {}
    batch = full_batch(**everywhere)
    far = batch.behavior_logprobs.clone()
    far[3:6] -= 3.0
    batch = replace(batch, behavior_logprobs=far)
    samples = samples_of(batch)
    if made.uses_pairs:
        samples = [replace(one, pair="p", preferred=i == 0) for i, one in enumerate(samples)]
    of = count_tokens(made, samples)
    if made.whole_batch_options:
        plain = replace(batch, hidden=batch.hidden.detach())
        seen = whole_batch(made, [(plain, torch.arange(9))], samples, of)
        batch, of = replace(batch, shared=seen.shared, **seen.streams()), seen.denominators
    return made, batch, of


@pytest.mark.parametrize("name", ALL)
def test_the_terms_of_the_positions_add_up_to_the_loss_and_change_no_bit_of_it(name: str) -> None:
    made, batch, of = case(name)

    plain, noted = run(made, batch, of), run(made, batch, of, by_position=True)

    assert noted.terms is not None
    assert plain.terms is None
    assert noted.loss.item() != 0.0
    assert torch.nansum(noted.terms.loss).item() == pytest.approx(noted.loss.item(), rel=1e-9, abs=1e-12)
    assert torch.equal(noted.loss, plain.loss)
    assert torch.equal(hidden_gradient(noted, batch.hidden), hidden_gradient(plain, batch.hidden))
    assert noted.metrics == plain.metrics


def test_the_terms_of_distillation_are_the_divergences_of_the_positions() -> None:
    """KL(q‖π) by hand at two positions, half of it each; the third belongs to no loss."""
    policy = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6], [0.1, 0.1, 0.8]], dtype=torch.float64)
    teacher = torch.tensor([[0.1, 0.6, 0.3], [0.2, 0.2, 0.6], [0.8, 0.1, 0.1]], dtype=torch.float64)
    batch = LossBatch(
        hidden=policy.log().requires_grad_(),
        head=torch.eye(3, dtype=torch.float64),
        token_ids=torch.tensor([1, 2, 0]),
        sequence=torch.tensor([0, 0, 0]),
        teacher_hidden=teacher.log(),
        teacher_head=torch.eye(3, dtype=torch.float64),
        kd_weights=torch.tensor([1.0, 1.0, 0.0]),
    )

    output = run(recipe("fkl_full"), batch, by_position=True)

    expected = 0.1 * math.log(0.1 / 0.5) + 0.6 * math.log(0.6 / 0.3) + 0.3 * math.log(0.3 / 0.2)
    assert output.terms is not None
    first, second, third = output.terms.loss.tolist()
    assert first == pytest.approx(expected / 2)
    assert second == pytest.approx(0.0, abs=1e-12)
    assert math.isnan(third)
    assert output.terms.logprob.exp().tolist() == pytest.approx([0.3, 0.6, 0.1])
    assert output.terms.teacher_logprob[:2].exp().tolist() == pytest.approx([0.6, 0.6])
    assert math.isnan(output.terms.teacher_logprob[2])
    assert output.terms.advantage.isnan().all()
    assert output.terms.ratio.isnan().all()


def test_the_terms_of_a_reward_are_the_surrogates_of_the_positions() -> None:
    """PPO's -min(r·A, clip(r)·A) by hand: a ratio of 1.5 is clipped at 1.28 where the advantage is 2."""
    policy = torch.tensor([[0.6, 0.4], [0.5, 0.5]], dtype=torch.float64)
    batch = LossBatch(
        hidden=policy.log().requires_grad_(),
        head=torch.eye(2, dtype=torch.float64),
        token_ids=torch.tensor([0, 1]),
        sequence=torch.tensor([0, 1]),
        behavior_logprobs=torch.tensor([0.4, 0.5], dtype=torch.float64).log(),
        advantages=torch.tensor([2.0, -1.0], dtype=torch.float64),
    )

    output = run(recipe("rl_raw"), batch, by_position=True)

    assert output.terms is not None
    assert output.terms.loss.tolist() == pytest.approx([-1.28 * 2.0 / 2, 1.0 / 2])
    assert output.terms.advantage.tolist() == [2.0, -1.0]
    assert output.terms.ratio.tolist() == pytest.approx([1.5, 1.0])
    assert output.terms.teacher_logprob.isnan().all()
