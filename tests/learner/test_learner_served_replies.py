"""How far a version is from the one before it, where no turn was rewarded."""

from dataclasses import replace
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


def test_with_the_lesson_in_view_what_was_just_taught_is_no_drift_and_another_lesson_waits_a_version(
    tmp_path: Path,
) -> None:
    run = Run(tmp_path / "run", weights_dir(), optim__lr=2e-3)
    trainer = Trainer(run.base, run.recipe, run.config.learn)
    samples = lesson(run)
    seen, unseen, other = (BaseAnswers(run.renderer.stop_ids) for _ in range(3))
    seen.add(samples)
    for one in (unseen, other):
        one.add([replace(sample, teacher=None) for sample in samples])
    found = [ServedReplies(answers) for answers in (seen, unseen, other)]
    for served in found:
        served.remember(trainer)
    trainer.step(samples)
    other.add(samples[:3])

    with_it, without, changed = (served.drift(trainer) for served in found)
    assert sum(with_it) < sum(without) - 0.2
    assert (len(with_it), len(without), len(changed)) == (8, 8, 2), "the replies to the fourth prompt"


def test_what_serves_is_asked_only_while_held_out_turns_are_too_few(base: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", base)
    trainer = Trainer(base, run.recipe, run.config.learn)
    answers = BaseAnswers(run.renderer.stop_ids)
    answers.learn((5, 6, 7), (5, 9, 6, 7))
    rows: dict[str, Row] = {}
    guards = ALONE.model_copy(update={"max_kl_update": 1e-9})
    budget = Budget(rows, {}, {}, guards, min_turns=2, answers=answers)

    budget.restart(trainer)
    shaken(trainer, 0.5)
    rows |= {"a": Row.behind((1, 2, 3), (4, 5)), "b": Row.behind((6, 7), (8, 9))}
    assert "on 8 of its replies" in (budget.spend(trainer, {}).refusal or ""), "the turns joined since"
    budget.accept(trainer)
    assert budget._served is not None
    assert budget._served.drift(trainer) == [], "nobody was asked"
    shaken(trainer, 0.5)
    assert "on 2 held-out turns" in (budget.spend(trainer, {}).refusal or "")


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
    shaken(trainer, float("nan"))
    asked: list[object] = []
    answers.asked = lambda trainer: asked.append(trainer) or []  # type: ignore[method-assign, func-returns-value]
    for most, times in ((0.0, 0), (0.25, 2)):
        guards = ALONE.model_copy(update={"max_kl_update": most})
        gate = Gate({}, budget=Budget({}, {}, {}, guards, min_turns=1, answers=answers))
        gate.restart(trainer)
        gate.accept(trainer)
        assert len(asked) == times
