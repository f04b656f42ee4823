"""Pairs from records to weights: which samples they become, and that the sides may stand in different micro batches."""

import asyncio
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from learner_run import NOW, Run, write_base

from agentrl.config import LearnConfig
from agentrl.learner.build import Builder
from agentrl.learner.held_out import is_held_out
from agentrl.learner.pairs import whole
from agentrl.learner.trainer import Trainer
from agentrl.recipes.recipe import load_recipe
from agentrl.store.claims import Claimed
from agentrl.store.learning_log import LearningLog
from agentrl.store.signal_log import SignalLog
from agentrl.types import End, MatchedBy, NextState, RedactedSpan, Signal, SignalSource, TrainingSample, Turn


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("model") / "base")


def pair_run(tmp_path: Path, base: Path, **overrides: object) -> Run:
    return Run(tmp_path / "run", base, recipe="dpo", **overrides)


def tell(run: Run, *turns: tuple[Turn, End | None, str | None], signals: tuple[Signal, ...] = ()) -> None:
    """Turns with their ends, each with the turn that was asked for in its place, and what was said of them."""

    async def write() -> None:
        async with await SignalLog.open(run.path) as log:
            for turn, end, later in turns:
                await log.record_turn(turn, history_key=f"h-{turn.id}", reply_key=f"r-{turn.id}")
                await log.record_next_state(
                    NextState(
                        turn_id=turn.id,
                        messages=() if end else ({"role": "user", "content": "go on"},),
                        matched_by=MatchedBy.HISTORY,
                        end=end,
                        answered_by=None if later is None else f"request-{later}",
                        received_at=NOW,
                    )
                )
            for signal in signals:
                await log.record_signal(signal)

    asyncio.run(write())


def regenerated(run: Run, number: int, worse: str = "abc", better: str = "xyz") -> tuple[Turn, Turn]:
    names, replies = (f"first{number}", f"second{number}"), (worse, better)
    first, second = (
        run.turn(f"task {number}", reply, turn_id=name, logprobs=(-9.0,) * (len(reply) + 1))
        for name, reply in zip(names, replies, strict=True)
    )
    tell(run, (first, End.REGENERATED, second.id), (second, None, None))
    return first, second


def correction(turn_id: str, text: str) -> Signal:
    return Signal(turn_id=turn_id, source=SignalSource.USER, preferred=text, created_at=NOW)


def built(run: Run, claims: list[Claimed], max_len: int = 512) -> Any:
    return Builder(recipe=run.recipe, renderer=run.renderer, max_len=max_len).build(claims, newest_version=0)


def claim(run: Run) -> list[Claimed]:
    with LearningLog(run.path) as log:
        return log.claim(limit=100, needs="pair", max_age_s=1e12)


def test_a_regenerated_answer_and_the_one_that_was_kept_become_a_served_version(
    tmp_path: Path, base: Path
) -> None:
    run = pair_run(tmp_path, base)
    for number in range(2):
        regenerated(run, number)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()

        assert run.account() == (4, 4, {}, {})
        [step] = learner.journal.of("step")
        assert step["num_turns"] == 4
        # the policy is still version 0 when it takes its first step
        assert step["metrics"]["loss"] == pytest.approx(math.log(2), abs=1e-5)
        assert step["metrics"]["shared/num_comparisons"] == 2.0
    with LearningLog(run.path) as log:
        [step_id] = log.serving().step_ids
        assert log.step(step_id).turn_ids == ("first0", "first1", "second0", "second1")


def test_the_later_answer_is_the_preferred_side(tmp_path: Path, base: Path) -> None:
    run = pair_run(tmp_path, base)
    first, second = regenerated(run, 0)

    samples = built(run, claim(run)).samples

    assert [(s.turn_ids, s.pair, s.preferred) for s in samples] == [
        (("first0",), "second0", False),
        (("second0",), "second0", True),
    ]
    for sample, turn in zip(samples, (first, second), strict=True):
        assert sample.token_ids == turn.prompt_ids + turn.completion.token_ids
        assert sample.behavior_logprobs is None
        assert sample.source == "sampled"


def test_a_preferred_text_stands_behind_the_same_prompt_without_a_sampler(tmp_path: Path, base: Path) -> None:
    """Law 1: only the declared text is tokenised, and nobody sampled it."""
    run = pair_run(tmp_path, base)
    turn = run.turn("task", "abc", turn_id="t", logprobs=(-1.0,) * 4)
    tell(run, (turn, None, None), signals=(correction("t", "Use <|im_end|> zip."),))

    rejected, text = built(run, claim(run)).samples

    prompt = turn.prompt_ids
    written = (*run.renderer.encode_plain("Use <|im_end|> zip."), run.renderer.stop_ids[0])
    assert rejected.token_ids == prompt + turn.completion.token_ids
    assert text.token_ids == prompt + written
    assert text.token_ids.count(run.renderer.stop_ids[0]) == prompt.count(run.renderer.stop_ids[0]) + 1
    assert text.loss_mask == (False,) * len(prompt) + (True,) * len(written)
    assert (text.turn_ids, text.source, text.preferred, text.pair) == ((), "correction", True, rejected.pair)
    assert text.behavior_logprobs is None
    assert text.num_allowed is None


