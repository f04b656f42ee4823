"""What a version is asked where no held-out turn says anything: with the model that ships, whose replies are words."""

from dataclasses import replace
from pathlib import Path

import torch
from learner_run import Learner, Run
from rare_name import lesson

from agentrl.learner.base_answers import NUM_REPLIES, BaseAnswers
from agentrl.learner.own_replies import OwnReplies, looping
from agentrl.learner.trainer import Trainer
from agentrl.nano import weights_dir
from agentrl.store.learning_log import LearningLog
from agentrl.types import TrainingSample

PROMPTS = ("Show notes.txt", "Sort names.md", "Count the lines of data.csv", "Make the folder out")


def taught(path: Path, *, lr: float, **guards: float) -> Run:
    """A run in which `bat` was taught, two turns a step, and nothing was rewarded."""
    run = Run(path, weights_dir(), optim__lr=lr, batch__turns_per_step=2)
    run.config = run.config.model_copy(update={"guards": run.config.guards.model_copy(update=guards)})
    run.record(*(run.turn(prompt, "cat notes.txt") for prompt in PROMPTS), hint="Use bat instead of cat.")
    return run


def learned(run: Run) -> Learner:
    trainer = Trainer(run.base, run.recipe, run.config.learn, keeps_base=True)
    with run.learner(trainer=trainer) as learner:
        learner.loop.start()
        return learner.work()


def versions(run: Run) -> list[tuple[str, float | None]]:
    """State and surprise of each but the first."""
    with LearningLog(run.path) as log:
        return [(one.state.value, one.metrics.get("reply_surprise")) for one in log.versions()[1:]]


def test_a_version_that_a_rate_has_garbled_is_refused_with_nothing_held_out(tmp_path: Path) -> None:
    run = taught(tmp_path / "run", lr=2e-2)
    learner = learned(run)

    assert [(state, surprise is not None and surprise > 3.0) for state, surprise in versions(run)] == [
        ("rejected", True),
        ("rejected", True),
    ]
    assert run.account() == (4, 0, {"gate": 4}, {})
    reason = str(learner.journal.of("version")[0]["reason"])
    assert reason.startswith("version 0 finds its replies to 2 recent prompts ")
    assert reason.endswith(" nats an id less likely than its own, guards.max_surprise allows 3")


def test_a_version_that_was_taught_gently_serves_and_says_what_was_compared(tmp_path: Path) -> None:
    run = taught(tmp_path / "run", lr=1e-4)
    learner = learned(run)

    assert [(state, surprise is not None and surprise < 1.0) for state, surprise in versions(run)] == [
        ("retired", True),
        ("serving", True),
    ]
    reasons = [str(event["reason"]) for event in learner.journal.of("version")]
    assert all(
        reason.startswith("finite; 0 held-out turns are too few to compare; version 0 finds its replies")
        for reason in reasons
    )
    assert "to 2 recent prompts" in reasons[0]
    assert "to 4 recent prompts" in reasons[1]


def test_without_a_bound_no_version_is_asked(tmp_path: Path) -> None:
    run = taught(tmp_path / "run", lr=2e-2, max_surprise=0.0, max_kl_base=0.0, max_kl_update=0.0)
    learned(run)

    assert versions(run) == [("retired", None), ("serving", None)]


def sample(run: Run, prompt: str) -> TrainingSample:
    ids = run.prompt(prompt)
    return TrainingSample(
        turn_ids=(prompt,),
        token_ids=(*ids, 5, 6),
        loss_mask=(False,) * len(ids) + (True, True),
        behavior_logprobs=None,
        num_allowed=None,
        teacher=None,
        advantages=None,
        version=0,
    )


def test_version_0_finds_its_own_replies_as_likely_as_they_are_and_noise_much_less(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", weights_dir())
    trainer = Trainer(run.base, run.recipe, run.config.learn, keeps_base=True)
    answers = BaseAnswers(run.renderer.stop_ids)
    replies = OwnReplies(answers, most=3.0)
    assert replies.judge(trainer) is None, "nothing was trained yet"
    answers.add([sample(run, f"Show the file {number}.txt") for number in range(20)])
    assert len(answers._views) == NUM_REPLIES
    assert run.prompt("Show the file 7.txt") in answers._views, "as many as there is room for"
    answers.add([sample(run, f"Show the file {number}.txt") for number in (30, 31)])
    assert [run.prompt(f"Show the file {number}.txt") in answers._views for number in (0, 1, 30, 31)] == [
        False, True, True, False,
    ], "one of a step takes the place of the oldest"  # fmt: skip

    found = replies.judge(trainer)
    assert found is not None
    assert found.refusal is None
    assert found.metrics == {"reply_surprise": 0.0, "reply_surprise_error": 0.0}

    with torch.no_grad():
        for number, weight in enumerate(trainer.policy.trained.values()):
            weight.copy_(0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)))
    noise = replies.judge(trainer)
    assert noise is not None
    assert noise.refusal is not None
    assert noise.metrics["reply_surprise"] > 4.0


def test_a_lesson_costs_nothing_however_rare_its_name_for_version_0_reads_the_hint_too(
    tmp_path: Path,
) -> None:
    run = Run(tmp_path / "run", weights_dir(), optim__lr=1e-3)
    trainer = Trainer(run.base, run.recipe, run.config.learn, keeps_base=True)
    samples = lesson(run)
    for _ in range(15):
        trainer.step(samples)

    found = {}
    for seen, given in (("with it", samples), ("without", [replace(one, teacher=None) for one in samples])):
        answers = BaseAnswers(run.renderer.stop_ids)
        answers.add(given)
        replies = OwnReplies(answers, most=3.0)
        said_of = replies.judge(trainer)
        assert said_of is not None
        found[seen] = said_of.metrics["reply_surprise"]
    assert found["with it"] < 0.5
    assert found["without"] > 1.0


def test_a_word_again_and_again_is_a_loop_and_what_comes_twice_is_none() -> None:
    assert looping([1, 2, 3, 4, 5, 6]) == set()
    assert looping([7, *[5] * 8]) == set(), "seven repetitions"
    assert looping([7, *[5] * 9, 1]) == set(range(2, 10))
    assert looping([9, *[1, 2] * 5, 3]) == set(range(3, 11))
    assert looping([*[1, 2, 3, 4, 5] * 4]) == set(), "a period of five"
