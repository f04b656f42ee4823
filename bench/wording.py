"""Trains what reads users' next words, and shows how well it reads authors that it never saw.

`python -m bench.wording --train` writes the weights of `agentrl.signals.reactions`; `--cross` prints how well the word
tables, the classifier and both together find corrections and approvals: by request within an author, with each author
of `UNSEEN` left out, and on the half `dev` of the labelled turns.

`wording/a.jsonl` and `b.jsonl` were written without sight of the rules; the author of `c.jsonl` had seen rows of both.
`d.jsonl` holds what the first weights misread: talk, answers and tasks that look like corrections or praise, and
corrections that look like praise.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from rich.console import Console
from rich.table import Table

from agentrl.signals.labelled import read_half
from agentrl.signals.reaction_features import features
from agentrl.signals.reactions import SURE_APPROVAL, SURE_CORRECTION, WEIGHTS, Reaction, Reading, read
from agentrl.signals.wording import approves, corrects, signs
from agentrl.text.content import message_text
from agentrl.text.linear import Group, Linear
from bench.linear import fit

FOLDER = Path(__file__).parent / "wording"
AUTHORS = ("a", "b", "c", "d")
UNSEEN = ("a", "b")
"""Authors who wrote without sight of the rules, and of whom no author of other rows saw more than a sample."""
NUM_BUCKETS = 1 << 15
PENALTY = 0.5
CORRECTIONS = 0.2
"""The share of the training's mass that is corrections: live traffic holds fewer than the files."""
NUM_FOLDS = 5
KINDS = {
    "correction": Reaction.CORRECTION,
    "praise": Reaction.APPROVAL,
    "new_task": Reaction.NEW_TASK,
    "none": Reaction.TALK,
}
"""What the labelled turns call it."""
APPROVALS = (Reaction.APPROVAL, Reaction.APPROVAL_THEN_TASK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One message behind an answer."""

    asked: str
    reply: str
    next: str
    label: str


def author(name: str) -> list[Row]:
    """The rows of one author."""
    lines = (FOLDER / f"{name}.jsonl").read_text("utf-8").splitlines()
    return [
        Row(**{key: data[key] for key in ("asked", "reply", "next", "label")})
        for data in map(json.loads, lines)
    ]


def dev() -> list[Row]:
    """The turns of the half `dev` whose next state is a user's message and which are no game."""
    return [
        Row(
            asked=[message_text(message) for message in item.messages if message["role"] == "user"][-1],
            reply=item.reply.text,
            next=message_text(item.next[0]),
            label=KINDS[item.label.kind],
        )
        for item in read_half("dev")
        if item.end is None and item.next and item.next[0]["role"] == "user" and item.label.kind in KINDS
    ]


def everything() -> list[Row]:
    return [row for name in AUTHORS for row in author(name)] + dev()


def digest(rows: Iterable[Row]) -> str:
    """Of what weights are trained on: another sentence, label, count, word table, feature or setting gives another."""
    found = hashlib.sha256(json.dumps([NUM_BUCKETS, PENALTY, CORRECTIONS]).encode())
    for row in rows:
        found.update(json.dumps([_features(row), row.label]).encode())
    return found.hexdigest()[:16]


def train(rows: Sequence[Row]) -> Linear:
    return fit(
        [_features(row) for row in rows],
        [row.label for row in rows],
        [str(each) for each in Reaction],
        num_buckets=NUM_BUCKETS,
        penalty=PENALTY,
        weights_of=counts(rows),
        trained_on=digest(rows),
    )


def _features(row: Row) -> list[Group]:
    given = {"reply": row.reply, "asked": row.asked}
    return features(row.next, **given, signs=signs(row.next, **given))


def counts(rows: Sequence[Row]) -> list[float]:
    """How often each row counts, so that corrections are `CORRECTIONS` of the mass."""
    is_correction = [row.label == Reaction.CORRECTION for row in rows]
    num = sum(is_correction)
    each = CORRECTIONS / (1 - CORRECTIONS) * (len(rows) - num) / max(num, 1)
    return [each if corrects else 1.0 for corrects in is_correction]


def readings(model: Linear, rows: Iterable[Row]) -> list[Reading]:
    return [read(row.next, reply=row.reply, asked=row.asked, by=model) for row in rows]


def left_out() -> dict[str, tuple[list[Row], list[Reading]]]:
    """The rows of each author of `UNSEEN` and of a half of d, as a classifier reads them that saw neither."""
    halves: dict[int, list[Row]] = {0: [], 1: []}
    for row in author("d"):
        halves[crc32(row.asked.encode()) % 2].append(row)
    found: dict[str, tuple[list[Row], list[Reading]]] = {}
    for half, name in enumerate(UNSEEN):
        others = [row for other in ("a", "b", "c") if other != name for row in author(other)]
        model = train([*others, *halves[1 - half], *dev()])
        for part, rows in ((name, author(name)), (f"d, half {half}", halves[half])):
            found[part] = (rows, readings(model, rows))
    return found


def by_request(rows: Sequence[Row]) -> list[Reading]:
    """How an author's rows are read by classifiers trained on the same author's rows of other requests."""
    folds = [crc32(row.asked.encode()) % NUM_FOLDS for row in rows]
    found: dict[int, Reading] = {}
    for fold in range(NUM_FOLDS):
        out = [number for number, each in enumerate(folds) if each == fold]
        model = train([row for row, each in zip(rows, folds, strict=True) if each != fold])
        found |= dict(zip(out, readings(model, [rows[number] for number in out]), strict=True))
    return [found[number] for number in range(len(rows))]


def figures(rows: Sequence[Row], calls: Sequence[tuple[bool, bool]]) -> list[str]:
    """What was called a correction and what an approval, as shares.

    Args:
        calls: of each row, whether it is called a correction and whether an approval.
    """
    corrected = [row.label for row, (corrects, _) in zip(rows, calls, strict=True) if corrects]
    approved = [row.label for row, (_, approves) in zip(rows, calls, strict=True) if approves]
    labels = [row.label for row in rows]

    def of(part: int, whole: int) -> str:
        return f"{100 * part / whole:.1f} %" if whole else "-"

    return [
        of(corrected.count("correction"), labels.count("correction")),
        of(corrected.count("correction"), len(corrected)),
        of(corrected.count("new_task"), labels.count("new_task")),
        of(sum(map(approved.count, APPROVALS)), sum(map(labels.count, APPROVALS))),
        of(sum(map(approved.count, APPROVALS)), len(approved)),
        of(approved.count("correction"), labels.count("correction")),
    ]


def cross() -> None:
    """Prints a row for each part and each way to read it."""
    table = Table(
        "part", "by", "corrections found", "right", "of tasks", "approvals found", "right", "of corrections"
    )
    parts = {f"{name}, by request": (author(name), by_request(author(name))) for name in AUTHORS}
    parts |= {f"{name}, left out": part for name, part in left_out().items()}
    written = [row for name in AUTHORS for row in author(name)]
    parts["dev, left out"] = (dev(), readings(train(written), dev()))
    for part, (rows, found) in parts.items():
        ways = {
            "tables": [
                (corrects(row.next, reply=row.reply, asked=row.asked), approves(row.next)) for row in rows
            ],
            "classifier": [
                (each.correction >= SURE_CORRECTION, each.approval >= SURE_APPROVAL) for each in found
            ],
            "both": [(each.corrects, each.approves) for each in found],
        }
        for way, calls in ways.items():
            table.add_row(part, way, *figures(rows, calls))
    Console(width=140).print(table)


def write() -> None:
    """Trains on everything and writes the weights of the package."""
    WEIGHTS.write_bytes(train(everything()).to_bytes())
    print(f"{WEIGHTS}: {WEIGHTS.stat().st_size / 1024:.0f} KiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--train", action="store_true", help="write the weights of the package")
    what.add_argument("--cross", action="store_true", help="print how well unseen rows are read")
    if parser.parse_args().train:
        write()
    else:
        cross()


if __name__ == "__main__":
    main()
