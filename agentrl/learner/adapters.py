"""LoRA adapters as matrices: their moving average, and the folders that other programs load.

An adapter adds s·BA to a frozen matrix, A [r, in], B [out, r], s = alpha / r. What the model computes depends on the
product alone, so an average of models is an average of products. It has the rank of both together:

    (1−a)·B̄Ā + a·BA = [(1−a)·B̄, a·B]·[Ā; A]        rank(B̄Ā) + r

and is brought back to KEPT·r by a singular value decomposition, done in the small space that the factors span.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor

from agentrl.engine.local_weights import read_weights
from agentrl.errors import UserError
from agentrl.learner.card import CARD, Form, Provenance, card
from agentrl.learner.model import PolicyModel
from agentrl.learner.saved import copy_rest, is_weights
from agentrl.store.folders import make_folder

KEPT = 2
"""The average keeps this many times the adapter's rank. With 1, a step towards an adapter that shares no directions
with the average is cut off nearly whole; with 2 the first such step is exact, and a policy that moves slowly loses
thousandths."""


@torch.no_grad()
def averaged_products(
    average: Mapping[str, Tensor], newest: Mapping[str, Tensor], rate: float
) -> tuple[dict[str, Tensor], float]:
    """(1−rate)·B̄Ā + rate·BA of every adapted matrix, as factors of rank at most KEPT·r.

    Args:
        average: B̄ and Ā under the names of `newest`; their rank may differ from its.
        newest: "MODULE.lora_A.NAME.weight" [r, in] and "MODULE.lora_B.NAME.weight" [out, r].
        rate: a, in (0, 1).

    Returns:
        The new factors, and how far they are from the exact average, as a share of the step that the exact average
        has made: ‖cut off‖ / ‖a·(BA − B̄Ā)‖ over all matrices; 0 for no step.
    """
    factors: dict[str, Tensor] = {}
    cut = moved = 0.0
    for name, down in newest.items():
        if ".lora_A." not in name:
            continue
        other = name.replace(".lora_A.", ".lora_B.")
        old_down, old_up, up = average[name], average[other], newest[other]
        # fp64: the step is a small difference of large products
        basis_up, core_up = torch.linalg.qr(torch.cat([old_up, up], dim=1).double())
        basis_down, core_down = torch.linalg.qr(torch.cat([old_down, down]).double().T)
        old, new = (
            torch.ones(len(part), dtype=torch.double, device=down.device) for part in (old_down, down)
        )
        exact = (core_up * torch.cat([(1 - rate) * old, rate * new])) @ core_down.T
        step = (core_up * torch.cat([-rate * old, rate * new])) @ core_down.T
        left, values, right = torch.linalg.svd(exact, full_matrices=False)
        rank = KEPT * len(down)
        root = values[:rank].sqrt()
        factors[other] = (basis_up @ (left[:, :rank] * root)).to(up.dtype)
        factors[name] = ((root[:, None] * right[:rank]) @ basis_down.T).to(down.dtype)
        cut += float(values[rank:].square().sum())
        moved += float(step.square().sum())
    return factors, math.sqrt(cut / moved) if moved else 0.0


def save_adapter(policy: PolicyModel, folder: Path) -> None:
    """Writes the adapter in force in the PEFT format: adapter_config.json and adapter_model.safetensors."""
    from peft import get_peft_model_state_dict

    lm = cast(Any, policy.lm)
    tensors = get_peft_model_state_dict(lm, adapter_name=policy.adapter, save_embedding_layers=False)
    save_file(
        {name: tensor.detach().contiguous() for name, tensor in tensors.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    settings = lm.peft_config[policy.adapter]
    trains = settings.inference_mode
    settings.inference_mode = True  # as PEFT saves it: whoever loads it does not train by accident
    try:
        settings.save_pretrained(folder)
    finally:
        settings.inference_mode = trains


def export_version(folder: Path, base: Path, out: Path, *, merged: bool, origin: Provenance) -> str:
    """Copies a version out of its run for other programs, with a card of its own; the learner's state stays behind.

    Args:
        folder: the version; of version 0 it is the base model's own.
        base: the base model's folder.
        out: a folder that is not there yet, or empty.
        merged: full weights in the base's number type even where the version is an adapter.
        origin: what the card tells. Version 0 is the base, and keeps the base's card.

    Returns:
        What was written, in words.

    Raises:
        UserError: `out` holds something, or cannot be made.
        ModelError: the weights cannot be read or merged.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} holds something already: name a folder that is not there yet")
    is_adapter = (folder / "adapter_config.json").is_file()
    form: Form = "full" if not is_adapter else "merged" if merged else "adapter"
    if form == "merged":
        export_merged(folder, base, out)
        said = f"{out}: full weights, the adapter merged into {base}"
    elif form == "adapter":
        make_folder(out)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copyfile(folder / name, out / name)
        said = f"{out}: an adapter in the PEFT format, for {base}"
    else:
        make_folder(out)
        for source in sorted(folder.iterdir()):
            if source.is_file() and is_weights(source.name):
                shutil.copyfile(source, out / source.name)
        copy_rest(base, out)
        said = f"{out}: full weights"
    if not origin.is_base:
        (out / CARD).write_text(card(origin, form), encoding="utf-8")
    elif (base / CARD).is_file():
        shutil.copyfile(base / CARD, out / CARD)
    return said


def export_merged(folder: Path, base: Path, out: Path) -> None:
    """Writes an adapter's version as a model folder of its own: W + s·BA, in the base's number type.

    Raises:
        ModelError: the weights cannot be read or merged.
    """
    tensors = read_weights(folder, base)
    make_folder(out)
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        out / "model.safetensors",
        metadata={"format": "pt"},
    )
    copy_rest(base, out)
