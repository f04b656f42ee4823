"""What a step taught of each turn is on record, and recording it changes nothing that is trained."""

import asyncio
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from learner_models import as_sampled, make, sample, write_model
from learner_run import Killed, Run, same, write_base

from agentrl.config import LearnConfig
from agentrl.learner.pack import Row
from agentrl.learner.trainer import Trainer
from agentrl.recipes.recipe import load_recipe
from agentrl.store.explain import explain
from agentrl.store.signal_log import SignalLog
from agentrl.types import Block, Skill, Turn


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("taught") / "tiny")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("model") / "base")


def trainer(path: Path, recipe: str, explained_turns: int, **overrides: Any) -> Trainer:
    settings = {"optim.lr": 3e-3} | {name.replace("__", "."): value for name, value in overrides.items()}
    learn = LearnConfig(precision="fp32", explained_turns=explained_turns)
    return Trainer(path, load_recipe(recipe, settings), learn)


def told(run: Run, turn_id: str) -> list[dict[str, Any]]:
    """What the newest step that has the turn is on record to have taught of it."""
    story = explain(run.path / "log.db", run.path / "learning.db", turn_id)
    found = story["steps"][-1]["taught"] if story["steps"] else []
    assert isinstance(found, list)
    return found


def bits(made: Trainer) -> tuple[dict[str, Any], object]:
    state = made.state()
    return {name: tensor.detach().clone() for name, tensor in state.tensors.items()}, state.counters


RL = {"advantages": (0.0,) * 20 + (1.0, -0.5, 1.0, 2.0, 0.25, -1.0), "num_allowed": (0,) * 20 + (64,) * 6}


def rewarded(made: Trainer, seed: int) -> Any:
    return as_sampled(made, [sample(seed, hint=False, **RL)])[0]


@pytest.mark.parametrize("recipe", ["hint_opsd", "grpo", "openclaw_rl", "pi_distill"])
def test_steps_with_and_without_the_record_give_the_same_weights_bit_for_bit(tiny: Path, recipe: str) -> None:
    """Three steps, so that moments and schedules have gone on from each other; micro batches of two samples."""
    settings = {"batch__micro_tokens": 60, "limits__max_logprob_gap": 9.0}
    noting, silent = trainer(tiny, recipe, 9, **settings), trainer(tiny, recipe, 0, **settings)
    hinted = [sample(i, **RL, behavior_logprobs=(-4.0,) * 26) for i in range(4)]

    for _ in range(3):
        noted, plain = noting.step(hinted), silent.step(hinted)
        assert len(noted.trained) == len(noted.notes) == 4
        assert plain.notes == ()

    assert same(bits(noting), bits(silent))


@pytest.mark.parametrize("micro_tokens", [1, 10_000])
def test_the_recorded_terms_of_distillation_are_the_steps_loss(tiny: Path, micro_tokens: int) -> None:
    """The step's loss is their mean over its ids, for any cut into micro batches; the log-probs are the models'."""
    made = trainer(tiny, "hint_opsd", 9, batch__micro_tokens=micro_tokens)
    samples = [sample(i) for i in range(3)]
    short = sample(3, loss_mask=(False,) * 22 + (True, False, True, True))

    before = [row_logprobs(tiny, one.token_ids, range(20, 26)) for one in samples]
    assert samples[0].teacher is not None
    hinted = [
        row_logprobs(tiny, one.teacher.token_ids, range(22, 28)) for one in samples if one.teacher is not None
    ]
    result = made.step([*samples, short])

    assert [(note.start, note.end, note.num_tokens) for note in result.notes] == [(20, 26, 21)] * 3 + [
        (22, 26, 21)
    ]
    assert np.isnan(result.notes[3].streams["loss"]).tolist() == [False, True, False, False]
    total = sum(float(np.nansum(note.streams["loss"].astype(float))) for note in result.notes)
    assert total / 21 == pytest.approx(result.metrics["loss"], rel=1e-3)
    assert result.metrics["loss"] > 1e-3
    for note, own, theirs in zip(result.notes, before, hinted, strict=False):
        np.testing.assert_allclose(note.streams["logprob"], own, atol=5e-3)
        np.testing.assert_allclose(note.streams["teacher_logprob"], theirs, atol=5e-3)
        assert note.streams.keys() == {"loss", "logprob", "teacher_logprob"}


def row_logprobs(path: Path, token_ids: tuple[int, ...], positions: range) -> list[float]:
    """log-probs of single ids under version 0."""
    fresh = make(path)
    return fresh.mean_logprobs([Row(token_ids=token_ids, positions=(at,)) for at in positions])


def test_the_recorded_terms_of_rewards_are_the_surrogates_and_the_steps_loss(tiny: Path) -> None:
    """On-policy the ratio is 1 and an id's term -A: by hand -(1 - .5 + 1 + 2 + .25 - 1)/6 = -.458333 a sample."""
    made = trainer(tiny, "grpo", 9)
    samples = [rewarded(made, i) for i in range(2)]

    result = made.step(samples)

    for note in result.notes:
        assert note.num_tokens == 12
        np.testing.assert_allclose(note.streams["advantage"], (1.0, -0.5, 1.0, 2.0, 0.25, -1.0))
        np.testing.assert_allclose(note.streams["ratio"], [1.0] * 6, atol=1e-3)
        np.testing.assert_allclose(note.streams["loss"], (-1.0, 0.5, -1.0, -2.0, -0.25, 1.0), rtol=2e-3)
        assert "teacher_logprob" not in note.streams
    assert result.metrics["loss"] == pytest.approx(-2.75 / 6, rel=1e-4)


