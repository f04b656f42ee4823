"""Presets of reinforcement on fixture F, each against its paper's formula written out anew.

Identities of the algebra: I3 and I21 (kl_ref), I25 (r2vpo), I26 (dph_rl), I28 (grpo), I29, I31 (dph_rl).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from typing import Any

import pytest
import torch
from presets_cases import MU, PI, PI_0, OnF, Sampled, on_f
from torch import Tensor

from agentrl.errors import ConfigError
from agentrl.recipes.recipe import load_recipe, read_recipe

FOUR = (
    Sampled(ids=(1, 0), reward=1.0, group="g"),
    Sampled(ids=(0, 2), reward=0.0, group="g"),
    Sampled(ids=(1, 2, 2), reward=0.0, group="g"),
    Sampled(ids=(0,), reward=1.0, group="g"),
)
"""Eight tokens, lengths 2, 2, 3, 1; ratios to the sampler 1.25, .75 and 1 by id."""
UP = 1 / (1 + 2e-6)
"""(1 − ½) / (½ + 1e-6)."""
H = -sum(p * log(p) for p in PI)


@dataclass(frozen=True)
class Frame:
    """What a formula is written with, [T] over all tokens."""

    policy: Tensor
    """[T, 3] log π, live."""
    live: Tensor
    """log π(y)."""
    old: Tensor
    """log μ(y)."""
    ref: Tensor
    """[T, 3] log π_0."""
    owner: Tensor
    rho: Tensor

    def per_token(self, values: Sequence[float]) -> Tensor:
        """One number a sequence, at each of its tokens."""
        return torch.tensor(values, dtype=torch.float64)[self.owner]

    def clip(self, advantages: Tensor, low: float = 0.8, high: float = 1.2) -> Tensor:
        return -torch.minimum(self.rho * advantages, self.rho.clamp(low, high) * advantages)

    def seq_mean(self, values: Tensor) -> Tensor:
        return torch.stack([values[self.owner == i].mean() for i in self.owner.unique()]).mean()

    def totals(self, values: Tensor) -> Tensor:
        return torch.stack([values[self.owner == i].sum() for i in self.owner.unique()])

    def kl(self) -> Tensor:
        return (self.policy.exp() * (self.policy - self.ref)).sum(-1)

    def entropy(self) -> Tensor:
        return -(self.policy.exp() * self.policy).sum(-1)


def ran(name: str, sequences: Sequence[Sampled] = FOUR, **overrides: Any) -> OnF:
    changes = {key.replace("__", "."): value for key, value in overrides.items()}
    return on_f(load_recipe(name, {"limits.max_logprob_gap": 9.0} | changes), sequences)


def written(formula: Callable[[Frame], Tensor], sequences: Sequence[Sampled] = FOUR) -> tuple[float, Tensor]:
    ids = torch.tensor([i for item in sequences for i in item.ids])
    logits = torch.tensor(PI, dtype=torch.float64).log().expand(ids.numel(), 3).clone().requires_grad_()
    policy = logits.log_softmax(-1)
    live = policy[torch.arange(ids.numel()), ids]
    old = torch.tensor(MU, dtype=torch.float64).log()[ids]
    frame = Frame(
        policy=policy,
        live=live,
        old=old,
        ref=torch.tensor(PI_0, dtype=torch.float64).log().expand_as(policy),
        owner=torch.tensor([index for index, item in enumerate(sequences) for _ in item.ids]),
        rho=(live - old).exp(),
    )
    loss = formula(frame)
    (gradient,) = torch.autograd.grad(loss, logits)
    return loss.item(), gradient


def agree(
    got: OnF, formula: Callable[[Frame], Tensor], sequences: Sequence[Sampled] = FOUR, *, value: bool = True
) -> None:
    loss, gradient = written(formula, sequences)
    if value:
        assert got.loss == pytest.approx(loss, abs=1e-9)
    torch.testing.assert_close(got.gradient, gradient, atol=1e-9, rtol=0)


def signs(frame: Frame) -> Tensor:
    return frame.per_token([UP, -UP, -UP, UP])


def grpo(frame: Frame) -> Tensor:
    return frame.clip(signs(frame)).mean()


def test_grpo_is_the_clipped_token_mean() -> None:
    """I28, I29. By hand: ids 0 rise no more (1.25 > 1.2), every other ratio stands."""
    agree(ran("grpo"), grpo)
    by_hand = UP * (-0.75 - 1.2 + 1.25 + 1.0 + 0.8 + 1.0 + 1.0 - 1.2) / 8
    assert ran("grpo").loss == pytest.approx(by_hand, abs=1e-9)
    assert (ran("grpo").gradient[[1, 4, 7]] == 0).all()


def test_dapo_lets_likely_ids_of_good_answers_rise_further() -> None:
    agree(ran("dapo"), lambda f: f.clip(signs(f), 0.8, 1.28).mean())
    assert (ran("dapo").gradient[1].abs() > 0).all()


def test_gtpo_spares_what_both_share_and_taxes_entropy() -> None:
    """(1, ·) begins one good and one bad answer, (0, ·) another pair: 2 on the good side, 0 on the bad."""

    def formula(f: Frame) -> Tensor:
        shared = torch.tensor([2.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 2.0], dtype=torch.float64)
        return f.seq_mean(shared * f.clip(signs(f) - 0.1 * H))

    agree(ran("gtpo", advantage__max_entropy=2.0), formula)


def test_gtpo_leaves_out_answers_above_its_entropy() -> None:
    """H(π) is 1.03 nats, above ln 2: nothing is left, and nothing divides."""
    assert ran("gtpo").loss == 0.0
    assert (ran("gtpo").gradient == 0).all()


def test_bapo_widens_the_clip_until_the_good_side_has_its_share() -> None:
    """Good ρ|A|: .75 + 1.25 + 1.25, bad: 1.25 + 1 + .75 + 1 + 1. The lower bound passes .75 and leaves .75 : 4.25;
    the upper lets 1.25 through at 1.28 and gives 3.25 : 4.25, a share of .43."""
    got = ran("bapo", offpolicy__share=0.4, offpolicy__step=0.04)
    agree(got, lambda f: f.clip(signs(f), 0.9, 1.28).mean())
    assert (got.gradient[4] == 0).all()
    # a share that is there from the first changes nothing
    agree(ran("bapo", offpolicy__share=0.1), lambda f: f.clip(signs(f), 0.6, 1.2).mean())
    # one that cannot be reached ends at the last bounds
    agree(ran("bapo", offpolicy__share=0.9), lambda f: f.clip(signs(f), 0.9, 3.0).mean())


def test_clip_cov_silences_a_draw_among_tokens_of_its_band() -> None:
    wide = {"offpolicy__frac": 0.25, "offpolicy__eps_low": 0.9, "offpolicy__eps_high": 9.0}
    live = torch.tensor([log(PI[i]) for item in FOUR for i in item.ids])
    advantage = torch.tensor([1.0, 1, -1, -1, -1, -1, -1, 1])
    covariance = (advantage - advantage.mean()) * (live - live.mean())
    band = (0.0, float(covariance.max()) + 1)
    inside = set(torch.nonzero(covariance > 0).flatten().tolist())

    got = ran("clip_cov", **wide, offpolicy__between=band)
    silent = set(torch.nonzero((got.gradient == 0).all(-1)).flatten().tolist())

    assert len(silent) == 2
    assert silent < inside
    kept = torch.tensor([float(t not in silent) for t in range(8)], dtype=torch.float64)
    agree(got, lambda f: (-f.rho * signs(f) * kept).mean())
    torch.testing.assert_close(ran("clip_cov", **wide, offpolicy__between=band).gradient, got.gradient)
    agree(ran("clip_cov"), grpo)  # no token of F has a covariance above 1


def test_kl_cov_holds_the_tokens_of_highest_covariance() -> None:
    live = [log(PI[i]) for item in FOUR for i in item.ids]
    advantage = [1, 1, -1, -1, -1, -1, -1, 1]
    mean_a, mean_l = sum(advantage) / 8, sum(live) / 8
    order = sorted(range(8), key=lambda t: -(advantage[t] - mean_a) * (live[t] - mean_l))
    chosen = torch.tensor([float(t in order[:2]) for t in range(8)]).double()

    got = ran("kl_cov", offpolicy__frac=0.25, offpolicy__coef=0.5)
    agree(got, lambda f: (-f.rho * signs(f) + 0.5 * chosen * (f.live - f.old).abs()).mean())


def test_dcpo_rewards_right_answers_by_the_tempered_policy() -> None:
    """H = 1.03 < 1.2, so T = 1.2; x = .1 / (2/4), α = .2/1.2 = 1/6."""

    def formula(f: Frame, temperature: float, alpha: float) -> Tensor:
        tempered = [p ** (1 / temperature) for p in PI]
        goal = [p / sum(tempered) for p in tempered]
        bonus = [goal[i] / MU[i] * item.reward for item in FOUR for i in item.ids]
        return f.clip((1 - alpha) * signs(f) + alpha * torch.tensor(bonus, dtype=torch.float64)).mean()

    agree(ran("dcpo", advantage__entropy=1.2), lambda f: formula(f, 1.2, 1 / 6))
    agree(ran("dcpo", advantage__entropy=0.5), lambda f: formula(f, 0.8, 1 / 6))
    near = (H - 1.0) / 0.5
    agree(ran("dcpo", advantage__entropy=1.0), lambda f: formula(f, 0.8, near / (1 + near)))


def test_dph_rl_rehearses_over_tokens_of_its_own() -> None:
    """I26's f at v = π/π_0; the rehearsed answer takes no reward loss and no part in its denominator (I31)."""
    five = (*FOUR, Sampled(ids=(0, 1), reward=1.0, source="rehearsal"))

    def formula(f: Frame) -> Tensor:
        v = (f.live - f.ref[torch.arange(10), torch.tensor([1, 0, 0, 2, 1, 2, 2, 0, 0, 1])]).exp()[8:]
        js = v * v.log() - (v + 1) * ((v + 1) / 2).log()
        return f.clip(f.per_token([UP, -UP, -UP, UP, 0.0]))[:8].mean() + 0.05 * js.mean()

    agree(ran("dph_rl", five), formula, five)

    def forward(f: Frame) -> Tensor:
        v = (f.live - f.ref[torch.arange(10), torch.tensor([1, 0, 0, 2, 1, 2, 2, 0, 0, 1])]).exp()[8:]
        return f.clip(f.per_token([UP, -UP, -UP, UP, 0.0]))[:8].mean() + 0.05 * (v - 1 - v.log()).mean()

    agree(ran("dph_rl", five, regularisers__0__divergence="fkl"), forward, five)