def test_a_corrected_turn_is_trained_and_counted_once(tmp_path: Path, base: Path) -> None:
    run = pair_run(tmp_path, base, batch__turns_per_step=1)
    turn = run.turn("task", "abc", turn_id="t")
    tell(run, (turn, None, None), signals=(correction("t", "zip"),))
    with run.learner() as learner:
        learner.loop.start()
        learner.work()

        assert run.account() == (1, 1, {}, {})


def test_a_turn_without_a_partner_stays_pending_and_then_expires(tmp_path: Path, base: Path) -> None:
    run = pair_run(tmp_path, base)
    tell(run, (run.turn("task", "abc"), None, None))
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
        assert run.account() == (1, 0, {}, {"waiting": 1})
        learner.log.expire(0.0)
        assert run.account() == (1, 0, {"expired": 1}, {})


def test_a_side_that_cannot_be_trained_takes_its_partner_along_with_a_reason(
    tmp_path: Path, base: Path
) -> None:
    run = pair_run(tmp_path, base)
    first, _ = regenerated(run, 0, worse="abc" * 30)
    long = len(first.prompt_ids) + 20

    result = built(run, claim(run), max_len=long)

    assert result.samples == ()
    assert sorted((one.turn_ids, one.reason) for one in result.dropped) == [
        (("first0",), "longer than the model"),
        (("second0",), "no partner"),
    ]


@pytest.mark.parametrize(
    ("text", "reason"), [("token ******* here", "redacted sample"), ("x" * 600, "longer than the model")]
)
def test_a_text_that_cannot_be_learned_is_named(tmp_path: Path, base: Path, text: str, reason: str) -> None:
    run = pair_run(tmp_path, base)
    tell(run, (run.turn("task", "abc", turn_id="t"), None, None), signals=(correction("t", text),))

    result = built(run, claim(run))

    assert [(one.turn_ids, one.reason) for one in result.dropped] == [(("t",), reason)]
    assert result.samples == ()


def test_a_reply_in_which_every_id_was_forced_has_nothing_to_compare(tmp_path: Path, base: Path) -> None:
    """Law 7."""
    run = pair_run(tmp_path, base)
    turn = run.turn("task", "abc", turn_id="t")
    forced = replace(turn, completion=replace(turn.completion, num_allowed=(1,) * 4))
    tell(run, (forced, None, None), signals=(correction("t", "zip"),))

    result = built(run, claim(run))

    assert [(one.turn_ids, one.reason) for one in result.dropped] == [(("t",), "greedy sample")]


@pytest.mark.parametrize("says", ["support sizes", "its temperature alone"])
def test_an_answer_compared_with_a_greedy_one_is_left_out_with_that_reason(
    tmp_path: Path, base: Path, says: str
) -> None:
    """Law 7: which of both sides was forced, and that it is the cause of the other's being alone, is told."""
    run = pair_run(tmp_path, base)
    first, second = regenerated(run, 0)
    claims = claim(run)
    done = first.completion
    forced = replace(first, completion=replace(done, num_allowed=(1,) * len(done.token_ids)))
    if says == "its temperature alone":
        forced = replace(
            first,
            completion=replace(done, num_allowed=None),
            sampling=replace(first.sampling, temperature=0.0),
        )

    result = built(run, [replace(one, turn=forced) if one.turn.id == first.id else one for one in claims])

    assert result.samples == ()
    assert sorted((one.turn_ids, one.reason) for one in result.dropped) == sorted(
        [((first.id,), "greedy sample"), ((second.id,), "greedy partner")]
    )


def test_of_several_rejected_answers_the_others_stay_when_one_is_dropped(tmp_path: Path, base: Path) -> None:
    run = pair_run(tmp_path, base)
    one, two, three = (run.turn("task", reply, turn_id=reply) for reply in ("aaa", "bbb", "ccc"))
    spoilt = replace(one, redacted_spans=(RedactedSpan(path="reply.text", start=0, end=3, rule="key"),))
    tell(run, (spoilt, End.REGENERATED, "bbb"), (two, End.REGENERATED, "ccc"), (three, None, None))

    result = built(run, claim(run))

    assert [sample.turn_ids for sample in result.samples] == [("bbb",), ("ccc",)]
    assert [(one.turn_ids, one.reason) for one in result.dropped] == [(("aaa",), "redacted sample")]


