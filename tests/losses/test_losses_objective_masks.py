"""What trains and what does not: forced ids, dropped sequences, masks, and streams that are missing."""

from dataclasses import replace

import pytest
import torch
from losses_cases import RECIPES, full_batch, hidden_gradient, random_batch, recipe, run, samples_of, select
from torch import Tensor

from agentrl.losses.objective import Denominators, count_tokens
from agentrl.types import TrainingSample


@pytest.mark.parametrize("name", ["pg_ppo", "k2", "iw_k3", "rl_raw", "rl_tis", "adv_add"])
def test_a_forced_id_takes_no_loss_of_the_sampled_id(name: str) -> None:
    """Law 7: neither loss nor denominator; a free id of the same kind would have changed both."""
    made = recipe(name)
    everywhere = {"kd_weights": None, "rl_weights": None}
    forced = torch.tensor([6, 1, 6, 6, 6, 6, 6, 1, 6])
    batch = full_batch(**everywhere, num_allowed=forced)
    rows = torch.tensor([0, 2, 3, 4, 5, 6, 8])

    grad = hidden_gradient(run(made, batch), batch.hidden)

    assert (grad[[1, 7]] == 0).all()
    assert (grad[rows].abs().sum(-1) > 0).all()
    assert count_tokens(made, samples_of(batch)).tokens == 7
    alone = run(made, select(batch, rows))
    assert run(made, batch).loss.item() == pytest.approx(alone.loss.item(), abs=1e-12)
    free = full_batch(**everywhere, num_allowed=None)
    assert run(made, free).loss.item() != pytest.approx(alone.loss.item(), abs=1e-6)


def test_a_forced_id_does_take_a_loss_over_the_whole_vocabulary() -> None:
    """Law 7 speaks of ratios and policy gradients; a distribution teaches wherever the policy stood."""
    batch = full_batch(kd_weights=None, num_allowed=torch.ones(9, dtype=torch.long))
    grad = hidden_gradient(run(recipe("fkl_full"), batch), batch.hidden)

    assert (grad.abs().sum(-1) > 0).all()


@pytest.mark.parametrize("name", ["fkl_full", "rl_raw", "adv_add", "regularised"])
def test_a_sequence_too_far_from_its_sampler_is_dropped_whole_and_counted(name: str) -> None:
    """Law 7: mean |log π − log μ| of sequence 1 is a little over the limit, of the others under it."""
    made = recipe(name).replaced({"limits.max_logprob_gap": 1.0})
    everywhere = {"kd_weights": None, "rl_weights": None, "num_allowed": None}
    batch = random_batch(
        0, **everywhere, ref_hidden=torch.zeros(9, 6).double(), ref_head=torch.eye(6).double()
    )
    own = torch.log_softmax(batch.hidden, dim=-1).gather(1, batch.token_ids[:, None]).squeeze(1).detach()
    offset = torch.tensor([0.9, -0.9, 0.9, 3.3, 0.0, 0.0, 0.0, 0.0, 2.9]).double()
    batch = replace(batch, behavior_logprobs=own + offset)

    output = run(made, batch)

    assert output.dropped == (1,)
    assert output.metrics["num_dropped_sequences"] == 1
    assert output.metrics["num_dropped_tokens"] == 3
    assert output.metrics["num_tokens"] == 6
    grad = hidden_gradient(output, batch.hidden)
    assert (grad[3:6] == 0).all()
    assert (grad[6:8].abs().sum(-1) > 0).all()


def test_a_sequence_whose_distance_is_not_a_number_is_dropped() -> None:
    batch = full_batch()
    broken = batch.behavior_logprobs.clone()
    broken[0] = torch.nan
    output = run(recipe("rl_raw", advantage="raw"), replace(batch, behavior_logprobs=broken, rl_weights=None))

    assert output.dropped == (0,)
    assert torch.isfinite(hidden_gradient(output, batch.hidden)).all()


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_nothing_to_train_gives_zero_with_a_gradient_path(name: str) -> None:
    made = recipe(name)
    zeros = torch.zeros(9, dtype=torch.float64)
    batch = full_batch(kd_weights=zeros, rl_weights=zeros)
    head = torch.eye(6, dtype=torch.float64, requires_grad=True)
    output = run(made, replace(batch, head=head))
    output.loss.backward()

    assert output.loss.item() == 0.0
    assert (batch.hidden.grad == 0).all()
    assert (head.grad == 0).all()


