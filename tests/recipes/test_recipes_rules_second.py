"""What cannot work with a second generation stage, or with a mix that needs one."""

from typing import Any

import pytest

from agentrl.errors import ConfigError
from agentrl.recipes import rules_second
from agentrl.recipes.recipe import load_recipe
from agentrl.recipes.rules import Rule

REFUSALS: dict[Rule, list[tuple[str, dict[str, Any], tuple[str, ...]]]] = {
    rules_second.transforms_of_groups_need_groups: [
        ("caopd", {"rollout": "stream"}, ("transform 'confidence_rewrite'", "rollout 'stream'", "'student'")),
        ("hint_opsd", {"transform": "drop_constant"}, ("transform 'drop_constant'", "rollout 'stream'")),
    ],
    rules_second.a_new_answer_is_made_behind_a_context: [
        (
            "hint_opsd",
            {"transform": "retry", "context": "none", "route": "all"},
            ("transform 'retry'", "context is 'none'"),
        ),
        ("herl", {"context": "none"}, ("transform 'replace'", "context is 'none'")),
    ],
    rules_second.edited_answers_take_no_ratio: [
        (
            "caopd",
            {"estimator": "iw_k3", "divergence": "rkl"},
            ("transform 'confidence_rewrite'", "estimator 'iw_k3'", "estimator = 'full'"),
        ),
        (
            "rltf_sd",
            {"offpolicy": {"name": "ppo", "denominator": "sampler"}},
            ("transform 'second_turn'", "offpolicy 'ppo'"),
        ),
    ],
    rules_second.answers_behind_a_context_are_not_taken_for_the_policys_own: [
        (
            "kepo",
            {"doubt": ""},
            ("transform 'replace'", "offpolicy 'ppo'", "denominator = 'sampler'", "`doubt`"),
        ),
        (
            "hint_opsd",
            {
                "transform": "retry",
                "divergence": "rkl",
                "estimator": "k2",
                "limits.max_version_lag": 0,
                "doubt": "",
            },
            ("transform 'retry'", "estimator 'k2'", "estimator = 'full'"),
        ),
    ],
    rules_second.second_turns_have_their_own_mix: [
        (
            "rltf_sd",
            {"mix": "sum", "schedules": {}},
            ("transform 'second_turn'", "mix 'sum'", "'self_distill'"),
        ),
        ("rltf_sd", {"transform": "none"}, ("mix 'self_distill'", "transform is 'none'", "'second_turn'")),
        (
            "rltf_sd",
            {"divergence": "fkl", "teacher": "self"},
            ("mix 'self_distill'", "divergence 'fkl'", "'ce'"),
        ),
    ],
    rules_second.a_joint_mix_trains_both_sides_of_one_divergence: [
        ("pi_distill", {"teacher": "self"}, ("mix 'joint'", "teacher is 'self'", "teacher = 'joint'")),
        ("pi_distill", {"divergence": "rkl"}, ("mix 'joint'", "divergence is 'rkl'")),
        (
            "pi_distill",
            {"offpolicy": {"name": "ppo", "denominator": "trainer"}, "limits.max_version_lag": 0},
            ("mix 'joint'", "offpolicy 'ppo'", "denominator = 'sampler'"),
        ),
        ("pi_distill", {"transform": "none"}, ("mix 'joint'", "transform is 'none'", "by = 'teacher'")),
    ],
    rules_second.mixes_that_weigh_nothing_are_asked_for_no_weights: [
        ("rltf_sd", {"token_weight": "position"}, ("mix 'self_distill'", "token_weight = 'one'")),
        ("rltf_sd", {"route": "reward_softmax"}, ("mix 'self_distill'", "'reward_softmax'", "route = 'all'")),
        ("rltf_sd", {"route": ["wrong_only", "ppl_softmax"]}, ("'self_distill'", "route 'ppl_softmax'")),
        ("pi_distill", {"token_weight": "batch_top_frac"}, ("mix 'joint'", "token_weight 'batch_top_frac'")),
        ("pi_distill", {"route": "pass_rate"}, ("mix 'joint'", "route 'pass_rate'", "route = 'all'")),
        ("pi_distill", {"advantage": "conflict"}, ("mix 'joint'", "'conflict'", "advantage = 'group'")),
        ("pi_distill", {"advantage": "top_tokens"}, ("mix 'joint'", "'top_tokens'", "advantage = 'group'")),
        (
            "pi_distill",
            {"advantage": {"name": "entropy_shift", "max_entropy": 0.7}},
            ("mix 'joint'", "'entropy_shift'", "remove advantage.max_entropy"),
        ),
    ],
}


@pytest.mark.parametrize(
    ("rule", "name", "overrides", "parts"),
    [(rule, *case) for rule, cases in REFUSALS.items() for case in cases],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_cannot_work_is_refused_with_the_remedy(
    rule: Rule, name: str, overrides: dict[str, Any], parts: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(name, overrides)
    message = str(caught.value)
    assert f"recipe {name!r} cannot work" in message
    for part in parts:
        assert part in message


def test_every_rule_has_a_case_that_it_refuses() -> None:
    assert set(REFUSALS) == set(rules_second.SECOND_RULES)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"transform.bonus": 0.1}, "bonus compares an attempt with its rewrite"),
        ({"transform.path": "x"}, "path names a teacher's answers"),
    ],
)
def test_settings_of_another_source_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe("kepo", setting)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("rltf_sd", {"route": "wrong_only"}),
        ("rltf_sd", {"advantage": {"name": "top_tokens", "frac": 0.5}}),
        ("pi_distill", {"route": "has_context"}),
        ("pi_distill", {"advantage": "entropy_shift"}),
    ],
)
def test_what_such_a_mix_does_heed_is_let_through(name: str, overrides: dict[str, Any]) -> None:
    """A route that selects, and weights of the one loss that is weighed."""
    load_recipe(name, overrides)
