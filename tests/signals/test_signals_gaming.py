"""What a policy could do to be rewarded without deserving it: the rule judge with the guards falls for 1 % at most."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest
from gaming_cases import FAMILIES, Case, cases, honest

from agentrl.learner.trust import Approvals
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


def test_ratings_of_a_flattered_user_who_approves_everything_are_not_rewards() -> None:
    """The same by /v1/feedback: whoever gave nothing but approval before is not heard."""
    flattered = [case for case in cases(0) if case.family == "flattery"]
    approvals = Approvals(8)
    heard = []
    for number, case in enumerate(flattered):
        turn = replace(case.turn, session="flattered")
        rated = Signal(turn_id=turn.id, source=SignalSource.USER, reward=1.0, created_at=float(number))
        approvals.add(turn.scope, turn.session, rated)
        heard.append(approvals.heard([rated])[0].reward)

    assert heard == [1.0] * 8 + [None] * (len(flattered) - 8)


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
