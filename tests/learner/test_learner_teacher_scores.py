"""A cached teacher: scores from a file train what the teacher itself trains."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from learner_models import (
    NO_CONTEXT,
    as_sampled,
    assert_same,
    cached,
    make,
    sample,
    transformers_logprobs,
    weights,
    write_model,
)
from learner_run import Run, write_base

from agentrl.errors import ConfigError
from agentrl.learner.external_teacher import score_samples, score_turns
from agentrl.learner.pack import Row
from agentrl.learner.scored import view_of
from agentrl.teacher.scores import ScoreFile, fingerprint

SAMPLED = {"recipe": "openclaw_rl_hint", **NO_CONTEXT}


def test_cached_scores_train_what_the_teacher_itself_trains(base: Path, other: Path, tmp_path: Path) -> None:
    live = make(base, **SAMPLED, teacher={"name": "external", "path": str(other)})
    made = as_sampled(live, [sample(0), sample(1, hint=False), sample(2, hint=False)])
    path = tmp_path / "scores.db"
    assert (
        score_samples(path, made, policy="default", teacher_path=other, policy_path=base, precision="fp32")
        == 3
    )
    from_file = make(base, **SAMPLED, teacher=cached(path, other))

    first, second = live.step(made), from_file.step(made)

    assert second.dropped == ()
    assert second.metrics["loss"] == pytest.approx(first.metrics["loss"], rel=1e-5)
    for name, tensor in weights(live).items():
        torch.testing.assert_close(from_file.policy.trained[name], tensor, atol=1e-5, rtol=0)
    assert not torch.equal(weights(live)["model.norm.weight"], weights(make(base))["model.norm.weight"])


def test_stored_scores_are_those_that_transformers_recomputes(
    base: Path, other: Path, tmp_path: Path
) -> None:
    made = [sample(0), sample(1, hint=False)]
    path = tmp_path / "scores.db"
    score_samples(path, made, policy="user:x", teacher_path=other, policy_path=base, precision="fp32")

    with ScoreFile.open(path, teacher=fingerprint(other)) as file:
        assert file.versions() == {("user:x", 3): 2}
        for item in made:
            view = view_of(item)
            score = file.get(view.token_ids)
            assert score is not None
            torch.testing.assert_close(
                torch.tensor(score.logprobs), transformers_logprobs(other, view), atol=1e-4, rtol=0
            )


def test_a_sample_without_a_score_is_dropped_and_counted(base: Path, other: Path, tmp_path: Path) -> None:
    path = tmp_path / "scores.db"
    score_samples(path, [sample(0, hint=False)], policy="default", teacher_path=other, policy_path=base)
    trainer = make(base, **SAMPLED, teacher=cached(path, other))
    known, unknown = as_sampled(trainer, [sample(0, hint=False), sample(1, hint=False)])
    silent = replace(unknown, turn_ids=("silent",), weights={"kd": (0.0,) * 26})
    # its teacher would read other ids
    hinted = replace(known, turn_ids=("hinted",), teacher=sample(0).teacher)

    result = trainer.step([unknown, known, silent, hinted])

    assert [item.turn_ids for item in result.trained] == [("t0",)]
    assert [(item.turn_ids, item.reason) for item in result.dropped] == [
        (("silent",), "no weight"),
        (("t1",), "no teacher score"),
        (("hinted",), "no teacher score"),
    ]
    before = weights(trainer)
    assert trainer.step([unknown]).trained == ()
    assert_same(weights(trainer), before)


def test_scores_of_another_teacher_than_the_recipes_are_refused(
    base: Path, other: Path, tmp_path: Path
) -> None:
    path = tmp_path / "scores.db"
    score_samples(path, [sample(0)], policy="default", teacher_path=other, policy_path=base)

    make(base, **SAMPLED, teacher=cached(path, fingerprint(other)))
    with pytest.raises(ConfigError, match=f"{fingerprint(other)}, expected is {fingerprint(base)}"):
        make(base, **SAMPLED, teacher=cached(path, base))
    with pytest.raises(ConfigError, match="score the turns again with the expected teacher"):
        score_samples(path, [sample(1)], policy="default", teacher_path=base, policy_path=base)


def test_a_cached_teacher_names_its_file_and_its_model(base: Path, other: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"a teacher's scores, and nobody says which: --set learn\.overrides\.teacher\.path"
    ):
        make(base, **SAMPLED, teacher="cached")
    with pytest.raises(ConfigError, match=r"nobody says which: --set learn\.overrides\.teacher\.model"):
        make(base, **SAMPLED, teacher={"name": "cached", "path": str(base)})
    with pytest.raises(ConfigError, match=r"'absent\.db' is not there: .*external_teacher\.score_turns"):
        make(base, **SAMPLED, teacher=cached(Path("absent.db"), other))


def test_turns_of_a_log_are_scored_once(tmp_path: Path) -> None:
    policy = write_base(tmp_path / "base")
    teacher = write_model(tmp_path / "teacher", vocab_size=260, seed=9)
    shutil.copyfile(policy / "tokenizer.json", teacher / "tokenizer.json")
    run = Run(tmp_path / "run", policy)
    turns = [run.turn("task one", "abc"), run.turn("task two", "abcd", version=2)]
    path = tmp_path / "scores.db"

    assert score_turns(path, turns, teacher_path=teacher, policy_path=policy, precision="fp32") == 2
    turns.append(run.turn("task three", "ab"))
    assert score_turns(path, turns, teacher_path=teacher, policy_path=policy, precision="fp32") == 1

    ids = turns[1].prompt_ids + turns[1].completion.token_ids
    row = Row(token_ids=ids, positions=tuple(range(len(turns[1].prompt_ids), len(ids))))
    with ScoreFile.open(path, teacher=fingerprint(teacher)) as file:
        assert file.versions() == {("default", 0): 2, ("default", 2): 1}
        score = file.get(ids)
    assert score is not None
    torch.testing.assert_close(
        torch.tensor(score.logprobs), transformers_logprobs(teacher, row), atol=1e-4, rtol=0
    )
