"""One request as the scheduler sees it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from agentrl.engine.base import Scores
from agentrl.engine.grammar import Constraint, Grammar
from agentrl.engine.messages import End, Generate, Score
from agentrl.types import FinishReason, VersionSpan

Decode = Callable[[Sequence[int]], str]


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """A sequence that is being computed.

    The row of a version holds keys and values of ids [0, filled). While `filled` lacks more than the newest id, the
    sequence is being prefilled; with exactly the newest lacking it decodes.
    """

    job: int
    ids: list[int]
    priority: int
    arrival: int
    """Order of arrival among all requests."""
    pinned: int | None
    """The version asked for by number: such a request is never moved."""
    cache_key: str = ""
    row: int = -1
    """Row in its version; -1 while it waits."""
    version: int = -1
    filled: int = 0
    num_cached: int = 0
    num_version_prefill: int = 0

    @property
    def urgency(self) -> tuple[int, int]:
        return self.priority, self.arrival

    @property
    def remaining(self) -> int:
        """Ids without keys and values."""
        return len(self.ids) - self.filled

    @property
    def ready(self) -> bool:
        """Whether it could begin: a generation waits for its grammar."""
        return True

    def restart(self) -> None:
        """Called when the request moves to another version."""


@dataclass(slots=True, eq=False, kw_only=True)
class Generation(Job):
    """A request for sampled ids. `ids` holds the prompt and what was sampled so far."""

    command: Generate
    num_prompt: int
    last: int
    """Length of `ids` at which it ends."""
    uniforms: random.Random
    decode: Decode | None = None
    """Ids to text, where stop strings are asked for."""
    window: int = 0
    """Newest ids that can hold a stop string which the last id completes."""
    constraint: Constraint | None = None
    """What its grammar allows after the ids sampled so far; None without a grammar, or until it is compiled."""
    spans: list[list[int]] = field(default_factory=list)
    """[version, end] of each run of sampled ids: what a reply's version spans are made of."""

    @property
    def ready(self) -> bool:
        return self.constraint is not None or self.command.sampling.grammar is None

    def follow(self, grammar: Grammar) -> None:
        """Takes its compiled grammar."""
        sampling = self.command.sampling
        self.constraint = grammar.begin(sampling.stop_token_ids, sampling.grammar_after)

    def append(self, token_id: int) -> FinishReason | None:
        """Takes one sampled id, from the version the job is on; says whether it was the last."""
        self.ids.append(token_id)
        if not self.spans or self.spans[-1][0] != self.version:
            self.spans.append([self.version, 0])
        self.spans[-1][1] = len(self.ids) - self.num_prompt
        full = len(self.ids) >= self.last
        stop_ids = self.command.sampling.stop_token_ids
        if token_id in stop_ids or (self.decode is not None and self._completes_a_stop()):
            return FinishReason.STOP
        if self.constraint is not None:
            self.constraint.take(token_id)
            # A complete reply is closed by its stop id, as any other, where there is one and room for it.
            if self.constraint.complete and (full or not stop_ids):
                return FinishReason.STOP
        return FinishReason.LENGTH if full else None

    def _completes_a_stop(self) -> bool:
        assert self.decode is not None
        text = self.decode(self.ids[max(self.num_prompt, len(self.ids) - self.window) :])
        return any(stop in text for stop in self.command.sampling.stop)

    def version_spans(self) -> tuple[VersionSpan, ...]:
        starts = [0, *(end for _, end in self.spans)]
        return tuple(
            VersionSpan(version=version, start=start, end=end)
            for start, (version, end) in zip(starts, self.spans, strict=False)
        )

    def end(self, reason: FinishReason) -> End:
        return End(
            job=self.job,
            finish_reason=reason,
            version_spans=self.version_spans(),
            num_cached=self.num_cached,
            num_version_prefill=self.num_version_prefill,
        )


def generation(command: Generate, arrival: int, max_len: int, decode: Decode | None) -> Generation:
    sampling = command.sampling
    stops = [stop for stop in sampling.stop if stop]
    return Generation(
        job=command.job,
        ids=list(command.prompt_ids),
        priority=command.priority,
        arrival=arrival,
        pinned=command.version,
        cache_key=command.cache_key,
        command=command,
        num_prompt=len(command.prompt_ids),
        last=min(max_len, len(command.prompt_ids) + sampling.max_tokens),
        uniforms=random.Random(sampling.seed),
        decode=decode if stops else None,
        # Every id adds at least one byte. One id more, because some decoders drop a space before the first.
        window=1 + max((len(stop.encode()) for stop in stops), default=0),
    )


@dataclass(slots=True, eq=False, kw_only=True)
class Scoring(Job):
    """A request for the log-probs of given ids. The last id is scored, never fed."""

    command: Score
    logprobs: list[float] = field(default_factory=list)
    top: list[tuple[tuple[int, float], ...]] = field(default_factory=list)
    candidates: list[tuple[float, ...]] = field(default_factory=list)

    def restart(self) -> None:
        """A score comes from one version: after a move it begins again."""
        self.logprobs.clear()
        self.top.clear()
        self.candidates.clear()

    def first_wanted(self) -> int:
        """The first fed position whose logits are needed: it predicts id `start`."""
        return self.command.start - 1

    def take(self, logits: Tensor, position: int) -> None:
        """Reads the scores off [W, V] logits of consecutive positions, the first of them `position`."""
        raw = torch.log_softmax(logits, dim=-1)
        command, count = self.command, logits.shape[0]
        targets = torch.tensor(command.token_ids[position + 1 : position + 1 + count], device=raw.device)
        self.logprobs += raw.gather(1, targets.unsqueeze(1)).squeeze(1).tolist()
        if command.top_k:
            values, ids = raw.topk(min(command.top_k, raw.shape[1]), dim=-1)
            self.top += [
                tuple(zip(*pair, strict=True)) for pair in zip(ids.tolist(), values.tolist(), strict=True)
            ]
        if command.candidate_ids is not None:
            first = position + 1 - command.start
            for row, wanted in zip(raw, command.candidate_ids[first : first + count], strict=True):
                at = torch.tensor(wanted, dtype=torch.long, device=raw.device)
                self.candidates.append(tuple(row[at].tolist()))

    def scores(self) -> Scores:
        return Scores(
            logprobs=tuple(self.logprobs),
            version=self.version,
            top=tuple(self.top),
            candidates=tuple(self.candidates),
        )


def scoring(command: Score, arrival: int) -> Scoring:
    return Scoring(
        job=command.job,
        ids=list(command.token_ids[:-1]),
        priority=command.priority,
        arrival=arrival,
        pinned=command.version,
        command=command,
    )
