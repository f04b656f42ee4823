"""On a live stream too a turn's own reward and its episode's have weights: 0 takes a part out, bit for bit."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from guarded_run import guarded
from learner_run import NOW, Run, write_base

from agentrl.errors import ConfigError
from agentrl.learner.build import Builder
from agentrl.recipes.recipe import load_recipe
from agentrl.store.claims import Claimed
from agentrl.store.signal_log import SignalLog
from agentrl.types import End, MatchedBy, NextState, Signal, SignalSource, Turn

OWN = {"a": (0.25, -1.0, 1 / 3), "b": (-0.5, 1.0, None)}
"""What a judge said of each turn of two conversations; of the last one nothing."""
ENDED = {"a": 1.0, "b": -1.0}
"""How they ended."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("stream") / "base")


def signal(turn: Turn, source: SignalSource, reward: float) -> Signal:
    return Signal(turn_id=turn.id, source=source, reward=reward, created_at=NOW)


def rewards(run: Run, recipe: str = "openclaw_rl_binary", **advantage: object) -> list[float | None]:
    """What the turns of both conversations earn; the environment's word stands at the last turn of each."""
    claims = []
    for session, said in OWN.items():
        for number, own in enumerate(said):
            turn = run.turn("do it", "abc", session=session, logprobs=(-5.0,) * 4)
            signals = [] if own is None else [signal(turn, SignalSource.JUDGE, own)]
            signals += [signal(turn, SignalSource.ENVIRONMENT, ENDED[session])] if number == 2 else []
            claims.append(
                Claimed(
                    turn=turn,
                    next_state=None,
                    signals=tuple(signals),
                    use=1,
                    episode_reward=ENDED[session],
                )
            )
    made = load_recipe(recipe, {f"advantage.{name}": value for name, value in advantage.items()})
    built = Builder(recipe=made, renderer=run.renderer, max_len=200).build(claims, newest_version=0)
    assert [
        sample.advantages[-1] if sample.advantages else None for sample in built.samples
    ] == pytest.approx([sample.reward for sample in built.samples])
    return [sample.reward for sample in built.samples]


@pytest.mark.parametrize("recipe", ["openclaw_rl_binary", "openclaw_rl"])
def test_weights_add_what_was_said_of_a_turn_and_how_its_episode_ended(
    tmp_path: Path, base: Path, recipe: str
) -> None:
    run = Run(tmp_path / "run", base)

    # without weights the environment, which is trusted most, is the last turn's own word
    assert rewards(run, recipe) == [0.25, -1.0, 1.0, -0.5, 1.0, -1.0]
    assert rewards(run, recipe, process=1.0) == pytest.approx([1.25, 0.0, 4 / 3, -1.5, 0.0, -1.0])
    assert rewards(run, recipe, outcome=2.0, process=0.5) == pytest.approx(
        [2.125, 1.5, 2 + 1 / 6, -2.25, -1.5, -2.0]
    )
    assert rewards(run, recipe, process=0.0) == [1.0, 1.0, 1.0, -1.0, -1.0, -1.0]
    assert rewards(run, recipe, outcome=0.0) == pytest.approx([0.25, -1.0, 1 / 3, -0.5, 1.0])


def test_the_weights_stand_in_the_base_of_an_advantage_too(tmp_path: Path, base: Path) -> None:
    changes = {"name": "entropy_shift", "base": {"name": "raw", "outcome": 0.5}}
    recipe = load_recipe("openclaw_rl_binary", {"advantage": changes})

    assert (recipe.reward_weights, recipe.waits_for_outcome) == ((0.5, 1.0), True)


def test_weights_of_which_none_is_left_are_refused_and_only_the_outcome_is_waited_for() -> None:
    with pytest.raises(ConfigError, match=r"'raw' has outcome = 0 and process = 0"):
        load_recipe("openclaw_rl", {"advantage.outcome": 0, "advantage.process": 0})
    waits = {
        name: load_recipe("openclaw_rl", changes).waits_for_outcome
        for name, changes in {
            "plain": {},
            "process": {"advantage.process": 0.5},
            "outcome": {"advantage.outcome": 1.0, "advantage.process": 0.0},
            "no outcome": {"advantage.outcome": 0.0},
        }.items()
    }
    assert waits == {"plain": False, "process": True, "outcome": True, "no outcome": False}


