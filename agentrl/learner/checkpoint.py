"""A version's folder: an ordinary model folder that engines load, and beside it the learner's complete state.

    versions/000007/
      config.json, tokenizer.json, ...   linked from the base model
      model.safetensors                  full weights in the base's number type; or
      adapter_model.safetensors          with adapter_config.json, a LoRA adapter
      learner_state/tensors.safetensors  moments, the teacher's own tensors, fp32 weights where the above are not exact
      learner_state/state.json           counters and schedules

Version 0 is the base model's own folder and has no learner_state: its learner starts afresh.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from agentrl.errors import ModelError
from agentrl.learner.adapters import save_adapter
from agentrl.learner.saved import FORMAT, STATE_FOLDER, WEIGHTS, link_rest, read_state
from agentrl.learner.trainer import Trainer, TrainerState


def save(trainer: Trainer, folder: Path) -> None:
    """Writes the trainer's weights and state into an empty folder."""
    state = trainer.state()
    tensors = dict(state.tensors)
    if trainer.policy.lora:
        save_adapter(trainer.policy, folder)
    else:
        number_type = stored_type(trainer.model_path)
        weights = {name: tensors[f"{WEIGHTS}{name}"] for name in trainer.policy.trained}
        save_file(
            {name: tensor.to(number_type).contiguous() for name, tensor in weights.items()},
            folder / "model.safetensors",
            metadata={"format": "pt"},
        )
        if number_type == torch.float32:
            tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(WEIGHTS)}
        link_rest(trainer.model_path, folder)
    there = folder / STATE_FOLDER
    there.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, there / "tensors.safetensors")
    text = json.dumps({"format": FORMAT, "counters": state.counters}, sort_keys=True)
    (there / "state.json").write_text(text + "\n", encoding="utf-8")


def load(trainer: Trainer, folder: Path) -> None:
    """Restores what `save` has written, bit for bit.

    Raises:
        LearnerError: the folder has no complete state.
        ConfigError: the state belongs to other settings than this trainer's.
    """
    tensors, counters = read_state(folder)
    trainer.load(TrainerState(tensors=tensors, counters=counters))


def stored_type(model_path: Path) -> torch.dtype:
    """The number type of the base model's weights, which its versions keep."""
    files = sorted(model_path.glob("*.safetensors"))
    if not files:
        return torch.float32
    with safe_open(files[0], framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118  (a safetensors handle is not iterable)
            return tensors.get_slice(name)[:0].dtype  # type: ignore[no-any-return]
    return torch.float32


def check_names(trainer: Trainer) -> None:
    """Full weights are written under the names that the base model's files use.

    Raises:
        ModelError: transformers converts this architecture's weights on loading, so the names differ.
    """
    if trainer.policy.lora:
        return
    known: set[str] = set()
    for file in trainer.model_path.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            known.update(tensors.keys())
    unknown = sorted(set(trainer.policy.trained) - known)
    if unknown:
        raise ModelError(
            f"{trainer.model_path} does not store its weights under the names they are trained under ({unknown[0]} "
            "and others): train an adapter, --set learn.lora_rank=16"
        )
