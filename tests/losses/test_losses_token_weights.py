"""Token weights. Identities of the algebra: I12 in part, I15, I16; and the mean of 1 of those that choose."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from agentrl.losses import whole_weights
from agentrl.losses.batch import Denominators
from agentrl.losses.scores import Scores, soft_or
from agentrl.losses.token_weights import TOKEN_WEIGHTS
from agentrl.losses.whole import Members, WholeBatch
from agentrl.recipes.recipe import load_recipe

MASK = torch.tensor([True, True, True, True, False, True, True, True])
SEQUENCE = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1])
SCORES = Scores(
    entropy=torch.tensor([0.1, 0.4, 0.2, 0.3, 9.0, 1.0, 1.0, 0.5]),
    gap=torch.tensor([0.0, 0.9, 0.0, 0.1, 1.0, 0.0, 0.0, 0.0]),
    kl=torch.tensor([0.0, 0.1, 4.0, 0.0, 9.0, 0.3, 0.2, 0.1]),
    fkl=torch.tensor([1.0, 9.0, 2.0, 2.0, 9.0, 0.3, 0.2, 0.1]),
    delta_loss=torch.tensor([-1.0, 0.5, 0.0, 2.0, 9.0, 0.0, 0.1, -0.1]),
    teacher_entropy=torch.tensor([0.1, 0.0, 0.2, 1.0, 9.0, 0.0, 1.0, 2.0]),
    log_u=torch.tensor([1.0, -3.0, 0.0, 0.0, 7.0, 0.0, 0.0, 0.0]),
)
OPTIONS = [
    ("position", {"early": 3.0}),
    ("skip_first", {"n": 2}),
    ("one", {}),
    ("gap", {"floor": 0.05}),
    *(
        ("top_frac", {"frac": frac, "score": s})
        for frac in (0.3, 0.5, 1.0)
        for s in ("entropy", "kl", "soft_or", "q3", "delta_loss")
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


TRUSTS = [("cum_gap", {"gamma": 0.5}), ("sigmoid_entropy", {}), ("sigmoid_gap", {"scale": 1.0})]


@pytest.mark.parametrize(("name", "params"), OPTIONS + TRUSTS)
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


def test_the_scores_of_a_selection_are_what_they_are_called() -> None:
    """q3 of the first sequence: ĥ = (0, 1, 1/3, 2/3), so 1, 0, 4/3, 2/3."""
    assert weigh("top_frac", frac=0.25, score="q3").tolist()[:4] == [0, 0, 4, 0]
    assert weigh("top_frac", frac=0.5, score="q3").tolist()[:4] == [2, 0, 2, 0]
    assert weigh("top_frac", frac=0.5, score="delta_loss").tolist() == [0, 2, 0, 2, 0, 1.5, 1.5, 0]


def test_the_weight_falls_with_the_gap_that_lies_behind() -> None:
    """I16: a = (1, −3, 0, 0), γ = ½; a sequence without any gap stays at 1 + γ, γ = 0 is no weight."""
    weights = weigh("cum_gap", gamma=0.5).tolist()

    assert weights[:4] == pytest.approx([1.5, 1.375, 1.0, 1.0])
    assert weights[4:] == [0.0, 1.5, 1.5, 1.5]
    assert weigh("cum_gap", gamma=0.0).tolist() == weigh("one").tolist()


def test_the_weight_by_the_gap_behind_stays_in_its_bounds_and_never_rises() -> None:
    """I16."""
    log_u = torch.randn(50, generator=torch.Generator().manual_seed(1))
    scores, everywhere = Scores(entropy=log_u.abs(), log_u=log_u), torch.ones(50, dtype=torch.bool)
    weights = TOKEN_WEIGHTS["cum_gap"](scores, everywhere, torch.zeros(50, dtype=torch.long), 1, gamma=0.7)

    assert weights[0].item() == pytest.approx(1.7)
    assert (weights.diff() <= 1e-6).all()
    assert ((weights >= 1.0) & (weights <= 1.7 + 1e-6)).all()


def test_sigmoids_trust_a_surer_or_approving_teacher() -> None:
    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    by_entropy = weigh("sigmoid_entropy").tolist()
    assert by_entropy[:4] == pytest.approx([sigmoid(x) for x in (0.0, 0.4, 0.0, -0.7)])
    by_gap = weigh("sigmoid_gap", scale=2.0).tolist()
    assert by_gap[:4] == pytest.approx([sigmoid(x) for x in (2.0, -6.0, 0.0, 0.0)])
    assert by_entropy[4] == by_gap[4] == 0.0


def test_early_tokens_count_more_on_a_straight_line() -> None:
    """3, 7/3, 5/3, 1 with mean 2."""
    assert weigh("position", early=3.0).tolist() == pytest.approx([1.5, 7 / 6, 5 / 6, 0.5, 0, 1.5, 1.0, 0.5])
    assert weigh("position", early=1.0).tolist() == weigh("one").tolist()


def test_the_first_tokens_may_be_skipped() -> None:
    assert weigh("skip_first", n=2).tolist() == [0, 0, 2, 2, 0, 0, 0, 3]
    assert weigh("skip_first", n=3).tolist() == [0, 0, 0, 4, 0, 0, 0, 0]
    assert weigh("skip_first", n=0).tolist() == weigh("one").tolist()


def whole(**out: list[float]) -> WholeBatch:
    """Six positions of two sequences; the last is trained by reward alone."""
    number = 6
    kd = torch.tensor([True] * 5 + [False])
    given: dict[str, Any] = {
        name: torch.tensor([0.0] * number) for name in ("logprob", "entropy", "teacher_logprob")
    }
    given |= {name: torch.tensor(values) for name, values in out.items()}
    return WholeBatch(
        out=given,
        token_ids=torch.zeros(number, dtype=torch.long),
        sequence=torch.tensor([0, 0, 0, 1, 1, 1]),
        num_sequences=2,
        turn_index=torch.zeros(number, dtype=torch.long),
        kd=kd,
        rl=~kd,
        forced=torch.zeros(number, dtype=torch.bool),
        behavior_logprobs=torch.zeros(number),
        members=Members(
            group=torch.arange(2), reward=torch.zeros(2), pair=torch.full((2,), -1),
            preferred=torch.zeros(2, dtype=torch.bool), episode=torch.arange(2),
        ),
        denominators=Denominators(
            kd_tokens=5, kd_sequences=2, rl_tokens=1, rl_sequences=1, tokens=6, sequences=2, episodes=2
        ),
        advantages=torch.zeros(number),
        kd_scale=torch.ones(number),
        rl_scale=torch.ones(number),
        penalty_scale=torch.ones(number),
    )  # fmt: skip


RECIPE = load_recipe("hint_opsd")


def test_an_unsure_teacher_counts_less_and_the_mean_over_distilled_tokens_is_one() -> None:
    """I12: e^{−βH} of H = 0, ln 2, ln 4, 0, ln 2 at β = 1: 1, ½, ¼, 1, ½ with mean .65; β = 0 is no weight."""
    batch = whole(teacher_entropy=[0.0, math.log(2), math.log(4), 0.0, math.log(2), 50.0])
    scaled = whole_weights.neg_teacher_entropy(batch, RECIPE, beta=1.0).kd_scale

    assert scaled.tolist() == pytest.approx([x / 0.65 for x in (1, 0.5, 0.25, 1, 0.5)] + [1.0])
    assert scaled[:5].mean().item() == pytest.approx(1.0)
    assert whole_weights.neg_teacher_entropy(batch, RECIPE, beta=0.0).kd_scale.tolist() == [1.0] * 6


def test_a_share_of_the_batch_may_leave_out_a_whole_sequence() -> None:
    batch = whole(entropy=[0.1, 0.2, 0.1, 0.9, 0.8, 5.0])
    chosen = whole_weights.batch_top_frac(batch, RECIPE, frac=0.4, score="entropy").kd_scale

    assert chosen.tolist() == [0, 0, 0, 2.5, 2.5, 1]
    assert (
        whole_weights.batch_top_frac(batch, RECIPE, frac=1.0, score="entropy").kd_scale.tolist() == [1.0] * 6
    )


def test_the_scores_of_a_share_of_the_batch_are_scaled_over_the_batch() -> None:
    """I15: ĥ = (0, 0, 0, 1, .5), δ̂ = (.5, 0, 1, 0, .4); soft-or .5, 0, 1, 1, .7. Over sequences it would be another."""
    batch = whole(entropy=[1.0, 1.0, 1.0, 2.0, 1.5, 9.0], kl=[0.5, 0.0, 1.0, 0.0, 0.4, 9.0])
    chosen = whole_weights.batch_top_frac(batch, RECIPE, frac=0.6, score="soft_or").kd_scale

    assert chosen.tolist() == pytest.approx([0, 0, 5 / 3, 5 / 3, 5 / 3, 1])


def test_a_batch_without_distilled_tokens_is_left_as_it_is() -> None:
    batch = whole(teacher_entropy=[0.0] * 6)
    empty = type(batch)(
        **{name: getattr(batch, name) for name in batch.__slots__} | {"kd": torch.zeros(6).bool()}
    )

    assert whole_weights.neg_teacher_entropy(empty, RECIPE, beta=1.0) is empty
    assert whole_weights.batch_top_frac(empty, RECIPE, frac=0.5, score="kl") is empty