# on a log


async def close(run: Run, sessions: Sequence[str]) -> None:
    """A last turn of each conversation that sampled nothing, so that it trains nothing, and the end."""
    async with await SignalLog.open(run.path) as log:
        for session in sessions:
            turn = run.turn("bye", "abc", turn_id=f"end-{session}", session=session, error="engine")
            await log.record_turn(turn, history_key=f"h-{turn.id}", reply_key=f"r-{turn.id}")
            await log.record_next_state(
                NextState(turn_id=turn.id, end=End.CLOSED, matched_by=MatchedBy.NONE, received_at=NOW + 99)
            )


def trained(
    base: Path, path: Path, *, judged: bool = True, ended: bool = True, **advantage: object
) -> dict[str, torch.Tensor]:
    """The weights after a step on a log of the two conversations."""
    weights = {f"advantage__{name}": value for name, value in advantage.items()}
    run = Run(
        path,
        base,
        recipe="openclaw_rl_binary",
        batch__turns_per_step=6,
        limits__max_logprob_gap=1e9,
        **weights,
    )
    for session, said in OWN.items():
        for number, own in enumerate(said):
            name = f"{session}{number}"
            turn = run.turn(
                f"do {session}", f"ab{number}", turn_id=name, session=session, logprobs=(-5.5,) * 4
            )
            run.record(turn, reward=ENDED[session] if ended and number == 2 else None)
            if judged and own is not None:
                asyncio.run(run._log([], [signal(turn, SignalSource.JUDGE, own)]))
    asyncio.run(close(run, list(OWN)))
    with run.learner() as learner:
        learner.work()
        assert learner.journal.of("step")
        return learner.bits()[0]


def alike(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_without_process_a_stream_is_trained_by_its_outcomes_alone_bit_for_bit(
    base: Path, tmp_path: Path
) -> None:
    alone = trained(base, tmp_path / "alone", judged=False)
    weightless = trained(base, tmp_path / "weightless", process=0.0)
    both = trained(base, tmp_path / "both", process=1.0)
    plain = trained(base, tmp_path / "plain")

    assert alike(alone, weightless)
    assert not alike(alone, both)
    assert not alike(plain, both)


def test_without_outcome_a_stream_is_trained_by_its_turns_own_rewards_alone_bit_for_bit(
    base: Path, tmp_path: Path
) -> None:
    alone = trained(base, tmp_path / "alone", ended=False)
    weightless = trained(base, tmp_path / "weightless", outcome=0.0)

    assert alike(alone, weightless)


def test_a_turn_is_taught_once_its_episode_has_ended_where_the_outcome_counts(
    base: Path, tmp_path: Path
) -> None:
    fates = {}
    for name, weights in {"plain": {}, "weighed": {"advantage__process": 1.0}}.items():
        run = Run(
            tmp_path / name,
            base,
            recipe="openclaw_rl_binary",
            batch__turns_per_step=1,
            limits__max_logprob_gap=1e9,
            **weights,
        )
        guarded(run, max_penalty=0.0)
        first = run.turn("do it", "abc", turn_id="first", session="s", logprobs=(-5.5,) * 4)
        run.record(first)
        run.reward("first", -1.0)
        with run.learner() as learner:
            learner.loop.start()
            learner.work()
            before = learner.log.fate("first")
            last = run.turn("and this", "abc", turn_id="last", session="s", logprobs=(-5.5,) * 4)
            run.record(last, reward=-1.0)
            learner.loop._refreshed = -1e9
            learner.work()
            fates[name] = (before, learner.log.fate("first"))
    assert fates == {"plain": ("trained", "trained"), "weighed": ("pending:waiting", "trained")}
