"""Updates that praise nothing, where rewards are taken as they are: penalties weigh at most as much as praise."""

import time
from pathlib import Path

import pytest
import torch
from guarded_run import guarded, say
from learner_run import Learner, Run, write_base

from agentrl.store.learning_log import LearningLog
from agentrl.types import Lesson, LessonState, Turn
from server.doctor import REMEDIES

UNPRAISED = "no praise"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("model") / "base")


def begun(folder: Path, base: Path, recipe: str = "openclaw_rl_binary", **changes: object) -> Run:
    """The log-probs of its turns are made up."""
    settings = {"limits__max_logprob_gap": 1e9, "batch__turns_per_step": 4} | changes
    return guarded(Run(folder, base, recipe=recipe, **settings))


def turn(run: Run, session: str | None = None) -> Turn:
    return run.turn(f"task {run.num_turns}", "abc", session=session, logprobs=(-5.0,) * 4)


def played(run: Run, num: int, reward: float) -> list[Turn]:
    return run.record(*(turn(run) for _ in range(num)), reward=reward)


def steps(learner: Learner) -> list[dict[str, object]]:
    return [step for step in learner.journal.of("step") if step["step"]]


def test_it_makes_no_step_though_earlier_ones_left_momentum_and_its_turns_wait_for_another_word(
    tmp_path: Path, base: Path
) -> None:
    run = begun(tmp_path / "run", base)
    with run.learner() as learner:
        learner.loop.start()
        played(run, 4, 1.0)
        learner.work()
        before = learner.bits()[0]

        blamed = played(run, 3, -1.0) + played(run, 1, 0.0)
        learner.work()
        assert run.account() == (8, 4, {UNPRAISED: 4}, {})
        assert all(torch.equal(tensor, learner.bits()[0][name]) for name, tensor in before.items())

        played(run, 4, 1.0)
        say(run, blamed[0], "user", -1.0, at=time.time())
        learner.work()
        assert run.account() == (12, 8, {UNPRAISED: 3, "held_out": 1}, {})
        assert [step["metrics"]["penalty_factor"] for step in steps(learner)] == [1.0, 1.0]


def test_replayed_turns_make_no_step_alone(tmp_path: Path, base: Path) -> None:
    run = begun(tmp_path / "run", base, rollout={"name": "replay", "share": 0.5})
    with run.learner() as learner:
        learner.loop.start()
        played(run, 2, 1.0)
        learner.work()
        played(run, 2, -1.0)
        learner.work()
        assert run.account() == (4, 2, {UNPRAISED: 2}, {})
        assert len(steps(learner)) == 1


def test_rehearsed_answers_make_no_step_alone(tmp_path: Path, base: Path) -> None:
    summed = {"mix": {"name": "sum"}, "advantage": "raw", "limits__max_version_lag": 0}
    run = guarded(begun(tmp_path / "run", base, "hint_opsd", **summed), max_kl_update=0.0, max_kl_base=0.0)
    with run.learner(rehearses=True) as learner:
        learner.loop.start()
        played(run, 4, -1.0)
        learner.work()
        assert run.account() == (4, 0, {UNPRAISED: 4}, {})
        assert steps(learner) == []


def test_what_a_teacher_says_without_a_hint_is_learned_all_the_same(tmp_path: Path, base: Path) -> None:
    run = begun(tmp_path / "run", base, "openclaw_rl", context="none", route="all", sync="fixed")
    with run.learner() as learner:
        learner.loop.start()
        played(run, 4, -1.0)
        learner.work()
        assert run.account() == (4, 4, {}, {})
        [step] = steps(learner)
        assert step["metrics"]["penalty_factor"] == 0.0


def test_what_teaches_nothing_has_no_part_in_the_shares(tmp_path: Path, base: Path) -> None:
    run = begun(tmp_path / "run", base, "openclaw_rl", batch__turns_per_step=8)
    with run.learner() as learner:
        learner.loop.start()
        hinted = run.record(*(turn(run, session="loud") for _ in range(3)), turn(run, session="quiet"))
        for one in hinted:
            say(run, one, "user", -1.0, "say xyz")
        played(run, 4, -1.0)
        learner.work()
        assert run.account() == (8, 4, {UNPRAISED: 4}, {})
        [step] = steps(learner)
        assert step["metrics"]["share/session"] == pytest.approx(0.5)


def test_a_step_that_is_lost_sets_nothing_aside(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(tmp_path / "run", base, "openclaw_rl", batch__turns_per_step=2)
    with run.learner() as learner:
        learner.loop.start()
        hinted = run.record(turn(run))
        say(run, hinted[0], "user", -1.0, "say xyz")
        [blamed] = played(run, 1, -1.0)
        record = learner.log.record_step

        def taken_back(*args: object, **named: object) -> int:
            monkeypatch.setattr(learner.log, "record_step", record)
            learner.log.release([hinted[0].id])
            return record(*args, **named)

        monkeypatch.setattr(learner.log, "record_step", taken_back)
        learner.loop.once()
        [step] = learner.journal.of("step")
        assert "lost" in step
        assert learner.log.fate(blamed.id) == "pending:waiting"


def test_a_word_that_comes_while_a_turn_is_in_hand_is_heard(tmp_path: Path, base: Path) -> None:
    run = begun(tmp_path / "run", base, batch__max_wait_s=1e9)
    with run.learner() as learner:
        learner.loop.start()
        first = played(run, 3, -1.0)[0]
        learner.work()
        assert run.account() == (3, 0, {}, {"claimed": 3})
        say(run, first, "user", 1.0, at=time.time())
        played(run, 1, -1.0)
        learner.work()
        assert run.account() == (4, 0, {UNPRAISED: 3}, {"claimed": 1})


def test_words_and_lessons_of_a_clock_that_was_set_back_do_not_keep_a_turn_coming_back(
    tmp_path: Path, base: Path
) -> None:
    run = begun(tmp_path / "run", base, batch__turns_per_step=1)
    with run.learner() as learner:
        learner.loop.start()
        [alone] = run.record(turn(run))
        say(run, alone, "user", -1.0, at=time.time() + 3600)
        learner.work()
        assert run.account() == (1, 0, {UNPRAISED: 1}, {})
        assert len(learner.journal.of("step")) == 1

        played(run, 1, -1.0)
        with LearningLog(run.path, clock=lambda: time.time() + 7200) as log:
            rule = Lesson(id="rule", text="say xyz", state=LessonState.APPROVED, turn_ids=(), origin="import")
            log.add_lessons([rule])
        learner.work()
        assert run.account() == (2, 0, {UNPRAISED: 2}, {})
        assert len(learner.journal.of("step")) <= 4


def test_the_doctor_names_the_ways_out() -> None:
    assert "reward what was right" in REMEDIES[UNPRAISED]
    assert "guards.max_penalty=0" in REMEDIES[UNPRAISED]
