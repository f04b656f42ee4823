"""The objective of a micro batch. Identities of the algebra: I21 in part, I24, I30, I31, I32, I33 in part; law 7."""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from losses_cases import random_batch
from torch import Tensor

from agentrl.losses.objective import Denominators, LossBatch, LossOutput, count_tokens, objective
from agentrl.losses.whole import whole_batch
from agentrl.recipes.recipe import Recipe, preset_names, read_recipe
from agentrl.types import TrainingSample

PPO = {"name": "ppo", "denominator": "sampler", "eps_low": 0.2, "eps_high": 0.28}
ON_POLICY = {"limits": {"max_version_lag": 0, "max_logprob_gap": 9.0}}
SELF_KD = {"context": "hindsight_hint", "teacher": "self", "mix": "kd", "limits": {"max_logprob_gap": 9.0}}

RECIPES: dict[str, dict[str, Any]] = {
    "fkl_full": SELF_KD,
    "rkl_seq_mean": SELF_KD | {"divergence": "rkl", "aggregate": "seq_mean"},
    "jsd_topk": SELF_KD | {"divergence": "jsd", "estimator": {"name": "topk", "k": 2}},
    "gap": SELF_KD | {"token_weight": "gap"},
    "top_frac": SELF_KD | {"token_weight": "top_frac", "target": {"name": "temper", "temperature": 0.5}},
    "pg_ppo": SELF_KD | {"divergence": "rkl", "estimator": "pg", "offpolicy": PPO},
    "k2": SELF_KD | {"divergence": "rkl", "estimator": "k2"} | ON_POLICY,
    "iw_k3": SELF_KD | {"divergence": "rkl", "estimator": "iw_k3"},
    "rl_raw": {"advantage": "raw", "mix": "rl", "offpolicy": PPO, "limits": {"max_logprob_gap": 9.0}},
    "rl_tis": {"advantage": "raw", "mix": "rl", "offpolicy": {"name": "tis", "denominator": "sampler"}},
    "sum": SELF_KD | {"advantage": "raw", "mix": {"name": "sum", "kd": 0.3}, "offpolicy": PPO},
    "adv_add": SELF_KD
    | {"advantage": "raw", "mix": "adv_add", "estimator": "pg", "divergence": "rkl", "offpolicy": PPO},
    "regularised": SELF_KD
    | {"regularisers": [{"name": "kl_ref", "coef": 0.1}, {"name": "entropy", "coef": 0.01}]},
    "kl_ref_k3": SELF_KD | {"regularisers": [{"name": "kl_ref", "coef": 0.1, "estimator": "k3"}]},
}


def recipe(name: str, **changes: Any) -> Recipe:
    if name in preset_names():
        return read_recipe(name).replaced({key.replace("__", "."): value for key, value in changes.items()})
    made = Recipe.model_validate({"name": name} | RECIPES[name])
    return made.replaced({key.replace("__", "."): value for key, value in changes.items()})


def full_batch(**streams: Any) -> LossBatch:
    """Nine positions of three sequences with all streams: routes, a forced id, a reference."""
    generator = torch.Generator().manual_seed(5)
    given: dict[str, Any] = {
        "kd_weights": torch.tensor([1, 1, 1, 1, 0, 1, 0, 0, 0]).double(),
        "rl_weights": torch.tensor([0, 0, 0, 1, 1, 1, 0.5, 0.5, 0.5]).double(),
        "num_allowed": torch.tensor([6, 6, 1, 6, 2, 6, 1, 6, 6]),
        "ref_hidden": torch.randn(9, 6, generator=generator, dtype=torch.float64),
        "ref_head": torch.eye(6, dtype=torch.float64),
    }
    return random_batch(0, **given | streams)


def samples_of(batch: LossBatch) -> list[TrainingSample]:
    """The samples that a batch comes from, one id of prompt before each; one group, of which the first was right."""
    samples = []
    for label in batch.sequence.unique().tolist():
        rows = (batch.sequence == label).nonzero().squeeze(-1)

        def stream(tensor: Tensor | None, first: float, rows: Tensor = rows) -> tuple[Any, ...] | None:
            return None if tensor is None else (first, *tensor[rows].tolist())

        weights = {"kd": stream(batch.kd_weights, 1.0), "rl": stream(batch.rl_weights, 1.0)}
        samples.append(
            TrainingSample(
                turn_ids=(str(label),),
                token_ids=(0, *batch.token_ids[rows].tolist()),
                loss_mask=(False, *(True for _ in rows)),
                behavior_logprobs=None,
                num_allowed=stream(batch.num_allowed, 0),
                teacher=None,
                advantages=None,
                weights={name: value for name, value in weights.items() if value is not None},
                group="task",
                reward=float(label == 0),
            )
        )
    return samples


def select(batch: LossBatch, rows: Tensor) -> LossBatch:
    """The micro batch of some rows. Heads are shared."""
    streams = {}
    for field in fields(batch):
        value = getattr(batch, field.name)
        streams[field.name] = value[rows] if isinstance(value, Tensor) and "head" not in field.name else value
    return LossBatch(**streams)


def run(made: Recipe, batch: LossBatch, of: Denominators | None = None, **options: Any) -> LossOutput:
    return objective(made, batch, of or count_tokens(made, samples_of(batch)), **options)


def hidden_gradient(output: LossOutput, hidden: Tensor) -> Tensor:
    (grad,) = torch.autograd.grad(output.loss, hidden)
    return grad


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
        kd_tokens=5, kd_sequences=2, rl_tokens=5, rl_sequences=2, tokens=8, sequences=3
    )


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
        kd_tokens=5, kd_sequences=2, rl_tokens=4, rl_sequences=2, tokens=6, sequences=2
    )
    assert count_tokens(recipe("iw_k3"), [sample]).kd_tokens == 1
    assert count_tokens(recipe("rl_raw"), []).tokens == 0


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
