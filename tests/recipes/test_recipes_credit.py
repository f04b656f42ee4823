"""Advantages, routes and eligibility. Identity of the algebra: I29; laws 5, 6, 7 and 10."""

from dataclasses import replace
from math import sqrt

import pytest

from agentrl.recipes import axes, credit, routes
from agentrl.recipes.eligibility import refusal
from agentrl.recipes.recipe import load_recipe
from agentrl.types import (
    Arm,
    Completion,
    FinishReason,
    MatchedBy,
    Purpose,
    RedactedSpan,
    Reply,
    Sampling,
    Turn,
    TurnKind,
    VersionSpan,
)

TWO_OF_EIGHT = [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]


def test_group_advantages_of_two_successes_in_eight() -> None:
    """I29."""
    for std, high, low in (("population", 1.732051, -0.577350), ("sample", 1.620185, -0.540062)):
        values = credit.advantages(axes.Group(std=std, eps=0.0), TWO_OF_EIGHT)
        assert values == pytest.approx([high] * 2 + [low] * 6, abs=1e-6)
    assert credit.advantages(axes.Group(std="none"), TWO_OF_EIGHT) == [0.75] * 2 + [-0.25] * 6


@pytest.mark.parametrize(
    "option", [axes.Group(std=s) for s in ("population", "sample", "none")] + [axes.LeaveOneOut()]
)
def test_group_advantages_sum_to_zero_and_constant_groups_have_none(option: axes.Advantage) -> None:
    """I29."""
    rewards = [0.3, -1.0, 0.25, 0.9]
    assert sum(credit.advantages(option, rewards)) == pytest.approx(0.0, abs=1e-12)
    assert credit.advantages(option, [0.1] * 5) == pytest.approx([0.0] * 5, abs=1e-15)


def test_a_constant_group_is_zero_also_without_eps() -> None:
    assert credit.advantages(axes.Group(eps=0.0), [0.1, 0.1, 0.1]) == [0.0, 0.0, 0.0]


def test_standardised_advantages_do_not_change_under_an_affine_reward() -> None:
    """I29."""
    rewards = [0.3, -1.0, 0.25, 0.9]
    option = axes.Group(eps=0.0)
    assert credit.advantages(option, [5 * r + 2 for r in rewards]) == pytest.approx(
        credit.advantages(option, rewards)
    )


def test_leaving_one_out_is_the_centred_reward_times_n_over_n_minus_one() -> None:
    rewards = [1.0, 0.0, 0.0, 0.0]
    assert credit.advantages(axes.LeaveOneOut(), rewards) == pytest.approx([1.0, -1 / 3, -1 / 3, -1 / 3])
    centred = credit.advantages(axes.Group(std="none"), rewards)
    assert credit.advantages(axes.LeaveOneOut(), rewards) == pytest.approx([4 / 3 * a for a in centred])


@pytest.mark.parametrize("option", [axes.Group(eps=0.0), axes.LeaveOneOut(), axes.Raw()])
def test_an_unjudged_turn_has_no_advantage_and_no_part_in_the_mean(option: axes.Advantage) -> None:
    """Law 6: unknown is not zero."""
    known = credit.advantages(option, [1.0, 0.0, -1.0])
    assert credit.advantages(option, [1.0, None, 0.0, -1.0]) == [known[0], None, known[1], known[2]]


@pytest.mark.parametrize("option", [axes.Group(), axes.LeaveOneOut()])
def test_a_single_judged_turn_has_nothing_to_be_compared_with(option: axes.Advantage) -> None:
    """I29: a group of one is refused when a recipe is loaded; one that has shrunk to one teaches nothing."""
    assert credit.advantages(option, [1.0]) == [None]
    assert credit.advantages(option, [1.0, None]) == [None, None]


def test_the_standard_deviation_is_that_of_the_name() -> None:
    (high, low) = credit.advantages(axes.Group(std="sample", eps=1.0), [1.0, 0.0])
    assert high == pytest.approx(0.5 / (sqrt(0.5) + 1.0)) == -low


def test_steps_are_compared_with_their_like() -> None:
    """Steps 0: 1, 0; step 1: .5 alone; step 2: one unjudged."""
    values = credit.advantages(axes.StepIndexGroup(std="none"), [1.0, 0.5, 0.0, 0.2, None], [0, 1, 0, 2, 2])
    assert values == [0.5, None, -0.5, None, None]


def test_second_answers_are_compared_with_first_ones_and_not_with_each_other() -> None:
    """I22: where all second answers are right the critique has helped, and the advantage is not 0."""
    rewards, steps = [0.0, 1.0, 0.0, None, 1.0, 1.0, None], [0, 0, 0, 0, 1, 1, 1]
    values = credit.advantages(axes.FirstTurn(), rewards, steps)
    assert values == [None, None, None, None, pytest.approx(2 / 3), pytest.approx(2 / 3), None]
    assert credit.advantages(axes.FirstTurn(), [1.0, 1.0], [1, 1]) == [None, None]


def test_only_what_is_better_than_the_mean_may_train() -> None:
    values = credit.advantages(axes.PositiveOnly(std="none"), [1.0, 0.0, 0.5, None])
    assert values == [0.5, None, None, None]


def test_options_of_the_whole_batch_begin_with_their_base_or_with_the_rewards() -> None:
    loo = axes.EntropyShift(base=axes.Conflict(base=axes.LeaveOneOut()))
    assert credit.advantages(loo, [1.0, 0.0, None]) == [1.0, -1.0, None]
    assert credit.advantages(axes.Discriminative(), [1.0, 0.0, None]) == [1.0, 0.0, None]


