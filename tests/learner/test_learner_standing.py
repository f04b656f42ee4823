"""A user's other wishes beside a turn's own hint: whose they are, which may be shown, what is recorded."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from learner_run import NOW, Learner, Run, write_base

from agentrl.recipes.recipe import load_recipe
from agentrl.store.learning_log import LearningLog
from agentrl.store.signal_log import SignalLog
from agentrl.types import JSON, LessonState, MatchedBy, NextState, Signal, SignalSource, TrainingSample, Turn


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("model") / "base")


def user(text: str) -> JSON:
    return {"role": "user", "content": text}


def tool(text: str) -> JSON:
    return {"role": "tool", "content": text, "tool_call_id": "c1"}


def standing_run(path: Path, base: Path, *, approve: str = "auto", **settings: object) -> Run:
    run = Run(
        path, base, batch__turns_per_step=1, **{"context__standing": 2, "context__recall": 0.0} | settings
    )
    learn = run.config.learn.model_copy(update={"approve": approve})
    run.config = run.config.model_copy(update={"learn": learn})
    return run


def told(
    run: Run,
    name: str,
    hint: str | None,
    *answers: JSON,
    source: SignalSource = SignalSource.RULE,
    scope: str = "default",
) -> Turn:
    """A turn called `name`, what it was answered, and a hint that a judge made of it."""
    turn = run.turn(f"request {name}", "abc", turn_id=name, scope=scope)

    async def write() -> None:
        async with await SignalLog.open(run.path) as log:
            await log.record_turn(turn, history_key=f"h-{name}", reply_key=f"r-{name}")
            state = NextState(turn_id=name, messages=answers, matched_by=MatchedBy.HISTORY, received_at=NOW)
            await log.record_next_state(state)
            if hint is not None:
                await log.record_signal(
                    Signal(turn_id=name, source=source, reward=-1.0, hint=hint, created_at=NOW)
                )
            await log.mark_judged(name, "judged")

    asyncio.run(write())
    return turn


def wished(run: Run, name: str, wish: str, scope: str = "default") -> Turn:
    return told(run, name, wish, user(wish), scope=scope)


def decide(run: Run, state: LessonState, text: str) -> None:
    with LearningLog(run.path) as log:
        log.decide([found.id for found in log.lessons() if found.text == text], state)


def shown(learner: Learner, name: str) -> list[str]:
    """The hints in the teacher's view of a turn, which holds nothing else beyond the served and the sampled ids."""
    memory = learner.loop._memory
    assert memory is not None
    memory.update()
    claims = learner.log.records([name])
    samples = learner.loop._builder.build(claims, newest_version=0).samples
    return hints_in(learner, samples[0]) if samples else []


def hints_in(learner: Learner, sample: TrainingSample) -> list[str]:
    view = sample.teacher
    assert view is not None
    left, hints = list(view.token_ids), []
    for start, end in reversed(view.inserted_spans):
        block = learner.run.renderer.decode(left[start:end])
        hints.append(block.split("Hint: ")[1].split("<|im_end|>")[0])
        del left[start:end]
    assert tuple(left) == sample.token_ids, "law 2: without the blocks the teacher reads what was served"
    return hints[::-1]


def test_the_teacher_of_a_turn_reads_the_users_newest_other_wishes_and_last_the_turns_own(
    tmp_path: Path, base: Path
) -> None:
    run = standing_run(tmp_path / "run", base)
    wishes = (
        "Please use a table.",
        "Please use metric units.",
        "Please use no ending.",
        "Please use cheers.",
    )
    for name, wish in zip("abcd", wishes, strict=True):
        wished(run, name, wish)
    told(run, "e", None, user("Thanks."))
    with run.learner() as learner:
        learner.loop.start()

        assert shown(learner, "d") == list(wishes[1:])
        assert shown(learner, "a") == ["Please use a table."]
        assert shown(learner, "e") == ["Please use no ending.", "Please use cheers."]
        learner.work()

        assert run.account() == (5, 5, {}, {})
        steps = [step for number in range(1, 6) if (step := learner.log.step(number)) is not None]
        hints_from: dict[str, list[str]] = {}
        for step in steps:
            hints_from |= step.metrics["hints_from"]
        assert hints_from == {"b": ["a"], "c": ["a", "b"], "d": ["b", "c"], "e": ["c", "d"]}
        of_a = [step.version for step in steps if {"b", "c"} & set(step.metrics["hints_from"])]
        assert len(of_a) == 2
        assert learner.log.learned_from([], ["a"]) == of_a


