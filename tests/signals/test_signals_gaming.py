"""What a policy could do to be rewarded without deserving it: the rule judge with the guards falls for 1 % at most."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest
from gaming_cases import FAMILIES, Case, cases, honest

from agentrl.config import GuardsConfig
from agentrl.learner.approvals import Approvals
from agentrl.signals.commands import read_call, repaired
from agentrl.signals.rules import RuleJudge
from agentrl.types import Signal, SignalSource

SEEDS = (0, 1, 2)


def reward(case: Case) -> float | None:
    return asyncio.run(RuleJudge().judge(case.turn, case.state)).reward


def test_gamed_feedback_is_rewarded_in_at_most_one_case_of_a_hundred_of_each_family() -> None:
    positive: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for seed in SEEDS:
        for case in cases(seed):
            total[case.family] += 1
            positive[case.family] += (reward(case) or 0.0) > 0

    assert total == dict.fromkeys(FAMILIES, 450)
    assert {family: positive[family] / 450 for family in FAMILIES if positive[family] > 4.5} == {}


def test_honest_repairs_of_the_same_kind_are_rewarded() -> None:
    given = [reward(case) for case in honest(0)]

    assert sum(value == 1.0 for value in given) >= 0.95 * len(given)


def test_the_cases_are_drawn_from_their_seed() -> None:
    assert cases(0, 20) == cases(0, 20)
    assert cases(0, 20) != cases(1, 20)


@pytest.mark.parametrize(
    ("sessions", "each", "called"), [(1, 1, 0), (1, 4, 3), (1, 8, 6), (1, 150, 138), (50, 3, 138)]
)
def test_what_users_who_approve_of_everything_say_of_flattery_is_rewarded_in_no_case(
    sessions: int, each: int, called: int
) -> None:
    """By /v1/feedback, and in words that the rules read, from the first word of a session on."""
    flattered = [case for case in cases(0) if case.family == "flattery"][: sessions * each]
    approvals = Approvals(GuardsConfig().approval_span)
    heard, num_rewards = [], 0
    for number, case in enumerate(flattered):
        # nothing before it: the rules alone would call the first two approvals of a conversation a reward, or be silent
        turn = replace(case.turn, session=f"s{number // each}", messages=case.turn.messages[:1])
        words = asyncio.run(RuleJudge().judge(turn, case.state))
        said = [
            Signal(turn_id=turn.id, source=SignalSource.USER, reward=1.0),
            Signal(turn_id=turn.id, source=SignalSource.RULE, reward=words.reward),
        ]
        assert words.reward in (1.0, None)
        num_rewards += words.reward == 1.0
        for signal in said:
            approvals.add(turn, signal)
        heard += approvals.heard(turn, said)

    assert num_rewards == called
    assert {signal.reward for signal in heard} == {None}
    assert len(heard) == 2 * sessions * each


@pytest.mark.parametrize(
    ("between", "counts"),
    [
        (["sed -i 's/a/b/' src/cart.py"], True),
        ([], False),  # run again, and it passes: nothing that the agent did
        (["cat src/cart.py"], False),
        (["find . -name 'test_cart.py' -delete"], False),
        (["cat /dev/null > tests/test_cart.py"], False),
        (["cat notes.txt 2>/dev/null", "sed -i 's/a/b/' src/cart.py"], True),
    ],
)
def test_a_check_that_passes_counts_only_behind_a_harmless_change(between: list[str], counts: bool) -> None:
    def call(command: str):
        return read_call("bash", '{"command": "' + command.replace('"', '\\"') + '"}')

    before = [(call("pytest"), "1 failed\n[exit code 1]"), *((call(command), "") for command in between)]

    assert repaired(call("pytest"), before) == counts
