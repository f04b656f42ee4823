"""What stands in a version's folder, read without a trainer: the learner's state, and the base's files."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from agentrl.errors import LearnerError
from agentrl.learner.card import CARD

STATE_FOLDER = "learner_state"
FORMAT = 1
WEIGHTS = "weights/"
"""Trained tensors are named so in a state."""
_WEIGHT_SUFFIXES = (
    ".safetensors",
    ".safetensors.index.json",
    ".bin",
    ".bin.index.json",
    ".pt",
    ".pth",
    ".gguf",
)


def read_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and counters that `agentrl.learner.checkpoint.save` wrote, exact weights among them.

    Raises:
        LearnerError: the folder has no complete state of this format.
    """
    there = folder / STATE_FOLDER
    try:
        record = json.loads((there / "state.json").read_text(encoding="utf-8"))
        tensors: dict[str, Tensor] = load_file(there / "tensors.safetensors")
        if not any(name.startswith(WEIGHTS) for name in tensors):
            weights = load_file(folder / "model.safetensors")
            tensors |= {f"{WEIGHTS}{name}": tensor for name, tensor in weights.items()}
    except (OSError, ValueError) as error:
        raise LearnerError(f"the learner's state in {folder} cannot be read: {error}") from error
    if record["format"] != FORMAT:
        raise LearnerError(
            f"the learner's state in {folder} has format {record['format']}, known is {FORMAT}"
        )
    return tensors, record["counters"]


def is_weights(name: str) -> bool:
    """Whether a file of a model folder holds weights, or says in which file which weights are."""
    return name.endswith(_WEIGHT_SUFFIXES)


def link_rest(base: Path, folder: Path) -> None:
    """Everything of the base folder but its weights and its card, which tells of the base alone: linked where the file
    system can, else copied."""
    for source in _rest(base):
        try:
            os.link(source.resolve(), folder / source.name)
        except OSError:
            shutil.copyfile(source, folder / source.name)


def copy_rest(base: Path, folder: Path) -> None:
    """The same as copies of their own, for a folder that its owner may change."""
    for source in _rest(base):
        shutil.copyfile(source, folder / source.name)


def _rest(base: Path) -> list[Path]:
    return [
        source
        for source in sorted(base.iterdir())
        if source.is_file()
        and not is_weights(source.name)
        and not source.name.startswith(".")
        and source.name != CARD
    ]
