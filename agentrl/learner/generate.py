"""Continuations that the learner samples itself, with the policy's weights or a teacher's, from prompts given as ids.

    prompts ─batches of similar length, padded on the left─> one pass each, then one id a pass, keys and values kept
    logits  ─engine.sampling.draw─> ids, log-probs of the distribution sampled from, raw log-probs

The logits are made as the trainer makes them, so what is recorded here is what scoring the same ids finds. Every
prompt has a seed of its own: who else is in a batch does not matter, and the same seeds give the same ids (law 11).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import DynamicCache

from agentrl.engine.sampling import draw
from agentrl.errors import LearnerError
from agentrl.learner.teacher_weights import BaseWeights, Weights
from agentrl.learner.tree_attention import FLEX_ATTENTION
from agentrl.types import Completion, FinishReason, Sampling, VersionSpan

PAD = 0
"""Stands where a shorter prompt has nothing; the mask keeps everyone from looking at it."""


@torch.no_grad()
def generate(
    weights: Weights,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    *,
    sampling: Sampling,
    stop_ids: frozenset[int],
    max_tokens: int,
    max_len: int,
    version: int = -1,
) -> list[Completion]:
    """One continuation of each prompt.

    Args:
        weights: whose; the model's own or a teacher's.
        prompts: ids, at least one each and fewer than `max_len`.
        seeds: [prompts] what each draws from.
        sampling: temperature, filters and the most ids of a continuation; its seed and texts to stop at are not read.
        stop_ids: a continuation ends with the first of these.
        max_tokens: most ids of a batch, padding and continuations included; a longer prompt has a batch of its own.
        max_len: most ids of a prompt with its continuation.
        version: which the continuations are said to come from.

    Raises:
        LearnerError: the weights give numbers that are not finite.
    """
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    found: dict[int, Completion] = {}
    with in_force(weights):
        for members in _batches([len(prompts[index]) for index in order], sampling.max_tokens, max_tokens):
            chosen = order[members.start : members.stop]
            batch = _Batch(
                weights, [prompts[i] for i in chosen], [seeds[i] for i in chosen], sampling, max_len
            )
            found |= dict(zip(chosen, batch.run(stop_ids, version), strict=True))
    return [found[index] for index in range(len(prompts))]


@contextmanager
def in_force(weights: Weights) -> Iterator[None]:
    """The model computes with these tensors in the place of its own, and with attention that can go on from a cache."""
    model = weights.model
    if model.attention == FLEX_ATTENTION:
        model.causal_lm.set_attn_implementation("sdpa")
    own = {name: parameter.data for name, parameter in model.trained.items()}
    try:
        if isinstance(weights, BaseWeights) and model.lora:
            with model.adapter_off():
                yield
            return
        for name, tensor in (weights.tensors or {}).items():
            model.trained[name].data = tensor.to(own[name].dtype)
        yield
    finally:
        for name, tensor in own.items():
            model.trained[name].data = tensor
        if model.attention == FLEX_ATTENTION:
            model.causal_lm.set_attn_implementation(model.attention)


class _Batch:
    """Prompts that are continued together."""

    def __init__(
        self,
        weights: Weights,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        sampling: Sampling,
        max_len: int,
    ) -> None:
        model = self._model = weights.model
        self._head = weights.head()
        self._sampling = sampling
        self._rooms = [min(sampling.max_tokens, max_len - len(prompt)) for prompt in prompts]
        self._uniforms = [random.Random(seed) for seed in seeds]
        width = max(len(prompt) for prompt in prompts)
        blanks = [width - len(prompt) for prompt in prompts]
        ids = [[PAD] * blank + list(prompt) for blank, prompt in zip(blanks, prompts, strict=True)]
        self._ids = torch.tensor(ids, device=model.device)
        places = torch.arange(width, device=model.device)
        self._mask = (places >= torch.tensor(blanks, device=model.device)[:, None]).long()
        self._streams: list[_Streams] = [_Streams() for _ in prompts]

    def run(self, stop_ids: frozenset[int], version: int) -> list[Completion]:
        alive = list(range(len(self._streams)))
        cache = DynamicCache(config=self._model.config)
        ids, mask = self._ids, self._mask
        for step in range(1, max(self._rooms) + 1):
            logits = self._logits(ids, mask, cache)
            drawn = draw(logits, [self._sampling] * len(alive), [self._uniforms[i].random() for i in alive])
            if drawn.broken:
                raise LearnerError("the weights that were to sample give numbers that are not finite")
            going = []
            for row, index in enumerate(alive):
                stream, token_id = self._streams[index], drawn.token_ids[row]
                stream.add(token_id, drawn.logprobs[row], drawn.raw_logprobs[row], drawn.num_allowed[row])
                stream.stopped = token_id in stop_ids
                if not stream.stopped and step < self._rooms[index]:
                    going.append(row)
            if not going:
                break
            ids = torch.tensor(drawn.token_ids, device=self._model.device)[:, None]
            if len(going) < len(alive):
                rows = torch.tensor(going, device=self._model.device)
                cache.batch_select_indices(rows)
                ids, mask = ids[rows], mask[rows]
                alive = [alive[row] for row in going]
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
        return [stream.completion(version) for stream in self._streams]

    def _logits(self, ids: Tensor, mask: Tensor, cache: DynamicCache) -> Tensor:
        """[B, V] fp32 at the last id of each row."""
        model = self._model
        places = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=model.precision == "bf16"):
            output = model.causal_lm.get_decoder()(
                input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True
            )
        last: Tensor = output.last_hidden_state[:, -1].float()
        return last @ self._head.T


class _Streams:
    """What one prompt has been given so far."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._logprobs: list[float] = []
        self._raw: list[float] = []
        self._allowed: list[int] = []
        self.stopped = False

    def add(self, token_id: int, logprob: float, raw: float, allowed: int) -> None:
        self._ids.append(token_id)
        self._logprobs.append(logprob)
        self._raw.append(raw)
        self._allowed.append(allowed)

    def completion(self, version: int) -> Completion:
        return Completion(
            token_ids=tuple(self._ids),
            logprobs=tuple(self._logprobs),
            raw_logprobs=tuple(self._raw),
            num_allowed=tuple(self._allowed),
            finish_reason=FinishReason.STOP if self.stopped else FinishReason.LENGTH,
            version_spans=(VersionSpan(version=version, start=0, end=len(self._ids)),),
        )


def _batches(lengths: Sequence[int], num_new: int, max_tokens: int) -> Iterator[range]:
    """Runs of ascending lengths whose padded sequences hold at most `max_tokens` ids."""
    begin = 0
    for end in range(1, len(lengths) + 1):
        fits = end < len(lengths) and (end + 1 - begin) * (lengths[end] + num_new) <= max_tokens
        if not fits:
            yield range(begin, end)
            begin = end
