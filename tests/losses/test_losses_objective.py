"""The objective of a micro batch. Identities of the algebra: I21 in part, I24, I30, I31, I32, I33 in part; law 7."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from losses_cases import (
    PPO,
    RECIPES,
    full_batch,
    hidden_gradient,
    recipe,
    run,
    samples_of,
    select,
)
from torch import Tensor

from agentrl.losses.objective import Denominators, LossBatch, count_tokens
from agentrl.losses.whole import whole_batch
from agentrl.recipes.recipe import preset_names, read_recipe

SO_THAT_SOME_TRAIN = {"sdft": {"token_weight.n": 1}, "gtpo": {"advantage.max_entropy": 9.0}}
"""What presets would leave out of random sequences of three positions."""


OF_POSITIONS = [name for name in preset_names() if not read_recipe(name).uses_pairs]
"""Presets whose loss does not come whole from a stage before: `agentrl.losses.pairs`."""


@pytest.mark.parametrize("name", sorted(RECIPES) + OF_POSITIONS)
def test_micro_batches_add_up_to_the_batch(name: str) -> None:
    """I30: loss, gradient and metrics, for every cut between sequences; one sequence is dropped as too far."""
    made = recipe(name).replaced({"limits.max_logprob_gap": 0.5} | SO_THAT_SOME_TRAIN.get(name, {}))
    everywhere = {"rl_weights": None, "num_allowed": None} if made.whole_batch_options else {}
    batch = full_batch(**everywhere)
    far = batch.behavior_logprobs.clone()
    far[3:6] -= 3.0
    batch = replace(batch, behavior_logprobs=far)
    of = count_tokens(made, samples_of(batch))
    if made.whole_batch_options:
        plain = replace(batch, hidden=batch.hidden.detach())
        seen = whole_batch(made, [(plain, torch.arange(9))], samples_of(batch), of)
        batch, of = replace(batch, shared=seen.shared, **seen.streams()), seen.denominators
    whole = run(made, batch, of)
    exact = hidden_gradient(whole, batch.hidden)
    assert whole.loss.item() != 0.0

    for cut in (3, 6):
        parts = [run(made, select(batch, rows), of) for rows in (torch.arange(cut), torch.arange(cut, 9))]
        total = sum(part.loss for part in parts)
        (grad,) = torch.autograd.grad(total, batch.hidden)

        assert total.item() == pytest.approx(whole.loss.item(), abs=1e-6)
        torch.testing.assert_close(grad, exact, atol=1e-6, rtol=0)
        for key, value in whole.metrics.items():
            assert sum(part.metrics[key] for part in parts) == pytest.approx(value, abs=1e-6), key


def test_a_token_mean_may_be_cut_anywhere() -> None:
    """I30, also inside a sequence, where no token weight looks at its sequence."""
    made, batch = recipe("fkl_full"), full_batch()
    of = count_tokens(made, samples_of(batch))
    parts = [run(made, select(batch, rows), of).loss for rows in torch.arange(9).split(2)]

    assert sum(parts).item() == pytest.approx(run(made, batch, of).loss.item(), abs=1e-12)


@pytest.mark.parametrize("name", sorted(set(RECIPES) - {"gap", "pg_ppo", "adv_add", "rl_tis"}))
def test_the_objective_agrees_with_finite_differences(name: str) -> None:
    """All recipes but those whose weights or advantages are detached functions of the policy: see below."""
    made, batch = recipe(name), full_batch(num_allowed=None)
    of = count_tokens(made, samples_of(batch))

    assert torch.autograd.gradcheck(lambda x: run(made, replace(batch, hidden=x), of).loss, (batch.hidden,))


def test_weights_by_the_gap_scale_each_tokens_own_gradient() -> None:
    made, batch = recipe("gap"), full_batch(kd_weights=None)
    log_p = torch.log_softmax(batch.hidden, dim=-1)
    log_q = torch.log_softmax(batch.teacher_hidden, dim=-1)
    raw = 0.05 + 0.95 * 0.5 * (log_q.exp() - log_p.exp()).abs().sum(-1)
    weights = (raw.view(3, 3) / raw.view(3, 3).mean(1, keepdim=True)).view(9).detach()
    by_hand = (weights * (log_q.exp() * (log_q - log_p)).sum(-1)).mean()
    (exact,) = torch.autograd.grad(by_hand, batch.hidden)

    torch.testing.assert_close(hidden_gradient(run(made, batch), batch.hidden), exact)


def test_a_truncated_ratio_is_a_detached_weight() -> None:
    made, batch = recipe("rl_tis"), full_batch(rl_weights=None, num_allowed=None)
    own = torch.log_softmax(batch.hidden, dim=-1).gather(1, batch.token_ids[:, None]).squeeze(1)
    weights = (own - batch.behavior_logprobs).exp().clamp(max=2.0).detach()
    (exact,) = torch.autograd.grad(-(weights * batch.advantages * own).mean(), batch.hidden)

    torch.testing.assert_close(hidden_gradient(run(made, batch), batch.hidden), exact)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_chunks_change_nothing(name: str) -> None:
    made, batch = recipe(name), full_batch()
    whole, parts = run(made, batch), run(made, batch, chunk_size=2)

    assert parts.loss.item() == pytest.approx(whole.loss.item(), abs=1e-12)
    torch.testing.assert_close(hidden_gradient(parts, batch.hidden), hidden_gradient(whole, batch.hidden))


def test_the_default_recipe_is_the_mean_forward_kl_over_tokens_with_a_hint() -> None:
    made, batch = recipe("hint_opsd"), full_batch()
    log_p = torch.log_softmax(batch.hidden, dim=-1)
    log_q = torch.log_softmax(batch.teacher_hidden, dim=-1)
    by_hand = (log_q.exp() * (log_q - log_p)).sum(-1)[[0, 1, 2, 3, 5]].mean()

    output = run(made, batch)

    assert output.loss.item() == pytest.approx(by_hand.item(), abs=1e-12)
    (exact,) = torch.autograd.grad(by_hand, batch.hidden)
    torch.testing.assert_close(hidden_gradient(output, batch.hidden), exact)
    assert output.metrics["loss/kd"] == output.metrics["loss"]


def test_the_mean_over_sequences_weighs_each_sequence_the_same() -> None:
    made, batch = recipe("opsd", **{"estimator.pointwise_clip": 1e9}), full_batch()
    log_p = torch.log_softmax(batch.hidden, dim=-1)
    log_q = torch.log_softmax(batch.teacher_hidden, dim=-1)
    kl = (log_q.exp() * (log_q - log_p)).sum(-1)

    by_hand = (kl[:3].mean() + kl[[3, 5]].mean()) / 2

    assert run(made, batch).loss.item() == pytest.approx(by_hand.item(), abs=1e-12)


def test_grpo_is_the_clipped_surrogate_over_all_tokens_against_the_sampler() -> None:
    made = recipe("grpo")
    batch = full_batch(num_allowed=None, rl_weights=None)
    ids = batch.token_ids[:, None]
    own = torch.log_softmax(batch.hidden, dim=-1).gather(1, ids).squeeze(1)
    ratio = (own - batch.behavior_logprobs).exp()
    surrogate = torch.minimum(ratio * batch.advantages, ratio.clamp(0.8, 1.2) * batch.advantages)

    assert run(made, batch).loss.item() == pytest.approx(-surrogate.mean().item(), abs=1e-12)


def test_the_teachers_context_changes_nothing_but_the_teacher() -> None:
    """I32: the policy's entropy and its distance to the sampler stay as they are."""
    made, batch = recipe("sum"), full_batch()
    before, after = (
        run(made, batch),
        run(made, replace(batch, teacher_hidden=batch.teacher_hidden + 1.0 * batch.hidden.detach())),
    )

    assert before.metrics["loss/kd"] != after.metrics["loss/kd"]
    for key in ("loss/rl", "policy_entropy", "logprob_gap", "num_clipped_rl"):
        assert before.metrics[key] == after.metrics[key]


