"""Standing wishes are practised on requests like those of a step, answered by the policy itself."""

import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from learner_models import write_model
from learner_run import Run, write_base

from agentrl.config import GuardsConfig
from agentrl.errors import ConfigError, UserError
from agentrl.learner.pack import Row
from agentrl.learner.practice import MAX_PROMPT, Practice, begins, varied
from agentrl.learner.teacher_weights import Weights
from agentrl.learner.trainer import Trainer
from agentrl.recipes.recipe import load_recipe
from agentrl.store.account import Reason
from agentrl.store.learning_log import LearningLog
from agentrl.teacher.contexts import num_practised
from agentrl.types import Block, RedactedSpan, Sampling, SignalSource, TrainingSample, Turn

ON = {"context__standing": 2, "context__practised": 3}
TABLE = Block(position="tail", text="Hint: Please use a table.")
WISH = "Please use a table."
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
    found = practice.samples(shown)
    assert set(found.begun) <= set(first)
    assert bool(found.begun) == bool(found.samples)
    return list(found.samples)


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


@pytest.mark.parametrize(
    "text",
    ["utf-8", "sha256 and v2", "127.0.0.1", "2024-02-30", "at 12:30", "notes4.txt", "a/3/b", "1.2.3", "#12"],
)
def test_a_number_that_is_part_of_a_name_an_address_a_date_or_a_time_stays(text: str) -> None:
    assert varied({"role": "user", "content": text}, random.Random(1))["content"] == text


def test_broken_and_long_numbers_keep_their_form() -> None:
    found = str(varied({"role": "user", "content": "2.5 kg, 1,024 g."}, random.Random(2))["content"])
    assert re.fullmatch(r"[1-9]\.[0-9] kg, [1-9],[0-9]{3} g\.", found)
    assert found != "2.5 kg, 1,024 g."
    long = str(varied({"role": "user", "content": "7" * 5000}, random.Random(3))["content"])
    assert (len(long), long.isdigit()) == (5000, True)
    strings = {"role": "user", "content": ["count 7", {"type": "text", "text": "no number"}]}
    assert varied(strings, random.Random(4)) == strings


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


def test_only_what_begins_a_conversation_freely_is_varied(tmp_path: Path, base: Path) -> None:
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
    assert Practice(trainer_of(run), run.renderer, lambda _: {}).samples([(turn, [TABLE])]).samples == ()


class Unwilling:
    """A renderer that refuses one of two things."""

    def __init__(self, run: Run, refuses: str) -> None:
        self.renderer, self.refuses = run.renderer, refuses

    def __getattr__(self, name: str) -> Any:
        if name != self.refuses:
            return getattr(self.renderer, name)
        return self._refuse

    def _refuse(self, *_: object) -> None:
        raise UserError("not in this format")


@pytest.mark.parametrize("refuses", ["prompt", "insert"])
def test_what_the_models_format_does_not_allow_is_not_practised(
    tmp_path: Path, base: Path, refuses: str
) -> None:
    run = Run(tmp_path / "run", base, **ON)
    turn = run.turn("Count 12", "x")
    practice = Practice(trainer_of(run), Unwilling(run, refuses), lambda ids: dict.fromkeys(ids, turn))
    assert practice.samples([(turn, [TABLE])]).samples == ()


@pytest.mark.parametrize(("request_ids", "hint_ids"), [(MAX_PROMPT + 1, 0), (500, 1600)])
def test_a_request_that_is_too_long_by_itself_or_with_its_hints_is_not_practised(
    tmp_path: Path, request_ids: int, hint_ids: int
) -> None:
    """Of a model of 2,048 ids, each of which is a letter."""
    write_model(long := write_base(tmp_path / "long"), vocab_size=260, max_position_embeddings=2048)
    run = Run(tmp_path / "run", long, **ON)
    hint = Block(position="tail", text="Hint: " + "x" * hint_ids)
    assert len(practised(run, (run.turn("Count 12 " + "x" * 100, "x"), [TABLE]))) == 3
    assert practised(run, (run.turn("Count 12 " + "x" * request_ids, "x"), [hint])) == []


def test_a_request_without_a_number_is_not_practised(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base, **ON)
    assert practised(run, (run.turn("Sort the lines", "x"), [TABLE])) == []
    for digit in range(10):
        assert len(practised(run, (run.turn(f"Sort the first {digit} lines", "x"), [TABLE]))) == 3


