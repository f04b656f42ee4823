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
from agentrl.learner.external_teacher import ExternalWeights
from agentrl.learner.model import FIRST_ADAPTER, PolicyModel, adapter_name, load_policy, set_precision
from agentrl.learner.notes import Note, Notes
from agentrl.learner.pack import IdCount, MicroBatch, Row
from agentrl.learner.scored import CachedScores, Scored, score
from agentrl.learner.streams import mean_reward, only_beside, streams_of, trained_positions
from agentrl.learner.teacher_weights import (
    BaseWeights,
    FollowingWeights,
    JointWeights,
    SoupWeights,
    VersionPath,
    Weights,
    copy_of,
    make_teacher,
)
from agentrl.losses.batch import sample_tokens
from agentrl.losses.objective import Denominators, LossBatch, count_tokens, objective
from agentrl.losses.whole import WholeBatch, whole_batch
from agentrl.recipes import axes
from agentrl.recipes.eligibility import GREEDY
from agentrl.recipes.files import path_of
from agentrl.recipes.recipe import Recipe
from agentrl.recipes.schedules import Schedules
from agentrl.store.account import Reason
from agentrl.types import JSON, TrainingSample


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What a step did with the samples it was given: every one is in `trained` or in `dropped`."""

    trained: tuple[TrainingSample, ...]
    dropped: tuple[Dropped, ...]
    metrics: dict[str, float]
    """Empty when nothing was trained."""
    notes: tuple[Note, ...] = ()
    """What was noted of each of `trained`; empty where nothing is noted."""


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

    Args:
        model_path: folder of version 0.
        recipe: the learning method.
        learn: device, number type, seed, rank of the adapter.
        version_path: where the run's versions stand, for a teacher that is one of them.
        beside: another trainer with an adapter; this one trains an adapter of its own on the same base, in turn.
        line: the line of versions that is trained ("default", "user:x"); it names the adapter.
        keeps_base: have version 0 at hand as `base`, whether the recipe needs it or not.

    Raises:
        ModelError, ConfigError: the model or the recipe cannot be trained here; the message names the remedy.
    """

    def __init__(
        self,
        model_path: Path,
        recipe: Recipe,
        learn: LearnConfig,
        *,
        version_path: VersionPath | None = None,
        beside: Trainer | None = None,
        line: str = FIRST_ADAPTER,
        keeps_base: bool = False,
    ) -> None:
        self.model_path = model_path
        self.recipe = recipe
        self._learn = learn
        self._version_path = version_path
        self._keeps_base = keeps_base
        self._precision: Precision = learn.precision
        self._adapter = FIRST_ADAPTER if beside is None else adapter_name(line)
        self._cached: CachedScores | None = None
        if recipe.uses_kd and isinstance(recipe.teacher, axes.CachedTeacher):
            self._cached = CachedScores(
                path_of(recipe, "teacher.path"), str(path_of(recipe, "teacher.model"))
            )
        self._external: ExternalWeights | None = None
        self._model: PolicyModel = self._load() if beside is None else beside._model
        if beside is not None:
            same = (beside.model_path, beside._learn.lora_rank) == (model_path, learn.lora_rank)
            if not self._model.lora or not same:
                raise ConfigError(
                    f"policy {line!r} is to be trained beside another one on the same base, which only adapters of "
                    "one model and one rank can be: set learn.lora_rank above 0 and the same for both"
                )
            self._model.add_adapter(self._adapter, learn.seed)
        self._first = copy_of(self.policy.trained) if self.policy.lora else None
        self._begin()

    @property
    def policy(self) -> PolicyModel:
        """The model, with this trainer's adapter in force."""
        self._model.use_adapter(self._adapter)
        return self._model

    @property
    def teacher(self) -> Weights | None:
        """The teacher's weights; None where the recipe has no teacher, or one whose scores were made beforehand."""
        return self._teacher

    @property
    def base(self) -> Weights | None:
        """Version 0's weights; None where neither the recipe nor `keeps_base` wants them."""
        return self._base

    @property
    def seed(self) -> int:
        """What the run's random numbers are drawn from."""
        return self._learn.seed

    def _load(self) -> PolicyModel:
        """The model folder's weights."""
        return load_policy(
            self.model_path,
            device=self._learn.device,
            precision=self._precision,
            lora_rank=self._learn.lora_rank,
            seed=self._learn.seed,
        )

    def _begin(self) -> None:
        """What goes with version 0: its teacher, an empty optimiser, the schedules at their start."""
        recipe = self.recipe
        self._precision = self.policy.precision
        own = recipe.uses_kd and isinstance(recipe.teacher, axes.SelfTeacher)
        from_base = own and recipe.sync == axes.Fixed(version=0)
        needed = from_base or recipe.uses_reference or self._keeps_base
        self._base = BaseWeights(self.policy) if needed else None
        self._reference = self._make_reference() if recipe.uses_reference else None
        self._teacher = self._make_teacher() if recipe.uses_kd else None
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

    def _make_reference(self) -> Weights | None:
        """Version 0, or what the recipe puts in its place."""
        setting = next(iter(self.recipe.references), None)
        if setting is None:
            return self._base
        share = 0.5 if setting.endswith(".soup") else 1.0
        return SoupWeights(self.policy, path_of(self.recipe, setting), setting=setting, share=share)

    def _make_teacher(self) -> Weights | None:
        """The teacher's weights; None where there are none."""
        teacher = self.recipe.teacher
        if isinstance(teacher, axes.SelfTeacher):
            return make_teacher(self.policy, self.recipe.sync, self._base, version_path=self._version_path)
        if isinstance(teacher, axes.JointTeacher):
            return JointWeights(self.policy)
        if isinstance(teacher, axes.ExternalTeacher) and self._external is None:
            self._external = ExternalWeights(
                path_of(self.recipe, "teacher.path"),
                policy_path=self.model_path,
                vocab_size=self.policy.head().shape[0],
                device=self._learn.device,
                precision=self._precision,
            )
        return self._external

    @torch.no_grad()
    def reset(self) -> None:
        """Goes back to version 0."""
        if self._first is None:
            self._model = self._load()
        else:  # the base under an adapter never changed, and others may train theirs on it
            for name, parameter in self.policy.trained.items():
                parameter.copy_(self._first[name])
        self._begin()

    @property
    def max_len(self) -> int:
        """Most ids of one sequence, as the policy's and an external teacher's positions reach."""
        own = self._model.max_len
        return own if self._external is None else min(own, self._external.max_len)

    def step(self, samples: Sequence[TrainingSample]) -> StepResult:
        """One optimiser step on `samples`; each needs at least one trained id behind the first position.

        A sequence that adds no term to the loss, or whose log-probs are too far from the sampler's, trains nothing and
        is dropped (laws 3 and 7); a step whose gradient is not finite is not taken and drops all.
        """
        if self._cached is not None:
            known, unknown = self._cached.sift(samples)
            if unknown:
                result = self.step(known)
                return replace(result, dropped=(*result.dropped, *_drop(unknown, "no teacher score")))
        begin = time.perf_counter()
        recipe = self._schedules.current()
        rewarded = mean_reward(samples)
        denominators = count_tokens(recipe, samples)
        if denominators.tokens == 0:
            # a step on nothing would still move the weights by what is left of earlier gradients
            return StepResult(trained=(), dropped=tuple(_drop_idle(samples)), metrics={})
        idle = [sample for sample in samples if not sample_tokens(recipe, sample).train]
        samples = [sample for sample in samples if sample_tokens(recipe, sample).train]
        dropped = _drop_idle(idle)
        rows = [Row(token_ids=sample.token_ids, positions=trained_positions(sample)) for sample in samples]
        total = sum(len(row.positions) for row in rows)
        counted = IdCount()
        if self._teacher is not None:
            self._teacher.counted = IdCount()
        teacher = self._score_teacher(samples, recipe)
        reference = None
        if self._reference is not None:
            reference = self._reference.hidden(self._pack(rows, recipe), total)

        metrics: dict[str, float] = {}
        left_out: set[int] = set()
        unused: set[int] = set()
        not_held: set[int] = set()
        self._optimizer.zero_grad(set_to_none=True)
        whole: dict[str, Any] = {}
        shared: Mapping[str, float] = {}
        if recipe.whole_batch_options:
            seen = self._look_at_all(samples, rows, recipe, denominators, teacher, reference)
            whole, shared, denominators = seen.streams(), seen.shared, seen.denominators
            unused = seen.idle(recipe)
        notes = Notes.of(rows, denominators.tokens) if self._learn.explained_turns else None
        for micro, streams in self._batches(samples, rows, recipe):
            streams |= {name: stream[micro.slots] for name, stream in whole.items()}
            batch = self._loss_batch(
                self.policy(micro), micro.slots, streams, teacher, reference, shared=shared
            )
            counted.num_computed += micro.num_ids
            output = objective(recipe, batch, denominators, by_position=notes is not None)
            if notes is not None and output.terms is not None:
                notes.add(micro.slots, output.terms)
            torch.autograd.backward(output.loss)
            left_out.update(output.dropped)
            not_held.update(output.not_held)
            for name, value in output.metrics.items():
                metrics[name] = metrics.get(name, 0.0) + value

        dropped += _drop([samples[index] for index in sorted(left_out)], "too far from the sampler")
        dropped += _drop([samples[index] for index in sorted(unused - left_out)], "no weight")
        dropped += _drop([samples[index] for index in sorted(not_held)], Reason.ALREADY_RIGHT)
        kept = [s for index, s in enumerate(samples) if index not in left_out | unused | not_held]
        if only_beside(recipe, kept):
            dropped += _drop(kept, Reason.ALREADY_RIGHT)
            kept = []
        if not kept:
            return StepResult(trained=(), dropped=tuple(dropped), metrics={})
        norm = self._apply(recipe)
        if norm is None:
            dropped += _drop(kept, "gradient not finite")
            return StepResult(trained=(), dropped=tuple(dropped), metrics={})
        metrics |= {f"shared/{name}": value for name, value in shared.items()} | rewarded
        if isinstance(self._teacher, FollowingWeights):
            metrics |= self._teacher.follow(self.num_steps)
        counted.add(rows, ())
        metrics |= counted.metrics("policy")
        if self._teacher is not None:
            metrics |= self._teacher.counted.metrics("teacher")
        metrics |= {"grad_norm": norm, "lr": self._rate(recipe, self.num_steps)}
        blind = self._schedules.advance(metrics)
        if blind:
            metrics["num_blind_schedules"] = float(blind)
        metrics["step_s"] = time.perf_counter() - begin
        noted = () if notes is None else notes.cut(rows, samples, kept)
        return StepResult(trained=tuple(kept), dropped=tuple(dropped), metrics=metrics, notes=noted)

    def _loss_batch(
        self,
        hidden: Tensor,
        slots: Tensor,
        streams: Mapping[str, Any],
        teacher: Scored | None,
        reference: Tensor | None,
        shared: Mapping[str, float],
    ) -> LossBatch:
        """The positions `slots`, with the policy's hidden states [n, H] and what teacher and version 0 gave there."""
        return LossBatch(
            hidden=hidden,
            head=self.policy.head(),
            **({} if teacher is None else teacher.at(slots)),
            ref_hidden=None if reference is None else reference[slots],
            ref_head=None if reference is None or self._reference is None else self._reference.head(),
            shared=shared,
            **streams,
        )

    @torch.no_grad()
    def _look_at_all(
        self,
        samples: Sequence[TrainingSample],
        rows: Sequence[Row],
        recipe: Recipe,
        denominators: Denominators,
        teacher: Scored | None,
        reference: Tensor | None,
    ) -> WholeBatch:
        """What the recipe's options make of the whole batch. Without gradient: a joint teacher's graphs of all micro
        batches would have to fit into memory at once."""
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
        return Weights(self.policy, None).pack(rows, max_tokens=recipe.batch.micro_tokens)

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

    def _score_teacher(self, samples: Sequence[TrainingSample], recipe: Recipe) -> Scored | None:
        """What the teacher says of the samples' trained ids; None without a teacher."""
        if self._cached is not None:
            return self._cached.score(samples, self.policy.device)
        if self._teacher is None:
            return None
        return score(self._teacher, samples, max_tokens=recipe.batch.micro_tokens)

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
        return norm

    @torch.no_grad()
    def mean_logprobs(self, rows: Sequence[Row]) -> list[float]:
        """For each row the mean raw log-prob of the ids at its positions under the policy as it is."""
        found = Weights(self.policy, None).logprobs(rows, max_tokens=self.recipe.batch.micro_tokens)
        return [float(logprobs.mean()) for logprobs in found]

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
            if self._external is not None:
                set_precision(self._external.model, self._precision)
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


def _drop_idle(samples: Sequence[TrainingSample]) -> list[Dropped]:
    """Samples without an id that trains: either all of theirs were forced, or no loss takes them."""
    forced = [
        sample.num_allowed is not None
        and all(sample.num_allowed[at] == 1 for at in trained_positions(sample))
        for sample in samples
    ]
    return [
        Dropped(turn_ids=sample.turn_ids, reason=GREEDY if own else "no weight")
        for sample, own in zip(samples, forced, strict=True)
    ]


def _drop(samples: Sequence[TrainingSample], reason: str) -> list[Dropped]:
    return [Dropped(turn_ids=sample.turn_ids, reason=reason) for sample in samples]
