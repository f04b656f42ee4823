"""A rule is asked for like any lesson, taught until the weights keep it by themselves, and again once they do not."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from learner_run import Learner, Run, write_base
from test_learner_lesson_probes import IMPERIAL, LAMP, SHOW, UNITS, asked, asked_for, teach

from agentrl.learner.lesson_probes import MAX_PROBES
from agentrl.nano import weights_dir
from agentrl.signals.standing import rests
from agentrl.store.lesson_rows import PROBE
from agentrl.store.version_log import Probe
from agentrl.teacher.recall import MAX_RULES
from agentrl.types import Lesson, LessonState, Purpose
from server.inspect import explain_turn

DOOR = LAMP.replace("lamp", "door")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("model") / "base")


def rule(id_: str = "R1", text: str = UNITS) -> Lesson:
    """A review comment that names no request."""
    return Lesson(id=id_, text=text, state=LessonState.APPROVED, turn_ids=(), origin="import")


def only(learner: Learner) -> Lesson:
    [lesson] = learner.log.lessons()
    return lesson


def test_a_rule_is_asked_for_in_the_newest_requests_and_held_once_the_weights_do_as_it_says(
    tmp_path: Path,
) -> None:
    run = Run(tmp_path / "run", weights_dir())
    [lamp, *_] = run.record(asked(run, LAMP, turn_id="lamp"), asked(run, SHOW, turn_id="show"))
    with run.learner() as learner:
        learner.loop.start()
        learner.log.add_lessons([rule()])

        assert learner.probes.run(0) == {"R1": False}
        assert only(learner).probe == {
            "turn_ids": ["lamp", "show"], "held_out": False, "names": [], "has_effect": True,
        }  # fmt: skip
        assert not rests(only(learner))
        teach(learner, lamp, f"{IMPERIAL}\nCheers")
        assert learner.probes.run(0) == {"R1": True}, "in a shell it has no effect, and only the note counts"
        assert (only(learner).held_by, rests(only(learner))) == ((0,), True)


def test_a_rule_moves_to_what_nothing_is_trained_on_and_away_from_where_it_changes_nothing(
    tmp_path: Path,
) -> None:
    run = Run(tmp_path / "run", weights_dir())
    run.record(asked(run, SHOW, turn_id="show"))
    with run.learner() as learner:
        learner.loop.start()
        learner.log.add_lessons([rule()])

        assert learner.probes.run(0) == {"R1": None}
        assert only(learner).without_effect == (0,)
        run.record(asked(run, LAMP, turn_id="lamp"))
        assert learner.probes.run(0) == {"R1": False}
        run.record(asked(run, DOOR, turn_id="door", purpose=Purpose.EVAL))
        assert learner.probes.run(0) == {"R1": False}
        found = only(learner).probe
        assert found == {"turn_ids": ["door"], "held_out": True, "names": [], "has_effect": True}
        run.record(asked(run, LAMP, turn_id="later", purpose=Purpose.EVAL))
        learner.probes.run(0)
        assert only(learner).probe == found, "it stays there"


def test_rules_take_as_many_places_as_they_have_situations(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base)
    run.record(*(run.turn(f"tell me {number}", "abc", task_key=f"task {number}") for number in range(4)))
    with run.learner() as learner:
        learner.loop.start()
        learner.log.add_lessons([rule(f"R{number}") for number in range(3)])

        assert set(learner.probes.run(0)) == {"R0", "R1"}, f"of {MAX_PROBES} places four each"
        assert set(learner.probes.run(0)) == {"R2", "R0"}


def test_a_rule_without_a_situation_takes_no_lesson_s_place(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base)
    run.record(run.turn("tell me", "abc"))
    with run.learner() as learner:
        learner.loop.start()
        elsewhere = [replace(rule(f"R{number}"), scope="elsewhere") for number in range(2)]
        learner.log.add_lessons([*elsewhere, asked_for("L1", "what now")])

        assert [set(learner.probes.run(0)) for _ in range(2)] == [{"L1"}, {"L1"}]


def test_the_newest_requests_are_the_newest_whatever_was_asked_before(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base)
    tasks = enumerate("ABCDEA", 1)
    run.record(
        *(
            run.turn("tell me", "abc", turn_id=f"{task}{at}", task_key=task, received_at=float(at))
            for at, task in tasks
        )
    )
    with run.learner() as learner:
        learner.loop.start()
        learner.log.add_lessons([rule()])
        learner.probes.run(0)
        probe = only(learner).probe

    assert probe is not None
    assert probe["turn_ids"] == ["C3", "D4", "E5", "A6"]


def test_rules_are_asked_for_at_every_fourth_served_version_however_long_asking_takes(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base, batch__turns_per_step=1)
    run.record(*(run.turn("tell me", "abc") for _ in range(9)), hint="be kind")
    with run.learner(asks_lessons=True) as learner:
        learner.loop.start()
        learner.log.add_lessons([rule()])
        learner.probes._clock = lambda: 0.0
        learner.probes._rests_until = 1.0
        learner.work()
        asked_at = [
            number
            for number in range(1, 10)
            if any(probe.name == PROBE + "R1" for probe in learner.log.probes("default", number))
        ]

    assert asked_at == [4, 8]


def said(learner: Learner, number: int, held: bool, score: float, name: str = "R1") -> None:
    learner.log.record_probe("default", number, Probe(name=PROBE + name, passed=held, score=score, detail=""))


def test_a_step_says_which_rules_rested_when_it_was_made(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base, batch__turns_per_step=1)
    with run.learner() as learner:
        learner.loop.start()
        learner.log.add_lessons([rule(), replace(rule("R2", "Sign with a name."), scope="elsewhere")])

        def rested(name: str) -> list[str]:
            run.record(run.turn("tell me", "abc", turn_id=name), hint="be kind")
            learner.loop._refreshed = -float("inf")
            learner.work()
            [step] = asyncio.run(explain_turn(run.path, name))["steps"]
            found: list[str] = step["metrics"]["rules_rested"]
            return found

        assert rested("taught") == []
        said(learner, 1, True, 0.9)
        assert rested("kept") == ["R1"]
        said(learner, 2, False, 0.3)
        assert rested("lost") == []


def test_rules_that_rest_are_told_of_as_far_as_they_would_have_been_shown(tmp_path: Path, base: Path) -> None:
    """A turn's teacher is shown eight rules at most, none on the matter of the turn's own hint."""
    run = Run(tmp_path / "run", base, batch__turns_per_step=4)
    with run.learner() as learner:
        learner.loop.start()
        learner.log.add_lessons([rule("kind", "Be kind to whoever asks."), rule("R0", "Sign as zero.")])
        for name in ("kind", "R0"):
            said(learner, 0, True, 0.9, name)

        def rested(name: str) -> list[str]:
            run.record(*(run.turn("tell me", "abc", turn_id=f"{name}{n}") for n in range(4)), hint="be kind")
            learner.loop._refreshed = -float("inf")
            learner.work()
            [step] = asyncio.run(explain_turn(run.path, f"{name}0"))["steps"]
            found: list[str] = step["metrics"]["rules_rested"]
            return found

        assert rested("few") == ["R0"]
        learner.log.add_lessons([rule(f"R{number}", f"Sign as number{number}.") for number in range(1, 40)])
        for number in range(1, 40):
            said(learner, 0, True, 0.9, f"R{number}")
        many = rested("many")
        assert (len(many), "kind" in many) == (MAX_RULES, False)
        for number in range(40):
            said(learner, 2, False, 0.1, f"R{number}")
        assert rested("none") == []


def test_a_rule_that_is_kept_is_no_context_until_it_is_broken_again(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base, batch__turns_per_step=1)
    with run.learner() as learner:
        learner.loop.start()
        learner.log.add_lessons([rule()])

        def one(name: str) -> tuple[int, dict[str, int]]:
            run.record(run.turn("tell me", "abc", turn_id=name))
            learner.loop._refreshed = -float("inf")
            learner.work()
            _, trained, rejected, _ = run.account()
            return trained, rejected

        assert one("taught") == (1, {})
        said(learner, 1, True, 0.9)
        assert one("kept") == (1, {"already right": 1})
        [kept] = learner.log.records(["kept"])
        view = learner.builder.view(kept)
        assert view is not None
        assert learner.builder.resting_views([kept]) == {kept.turn.prompt_ids: view.token_ids}
        assert UNITS in run.renderer.decode(view.token_ids), "what measures drift still knows it"
        said(learner, 1, False, 0.3)
        assert one("lost") == (2, {"already right": 1})