def test_a_step_with_practice_trains_the_same_turns_and_counts_nothing_else(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base, route="has_context", **ON)
    run.record(*(run.turn(f"Count {i}", "abc") for i in range(4)), hint=WISH, source=SignalSource.USER)
    assert run.metrics_of_one_step_of_four()["num_practice"] == 3.0
    with LearningLog(run.path) as log:
        step = log.step(1)
    assert step is not None
    assert set(step.turn_ids) == {"turn1", "turn2", "turn3", "turn4"}
    assert set(step.metrics["practised"]) <= set(step.turn_ids)
    assert step.metrics["practised"]


def test_where_the_turns_of_a_step_teach_nothing_nothing_is_practised(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base, **ON)
    trainer = trainer_of(run)
    samples = practised(run, (run.turn("Count 12", "x"), [TABLE]), trainer=trainer)
    before = {name: value.clone() for name, value in trainer.policy.trained.items()}
    result = trainer.step(samples)
    assert result.trained == ()
    assert len(result.dropped) == 3
    assert all(torch.equal(before[name], value) for name, value in trainer.policy.trained.items())


def conversation(run: Run, name: str, first_hint: str | None) -> list[Turn]:
    """Three turns, of which the last two are corrected."""
    first = run.turn(f"Count 1 {name}", "x", turn_id=f"{name} 1", session=name)
    second = run.turn("No.", "y", turn_id=f"{name} 2", session=name, parent=f"{name} 1")
    third = run.turn("No!", "z", turn_id=f"{name} 3", session=name, parent=f"{name} 2")
    run.record(first, hint=first_hint, source=SignalSource.USER)
    run.record(second, third, hint=WISH, source=SignalSource.USER)
    return [first, second, third]


def begun(log: LearningLog, *turn_ids: str) -> dict[str, str]:
    return {turn_id: turn.id for turn_id, turn in log.corrected_beginnings(turn_ids).items()}


def test_a_conversations_beginning_is_practised_where_it_was_corrected_and_is_taught_itself(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base, **ON)
    conversation(run, "one", WISH)
    conversation(run, "right", None)
    run.record(run.turn("And 13", "y", turn_id="lost", parent="unknown"), hint=WISH)
    span = RedactedSpan(path="messages.0.content", start=8, end=11, rule="key")
    hidden = run.turn("Count 1 ***", "x", turn_id="hidden", redacted_spans=(span,))
    run.record(hidden, hint=WISH)
    with LearningLog(run.path) as log:
        assert begun(log, "one 2", "one 3", "right 3", "nobody") == {}, "the beginning may yet be held out"
        together = begun(log, "one 1", "one 3", "right 1", "right 3", "lost", "hidden")
        assert together == {"one 1": "one 1", "one 3": "one 1"}
        claims = log.claim(limit=9, needs="any", max_age_s=1e9)
        assert "one 1" in {claim.turn.id for claim in claims}
        assert begun(log, "one 2") == {}, "what is in hand may yet be dropped, and then held out"
        log.record_step(["one 1"], recipe="r", seed=0, metrics={}, version_parent=0)
        assert begun(log, "one 2", "one 3") == {"one 2": "one 1", "one 3": "one 1"}
        assert not log.hold_out("default", "one 1")
        assert log.corrected_beginnings(["one 2"])["one 2"].messages[0]["content"] == "Count 1 one"


@pytest.mark.parametrize("why", [Reason.LESSON_REJECTED, Reason.CONTRADICTED, "hint holds the answer"])
def test_what_was_set_aside_is_practised_no_more(tmp_path: Path, base: Path, why: str) -> None:
    run = Run(tmp_path / "run", base, **ON)
    conversation(run, "one", WISH)
    with LearningLog(run.path) as log:
        assert begun(log, "one 1") == {"one 1": "one 1"}
        log.reject(["one 1"], why)
        assert begun(log, "one 1", "one 2") == {}


def test_what_a_rollback_undid_is_practised_no_more(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base, route="has_context", **ON)
    run.record(*(run.turn(f"Count {i}", "abc") for i in range(4)), hint=WISH, source=SignalSource.USER)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
        later = run.turn("No.", "y", turn_id="later", session="session-turn1", parent="turn1")
        run.record(later, hint=WISH, source=SignalSource.USER)
        assert begun(learner.log, "later") == {"later": "turn1"}
        learner.log.rollback("default", 0, "it was wrong")
        assert begun(learner.log, "later") == {}


