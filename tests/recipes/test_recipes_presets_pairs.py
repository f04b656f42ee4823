"""Presets of pairs on fixture F: losses and gradients enumerated here from π, π_0 and each paper's formula."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from presets_cases import PI, PI_0, Q, Sampled, on_f, on_f_samples, samples_of
from torch import Tensor

from agentrl.errors import ConfigError
from agentrl.recipes.recipe import load_recipe
from agentrl.recipes.schedules import Schedules
from agentrl.types import TrainingSample

PAIRS = (
    Sampled(ids=(1, 0), pair="p", preferred=True),
    Sampled(ids=(0, 2, 2), pair="p"),
    Sampled(ids=(2,), pair="q", preferred=True),
    Sampled(ids=(0,), pair="q"),
)
MARGINS = (
    (math.log(0.3 / 0.2) + math.log(0.5 / 0.6)) - (math.log(0.5 / 0.6) + 2 * math.log(0.2 / 0.2)),
    math.log(0.2 / 0.2) - math.log(0.5 / 0.6),
)
"""Δ⁺ − Δ⁻ of both pairs: ln 1.5 and ln 1.2."""


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def gradient(coefs: Sequence[float]) -> Tensor:
    """Σ over the ids of sequence i of coefs[i]·∇ log π(id), in the logits."""
    rows = [
        [coef * (float(v == token) - PI[v]) for v in range(3)]
        for item, coef in zip(PAIRS, coefs, strict=True)
        for token in item.ids
    ]
    return torch.tensor(rows, dtype=torch.float64)


def delta(ids: Sequence[int]) -> float:
    return sum(math.log(PI[i] / PI_0[i]) for i in ids)


def test_dpo() -> None:
    found = on_f(load_recipe("dpo"), PAIRS)

    assert list(MARGINS) == pytest.approx([math.log(1.5), math.log(1.2)])
    loss = -sum(math.log(sigmoid(0.1 * margin)) for margin in MARGINS) / 2
    coefs = [0.1 * (1 - sigmoid(0.1 * margin)) / 2 for margin in MARGINS]
    assert found.loss == pytest.approx(loss, abs=1e-9)
    torch.testing.assert_close(
        found.gradient, gradient([-coefs[0], coefs[0], -coefs[1], coefs[1]]), atol=1e-9, rtol=0
    )


def test_f_dpo() -> None:
    """f'(u) = ln(2u/(1+u)) of f(u) = u·ln u − (1+u)·ln((1+u)/2)."""
    found = on_f(load_recipe("f_dpo"), PAIRS)

    us = [math.exp(delta(item.ids)) for item in PAIRS]
    slopes = [math.log(2 * u / (1 + u)) for u in us]
    margins = [0.1 * (slopes[0] - slopes[1]), 0.1 * (slopes[2] - slopes[3])]
    loss = -sum(math.log(sigmoid(margin)) for margin in margins) / 2
    # d ln(2u/(1+u)) / dΔ = 1/(1+u)
    coefs = [
        sign * 0.1 * (1 - sigmoid(margins[index // 2])) / 2 / (1 + u)
        for index, (u, sign) in enumerate(zip(us, (-1, 1, -1, 1), strict=True))
    ]
    assert found.loss == pytest.approx(loss, abs=1e-9)
    torch.testing.assert_close(found.gradient, gradient(coefs), atol=1e-9, rtol=0)


def test_adpo() -> None:
    found = on_f(load_recipe("adpo"), PAIRS)

    ps = [sigmoid(margin / 10) for margin in MARGINS]
    loss = sum(0.9 * math.log(0.9 / p) + 0.1 * math.log(0.1 / (1 - p)) for p in ps) / 2
    coefs = [(p - 0.9) / 10 / 2 for p in ps]
    assert found.loss == pytest.approx(loss, abs=1e-9)
    torch.testing.assert_close(
        found.gradient, gradient([coefs[0], -coefs[0], coefs[1], -coefs[1]]), atol=1e-9, rtol=0
    )


def test_hypo_is_dpo_and_the_reverse_kl_to_version_0() -> None:
    """I1 for the KL's gradient: π_v·(ℓ_v − KL)."""
    recipe = load_recipe("hypo")
    plain, found = on_f(load_recipe("dpo"), PAIRS), on_f(recipe, PAIRS)

    logs = [math.log(p / r) for p, r in zip(PI, PI_0, strict=True)]
    kl = sum(p * log for p, log in zip(PI, logs, strict=True))
    assert kl == pytest.approx(0.030478755)
    assert found.loss - plain.loss == pytest.approx(0.01 * kl, abs=1e-9)
    row = [0.01 * p * (log - kl) / 7 for p, log in zip(PI, logs, strict=True)]
    expected = torch.tensor([row] * 7, dtype=torch.float64)
    torch.testing.assert_close(found.gradient - plain.gradient, expected, atol=1e-9, rtol=0)


def test_redi_begins_with_the_preferred_answers_and_then_unlearns_the_rejected_ones() -> None:
    recipe = load_recipe("redi", {"schedules": {}, "mix.rejected": 0.8})
    found = on_f(recipe, PAIRS)

    means = [sum(math.log(PI[i]) for i in item.ids) / len(item.ids) for item in PAIRS]
    loss = -(means[0] + means[2]) / 2 + 0.8 * (means[1] + means[3]) / 2
    assert found.loss == pytest.approx(loss, abs=1e-9)
    torch.testing.assert_close(
        found.gradient, gradient([-1 / 4, 0.8 / 6, -1 / 2, 0.8 / 2]), atol=1e-9, rtol=0
    )
    schedules = Schedules(load_recipe("redi"))
    seen = []
    for _ in range(1001):
        seen.append(schedules.current().mix.params["rejected"])
        schedules.advance({})
    assert (seen[0], seen[999], seen[1000]) == (0.0, 0.0, 0.8)


def test_agent_distill_imitates_each_token_of_the_file() -> None:
    recipe = load_recipe("agent_distill")
    answers = (Sampled(ids=(1, 0), has_context=False), Sampled(ids=(2,), has_context=False))

    found = on_f(recipe, answers)

    assert found.loss == pytest.approx(-(math.log(0.3) + math.log(0.5) + math.log(0.2)) / 3, abs=1e-9)
    rows = [[-(float(v == token) - PI[v]) / 3 for v in range(3)] for token in (1, 0, 2)]
    torch.testing.assert_close(found.gradient, torch.tensor(rows, dtype=torch.float64), atol=1e-9, rtol=0)


def test_a_chain_of_hindsight_is_its_answers_one_by_one() -> None:
    """Two answers, (1, 0) behind the words for a bad one and (2) behind both and the words for a good one: as one
    sequence −log P(1, 0) − log P(2 | what came before); the words between are read and not learnt."""
    answers = (Sampled(ids=(1, 0), has_context=False), Sampled(ids=(2,), has_context=False))

    found = on_f(load_recipe("chain_of_hindsight"), answers, policy=[PI, PI_0, Q])

    chain = -math.log(0.3) - math.log(0.6) - math.log(0.3)
    assert 3 * found.loss == pytest.approx(chain, abs=1e-9)


@pytest.mark.parametrize("name", ["dpo", "f_dpo", "adpo", "hypo"])
def test_a_pair_cannot_tell_how_its_answers_were_sampled(name: str) -> None:
    """No ratio: the sampler's log-probs change nothing but what is reported."""
    recipe = load_recipe(name)
    samples = samples_of(recipe, PAIRS)
    assert recipe.needs_behavior_logprobs is False
    assert recipe.pg_denominators == frozenset()

    first = on_f_samples(recipe, samples)
    second = on_f_samples(recipe, [_other_sampler(sample) for sample in samples])

    assert first.loss == second.loss
    assert torch.equal(first.gradient, second.gradient)


def _other_sampler(sample: TrainingSample) -> TrainingSample:
    assert sample.behavior_logprobs is not None
    return replace(sample, behavior_logprobs=tuple(log - 0.3 for log in sample.behavior_logprobs))


def test_what_the_recipes_of_pairs_ask_for() -> None:
    for name in ("dpo", "f_dpo", "adpo", "hypo", "redi"):
        recipe = load_recipe(name)
        assert (recipe.needs, recipe.uses_kd, recipe.uses_rl, recipe.uses_pairs) == (
            "pair",
            False,
            False,
            True,
        )
        assert recipe.uses_reference is (name != "redi")


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ({"advantage": "raw"}, ("advantage 'raw'", "mix is 'dpo'")),
        ({"teacher": "self", "context": "hindsight_hint"}, ("context 'hindsight_hint'", "mix is 'dpo'")),
        ({"offpolicy": {"name": "ppo", "denominator": "sampler"}}, ("offpolicy 'ppo'", "mix 'dpo'")),
    ],
)
def test_axes_that_a_pair_cannot_use_are_refused(
    overrides: dict[str, object], parts: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe("dpo", overrides)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("name", ["mallowspo", "sparsepo", "pu_rl", "f_dpg"])
def test_a_method_whose_mechanism_is_not_there_is_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigError, match=f"recipe '{name}' cannot work yet, it needs "):
        load_recipe(name)
