from __future__ import annotations

import math
import random

import pytest
import torch

from agentrl.engine.sampling import draw
from agentrl.types import Sampling

LOGITS = torch.log(torch.tensor([[0.5, 0.2, 0.2, 0.1]]))


def sampled(uniform: float, logits: torch.Tensor = LOGITS, **settings: object):
    return draw(logits, [Sampling(**settings)], [uniform])  # type: ignore[arg-type]


def test_an_id_is_read_off_the_cumulated_distribution() -> None:
    assert [sampled(u).token_ids[0] for u in (0.0, 0.49, 0.51, 0.69, 0.71, 0.91, 0.999999)] == [
        0,
        0,
        1,
        1,
        2,
        3,
        3,
    ]


def test_without_filters_both_logprobs_agree_and_the_support_is_the_vocabulary() -> None:
    draws = sampled(0.6)

    assert draws.logprobs[0] == draws.raw_logprobs[0] == pytest.approx(math.log(0.2), abs=1e-6)
    assert draws.num_allowed == [4]


def test_temperature_changes_the_logprob_and_leaves_the_raw_one() -> None:
    draws = sampled(0.0, temperature=0.5)

    assert draws.logprobs[0] == pytest.approx(math.log(0.25 / 0.34), abs=1e-6)
    assert draws.raw_logprobs[0] == pytest.approx(math.log(0.5), abs=1e-6)


def test_temperature_zero_is_greedy_with_a_support_of_one() -> None:
    draws = sampled(0.99, temperature=0.0)

    assert (draws.token_ids, draws.logprobs, draws.num_allowed) == ([0], [0.0], [1])
    assert draws.raw_logprobs[0] == pytest.approx(math.log(0.5), abs=1e-6)


def test_top_k_keeps_exactly_k_ids_even_where_two_tie() -> None:
    draws = [sampled(u / 100, top_k=2) for u in range(100)]

    assert {d.num_allowed[0] for d in draws} == {2}
    assert len({d.token_ids[0] for d in draws}) == 2
    assert draws[0].logprobs[0] == pytest.approx(math.log(0.5 / 0.7), abs=1e-6)


def test_top_p_keeps_the_smallest_set_that_reaches_p() -> None:
    assert sampled(0.0, top_p=0.5).num_allowed == [1]
    assert sampled(0.0, top_p=0.51).num_allowed == [2]
    assert sampled(0.0, top_p=0.69).num_allowed == [2]
    assert sampled(0.0, top_p=0.95).num_allowed == [4]
    assert sampled(0.0, top_p=0.69).logprobs[0] == pytest.approx(math.log(0.5 / 0.7), abs=1e-6)


def test_top_p_always_keeps_the_likeliest_id() -> None:
    draws = sampled(0.7, top_p=1e-6)

    assert (draws.token_ids, draws.num_allowed, draws.logprobs) == ([0], [1], [0.0])


def test_top_p_is_measured_on_what_top_k_left() -> None:
    # Of {.5, .2, .2} the first holds 5/9 = .556 of the mass: enough for .55, though not of the whole vocabulary.
    assert sampled(0.0, top_k=3, top_p=0.55).num_allowed == [1]
    assert sampled(0.0, top_k=3, top_p=0.56).num_allowed == [2]


def test_top_p_on_a_flat_distribution_looks_beyond_the_first_candidates() -> None:
    flat = torch.zeros(1, 4000)

    assert sampled(0.5, flat, top_p=0.75).num_allowed[0] == pytest.approx(3000, abs=2)


def test_filters_with_few_candidates_agree_with_the_full_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = 8 * torch.randn(6, 300, generator=torch.Generator().manual_seed(1))
    requests = [Sampling(top_p=0.8), Sampling(top_k=5), Sampling(top_k=290, top_p=0.9, temperature=0.7)] * 2
    uniforms = [random.Random(3).random() for _ in requests]
    full = draw(logits, requests, uniforms)

    monkeypatch.setattr("agentrl.engine.sampling.FIRST_CANDIDATES", 64)

    few = draw(logits, requests, uniforms)
    assert few.token_ids == full.token_ids
    assert few.num_allowed == full.num_allowed
    assert few.logprobs == pytest.approx(full.logprobs, abs=1e-5)


def test_an_id_without_probability_is_never_drawn() -> None:
    logits = torch.tensor([[-math.inf, 0.0, -math.inf, 0.0, -math.inf]])

    drawn = {
        sampled(u, logits).token_ids[0] for u in (0.0, 0.25, 0.4999999999, 0.5, 0.75, 1.0 - 2.0**-53, 1.0)
    }
    assert drawn == {1, 3}


def test_draws_follow_the_distribution() -> None:
    count = 20_000
    source = random.Random(5)
    draws = draw(LOGITS.expand(count, -1), [Sampling()] * count, [source.random() for _ in range(count)])

    shares = [draws.token_ids.count(i) / count for i in range(4)]
    assert shares == pytest.approx([0.5, 0.2, 0.2, 0.1], abs=0.012)


def test_a_sequence_does_not_depend_on_the_others_in_the_batch() -> None:
    logits = 4 * torch.randn(4, 50, generator=torch.Generator().manual_seed(2))
    requests = [
        Sampling(),
        Sampling(temperature=0.0),
        Sampling(top_k=3, temperature=1.3),
        Sampling(top_p=0.7),
    ]
    uniforms = [0.3, 0.4, 0.5, 0.6]
    together = draw(logits, requests, uniforms)

    for i, request in enumerate(requests):
        alone = draw(logits[i : i + 1], [request], [uniforms[i]])
        assert alone.token_ids == together.token_ids[i : i + 1]
        assert alone.num_allowed == together.num_allowed[i : i + 1]
        assert alone.logprobs == pytest.approx(together.logprobs[i : i + 1], abs=1e-6)
        assert alone.raw_logprobs == pytest.approx(together.raw_logprobs[i : i + 1], abs=1e-6)


def test_likeliest_ids_come_with_raw_logprobs_for_those_who_asked() -> None:
    both = LOGITS.expand(2, -1)

    top = draw(both, [Sampling(), Sampling(top_logprobs=2, temperature=0.1)], [0.1, 0.1]).top
    assert list(top) == [1]
    assert top[1][0][0] == 0
    assert [value for _, value in top[1]] == pytest.approx([math.log(0.5), math.log(0.2)], abs=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_reported(value: float) -> None:
    logits = torch.stack([LOGITS[0], torch.tensor([0.0, value, 0.0, 0.0])])

    assert draw(logits, [Sampling()] * 2, [0.5, 0.5]).broken == (1,)
