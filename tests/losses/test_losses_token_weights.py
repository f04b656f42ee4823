"""Token weights. Identity of the algebra: I15; and the mean of 1 on which micro batches rest."""

import pytest
import torch
from torch import Tensor

from agentrl.losses.token_weights import TOKEN_WEIGHTS, Scores, soft_or

MASK = torch.tensor([True, True, True, True, False, True, True, True])
SEQUENCE = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1])
SCORES = Scores(
    entropy=torch.tensor([0.1, 0.4, 0.2, 0.3, 9.0, 1.0, 1.0, 0.5]),
    gap=torch.tensor([0.0, 0.9, 0.0, 0.1, 1.0, 0.0, 0.0, 0.0]),
    kl=torch.tensor([0.0, 0.1, 4.0, 0.0, 9.0, 0.3, 0.2, 0.1]),
)
OPTIONS = [
    ("one", {}),
    ("gap", {"floor": 0.05}),
    *(
        ("top_frac", {"frac": frac, "score": s})
        for frac in (0.3, 0.5, 1.0)
        for s in ("entropy", "kl", "soft_or")
    ),
]


def weigh(name: str, **params: object) -> Tensor:
    return TOKEN_WEIGHTS[name](SCORES, MASK, SEQUENCE, 2, **params)


@pytest.mark.parametrize(("name", "params"), OPTIONS)
def test_weights_have_mean_one_over_each_sequences_trained_tokens(
    name: str, params: dict[str, object]
) -> None:
    weights = weigh(name, **params)

    assert weights[:4].mean().item() == pytest.approx(1.0, abs=1e-6)
    assert weights[5:].mean().item() == pytest.approx(1.0, abs=1e-6)
    assert weights[4].item() == 0.0


@pytest.mark.parametrize(("name", "params"), OPTIONS)
def test_a_sequence_without_trained_tokens_has_weights_of_zero(name: str, params: dict[str, object]) -> None:
    weights = TOKEN_WEIGHTS[name](SCORES, torch.zeros(8, dtype=torch.bool), SEQUENCE, 2, **params)
    assert weights.tolist() == [0.0] * 8


def test_the_top_fraction_keeps_the_highest_scores_and_the_earlier_of_equals() -> None:
    assert weigh("top_frac", frac=0.5, score="entropy").tolist() == [0, 2, 0, 2, 0, 1.5, 1.5, 0]
    assert weigh("top_frac", frac=0.1, score="entropy").tolist() == [0, 4, 0, 0, 0, 3, 0, 0]
    assert weigh("top_frac", frac=0.1, score="kl").tolist() == [0, 0, 4, 0, 0, 3, 0, 0]


def test_equal_scores_are_kept_from_the_front_however_long_the_sequence() -> None:
    same = Scores(entropy=torch.arange(400) % 2 / 2)
    rows = torch.ones(400, dtype=torch.bool)
    weights = TOKEN_WEIGHTS["top_frac"](
        same, rows, torch.zeros(400, dtype=torch.long), 1, frac=0.25, score="entropy"
    )

    assert weights.nonzero().squeeze(-1).tolist() == list(range(1, 200, 2))


def test_the_whole_fraction_is_no_selection() -> None:
    """I15."""
    assert weigh("top_frac", frac=1.0, score="soft_or").tolist() == weigh("one").tolist()


def test_soft_or_is_between_the_larger_score_and_one() -> None:
    """I15: a constant divergence leaves the entropy alone."""
    generator = torch.Generator().manual_seed(0)
    entropy, kl = torch.rand(20, generator=generator), torch.rand(20, generator=generator)

    def scaled(x: Tensor) -> Tensor:
        return (x - x.min()) / (x.max() - x.min())

    both = soft_or(entropy, kl)
    assert (both >= torch.maximum(scaled(entropy), scaled(kl)) - 1e-6).all()
    assert (both <= 1).all()
    torch.testing.assert_close(soft_or(entropy, torch.full((20,), 0.7)), scaled(entropy))


def test_the_gap_lets_the_tokens_speak_on_which_the_teacher_differs() -> None:
    """Raw weights .05, .905, .05, .145 with mean .2875; where nothing differs all count the same."""
    weights = weigh("gap", floor=0.05).tolist()

    assert weights[:4] == pytest.approx([x / 0.2875 for x in (0.05, 0.905, 0.05, 0.145)])
    assert weights[5:] == pytest.approx([1.0, 1.0, 1.0])
    assert weigh("gap", floor=1.0).tolist() == weigh("one").tolist()
