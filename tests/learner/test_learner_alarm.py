"""What an alarm of the watch does: it pauses, goes back, is not lost, and is not raised for other tasks alone."""

import dataclasses
from pathlib import Path

import pytest
from guarded_run import held_out_names
from learner_run import Killed, Learner, Run, same, saved_bits, write_base

from agentrl.config import GuardsConfig, write_config
from agentrl.learner.control import is_paused, pause_reason, set_paused
from agentrl.learner.guard_report import read_report
from agentrl.store.learning_log import LearningLog
from agentrl.types import Arm


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("model") / "base")


def guarded(run: Run, **guards: object) -> Run:
    """The run with other guards."""
    run.config = run.config.model_copy(update={"guards": GuardsConfig(**guards)})
    write_config(run.config, run.path / "config.json")
    return run


def states(run: Run) -> dict[int, str]:
    with LearningLog(run.path) as log:
        return {version.number: version.state.value for version in log.versions()}


def answered(run: Run, num: int, *, version: int, asks: bool, **changes: object) -> None:
    """Turns with nothing to learn from, which the watch sees."""
    text = "Shall I?" if asks else "Done it!"
    run.record(*(run.turn(f"chat {run.num_turns + i}", text, version=version, **changes) for i in range(num)))


def drifted(run: Run, learner: Learner) -> None:
    """Sixteen plain turns, then a version, then sixteen turns of it that only ask."""
    answered(run, 16, version=0, asks=False)
    learner.loop.start()
    run.hinted(4)
    learner.work()
    assert states(run)[1] == "serving"
    answered(run, 16, version=1, asks=True)
    learner.guards._watch._looked_at = -1e9  # type: ignore[union-attr]
    learner.work()


def test_an_alarm_pauses_learning_and_rolls_back_with_the_reason_shown(tmp_path: Path, base: Path) -> None:
    run = guarded(Run(tmp_path / "run", base), watch_turns=16)
    with run.learner() as learner:
        drifted(run, learner)

        assert states(run) == {0: "serving", 1: "rejected"}
        assert is_paused(run.path)
        assert "the rate of questions is 1.00, 0.00 in the reference" in pause_reason(run.path)
        assert run.account()[2]["rolled_back"] == 4
        assert [event["target"] for event in learner.journal.of("alarm")] == [0]
        assert read_report(run.path)["alarm"]["reasons"] == [
            "the rate of questions is 1.00, 0.00 in the reference"
        ]

        set_paused(run.path, paused=False)
        learner.guards._watch._looked_at = -1e9  # type: ignore[union-attr]
        learner.work()
        assert not is_paused(run.path)  # the turns before the alarm are not held against it again


@pytest.mark.parametrize(("watch", "paused"), [("pause", True), ("report", False)])
def test_what_an_alarm_does_is_the_runs_to_say(tmp_path: Path, base: Path, watch: str, paused: bool) -> None:
    run = guarded(Run(tmp_path / "run", base), watch_turns=16, watch=watch)
    with run.learner() as learner:
        drifted(run, learner)

        assert states(run)[1] == "serving"
        assert is_paused(run.path) == paused
        assert len(learner.journal.of("alarm")) == 1


def test_other_tasks_for_the_same_version_raise_no_alarm(tmp_path: Path, base: Path) -> None:
    run = guarded(Run(tmp_path / "run", base), watch_turns=16)
    with run.learner() as learner:
        answered(run, 16, version=0, asks=False)
        answered(run, 16, version=0, asks=True)
        learner.loop.start()
        learner.work()

        assert read_report(run.path)["watch"]["questions"] == {"now": 1.0, "reference": 0.0}
        assert learner.journal.of("alarm") == []
        assert not is_paused(run.path)


def test_what_an_alarm_was_raised_for_is_the_reference_from_then_on(tmp_path: Path, base: Path) -> None:
    run = guarded(Run(tmp_path / "run", base), watch_turns=16, watch="report")
    later = 4e9
    with run.learner() as learner:
        drifted(run, learner)
        assert len(learner.journal.of("alarm")) == 1

        answered(run, 16, version=1, asks=True, received_at=later)
        answered(run, 16, version=2, asks=True, received_at=later + 1)
        learner.guards._watch._looked_at = -1e9  # type: ignore[union-attr]
        learner.work()
        assert read_report(run.path)["watch"]["questions"] == {"now": 1.0, "reference": 1.0}
        assert len(learner.journal.of("alarm")) == 1


def test_a_learner_killed_before_it_answered_an_alarm_is_followed_by_one_that_does(
    tmp_path: Path, base: Path
) -> None:
    run = guarded(Run(tmp_path / "run", base), watch_turns=16)

    def kill() -> None:
        raise Killed("between the pause and the rollback")

    with run.learner() as learner:
        learner.journal.at_stage["alarm"] = kill
        with pytest.raises(Killed):
            drifted(run, learner)
    assert states(run) == {0: "retired", 1: "serving"}
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
    assert states(run) == {0: "serving", 1: "rejected"}
    assert is_paused(run.path)


def test_the_control_arm_is_the_reference_where_there_is_one(tmp_path: Path, base: Path) -> None:
    run = guarded(Run(tmp_path / "run", base), watch_turns=16)
    learn = run.config.learn.model_copy(update={"control_share": 0.5})
    run.config = run.config.model_copy(update={"learn": learn})
    with run.learner() as learner:
        answered(run, 16, version=0, asks=False)
        learner.loop.start()
        # everybody asks now, the control arm as well: it is the tasks
        control = [dataclasses.replace(run.turn(f"c{i}", "Shall I?"), arm=Arm.CONTROL) for i in range(16)]
        run.record(*control)
        answered(run, 16, version=0, asks=True)
        learner.work()

        assert learner.journal.of("alarm") == []
        assert read_report(run.path)["watch"]["against"] == "control"


def test_a_watch_that_is_off_watches_nothing(tmp_path: Path, base: Path) -> None:
    with guarded(Run(tmp_path / "run", base), watch="off").learner() as learner:
        assert learner.guards._watch is None


@pytest.mark.parametrize(("bound", "serves"), [(9.0, 1), (1e-9, 0)])
def test_a_version_that_is_bad_as_well_is_passed_over_and_the_report_says_why(
    tmp_path: Path, base: Path, bound: float, serves: int
) -> None:
    """Versions that passed a gate without a bound on what version 0 did well; who sees the alarm has one."""
    run = guarded(Run(tmp_path / "run", base), watch="off", max_kl_base=0.0)
    run.record(*(run.turn(name, "fine", turn_id=name) for name in held_out_names(4)), reward=1.0)
    with run.learner() as learner:
        answered(run, 16, version=0, asks=False)
        learner.loop.start()
        for number in (1, 2):
            run.hinted(4, version=number - 1)
            learner.work()
    guarded(run, watch="rollback", watch_turns=16, max_kl_base=bound, max_surprise=0.0)
    with run.learner() as learner:
        learner.loop.start()
        answered(run, 16, version=2, asks=True)
        learner.work()

        assert states(run) == {0: "serving", 1: "rejected", 2: "rejected"} | (
            {0: "retired", 1: "serving"} if serves else {}
        )
        [event] = learner.journal.of("alarm")
        assert event["target"] == serves
        alarm = read_report(run.path)["alarm"]
        assert (alarm["acts"], alarm["serves"]) == ("rollback", serves)
        assert list(alarm["passed_over"]) == ([] if serves else ["1"])
        assert all(why.startswith("KL to version 0 is ") for why in alarm["passed_over"].values())
        assert same(learner.bits(), saved_bits(run, 1)) if serves else learner.trainer.num_steps == 0
