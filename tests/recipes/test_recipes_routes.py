"""Routes, and what combinations of contexts, routes, mixes and corrections are refused. Identities: I12, I14."""

from math import exp, log
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.errors import ConfigError
from agentrl.recipes import axes, rules_routes
from agentrl.recipes.recipe import Recipe, load_recipe
from agentrl.recipes.routes import ROUTES, Case, weights, why_not
from agentrl.recipes.rules import Rule

BASE: dict[str, Any] = {
    "advantage": "raw",
    "mix": "sum",
    "offpolicy": {"name": "ppo", "denominator": "sampler"},
}


def recipe(route: Any, **overrides: Any) -> Recipe:
    """hint_opsd with a reward's loss beside it, in groups of 4."""
    rollout = {"name": "student", "group_size": 4}
    return load_recipe("hint_opsd", BASE | {"rollout": rollout, "route": route} | overrides)


def pair(
    route: Any, *, context: bool = True, reward: float | None = None, group: tuple[float, ...] = ()
) -> tuple[float, float]:
    """(κ, α) of a sample whose reward is its advantage."""
    known = group or (() if reward is None else (reward,))
    case = Case(has_context=context, advantage=reward, reward=reward, group_rewards=known)
    found = weights(recipe(route), case)
    return found.kd, found.rl


def test_the_wrong_with_context_go_to_the_teacher_and_all_others_to_reward() -> None:
    """SRPO: z = (1−c)·m."""
    assert pair("wrong_with_context", reward=0.0) == (1.0, 0.0)
    assert pair("wrong_with_context", reward=0.0, context=False) == (0.0, 1.0)
    assert pair("wrong_with_context", reward=1.0) == (0.0, 1.0)
    assert pair("wrong_with_context", reward=0.5) == (0.0, 1.0)


def test_the_right_are_repeated_and_the_wrong_distilled() -> None:
    """SCOPE."""
    assert pair("correct_ce_wrong_kd", reward=1.0) == (0.0, 1.0)
    assert pair("correct_ce_wrong_kd", reward=0.0, context=False) == (1.0, 0.0)
    assert pair({"name": "correct_ce_wrong_kd", "threshold": 0.0}, reward=0.0) == (0.0, 1.0)


def test_what_was_right_without_a_context_is_held() -> None:
    """The turn's own reward counts: a failed turn of an episode that ended well is not."""
    chosen = load_recipe("hint_opsd", {"route": "context_or_held", "route.weight": 0.25})

    def held(own: float | None, *, context: bool = False) -> tuple[float, bool]:
        found = weights(chosen, Case(has_context=context, reward=1.0, own_reward=own))
        return found.kd, found.held

    assert held(1.0) == held(0.5) == (0.25, True)
    assert held(0.4) == held(None) == (0.0, False)
    assert held(1.0, context=True) == held(None, context=True) == (1.0, False)
    assert why_not(chosen, Case(reward=None)) == why_not(chosen, Case(reward=0.0)) == "no context"


def test_a_weight_of_zero_holds_nothing() -> None:
    none = load_recipe("hint_opsd", {"route": "context_or_held", "route.weight": 0.0, "context.recall": 0.0})
    assert weights(none, Case(own_reward=1.0)) == weights(recipe("has_context"), Case(own_reward=1.0))
    assert not none.holds
    # what has no hint need not be asked for, unless it is held
    assert (
        none.needs,
        load_recipe("hint_opsd", {"route": "context_or_held", "context.recall": 0.0}).needs,
    ) == ("hint", "any")


def test_distillation_may_wait_for_a_reward_or_for_its_absence() -> None:
    """KEPO distils from a reward on, KDRL what is wrong, or groups in which nothing is right."""
    assert pair("reward_at_least", reward=1.0) == (1.0, 1.0)
    assert pair("reward_at_least", reward=0.9) == (0.0, 1.0)
    assert pair("wrong_only", reward=0.0) == (1.0, 1.0)
    assert pair("wrong_only", reward=1.0) == (0.0, 1.0)
    assert pair("no_correct_in_group", reward=0.0, group=(0.0, 1.0)) == (0.0, 1.0)
    assert pair("no_correct_in_group", reward=0.0, group=(0.0, 0.2)) == (1.0, 1.0)


