"""Drift from version 0, from a run's first step on: what counts as drift, and what was rightly learned does not."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from guarded_run import guarded
from learner_run import Run, write_base
from rare_name import FILES, lesson

from agentrl.learner.alarm import Alarm
from agentrl.learner.answers_file import FILE, Kept
from agentrl.learner.base_answers import NUM_REPLIES, BaseAnswers
from agentrl.learner.outline import Outline, divergences, looked_at, mixed
from agentrl.learner.pack import Row
from agentrl.learner.teacher_weights import Weights
from agentrl.learner.trainer import Trainer
from agentrl.nano import weights_dir
from agentrl.store.learning_log import LearningLog


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("model") / "base")


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_a_lesson_is_no_drift_at_any_moment_of_its_learning_and_without_it_in_view_it_is(
    tmp_path: Path,
) -> None:
    run = Run(tmp_path / "run", weights_dir(), optim__lr=1e-3)
    trainer = Trainer(run.base, run.recipe, run.config.learn, keeps_base=True)
    seen, unseen = BaseAnswers(run.renderer.stop_ids), BaseAnswers(run.renderer.stop_ids)
    assert seen.drift(trainer) == [], "nothing was trained yet"
    samples = lesson(run)
    seen.add(samples)
    unseen.add([replace(sample, teacher=None) for sample in samples])

    assert unseen.drift(trainer) == pytest.approx([0.0] * NUM_REPLIES, abs=1e-6)
    assert seen.drift(trainer) == pytest.approx([0.0] * NUM_REPLIES, abs=1e-3), (
        "nor has it with the hint in view"
    )
    along = []
    for _ in range(15):
        trainer.step(samples)
        along.append(mean(seen.drift(trainer)))

    assert max(along) < 0.4
    assert mean(unseen.drift(trainer)) > mean(seen.drift(trainer)) + 0.05


def test_a_corrected_lesson_takes_the_place_of_the_one_that_was_taught_before(
    base: Path, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run", base)
    trainer = Trainer(base, run.recipe, run.config.learn, keeps_base=True)
    answers = BaseAnswers(run.renderer.stop_ids)
    prompt, first, corrected = (5, 6, 7), (5, 9, 6, 7), (5, 8, 6, 7)
    assert answers.learn(prompt, first)
    answers.drift(trainer)
    known = dict(answers._outlines)

    assert not answers.learn(prompt, prompt), "it is known"
    assert (answers.view(prompt), answers._outlines) == (first, known), "nothing else was taught on it"
    assert not answers.learn(prompt, corrected)
    assert (answers.view(prompt), answers._outlines) == (corrected, {})


def test_of_long_prompts_fewer_answers_are_asked_and_never_too_few_to_compare(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "run", base)
    trainer = Trainer(base, run.recipe, run.config.learn, keeps_base=True)
    monkeypatch.setattr(Trainer, "max_len", property(lambda _: 10_000))
    answers = BaseAnswers(run.renderer.stop_ids)

    def asked(length: int) -> list[int]:
        answers._views.clear()
        for first in range(NUM_REPLIES):
            answers.learn((first, *[5] * (length - 1)), (9, first, *[5] * (length - 1)))
        return [prompt[0] for prompt, _ in answers.asked(trainer)]

    assert asked(1024) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert asked(1400) == [0, 1, 2, 3, 4]
    assert asked(9000) == [0, 1, 2, 3]
    assert asked(10_000) == [], "with its lesson it is longer than the model"


def test_noise_is_drift_whatever_lesson_is_in_view(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", weights_dir())
    trainer = Trainer(run.base, run.recipe, run.config.learn, keeps_base=True)
    answers = BaseAnswers(run.renderer.stop_ids)
    answers.add(lesson(run))
    with torch.no_grad():
        for number, weight in enumerate(trainer.policy.trained.values()):
            weight.copy_(0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)))

    assert mean(answers.drift(trainer)) > 1.5


def test_the_mixture_is_half_of_each_of_both_places(base: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", base)
    trainer = Trainer(base, run.recipe, run.config.learn, keeps_base=True)
    assert trainer.base is not None
    rows = {"a": Row.behind((1, 2, 3), (4, 5))}
    others = {"a": Row.behind((1, 9, 8, 3), (4, 5))}
    found = mixed(trainer.base, rows, others, max_tokens=1000)["a"]

    def probabilities(ids: tuple[int, ...]) -> torch.Tensor:
        with torch.no_grad():
            return trainer.policy.causal_lm(input_ids=torch.tensor([ids])).logits[0].softmax(-1)

    half = (probabilities((1, 2, 3, 4))[2:4] + probabilities((1, 9, 8, 3, 4))[3:5]) / 2
    assert isinstance(found, Outline)
    assert torch.allclose(found.logprobs.exp(), half.gather(1, found.ids), atol=1e-6)
    assert found.entropy is not None
    assert torch.allclose(found.entropy, -(half * half.log()).sum(-1), atol=1e-4)


def test_of_a_version_that_is_held_against_others_no_outline_is_made(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "run", base)
    trainer = Trainer(base, run.recipe, run.config.learn, keeps_base=True)
    assert trainer.base is not None
    answers = BaseAnswers(run.renderer.stop_ids)
    answers.learn((5, 6, 7), (5, 9, 6, 7))
    before = answers.drift(trainer)
    rows = {"a": Row.behind((1, 2, 3), (4, 5)), "b": Row.behind((6, 7), (8, 9, 10))}
    known = mixed(trainer.base, rows, rows, max_tokens=1000)
    with torch.no_grad():
        for weight in trainer.policy.trained.values():
            weight.add_(0.01)
    policy = Weights(trainer.policy, None)
    _, both = looked_at(policy, rows, known, max_tokens=1000)

    monkeypatch.setattr("agentrl.learner.outline._top", None)
    alone = divergences(policy, rows, known, max_tokens=1000)
    assert [(name, values.tolist()) for name, values in alone.items()] == [
        (name, values.tolist()) for name, values in both.items()
    ]
    assert [len(values) for values in alone.values()] == [2, 3]
    assert len(answers.drift(trainer)) == len(before) == NUM_REPLIES


def test_the_first_candidate_is_held_against_version_0(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base)
    run.hinted(4)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
    with LearningLog(run.path) as log:
        metrics = log.versions()[1].metrics

    assert 0.0 <= metrics["kl_base"] < 0.5
    assert metrics["probe_turns"] == 0.0


def test_after_a_restart_a_version_is_asked_the_same_prompts_and_held_against_the_same_answers(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base)
    run.hinted(4)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
        before = learner.loop._answers
        assert before is not None
    trainer = Trainer(base, run.recipe, run.config.learn, keeps_base=True)
    asked = before.asked(trainer)
    with run.learner() as learner:
        learner.loop.start()
        after = learner.loop._answers
        assert after is not None

        assert after.asked(trainer) == asked
        assert [seed for _, seed in asked] == [0, 0, 0, 0, 1, 1, 1, 1]
        assert len(set(asked)) == NUM_REPLIES
        assert [after.view(prompt) for prompt, _ in asked] == [before.view(prompt) for prompt, _ in asked]
        assert all(after.view(prompt) != prompt for prompt, _ in asked), "what was taught is known as well"
        assert dict(after._answers) == dict(before._answers)
        assert set(after._answers) == set(asked), "nobody is asked again"


KEPT = Kept(prompt=(1, 2), view=(1, 9, 2), answers=((0, (3, 4)), (1, ())))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "damaged: JSONDecodeError: "),
        ("[" * 100_000, "damaged: RecursionError: "),
        ('[{"prompt": [1, 2], "view": [1, 2]}]', "damaged: TypeError: "),
        ('{"policy": "default"}', "damaged: KeyError: "),
        (None, "damaged: UnicodeDecodeError: "),
    ],
)
def test_a_damaged_file_is_left_aside_with_a_line_in_the_journal_and_written_anew(
    tmp_path: Path, base: Path, text: str | None, why: str
) -> None:
    run = Run(tmp_path / "run", base)
    (run.path / FILE).write_bytes(b"\xff" if text is None else text.encode())
    run.hinted(4)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
        [told] = learner.journal.of("discarded")
        assert (told["file"], str(told["reason"])[: len(why)]) == (FILE, why)
    with run.learner() as learner:
        assert len(learner.answers_file().read()) == 4
        assert learner.journal.of("discarded") == []


@pytest.mark.parametrize(
    ("full", "why"),
    [(False, "not written: IsADirectoryError: "), (True, "not written: OSError: [Errno 28] ")],
)
def test_where_the_file_cannot_be_written_the_learner_goes_on_and_says_so_once(
    tmp_path: Path, base: Path, full: bool, why: str
) -> None:
    run = Run(tmp_path / "run", base)
    if full:
        (run.path / f"{FILE}.part").symlink_to("/dev/full")
    else:
        (run.path / FILE).mkdir()
    run.hinted(4)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
        answers = learner.loop._answers
        assert answers is not None
        assert len(answers._views) == 4
        answers.learn((1, 2), (1, 9, 2))
        answers._save()

        [told] = learner.journal.of("discarded")
        assert (told["file"], str(told["reason"])[: len(why)]) == (FILE, why)
        assert learner.journal.of("step"), "it learned all the same"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"prompt": [1, 260]}, "not all ids below 260"),
        ({"prompt": [1, -1]}, "not all ids below 260"),
        ({"view": [1, 2.0]}, "not all ids below 260"),
        ({"view": [True, 2]}, "not all ids below 260"),
        ({"prompt": "ab"}, "not all ids below 260"),
        ({"prompt": []}, "a prompt is empty"),
        ({"answers": [["0", [3]]]}, "a seed is no integer"),
        ({"answers": [[0, [3] * 33]]}, "more than 32 ids"),
        ({"answers": [[0]]}, "not enough values"),
        ({"answers": None}, "TypeError"),
    ],
)
def test_what_could_not_be_asked_is_not_read(
    tmp_path: Path, base: Path, change: dict[str, object], why: str
) -> None:
    run = Run(tmp_path / "run", base)
    with run.learner() as learner:
        learner.answers_file().write([KEPT])
        data = json.loads((run.path / FILE).read_text())
        data["asked"][0] |= change
        (run.path / FILE).write_text(json.dumps(data))

        assert learner.answers_file().read() == []
        [told] = learner.journal.of("discarded")
        assert why in str(told["reason"])


def test_what_another_line_or_another_model_was_asked_is_not_read(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", write_base(tmp_path / "base"))
    with run.learner() as learner:
        learner.answers_file().write([KEPT])
        assert learner.answers_file().read() == [KEPT]
        assert learner.answers_file(policy="user:x").read() == []
        assert learner.answers_file(max_reply=64).read() == []
        weights = run.base / "model.safetensors"
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
        assert learner.answers_file().read() == []
        assert [told["reason"] for told in learner.journal.of("discarded")] == [
            "made with another policy",
            "made with another max_reply",
            "made with another base",
        ]


@pytest.mark.parametrize(("teacher", "measured"), [("self", True), ("external", False), ("rewards", True)])
def test_to_leave_version_0_for_another_model_is_no_drift(
    tmp_path: Path, base: Path, teacher: str, measured: bool
) -> None:
    chosen: dict[str, dict[str, object]] = {
        "self": {},
        "external": {"recipe": "opd", "teacher.path": str(base)},
        "rewards": {"recipe": "grpo"},
    }
    run = Run(tmp_path / "run", base, **chosen[teacher])  # type: ignore[arg-type]
    with run.learner() as learner:
        gate, watchman = learner.loop._gate, learner.loop._watchman
        assert (gate._replies is not None, learner.loop._answers is not None) == (measured, measured)
        assert watchman is not None
        [turn] = run.record(run.turn("tell me", "abc"))
        alarm = Alarm(reasons=("it is long",), turn_ids=(turn.id,), targets=(0,))
        assert bool(watchman._prompts(alarm)) is measured


def test_a_candidate_beyond_the_bound_is_refused_with_the_answers_named(tmp_path: Path) -> None:
    run = guarded(Run(tmp_path / "run", weights_dir(), optim__lr=2e-2), max_surprise=0.0)
    run.record(*(run.turn(f"Show {name}", f"cat {name}") for name in FILES), hint="Use bat instead of cat.")
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
        [version] = learner.journal.of("version")

    assert version["state"] == "rejected"
    assert " nats an id on 8 answers of version 0, guards.max_kl_base" in str(version["reason"])
    assert run.account() == (4, 0, {"gate": 4}, {})
