"""One optimiser step from samples: teacher's pass, policy's pass, loss, clip, AdamW. Blind to learning methods.

    samples ─rows─> pack ─> micro batches
      teacher, version 0      no gradient, whole batch first          [N, H]
      policy                  one micro batch at a time: hidden [n, H] -> objective -> backward
      AdamW on fp32 weights   once for the batch; then the teacher follows, then the schedules go on

Nothing here draws random numbers: the same state and samples give the same weights (law 11).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agentrl.config import LearnConfig, Precision
from agentrl.errors import ConfigError
from agentrl.learner.build import Dropped
from agentrl.learner.model import PolicyModel, load_policy, set_precision
from agentrl.learner.pack import MicroBatch, Row, pack, teacher_positions
from agentrl.learner.streams import streams_of, trained_positions
from agentrl.learner.teacher_weights import BaseWeights, FollowingWeights, Weights, make_teacher
from agentrl.losses.objective import Denominators, LossBatch, count_tokens, objective
from agentrl.losses.whole import WholeBatch, whole_batch
from agentrl.recipes import axes
from agentrl.recipes.recipe import Recipe
from agentrl.recipes.schedules import Schedules
from agentrl.types import JSON, TrainingSample


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What a step did with the samples it was given: every one is in `trained` or in `dropped`."""

    trained: tuple[TrainingSample, ...]
    dropped: tuple[Dropped, ...]
    metrics: dict[str, float]
    """Empty when nothing was trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerState:
    """Everything that the next step depends on."""

    tensors: dict[str, Tensor]
    """By "weights/NAME", "exp_avg/NAME", "exp_avg_sq/NAME", "teacher/NAME"; fp32. The trainer's own tensors, not
    copies: the next step changes them."""
    counters: JSON
    """Steps, schedules, and the settings that writer and reader must share."""


class Trainer:
    """The policy, its teacher and its optimiser.

    Raises:
        ModelError, ConfigError: the model or the recipe cannot be trained here; the message names the remedy.
    """

    def __init__(self, model_path: Path, recipe: Recipe, learn: LearnConfig) -> None:
        if recipe.uses_kd and isinstance(recipe.teacher, axes.CachedTeacher):
            raise ConfigError(
                f"recipe {recipe.name!r} wants a cached teacher, but turns of live traffic hold no teacher's "
                "log-probs: set teacher = 'self'"
            )
        self.model_path = model_path
        self.recipe = recipe
        self._learn = learn
        self._precision: Precision = learn.precision
        self._start()

    def _start(self) -> None:
        """Version 0: the model folder's weights, an empty optimiser, the schedules at their start."""
        recipe, learn = self.recipe, self._learn
        self.policy: PolicyModel = load_policy(
            self.model_path,
            device=learn.device,
            precision=self._precision,
            lora_rank=learn.lora_rank,
            seed=learn.seed,
        )
        self._precision = self.policy.precision
        fixed = recipe.uses_kd and isinstance(recipe.sync, axes.Fixed)
        self._base = BaseWeights(self.policy) if fixed or recipe.uses_reference else None
        self._teacher = make_teacher(self.policy, recipe.sync, self._base) if recipe.uses_kd else None
        self._optimizer = torch.optim.AdamW(
            self.policy.trained.values(),
            lr=recipe.optim.lr,
            betas=recipe.optim.betas,
            eps=recipe.optim.eps,
            weight_decay=recipe.optim.weight_decay,
            fused=self.policy.device.type in ("cpu", "cuda"),
        )
        self._schedules = Schedules(recipe)
        self.num_steps = 0
        """Optimiser steps since version 0 along this line of versions."""

    def reset(self) -> None:
        """Goes back to version 0."""
        self._start()

    @property
    def max_len(self) -> int:
        """Most ids of one sequence."""
        return int(getattr(self.policy.config, "max_position_embeddings", 2**31))

    def step(self, samples: Sequence[TrainingSample]) -> StepResult:
        """One optimiser step on `samples`; each needs at least one trained id behind the first position.

        A sequence whose log-probs are too far from the sampler's trains nothing and is dropped (law 7); a step whose
        gradient is not finite is not taken and drops all.
        """
        begin = time.perf_counter()
        recipe = self._schedules.current()
        denominators = count_tokens(recipe, samples)
        if denominators.tokens == 0:
            # a step on nothing would still move the weights by what is left of earlier gradients
            return StepResult(trained=(), dropped=tuple(_drop(samples, "no weight")), metrics={})
        rows = [Row(token_ids=sample.token_ids, positions=trained_positions(sample)) for sample in samples]
        total = sum(len(row.positions) for row in rows)
        teacher = self._score_teacher(samples, rows, recipe, total)
        reference = None
        if self._base is not None and recipe.uses_reference:
            reference = self._base.hidden(self._pack(rows, recipe), total)

        metrics: dict[str, float] = {}
        left_out: set[int] = set()
        self._optimizer.zero_grad(set_to_none=True)
        whole: dict[str, Any] = {}
        shared: Mapping[str, float] = {}
        if recipe.whole_batch_options:
            seen = self._look_at_all(samples, rows, recipe, denominators, teacher, reference)
            whole, shared, denominators = seen.streams(), seen.shared, seen.denominators
        for micro, streams in self._batches(samples, rows, recipe):
            streams |= {name: stream[micro.slots] for name, stream in whole.items()}
            batch = self._loss_batch(
                self.policy(micro), micro.slots, streams, teacher, reference, shared=shared
            )
            output = objective(recipe, batch, denominators)
            torch.autograd.backward(output.loss)
            left_out.update(output.dropped)
            for name, value in output.metrics.items():
                metrics[name] = metrics.get(name, 0.0) + value

        dropped = _drop([samples[index] for index in sorted(left_out)], "too far from the sampler")
        kept = [sample for index, sample in enumerate(samples) if index not in left_out]
        if not kept:
            return StepResult(trained=(), dropped=tuple(dropped), metrics={})
        norm = self._apply(recipe)
        if norm is None:
            dropped += _drop(kept, "gradient not finite")
            return StepResult(trained=(), dropped=tuple(dropped), metrics={})
        metrics |= {f"shared/{name}": value for name, value in shared.items()}
        metrics |= {"grad_norm": norm, "lr": self._rate(recipe, self.num_steps)}
        self._schedules.advance(metrics)
        metrics["step_s"] = time.perf_counter() - begin
        return StepResult(trained=tuple(kept), dropped=tuple(dropped), metrics=metrics)

    def _loss_batch(
        self,
        hidden: Tensor,
        slots: Tensor,
        streams: Mapping[str, Any],
        teacher: Tensor | None,
        reference: Tensor | None,
        shared: Mapping[str, float],
    ) -> LossBatch:
        """The positions `slots`, with the policy's hidden states [n, H] and what teacher and version 0 gave there."""
        return LossBatch(
            hidden=hidden,
            head=self.policy.head(),
            teacher_hidden=None if teacher is None else teacher[slots],
            teacher_head=None if self._teacher is None else self._teacher.head(),
            ref_hidden=None if reference is None else reference[slots],
            ref_head=None if reference is None or self._base is None else self._base.head(),
            shared=shared,
            **streams,
        )

    def _look_at_all(
        self,
        samples: Sequence[TrainingSample],
        rows: Sequence[Row],
        recipe: Recipe,
        denominators: Denominators,
        teacher: Tensor | None,
        reference: Tensor | None,
    ) -> WholeBatch:
        """What the recipe's options make of the whole batch."""
        weights = Weights(self.policy, None)
        parts = []
        for micro, streams in self._batches(samples, rows, recipe):
            count = micro.slots.numel()
            local = replace(micro, slots=torch.arange(count, device=micro.slots.device))
            hidden = weights.hidden([local], count)
            parts.append(
                (
                    self._loss_batch(hidden, micro.slots, streams, teacher, reference, shared={}),
                    micro.slots,
                )
            )
        return whole_batch(recipe, parts, samples, denominators)

    def _pack(self, rows: Sequence[Row], recipe: Recipe) -> list[MicroBatch]:
        micros = pack(
            rows,
            max_tokens=recipe.batch.micro_tokens,
            share=self.policy.shares_prefix,
            pairs_per_id=self.policy.pairs_per_id,
        )
        return [micro.to(self.policy.device) for micro in micros]

    def _batches(
        self, samples: Sequence[TrainingSample], rows: Sequence[Row], recipe: Recipe
    ) -> Iterator[tuple[MicroBatch, dict[str, Tensor]]]:
        """Micro batches with their streams. Samples with and without the sampler's log-probs never share one: a
        stream is there for all positions or for none."""
        ends = list(accumulate(len(row.positions) for row in rows))
        for known in (True, False):
            members = [
                i for i, sample in enumerate(samples) if (sample.behavior_logprobs is not None) == known
            ]
            if not members:
                continue
            slots = [slot for i in members for slot in range(ends[i] - len(rows[i].positions), ends[i])]
            own = [rows[i] for i in members]
            streams = streams_of([samples[i] for i in members], own, members, self.policy.device)
            slot_of = torch.tensor(slots, device=self.policy.device)
            for micro in self._pack(own, recipe):
                part = {name: stream[micro.slots] for name, stream in streams.items()}
                yield replace(micro, slots=slot_of[micro.slots]), part

    def _score_teacher(
        self, samples: Sequence[TrainingSample], rows: Sequence[Row], recipe: Recipe, total: int
    ) -> Tensor | None:
        """[N, H] the teacher's hidden states at the samples' trained ids; None without a teacher."""
        if self._teacher is None:
            return None
        views = []
        for sample, row in zip(samples, rows, strict=True):
            if sample.teacher is None:
                views.append(row)
                continue
            there = teacher_positions(sample.teacher, sample.token_ids, row.positions)
            views.append(Row(token_ids=sample.teacher.token_ids, positions=there))
        return self._teacher.hidden(self._pack(views, recipe), total)

    def _rate(self, recipe: Recipe, step: int) -> float:
        """The learning rate of step `step`, counted from 1."""
        warm = recipe.optim.warmup_steps
        return recipe.optim.lr * min(1.0, step / warm) if warm else recipe.optim.lr

    def _apply(self, recipe: Recipe) -> float | None:
        """Clips and steps; the norm before clipping, or None, with nothing changed, when it is not finite."""
        norm = float(torch.nn.utils.clip_grad_norm_(self.policy.trained.values(), recipe.optim.max_grad_norm))
        if not math.isfinite(norm):
            return None
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate(recipe, self.num_steps + 1)
        self._optimizer.step()
        self.num_steps += 1
        if isinstance(self._teacher, FollowingWeights):
            self._teacher.follow(self.num_steps)
        return norm

    @torch.no_grad()
    def mean_logprobs(self, rows: Sequence[Row]) -> list[float]:
        """For each row the mean raw log-prob of the ids at its positions under the policy as it is."""
        total = sum(len(row.positions) for row in rows)
        if not total:
            return []
        hidden = Weights(self.policy, None).hidden(self._pack(rows, self.recipe), total)
        means = []
        at = 0
        for row in rows:
            here = hidden[at : at + len(row.positions)]
            at += len(row.positions)
            ids = torch.tensor([row.token_ids[p] for p in row.positions], device=here.device)
            logprobs = (here @ self.policy.head().T).log_softmax(-1)
            means.append(float(logprobs.gather(1, ids[:, None]).mean()))
        return means

    def weights_are_finite(self) -> bool:
        return all(bool(torch.isfinite(tensor).all()) for tensor in self.policy.trained.values())

    def state(self) -> TrainerState:
        """Everything that the next step depends on, without copying it."""
        tensors: dict[str, Tensor] = {f"weights/{k}": v.detach() for k, v in self.policy.trained.items()}
        for name, parameter in self.policy.trained.items():
            moments = self._optimizer.state.get(parameter, {})
            for key in ("exp_avg", "exp_avg_sq"):
                if key in moments:
                    tensors[f"{key}/{name}"] = moments[key]
        if isinstance(self._teacher, FollowingWeights):
            assert self._teacher.tensors is not None
            tensors |= {f"teacher/{name}": tensor for name, tensor in self._teacher.tensors.items()}
        counters = {
            "num_steps": self.num_steps,
            "schedules": self._schedules.state_dict(),
            "precision": self.policy.precision,
            "seed": self._learn.seed,
            "lora_rank": self._learn.lora_rank,
            "sync": self.recipe.sync.name,
        }
        return TrainerState(tensors=tensors, counters=counters)

    @torch.no_grad()
    def load(self, state: TrainerState) -> None:
        """Takes over a state that `state` has given, bit for bit.

        Raises:
            ConfigError: it belongs to other weights or another teacher than this trainer's.
        """
        tensors, counters = state.tensors, state.counters
        for name in ("lora_rank", "sync"):
            own = self._learn.lora_rank if name == "lora_rank" else self.recipe.sync.name
            if counters[name] != own:
                raise ConfigError(
                    f"the saved learner has {name} = {counters[name]!r}, this run {own!r}: start a new run folder, or "
                    "go back to the old setting"
                )
        if self._learn.precision == "auto":
            # settled once for a run: another number type would make other weights of the same log
            self._precision = counters["precision"]
            set_precision(self.policy, self._precision)
        for name, parameter in self.policy.trained.items():
            parameter.copy_(tensors[f"weights/{name}"])
        self._optimizer.state.clear()
        for name, parameter in self.policy.trained.items():
            if f"exp_avg/{name}" in tensors:
                self._optimizer.state[parameter] = {
                    "step": torch.tensor(float(counters["num_steps"]), device=parameter.device),
                    "exp_avg": tensors[f"exp_avg/{name}"].to(parameter.device, copy=True),
                    "exp_avg_sq": tensors[f"exp_avg_sq/{name}"].to(parameter.device, copy=True),
                }
        if isinstance(self._teacher, FollowingWeights):
            prefix = "teacher/"
            self._teacher.load({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})
        self._schedules.load_state_dict(counters["schedules"])
        self.num_steps = int(counters["num_steps"])


def _drop(samples: Sequence[TrainingSample], reason: str) -> list[Dropped]:
    return [Dropped(turn_ids=sample.turn_ids, reason=reason) for sample in samples]
