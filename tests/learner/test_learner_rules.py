"""A rule that was imported with no request stands for every turn of its scope, once somebody has approved it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from learner_run import Learner, Run, write_base

from agentrl.nano import weights_dir
from agentrl.signals.evidence import Comment, Evidence
from agentrl.signals.transcripts import lessons_from
from agentrl.store.learning_log import LearningLog
from agentrl.types import Lesson, LessonState
from server.inspect import explain_turn

UNITS = "Always use metric units in reports."


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("model") / "base")


def imported(run: Run, *texts: str, scope: str = "default") -> list[Lesson]:
    """Comments that name no request, as `agentrl lessons import` takes them."""
    evidence = Evidence(items=tuple(Comment(text=text) for text in texts))
    taken = asyncio.run(lessons_from(evidence, scope=scope, state=LessonState.APPROVED))
    with LearningLog(run.path) as log:
        log.add_lessons(taken.lessons)
    return taken.lessons


def decide(run: Run, state: LessonState, lessons: Sequence[Lesson]) -> None:
    with LearningLog(run.path) as log:
        log.decide([lesson.id for lesson in lessons], state)


def work(learner: Learner) -> None:
    learner.loop._refreshed = -float("inf")
    learner.work()


def shown(learner: Learner, name: str) -> list[str]:
    """The hints in the teacher's view of a turn."""
    memory = learner.loop._memory
    assert memory is not None
    memory.update()
    samples = learner.loop._builder.build(learner.log.records([name]), newest_version=0).samples
    if not samples or samples[0].teacher is None:
        return []
    view = samples[0].teacher
    blocks = [learner.run.renderer.decode(view.token_ids[start:end]) for start, end in view.inserted_spans]
    return [block.split("Hint: ")[1].split("<|im_end|>")[0].strip() for block in blocks]


def test_nano_learns_an_approved_rule_at_a_turn_that_nothing_else_was_said_of(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", weights_dir(), batch__turns_per_step=1, optim__lr=1e-3)
    rules = imported(run, UNITS)
    assert [rule.state for rule in rules] == [LessonState.PROPOSED], "whatever the run approves by itself"
    with run.learner() as learner:
        learner.loop.start()
        before = learner.bits()[0]
        run.record(run.turn("How far is the next town?", "It is far."), reward=-1.0)
        learner.work()
        assert run.account() == (1, 0, {"no context": 1}, {})
        assert shown(learner, "turn1") == []

        decide(run, LessonState.APPROVED, rules)
        work(learner)

        assert shown(learner, "turn1") == [UNITS]
        assert run.account() == (1, 1, {}, {})
        assert any((tensor != learner.bits()[0][name]).any() for name, tensor in before.items())
    told = asyncio.run(explain_turn(run.path, "turn1"))
    [block] = told["taught"][0]["context"]
    assert (block["text"], block["origin"]) == (f"Hint: {UNITS}", f"hint of {rules[0].id}")
    with LearningLog(run.path) as log:
        assert log.learned_from([], [rules[0].id]) == [1]


def test_a_rule_stands_before_the_turns_own_hint_and_yields_to_it_on_the_same_matter(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base)
    decide(run, LessonState.APPROVED, imported(run, UNITS))
    run.record(run.turn("one", "abc"), hint="Please say hello.")
    run.record(run.turn("two", "abc"), hint="Use imperial units in reports.")
    with run.learner() as learner:
        learner.loop.start()

        assert shown(learner, "turn1") == [UNITS, "Please say hello."]
        assert shown(learner, "turn2") == ["Use imperial units in reports."]


@pytest.mark.parametrize("state", [LessonState.REJECTED, LessonState.RETIRED])
def test_a_rule_that_is_turned_down_and_one_of_another_scope_stand_for_nothing(
    tmp_path: Path, base: Path, state: LessonState
) -> None:
    run = Run(tmp_path / "run", base, batch__turns_per_step=1)
    decide(run, state, imported(run, UNITS))
    decide(run, LessonState.APPROVED, imported(run, "Always write a table.", scope="bob"))
    run.record(run.turn("one", "abc"), reward=-1.0)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()

        assert run.account() == (1, 0, {"no context": 1}, {})


def test_where_a_recipe_takes_turns_with_a_hint_of_their_own_alone_the_others_are_counted(
    tmp_path: Path, base: Path
) -> None:
    run = Run(
        tmp_path / "run", base, batch__turns_per_step=1, context__recall=0.0, route={"name": "has_context"}
    )
    decide(run, LessonState.APPROVED, imported(run, UNITS))
    run.record(run.turn("one", "abc"), reward=-1.0)
    run.record(run.turn("two", "abc"), hint="Please say hello.")
    with run.learner() as learner:
        learner.loop.start()
        learner.work()

        assert run.account() == (2, 1, {"no_hint": 1}, {})
        assert shown(learner, "turn2") == [UNITS, "Please say hello."]


def test_of_many_rules_each_turn_gets_eight_and_the_turns_together_all(tmp_path: Path, base: Path) -> None:
    rules = [f"Always mention number {number} in replies." for number in range(12)]
    run = Run(tmp_path / "run", base)
    decide(run, LessonState.APPROVED, imported(run, *rules))
    for number in range(20):
        run.record(run.turn(f"request {number}", "abc"), reward=-1.0)
    with run.learner() as learner:
        learner.loop.start()
        found = [shown(learner, f"turn{number}") for number in range(1, 21)]

        assert {len(set(each)) for each in found} == {8}
        assert {rule for each in found for rule in each} == set(rules)
        assert [shown(learner, f"turn{number}") for number in range(1, 21)] == found
        order = [lesson.text for lesson in learner.log.bare_lessons()]
        assert all(each == [rule for rule in order if rule in each] for each in found)


def test_in_review_turns_do_not_wait_for_a_rule_and_its_approval_frees_them(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base, batch__turns_per_step=1)
    learn = run.config.learn.model_copy(update={"approve": "review"})
    run.config = run.config.model_copy(update={"learn": learn})
    rules = imported(run, UNITS)
    run.record(run.turn("one", "abc"), reward=-1.0)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
        assert run.account() == (1, 0, {"no context": 1}, {})

        decide(run, LessonState.APPROVED, rules)
        work(learner)

        assert run.account() == (1, 1, {}, {})
