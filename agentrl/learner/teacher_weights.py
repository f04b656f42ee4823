"""Whose weights the teacher has, and when they follow the policy's.

    fixed(v)         version v of the run's line, always; 0 is the model that the run began with
    live             the weights that are being trained
    copy_every(k)    a copy of the policy, renewed after every k-th optimiser step
    ema(a)           θ̄ ← (1−a)·θ̄ + a·θ after every optimiser step; of an adapter, the product BA is averaged
    ema_factors(a)   the same of an adapter's A and B, each for itself

A self-teacher is the policy's module run with other tensors in the place of the trained ones, so that it has the same
code, the same frozen tensors and no second copy of them. No teacher gets a gradient, unless it is `joint`: then it is
the policy itself, with gradient. Every module is in eval mode from the moment it is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from agentrl.errors import ConfigError, LearnerError
from agentrl.learner.adapters import averaged_products
from agentrl.learner.model import PolicyModel
from agentrl.learner.pack import IdCount, MicroBatch, Row, pack
from agentrl.learner.saved import WEIGHTS, read_state
from agentrl.losses.chunked import Outputs, chunk_rows, per_position
from agentrl.recipes import axes

VersionPath = Callable[[int], Path]
"""Number of a version of the run's line -> its folder, whether it is there or not."""


class Weights:
    """Tensors to score with. `tensors` None means the model's own, as they are now."""

    def __init__(self, model: PolicyModel, tensors: dict[str, Tensor] | None) -> None:
        self.model = model
        self.tensors = tensors
        self.counted = IdCount()
        """Of all that `pack` was given."""

    @torch.no_grad()
    def hidden(self, micros: Iterable[MicroBatch], total: int) -> Tensor:
        """[N, H] fp32 hidden states of `total` trained ids, without gradient, in the order of the rows."""
        return self._hidden(micros, total)

    def _hidden(self, micros: Iterable[MicroBatch], total: int) -> Tensor:
        parts, slots = [], []
        for micro in micros:
            parts.append(self._forward(micro))
            slots.append(micro.slots)
        out = torch.empty(total, parts[0].shape[1], device=parts[0].device)
        return out.index_copy(0, torch.cat(slots), torch.cat(parts))

    def _forward(self, micro: MicroBatch) -> Tensor:
        return self.model.hidden_with(micro, self.tensors)

    def head(self) -> Tensor:
        """[V, H] the output matrix, without gradient."""
        return self.model.head(self.tensors).detach()

    def pack(self, rows: Sequence[Row], *, max_tokens: int) -> list[MicroBatch]:
        """Micro batches of the rows as this model can compute them."""
        micros = pack(
            rows,
            max_tokens=max_tokens,
            share=self.model.shares_prefix,
            pairs_per_id=self.model.pairs_per_id,
            padding=self.model.padding,
        )
        self.counted.add(rows, micros)
        return [micro.to(self.model.device) for micro in micros]

    @torch.no_grad()
    def logprobs(self, rows: Sequence[Row], *, max_tokens: int) -> list[Tensor]:
        """For each row [T] the raw log-probs of the ids at its positions."""
        if not rows:
            return []
        total = sum(len(row.positions) for row in rows)
        hidden = self.hidden(self.pack(rows, max_tokens=max_tokens), total)
        ids = torch.tensor([row.token_ids[p] for row in rows for p in row.positions], device=hidden.device)
        head = self.head()
        found = per_position(partial(_logprobs, head), (hidden, ids), chunk_size=chunk_rows(len(head)))
        return list(torch.split(found["logprobs"], [len(row.positions) for row in rows]))


def _logprobs(head: Tensor, hidden: Tensor, ids: Tensor) -> Outputs:
    """[n] log-probs of ids at [n, H] positions."""
    return {"logprobs": (hidden @ head.T).log_softmax(-1).gather(1, ids[:, None]).squeeze(1)}


class BaseWeights(Weights):
    """Version 0. With LoRA it is the model with its adapter off; else a copy of the tensors it was loaded with.

    Must be made while the policy still has the weights of version 0.
    """

    def __init__(self, policy: PolicyModel) -> None:
        super().__init__(policy, None if policy.lora else copy_of(policy.trained))

    def _forward(self, micro: MicroBatch) -> Tensor:
        if not self.model.lora:
            return super()._forward(micro)
        with self.model.adapter_off():
            return super()._forward(micro)


class SoupWeights(Weights):
    """Between version 0 and another model of its shape, tensor by tensor: (1−share)·θ_0 + share·θ_other.

    SALSA's reference is their mean, arXiv 2411.01798; AdaSPEC's is the other model itself, arXiv 2510.19779.

    Under an adapter it is the base that is averaged, and the adapter is off. Must be made while the policy still has
    the weights of version 0.

    Args:
        policy: with the weights of version 0.
        path: folder of the other model, whose files name their tensors as the base's do.
        setting: below learn.overrides, what has named it.
        share: 0 to 1.

    Raises:
        ConfigError: the other model cannot be read or has other tensors.
    """

    def __init__(self, policy: PolicyModel, path: Path, *, setting: str, share: float = 0.5) -> None:
        remedy = f"set {setting} to the folder of a model of the policy's shape, or remove it"
        try:
            files = [load_file(file) for file in sorted(path.glob("*.safetensors"))]
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"the model in {path} cannot be read: {error}; {remedy}") from error
        found = {name: tensor for file in files for name, tensor in file.items()}
        base = {name: tensor for name, tensor in policy.lm.named_parameters() if "lora_" not in name}
        tensors = copy_of(base if policy.lora else policy.trained)
        for name, tensor in tensors.items():
            stored = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
            other = found.get(stored)
            if other is None or other.shape != tensor.shape:
                raise ConfigError(
                    f"the model in {path} has no tensor {stored} of shape {tuple(tensor.shape)}: {remedy}"
                )
            tensor.lerp_(other.to(tensor), share)
        super().__init__(policy, tensors)

    def _forward(self, micro: MicroBatch) -> Tensor:
        if not self.model.lora:
            return super()._forward(micro)
        with self.model.adapter_off():
            return super()._forward(micro)