def test_steps_of_another_length_are_refused_with_both_lengths() -> None:
    with pytest.raises(ValueError, match="2 steps for 3 rewards"):
        credit.advantages(axes.FirstTurn(), [1.0, 0.0, 0.5], [0, 1])


def test_rewards_are_used_raw_or_not_at_all() -> None:
    assert credit.advantages(axes.Raw(), [0.0, None, -1.0]) == [0.0, None, -1.0]
    assert credit.advantages(axes.NoAdvantage(), [0.0, None, -1.0]) == [None, None, None]


def test_routes_send_a_sample_to_the_losses_it_has_the_inputs_for() -> None:
    kd, rl = load_recipe("hint_opsd"), load_recipe("openclaw_rl_binary")
    both = kd.replaced({"mix": "sum", "advantage": "raw", "offpolicy": rl.offpolicy.model_dump()})
    everything = both.replaced({"route": "all"})

    def weights(recipe, *, context: bool, advantage: float | None) -> tuple[float, float]:
        found = routes.weights(recipe, routes.Case(has_context=context, advantage=advantage))
        return found.kd, found.rl

    assert weights(kd, context=True, advantage=1.0) == (1.0, 0.0)
    assert weights(kd, context=False, advantage=1.0) == (0.0, 0.0)
    assert weights(rl, context=True, advantage=0.0) == (0.0, 1.0)
    assert weights(rl, context=True, advantage=None) == (0.0, 0.0)
    assert weights(both, context=False, advantage=-1.0) == (0.0, 1.0)
    assert weights(both, context=True, advantage=None) == (1.0, 0.0)
    assert weights(everything, context=False, advantage=None) == (1.0, 0.0)


def test_a_sample_that_no_loss_takes_is_rejected_with_a_reason() -> None:
    nothing = routes.Case()
    assert not routes.weights(load_recipe("hint_opsd"), nothing).trains
    assert routes.why_not(load_recipe("hint_opsd"), nothing) == "no context"
    assert routes.why_not(load_recipe("grpo"), nothing) == "no reward"


def turn(
    *, version: int = 3, raw: bool = True, counted: bool = True, temperature: float = 1.0, **changes: object
) -> Turn:
    made = Turn(
        id="t1",
        request_id="r1",
        session="s1",
        scope="default",
        parent=None,
        matched_by=MatchedBy.NONE,
        kind=TurnKind.MAIN,
        kind_reason="tools",
        purpose=Purpose.TRAIN,
        arm=Arm.LEARNING,
        task_key="k1",
        messages=(),
        tools=(),
        prompt_ids=(1,),
        prompt_built_by="rendered: first turn",
        completion=Completion(
            token_ids=(3, 4),
            logprobs=(-0.5, -0.5),
            raw_logprobs=(-0.5, -0.5) if raw else None,
            num_allowed=(9, 9) if counted else None,
            finish_reason=FinishReason.STOP,
            version_spans=(
                VersionSpan(version=version, start=0, end=1),
                VersionSpan(version=version + 1, start=1, end=2),
            ),
        ),
        reply=Reply(text="x"),
        sampling=Sampling(temperature=temperature),
        policy="default",
    )
    return replace(made, **changes)


def test_a_turn_is_too_old_by_its_oldest_id() -> None:
    """Law 7: a completion that was moved between versions counts from the first."""
    recipe = load_recipe("hint_opsd", {"limits.max_version_lag": 4})
    assert refusal(recipe, turn(version=3), newest_version=7) is None
    assert refusal(recipe, turn(version=3), newest_version=8) == "version lag"


def test_a_ratio_refuses_turns_without_raw_log_probs_and_a_divergence_does_not() -> None:
    """Law 7."""
    assert refusal(load_recipe("grpo"), turn(raw=False), newest_version=4) == "no raw log-probs"
    assert refusal(load_recipe("hint_opsd"), turn(raw=False), newest_version=4) is None


def test_a_turn_that_saw_a_hint_itself_is_refused() -> None:
    """Law 5."""
    assert refusal(load_recipe("hint_opsd"), turn(block_spans=((0, 1),)), newest_version=4) == (
        "privileged context in the prompt"
    )


def test_a_ratio_refuses_turns_with_redacted_samples_and_not_those_with_redacted_prompts() -> None:
    """Law 10."""
    sample = turn(redacted_spans=(RedactedSpan(path="completion.token_ids", start=0, end=1, rule="key"),))
    prompt = turn(redacted_spans=(RedactedSpan(path="messages.3.content", start=0, end=9, rule="key"),))
    assert refusal(load_recipe("grpo"), sample, newest_version=4) == "redacted sample"
    assert refusal(load_recipe("grpo"), prompt, newest_version=4) is None
    assert refusal(load_recipe("hint_opsd"), sample, newest_version=4) is None


def test_a_greedy_turn_of_unknown_support_is_refused_where_forced_ids_must_be_told() -> None:
    """Law 7."""
    greedy = turn(counted=False, temperature=0.0)
    assert refusal(load_recipe("grpo"), greedy, newest_version=4) == "greedy sample"
    assert refusal(load_recipe("hint_opsd"), greedy, newest_version=4) is None
    assert refusal(load_recipe("grpo"), turn(counted=False), newest_version=4) is None


def test_a_turn_without_sampled_ids_is_refused() -> None:
    nothing = Completion(
        token_ids=(),
        logprobs=(),
        raw_logprobs=(),
        num_allowed=(),
        finish_reason=FinishReason.ABORT,
        version_spans=(),
    )
    assert refusal(load_recipe("hint_opsd"), turn(completion=nothing), newest_version=4) == "nothing sampled"
