"""What a step taught of each claimed turn, as the log keeps it for `agentrl explain`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from agentrl.learner.trainer import StepResult
from agentrl.store.claims import Claimed
from agentrl.store.taught import Measured, Shown, Taught
from agentrl.text.redaction import Redactor
from agentrl.types import TrainingSample


def taught_by(
    result: StepResult, claims: Sequence[Claimed], redactor: Redactor, measured: Mapping[str, Measured]
) -> list[Taught]:
    """One record for each trained sample of a claimed turn; what stood beside the turns of the step has none.

    Args:
        result: with notes; without them there is no record.
        claims: the turns that the step was made of.
        redactor: of the run. The texts were redacted before they reached the log, but for skills that somebody wrote.
        measured: by turn how useful its hints are.
    """
    turns = {claim.turn.id: claim.turn for claim in claims}
    found = []
    for sample, note in zip(result.trained, result.notes, strict=True) if result.notes else ():
        turn = next((turns[name] for name in sample.turn_ids if name in turns), None)
        if turn is None:
            continue
        ids = sample.token_ids[note.start : note.end]
        found.append(
            Taught(
                turn_id=turn.id,
                source=sample.source,
                num_tokens=note.num_tokens,
                shown=None if sample.teacher is None else _shown(sample, redactor),
                measured=_redacted(measured.get(turn.id), redactor),
                token_ids=None if ids == turn.completion.token_ids else ids,
                loss=note.streams["loss"],
                logprob=note.streams["logprob"],
                teacher_logprob=note.streams.get("teacher_logprob"),
                advantage=note.streams.get("advantage"),
                ratio=note.streams.get("ratio"),
            )
        )
    return found


def _redacted(found: Measured | None, redactor: Redactor) -> Measured | None:
    if found is None:
        return None
    values = tuple((redactor.text(hint)[0], value) for hint, value in found.values)
    chosen = None if found.chosen is None else redactor.text(found.chosen)[0]
    return replace(found, values=values, chosen=chosen)


def _shown(sample: TrainingSample, redactor: Redactor) -> tuple[Shown, ...]:
    view = sample.teacher
    assert view is not None
    return tuple(
        Shown(
            position=block.position,
            text=redactor.text(block.text)[0],
            origin=block.origin,
            start=start,
            end=end,
        )
        for block, (start, end) in zip(view.blocks, view.inserted_spans, strict=True)
    )
