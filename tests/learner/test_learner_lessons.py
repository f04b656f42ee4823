"""The learner and its lessons: nothing unapproved is taught, decisions reach what is remembered, versions are asked."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from learner_run import Learner, Run, write_base

from agentrl.learner.lesson_probes import MAX_ANSWER, MAX_PROBES, LessonProbes
from agentrl.signals.lessons import gather, of_skill
from agentrl.store.learning_log import LearningLog
from agentrl.store.version_log import Probe
from agentrl.types import Block, Lesson, LessonState, Purpose


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


# probes


def answer_of(learner: Learner, prompt: str) -> str:
    """The greedy answer, one full pass an id."""
    renderer, model = learner.run.renderer, learner.trainer.policy.causal_lm
    ids = list(learner.run.prompt(prompt))
    start = len(ids)
    with torch.no_grad():
        while len(ids) < start + MAX_ANSWER and (len(ids) == start or ids[-1] not in renderer.stop_ids):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return renderer.parse(ids[start:], ()).text


def asked_for(run: Run, id_: str, prompt: str, *names: str) -> Lesson:
    return Lesson(
        id=id_,
        text=f"text of {id_}",
        state=LessonState.APPROVED,
        turn_ids=(),
        probe={
            "messages": [{"role": "user", "content": prompt}],
            "tools": [],
            "held_out": True,
            "check": {"contains": list(names), "lacks": []},
        },
        situation=tuple(prompt.split()),
    )


def test_a_served_version_is_asked_without_the_lesson_in_view_and_its_answer_recorded(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base)
    with run.learner(asks_lessons=True) as learner:
        learner.loop.start()
        run.hinted(4)
        learner.work()
        said = answer_of(learner, "what now")
        assert said.strip()
        learner.log.add_lessons(
            [asked_for(run, "L1", "what now", said), asked_for(run, "L2", "what now", "zorp")]
        )

        assert learner.probes.run(1) == {"L1": True, "L2": False}

        [first, second] = [found for found in learner.log.lessons() if found.id in ("L1", "L2")]
        assert (first.held_by, second.held_by, second.broken_by) == ((1,), (), ())
        assert [probe.name for probe in learner.log.probes("default", 1)][-2:] == ["lesson L1", "lesson L2"]


def test_the_learner_asks_each_version_once_it_serves(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base)
    with run.learner(asks_lessons=True) as learner:
        learner.loop.start()
        learner.log.add_lessons([asked_for(run, "L1", "what now", "zorp")])
        run.hinted(4)
        learner.work()

        assert [event["version"] for event in learner.journal.of("lessons")] == [1]
        assert learner.journal.of("lessons")[0]["not_held"] == ["L1"]
        probes = [p for p in learner.log.probes("default", 1) if p.name == "lesson L1"]
        assert [probe.passed for probe in probes] == [False]


def test_versions_take_turns_where_there_are_more_lessons_than_one_is_asked_for(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base)
    with run.learner() as learner:
        learner.loop.start()
        learner.log.add_lessons(
            [asked_for(run, f"L{number:02}", "what now", "zorp") for number in range(MAX_PROBES + 3)]
        )
        first, second = learner.probes.run(0), learner.probes.run(0)

        assert len(first) == len(second) == MAX_PROBES
        assert set(first) | set(second) == {f"L{number:02}" for number in range(MAX_PROBES + 3)}


def test_a_learner_that_publishes_fast_asks_less_often(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base)
    ticks = iter([10.0, 13.0, 39.9, 40.0])
    with run.learner() as learner:
        learner.loop.start()
        learner.log.add_lessons([asked_for(run, "L1", "what now", "zorp")])
        probes = LessonProbes(
            learner.log, run.renderer, learner.trainer, policy="default", clock=lambda: next(ticks)
        )

        assert set(probes.run(0)) == {"L1"}, "it took from 10 to 13, so it rests for 9 * 3 s"
        assert [probes.due(), probes.due()] == [False, True]


def test_only_approved_lessons_with_a_probe_are_asked(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base)
    with run.learner() as learner:
        learner.loop.start()
        one = asked_for(run, "L1", "what now", "zorp")
        learner.log.add_lessons(
            [lesson_in(one, state, f"L{state.value}", "x") for state in LessonState]
            + [Lesson(id="bare", text="be kind", state=LessonState.APPROVED, turn_ids=())]
        )

        assert set(learner.probes.run(0)) == {"Lapproved"}


def test_skills_are_asked_for_beside_the_lessons_of_hints(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base)
    [turn] = run.record(run.turn("show the file", "abc", turn_id="shown"), reward=1.0)
    skills = [
        of_skill("default", "use-zorp", 'Run "zorp" instead.', turn),
        of_skill("team", "from-elsewhere", 'Run "zorp" instead.', None),
    ]
    with run.learner() as learner:
        learner.loop.start()
        probes = LessonProbes(
            learner.log, run.renderer, learner.trainer, policy="default", skills=lambda: skills
        )

        assert probes.run(0) == {"skill:use-zorp": False}
        assert skills[1].id == "skill:team/from-elsewhere"
        learner.log.record_probe("default", 0, Probe(name="lesson skill:use-zorp", passed=True))
        assert [found.held_by for found in learner.log.with_results(skills)] == [(0,), ()]


def test_the_situation_becomes_one_that_nothing_is_trained_on_as_soon_as_there_is_one(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base)
    with run.learner() as learner:
        learner.loop.start()
        run.record(run.turn("tell me the same thing again", "abc", turn_id="told"), hint='say "xyz"')
        learner.work()
        [lesson] = learner.log.lessons()
        assert lesson.probe is not None
        assert (lesson.probe["turn_id"], lesson.probe["held_out"]) == ("told", False)

        learner.probes.run(0)
        assert learner.log.lessons()[0].probe == lesson.probe

        run.record(run.turn("something else", "abc", turn_id="other", purpose=Purpose.EVAL))
        run.record(
            run.turn(
                "tell me the same thing again", "abd", turn_id="foreign", purpose=Purpose.EVAL, scope="x"
            )
        )
        learner.probes.run(0)
        assert learner.log.lessons()[0].probe == lesson.probe

        run.record(run.turn("tell me the same thing again", "abd", turn_id="apart", purpose=Purpose.EVAL))
        learner.probes.run(0)
        found = learner.log.lessons()[0].probe
        assert found == {"turn_id": "apart", "held_out": True, "check": lesson.probe["check"]}


def test_a_situation_in_whose_prompt_another_lesson_stood_is_asked_without_it(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base)
    turn = run.turn("tell me the same", "abc", turn_id="told")
    block = Block(position="system", text="Hint: say abc")
    view = run.renderer.insert(turn.prompt_ids, len(turn.prompt_ids), [block])
    shown = replace(turn, prompt_ids=view.token_ids, block_spans=view.inserted_spans, shown_lessons=("L1",))
    run.record(shown, hint='say "xyz"')
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
        [lesson] = learner.log.lessons()
        assert run.account() == (1, 0, {"lesson_shown": 1}, {})
        asked = learner.probes._prompt(lesson.probe or {})

        assert asked is not None
        assert asked[0] == turn.prompt_ids != shown.prompt_ids
