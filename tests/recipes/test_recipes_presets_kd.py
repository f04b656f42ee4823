"""Distillation presets on fixture F: loss and gradient against the papers' formulas, enumerated here.

Identities of the algebra: I1 opd, lightning_opd; I4 vopd; I5 opd_plus; I6 gkd; I8 exopd; I15 tip; I16 iw_opd; I19 taid;
I20 minillm.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence

import pytest
from presets_cases import MU, PI, PI_0, Q, Sampled, check, on_f

from agentrl.errors import ConfigError
from agentrl.recipes.recipe import PRESETS, Recipe, load_recipe

Row = list[float]
IDS = range(3)
LOG_U = [math.log(Q[v] / PI[v]) for v in IDS]
RHO = [PI[v] / MU[v] for v in IDS]


def recipe(name: str) -> Recipe:
    """A preset; one that cannot be loaded for want of a mechanism outside its objective, all the same."""
    return load_recipe(name, {"lacks": ""})


def kl(p: Sequence[float], q: Sequence[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def entropy(p: Sequence[float]) -> float:
    return -sum(a * math.log(a) for a in p)


def normalised(values: Sequence[float]) -> Row:
    return [value / sum(values) for value in values]


def score(token: int, policy: Sequence[float] = PI) -> Row:
    """∇ log π(token) in the logits."""
    return [float(v == token) - policy[v] for v in IDS]


def rkl_slope(p: Sequence[float], q: Sequence[float]) -> Row:
    """∇KL(p‖q) in p's logits: p·(ℓ − KL)."""
    return [a * (math.log(a / b) - kl(p, q)) for a, b in zip(p, q, strict=True)]


def jsd_slope(beta: float) -> Row:
    """(1−β)·E_π[log(π/m)·∇ log π]."""
    m = [beta * Q[v] + (1 - beta) * PI[v] for v in IDS]
    return [(1 - beta) * x for x in rkl_slope(PI, m)]


def jsd(beta: float) -> float:
    m = [beta * Q[v] + (1 - beta) * PI[v] for v in IDS]
    return beta * kl(Q, m) + (1 - beta) * kl(PI, m)


def times(factor: float, row: Sequence[float]) -> Row:
    return [factor * value for value in row]


def plus(*rows: Sequence[float]) -> Row:
    return [sum(values) for values in zip(*rows, strict=True)]


REPLIES = [Sampled(ids=(1, 0)), Sampled(ids=(2,))]
TOKENS = (1, 0, 2)

# Sampled ids: −ρ·A·log π with ρ = π/μ detached, mean over three tokens.

EXTRAPOLATED = normalised([Q[v] ** 1.25 * PI_0[v] ** -0.25 for v in IDS])
ADVANTAGE: dict[str, Row] = {
    "opd": LOG_U,
    "lightning_opd": LOG_U,
    "opd_plus": [0.5 * math.log((1 + Q[v] / PI[v]) / 2) for v in IDS],
    "vopd": [LOG_U[v] + kl(PI, Q) for v in IDS],
    "exopd": [math.log(EXTRAPOLATED[v] / PI[v]) for v in IDS],
}
SLOPE: dict[str, Row] = {
    "opd": rkl_slope(PI, Q),
    "lightning_opd": rkl_slope(PI, Q),
    "opd_plus": jsd_slope(0.5),
    "vopd": rkl_slope(PI, Q),
    "exopd": rkl_slope(PI, EXTRAPOLATED),
}


@pytest.mark.parametrize("name", sorted(ADVANTAGE))
def test_a_policy_gradient_preset_weighs_each_sampled_id_by_its_advantage(name: str) -> None:
    """The goldens of I5, (−.255413, .202733, .111572), and of I8, (.053895, .666061, .280044), are among them."""
    weight = [RHO[v] * ADVANTAGE[name][v] for v in IDS]
    loss = sum(-weight[v] * math.log(PI[v]) for v in TOKENS) / 3

    check(on_f(recipe(name), REPLIES), loss, [times(-weight[v] / 3, score(v)) for v in TOKENS])