def discriminated(f: Frame, tau: float, scores: Tensor, weights: tuple[float, float]) -> Tensor:
    s = torch.stack([scores[f.owner == i].mean() for i in range(4)])
    return -(weights[0] * s[0] + weights[1] * s[3] - tau * (s[[1, 2]] / tau).exp().mean().log())


S = (
    (log(0.3) + log(0.5)) / 2,
    (log(0.5) + log(0.2)) / 2,
    (log(0.3) + 2 * log(0.2)) / 3,
    log(0.5),
)
"""Mean log-prob of each of FOUR."""


def linearised(good: tuple[float, float], tau: float) -> float:
    """−Σ₊ w·s + Σ₋ softmax(s/τ)·s: right answers 0 and 3, wrong ones 1 and 2."""
    first, second = exp(S[1] / tau), exp(S[2] / tau)
    bad = (first * S[1] + second * S[2]) / (first + second)
    return -(good[0] * S[0] + good[1] * S[3]) + bad


def test_disco_has_the_gradient_of_its_discriminative_objective() -> None:
    """The value is linearised at the policy. The constraint is slack: mean log μ/π is negative here."""
    halves = (0.5, 0.5)
    assert linearised(halves, 10.0) == pytest.approx(-0.489326, abs=1e-6)
    assert ran("disco").loss == pytest.approx(linearised(halves, 10.0), abs=1e-9)
    agree(ran("disco"), lambda f: discriminated(f, 10.0, f.live, halves), value=False)
    sharp = ran("disco", advantage__tau=0.3, offpolicy__score="ratio")
    agree(sharp, lambda f: discriminated(f, 0.3, f.rho, halves), value=False)