def test_only_what_stands_whatever_was_asked_is_practised(tmp_path: Path, base: Path) -> None:
    """What a tool said of one command is shown to the teacher of that turn alone."""
    run = Run(tmp_path / "run", base, route="has_context", batch__turns_per_step=2, **ON)
    run.record(run.turn("Count 12", "x"), run.turn("Sort 34", "x"), hint="rm: not found; use zorp")
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
        [step] = learner.journal.of("step")
    metrics = step["metrics"]
    assert isinstance(metrics, dict)
    assert (step["num_turns"], metrics.get("num_practice")) == (2, None)


def test_each_turn_of_a_step_brings_its_own_scopes_wishes(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base, route="has_context", batch__turns_per_step=2, **ON)
    names = {"alice": "Please use a table.", "bob": "Please use metric units."}
    for scope, wish in names.items():
        run.record(
            run.turn(f"Count 12 {scope}", "x", turn_id=scope, scope=scope),
            hint=wish,
            source=SignalSource.USER,
        )
    with run.learner() as learner:
        memory = learner.builder.memory
        assert memory is not None
        claims = learner.log.claim(limit=9, needs="any", max_age_s=1e9)
        for claim in claims:
            memory.add(claim.turn, names[claim.turn.id], by_user=True)
        built = learner.builder.build(claims, newest_version=0)
        beside = learner.builder.build(claims, newest_version=0, beside=True)
    assert {sample.source for sample in beside.samples} == {"sampled"}, "a step practises once"
    made = [sample for sample in built.samples if sample.source == "practice"]
    found = {
        (sample.made_for, prompt_text(run, sample).split()[3], block.text)
        for sample in made
        if sample.teacher
        for block in sample.teacher.blocks
    }
    assert {one[0] for one in found} == {"alice", "bob"}
    assert all(name in words and names[name] in text for name, words, text in found)


def test_no_scope_has_more_of_the_practice_than_of_the_step(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base, context__standing=2, context__practised=8)
    alice = run.turn("Count 12 alice", "x", scope="alice")
    others = [run.turn(f"Sort {i}", "x", scope="bob") for i in range(15)]
    samples = practised(run, (alice, [TABLE]), *((turn, []) for turn in others))
    assert [sample.made_for for sample in samples] == [alice.id]
    assert len(practised(run, (alice, [TABLE]))) == 8


def test_a_practised_answer_weighs_what_the_turn_weighs_that_it_was_made_for(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base, route="has_context", batch__turns_per_step=2, **ON)
    run.record(run.turn("Count 12", "abc"), run.turn("Sort 34", "abc"), hint=WISH, source=SignalSource.USER)
    run.config = run.config.model_copy(update={"guards": GuardsConfig(trust={"user": 0.25})})
    with run.learner() as learner:
        claims = learner.log.claim(limit=9, needs="any", max_age_s=1e9)
        first = claims[0].turn
        practice = Practice(learner.trainer, run.renderer, lambda ids: dict.fromkeys(ids, first))
        samples = practice.samples([(first, [TABLE])]).samples
        taught = replace(samples[0], turn_ids=(first.id,), source="sampled", made_for=None)
        given = [taught, *samples, replace(samples[0], made_for=None)]
        weighed = learner.guards.weigh(given, claims).samples
    weights = [one.weights["kd"][-1] if one.weights else 1.0 for one in weighed]
    assert weights == [0.25, 0.25, 0.25, 0.25, 1.0]


def test_weights_that_give_no_numbers_are_left_to_the_step_to_refuse(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base, **ON)
    trainer = trainer_of(run)
    with torch.no_grad():
        for parameter in trainer.policy.trained.values():
            parameter.fill_(float("nan"))
    assert practised(run, (run.turn("Count 12", "x"), [TABLE]), trainer=trainer) == []


def test_a_recipe_that_does_not_ask_practises_nothing(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base, context__standing=2)
    assert Practice.of(trainer_of(run), run.renderer, lambda _: {}) is None
    assert num_practised(load_recipe("personal").context) == 8


@pytest.mark.parametrize("number", [-1, 65])
def test_a_number_that_cannot_be_is_refused(number: int) -> None:
    with pytest.raises(ConfigError, match="practised"):
        load_recipe("personal", {"context.practised": number})