@pytest.mark.parametrize("name", ["fkl_full", "rkl_seq_mean", "jsd_topk", "gap", "pg_ppo", "k2", "iw_k3"])
def test_a_teacher_that_is_the_policy_teaches_nothing(name: str) -> None:
    """I33 with no context and live weights; law 2 at every position, the first included."""
    batch = full_batch(kd_weights=None)
    batch = replace(batch, teacher_hidden=batch.hidden.detach().clone())
    output = run(recipe(name), batch)

    assert output.loss.item() == pytest.approx(0.0, abs=1e-12)
    assert hidden_gradient(output, batch.hidden).abs().max().item() < 1e-12


def test_added_advantages_are_the_sum_of_both_gradients_while_no_clip_acts() -> None:
    """I24: linear in the advantage; without distillation it is the reward's loss, without reward the teacher's."""
    everywhere = {"kd_weights": None, "rl_weights": None, "num_allowed": None}
    wide = PPO | {"eps_low": 0.99, "eps_high": 99.0}
    batch = full_batch(**everywhere)

    def grad(name: str, **changes: Any) -> Tensor:
        return hidden_gradient(run(recipe(name, offpolicy=wide, **changes), batch), batch.hidden)

    reward, distilled = grad("rl_raw"), grad("pg_ppo")
    torch.testing.assert_close(grad("adv_add"), reward + distilled)
    torch.testing.assert_close(grad("adv_add", mix__distill=0.0), reward)
    torch.testing.assert_close(grad("adv_add", mix__reward=0.0, mix__distill=2.0), 2 * distilled)


def test_a_turn_without_a_hint_has_no_distilled_advantage() -> None:
    """I24: log q := log π there, not the sampler's noise."""
    made = recipe("adv_add")
    batch = full_batch(kd_weights=torch.zeros(9).double(), rl_weights=None, num_allowed=None)

    assert run(made, batch).loss.item() == pytest.approx(run(recipe("rl_raw"), batch).loss.item(), abs=1e-12)


