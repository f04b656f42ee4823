"""Whose weights the self-teacher has, and when they follow the policy's.

    fixed            version 0, always
    live             the weights that are being trained
    copy_every(k)    a copy of the policy, renewed after every k-th optimiser step
    ema(a)           θ̄ ← (1−a)·θ̄ + a·θ after every optimiser step

A teacher is the policy's module run with other tensors in the place of the trained ones, so that it has the same code,
the same frozen tensors and no second copy of them. It never gets a gradient.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from agentrl.learner.model import PolicyModel
from agentrl.learner.pack import MicroBatch
from agentrl.recipes import axes


class Weights:
    """Tensors to score with. `tensors` None means the policy's own, as they are now."""

    def __init__(self, policy: PolicyModel, tensors: dict[str, Tensor] | None) -> None:
        self._policy = policy
        self.tensors = tensors

    @torch.no_grad()
    def hidden(self, micros: Iterable[MicroBatch], total: int) -> Tensor:
        """[N, H] fp32 hidden states of `total` trained ids, without gradient, in the order of the rows."""
        parts, slots = [], []
        for micro in micros:
            parts.append(self._forward(micro))
            slots.append(micro.slots)
        out = torch.empty(total, parts[0].shape[1], device=parts[0].device)
        out[torch.cat(slots)] = torch.cat(parts)
        return out

    def _forward(self, micro: MicroBatch) -> Tensor:
        return self._policy.hidden_with(micro, self.tensors)

    def head(self) -> Tensor:
        """[V, H] the output matrix, without gradient."""
        return self._policy.head(self.tensors).detach()


class BaseWeights(Weights):
    """Version 0. With LoRA it is the model with its adapter off; else a copy of the tensors it was loaded with.

    Must be made while the policy still has the weights of version 0.
    """

    def __init__(self, policy: PolicyModel) -> None:
        super().__init__(policy, None if policy.lora else copy_of(policy.trained))

    def _forward(self, micro: MicroBatch) -> Tensor:
        if not self._policy.lora:
            return super()._forward(micro)
        with self._policy.adapter_off():
            return super()._forward(micro)


class FollowingWeights(Weights):
    """A copy that follows the policy as `sync` says. Its tensors belong to the learner's state."""

    def __init__(self, policy: PolicyModel, sync: axes.CopyEvery | axes.Ema) -> None:
        super().__init__(policy, copy_of(policy.trained))
        self._sync = sync

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Called after optimiser step number `step`, counted from 1."""
        assert self.tensors is not None
        if isinstance(self._sync, axes.CopyEvery):
            if step % self._sync.steps == 0:
                for name, tensor in self.tensors.items():
                    tensor.copy_(self._policy.trained[name])
        else:
            for name, tensor in self.tensors.items():
                tensor.lerp_(self._policy.trained[name], self._sync.rate)

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes the tensors of a saved state."""
        assert self.tensors is not None
        if tensors.keys() != self.tensors.keys():
            raise ValueError(f"the saved teacher has {len(tensors)} tensors, this one {len(self.tensors)}")
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])


def make_teacher(policy: PolicyModel, sync: axes.Sync, base: BaseWeights | None) -> Weights:
    """The self-teacher of a recipe. `base` is version 0, which `fixed` needs."""
    if isinstance(sync, axes.Live):
        return Weights(policy, None)
    if isinstance(sync, axes.Fixed):
        assert base is not None, "a fixed teacher needs version 0"
        return base
    return FollowingWeights(policy, sync)


def copy_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Detached copies."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
