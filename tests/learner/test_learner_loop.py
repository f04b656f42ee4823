import contextlib
from pathlib import Path

import pytest
import torch
from learner_run import Killed, Run, same, saved_bits, write_base

from agentrl.learner.control import set_paused
from agentrl.learner.held_out import is_held_out
from agentrl.store.learning_log import LearningLog
from agentrl.store.records import group_key
from agentrl.store.versions import VersionStore
from agentrl.types import VersionState


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("model") / "base")


def states(run: Run) -> dict[int, str]:
    with LearningLog(run.path) as log:
        return {version.number: version.state.value for version in log.versions()}


def test_four_hinted_turns_become_a_served_version(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base)
    run.hinted(4)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()

        assert states(run) == {0: "retired", 1: "serving"}
        assert run.account() == (4, 4, {}, {})
        assert [event["num_turns"] for event in learner.journal.of("step")] == [4]
        assert same(learner.bits(), saved_bits(run, 1))
    with LearningLog(run.path) as log:
        [step_id] = log.serving().step_ids
        step = log.step(step_id)
        assert step is not None
        assert step.turn_ids == ("turn1", "turn2", "turn3", "turn4")
        assert VersionStore(run.path).verify(log.serving()) == []


def test_a_step_waits_for_enough_turns_and_for_no_longer_than_max_wait(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base, batch__max_wait_s=1000.0)
    run.hinted(3)
    with run.learner() as learner:
        now = [0.0]
        learner.loop._clock = lambda: now[0]
        learner.loop.start()
        learner.work()
        assert run.account() == (3, 0, {}, {"claimed": 3})

        now[0] = 999.0
        learner.work()
        assert run.account()[1] == 0
        now[0] = 1001.0
        learner.work()
        assert run.account() == (3, 3, {}, {})


def test_steps_are_published_together_and_the_last_ones_after_max_wait(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base, batch__steps_per_version=3, batch__max_wait_s=1000.0)
    run.hinted(16)
    with run.learner() as learner:
        now = [0.0]
        learner.loop._clock = lambda: now[0]
        learner.loop.start()
        learner.work()

        assert states(run) == {0: "retired", 1: "serving"}
        assert run.account() == (16, 12, {}, {"claimed": 4})
        now[0] = 2000.0
        learner.work()
        assert states(run) == {0: "retired", 1: "retired", 2: "serving"}
        assert run.account() == (16, 16, {}, {})


def test_turns_that_cannot_be_trained_are_rejected_with_a_reason(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base)
    run.record(run.turn("too long " * 80, "abc"), hint="x")
    run.hinted(3)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()

        assert run.account() == (4, 3, {"longer than the model": 1}, {})


def test_a_candidate_that_fails_its_gate_takes_the_learner_back_and_its_turns_with_it(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base)
    run.hinted(4)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
        good = learner.bits()
        run.hinted(4)
        name = next(iter(learner.trainer.policy.trained))

        def spoil() -> None:
            with torch.no_grad():
                learner.trainer.policy.trained[name].view(-1)[0] = float("nan")

        learner.journal.at_stage["write"] = spoil
        learner.work()

        assert states(run) == {0: "retired", 1: "serving", 2: "rejected"}
        assert run.account() == (8, 4, {"gate": 4}, {})
        assert same(learner.bits(), good)
        [_, verdict] = learner.journal.of("version")
        assert verdict["reason"] == "a weight is not finite"

        run.hinted(4)
        learner.work()
        assert states(run)[3] == "serving"
        with LearningLog(run.path) as log:
            assert log.serving().parent == 1


def test_a_version_that_forgot_what_worked_is_refused(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base)
    names = [name for name in (f"good{i}" for i in range(400)) if is_held_out(name)][:6]
    run.record(*(run.turn(f"do {name}", "fine", turn_id=name) for name in names), reward=1.0)
    run.hinted(4)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
        assert states(run)[1] == "serving"
        assert run.account()[2] == {"held_out": 6}
        run.hinted(4)

        def scramble() -> None:
            with torch.no_grad():
                for parameter in learner.trainer.policy.trained.values():
                    parameter.mul_(3.0)

        learner.journal.at_stage["write"] = scramble
        learner.work()

        assert states(run)[2] == "rejected"
        assert "held-out turns went from" in str(learner.journal.of("version")[-1]["reason"])
        with LearningLog(run.path) as log:
            assert [probe.passed for probe in log.probes("default", 1) + log.probes("default", 2)] == [
                True,
                False,
            ]