def test_what_another_key_said_is_shown_to_no_teacher_of_mine(tmp_path: Path, base: Path) -> None:
    run = standing_run(tmp_path / "run", base)
    wished(run, "a", "Please use a table.", scope="alice")
    wished(run, "b", "Please use metric units.", scope="bob")
    with run.learner() as learner:
        learner.loop.start()

        assert shown(learner, "b") == ["Please use metric units."]


@pytest.mark.parametrize(
    ("source", "answers", "stands"),
    [
        (SignalSource.RULE, (user("No. Please use a table."),), True),
        (SignalSource.USER, (tool("done"),), True),
        (SignalSource.RULE, (tool("error: Please use a table."),), False),
        (SignalSource.RULE, (tool("error: Please use a table."), user("Please use a table.")), False),
        (SignalSource.RULE, (tool("done"), user("Please use a table.")), False),
        (SignalSource.JUDGE, (user("Hm."),), False),
        (SignalSource.ENVIRONMENT, (), False),
    ],
)
def test_only_a_users_own_words_stand(
    tmp_path: Path, base: Path, source: SignalSource, answers: tuple[JSON, ...], stands: bool
) -> None:
    run = standing_run(tmp_path / "run", base)
    told(run, "a", "Please use a table.", *answers, source=source)
    wished(run, "b", "Please use metric units.")
    with run.learner() as learner:
        learner.loop.start()

        assert (shown(learner, "b") == ["Please use a table.", "Please use metric units."]) is stands


@pytest.mark.parametrize("state", [LessonState.REJECTED, LessonState.RETIRED])
def test_a_lesson_that_is_turned_down_stands_no_more(tmp_path: Path, base: Path, state: LessonState) -> None:
    run = standing_run(tmp_path / "run", base)
    wished(run, "a", "Please use a table.")
    wished(run, "b", "Please use metric units.")
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
        assert shown(learner, "b") == ["Please use a table.", "Please use metric units."]

        decide(run, state, "Please use a table.")

        assert shown(learner, "b") == ["Please use metric units."]


def test_in_review_a_wish_stands_once_it_is_approved_and_turns_wait_for_it(
    tmp_path: Path, base: Path
) -> None:
    run = standing_run(tmp_path / "run", base, approve="review")
    wished(run, "a", "Please use a table.")
    told(run, "b", None, user("Thanks."))
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
        assert run.account() == (2, 0, {}, {"review": 2})
        assert shown(learner, "b") == []

        decide(run, LessonState.APPROVED, "Please use a table.")
        learner.loop._refreshed = -float("inf")
        learner.work()

        assert shown(learner, "b") == ["Please use a table."]
        assert run.account() == (2, 2, {}, {})


def test_a_hint_that_holds_the_answer_does_not_stand_where_none_may(tmp_path: Path, base: Path) -> None:
    run = standing_run(tmp_path / "run", base, context__may_hold_answer=False)
    wished(run, "a", "Please use the number 4711.")
    wished(run, "b", "Please use a table.")
    with run.learner() as learner:
        learner.loop.start()
        assert learner.loop._memory is not None
        learner.loop._memory.update()
        [claim] = learner.log.records(["b"])
        preferring = replace(claim, signals=(*claim.signals, replace(claim.signals[0], preferred="4711")))
        views = [
            learner.loop._builder.build([one], newest_version=0).samples[0] for one in (claim, preferring)
        ]

        assert [hints_in(learner, view) for view in views] == [
            ["Please use the number 4711.", "Please use a table."],
            ["Please use a table."],
        ]


def test_a_recipe_with_standing_wishes_takes_turns_without_a_hint() -> None:
    bare = {"context": {"name": "hindsight_hint", "recall": 0.0}, "route": "has_context"}

    assert load_recipe("hint_opsd", bare).needs == "hint"
    assert load_recipe("hint_opsd", bare | {"context.standing": 1}).needs == "any"
