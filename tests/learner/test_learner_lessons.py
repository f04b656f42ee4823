"""The learner and its lessons: nothing unapproved is taught, decisions reach what is remembered."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from learner_run import Run, write_base

from agentrl.signals.lessons import gather
from agentrl.store.learning_log import LearningLog
from agentrl.types import Lesson, LessonState


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("model") / "base")


def in_review(run: Run) -> Run:
    learn = run.config.learn.model_copy(update={"approve": "review"})
    run.config = run.config.model_copy(update={"learn": learn})
    return run


def decide(run: Run, state: LessonState, text: str | None = None) -> None:
    """What the command line does, from another connection."""
    with LearningLog(run.path) as log:
        log.decide([found.id for found in log.lessons() if text in (None, found.text)], state)


def test_in_review_nothing_is_trained_until_it_is_approved(tmp_path: Path, base: Path) -> None:
    run = in_review(Run(tmp_path / "run", base))
    run.hinted(4)
    with run.learner() as learner:
        learner.loop.start()
        before = learner.bits()
        learner.work()

        assert run.account() == (4, 0, {}, {"review": 4})
        assert learner.journal.of("step") == []
        assert all(torch.equal(tensor, learner.bits()[0][name]) for name, tensor in before[0].items())

        decide(run, LessonState.APPROVED)
        learner.loop._refreshed = -float("inf")
        learner.work()

        assert run.account() == (4, 4, {}, {})
    with LearningLog(run.path) as log:
        [lesson] = log.lessons()
        assert (lesson.text, lesson.turn_ids) == ("say xyz", ("turn1", "turn2", "turn3", "turn4"))


def test_a_rejected_lesson_sets_its_turns_aside_and_the_others_are_trained(
    tmp_path: Path, base: Path
) -> None:
    run = in_review(Run(tmp_path / "run", base))
    run.hinted(4, hint="say xyz")
    run.hinted(3, hint="say abc")
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
        decide(run, LessonState.APPROVED, "say xyz")
        decide(run, LessonState.REJECTED, "say abc")
        learner.loop._refreshed = -float("inf")
        learner.work()

        assert run.account() == (7, 4, {"lesson_rejected": 3}, {})


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (LessonState.APPROVED, (2, 2, {}, {})),
        (LessonState.RETIRED, (2, 0, {"lesson_retired": 1, "no context": 1}, {})),
    ],
)
def test_a_hint_is_recalled_for_like_requests_only_while_its_lesson_may_be_taught(
    tmp_path: Path, base: Path, state: LessonState, expected: tuple
) -> None:
    run = Run(tmp_path / "run", base, batch__turns_per_step=2)
    with run.learner() as learner:
        learner.loop.start()
        run.record(run.turn("tell me the same", "abc", turn_id="told"), hint="say xyz")
        gather(learner.log, "default", "auto")
        decide(run, state)
        run.record(run.turn("tell me the same", "abd", turn_id="untold"), reward=-1.0)
        learner.work()

        assert run.account() == expected


def test_an_approval_brings_back_the_turns_that_had_nothing_to_show(tmp_path: Path, base: Path) -> None:
    run = in_review(Run(tmp_path / "run", base, batch__turns_per_step=1))
    with run.learner() as learner:
        learner.loop.start()
        run.record(run.turn("tell me the same", "abc", turn_id="told"), hint="say xyz")
        run.record(run.turn("tell me the same", "abd", turn_id="untold"), reward=-1.0)
        run.record(run.turn("and now for something else", "abc", turn_id="unlike"), reward=-1.0)
        learner.work()
        assert run.account() == (3, 0, {"no context": 1}, {"review": 2}), "the unlike one waits for nothing"
        assert learner.log.fate("untold") == "pending:review"

        decide(run, LessonState.APPROVED)
        learner.loop._refreshed = -float("inf")
        learner.work()

        assert run.account() == (3, 2, {"no context": 1}, {})


@pytest.mark.parametrize("state", [LessonState.REJECTED, LessonState.RETIRED])
def test_turns_that_waited_for_the_approval_of_anothers_hint_have_no_context_once_it_is_turned_down(
    tmp_path: Path, base: Path, state: LessonState
) -> None:
    run = in_review(Run(tmp_path / "run", base, batch__turns_per_step=1))
    with run.learner() as learner:
        learner.loop.start()
        run.record(run.turn("tell me the same", "abc", turn_id="told"), hint="say xyz")
        run.record(run.turn("tell me the same", "abd", turn_id="untold"), reward=-1.0)
        learner.work()
        assert run.account() == (2, 0, {}, {"review": 2})

        decide(run, state)
        learner.loop._refreshed = -float("inf")
        learner.work()

        assert run.account() == (2, 0, {f"lesson_{state.value}": 1, "no context": 1}, {})


def test_a_turn_waits_for_a_proposed_lesson_from_elsewhere_too(tmp_path: Path, base: Path) -> None:
    run = in_review(Run(tmp_path / "run", base, batch__turns_per_step=1))
    comment = Lesson(
        id="L1",
        text="say xyz",
        state=LessonState.PROPOSED,
        turn_ids=(),
        origin="import",
        situation=("tell", "me"),
    )
    with run.learner() as learner:
        learner.loop.start()
        learner.log.add_lessons([comment])
        run.record(run.turn("tell me", "abd", turn_id="untold"), reward=-1.0)
        learner.work()
        assert run.account() == (1, 0, {}, {"review": 1})

        decide(run, LessonState.APPROVED)
        learner.loop._refreshed = -float("inf")
        learner.work()

        assert run.account() == (1, 1, {}, {})


def test_without_review_a_comment_from_elsewhere_goes_on_waiting_and_no_turn_waits_with_it(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base, batch__turns_per_step=1)
    comment = Lesson(
        id="L1",
        text="say xyz",
        state=LessonState.PROPOSED,
        turn_ids=(),
        origin="import",
        situation=("tell", "me"),
    )
    with run.learner() as learner:
        learner.loop.start()
        learner.log.add_lessons([comment])
        run.record(run.turn("tell me", "abd", turn_id="untold"), reward=-1.0)
        for _ in range(10):
            learner.loop.once()

        assert run.account() == (1, 0, {"no context": 1}, {}), "it is not claimed again and again"
        assert [one.state for one in learner.log.lessons()] == [LessonState.PROPOSED]
        decide(run, LessonState.APPROVED)
        learner.loop._refreshed = -float("inf")
        learner.work()

        assert run.account() == (1, 1, {}, {})


def test_a_decision_reaches_hints_that_are_remembered_already(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base, batch__turns_per_step=1)
    with run.learner() as learner:
        learner.loop.start()
        run.record(run.turn("tell me the same", "abc", turn_id="told"), hint="say xyz")
        learner.work()
        assert run.account() == (1, 1, {}, {})

        decide(run, LessonState.RETIRED)
        run.record(run.turn("tell me the same", "abd", turn_id="untold"), reward=-1.0)
        learner.work()

        assert run.account() == (2, 1, {"no context": 1}, {})


def test_a_decision_takes_turns_out_of_the_hand_and_an_approval_brings_them_back_once(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base, batch__max_wait_s=1e9)
    with run.learner() as learner:
        learner.loop.start()
        run.hinted(2, hint="say xyz")
        run.hinted(1, hint="say abc")
        learner.work()
        assert run.account() == (3, 0, {}, {"claimed": 3})
        decide(run, LessonState.REJECTED, "say abc")
        run.hinted(1, hint="say xyz")
        learner.work()
        assert run.account() == (4, 0, {"lesson_rejected": 1}, {"claimed": 3}), "three are no full step"
        decide(run, LessonState.APPROVED, "say abc")
        learner.work()

        assert run.account() == (4, 4, {}, {})
        assert [(step["num_turns"], step.get("lost")) for step in learner.journal.of("step")] == [(4, None)]


def test_a_decision_within_a_step_costs_the_steps_without_a_version_and_no_turn_stays_behind(
    tmp_path: Path, base: Path
) -> None:
    run = Run(
        tmp_path / "run", base, batch__turns_per_step=2, batch__steps_per_version=2, batch__max_wait_s=1e9
    )
    with run.learner() as learner:
        learner.loop.start()
        run.hinted(2, hint="say xyz")
        learner.work()
        assert run.account() == (2, 0, {}, {"claimed": 2})
        run.hinted(1, hint="say abc")
        run.hinted(1, hint="say xyz")
        learner.journal.at_stage["record"] = lambda: decide(run, LessonState.REJECTED, "say abc")
        learner.loop.once()

        assert run.account() == (4, 0, {"lesson_rejected": 1}, {"waiting": 3})
        run.hinted(1, hint="say xyz")
        learner.work()

        assert run.account() == (5, 4, {"lesson_rejected": 1}, {})


def test_an_imported_lesson_is_shown_to_the_teacher_of_a_like_request(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base, batch__turns_per_step=1)
    lesson = Lesson(
        id="L1",
        text="say xyz",
        state=LessonState.APPROVED,
        turn_ids=(),
        origin="import",
        situation=("me", "same", "tell", "the"),
    )
    with LearningLog(run.path) as log:
        log.add_lessons([lesson, lesson_in(lesson, LessonState.PROPOSED, "L2", "say abc")])
    in_review(run)
    with run.learner() as learner:
        learner.loop.start()
        run.record(run.turn("tell me the same", "abc"), reward=-1.0)
        run.record(run.turn("and now for something else", "abc"), reward=-1.0)
        learner.work()

        assert run.account() == (2, 1, {"no context": 1}, {})
    with LearningLog(run.path) as log:
        [step] = [log.step(number) for number in log.serving().step_ids]
        assert step is not None
        assert step.metrics["hints_from"] == {"turn1": ["L1"]}


def lesson_in(lesson: Lesson, state: LessonState, id_: str, text: str) -> Lesson:
    return replace(lesson, state=state, id=id_, text=text)
