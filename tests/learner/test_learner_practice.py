"""Standing wishes are practised on requests like those of a step, answered by the policy itself."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from learner_run import Run, write_base

from agentrl.errors import ConfigError
from agentrl.learner.pack import Row
from agentrl.learner.practice import MAX_PROMPT, Practice, begins, varied
from agentrl.learner.teacher_weights import Weights
from agentrl.learner.trainer import Trainer
from agentrl.recipes.recipe import load_recipe
from agentrl.teacher.contexts import num_practised
from agentrl.types import Block, Sampling, TrainingSample, Turn

ON = {"context__standing": 2, "context__practised": 3}
TABLE = Block(position="tail", text="Hint: Please use a table.")
METRIC = Block(position="tail", text="Hint: Please use metric units.")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("practice") / "base")


def trainer_of(run: Run) -> Trainer:
    return Trainer(run.base, run.recipe, run.config.learn)


def practised(
    run: Run, *shown: tuple[Turn, list[Block]], trainer: Trainer | None = None
) -> list[TrainingSample]:
    """What a step is given whose turns each begin a conversation."""
    first = {turn.id: turn for turn, _ in shown}
    practice = Practice.of(
        trainer or trainer_of(run),
        run.renderer,
        lambda turn_ids: {turn_id: first[turn_id] for turn_id in turn_ids},
    )
    assert practice is not None
    return practice.samples([(turn.id, hints) for turn, hints in shown])


def prompt_text(run: Run, sample: TrainingSample) -> str:
    return run.renderer.decode(sample.token_ids[: sample.loss_mask.index(True)])


def test_other_numbers_have_as_many_digits_and_nothing_else_changes() -> None:
    draw = random.Random(1)
    told = {"role": "user", "content": "weight 3 kg or 17 lb, part 1205."}
    texts = {str(varied(told, draw)["content"]) for _ in range(40)}
    assert len(texts) > 30
    for text in texts:
        words = text.split()
        assert [len(word.strip(".,")) for word in words] == [6, 1, 2, 2, 2, 2, 4, 4]
        assert [words[0], words[2], words[3], words[5], words[6]] == ["weight", "kg", "or", "lb,", "part"]
        assert not words[4].startswith("0")

    parts = {
        "role": "user",
        "content": [{"type": "text", "text": "7 of"}, {"type": "image_url", "image_url": "u7"}],
    }
    found = varied(parts, random.Random(3))["content"]
    assert isinstance(found, list)
    assert found[1] == {"type": "image_url", "image_url": "u7"}
    assert found[0]["type"] == "text"
    assert parts["content"] == [{"type": "text", "text": "7 of"}, {"type": "image_url", "image_url": "u7"}]
    assert varied({"role": "user", "content": "no number"}, draw)["content"] == "no number"
    assert varied({"role": "user", "content": None}, draw)["content"] is None


def test_a_step_practises_as_many_requests_as_the_context_says_and_no_turn_stands_behind_them(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base, **ON)
    samples = practised(run, (run.turn("Count 1234 to 5678", "x"), [TABLE, METRIC]))

    assert [(sample.source, sample.turn_ids, sample.advantages) for sample in samples] == [
        ("practice", (), None)
    ] * 3
    texts = [prompt_text(run, sample) for sample in samples]
    assert len(set(texts)) == 3
    assert all(text.startswith("<|im_start|>user\nCount ") and "1234" not in text for text in texts)
    for sample in samples:
        assert sample.teacher is not None
        assert sample.teacher.blocks == (TABLE, METRIC)
        left = list(sample.teacher.token_ids)
        for start, end in reversed(sample.teacher.inserted_spans):
            del left[start:end]
        assert tuple(left) == sample.token_ids, "law 2"


def test_an_answer_is_the_policys_own_with_the_log_probs_that_it_was_sampled_with(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base, **ON)
    trainer = trainer_of(run)
    with torch.no_grad():
        for parameter in trainer.policy.trained.values():
            parameter.add_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)), alpha=0.02
            )
    for sample in practised(run, (run.turn("Count 12", "x"), [TABLE]), trainer=trainer):
        at = sample.loss_mask.index(True)
        assert all(sample.loss_mask[at:])
        own = Weights(trainer.policy, None).logprobs(
            [Row.behind(sample.token_ids[:at], sample.token_ids[at:])], max_tokens=4096
        )
        assert sample.behavior_logprobs is not None
        torch.testing.assert_close(own[0], torch.tensor(sample.behavior_logprobs[at:]), atol=1e-4, rtol=1e-4)


def test_the_same_step_of_the_same_run_practises_the_same_and_the_next_one_others(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base, **ON)
    shown = (run.turn("Count 1234", "x"), [TABLE])
    trainer = trainer_of(run)
    now = practised(run, shown, trainer=trainer)
    assert now == practised(run, shown, trainer=trainer)

    trainer.num_steps += 1
    assert practised(run, shown, trainer=trainer) != now


def test_each_request_is_practised_with_its_own_hints_alone(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base, context__standing=2, context__practised=16)
    alice, bob = run.turn("Count 11", "x", scope="alice"), run.turn("Sort 22", "x", scope="bob")
    samples = practised(run, (alice, [TABLE]), (bob, [METRIC]))

    hints = {(prompt_text(run, one).split()[1], one.teacher.blocks) for one in samples if one.teacher}
    assert hints == {("Count", (TABLE,)), ("Sort", (METRIC,))}


def changed(turn: Turn, **values: object) -> Turn:
    return replace(turn, **values)  # type: ignore[arg-type]


def test_only_what_begins_a_conversation_freely_is_varied_for_other_beginnings_may_be_held_out(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base, **ON)
    turn = run.turn("Count 12", "x")
    system, request = {"role": "system", "content": "Be short."}, turn.messages[0]
    answer, wish = {"role": "assistant", "content": "x"}, {"role": "user", "content": "No, use a table."}
    assert begins(turn)
    assert begins(changed(turn, messages=(system, request)))
    later = changed(turn, messages=(request, answer, wish))
    asked_for_json = changed(turn, sampling=Sampling(grammar='{"type": "object"}'))
    after_tool = changed(
        turn, messages=(request, answer, {"role": "tool", "content": "7", "tool_call_id": "1"})
    )
    empty, twice = changed(turn, messages=()), changed(turn, messages=(request, wish))
    for other in (later, asked_for_json, after_tool, twice, empty):
        assert not begins(other)
        assert practised(run, (other, [TABLE])) == []
    assert practised(run, (turn, [])) == []
    assert Practice(trainer_of(run), run.renderer, lambda _: {}).samples([(turn.id, [TABLE])]) == []


def test_a_request_that_is_too_long_is_not_practised(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base, **ON)
    assert practised(run, (run.turn("7" * (MAX_PROMPT + 1), "x"), [TABLE])) == []


def test_a_step_with_practice_trains_the_same_turns_and_counts_nothing_else(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base, route="has_context", **ON)
    run.hinted(4, hint="Please use a table.")
    assert run.metrics_of_one_step_of_four()["num_practice"] == 3.0


def test_where_the_turns_of_a_step_teach_nothing_nothing_is_practised(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base, **ON)
    trainer = trainer_of(run)
    samples = practised(run, (run.turn("Count 12", "x"), [TABLE]), trainer=trainer)
    before = {name: value.clone() for name, value in trainer.policy.trained.items()}
    result = trainer.step(samples)
    assert result.trained == ()
    assert len(result.dropped) == 3
    assert all(torch.equal(before[name], value) for name, value in trainer.policy.trained.items())


def test_a_conversations_beginning_is_practised_where_it_was_corrected_and_is_trained_itself(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base, **ON)
    for name, hint in (("one", "Please use a table."), ("two", "Please use a table."), ("right", None)):
        first = run.turn(f"Count {name}", "x", turn_id=f"{name} 1", session=name)
        second = run.turn("No.", "y", turn_id=f"{name} 2", session=name, parent=f"{name} 1")
        third = run.turn("No!", "z", turn_id=f"{name} 3", session=name, parent=f"{name} 2")
        run.record(first, hint=hint)
        run.record(second, third, hint="Please use a table.")
    run.record(run.turn("And 13", "y", turn_id="lost", parent="unknown"), hint="Please use a table.")
    names = ["one 1", "one 2", "one 3", "two 1", "two 3", "right 1", "right 3", "lost", "nobody"]
    with run.learner() as learner:
        assert learner.log.corrected_beginnings(names) == {}, "nothing is in hand yet"
        assert learner.log.hold_out("default", "two 1")
        claims = learner.log.claim(limit=9, needs="any", max_age_s=1e9)
        assert {claim.turn.id for claim in claims} >= {
            "one 1",
            "one 3",
            "two 3",
            "right 1",
            "right 3",
            "lost",
        }
        assert "two 1" not in {claim.turn.id for claim in claims}
        found = learner.log.corrected_beginnings(names)
        assert {name: turn.id for name, turn in found.items()} == dict.fromkeys(
            ("one 1", "one 2", "one 3"), "one 1"
        )
        assert found["one 3"].messages[0]["content"] == "Count one"


def test_a_recipe_that_does_not_ask_practises_nothing(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base, context__standing=2)
    assert Practice.of(trainer_of(run), run.renderer, lambda _: {}) is None
    assert num_practised(load_recipe("personal").context) == 8


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="practised"):
        load_recipe("personal", {"context.practised": -1})