def test_disco_pulls_back_where_the_policy_has_gone_too_far() -> None:
    """K = mean of log μ/π = ¼ log(4/3)·(1 + 1 + 1 + ½) > δ; its pull is sg[β(K−δ)]·K."""
    far = (
        Sampled(ids=(1,), reward=1.0, group="g"),
        Sampled(ids=(1, 1), reward=0.0, group="g"),
        Sampled(ids=(1,), reward=0.0, group="g"),
        Sampled(ids=(1, 2), reward=1.0, group="g"),
    )
    distance = log(4 / 3) * 3.5 / 4

    def formula(f: Frame) -> Tensor:
        pull = 3.0 * (distance - 1e-4)
        return discriminated(f, 10.0, f.live, (0.5, 0.5)) + pull * f.seq_mean(f.old - f.live)

    got = ran("disco", far, offpolicy__beta=3.0)
    agree(got, formula, far, value=False)
    assert got.output.metrics["loss/coupled"] == pytest.approx(3.0 * (distance - 1e-4) * distance, abs=1e-9)


def test_drpo_prefers_the_shorter_of_the_right_answers() -> None:
    """Lengths 2 and 1: weights in the ratio e^{−2/2} : e^{−1/2}."""
    long, short = exp(-1.0), exp(-0.5)
    weights = (long / (long + short), short / (long + short))
    assert linearised(weights, 10.0) == pytest.approx(-0.520604, abs=1e-6)
    assert ran("drpo").loss == pytest.approx(linearised(weights, 10.0), abs=1e-9)
    agree(ran("drpo"), lambda f: discriminated(f, 10.0, f.live, weights), value=False)


