"""Claimed pairs -> samples that a loss of pairs compares.

    turns of a pair      each its own sample, as for every recipe            rejected, or preferred
    a preferred text     the prompt ids of the turn that it corrects,        preferred
                         and the text in ids, ended as a reply is ended;
                         of calls the sampled ids with those in their place

The text is a declared transform: it alone is tokenised, and nobody sampled it, so it has no log-probs of a sampler. The
loss compares with version 0 and divides by no sampler's log-probs: those of the turns are left out as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from agentrl.recipes.eligibility import GREEDY, GREEDY_PARTNER
from agentrl.teacher.contexts import preferred_of
from agentrl.text.redaction import is_blanked
from agentrl.types import Signal, TrainingSample, Turn


class PairClaim(Protocol):
    """`agentrl.store.claims.Claimed` is one."""

    @property
    def turn(self) -> Turn: ...
    @property
    def signals(self) -> Sequence[Signal]: ...
    @property
    def pair(self) -> str | None: ...
    @property
    def preferred(self) -> bool: ...


C = TypeVar("C", bound=PairClaim)


class Writer(Protocol):
    """`agentrl.text.renderer.Renderer`, as far as answers are written with it."""

    def answer(self, turn: Turn, text: str) -> tuple[int, ...] | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Lone:
    """Turns that cannot be compared, and why."""

    turn_ids: tuple[str, ...]
    reason: str


def whole(claims: Sequence[C]) -> tuple[list[C], list[C]]:
    """The claims whose pair still has a preferred and a rejected side, and those whose partner is gone."""
    kept: list[C] = []
    lone: list[C] = []
    for members in _members(claims).values():
        name, sides = members[-1].pair, {claim.preferred for claim in members}
        # without a preferred turn it is the text at the turn that names the pair
        corrected = preferred_of(members[-1].signals) is not None and members[-1].turn.id == name
        complete = sides == {True, False} or (sides == {False} and corrected)
        (kept if complete else lone).extend(members)
    return kept, lone


def paired(
    claims: Sequence[PairClaim],
    samples: Sequence[TrainingSample],
    writer: Writer,
    max_len: int,
    dropped: Mapping[str, str],
) -> tuple[list[TrainingSample], list[Lone]]:
    """The samples of whole pairs, pair by pair, and the turns that are left without a partner.

    Args:
        claims: of one step.
        samples: of the claimed turns that may be trained at all.
        writer: makes ids of preferred texts.
        max_len: most ids of a sequence.
        dropped: turns that may not, and why.
    """
    sample_of = {sample.turn_ids[0]: sample for sample in samples}
    result: list[TrainingSample] = []
    lone: list[Lone] = []
    for name, members in _members(claims).items():
        sides: list[TrainingSample] = []
        why = "no partner"
        for claim in members:
            sample = sample_of.get(claim.turn.id)
            if sample is None:  # dropped before, with a reason of its own
                why = GREEDY_PARTNER if dropped.get(claim.turn.id) == GREEDY else why
                continue
            if not any(_chosen(sample)):
                lone.append(Lone(turn_ids=sample.turn_ids, reason=GREEDY))
                why = GREEDY_PARTNER
                continue
            sides.append(replace(sample, pair=name, preferred=claim.preferred, behavior_logprobs=None))
        if not any(claim.preferred for claim in members):
            text = _written(members[-1], name, writer, max_len)
            if isinstance(text, str):
                why = text
            else:
                sides.append(text)
        if {side.preferred for side in sides} == {True, False}:
            result += sides
        else:
            ids = tuple(turn_id for side in sides for turn_id in side.turn_ids)
            lone += [Lone(turn_ids=ids, reason=why)] if ids else []
    return result, lone


def answer_sample(prompt_ids: Sequence[int], reply_ids: Sequence[int], **fields: object) -> TrainingSample:
    """A sample of an answer behind which no turn stands, with no sampler's log-probs and support sizes but those among
    `fields`."""
    values: dict[str, object] = {
        "turn_ids": (),
        "token_ids": (*prompt_ids, *reply_ids),
        "loss_mask": (False,) * len(prompt_ids) + (True,) * len(reply_ids),
        "behavior_logprobs": None,
        "num_allowed": None,
        "teacher": None,
        "advantages": None,
    }
    return TrainingSample(**(values | fields))  # type: ignore[arg-type]


def _members(claims: Sequence[C]) -> dict[str, list[C]]:
    """Claims by pair, in the order of their first members; one without a pair is alone."""
    found: dict[str, list[C]] = {}
    for claim in claims:
        found.setdefault(claim.turn.id if claim.pair is None else claim.pair, []).append(claim)
    return found


def _written(claim: PairClaim, name: str, writer: Writer, max_len: int) -> TrainingSample | str:
    """The preferred text as a sample, or why there is none."""
    text = preferred_of(claim.signals) if claim.turn.id == name else None
    if text is None:
        return "no partner"
    if is_blanked(text):
        return "redacted sample"
    reply = writer.answer(claim.turn, text)
    if reply is None:
        return "calls cannot be written"
    if len(claim.turn.prompt_ids) + len(reply) > max_len:
        return "longer than the model"
    return answer_sample(claim.turn.prompt_ids, reply, source="correction", pair=name, preferred=True)


def _chosen(sample: TrainingSample) -> list[bool]:
    """[L] where an id is trained and was not forced."""
    if sample.num_allowed is None:
        return list(sample.loss_mask)
    return [
        trained and number != 1 for trained, number in zip(sample.loss_mask, sample.num_allowed, strict=True)
    ]
