"""Tiny random models of the architecture that ships."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from agentrl.config import LearnConfig
from agentrl.learner.pack import Row
from agentrl.learner.trainer import Trainer
from agentrl.recipes.recipe import load_recipe
from agentrl.types import TeacherView, TrainingSample

VOCAB = 64


def write_model(path: Path, *, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: object) -> Path:
    settings = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "initializer_range": 0.2,
    } | changes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        Qwen3ForCausalLM(Qwen3Config(**settings)).to(dtype).save_pretrained(path)
    return path


NO_CONTEXT = {"context": "none", "route": "all"}


def write_tokenizer(folder: Path, *, size: int = VOCAB, **changed: int) -> Path:
    """A tokenizer of `size` words; `changed` gives words other ids."""
    vocab = {f"w{number}": number for number in range(size)} | changed
    Tokenizer(models.WordLevel(vocab=vocab, unk_token="w0")).save(str(folder / "tokenizer.json"))
    return folder


def make(
    path: Path,
    *,
    recipe: str = "hint_opsd",
    lora_rank: int = 0,
    versions: Path | None = None,
    **overrides: object,
) -> Trainer:
    settings = {"optim.lr": 3e-3} | {name.replace("__", "."): value for name, value in overrides.items()}
    return Trainer(
        path,
        load_recipe(recipe, settings),
        LearnConfig(precision="fp32", lora_rank=lora_rank),
        version_path=None if versions is None else lambda number: versions / f"{number:06d}",
    )


def sample(seed: int, *, hint: bool = True, **changes: object) -> TrainingSample:
    ids = tuple(torch.randint(0, 50, (26,), generator=torch.Generator().manual_seed(seed)).tolist())
    view = TeacherView(token_ids=(*ids[:18], 60, 61, *ids[18:]), inserted_spans=((18, 20),))
    values: dict[str, object] = {
        "turn_ids": (f"t{seed}",),
        "token_ids": ids,
        "loss_mask": (False,) * 20 + (True,) * 6,
        "behavior_logprobs": None,
        "num_allowed": None,
        "teacher": view if hint else None,
        "advantages": None,
        "version": 3,
    }
    return TrainingSample(**(values | changes))


def as_sampled(trainer: Trainer, made: Sequence[TrainingSample]) -> list[TrainingSample]:
    """The samples with the policy's own log-probs as the sampler's."""
    result = []
    for item in made:
        rows = [Row(token_ids=item.token_ids, positions=(position,)) for position in range(20, 26)]
        result.append(
            replace(
                item,
                behavior_logprobs=(0.0,) * 20 + tuple(trainer.mean_logprobs(rows)),
                num_allowed=(0,) * 20 + (VOCAB,) * 6,
            )
        )
    return result


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trainer.policy.trained.items()}


def trained(trainer: Trainer, steps: int = 3) -> dict[str, torch.Tensor]:
    for step in range(steps):
        trainer.step([sample(10 * step + index) for index in range(3)])
    return weights(trainer)


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name


def transformers_logprobs(path: Path, row: Row) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(path).eval()
    with torch.no_grad():
        logits = model(torch.tensor([row.token_ids])).logits[0].float()
    ids = torch.tensor([row.token_ids[position] for position in row.positions])
    before = torch.tensor([position - 1 for position in row.positions])
    return logits[before].log_softmax(-1).gather(1, ids[:, None]).squeeze(1)


def cached(path: Path, model: object) -> dict[str, object]:
    return {"name": "cached", "path": str(path), "model": str(model)}