@pytest.mark.parametrize("name", sorted(ADVANTAGE))
def test_a_policy_gradient_preset_has_its_divergences_gradient_whoever_sampled(name: str) -> None:
    """I1, I4, I5, I8: Σ μ(y)·∇ over all ids; with the policy in the place of the sampler it would be another sum."""
    each = [on_f(recipe(name), [Sampled(ids=(v,))]).gradient[0].tolist() for v in IDS]

    assert plus(*(times(MU[v], each[v]) for v in IDS)) == pytest.approx(SLOPE[name], abs=1e-9)
    assert plus(*(times(PI[v], each[v]) for v in IDS)) != pytest.approx(SLOPE[name], abs=1e-3)


def test_opd_plus_with_forward_kl_clips_the_log_ratio() -> None:
    """u of id 0 is .2 = e^−1.609; the clip at .5 leaves e^−.5, e^.5, e^.405."""
    made = recipe("opd_plus").replaced({"divergence": "fkl", "estimator.ratio_clip": 0.5})
    weight = [RHO[v] * math.exp(max(-0.5, min(0.5, LOG_U[v]))) for v in IDS]

    check(
        on_f(made, REPLIES),
        sum(-weight[v] * math.log(PI[v]) for v in TOKENS) / 3,
        [times(-weight[v] / 3, score(v)) for v in TOKENS],
    )


def test_iw_opd_counts_less_what_stands_behind_a_gap() -> None:
    """I16: a = (ln 2, ln .2) gives 1.5 and 1 + ½·(1 − ln 2/(ln 2 + ln 5)); the clip at .8 to 1.2 acts nowhere."""
    behind = math.log(2) / (math.log(2) + math.log(5))
    weights = [1.5, 1 + 0.5 * (1 - behind), 1.5]
    weight = [w * RHO[v] * LOG_U[v] for w, v in zip(weights, TOKENS, strict=True)]

    check(
        on_f(recipe("iw_opd"), REPLIES),
        -sum(weight) / 3,
        [times(-w / 3, score(v)) for w, v in zip(weight, TOKENS, strict=True)],
    )


def test_minillm_adds_credit_for_later_tokens_to_each_positions_own_kl() -> None:
    """I20: of ids 2, 1, 0 the first gets (ln 2 + ln .2)/2, the second ln .2 with ρ = .75 clipped to .8, no gradient."""
    credit = (math.log(2) + math.log(0.2)) / 2
    loss = (3 * kl(PI, Q) - credit - 0.8 * math.log(0.2)) / 3
    own = rkl_slope(PI, Q)

    check(
        on_f(recipe("minillm"), [Sampled(ids=(2, 1, 0))]),
        loss,
        [times(1 / 3, plus(own, times(-credit, score(2)))), times(1 / 3, own), times(1 / 3, own)],
    )


# The whole vocabulary


def test_gkd_is_the_jensen_shannon_divergence_of_each_position() -> None:
    """I6: .103295."""
    assert jsd(0.5) == pytest.approx(0.103295, abs=1e-6)
    check(on_f(recipe("gkd"), REPLIES), jsd(0.5), [times(1 / 3, jsd_slope(0.5))] * 3)


def test_taid_begins_four_tenths_of_the_way_to_the_teacher() -> None:
    """I19: the target ∝ π^.6·q^.4; ∇ = π − target."""
    target = normalised([PI[v] ** 0.6 * Q[v] ** 0.4 for v in IDS])
    check(
        on_f(recipe("taid"), REPLIES),
        kl(target, PI),
        [[(PI[v] - target[v]) / 3 for v in IDS]] * 3,
    )
    arrived = on_f(recipe("taid").replaced({"target.t": 1.0}), REPLIES)
    check(arrived, kl(Q, PI), [[(PI[v] - Q[v]) / 3 for v in IDS]] * 3)


POLICIES = [(0.5, 0.3, 0.2), (0.1, 0.6, 0.3), (0.98, 0.01, 0.01), (0.34, 0.33, 0.33), (0.15, 0.55, 0.3)]
"""Of five positions: H 1.0297, .8979, .1119, 1.0985, .9555; KL(π‖q) .5157, 0, 2.1630, .2503, .0130."""


def scaled(values: Row) -> Row:
    return [(value - min(values)) / (max(values) - min(values)) for value in values]