def test_held_out_turns_are_never_trained_and_survive_a_restart(tmp_path: Path, base: Path) -> None:
    run = Run(
        tmp_path / "run",
        base,
        recipe="openclaw_rl_binary",
        limits__max_logprob_gap=1e9,
        batch__turns_per_step=16,
    )
    names = [f"t{i}" for i in range(60)]
    held = {name for name in names if is_held_out(name)}
    run.record(*(run.turn("do", "fine", turn_id=name, logprobs=(-5.0,) * 5) for name in names), reward=1.0)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
        assert held
        assert run.account() == (60, 60 - len(held), {"held_out": len(held)}, {})
        with LearningLog(run.path) as log:
            trained = {t for v in log.versions() for s in v.step_ids for t in log.step(s).turn_ids}
        assert trained == set(names) - held
        assert set(learner.loop._held_out.rows) == held
    with run.learner() as again:
        again.loop.start()
        assert set(again.loop._held_out.rows) == held


def test_a_turn_rewarded_while_it_is_being_claimed_is_held_out(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base)
    name = next(name for name in (f"t{i}" for i in range(100)) if is_held_out(name))
    run.record(run.turn("do", "fine", turn_id=name), hint="be quick")
    run.reward(run.hinted(4)[0].id, -1.0)  # who approves of everything is not heard
    with run.learner() as learner:
        learner.loop.start()
        learner.journal.at_stage["claim"] = lambda: run.reward(name, 1.0)
        learner.work()

        assert run.account() == (5, 4, {"held_out": 1}, {})
        assert list(learner.loop._held_out.rows) == [name]


def test_groups_are_held_out_whole(tmp_path: Path, base: Path) -> None:
    run = Run(
        tmp_path / "run",
        base,
        recipe="grpo",
        rollout={"name": "student", "group_size": 2},
        batch__turns_per_step=2,
        limits__max_logprob_gap=1e9,
    )
    held = next(f"q{i}" for i in range(200) if is_held_out(group_key(f"s~gq{i}~0") or ""))
    with run.learner() as learner:
        learner.loop.start()
        for k in range(2):
            run.record(
                run.turn("do", "fine", session=f"s~g{held}~{k}", logprobs=(-5.0,) * 5), reward=-float(k)
            )
        learner.work()

        assert run.account() == (2, 0, {"held_out": 2}, {})


def test_rolling_back_restores_that_versions_learner_bit_for_bit_and_learning_goes_on(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base, sync={"name": "ema", "rate": 0.1}, optim__warmup_steps=10)
    with run.learner() as learner:
        learner.loop.start()
        states_by_number = {}
        for number in (1, 2, 3):
            run.hinted(4, version=number - 1)
            learner.work()
            states_by_number[number] = learner.bits()
        with LearningLog(run.path) as log:
            assert log.rollback("default", 1, "it swears") == [2, 3]

        learner.loop._refreshed = -1e9
        learner.work()

        assert same(learner.bits(), states_by_number[1])
        assert not same(learner.bits(), states_by_number[3])
        assert run.account() == (12, 4, {"rolled_back": 8}, {})
        run.hinted(4, version=1)
        learner.work()
        with LearningLog(run.path) as log:
            assert (log.serving().number, log.serving().parent) == (4, 1)
        assert run.account() == (16, 8, {"rolled_back": 8}, {})

        with LearningLog(run.path) as log:
            log.rollback("default", 0, "all of it")
        learner.loop._refreshed = -1e9
        learner.work()
        assert learner.trainer.num_steps == 0
    with run.learner() as fresh:
        assert same(learner.bits(), fresh.bits())