class FollowingWeights(Weights):
    """A copy that follows the policy as `sync` says. Its tensors belong to the learner's state.

    Raises:
        ConfigError: factors of an adapter are to be averaged, but there is no adapter.
    """

    def __init__(self, policy: PolicyModel, sync: axes.CopyEvery | axes.Ema | axes.EmaFactors) -> None:
        if isinstance(sync, axes.EmaFactors) and not policy.lora:
            raise ConfigError(
                "sync 'ema_factors' averages the A and B of an adapter, but learn.lora_rank is 0, so there are none: "
                "set sync = 'ema', or --set learn.lora_rank=16"
            )
        super().__init__(policy, copy_of(policy.trained))
        self._sync = sync

    @torch.no_grad()
    def follow(self, step: int) -> dict[str, float]:
        """Called after optimiser step number `step`, counted from 1. Returns metrics: with a moving average of an
        adapter `ema_error`, the share of the average's step that was lost (`averaged_products`)."""
        assert self.tensors is not None
        newest = self.model.trained
        if isinstance(self._sync, axes.CopyEvery):
            if step % self._sync.steps == 0:
                self.load(newest)
            return {}
        rate = self._sync.rate
        if isinstance(self._sync, axes.Ema) and self.model.lora:
            error = 0.0
            if rate == 1.0:  # a copy, bit for bit; rate 0 stays, bit for bit
                self.load(newest)
            elif rate > 0.0:
                factors, error = averaged_products(self.tensors, newest, rate)
                self.tensors = {name: factors[name] for name in self.tensors}
            return {"ema_error": error}
        for name, tensor in self.tensors.items():
            tensor.lerp_(newest[name], rate)
        return {}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes over copies of tensors: of a saved state, or the policy's."""
        assert self.tensors is not None
        if tensors.keys() != self.tensors.keys():
            raise ValueError(f"the saved teacher has {len(tensors)} tensors, this one {len(self.tensors)}")
        # anew and not into the old ones: an average of adapters has another rank than an adapter
        self.tensors = {
            name: tensors[name].detach().to(tensor.device, copy=True) for name, tensor in self.tensors.items()
        }


class JointWeights(Weights):
    """The policy itself, with gradient: what is said of the teacher trains the same weights."""

    def __init__(self, policy: PolicyModel) -> None:
        super().__init__(policy, None)

    def hidden(self, micros: Iterable[MicroBatch], total: int) -> Tensor:
        """[N, H] fp32 hidden states of `total` trained ids, with gradient where gradients are on."""
        return self._hidden(micros, total)

    def head(self) -> Tensor:
        """[V, H] the output matrix, with gradient where it is trained."""
        return self.model.head()


def make_teacher(
    policy: PolicyModel,
    sync: axes.Sync,
    base: BaseWeights | None,
    *,
    version_path: VersionPath | None = None,
) -> Weights:
    """The self-teacher of a recipe.

    Args:
        policy: with the weights of version 0.
        sync: whose weights the teacher has.
        base: version 0, which `fixed` needs unless it names another version.
        version_path: where versions stand; needed by `fixed` with another version than 0.

    Raises:
        ConfigError: the named version cannot be read or has other tensors, or there are no factors to average.
    """
    if isinstance(sync, axes.Live):
        return Weights(policy, None)
    if isinstance(sync, axes.Fixed):
        if sync.version:
            return Weights(policy, _tensors_of(policy, sync.version, version_path))
        assert base is not None, "a fixed teacher needs version 0"
        return base
    return FollowingWeights(policy, sync)


def _tensors_of(policy: PolicyModel, number: int, version_path: VersionPath | None) -> dict[str, Tensor]:
    """The exact tensors of a version, on the policy's device."""
    remedy = "name a version that `agentrl versions --json` shows as on_disk, or 0"
    if version_path is None:
        raise ConfigError(
            f"sync 'fixed' names version {number}, but there is no run whose it could be: {remedy}"
        )
    try:
        saved, _ = read_state(version_path(number))
    except LearnerError as error:
        raise ConfigError(f"sync 'fixed' names version {number}, but {error}: {remedy}") from error
    tensors = {name: saved.get(f"{WEIGHTS}{name}") for name in policy.trained}
    for name, parameter in policy.trained.items():
        tensor = tensors[name]
        if tensor is None or tensor.shape != parameter.shape:
            raise ConfigError(
                f"sync 'fixed' names version {number}, which trained other tensors than this run ({name}): set "
                f"learn.lora_rank to what it was then, or {remedy}"
            )
    return {name: tensor.to(policy.device) for name, tensor in tensors.items() if tensor is not None}


def copy_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Detached copies."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