@pytest.mark.parametrize(
    "route",
    [
        "wrong_with_context",
        "correct_ce_wrong_kd",
        "reward_at_least",
        "wrong_only",
        "no_correct_in_group",
        "pass_rate",
        "gauss",
        "reward_softmax",
    ],
)
def test_what_was_not_judged_is_neither_right_nor_wrong(route: str) -> None:
    """Law 6: a route that asks how it went sends it nowhere."""
    assert pair(route, reward=None) == (0.0, 0.0)


@given(
    reward=st.one_of(st.none(), st.floats(0, 1)),
    context=st.booleans(),
    route=st.sampled_from(["wrong_with_context", "correct_ce_wrong_kd"]),
)
def test_routes_to_two_losses_never_give_both(reward: float | None, context: bool, route: str) -> None:
    """I12: they partition the judged samples."""
    kd, rl = pair(route, reward=reward, context=context)
    assert (kd, rl) in {(1.0, 0.0), (0.0, 1.0), (0.0, 0.0)}
    assert ((kd, rl) == (0.0, 0.0)) == (reward is None)


def test_the_weight_of_a_pass_rate_is_zero_at_its_ends_and_largest_between() -> None:
    """I14: p^a·(1−p)^b has its maximum at a/(a+b), .4 for (2, 3)."""
    route = {"name": "pass_rate", "a": 2.0, "b": 3.0}

    def weight(right: int) -> float:
        group = (1.0,) * right + (0.0,) * (10 - right)
        kd, rl = pair(route, reward=1.0, group=group)
        assert kd == rl
        return kd

    found = [weight(right) for right in range(11)]
    assert found[0] == found[10] == 0.0
    assert found.index(max(found)) == 4
    assert found[4] == pytest.approx(0.4**2 * 0.6**3)
    # a broken variant, the exponents exchanged, has its maximum at .6
    assert found[4] != pytest.approx(0.4**3 * 0.6**2)


def test_a_gaussian_pass_rate_is_one_at_its_centre() -> None:
    route = {"name": "gauss", "centre": 0.5, "width": 0.25}
    assert pair(route, reward=1.0, group=(1.0, 0.0)) == (1.0, 1.0)
    assert pair(route, reward=1.0, group=(1.0, 1.0))[0] == pytest.approx(exp(-2.0))
    assert pair(route, reward=0.0, group=(0.0, 0.0, 0.0, 1.0))[0] == pytest.approx(exp(-0.5))


def test_a_softmax_of_rewards_has_mean_one_over_the_group() -> None:
    """Rewards 0 and ln 3 at τ = 1: shares ¼ and ¾."""
    group = (0.0, log(3.0))
    assert pair("reward_softmax", reward=0.0, group=group)[0] == pytest.approx(0.5)
    assert pair("reward_softmax", reward=log(3.0), group=group)[1] == pytest.approx(1.5)
    cold = {"name": "reward_softmax", "tau": 1e-3}
    assert pair(cold, reward=5.0, group=(5.0, -5.0)) == (2.0, 2.0)
    assert pair(cold, reward=-5.0, group=(5.0, -5.0))[0] == pytest.approx(0.0)
    flat = {"name": "reward_softmax", "tau": 1e9}
    assert pair(flat, reward=5.0, group=(5.0, -5.0))[0] == pytest.approx(1.0)


def test_a_list_of_routes_is_their_product() -> None:
    route = ["has_context", "wrong_only", {"name": "pass_rate"}]
    assert pair(route, reward=0.0, group=(0.0, 0.0, 0.0, 1.0)) == (0.1875, 0.1875)
    assert pair(route, reward=1.0, group=(0.0, 0.0, 0.0, 1.0)) == (0.0, 0.1875)
    assert pair(route, reward=0.0, group=(0.0, 0.0, 0.0, 1.0), context=False) == (0.0, 0.1875)