def test_laser_fits_the_last_log_ratio_of_one_id_to_the_reward() -> None:
    """One right of four: it weighs 4/(2·1), each wrong one 4/(2·3). Read at the positions 1, 3, 6 and 7."""
    one = tuple(Sampled(ids=item.ids, reward=float(i == 0), group="g") for i, item in enumerate(FOUR))
    std = sqrt(0.75 * 0.25) + 1e-6

    def formula(f: Frame) -> Tensor:
        score = 0.1 * (f.policy[:, 1] - f.ref[:, 1])[[1, 3, 6, 7]]
        error = (score - torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)).square()
        mse = (torch.tensor([2.0, 2 / 3, 2 / 3, 2 / 3], dtype=torch.float64) * error).mean()
        return f.clip(f.per_token([0.75 / std, *[-0.25 / std] * 3])).mean() + 0.1 * mse

    agree(ran("laser", one, regularisers__0__token=1), formula, one)


def test_kimi_fits_the_log_ratio_of_whole_answers() -> None:
    """A = ±½ plus a tenth of the length reward: λ = 0, 0, −½ and ½ for lengths 2, 2, 3 and 1."""

    def formula(f: Frame) -> Tensor:
        advantage = torch.tensor([0.5, -0.5, -0.55, 0.55], dtype=torch.float64)
        return ((advantage - 0.1 * f.totals(f.live - f.old)).square() / 0.2).mean()

    agree(ran("kimi_pg"), formula)


def test_r2vpo_charges_the_variance_of_the_ratio() -> None:
    """I25: Σμ(ρ−1)² = .4·.0625 + .4·.0625 = .05 when μ itself has sampled."""
    agree(ran("r2vpo"), lambda f: (-f.rho * signs(f) + (f.rho - 1).square() - 0.01).mean())
    whole = (
        Sampled(ids=(0, 0, 1, 1, 2), reward=0.0, group="g"),
        Sampled(ids=(0, 0, 1, 1, 2), reward=0.0, group="g"),
    )
    assert ran("r2vpo", whole).output.metrics["ratio_variance"] == pytest.approx(0.05, abs=1e-9)
    assert ran("r2vpo", whole).loss == pytest.approx(0.05 - 0.01, abs=1e-9)


def test_d3s_trains_a_fifth_of_the_tokens_at_first() -> None:
    """⌈.2·8⌉ = 2 tokens; on F all scores are equal, so the first two, at weight 4."""
    kept = torch.tensor([4.0, 4.0, *[0.0] * 6], dtype=torch.float64)
    agree(ran("d3s"), lambda f: (kept * f.clip(signs(f))).mean())


def test_spine_keeps_the_entropy_of_its_tokens_within_a_band() -> None:
    kept = torch.tensor([1.0, 1.0, *[0.0] * 6]).double()

    def formula(f: Frame) -> Tensor:
        return (4 * kept * f.clip(signs(f))).mean() + 0.01 * (kept * (1.1 - f.entropy())).mean()

    agree(ran("spine", regularisers__0__low=1.1), formula)
    agree(ran("spine"), lambda f: (4 * kept * f.clip(signs(f))).mean())


def test_rapo_weighs_a_forward_kl_by_the_reward() -> None:
    mean = (2 * exp(1.0) + 2) / 4

    def formula(f: Frame) -> Tensor:
        forward = (f.ref.exp() * (f.ref - f.policy)).sum(-1)
        weight = f.per_token([exp(1.0) / mean, 1 / mean, 1 / mean, exp(1.0) / mean])
        return grpo(f) + 0.5 * (weight * forward).mean()

    agree(ran("rapo", regularisers__0__coef=0.5), formula)