def test_tip_distils_the_half_of_the_batch_that_is_unsure_or_far_from_the_teacher() -> None:
    """I15: three of five by ĥ + δ̂ − ĥδ̂ over the batch, whichever sequence they stand in."""
    h = scaled([entropy(p) for p in POLICIES])
    d = scaled([kl(p, Q) for p in POLICIES])
    both = [a + b - a * b for a, b in zip(h, d, strict=True)]
    chosen = sorted(range(5), key=lambda i: -both[i])[:3]
    assert sorted(chosen) == [0, 2, 3]

    found = on_f(
        recipe("tip").replaced({"limits.max_logprob_gap": 9.0}),
        [Sampled(ids=(0, 0, 0, 0)), Sampled(ids=(1,))],
        policy=POLICIES,
    )

    check(
        found,
        sum(kl(POLICIES[i], Q) for i in chosen) / 3,
        [times(1 / 3, rkl_slope(p, Q)) if i in chosen else [0.0] * 3 for i, p in enumerate(POLICIES)],
    )


def test_adaspecs_objective_keeps_the_tokens_that_are_furthest_behind_the_reference() -> None:
    """ΔL = KL(q‖π) − KL(q‖π_0), two of five: the third's loss is largest, but the reference does no better there."""
    references = [PI_0, PI_0, POLICIES[2], Q, Q]
    behind = [kl(Q, p) - kl(Q, r) for p, r in zip(POLICIES, references, strict=True)]
    chosen = sorted(range(5), key=lambda i: -behind[i])[:2]
    assert chosen == [3, 4]

    found = on_f(
        recipe("adaspec").replaced({"limits.max_logprob_gap": 9.0}),
        [Sampled(ids=(0, 0, 0)), Sampled(ids=(1, 1))],
        policy=POLICIES,
        reference=references,
    )

    check(
        found,
        sum(kl(Q, POLICIES[i]) for i in chosen) / 2,
        [[(p[v] - Q[v]) / 2 for v in IDS] if i in chosen else [0.0] * 3 for i, p in enumerate(POLICIES)],
    )


def test_sdft_skips_the_first_three_tokens_and_turns_without_a_demonstration() -> None:
    """Five tokens: weight 5/2 on the last two. The two tokens without a demonstration stand outside the mean."""
    found = on_f(recipe("sdft"), [Sampled(ids=(0, 1, 2, 1, 0)), Sampled(ids=(1, 1), has_context=False)])

    slope = [(PI[v] - Q[v]) / 2 for v in IDS]
    check(found, kl(Q, PI), [[0.0] * 3] * 3 + [slope] * 2 + [[0.0] * 3] * 2)


RANKED = -math.log(0.3) - math.log(0.2 / 0.7)
"""−log P(1, 2, 0), the teacher's order, under the policy."""
RANKED_SLOPE = [0.5 + 0.5 / 0.7, 0.3 - 1, 0.2 + 0.2 / 0.7 - 1]
"""π − e_1 + π̃ − e_2, π̃ the policy over 0 and 2."""


def test_pld_is_the_likelihood_of_the_teachers_order() -> None:
    """Each place counts by the teacher's probability of its id: .6·(π − e_1) + .3·(π̃ − e_2)."""
    rest = PI[0] + PI[2]
    loss = 0.6 * -math.log(PI[1]) + 0.3 * -math.log(PI[2] / rest)
    slope = plus(times(-0.6, score(1)), times(0.3, [PI[0] / rest, 0.0, PI[2] / rest - 1]))
    check(on_f(recipe("pld"), REPLIES), loss, [times(1 / 3, slope)] * 3)

    plain = recipe("pld").replaced({"divergence.weighted": False})
    check(on_f(plain, REPLIES), RANKED, [times(1 / 3, RANKED_SLOPE)] * 3)


def test_tsd_kd_weighs_by_surer_teachers_decides_where_open_and_ranks_where_it_begins() -> None:
    """Each sequence's entropies are equal, so its first token is both its most open one and its beginning: of two
    tokens it counts twice, of one once."""
    trust = 1 / (1 + math.exp(entropy(Q) - entropy(PI)))
    first = [2.0, 0.0, 1.0]
    loss = trust * jsd(0.9) + (entropy(PI) + 0.1 * RANKED) * sum(first) / 3
    decide = [-PI[v] * (math.log(PI[v]) + entropy(PI)) for v in IDS]

    check(
        on_f(recipe("tsd_kd"), REPLIES),
        loss,
        [
            times(1 / 3, plus(times(trust, jsd_slope(0.9)), times(f, decide), times(0.1 * f, RANKED_SLOPE)))
            for f in first
        ],
    )