@pytest.mark.parametrize("stage", ["claim", "build", "step", "record", "write", "judge", "publish", "decide"])
def test_a_rollback_at_any_stage_leaves_no_trace_of_what_it_undid(
    tmp_path: Path, base: Path, stage: str
) -> None:
    run = Run(tmp_path / "run", base)
    with run.learner() as learner:
        learner.loop.start()
        run.hinted(4)
        learner.work()
        first = learner.bits()
        run.hinted(4)
        learner.work()
        run.hinted(4)

        def roll_back() -> None:
            with LearningLog(run.path) as log:
                log.rollback("default", 1, "by hand")

        learner.journal.at_stage[stage] = roll_back
        learner.work()
        learner.loop._refreshed = -1e9
        learner.work()

        accepted, trained, rejected, pending = run.account()
        assert accepted == 12
        assert pending == {}
        assert states(run)[2] == "rejected"
        with LearningLog(run.path) as log:
            serving = log.serving()
        # The four turns in hand are trained on version 1's weights, or were set aside with the candidate they made.
        assert (trained, rejected) in [(8, {"rolled_back": 4}), (4, {"rolled_back": 8})]
        if serving.number == 1:
            assert same(learner.bits(), first)
        else:
            assert serving.parent == 1
            assert same(learner.bits(), saved_bits(run, serving.number))


@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.heavy)])
def test_a_kill_at_any_stage_loses_and_doubles_nothing(tmp_path: Path, base: Path, every: int) -> None:
    quiet = Run(tmp_path / "quiet", base, batch__steps_per_version=2)
    quiet.hinted(16)
    with quiet.learner() as learner:
        learner.loop.start()
        learner.work()
        expected = learner.bits()
        num_stages = len(learner.journal.stages)
        trainer = learner.trainer
    assert num_stages > 20

    for kill_at in range(1, num_stages + 1, every):
        run = Run(tmp_path / f"kill{kill_at}", base, batch__steps_per_version=2)
        run.hinted(16)
        trainer.reset()
        with run.learner(kill_at=kill_at, trainer=trainer) as learner, contextlib.suppress(Killed):
            learner.loop.start()
            learner.work()
        accepted, trained, rejected, pending = run.account()
        assert (accepted, rejected) == (16, {})
        assert trained + sum(pending.values()) == 16

        trainer.reset()
        with run.learner(trainer=trainer) as learner:
            learner.loop.start()
            learner.work()
            assert run.account() == (16, 16, {}, {})
            with LearningLog(run.path) as log:
                steps = [
                    log.step(s)
                    for v in log.versions()
                    if v.state is not VersionState.REJECTED
                    for s in v.step_ids
                ]
            used = [turn_id for step in steps if step is not None for turn_id in step.turn_ids]
            assert sorted(used) == sorted(f"turn{i}" for i in range(1, 17))
            # Law 11 across the crash: the same log gives the same weights, whenever the learner died.
            assert same(learner.bits(), expected), kill_at


def test_replaying_a_log_gives_the_same_weights_bit_for_bit(tmp_path: Path, base: Path) -> None:
    found = []
    for name in ("first", "second"):
        run = Run(tmp_path / name, base)
        run.hinted(12)
        with run.learner() as learner:
            learner.loop.start()
            learner.work()
            found.append(learner.bits())
    assert same(*found)


def test_a_paused_learner_gives_its_turns_back_and_goes_on_when_resumed(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base, batch__max_wait_s=1000.0)
    run.hinted(2)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
        assert run.account()[3] == {"claimed": 2}
        assert set_paused(run.path, paused=True)
        learner.work()
        assert run.account()[3] == {"waiting": 2}

        run.hinted(4)
        learner.work()
        assert run.account()[1] == 0
        assert set_paused(run.path, paused=False)
        learner.work()
        assert run.account()[1] == 4
        assert [event["event"] for event in learner.journal.events][1:3] == ["paused", "resumed"]


def test_versions_beyond_those_that_are_kept_are_deleted(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base)
    with run.learner() as learner:
        learner.loop.start()
        for number in range(8):
            run.hinted(4, version=number)
            learner.work()
        learner.loop._housekeep()

        # what serves, the version to roll back to, and keep_versions more
        assert learner.versions.numbers() == [3, 4, 5, 6, 7, 8]


