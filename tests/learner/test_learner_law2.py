"""Law 2 for every preset: without a block and with the policy's weights a teacher says what the policy says."""

import shutil
from pathlib import Path

import pytest
import torch
from learner_models import cached, sample, write_model, write_tokenizer

from agentrl.config import LearnConfig
from agentrl.errors import ConfigError
from agentrl.learner.external_teacher import score_samples
from agentrl.learner.scored import view_of
from agentrl.learner.trainer import Trainer
from agentrl.recipes.recipe import load_recipe, preset_names


def distils(preset: str) -> bool:
    """Whether it has a teacher; some that distil have texts alone."""
    try:
        recipe = load_recipe(preset)
    except ConfigError:  # it lacks a mechanism
        return False
    return recipe.uses_kd and recipe.teacher.name != "none"


PRESETS = [name for name in preset_names() if distils(name)]
PLAIN = [sample(index, hint=False) for index in range(3)]
NUM_TRAINED = 18


@pytest.fixture(scope="module")
def copy(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The policy's own model in another folder, for the teachers that are models of their own."""
    return shutil.copytree(base, tmp_path_factory.mktemp("copies") / "copy")


@pytest.fixture(scope="module")
def file(base: Path, copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scores") / "scores.db"
    score_samples(path, PLAIN, policy="default", teacher_path=copy, policy_path=base, precision="fp32")
    return path


def distance(trainer: Trainer) -> float:
    """The largest difference between what the teacher says of the trained ids, as a step asks it, and the policy."""
    recipe, slots = trainer.recipe, torch.arange(NUM_TRAINED)
    with torch.no_grad():
        scores = trainer._score_teacher(PLAIN, recipe)
        assert scores is not None
        said = scores.at(slots)
        micros = trainer._pack([view_of(item) for item in PLAIN], recipe)
        own = torch.empty(NUM_TRAINED, trainer.policy.head().shape[1])
        for micro in micros:
            own[micro.slots] = trainer.policy(micro)  # as its loss reads it
        logprobs = (own @ trainer.policy.head().T).log_softmax(-1)
        if "teacher_logprobs" in said:  # of the sampled ids alone
            ids = torch.tensor([item.token_ids[p] for item in PLAIN for p in range(20, 26)])
            found = said["teacher_logprobs"]
            logprobs = logprobs.gather(1, ids[:, None]).squeeze(1)
        else:
            found = (said["teacher_hidden"] @ said["teacher_head"].T).log_softmax(-1)
    assert len(found) == NUM_TRAINED
    return float((found - logprobs).abs().max())


def trainer_of(preset: str, base: Path, model: Path, file: Path, lora_rank: int) -> Trainer:
    recipe = load_recipe(preset)
    if recipe.teacher.name == "external":
        recipe = recipe.replaced({"teacher.path": str(model)})
    if recipe.teacher.name == "cached":
        recipe = recipe.replaced({"teacher": cached(file, model)})
    if recipe.references:
        recipe = recipe.replaced(dict.fromkeys(recipe.references, str(model)))
    return Trainer(base, recipe, LearnConfig(precision="fp32", lora_rank=lora_rank))


@pytest.mark.parametrize("lora_rank", [0, 2])
@pytest.mark.parametrize("preset", PRESETS)
def test_the_teacher_of_every_preset_says_what_the_policy_says_where_it_sees_no_more(
    preset: str, lora_rank: int, base: Path, copy: Path, file: Path
) -> None:
    assert distance(trainer_of(preset, base, copy, file, lora_rank)) == 0.0


def test_a_teacher_with_other_weights_says_something_else(base: Path, tmp_path: Path) -> None:
    other = write_tokenizer(write_model(tmp_path / "other", seed=5))

    assert distance(trainer_of("opd", base, other, tmp_path / "none.db", 0)) > 0.1


def test_most_presets_have_a_teacher() -> None:
    assert len(PRESETS) >= 30
    assert {load_recipe(name).teacher.name for name in PRESETS} == {"self", "external", "cached", "joint"}
