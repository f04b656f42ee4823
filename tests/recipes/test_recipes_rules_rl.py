"""Combinations of reward options that are refused, with the remedy: law 9."""

from collections.abc import Callable
from typing import Any

import pytest

from agentrl.errors import ConfigError
from agentrl.recipes import rules_rl
from agentrl.recipes.recipe import load_recipe

LIVE: dict[str, Any] = {"rollout": "stream", "advantage": "raw"}
REFUSALS: dict[Any, list[tuple[str, dict[str, Any], tuple[str, ...]]]] = {
    rules_rl.group_advantages_need_groups: [
        ("grpo", {"rollout": "stream"}, ("advantage 'group'", "rollout 'stream'", "'student'", "'raw'")),
        ("grpo", {"rollout.group_size": 1, "advantage": "loo"}, ("advantage 'loo'", "rollout 'student'")),
        ("disco", {"rollout": "stream"}, ("advantage 'discriminative'", "rollout 'stream'")),
        ("gtpo", {"rollout": "stream", "advantage.base": "raw"}, ()),
        (
            "gtpo",
            {"rollout": "stream", "advantage.base": {"name": "conflict", "base": "raw"}},
            ("'conflict'",),
        ),
    ],
    rules_rl.bounds_of_the_batch_are_the_rewards: [
        (
            "bapo",
            {"mix": "sum", "teacher": "self", "context": "hindsight_hint"},
            ("offpolicy 'adaptive_clip'", "mix 'sum'", "mix = 'rl'"),
        ),
        ("kl_cov", {"route": "gauss"}, ("offpolicy 'kl_cov'", "route 'gauss'", "route = 'all'")),
    ],
    rules_rl.discriminative_scores_are_means_of_sequences: [
        ("disco", {"aggregate": "token_mean"}, ("'discriminative'", "aggregate 'token_mean'", "'seq_mean'")),
        (
            "disco",
            {"offpolicy": {"name": "ppo", "denominator": "sampler"}},
            ("'discriminative'", "offpolicy 'ppo'", "'kl_constraint'"),
        ),
    ],
    rules_rl.a_reference_is_compared_where_it_is_known: [
        ("mdpo", {"regularisers.0.estimator": "k3"}, ("to 'sampler'", "estimator 'k3'", "'iw_k3'")),
        ("mdpo", {"regularisers.0.soup": "/models/b"}, ("with soup", "to is 'sampler'", "'version_0'")),
        (
            "safe",
            {"regularisers.0.estimator": "k2", "regularisers.0.direction": "forward"},
            ("direction 'forward'", "estimator 'k2'", "'full'"),
        ),
    ],
    rules_rl.there_is_one_reference: [
        (
            "tip",
            {
                "token_weight": {"name": "top_frac", "score": "delta_loss", "reference": "/models/a"},
                "regularisers": [{"name": "kl_ref", "coef": 0.1, "soup": "/models/a"}],
            },
            ("regularisers.0.soup and token_weight.reference", "keep one"),
        ),
        (
            "salsa",
            {
                "regularisers": [
                    {"name": "kl_ref", "coef": 0.1, "soup": "/models/a"},
                    {"name": "kl_ref", "coef": 0.1, "soup": "/models/b"},
                ]
            },
            ("regularisers.0.soup and regularisers.1.soup", "keep one"),
        ),
        ("tip", {"token_weight": {"name": "top_frac", "score": "delta_loss", "reference": "/models/a"}}, ()),
        (
            "tip",
            {"token_weight": {"name": "top_frac", "score": "soft_or", "reference": "/models/a"}},
            ("reference is not looked at by score = 'soft_or'", "set score = 'delta_loss'"),
        ),
    ],
    rules_rl.regularisers_of_rewards_have_rewards: [
        ("hint_opsd", {"regularisers": [{"name": "length"}]}, ("regularisers 'length'", "mix 'kd'", "'rl'"))
    ],
    rules_rl.regularisers_of_groups_need_groups: [
        (
            "grpo",
            LIVE | {"regularisers": [{"name": "length"}]},
            ("regularisers 'length'", "always 0", "rollout 'stream'", "group_size = 8", "or remove it"),
        ),
        ("grpo", {"regularisers": [{"name": "length"}]}, ()),
        (
            "grpo",
            LIVE | {"regularisers": [{"name": "kl_ref_weighted", "coef": 0.1, "by": "difficulty"}]},
            ("regularisers 'kl_ref_weighted'", "rollout 'stream'", "regularisers.0.by = 'reward'"),
        ),
        ("grpo", LIVE | {"regularisers": [{"name": "kl_ref_weighted", "coef": 0.1, "by": "reward"}]}, ()),
        (
            "grpo",
            LIVE | {"regularisers": [{"name": "last_token_mse", "token": 0, "share": 0.1}]},
            ("regularisers 'last_token_mse'", "share = 0.1", "rollout 'stream'", "regularisers.0.share = 0"),
        ),
        ("grpo", LIVE | {"regularisers": [{"name": "last_token_mse", "token": 0}]}, ()),
        # LaSeR's share is 0 until step 200: what its schedule will bring is refused as well
        ("laser", LIVE, ("regularisers 'last_token_mse'", "share = 0.1", "no schedule")),
        ("laser", LIVE | {"schedules": {}}, ()),
    ],
    rules_rl.regularisers_of_the_batch_stand_once: [
        (
            "grpo",
            {"regularisers": [{"name": "length"}, {"name": "length"}]},
            ("regularisers 'length'", "twice"),
        )
    ],
    rules_rl.steps_are_compared_where_there_are_steps: [
        (
            "grpo",
            {"advantage": "first_turn"},
            ("advantage 'first_turn'", "transform 'none'", "'second_turn'"),
        ),
        (
            "grpo",
            {"advantage": "step_index_group", "transform": "retry", "context": "hindsight_hint"},
            ("advantage 'step_index_group'", "transform 'retry'", "'none'"),
        ),
        (
            "grpo",
            {"advantage": {"name": "step_index_group", "outcome": 0, "process": 0}},
            ("advantage 'step_index_group'", "outcome = 0", "process = 0"),
        ),
    ],
    rules_rl.what_is_rehearsed_comes_from_somewhere: [
        ("dph_rl", {"rollout": "student"}, ("'js_rehearsal'", "rollout 'student'", "rehearsal = 0.25")),
        ("grpo", {"rollout.rehearsal": 0.5}, ("rollout 'student'", "regularisers", "rehearsal = 0")),
    ],
}


@pytest.mark.parametrize(
    ("rule", "name", "overrides", "parts"),
    [(rule, *case) for rule, cases in REFUSALS.items() for case in cases],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_reward_options_that_cannot_work_together_are_refused_with_the_remedy(
    rule: Callable[..., Any], name: str, overrides: dict[str, Any], parts: tuple[str, ...]
) -> None:
    """Law 9. A case without parts is one that the rule must let pass."""
    if not parts:
        assert load_recipe(name, overrides).name == name
        return
    with pytest.raises(ConfigError) as caught:
        load_recipe(name, overrides)
    for part in parts:
        assert part in str(caught.value)


def test_every_reward_rule_has_a_case_that_it_refuses() -> None:
    assert set(REFUSALS) == set(rules_rl.REWARD_RULES)
