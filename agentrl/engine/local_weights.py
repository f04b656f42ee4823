"""Weights from a version's folder: full weights, or an adapter merged into a copy of the base.

FOLDER/model.safetensors (or *.safetensors with model.safetensors.index.json)     full weights
FOLDER/adapter_model.safetensors + adapter_config.json                            LoRA on the base (peft)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from agentrl.errors import ModelError

ADAPTER_PREFIX = "base_model.model."
UNSUPPORTED_ADAPTER_SETTINGS = ("use_dora", "lora_bias", "alora_invocation_tokens", "trainable_token_indices")


def read_weights(folder: Path, base: Path) -> dict[str, Tensor]:
    """All tensors of a version under their Hugging Face names, on the CPU.

    Args:
        folder: the version.
        base: the model folder that an adapter is merged into.

    Raises:
        ModelError: the folder holds no weights, or an adapter of a kind that cannot be merged.
    """
    if (folder / "adapter_config.json").exists():
        return merge_adapter(read_full(base), folder)
    return read_full(folder)


def read_full(folder: Path) -> dict[str, Tensor]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    else:
        names = ["model.safetensors"]
    tensors: dict[str, Tensor] = {}
    for name in names:
        try:
            tensors |= load_file(folder / name)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{folder / name} cannot be read as weights: {error}") from error
    return tensors


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a model folder."""
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror}); name a Hugging Face model folder"
        ) from error
    except json.JSONDecodeError as error:
        raise ModelError(f"{path} is not JSON: {error}") from error
    return config


def merge_adapter(tensors: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """W + scale * B A for every adapted matrix; the sum is taken in fp32 and stored in the base's type.

    Raises:
        ModelError: the adapter is no plain LoRA, or adapts what the base does not have.
    """
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    if config.get("peft_type") != "LORA":
        raise ModelError(
            f"{folder} is a {config.get('peft_type')} adapter; the local engine merges LoRA only"
        )
    for setting in UNSUPPORTED_ADAPTER_SETTINGS:
        if config.get(setting):
            raise ModelError(f"{folder} sets {setting}, which cannot be merged; train the adapter without it")

    try:
        adapter = load_file(folder / "adapter_model.safetensors")
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder / 'adapter_model.safetensors'} cannot be read: {error}") from error
    for key in sorted(adapter):
        name = key.removeprefix(ADAPTER_PREFIX)
        module, _, kind = name.partition(".lora_")
        if kind == "B.weight":
            continue
        target = f"{module}.weight" if kind == "A.weight" else name
        if target not in tensors or kind not in ("A.weight", ""):
            raise ModelError(
                f"{folder} adapts {name}, which the base model does not have or LoRA cannot merge"
            )
        if not kind:
            # A module that was trained whole (modules_to_save) replaces the base's.
            tensors[target] = adapter[key]
            continue
        down, up = adapter[key].float(), adapter[key.replace(".lora_A.", ".lora_B.")].float()
        delta = up @ down
        if config.get("fan_in_fan_out"):
            delta = delta.t()
        base = tensors[target]
        tensors[target] = (base.float() + adapter_scale(config, module) * delta).to(base.dtype)
    return tensors


def adapter_scale(config: dict[str, Any], module: str) -> float:
    """alpha / r, or alpha / sqrt(r) with rsLoRA, with the exceptions named for single modules."""

    def setting(pattern: str, default: str) -> float:
        for suffix, value in (config.get(pattern) or {}).items():
            if module == suffix or module.endswith(f".{suffix}"):
                return float(value)
        return float(config[default])

    rank, alpha = setting("rank_pattern", "r"), setting("alpha_pattern", "lora_alpha")
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)


def check_names(tensors: dict[str, Tensor], expected: dict[str, torch.Size], folder: Path) -> None:
    """Raises ModelError when tensors are missing or have another shape than the served model's."""
    missing = sorted(set(expected) - set(tensors))
    if missing:
        raise ModelError(f"{folder} lacks {len(missing)} tensors of the served model, first {missing[0]}")
    for name, size in expected.items():
        if tensors[name].shape != size:
            got, want = list(tensors[name].shape), list(size)
            raise ModelError(f"{folder}: {name} has shape {got}, the served model {want}")