def test_a_partner_that_the_gate_holds_out_sends_the_other_back(tmp_path: Path, base: Path) -> None:
    run = pair_run(tmp_path, base)
    name = next(f"kept{i}" for i in range(1000) if is_held_out(f"kept{i}"))
    first, second = run.turn("task", "abc", turn_id="first"), run.turn("task", "xyz", turn_id=name)
    tell(run, (first, End.REGENERATED, name), (second, None, None))
    with run.learner() as learner:
        learner.loop.start()
        # after the probe has been gathered and before the pair is claimed
        learner.journal.at_stage["claim"] = lambda: [
            run.reward(turn_id, reward) for turn_id, reward in (("first", -1.0), (name, 1.0))
        ]
        learner.work()

        assert run.account() == (2, 0, {"held_out": 1}, {"waiting": 1})


def test_a_pair_whose_better_answer_has_an_approval_that_says_nothing_is_compared_all_the_same(
    tmp_path: Path, base: Path
) -> None:
    run = pair_run(tmp_path, base)
    first, second = run.turn("task", "abc", turn_id="first"), run.turn("task", "xyz", turn_id="second")
    tell(run, (first, End.REGENERATED, "second"), (second, None, None))
    run.reward("second", 1.0)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()

        assert len(learner.guards._approvals) == 1
        assert run.account() == (2, 2, {}, {})


def test_whole_pairs_are_told_from_halves(tmp_path: Path, base: Path) -> None:
    run = pair_run(tmp_path, base)
    regenerated(run, 0)
    regenerated(run, 1)
    tell(run, (run.turn("other", "abc", turn_id="t"), None, None), signals=(correction("t", "zip"),))
    claims = {one.turn.id: one for one in claim(run)}
    half = [one for name, one in claims.items() if name != "second1"]

    kept, lone = whole(half)

    assert sorted(one.turn.id for one in kept) == ["first0", "second0", "t"]
    assert [one.turn.id for one in lone] == ["first1"]


# weights


def sides(base: Path, number: int) -> list[TrainingSample]:
    """Samples of `number` pairs of unequal length, the preferred ones first."""
    generator = torch.Generator().manual_seed(3)

    def side(index: int, preferred: bool, length: int) -> TrainingSample:
        prompt = tuple(
            torch.randint(0, 250, (20 + 3 * index,), generator=torch.Generator().manual_seed(index)).tolist()
        )
        reply = tuple(torch.randint(0, 250, (length,), generator=generator).tolist())
        return TrainingSample(
            turn_ids=(f"{index}{preferred}",),
            token_ids=prompt + reply,
            loss_mask=(False,) * len(prompt) + (True,) * length,
            behavior_logprobs=None,
            num_allowed=None,
            teacher=None,
            advantages=None,
            pair=f"p{index}",
            preferred=preferred,
        )

    return [side(i, True, 4 + i) for i in range(number)] + [side(i, False, 9 - i) for i in range(number)]


@pytest.mark.parametrize(
    "mix",
    [
        {"name": "dpo", "beta": 2.0},
        {"name": "f_dpo", "beta": 2.0, "divergence": "jsd"},
        {"name": "adpo", "tau": 0.5, "noise": 0.1},
        {"name": "redi"},
    ],
    ids=lambda mix: str(mix["name"]),
)
def test_the_step_is_the_same_however_the_sides_are_cut_into_micro_batches(
    base: Path, mix: dict[str, Any]
) -> None:
    samples = sides(base, 3)
    results, weights = [], []
    for micro_tokens in (24, 100_000):
        settings = {"mix": mix, "optim.lr": 3e-3, "batch.micro_tokens": micro_tokens}
        trainer = Trainer(base, load_recipe("dpo", settings), LearnConfig(precision="fp32"))
        # a second step, because at version 0 every margin is 0
        results.append([trainer.step(samples) for _ in range(2)])
        weights.append([parameter.detach().clone() for parameter in trainer.policy.trained.values()])

    for small, large in zip(*results, strict=True):
        assert len(small.trained) == len(large.trained) == 6
        assert small.metrics["loss"] == pytest.approx(large.metrics["loss"], rel=1e-4)
        assert small.metrics["grad_norm"] == pytest.approx(large.metrics["grad_norm"], rel=1e-3)
    for one, other in zip(*weights, strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=0)


def test_preferred_answers_become_likelier_than_rejected_ones(base: Path) -> None:
    samples = sides(base, 2)
    settings = {"mix": {"name": "dpo", "beta": 0.5}, "optim.lr": 3e-3}
    trainer = Trainer(base, load_recipe("dpo", settings), LearnConfig(precision="fp32"))

    results = [trainer.step(samples) for _ in range(6)]

    assert results[0].metrics["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert results[-1].metrics["loss"] < 0.2
    assert results[-1].metrics["shared/preferred_share"] == 1.0
