"""What is contradicted in a group sets the whole group aside, and loud keys of groups weigh no more than others."""

from dataclasses import replace
from pathlib import Path

import pytest
from learner_run import Learner, Run, write_base

from agentrl.config import GuardsConfig, write_config
from agentrl.learner.guard_report import read_report
from agentrl.learner.guard_rules import has_quarantine
from agentrl.recipes.recipe import load_recipe
from agentrl.store.learning_log import LearningLog
from agentrl.types import Turn

PAIRS = {"name": "student", "group_size": 2}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("groups") / "base")


def grouped(path: Path, base: Path, **guards: object) -> Run:
    """A run of GRPO in pairs of episodes."""
    run = Run(path, base, recipe="grpo", rollout=PAIRS, batch__turns_per_step=4, limits__max_logprob_gap=1e9)
    run.config = run.config.model_copy(update={"guards": GuardsConfig(**guards)})
    write_config(run.config, path / "config.json")
    return run


def play(run: Run, name: str, replies: tuple[str, str], *, scope: str = "default") -> list[Turn]:
    """A group of two episodes of one turn each; the first succeeds."""
    turns = []
    for member, reply in enumerate(replies):
        session = f"{name}~g1~{member}"
        made = run.turn(
            f"task of {name}", reply, turn_id=f"{name}{member}", session=session, logprobs=(-5.5,) * 4
        )
        turns.append(replace(made, scope=scope))
        run.record(turns[-1], reward=float(member == 0))
    return turns


def say(run: Run, turn: Turn, reward: float) -> None:
    """A user's word on a turn."""
    run.reward(turn.id, reward)


def fates(run: Run, *names: str) -> list[str | None]:
    with LearningLog(run.path) as log:
        return [log.fate(name) for name in names]


def work(learner: Learner) -> None:
    before = None
    while before != (before := learner.run.account()):
        learner.work()


def same(run: Run, name: str, reward: float) -> None:
    """Somebody else does what the first episode of group `a` did, and a user says how good it was."""
    other = run.record(run.turn("task of a", "abc", turn_id=name, session=name))[0]
    say(run, other, reward)


def test_a_group_with_a_contradicted_turn_is_set_aside_whole_and_comes_back_whole(
    tmp_path: Path, base: Path
) -> None:
    run = grouped(tmp_path / "run", base, quarantine="on")
    doubted, _ = play(run, "a", ("abc", "xyz"))
    play(run, "b", ("abc", "xyz"))
    say(run, doubted, -1.0)
    same(run, "other", 1.0)
    with run.learner() as learner:
        learner.loop.start()
        work(learner)

        assert fates(run, "a0", "a1") == ["rejected:contradicted"] * 2
        assert fates(run, "b0", "b1") == ["trained"] * 2
        assert [event["turn_ids"] for event in learner.journal.of("quarantined")] == [["a0"]]
        assert read_report(run.path)["quarantined"] == 2
    # what a new learner finds is a group too
    with run.learner() as learner:
        learner.loop.start()
        same(run, "agrees", -1.0)
        work(learner)

        assert fates(run, "a0", "a1") == ["trained"] * 2
        assert [sorted(event["turn_ids"]) for event in learner.journal.of("readmitted")] == [["a0", "a1"]]  # type: ignore[call-overload]


def test_how_episodes_of_many_turns_end_contradicts_no_turn_of_theirs(tmp_path: Path, base: Path) -> None:
    run = grouped(tmp_path / "run", base, quarantine="on")
    asked = {"role": "assistant", "content": "abc"}
    for number, reward in enumerate((1.0, -1.0)):
        turn = run.turn(
            "do it", "abc", turn_id=f"long{number}", session=f"c~g1~{number}", logprobs=(-5.5,) * 4
        )
        turn = replace(turn, messages=({"role": "user", "content": "do it"}, asked, *turn.messages))
        run.record(turn, reward=reward)
    with run.learner() as learner:
        learner.loop.start()
        work(learner)

        assert fates(run, "long0", "long1") == ["trained"] * 2


def test_by_default_groups_are_quarantined_where_a_teacher_is_shown_their_hints() -> None:
    found = {name: has_quarantine(GuardsConfig(), load_recipe(name)) for name in ("grpo", "hint_opsd", "dpo")}
    hints = load_recipe("sdpo", {"context": "hindsight_hint"})

    assert found == {"grpo": False, "hint_opsd": True, "dpo": False}
    assert has_quarantine(GuardsConfig(), hints)
    assert not has_quarantine(GuardsConfig(quarantine="off"), hints)


def test_the_groups_of_a_loud_key_wait_while_others_play(tmp_path: Path, base: Path) -> None:
    run = grouped(tmp_path / "run", base)
    for name in ("a", "b", "c"):
        play(run, name, ("abc", "xyz"))
    play(run, "quiet", ("abc", "xyz"), scope="guests")
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
    with LearningLog(run.path) as log:
        version = log.version("default", 1)
        first = None if version is None else log.step(version.step_ids[0])

    assert first is not None
    assert sorted(first.turn_ids) == ["a0", "a1", "quiet0", "quiet1"]