def test_the_beginning_of_a_sequence_is_measured_by_its_entropy() -> None:
    """H = .1119, 1.0985, 1.0985: with a prefix of .1 the second token still begins (.1119 lies behind, .2309 is the
    bound), the third does not; the list loss of two of three tokens counts 3/2."""
    policies = [POLICIES[2], POLICIES[3], POLICIES[3]]
    made = recipe("tsd_kd").replaced(
        {"limits.max_logprob_gap": 9.0, "regularisers": [{"name": "rank", "coef": 1.0}]}
    )
    plain = made.replaced({"regularisers": []})
    replies = [Sampled(ids=(0, 0, 0))]
    alone = on_f(made, replies, policy=policies).loss - on_f(plain, replies, policy=policies).loss

    def order(p: Sequence[float]) -> float:
        return -math.log(p[1]) - math.log(p[2] / (p[2] + p[0]))

    assert alone == pytest.approx((order(policies[0]) + order(policies[1])) * 1.5 / 3, abs=1e-9)


def test_curio_sft_imitates_and_keeps_a_softened_distribution() -> None:
    """T = 1 + H/ln 3 of the teacher, here fixture F's q."""
    temperature = 1 + entropy(Q) / math.log(3)
    target = normalised([Q[v] ** (1 / temperature) for v in IDS])
    loss = kl(target, PI) - sum(math.log(PI[v]) for v in TOKENS) / 3

    check(
        on_f(recipe("curio_sft"), REPLIES),
        loss,
        [[(PI[v] - target[v]) / 3 - score(token)[v] / 3 for v in IDS] for token in TOKENS],
    )


def test_cross_entropy_is_the_imitation_of_the_samples_own_ids() -> None:
    """The divergence `ce`, which no preset of this file uses alone."""
    made = recipe("gkd").replaced({"divergence": "ce", "teacher": "none"})
    loss = -sum(math.log(PI[v]) for v in TOKENS) / 3

    check(on_f(made, REPLIES), loss, [times(-1 / 3, score(v)) for v in TOKENS])


def test_k3_on_sampled_ids_follows_forward_kl() -> None:
    """I3 through the objective: (u − 1 − ln u), whose gradient (1 − u)·∇ log π has the mean π − q under the policy."""
    made = recipe("gkd").replaced(
        {"divergence": "fkl", "estimator": "k3", "rollout": "stream", "limits.max_version_lag": 0}
    )
    u = [Q[v] / PI[v] for v in IDS]
    check(
        on_f(made, REPLIES),
        sum(u[v] - 1 - math.log(u[v]) for v in TOKENS) / 3,
        [times((1 - u[v]) / 3, score(v)) for v in TOKENS],
    )
    each = [on_f(made, [Sampled(ids=(v,))]).gradient[0].tolist() for v in IDS]
    mean = plus(*(times(PI[v], each[v]) for v in IDS))
    assert mean == pytest.approx([PI[v] - Q[v] for v in IDS], abs=1e-9)


@pytest.mark.parametrize("name", ["sinkd", "star", "red"])
def test_a_method_that_lacks_a_mechanism_is_refused_by_name_with_it(name: str) -> None:
    lacks = tomllib.loads((PRESETS / f"{name}.toml").read_text())["lacks"]

    with pytest.raises(ConfigError, match="cannot work yet") as caught:
        load_recipe(name)
    assert repr(name) in str(caught.value)
    assert lacks in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"target": {"name": "geo", "a": 0.5}},
        {"target": "extrap"},
        {"token_weight": {"name": "top_frac", "score": "delta_loss"}},
        {"token_weight": {"name": "batch_top_frac", "score": "delta_loss"}},
    ],
)
def test_what_compares_with_version_zero_has_it_scored(changes: dict[str, object]) -> None:
    assert load_recipe("gkd", changes).uses_reference
    assert not load_recipe("gkd").uses_reference


def test_a_preset_with_another_model_leaves_its_folder_to_the_user() -> None:
    for name in ("opd", "gkd", "minillm", "opd_plus", "vopd", "exopd", "tip", "iw_opd", "taid", "tsd_kd"):
        made = load_recipe(name, {"teacher.path": "/models/teacher"})
        assert load_recipe(name).teacher.params["path"] == ""
        assert made.teacher.params["path"] == "/models/teacher"