def test_a_micro_batch_without_rows_gives_zero_with_a_gradient_path() -> None:
    batch = full_batch()
    made = recipe("sum")
    empty = select(batch, torch.arange(0))
    output = run(made, empty, count_tokens(made, samples_of(batch)))
    output.loss.backward()

    assert output.loss.item() == 0.0
    assert batch.hidden.grad is not None


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_what_stands_outside_the_masks_changes_nothing(name: str) -> None:
    """I31: rows of weight 0 for both losses hold whatever they like, infinities of the sampler included."""
    made = recipe(name)
    inside = torch.tensor([1, 0, 1, 1, 0, 1, 1, 0, 1]).double()
    batch = full_batch(kd_weights=inside, rl_weights=inside, num_allowed=None)
    before = run(made, batch)

    def edited(stream: Tensor, value: float) -> Tensor:
        copy = stream.detach().clone()
        copy[inside == 0] = value
        return copy

    other = replace(
        batch,
        hidden=edited(batch.hidden, 3.0).requires_grad_(),
        teacher_hidden=edited(batch.teacher_hidden, -50.0),
        ref_hidden=edited(batch.ref_hidden, 7.0),
        behavior_logprobs=edited(batch.behavior_logprobs, -torch.inf),
        advantages=edited(batch.advantages, torch.nan),
        token_ids=edited(batch.token_ids, 1),
    )
    after = run(made, other)

    assert after.loss.item() == pytest.approx(before.loss.item(), abs=1e-12)
    grad = hidden_gradient(after, other.hidden)
    assert (grad[inside == 0] == 0).all()
    torch.testing.assert_close(grad[inside == 1], hidden_gradient(before, batch.hidden)[inside == 1])


@pytest.mark.parametrize("name", sorted(set(RECIPES) - {"rl_raw", "rl_tis"}))
def test_no_gradient_reaches_the_teacher_or_the_reference(name: str) -> None:
    """I32."""
    frozen = {
        key: getattr(full_batch(), key).clone().requires_grad_()
        for key in ("teacher_hidden", "teacher_head", "ref_hidden", "ref_head")
    }
    run(recipe(name), full_batch(**frozen)).loss.backward()

    assert all(tensor.grad is None for tensor in frozen.values())


def test_denominators_leave_out_prompts_masks_routes_and_forced_ids() -> None:
    sample = TrainingSample(
        turn_ids=("t",),
        token_ids=(1, 2, 3, 4, 5),
        loss_mask=(False, True, True, True, False),
        behavior_logprobs=None,
        num_allowed=(0, 9, 1, 9, 9),
        teacher=None,
        advantages=None,
        weights={"kd": (1.0, 1.0, 1.0, 0.0, 1.0)},
    )
    assert count_tokens(recipe("sum"), [sample, replace(sample, weights={})]) == Denominators(
        kd_tokens=5, kd_sequences=2, rl_tokens=4, rl_sequences=2, tokens=6, sequences=2, episodes=2
    )
    assert count_tokens(recipe("iw_k3"), [sample]).kd_tokens == 1
    assert count_tokens(recipe("rl_raw"), []).tokens == 0


@pytest.mark.parametrize(
    ("name", "absent", "message"),
    [
        ("fkl_full", ("teacher_hidden", "teacher_head"), "'full' needs teacher_hidden and teacher_head"),
        ("k2", ("teacher_hidden", "teacher_head"), "'k2' needs teacher_hidden or teacher_logprobs"),
        ("rl_raw", ("advantages",), "'rl' needs advantages"),
        ("rl_raw", ("behavior_logprobs",), "'ppo' divides by the sampler's raw log-probs"),
        ("iw_k3", ("behavior_logprobs",), "'iw_k3' divides by the sampler's raw log-probs"),
        ("regularised", ("ref_hidden", "ref_head"), "'kl_ref' needs ref_hidden"),
    ],
)
def test_a_missing_stream_is_refused_by_name(name: str, absent: tuple[str, ...], message: str) -> None:
    batch = replace(full_batch(), **dict.fromkeys(absent))
    with pytest.raises(ValueError, match=message):
        run(recipe(name), batch)


def test_a_stream_that_no_position_needs_may_be_missing() -> None:
    zeros = torch.zeros(9, dtype=torch.float64)
    rewards = full_batch(kd_weights=zeros, teacher_hidden=None, teacher_head=None)
    hints = full_batch(rl_weights=zeros, advantages=None, behavior_logprobs=None)

    assert run(recipe("sum"), rewards).loss.item() == pytest.approx(
        run(recipe("rl_raw"), rewards).loss.item()
    )
    assert run(recipe("sum"), hints).loss.item() == pytest.approx(
        0.3 * run(recipe("fkl_full"), hints).loss.item()
    )


def test_a_stream_of_another_length_is_refused_with_both_lengths() -> None:
    """Law 1: nothing is padded or cut."""
    with pytest.raises(ValueError, match="advantages has 8 rows for 9 trained positions"):
        full_batch(advantages=torch.zeros(8))
    with pytest.raises(ValueError, match="teacher_head has a vocabulary of 5, the policy of 6"):
        full_batch(teacher_head=torch.zeros(5, 6))
    with pytest.raises(ValueError, match="come together"):
        full_batch(ref_head=None)
    with pytest.raises(ValueError, match="teacher_hidden is 4 wide, but teacher_head has 6 columns"):
        full_batch(teacher_hidden=torch.zeros(9, 4))