def test_remix_holds_to_version_0_and_to_the_sampler() -> None:
    """I2: ρ·k3 towards the sampler."""

    def formula(f: Frame) -> Tensor:
        k3 = (f.old - f.live).exp() - 1 - (f.old - f.live)
        surrogate = f.clip(f.per_token([1.0, 0.0, 0.0, 1.0]), 0.8, 1.28).mean()
        return surrogate + 0.3 * f.kl().mean() + 0.7 * (f.rho * k3).mean()

    agree(ran("remix", regularisers__0__coef=0.3, regularisers__1__coef=0.7), formula)


def test_prl_charges_each_turn_what_it_strayed() -> None:
    """I21 for whole turns: Σ log π/π_0 is log(.5/.6) for id 0, log(.3/.2) for id 1 and 0 for id 2."""
    zero, one = log(0.5 / 0.6), log(0.3 / 0.2)

    def formula(f: Frame) -> Tensor:
        return f.clip(signs(f) - 0.2 * f.per_token([zero + one, zero, one, zero])).mean()

    agree(ran("prl", advantage__beta=0.2), formula)


def test_fg_expo_weighs_tasks_by_their_distance_from_one_half() -> None:
    """p = ¼ lies one width from ½: weight e^{−½}; before any step the KL has its loosest coefficient."""
    one = tuple(Sampled(ids=item.ids, reward=float(i == 0), group="g") for i, item in enumerate(FOUR))
    std = sqrt(0.75 * 0.25) + 1e-6

    def formula(f: Frame) -> Tensor:
        surrogate = f.clip(f.per_token([0.75 / std, *[-0.25 / std] * 3])).mean()
        return exp(-0.5) * surrogate + 1e-4 * f.kl().mean()

    agree(ran("fg_expo", one), formula, one)


def test_safe_begins_with_its_first_coefficient() -> None:
    agree(ran("safe"), lambda f: grpo(f) + 0.01 * f.kl().mean())


def test_salsa_is_grpo_with_a_kl_to_whatever_stands_for_version_0() -> None:
    agree(ran("salsa"), lambda f: grpo(f) + 0.01 * f.kl().mean())


def test_mdpo_takes_a_kl_to_its_sampler_in_the_place_of_a_clip() -> None:
    def formula(f: Frame) -> Tensor:
        k3 = (f.old - f.live).exp() - 1 - (f.old - f.live)
        return (-f.rho * signs(f) + 0.1 * f.rho * k3).mean()

    agree(ran("mdpo"), formula)


def test_apo_holds_good_answers_of_hard_tasks_and_shortens_wrong_ones() -> None:
    """Half of the group is wrong: weight ½ on the good. Only the longest wrong answer loses, ½·.1."""

    def formula(f: Frame) -> Tensor:
        hard = f.per_token([0.5, 0.0, 0.0, 0.5])
        return f.clip(f.per_token([UP, -UP, -UP - 0.05, UP])).mean() + 0.3 * (hard * f.kl()).mean()

    agree(ran("apo", regularisers__0__coef=0.3), formula)


def test_c3po_divides_by_its_budget_alone() -> None:
    agree(ran("c3po"), lambda f: f.clip(signs(f)).sum() / 16384)


def test_r3_ranks_wrong_answers() -> None:
    """Equal entropies keep their order: rewards 1, .1, 0, 1."""
    rewards = [1.0, 0.1, 0.0, 1.0]
    mean = sum(rewards) / 4
    std = sqrt(sum((r - mean) ** 2 for r in rewards) / 4) + 1e-6

    def formula(f: Frame) -> Tensor:
        return f.clip(f.per_token([(r - mean) / std for r in rewards]), 0.8, 1.28).mean()

    agree(ran("r3"), formula)


def test_chi2_reg_charges_the_second_moment_of_the_ratio_to_version_0() -> None:
    """Σ π²/π_0 − 1 = .25/.6 + .09/.2 + .04/.2 − 1 = .066667."""

    def formula(f: Frame) -> Tensor:
        return grpo(f) + 0.4 * ((2 * f.policy - f.ref).exp().sum(-1) - 1).mean()

    got = ran("chi2_reg", regularisers__0__coef=0.4)
    agree(got, formula)
    assert got.output.metrics["loss/chi2"] == pytest.approx(0.0666667, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("recap", "several objectives"),
        ("papo", "its image masked"),
        ("alp", "a hook in the model"),
        ("rlhs", "a simulation"),
    ],
)
def test_what_is_not_there_is_refused_by_name(name: str, part: str) -> None:
    """Law 9."""
    with pytest.raises(ConfigError, match=f"{name}.*cannot work yet.*{part}"):
        load_recipe(name)
    assert read_recipe(name).summary