def test_weights_that_need_the_models_own_log_probs_change_nothing_before() -> None:
    assert pair("ppl_softmax", reward=0.0) == pair("all", reward=0.0)
    assert "ppl_softmax" not in ROUTES
    chosen = recipe(["correct_ce_wrong_kd", "ppl_softmax"])
    assert [option.name for option in chosen.whole_batch_options] == ["ppl_softmax"]


def test_a_teacher_that_only_bends_the_reward_teaches_nothing_without_one() -> None:
    """Neither RLSD nor RLAD has a loss of its own for the teacher."""
    for name in ("rlsd", "rlad"):
        chosen = load_recipe(name)
        assert chosen.needs == "reward"
        assert not weights(chosen, Case(has_context=True)).trains
        assert why_not(chosen, Case(has_context=True)) == "no reward"
        found = weights(chosen, Case(has_context=True, advantage=0.5, reward=1.0))
        assert (found.kd, found.rl) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("name", "case", "reason"),
    [
        ("sdpo", Case(reward=1.0), "no context"),
        ("srpo", Case(reward=None), "no context and no reward"),
        ("srpo", Case(has_context=True), "no reward"),
        ("scope", Case(), "no reward"),
        ("paced", Case(has_context=True, reward=1.0, group_rewards=(1.0, 1.0)), "no weight"),
    ],
)
def test_a_sample_that_goes_nowhere_says_why(name: str, case: Case, reason: str) -> None:
    chosen = load_recipe(name)
    assert not weights(chosen, case).trains
    assert why_not(chosen, case) == reason


def test_a_reward_alone_may_be_weighed_by_its_group() -> None:
    """FG-ExPO weighs prompts without any teacher."""
    chosen = load_recipe("grpo", {"route": "gauss"})
    assert weights(chosen, Case(advantage=1.0, reward=1.0, group_rewards=(1.0, 0.0))).rl == 1.0