def test_what_the_teacher_read_is_on_record_beside_the_loss_of_every_id(tmp_path: Path, base: Path) -> None:
    """Where its own hint stood, and where the recalled one of another turn did."""
    run = Run(tmp_path / "run", base)
    run.hinted(4, hint="say xyz")
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
        metrics = learner.journal.of("step")[0]["metrics"]
    records = [told(run, f"turn{number}") for number in range(1, 5)]

    terms = [loss for [record] in records for loss in record["loss"]]
    assert isinstance(metrics, dict)
    assert sum(terms) / records[0][0]["num_tokens"] == pytest.approx(metrics["loss"], rel=2e-3)
    for [record] in records:
        [block] = record["shown"]
        assert (block["position"], block["text"]) == ("tail", "Hint: say xyz")
        assert record["token_ids"] == [*run.renderer.encode_plain("abc"), run.renderer.stop_ids[0]]
        assert len(record["loss"]) == len(record["logprob"]) == len(record["teacher_logprob"]) == 4
        assert record["source"] == "sampled"
    assert records[0][0]["shown"][0]["origin"] == "hint"
    shown = run.renderer.decode(range_of(run, "turn1", records[0][0]["shown"][0]))
    assert "Hint: say xyz" in shown


def range_of(run: Run, turn_id: str, block: dict[str, Any]) -> tuple[int, ...]:
    """The ids of a block, by inserting it again."""
    turn = read_turn(run, turn_id)
    view = run.renderer.insert(
        turn.prompt_ids, len(turn.prompt_ids), [Block(position=block["position"], text=block["text"])]
    )
    return view.token_ids[block["start"] : block["end"]]


def read_turn(run: Run, turn_id: str) -> Turn:
    async def read() -> Turn:
        async with await SignalLog.open(run.path) as log:
            turn = await log.turn(turn_id)
            assert turn is not None
            return turn

    return asyncio.run(read())


def test_a_recalled_hint_is_on_record_with_the_turn_that_brought_it(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base, batch__turns_per_step=2, recipe="hint_opsd", context__recall=0.5)
    run.record(run.turn("show the list", "abc", turn_id="brought"), hint="say xyz")
    run.record(run.turn("show the list", "abc", turn_id="silent"), reward=-1.0)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()

    [[own]], [[other]] = ([told(run, name)[0]["shown"]] for name in ("brought", "silent"))
    assert own["origin"] == "hint"
    assert (other["origin"], other["text"]) == ("hint of brought", "Hint: say xyz")


def test_secrets_in_a_skill_that_somebody_wrote_are_not_on_record(tmp_path: Path, base: Path) -> None:
    key = "sk-proj-" + "a1B2c3D4e5F6g7H8" * 3

    class Library:
        def begin(self) -> None: ...

        def skills(self, turn: Turn) -> list[Skill]:
            return [Skill(name="use-it", description="d", body=f"Log in with {key}.")]

    run = Run(tmp_path / "run", base, recipe="hint_opsd", context={"name": "skill", "position": "tail"})
    run.hinted(4)
    with run.learner() as learner:
        object.__setattr__(learner.loop._builder, "skills", Library())
        learner.loop.start()
        learner.work()

    [block] = told(run, "turn1")[0]["shown"]
    assert block["origin"] == "skill use-it"
    assert block["text"].startswith("Skill: use-it\nLog in with ")
    assert key not in block["text"]
    assert key.encode() not in (run.path / "learning.db").read_bytes()


def test_a_learner_killed_at_any_moment_leaves_the_record_of_its_steps_and_no_other(
    tmp_path: Path, base: Path
) -> None:
    """As many records as turns in steps, whatever it was doing."""
    num_stages = 0
    for kill_at in range(1, 40):
        run = Run(tmp_path / f"run{kill_at}", base)
        run.hinted(4)
        try:
            with run.learner(kill_at=kill_at) as learner:
                learner.loop.start()
                learner.work()
        except Killed:
            num_stages += 1
        found = [explain(run.path / "log.db", run.path / "learning.db", f"turn{i}") for i in range(1, 5)]
        for story in found:
            assert all(len(step["taught"]) == 1 for step in story["steps"])
        if kill_at > num_stages:
            assert all(len(story["steps"]) == 1 for story in found)
            break
    assert num_stages >= 8


@pytest.mark.parametrize(("explained_turns", "kept"), [(0, 0), (3, 3), (1000, 8)])
def test_the_settings_say_how_many_turns_are_on_record(
    tmp_path: Path, base: Path, explained_turns: int, kept: int
) -> None:
    run = Run(tmp_path / "run", base)
    learn = run.config.learn.model_copy(update={"explained_turns": explained_turns})
    run.config = run.config.model_copy(update={"learn": learn})
    run.hinted(8)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()

    assert sum(len(told(run, f"turn{number}")) for number in range(1, 9)) == kept


def test_no_number_is_too_large_to_be_recorded(tiny: Path) -> None:
    made = trainer(tiny, "grpo", 9)
    huge = [0.0] * 20 + [1e6, -1e6, 0.0, 0.0, 0.0, 0.0]
    one = rewarded(made, 0)
    result = made.step([replace(one, advantages=tuple(huge))])

    loss = result.notes[0].streams["loss"]
    assert loss[:2].tolist() == [-65504.0, 65504.0]
    assert math.isfinite(float(np.sum(loss[2:])))
