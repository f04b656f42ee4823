"""Combinations that cannot work are refused when the recipe is loaded, with both axes and the remedy."""

from typing import Any

import pytest
from presets_cases import PPO, refused

from agentrl.recipes import rules, rules_rl, rules_routes, rules_second
from agentrl.recipes.recipe import load_recipe

REFUSALS: dict[rules.Rule, list[tuple[str, dict[str, Any], tuple[str, ...]]]] = {
    rules.rewards_are_used_or_absent: [
        ("grpo", {"advantage": "none"}, ("mix 'rl'", "advantage is 'none'")),
        ("hint_opsd", {"advantage": "raw"}, ("advantage 'raw'", "mix is 'kd'", "mix = 'sum'")),
    ],
    rules.distillation_has_a_teacher: [
        ("hint_opsd", {"teacher": "none"}, ("mix 'kd'", "teacher is 'none'", "'self'"))
    ],
    rules.reward_alone_asks_no_teacher: [
        ("grpo", {"context": "hindsight_hint"}, ("context 'hindsight_hint'", "mix is 'rl'", "'sum'")),
        (
            "grpo",
            {"token_weight": "gap", "teacher": "self"},
            ("token_weight 'gap'", "teacher 'self'", "mix is 'rl'"),
        ),
    ],
    rules.cached_teachers_know_sampled_ids_alone: [
        ("hint_opsd", {"teacher": "cached"}, ("estimator 'full'", "teacher 'cached'", "estimator = 'pg'")),
        ("hint_opsd", {"teacher": "cached", "target": "temper"}, ("target 'temper'", "teacher 'cached'")),
        (
            "hint_opsd",
            {"teacher": "cached", "token_weight": "gap"},
            ("token_weight 'gap'", "teacher 'cached'"),
        ),
        (
            "openclaw_rl_hint",
            {"teacher": "cached", "estimator": {"name": "pg", "baseline": "kl"}},
            ("estimator 'pg'", "baseline", "teacher 'cached'"),
        ),
    ],
    rules.only_a_self_teacher_is_synchronised: [
        ("hint_opsd", {"teacher": "cached", "sync": "ema"}, ("sync 'ema'", "teacher is 'cached'"))
    ],
    rules.hints_are_measured_with_a_teacher_at_hand: [
        (
            "hint_opsd",
            {"context.choose": "lift", "teacher": "cached"},
            ("context.choose", "teacher 'cached'", "choose = 'trusted'"),
        )
    ],
    rules.wishes_are_practised_by_distillation_alone: [
        (
            "openclaw_rl",
            {"context.standing": 4, "context.practised": 8},
            ("context.practised", "mix 'adv_add'", "mix = 'kd'"),
        ),
        (
            "personal",
            {"context": [{"name": "hindsight_hint", "standing": 4, "practised": 8}, "env_feedback"]},
            ("context.practised", "hindsight_hint alone"),
        ),
        ("personal", {"context.standing": 0}, ("context.practised", "context.standing = 4")),
        ("personal", {"rollout": "offline", "route": "all"}, ("context.practised", "rollout = 'stream'")),
        (
            "personal",
            {"teacher": "cached", "estimator": "pg", "target": "q", "token_weight": "one"},
            ("context.practised", "teacher 'cached'", "practised = 0"),
        ),
    ],
    rules.a_live_teacher_without_context_is_the_policy: [
        ("hint_opsd", {"context": "none", "sync": "live"}, ("sync 'live'", "context 'none'", "'ema'"))
    ],
    rules.a_joint_teacher_sees_more_than_the_policy: [
        ("hint_opsd", {"teacher": "joint", "context": "none"}, ("teacher 'joint'", "context 'none'"))
    ],
    rules.a_joint_teacher_is_trained: [
        ("hint_opsd", {"teacher": "joint"}, ("teacher 'joint'", "mix 'kd'", "mix = 'joint'", "sync = 'live'"))
    ],
    rules.routing_by_context_needs_a_context: [
        ("hint_opsd", {"context": "none"}, ("route 'context_or_held'", "context is 'none'", "route = 'all'"))
    ],
    rules.sampled_estimators_have_one_divergence: [
        ("hint_opsd", {"estimator": "iw_k3"}, ("estimator 'iw_k3'", "divergence is 'fkl'", "'rkl'")),
        (
            "hint_opsd",
            {"estimator": "k3", "divergence": "rkl"},
            ("estimator 'k3'", "divergence is 'rkl'", "'fkl'"),
        ),
    ],
    rules.lists_and_hard_tokens_have_their_own_estimator: [
        ("hint_opsd", {"divergence": "rank"}, ("divergence 'rank'", "estimator 'full'", "tail = 'drop'")),
        (
            "hint_opsd",
            {"divergence": "rank", "estimator": "pg", "offpolicy": PPO},
            ("divergence 'rank'", "estimator 'pg'"),
        ),
        (
            "hint_opsd",
            {"divergence": "ce", "estimator": "pg", "offpolicy": PPO, "teacher": "none"},
            ("divergence 'ce'", "estimator 'pg'", "estimator = 'full'"),
        ),
    ],
    rules.hard_tokens_ask_no_teacher: [
        ("hint_opsd", {"divergence": "ce"}, ("teacher 'self'", "divergence is 'ce'", "'fkl'")),
        (
            "hint_opsd",
            {"divergence": "ce", "teacher": "none", "token_weight": "gap"},
            ("token_weight 'gap'", "divergence 'ce'", "'one'"),
        ),
    ],
    rules.lists_are_ordered_once_by_a_teacher: [
        ("grpo", {"regularisers": [{"name": "rank"}]}, ("regulariser 'rank'", "mix is 'rl'", "teacher")),
        ("hint_opsd", {"regularisers": [{"name": "rank"}] * 2}, ("'rank' twice", "keep one")),
    ],
    rules.baselines_and_credit_belong_to_their_divergence: [
        (
            "hint_opsd",
            {"estimator": {"name": "pg", "baseline": "kl"}, "offpolicy": PPO},
            ("estimator 'pg'", "baseline 'kl'", "divergence is 'fkl'", "'rkl'"),
        ),
        (
            "openclaw_rl_hint",
            {"estimator": {"name": "pg", "baseline": "kl_topk", "single_step": True}},
            ("baseline 'kl_topk'", "single_step"),
        ),
        ("openclaw_rl_hint", {"estimator": {"name": "pg", "length_norm": True}}, ("length_norm", "gamma")),
        (
            "openclaw_rl",
            {"estimator": {"name": "pg", "single_step": True}},
            ("estimator 'pg'", "single_step", "mix 'adv_add'", "mix = 'sum'"),
        ),
    ],
    rules.added_advantages_are_sampled: [
        ("hint_opsd", {"mix": "adv_add", "advantage": "raw"}, ("mix 'adv_add'", "estimator 'full'", "'pg'")),
        (
            "hint_opsd",
            {
                "mix": "adv_add",
                "advantage": "raw",
                "estimator": "pg",
                "offpolicy": PPO,
                "token_weight": "gap",
            },
            ("token_weight 'gap'", "mix 'adv_add'"),
        ),
    ],
    rules.corrections_correct_something: [
        ("hint_opsd", {"offpolicy": PPO}, ("offpolicy 'ppo'", "estimator 'full'", "offpolicy = 'none'"))
    ],
    rules.off_policy_is_corrected_or_refused: [
        ("hint_opsd", {"estimator": "pg"}, ("offpolicy 'none'", "limits.max_version_lag = 0", "'sampler'")),
        ("grpo", {"offpolicy": {"name": "ppo", "denominator": "trainer"}}, ("offpolicy 'ppo'", "limits")),
        ("hint_opsd", {"divergence": "rkl", "estimator": "k2"}, ("estimator 'k2'", "limits", "'iw_k3'")),
    ],
    rules.pairs_are_found_turn_by_turn: [
        ("dpo", {"rollout": "student"}, ("mix 'dpo'", "rollout 'student'", "rollout = 'stream'")),
        (
            "dpo",
            {"transform": "drop_constant"},
            ("transform 'drop_constant'", "mix 'dpo'", "transform = 'none'"),
        ),
    ],
    rules.a_step_has_room_for_what_comes_beside_it: [
        (
            "dpo",
            {"rollout": {"name": "mixed"}, "batch.turns_per_step": 1},
            ("rollout 'mixed'", "batch.turns_per_step"),
        )
    ],
    rules.texts_that_nobody_sampled_take_no_ratio: [
        ("openclaw_rl_binary", {"rollout": "offline"}, ("mix 'rl'", "rollout 'offline'", "mix = 'kd'")),
        (
            "hint_opsd",
            {"rollout": "mixed", "divergence": "rkl", "estimator": "iw_k3", "route": "all"},
            ("estimator 'iw_k3'", "rollout 'mixed'", "'full'"),
        ),
        (
            "hint_opsd",
            {"rollout": "mixed", "route": "has_context"},
            ("route 'has_context'", "rollout 'mixed'", "route = 'all'"),
        ),
    ],
    rules.replayed_answers_are_corrected_for: [
        (
            "openclaw_rl_binary",
            {
                "rollout": "replay",
                "offpolicy": "none",
                "limits.max_version_lag": 0,
            },
            ("rollout 'replay'", "offpolicy 'none'", "'sampler'"),
        ),
        ("dpo", {"rollout": "replay"}, ("rollout 'replay'", "mix 'dpo'", "batch.uses_per_turn = 2")),
    ],
}


@pytest.mark.parametrize(
    ("rule", "name", "overrides", "parts"),
    [(rule, *case) for rule, cases in REFUSALS.items() for case in cases],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_a_recipe_cannot_do_it_refuses_with_the_remedy(
    rule: rules.Rule, name: str, overrides: dict[str, Any], parts: tuple[str, ...]
) -> None:
    """Law 9: the message names both axes."""
    message = refused(name, overrides)
    assert f"recipe {name!r} cannot work" in message
    for part in parts:
        assert part in message


def test_every_rule_has_a_case_that_it_refuses() -> None:
    elsewhere = (*rules_routes.ROUTE_RULES, *rules_second.SECOND_RULES, *rules_rl.REWARD_RULES)
    assert set(REFUSALS) == set(rules.RULES) - set(elsewhere)


def test_strictly_on_policy_recipes_need_no_correction() -> None:
    strict = {"limits.max_version_lag": 0, "batch.uses_per_turn": 1, "batch.steps_per_version": 1}
    assert load_recipe("hint_opsd", {"estimator": "pg", **strict}).pg_denominators == frozenset()
    assert load_recipe(
        "grpo", {"offpolicy": {"name": "ppo", "denominator": "trainer"}, **strict}
    ).pg_denominators == {"trainer"}
