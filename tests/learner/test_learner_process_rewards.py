"""Rewards of single turns beside those of whole episodes: their weights have an effect, and 0 takes a part out."""

from pathlib import Path

import pytest
import torch
from learner_run import NOW, Run, write_base

from agentrl.learner.build import Builder, Built
from agentrl.recipes import credit
from agentrl.recipes.recipe import load_recipe
from agentrl.store.claims import Claimed
from agentrl.types import Signal, SignalSource, Turn

GROUPS = {"name": "student", "group_size": 2}
OUTCOMES = {"s~gq~0": 1.0, "s~gq~1": -1.0}
OWN = {"s~gq~0": (0.25, -1.0, 1 / 3), "s~gq~1": (-0.5, 1.0, None)}
"""What a judge said of each turn; of the last one nothing."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("process") / "base")


@pytest.fixture(scope="module")
def run(base: Path) -> Run:
    return Run(base.parent / "run", base)


def judge(turn: Turn, reward: float) -> Signal:
    return Signal(turn_id=turn.id, source=SignalSource.JUDGE, reward=reward, created_at=NOW)


def environment(turn: Turn, reward: float) -> Signal:
    return Signal(turn_id=turn.id, source=SignalSource.ENVIRONMENT, reward=reward, created_at=NOW + 1)


def claims(run: Run, *, with_process: bool) -> list[Claimed]:
    """Two episodes of three turns. As in a log, the environment's word stands at the last turn of each."""
    found = []
    for session, outcome in OUTCOMES.items():
        for step, own in enumerate(OWN[session]):
            turn = run.turn(
                "do it",
                "abc",
                turn_id=f"{session}-{step}",
                session=session,
                logprobs=(-1.0,) * 4,
                received_at=NOW + step,
            )
            said = [judge(turn, own)] if with_process and own is not None else []
            said += [environment(turn, outcome)] if step == 2 else []
            found.append(
                Claimed(
                    turn=turn, next_state=None, signals=tuple(said), use=1, group="q", episode_reward=outcome
                )
            )
    return found


def build(run: Run, given: list[Claimed], **weights: float) -> Built:
    option = {"name": "step_index_group", "std": "none"} | weights
    recipe = load_recipe("grpo", {"rollout": GROUPS, "advantage": option})
    return Builder(recipe=recipe, renderer=run.renderer, max_len=200).build(given, newest_version=0)


def rewards(built: Built) -> list[float | None]:
    return [sample.reward for sample in built.samples]


def test_a_turns_reward_is_the_weighted_sum_and_the_outcome_counts_once_at_the_last_turn_too(
    run: Run,
) -> None:
    built = build(run, claims(run, with_process=True))

    assert rewards(built) == [1.25, 0.0, 1 + 1 / 3, -1.5, 0.0, -1.0]
    # among the first, the second and the third turns
    assert [sample.advantages[-1] for sample in built.samples if sample.advantages] == pytest.approx(
        [1.375, 0.0, 7 / 6, -1.375, 0.0, -7 / 6]
    )


def test_both_weights_have_an_effect(run: Run) -> None:
    given = claims(run, with_process=True)

    assert rewards(build(run, given, outcome=2.0, process=0.5)) == pytest.approx(
        [2.125, 1.5, 2 + 1 / 6, -2.25, -1.5, -2.0]
    )
    # The turn that nobody judged has no reward of its own.
    alone = build(run, given, outcome=0.0)
    assert rewards(alone) == [0.25, -1.0, -0.5, 1.0]
    assert {item.reason for item in alone.dropped} == {"no reward"}


def test_without_process_rewards_the_samples_are_those_of_the_outcome_alone_bit_for_bit(run: Run) -> None:
    judged = build(run, claims(run, with_process=True), process=0.0)
    plain = build(run, claims(run, with_process=False), process=1.0)

    assert judged.samples == plain.samples
    assert judged.dropped == plain.dropped
    assert rewards(judged) == [1.0, 1.0, 1.0, -1.0, -1.0, -1.0]
    assert build(run, claims(run, with_process=True)).samples != plain.samples


def trained(base: Path, path: Path, *, with_process: bool, **weights: float) -> dict[str, torch.Tensor]:
    """The weights after a step on a log of the two episodes."""
    option = {"name": "step_index_group", "std": "none"} | weights
    run = Run(path, base, recipe="grpo", rollout=GROUPS, advantage=option, batch__turns_per_step=6)
    for session, outcome in OUTCOMES.items():
        turns = [
            run.turn("do it", reply, turn_id=f"{session}-{step}", session=session, logprobs=(-5.5,) * 4)
            for step, reply in enumerate(("abc", "bcd", "cde" if outcome > 0 else "xyz"))
        ]
        run.record(*turns[:2])
        run.record(turns[2], reward=outcome)
        for turn, own in zip(turns, OWN[session], strict=True):
            if with_process and own is not None:
                run.reward(turn.id, own)
    with run.learner() as learner:
        learner.work()
        assert learner.journal.of("step")
        return learner.bits()[0]


def test_without_process_rewards_the_trained_weights_are_those_of_the_outcome_alone_bit_for_bit(
    base: Path, tmp_path: Path
) -> None:
    plain = trained(base, tmp_path / "plain", with_process=False)
    weightless = trained(base, tmp_path / "weightless", with_process=True, process=0.0)
    judged = trained(base, tmp_path / "judged", with_process=True)

    assert all(torch.equal(plain[name], weightless[name]) for name in plain)
    assert any(not torch.equal(plain[name], judged[name]) for name in plain)


@pytest.mark.parametrize(
    ("ended", "own", "outcome", "process", "reward"),
    [
        (1.0, 0.1, 1.0, 1.0, 1.1),
        (1.0, None, 1.0, 1.0, 1.0),
        (None, 0.1, 1.0, 1.0, 0.1),
        (None, None, 1.0, 1.0, None),
        (None, 0.1, 1.0, 0.0, None),
        (0.7, 0.1, 0.0, 2.0, 0.2),
        (0.1, 0.2, 3.0, 0.0, 3.0 * 0.1),
        (0.0, None, 1.0, 0.0, 0.0),
    ],
)
def test_what_is_not_known_or_weighs_nothing_is_left_out(
    ended: float | None, own: float | None, outcome: float, process: float, reward: float | None
) -> None:
    assert credit.step_reward(ended, own, outcome=outcome, process=process) == reward
