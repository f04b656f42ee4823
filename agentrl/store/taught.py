"""What a step taught of each turn: what the teacher was shown, and the loss of every id. For people; nothing that is
trained or counted reads it.

Written with its step, in one transaction, and bounded: the newest records stay. Streams are float16, which gives a
log-prob of -20 to a hundredth.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentrl.store import codec

STREAMS = ("loss", "logprob", "teacher_logprob", "advantage", "ratio")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A block that the teacher read beyond the prompt."""

    position: str
    """"system", "last_user" or "tail"."""
    text: str
    """Redacted."""
    origin: str
    """What it is and whose: "hint", "hint of TURN", "skill NAME", "session NAME", "preferred answer" ..."""
    start: int
    """[start, end) are the block's ids among those that the teacher read."""
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """How useful the hints of a turn are (`agentrl.learner.usefulness`)."""

    measure: str
    """"lift", in nats an id, or "overlap", in [0, 1]."""
    values: tuple[tuple[str, float], ...]
    """Each hint, redacted, and its value, the most trusted first."""
    chosen: str | None
    """The hint of these that the teacher was shown."""

    @property
    def is_useless(self) -> bool:
        """Whether no hint was shown because none makes the teacher do what was right."""
        return self.measure == "lift" and not any(value > 0 for _, value in self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """What one step taught of one turn. A turn that gave a step several samples has several records."""

    turn_id: str
    source: str
    """How the ids came to be (`agentrl.types.SampleSource`)."""
    num_tokens: int
    """Trained ids of the step: the sum of `loss` over all of its ids, divided by this, is the step's loss."""
    shown: tuple[Shown, ...] | None
    """None where the teacher read the plain prompt, or where there was none."""
    measured: Measured | None = None
    """None where no hint was measured."""
    token_ids: tuple[int, ...] | None
    """[T] from the first trained id to the last; None where they are the turn's own sampled ids."""
    loss: NDArray[np.float16]
    """[T] nats; nan on ids that were not trained. The same holds for the others."""
    logprob: NDArray[np.float16]
    """[T] of the policy, before the step."""
    teacher_logprob: NDArray[np.float16] | None
    """[T]; None where nothing was distilled."""
    advantage: NDArray[np.float16] | None
    """[T]; None where no reward was trained."""
    ratio: NDArray[np.float16] | None
    """[T] policy to sampler; None where no reward was trained or the sampler's log-probs are unknown."""


def write(connection: sqlite3.Connection, step: int, records: Sequence[Taught], keep: int) -> None:
    """Adds the records of a step, then deletes all but the newest `keep`."""
    for record in records:
        streams = [getattr(record, name) for name in STREAMS]
        shown: Any = (
            None if record.shown is None else [[getattr(s, f.name) for f in fields(s)] for s in record.shown]
        )
        if record.measured is not None:
            shown = {"blocks": shown, "measured": asdict(record.measured)}
        connection.execute(
            f"INSERT INTO taught (step, turn_id, source, num_tokens, shown, token_ids, {', '.join(STREAMS)}) "  # noqa: S608
            f"VALUES (?, ?, ?, ?, ?, ?, {', '.join('?' * len(STREAMS))})",
            (
                step,
                record.turn_id,
                record.source,
                record.num_tokens,
                None if shown is None else codec.pack_json(shown),
                None if record.token_ids is None else codec.pack_ids(record.token_ids),
                *(None if stream is None else codec.pack_halves(stream) for stream in streams),
            ),
        )
    connection.execute(
        "DELETE FROM taught WHERE id <= (SELECT id FROM taught ORDER BY id DESC LIMIT 1 OFFSET ?)", (keep,)
    )


def read(connection: sqlite3.Connection, turn_id: str, step: int | None = None) -> list[tuple[int, Taught]]:
    """The records of a turn, of one step or of all, in the order written, each with its step.

    Raises:
        ValueError: a record is damaged.
    """
    rows = connection.execute(
        "SELECT * FROM taught WHERE turn_id = ? AND step = coalesce(?, step) ORDER BY id", (turn_id, step)
    )
    return [(row["step"], _record(row)) for row in rows]


def _record(row: sqlite3.Row) -> Taught:
    shown = None if row["shown"] is None else codec.unpack_json(row["shown"])
    measured = None
    if isinstance(shown, dict):  # a list where no hint was measured
        found = shown["measured"]
        measured = Measured(**found | {"values": tuple((text, value) for text, value in found["values"])})
        shown = shown["blocks"]
    names = [field.name for field in fields(Shown)]
    streams: dict[str, Any] = {
        name: None if row[name] is None else codec.unpack_halves(row[name]) for name in STREAMS
    }
    return Taught(
        turn_id=row["turn_id"],
        source=row["source"],
        num_tokens=row["num_tokens"],
        shown=None
        if shown is None
        else tuple(Shown(**dict(zip(names, item, strict=True))) for item in shown),
        measured=measured,
        token_ids=None if row["token_ids"] is None else codec.unpack_ids(row["token_ids"]),
        **streams,
    )


def faults(connection: sqlite3.Connection) -> list[str]:
    """Sentences naming the records that cannot be read back."""
    found = []
    for row in connection.execute(
        "SELECT t.*, l.num_sampled FROM taught t LEFT JOIN turns l ON l.id = t.turn_id"
    ):
        try:
            record = _record(row)
        except (ValueError, TypeError) as error:
            found.append(
                f"what step {row['step']} taught of turn {row['turn_id']} cannot be read back: {error}"
            )
            continue
        num_ids = row["num_sampled"] if record.token_ids is None else len(record.token_ids)
        lengths = {len(stream) for name in STREAMS if (stream := getattr(record, name)) is not None}
        if row["num_sampled"] is not None and lengths != {num_ids}:
            found.append(
                f"what step {row['step']} taught of turn {row['turn_id']} has streams of {sorted(lengths)} entries for "
                f"{num_ids} ids"
            )
    return found