def test_a_sum_weighs_each_component_over_its_own_tokens() -> None:
    """Five tokens with a hint, six with a reward, one of them forced."""
    batch = full_batch()
    kd, rl = run(recipe("fkl_full"), batch), run(recipe("rl_raw"), batch)
    both = run(recipe("sum"), batch)

    assert both.loss.item() == pytest.approx(0.3 * kd.loss.item() + rl.loss.item(), abs=1e-12)
    assert count_tokens(recipe("sum"), samples_of(batch)) == Denominators(
        kd_tokens=5, kd_sequences=2, rl_tokens=5, rl_sequences=2, tokens=8, sequences=3, episodes=3
    )


def test_adding_the_teachers_log_ratio_to_the_advantage_adds_reverse_kl_to_the_loss() -> None:
    """I21, exactly: every id once, weighted by the probability with which the policy samples it."""
    vocab = 6
    logits = torch.randn(vocab, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    teacher = torch.randn(vocab, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    probability = torch.softmax(logits, dim=-1)
    on_policy = {
        "offpolicy": "none",
        "batch": {"steps_per_version": 1},
        "limits": {"max_version_lag": 0, "max_logprob_gap": 9},
    }

    def grad(name: str, estimator: str) -> Tensor:
        rows = logits.repeat(vocab, 1).requires_grad_()
        batch = LossBatch(
            hidden=rows,
            head=torch.eye(vocab).double(),
            token_ids=torch.arange(vocab),
            sequence=torch.arange(vocab),
            teacher_hidden=teacher.repeat(vocab, 1),
            teacher_head=torch.eye(vocab).double(),
            advantages=torch.zeros(vocab).double(),
            kd_weights=probability,
        )
        made = recipe(name, divergence="rkl", estimator=estimator, **on_policy)
        return hidden_gradient(run(made, batch), rows).sum(0)

    torch.testing.assert_close(grad("pg_ppo", "pg"), grad("pg_ppo", "full"), atol=1e-12, rtol=0)
    torch.testing.assert_close(grad("k2", "k2"), grad("k2", "full"), atol=1e-12, rtol=0)


def test_a_cached_teacher_gives_the_same_loss_as_its_weights() -> None:
    batch = full_batch()
    log_q = torch.log_softmax(batch.teacher_hidden, dim=-1).gather(1, batch.token_ids[:, None]).squeeze(1)
    cached = replace(batch, teacher_hidden=None, teacher_head=None, teacher_logprobs=log_q)

    for name in ("pg_ppo", "iw_k3"):
        assert run(recipe(name, teacher="cached"), cached).loss.item() == pytest.approx(
            run(recipe(name), batch).loss.item(), abs=1e-12
        )


@pytest.mark.parametrize("name", ["pg_ppo", "iw_k3"])
def test_a_cached_teacher_may_hold_anything_where_nothing_is_distilled(name: str) -> None:
    """I31: an id without a score, −∞, would make the backward pass 0 · ∞."""
    inside = torch.tensor([1, 0, 1, 1, 0, 1, 1, 0, 1]).double()
    scores = torch.where(inside == 1, -1.0, -torch.inf)
    none = dict.fromkeys(("teacher_hidden", "teacher_head", "num_allowed"))
    made, batch = (
        recipe(name, teacher="cached"),
        full_batch(kd_weights=inside, teacher_logprobs=scores, **none),
    )
    grad = hidden_gradient(run(made, batch), batch.hidden)

    assert torch.isfinite(grad).all()
    assert ((grad.abs().sum(-1) > 0) == (inside == 1)).all()


def test_a_sampled_penalty_towards_the_reference_leaves_forced_ids_out() -> None:
    """Law 7 in spirit: k3 of an id that could not have been another estimates nothing."""
    forced = torch.tensor([6, 1, 6, 6, 6, 6, 6, 6, 6])
    batch = full_batch(kd_weights=None, num_allowed=forced)
    batch = replace(batch, teacher_hidden=batch.hidden.detach().clone())
    grad = hidden_gradient(run(recipe("kl_ref_k3"), batch), batch.hidden)

    assert ((grad.abs().sum(-1) > 1e-9) == (forced > 1)).all()


def test_a_penalty_towards_the_reference_is_zero_at_the_reference() -> None:
    batch = full_batch()
    at_reference = replace(batch, ref_hidden=batch.hidden.detach().clone())
    plain = run(recipe("fkl_full"), batch).loss.item()

    assert run(recipe("kl_ref_k3"), at_reference).loss.item() == pytest.approx(plain, abs=1e-12)
    assert run(recipe("kl_ref_k3"), batch).loss.item() > plain + 1e-3


def test_bf16_states_give_fp32_losses() -> None:
    batch = full_batch()
    names = ("hidden", "head", "teacher_hidden", "teacher_head")
    half = {name: getattr(batch, name).detach().bfloat16() for name in names}
    output = run(recipe("fkl_full"), replace(batch, **half))

    assert output.loss.dtype == torch.float32
    assert output.loss.item() == pytest.approx(run(recipe("fkl_full"), batch).loss.item(), abs=2e-2)