def test_a_version_that_an_older_copy_does_not_know_is_set_aside_and_its_number_not_used_again(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base)
    run.hinted(4)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
    older = (run.path / "learning.db").read_bytes()
    run.hinted(4, version=1)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
        assert states(run) == {0: "retired", 1: "retired", 2: "serving"}
    weights = (run.path / "versions" / "000002" / "model.safetensors").read_bytes()
    (run.path / "learning.db").write_bytes(older)

    with run.learner() as learner:
        learner.loop.start()
        assert [event["version"] for event in learner.journal.of("set_aside")] == [2]
        learner.work()
        assert states(run) == {0: "retired", 1: "retired", 3: "serving"}
    assert (run.path / "versions" / ".unknown-000002" / "model.safetensors").read_bytes() == weights
    with LearningLog(run.path) as log:  # the gap makes it no older copy
        assert log.serving().number == 3
    VersionStore(run.path).write(4, lambda folder: None)
    with LearningLog(run.path) as log:
        assert log.serving().number == 3


def test_old_turns_expire(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base)
    run.hinted(2)
    with run.learner() as learner:
        learner.loop.start()
        learner.loop._learn = learner.loop._learn.model_copy(update={"max_age_s": 60.0})
        learner.work()

        assert run.account() == (2, 0, {"expired": 2}, {})


def test_distilling_hints_raises_the_probability_of_what_the_hint_says(tmp_path: Path, base: Path) -> None:
    """End to end: log, claims, the real renderer, trainer, versions. The teacher is the model behind its hint."""
    from agentrl.learner.pack import Row
    from agentrl.learner.trainer import Trainer

    # A base that has learned to repeat what a hint says, as every instruction-following model can.
    run = Run(tmp_path / "run", base, batch__turns_per_step=8)
    with run.learner() as learner:
        learner.loop.start()
        start = Trainer(run.base, run.recipe, run.config.learn)
        prompt = run.prompt("task 3")
        [view] = [run.renderer.insert((*prompt, 0), len(prompt), [_hint("say xyz")])]
        with torch.no_grad():
            taught = start.policy.causal_lm(torch.tensor([view.token_ids[:-1]])).logits[0, -1]
        answer = int(taught.argmax())
        row = Row(token_ids=(*prompt, answer), positions=(len(prompt),))
        before = start.mean_logprobs([row])[0]
        for number in range(12):
            run.hinted(8, version=number)
            learner.work()

        assert states(run)[12] == "serving"
        after = learner.trainer.mean_logprobs([row])[0]
        assert after > before + 0.3


def _hint(text: str) -> object:
    from agentrl.types import Block

    return Block(position="tail", text=f"Hint: {text}")


def test_groups_raise_the_probability_of_the_rewarded_answer(tmp_path: Path, base: Path) -> None:
    from agentrl.learner.pack import Row

    run = Run(
        tmp_path / "run",
        base,
        recipe="grpo",
        rollout={"name": "student", "group_size": 4},
        batch__turns_per_step=4,
        limits__max_logprob_gap=1e9,
    )
    with run.learner() as learner:
        learner.loop.start()
        prompt = run.prompt("which?")
        rows = []
        for reply in ("yes", "no!"):
            ids = (*prompt, *run.renderer.encode_plain(reply), run.renderer.stop_ids[0])
            rows.append(Row(token_ids=ids, positions=tuple(range(len(prompt), len(ids)))))
        each = [
            learner.trainer.mean_logprobs(
                [Row(token_ids=row.token_ids, positions=(p,)) for p in row.positions]
            )
            for row in rows
        ]
        before = learner.trainer.mean_logprobs(rows)
        group = next(f"q{i}" for i in range(200) if not is_held_out(group_key(f"s~gq{i}~0") or ""))
        for k in range(4):
            good = k % 2 == 0
            turn = run.turn(
                "which?",
                "yes" if good else "no!",
                session=f"s~g{group}~{k}",
                logprobs=each[0 if good else 1],
            )
            run.record(turn, reward=1.0 if good else 0.0)
        learner.work()

        assert run.account() == (4, 4, {}, {})
        after = learner.trainer.mean_logprobs(rows)
        assert after[0] > before[0]
        assert after[1] < before[1]