REFUSALS: dict[Rule, list[tuple[str, dict[str, Any], tuple[str, ...]]]] = {
    rules_routes.siblings_need_groups: [
        ("sdpo", {"rollout": "stream"}, ("context 'sibling_success'", "rollout 'stream'", "'env_feedback'")),
    ],
    rules_routes.an_own_attempt_needs_more_beside_it: [
        (
            "hint_opsd",
            {"context": "own_attempt"},
            ("context 'own_attempt'", "transform 'next_answer'", "'solution'"),
        ),
    ],
    rules_routes.routes_of_groups_need_groups: [
        ("paced", {"rollout": "stream"}, ("route 'pass_rate'", "rollout 'stream'", "group_size = 8")),
        (
            "hint_opsd",
            {"route": "no_correct_in_group"},
            ("route 'no_correct_in_group'", "route = 'wrong_only'"),
        ),
        ("scope", {"rollout": "stream"}, ("route 'ppl_softmax'", "within = 'batch'")),
    ],
    rules_routes.routes_to_two_losses_need_both: [
        ("hint_opsd", {"route": "wrong_with_context"}, ("route 'wrong_with_context'", "mix 'kd'", "'sum'")),
        ("openclaw_rl", {"route": "correct_ce_wrong_kd"}, ("route 'correct_ce_wrong_kd'", "mix 'adv_add'")),
    ],
    rules_routes.what_is_held_is_the_policys_own_and_the_teacher_another: [
        (
            "hint_opsd",
            {"route": "context_or_held", "teacher": "none", "divergence": "ce"},
            ("route 'context_or_held'", "teacher is 'none'", "'has_context'"),
        ),
        (
            "hint_opsd",
            {"route": "context_or_held", "sync": "live"},
            ("route 'context_or_held'", "sync 'live'", "sync = 'fixed'"),
        ),
        (
            "hint_opsd",
            {"route": "context_or_held", "rollout": "replay"},
            ("route 'context_or_held'", "rollout 'replay'", "'stream'"),
        ),
        (
            "hint_opsd",
            {"route": "context_or_held", "transform": "retry"},
            ("route 'context_or_held'", "transform 'retry'", "'none'"),
        ),
        ("rlsd", {"route": "context_or_held"}, ("route 'context_or_held'", "'adv_mult'", "'has_context'")),
    ],
    rules_routes.a_routed_mix_has_a_route_and_one_denominator: [
        ("srpo", {"route": "has_context"}, ("mix 'routed'", "route 'has_context'", "'wrong_with_context'")),
        ("srpo", {"aggregate": "token_mean"}, ("mix 'routed'", "aggregate is 'token_mean'")),
    ],
    rules_routes.a_joint_denominator_joins_two_losses: [
        (
            "sdpo",
            {"aggregate": "routed_token_mean"},
            ("aggregate 'routed_token_mean'", "mix 'kd'", "'token_mean'"),
        ),
    ],
    rules_routes.a_teacher_that_bends_the_advantage_knows_the_sampled_id: [
        ("rlsd", {"estimator": "full"}, ("mix 'adv_mult'", "estimator 'full'", "estimator = 'pg'")),
        ("rlad", {"divergence": "fkl"}, ("offpolicy 'anchor'", "divergence 'fkl'", "divergence = 'rkl'")),
        ("rlad", {"token_weight": "gap"}, ("offpolicy 'anchor'", "token_weight 'gap'", "'one'")),
    ],
    rules_routes.an_anchor_replaces_distillation: [
        ("rlad", {"mix": "sum"}, ("offpolicy 'anchor'", "mix 'sum'", "mix = 'rl'")),
        ("rlad", {"teacher": "none"}, ("offpolicy 'anchor'", "teacher is 'none'", "'self'")),
    ],
    rules_routes.each_loss_has_its_own_correction: [
        ("openclaw_rl_hint", {"offpolicy": "is_clip"}, ("offpolicy 'is_clip'", "estimator 'pg'", "'topk'")),
        ("srpo", {"offpolicy": "is_clip"}, ("offpolicy 'is_clip'", "mix 'routed'", "'split'")),
        (
            "sdpo",
            {
                "offpolicy": {
                    "name": "split",
                    "rl": {"name": "ppo", "denominator": "sampler"},
                    "kd": "is_clip",
                }
            },
            ("offpolicy 'split'", "mix 'kd'", "'is_clip'"),
        ),
    ],
}


@pytest.mark.parametrize(
    ("rule", "name", "overrides", "parts"),
    [(rule, *case) for rule, cases in REFUSALS.items() for case in cases],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_combination_that_cannot_work_is_refused_with_the_remedy(
    rule: Rule, name: str, overrides: dict[str, Any], parts: tuple[str, ...]
) -> None:
    """Law 9: the rule itself refuses, and its message names both axes."""
    with pytest.raises(ConfigError) as caught:
        load_recipe(name, overrides)
    for part in parts:
        assert part in str(caught.value)


def test_every_rule_of_routes_has_a_case_that_it_refuses() -> None:
    assert set(REFUSALS) == set(rules_routes.ROUTE_RULES)


def test_a_list_of_contexts_or_routes_survives_being_written_and_read() -> None:
    chosen = recipe(
        ["has_context", "pass_rate"], context=["own_attempt", {"name": "solution", "position": "tail"}]
    )
    assert chosen.context == axes.SeveralContexts(
        contexts=(axes.OwnAttempt(), axes.Solution(position="tail"))
    )
    assert Recipe.model_validate_json(chosen.model_dump_json()) == chosen
    assert chosen.replaced({"context": "solution"}).context == axes.Solution()


def test_each_loss_of_srpo_has_its_correction_and_both_ask_for_the_samplers_log_probs() -> None:
    chosen = load_recipe("srpo")
    assert [part.name for part in chosen.offpolicy.parts] == ["ppo", "is_clip"]
    assert chosen.pg_denominators == {"sampler"}
    assert load_recipe("sdpo").needs_behavior_logprobs
    assert not load_recipe("sdpo", {"offpolicy": "none"}).needs_behavior_logprobs
    assert load_recipe("rlad").pg_denominators == {"sampler"}
