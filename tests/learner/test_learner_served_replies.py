"""How far a version is from the one before it, where no turn was rewarded."""

from pathlib import Path

import pytest
import torch
from learner_run import Run, write_base
from rare_name import lesson

from agentrl.config import GuardsConfig
from agentrl.learner.base_answers import NUM_REPLIES, BaseAnswers
from agentrl.learner.budget import Budget
from agentrl.learner.gate import Gate
from agentrl.learner.pack import Row
from agentrl.learner.served_replies import ServedReplies
from agentrl.learner.trainer import Trainer
from agentrl.nano import weights_dir

ALONE = GuardsConfig(max_kl_base=0.0, max_fall=0.0)
"""Of the budgets only that of one version."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("model") / "base")


def shaken(trainer: Trainer, by: float) -> None:
    with torch.no_grad():
        for number, weight in enumerate(trainer.policy.trained.values()):
            weight.add_(by * torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)))


def test_a_lesson_stays_within_the_budget_of_one_version_at_each_step_and_what_garbles_it_does_not(
    tmp_path: Path,
) -> None:
    run = Run(tmp_path / "run", weights_dir(), optim__lr=7e-4)
    trainer = Trainer(run.base, run.recipe, run.config.learn)
    answers, samples = BaseAnswers(run.renderer.stop_ids), lesson(run)
    gate = Gate({}, budget=Budget({}, {}, {}, ALONE, min_turns=4, answers=answers))
    gate.restart(trainer)
    trainer.step(samples)
    answers.add(samples)
    first = gate.judge(trainer, [])
    gate.accept(trainer)
    assert first.passed
    assert "kl_update" not in first.metrics, "what serves was not asked yet"

    along = []
    for _ in range(8):
        trainer.step(samples)
        verdict = gate.judge(trainer, [])
        gate.accept(trainer)
        assert verdict.passed
        along.append(verdict.metrics["kl_update"])
    assert 0.1 < max(along) < 0.25

    shaken(trainer, 0.05)
    garbled = gate.judge(trainer, [])
    assert not garbled.passed
    assert garbled.reason.startswith("KL to the version that serves is ")
    assert garbled.reason.endswith(" nats an id on 8 of its replies, guards.max_kl_update allows 0.25")


def test_what_garbles_only_what_was_learned_is_near_version_0_and_far_from_the_version_that_serves(
    tmp_path: Path,
) -> None:
    run = Run(tmp_path / "run", weights_dir(), optim__lr=2e-3)
    trainer = Trainer(run.base, run.recipe, run.config.learn, keeps_base=True)
    answers, samples = BaseAnswers(run.renderer.stop_ids), lesson(run)
    before = [weight.detach().clone() for weight in trainer.policy.trained.values()]
    for _ in range(15):
        trainer.step(samples)
    answers.add(samples)
    served = ServedReplies(answers)
    served.remember(trainer)
    assert served.drift(trainer) == pytest.approx([0.0] * NUM_REPLIES, abs=1e-3)

    with torch.no_grad():
        for weight, old in zip(trainer.policy.trained.values(), before, strict=True):
            weight.copy_(old)
    own, base = served.drift(trainer), answers.drift(trainer)
    assert sum(own) / 8 > 0.25, "the name is forgotten"
    assert sum(base) / 8 == pytest.approx(0.0, abs=1e-3)


def test_what_serves_is_asked_only_while_held_out_turns_are_too_few(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "run", base)
    trainer = Trainer(base, run.recipe, run.config.learn)
    answers = BaseAnswers(run.renderer.stop_ids)
    answers.learn((5, 6, 7), (5, 9, 6, 7))
    rows: dict[str, Row] = {}
    budget = Budget(rows, {}, {}, ALONE, min_turns=2, answers=answers)
    monkeypatch.setattr(ServedReplies, "drift", lambda *_: [0.1, 0.3])
    asked: list[str] = []
    monkeypatch.setattr(ServedReplies, "remember", lambda *_: asked.append("asked"))
    monkeypatch.setattr(ServedReplies, "forget", lambda *_: asked.append("forgotten"))

    budget.restart(trainer)
    rows |= {"a": Row.behind((1, 2, 3), (4, 5)), "b": Row.behind((6, 7), (8, 9))}
    assert budget.spend(trainer, {}).metrics["kl_update"] == pytest.approx(0.2), "they joined since"
    budget.accept(trainer)
    assert budget.spend(trainer, {}).metrics["kl_update"] == pytest.approx(0.0, abs=1e-6)
    assert asked == ["asked", "forgotten"]


def test_nothing_is_held_against_a_version_that_gives_no_numbers_or_that_nobody_asked(
    base: Path, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run", base)
    trainer = Trainer(base, run.recipe, run.config.learn)
    answers = BaseAnswers(run.renderer.stop_ids)
    served = ServedReplies(answers)
    served.remember(trainer)
    assert served.drift(trainer) == [], "no prompt is known"
    answers.learn((5, 6, 7), (5, 9, 6, 7))
    served.remember(trainer)
    assert len(served.drift(trainer)) == NUM_REPLIES
    shaken(trainer, float("nan"))
    served.remember(trainer)
    assert served.drift(trainer) == []


def test_without_a_bound_what_serves_is_not_asked(base: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", base)
    trainer = Trainer(base, run.recipe, run.config.learn)
    answers = BaseAnswers(run.renderer.stop_ids)
    answers.learn((5, 6, 7), (5, 9, 6, 7))
    guards = GuardsConfig(max_kl_update=0.0, max_kl_base=0.0, max_fall=0.0)
    gate = Gate({}, budget=Budget({}, {}, {}, guards, min_turns=1, answers=answers))
    gate.restart(trainer)
    gate.accept(trainer)
    assert gate.judge(trainer, []).metrics == {"probe_turns": 0.0}
