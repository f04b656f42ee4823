"""Losses of preferred and rejected answers on fixture F, against numbers enumerated here with plain arithmetic."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from losses_cases import POLICY, REFERENCE
from torch import Tensor

from agentrl.errors import ConfigError
from agentrl.losses.objective import LossBatch, count_tokens, objective
from agentrl.losses.whole import whole_batch
from agentrl.recipes.recipe import Recipe, load_recipe
from agentrl.types import TrainingSample

P, P0 = (0.5, 0.3, 0.2), (0.6, 0.2, 0.2)
Answer = tuple[tuple[int, ...], str | None, bool]
"""Ids in {0, 1, 2}, the pair, whether it is the preferred one."""
PAIR: list[Answer] = [((1, 0), "p", True), ((0, 2), "p", False)]
MARGIN = (math.log(0.3 / 0.2) + math.log(0.5 / 0.6)) - (math.log(0.5 / 0.6) + math.log(0.2 / 0.2))
"""Δ⁺ − Δ⁻ of PAIR: ln 1.5."""


def recipe_of(mix: dict[str, Any] | str) -> Recipe:
    return load_recipe("dpo", {"mix": mix})


def sample(answer: Answer, **changes: Any) -> TrainingSample:
    ids, pair, preferred = answer
    values = {
        "turn_ids": (),
        "token_ids": (0, *ids),
        "loss_mask": (False, *(True for _ in ids)),
        "behavior_logprobs": None,
        "num_allowed": None,
        "teacher": None,
        "advantages": None,
        "pair": pair,
        "preferred": preferred,
    }
    return TrainingSample(**values | changes)


def run(
    recipe: Recipe,
    answers: Sequence[Answer],
    *,
    policy: Tensor = POLICY,
    cuts: Sequence[int] = (),
    **streams: Tensor,
) -> tuple[float, Tensor, dict[str, float]]:
    """Loss, gradient [N, 3] in the logits and the step's shared numbers; sequences before each of `cuts` are a micro
    batch of their own."""
    samples = [sample(answer) for answer in answers]
    ids = torch.tensor([i for item in samples for i in item.token_ids[1:]])
    owner = torch.tensor([n for n, item in enumerate(samples) for _ in item.token_ids[1:]])
    hidden = policy.log().expand(len(ids), 3).clone().requires_grad_()
    eye = torch.eye(3, dtype=torch.float64)
    ends = [0, *cuts, len(samples)]
    parts = []
    for start, end in itertools.pairwise(ends):
        slots = ((owner >= start) & (owner < end)).nonzero().flatten()
        batch = LossBatch(
            hidden=hidden[slots],
            head=eye,
            token_ids=ids[slots],
            sequence=owner[slots],
            ref_hidden=REFERENCE.log().expand(len(slots), 3),
            ref_head=eye,
            **{name: stream[slots] for name, stream in streams.items()},
        )
        parts.append((batch, slots))
    denominators = count_tokens(recipe, samples)
    whole = whole_batch(recipe, parts, samples, denominators)
    loss = torch.zeros((), dtype=torch.float64)
    for batch, slots in parts:
        chosen = {name: stream[slots] for name, stream in whole.streams().items()}
        loss = loss + objective(recipe, replace(batch, **chosen), whole.denominators).loss
    (gradient,) = torch.autograd.grad(loss, hidden)
    return float(loss.detach()), gradient, dict(whole.shared)


def score(token: int) -> list[float]:
    """∇ log π(token) in the logits."""
    return [float(v == token) - P[v] for v in range(3)]


def expected(answers: Sequence[Answer], coefs: Sequence[float]) -> Tensor:
    """Σ of c_i·∇ log π(y_t) over the ids of answer i."""
    rows = [
        [coef * one for one in score(token)]
        for (ids, _, _), coef in zip(answers, coefs, strict=True)
        for token in ids
    ]
    return torch.tensor(rows, dtype=torch.float64)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_dpo_is_minus_the_log_sigmoid_of_the_margin() -> None:
    loss, gradient, shared = run(recipe_of({"name": "dpo", "beta": 0.5}), PAIR)

    coef = -0.5 * (1 - sigmoid(0.5 * MARGIN))
    assert math.isclose(MARGIN, math.log(1.5))
    assert loss == pytest.approx(-math.log(sigmoid(0.5 * MARGIN)), abs=1e-9)
    torch.testing.assert_close(gradient, expected(PAIR, [coef, -coef]), atol=1e-9, rtol=0)
    assert shared == {"num_comparisons": 1.0, "preferred_share": 1.0}


def test_at_version_0_every_pair_costs_ln_2() -> None:
    loss, _, shared = run(recipe_of("dpo"), PAIR, policy=REFERENCE)

    assert loss == pytest.approx(math.log(2), abs=1e-9)
    assert shared["preferred_share"] == 0.0


def test_f_dpo_with_reverse_kl_is_dpo() -> None:
    first = run(recipe_of({"name": "dpo", "beta": 0.3}), PAIR)
    second = run(recipe_of({"name": "f_dpo", "beta": 0.3, "divergence": "rkl"}), PAIR)

    assert first[0] == pytest.approx(second[0], abs=1e-12)
    torch.testing.assert_close(first[1], second[1], atol=1e-12, rtol=0)


U = (1.25, 5 / 6)
"""π/π_0 of the two answers of PAIR: (.3/.2)(.5/.6) and (.5/.6)(.2/.2)."""


@pytest.mark.parametrize(
    ("option", "slope", "second"),
    [
        # f'(u), and u·f''(u) = df'/dΔ
        ({"divergence": "jsd"}, lambda u: math.log(u / (1 + u)), lambda u: 1 / (1 + u)),
        ({"divergence": "fkl"}, lambda u: -1 / u, lambda u: 1 / u),
        ({"divergence": "alpha", "alpha": 0.5}, lambda u: (1 - u**-0.5) / 0.5, lambda u: u**-0.5),
    ],
)
def test_f_dpo_compares_slopes_of_its_divergence(option: dict[str, Any], slope: Any, second: Any) -> None:
    loss, gradient, _ = run(recipe_of({"name": "f_dpo", "beta": 0.7, **option}), PAIR)

    margin = 0.7 * (slope(U[0]) - slope(U[1]))
    coef = -0.7 * (1 - sigmoid(margin))
    assert loss == pytest.approx(-math.log(sigmoid(margin)), abs=1e-9)
    torch.testing.assert_close(
        gradient, expected(PAIR, [coef * second(U[0]), -coef * second(U[1])]), atol=1e-9, rtol=0
    )


def test_alpha_goes_from_reverse_to_forward_kl() -> None:
    def loss(option: dict[str, Any]) -> float:
        return run(recipe_of({"name": "f_dpo", "beta": 1.0, **option}), PAIR)[0]

    near = [loss({"divergence": "alpha", "alpha": alpha}) for alpha in (1e-6, 1 - 1e-6)]
    assert near == pytest.approx([loss({"divergence": "rkl"}), loss({"divergence": "fkl"})], abs=1e-5)


def test_alpha_belongs_to_one_divergence_alone() -> None:
    for mix in ({"name": "f_dpo", "divergence": "alpha"}, {"name": "f_dpo", "alpha": 0.5}):
        with pytest.raises(ConfigError, match="alpha is set with divergence = 'alpha', and only then"):
            recipe_of(mix)


def test_adpo_without_noise_is_dpo_with_the_inverse_temperature() -> None:
    first = run(recipe_of({"name": "dpo", "beta": 0.25}), PAIR)
    second = run(recipe_of({"name": "adpo", "tau": 4.0, "noise": 0.0}), PAIR)

    assert first[0] == pytest.approx(second[0], abs=1e-12)
    torch.testing.assert_close(first[1], second[1], atol=1e-12, rtol=0)


def test_adpo_is_the_divergence_of_the_softmax_of_anchored_scores_from_its_target() -> None:
    loss, gradient, _ = run(recipe_of({"name": "adpo", "tau": 2.0, "noise": 0.3}), PAIR)

    p = sigmoid(MARGIN / 2.0)
    value = 0.7 * math.log(0.7 / p) + 0.3 * math.log(0.3 / (1 - p))
    coef = (p - 0.7) / 2.0
    assert loss == pytest.approx(value, abs=1e-9)
    torch.testing.assert_close(gradient, expected(PAIR, [coef, -coef]), atol=1e-9, rtol=0)


def test_adpo_rests_where_the_margin_is_as_sure_as_the_preference() -> None:
    """Δ⁺ − Δ⁻ = τ·ln((1 − noise)/noise); with half of all preferences mistaken, at version 0."""
    noise = 0.4
    tau = MARGIN / math.log((1 - noise) / noise)
    for policy, option in (
        (POLICY, {"tau": tau, "noise": noise}),
        (REFERENCE, {"tau": 1.0, "noise": 0.5}),
    ):
        loss, gradient, _ = run(recipe_of({"name": "adpo", **option}), PAIR, policy=policy)
        assert loss == pytest.approx(0.0, abs=1e-9)
        assert float(gradient.abs().max()) < 1e-9


THREE: list[Answer] = [((1,), "p", True), ((0,), "p", False), ((2,), "p", False)]
DELTAS = (math.log(1.5), math.log(0.5 / 0.6), 0.0)


def test_one_answer_preferred_to_two_is_compared_with_each_and_counts_as_one_pair() -> None:
    loss, gradient, shared = run(recipe_of({"name": "dpo", "beta": 1.0}), THREE)

    margins = [DELTAS[0] - DELTAS[1], DELTAS[0] - DELTAS[2]]
    slopes = [0.5 * (1 - sigmoid(margin)) for margin in margins]
    assert loss == pytest.approx(-0.5 * sum(math.log(sigmoid(margin)) for margin in margins), abs=1e-9)
    torch.testing.assert_close(gradient, expected(THREE, [-sum(slopes), *slopes]), atol=1e-9, rtol=0)
    assert shared["num_comparisons"] == 2.0


def test_adpo_takes_a_list_of_answers() -> None:
    loss, gradient, _ = run(recipe_of({"name": "adpo", "tau": 1.0, "noise": 0.2}), THREE)

    weights = [math.exp(delta) for delta in DELTAS]
    p = [weight / sum(weights) for weight in weights]
    t = [0.8, 0.1, 0.1]
    value = sum(a * math.log(a / b) for a, b in zip(t, p, strict=True))
    assert loss == pytest.approx(value, abs=1e-9)
    coefs = [b - a for a, b in zip(t, p, strict=True)]
    torch.testing.assert_close(gradient, expected(THREE, coefs), atol=1e-9, rtol=0)


def test_redi_weighs_the_mean_log_prob_of_rejected_answers_against_that_of_preferred_ones() -> None:
    answers: list[Answer] = [
        ((1, 0), "p", True),
        ((0,), "p", False),
        ((2, 2, 1), "q", True),
        ((1,), "q", False),
    ]
    loss, gradient, _ = run(recipe_of({"name": "redi", "rejected": 0.8}), answers)

    means = [sum(math.log(P[i]) for i in ids) / len(ids) for ids, _, _ in answers]
    assert loss == pytest.approx(-(means[0] + means[2]) / 2 + 0.8 * (means[1] + means[3]) / 2, abs=1e-9)
    coefs = [-0.5 / 2, 0.4, -0.5 / 3, 0.4]
    torch.testing.assert_close(gradient, expected(answers, coefs), atol=1e-9, rtol=0)


def test_redi_learns_a_preferred_answer_that_stands_alone() -> None:
    loss, gradient, _ = run(recipe_of({"name": "redi", "rejected": 0.8}), [((1,), None, True)])

    assert loss == pytest.approx(-math.log(0.3), abs=1e-9)
    torch.testing.assert_close(gradient, expected([((1,), None, True)], [-1.0]), atol=1e-9, rtol=0)


def test_half_a_pair_trains_nothing_and_the_others_keep_their_share() -> None:
    recipe = recipe_of({"name": "dpo", "beta": 0.5})
    answers: list[Answer] = [*PAIR, ((2,), "q", True)]
    loss, gradient, _ = run(recipe, answers)
    alone, own, _ = run(recipe, PAIR)

    assert loss == pytest.approx(alone / 2, abs=1e-12)
    torch.testing.assert_close(gradient[:4], own / 2, atol=1e-12, rtol=0)
    assert float(gradient[4].abs().max()) == 0.0


def test_a_forced_id_is_no_part_of_the_comparison() -> None:
    """Law 7: an id that nobody chose says nothing about a preference."""
    recipe = recipe_of({"name": "dpo", "beta": 0.5})
    forced = torch.tensor([3, 3, 3, 1])
    loss, gradient, _ = run(recipe, PAIR, num_allowed=forced)
    shorter, own, _ = run(recipe, [PAIR[0], ((0,), "p", False)])

    assert loss == pytest.approx(shorter, abs=1e-12)
    torch.testing.assert_close(gradient[:3], own, atol=1e-12, rtol=0)
    assert float(gradient[3].abs().max()) == 0.0


@pytest.mark.parametrize(
    "mix",
    [{"name": "dpo"}, {"name": "f_dpo"}, {"name": "adpo", "noise": 0.1}, {"name": "redi"}],
    ids=lambda mix: str(mix["name"]),
)
def test_the_sides_of_a_pair_may_stand_in_different_micro_batches(mix: dict[str, Any]) -> None:
    """I30."""
    answers: list[Answer] = [((1, 0), "p", True), ((2,), "q", False), ((0, 2), "p", False), ((1,), "q", True)]
    whole, cut = run(recipe_of(mix), answers), run(recipe_of(mix), answers, cuts=(1, 2, 3))

    assert whole[0] == pytest.approx(cut[0], abs=1e-12)
    torch.testing.assert_close(whole[1], cut[1], atol=1e-12, rtol=0)
    assert float(whole[1].abs().min(dim=1).values.max()) > 0.0


def test_a_pair_has_one_preferred_answer() -> None:
    with pytest.raises(ValueError, match="one preferred answer, not 2"):
        run(recipe_of("dpo"), [((1,), "p", True), ((0,), "p", True)])
