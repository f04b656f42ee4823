"""What was learned from a turn: what its teacher read beyond the prompt, and what each sampled id added to the loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentrl.store.learning_log import LearningLog
from agentrl.text import detokenize
from server.run_files import settings_of

MAX_WIDTH = 40
"""Of an id's text in the table; the JSON has all of it."""
NUM_MARKED = 3
"""Ids that are marked as those of the largest loss."""
COLUMNS = {
    "policy": "logprob",
    "teacher": "teacher_logprob",
    "loss": "loss",
    "advantage": "advantage",
    "ratio": "ratio",
}
"""Of the table, and the streams that they show."""
LEGEND = {
    "policy": "log-prob by the policy",
    "teacher": "log-prob by the teacher",
    "loss": "the id's term of the loss",
    "advantage": "weight of its policy gradient",
    "ratio": "policy to sampler",
}


def taught_of(run_dir: Path, story: dict[str, Any]) -> list[dict[str, Any]]:
    """One entry for each sample that a step made of the turn, the records taken out of `story`; at least one, which
    then says why there is no more to be said.

    Args:
        story: what `SignalLog.explain` gave.
    """
    entries: list[dict[str, Any]] = []
    texts = _Texts(run_dir, story["turn"]["policy"])
    for step in story["steps"]:
        records = step.pop("taught")
        history = step["version_history"]
        about = {
            "step": step["id"],
            "version": step["version"],
            "version_is": history[-1]["state"] if history else step["void_reason"] or "not made yet",
        }
        if not records:
            note = _lent_to(story["turn"]) if step["use"] == 0 else _not_recorded(run_dir)
            entries.append(about | {"note": note})
        entries += [about | _entry(record, texts) for record in records]
    return entries or [{"step": None, "version": None, "note": f"in no step: {story['fate']}"}]


def for_people(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with the ids as one table each."""
    return [
        entry | {"tokens": "\n" + "\n".join(_table(entry["tokens"]))} if "tokens" in entry else entry
        for entry in entries
    ]


def _entry(record: dict[str, Any], texts: _Texts) -> dict[str, Any]:
    shown = record["shown"]
    return {
        "source": record["source"],
        "teacher": _teacher(record),
        "context": [
            {
                "position": block["position"],
                "origin": block["origin"],
                "ids": [block["start"], block["end"]],
                "text": block["text"],
            }
            for block in shown or ()
        ],
        **_measured(record["measured"]),
        "num_tokens": record["num_tokens"],
        "tokens": _tokens(record, texts.of(record["token_ids"])),
    }


def _measured(found: dict[str, Any] | None) -> dict[str, Any]:
    """How useful each hint was found to be; nothing where none was measured."""
    if found is None:
        return {}
    hints = [
        {"hint": hint, "value": value, "is_shown": hint == found["chosen"]} for hint, value in found["values"]
    ]
    return {"measured": {"by": found["measure"], "hints": hints}}


def _teacher(record: dict[str, Any]) -> str:
    if record["teacher_logprob"] is None:
        return "none: nothing was distilled from this turn"
    if record["shown"]:
        return f"read the served prompt and {len(record['shown'])} blocks beyond it"
    if record["source"] == "held":
        return "read the served prompt alone: the answer was right, there was no context, and it was held"
    return "read the served prompt alone"


def _tokens(record: dict[str, Any], texts: Sequence[str | None]) -> list[dict[str, Any]]:
    losses = [abs(loss) for loss in record["loss"] if loss]
    least = sorted(losses)[-NUM_MARKED:][0] if losses else None
    rows = []
    for at, (token_id, text) in enumerate(zip(record["token_ids"], texts, strict=True)):
        row: dict[str, Any] = {"at": at, "id": token_id, "text": text}
        for column, stream in COLUMNS.items():
            if record[stream] is not None:
                row[column] = record[stream][at]
        loss = record["loss"][at]
        rows.append(row | {"is_largest": bool(loss) and least is not None and abs(loss) >= least})
    return rows


def _table(tokens: Sequence[dict[str, Any]]) -> list[str]:
    columns = [column for column in COLUMNS if tokens and column in tokens[0]]
    width = max((len(_quoted(row)) for row in tokens), default=0)
    legend = "; ".join(f"{column}: {LEGEND[column]}" for column in columns)
    lines = [f"each id of the reply by its place; {legend}; < the largest losses"]
    lines.append(f"{'':>5} {'':<{width}} " + " ".join(f"{column:>9}" for column in columns))
    for row in tokens:
        # + 0.0: a rounded -0 is 0
        numbers = ["-" if row[column] is None else f"{round(row[column], 3) + 0.0:.3f}" for column in columns]
        mark = " <" if row["is_largest"] else ""
        lines.append(f"{row['at']:>5} {_quoted(row):<{width}} " + " ".join(f"{n:>9}" for n in numbers) + mark)
    return lines


def _quoted(row: dict[str, Any]) -> str:
    text = f"id {row['id']}" if row["text"] is None else repr(row["text"])
    return text if len(text) <= MAX_WIDTH else text[: MAX_WIDTH - 1] + "…"


def _lent_to(turn: dict[str, Any]) -> str:
    """What is said of a turn whose answer a step trained elsewhere; see `agentrl.learner.next_answers`."""
    return (
        f"its answer was learned on the prompt of turn {turn['parent']}, whose conversation had told it what to do "
        "instead"
    )


def _not_recorded(run_dir: Path) -> str:
    most = settings_of(run_dir).learn.explained_turns
    if not most:
        return "what was taught is not recorded: learn.explained_turns is 0"
    return (
        f"what was taught is not recorded: it stays for the newest {most} trained turns (learn.explained_turns), and "
        "for those of steps made before this release there is none"
    )


class _Texts:
    """Ids as text, by the tokenizer of the model that the line began with."""

    def __init__(self, run_dir: Path, policy: str) -> None:
        self._run_dir = run_dir
        self._policy = policy
        self._pieces: detokenize.Pieces | None = None
        self._asked = False

    def of(self, token_ids: Sequence[int]) -> list[str | None]:
        """One text an id; None where the model's folder is gone. Of a character that several ids make each has all."""
        if not self._asked:
            self._asked = True
            self._pieces = self._load()
        if self._pieces is None:
            return [None] * len(token_ids)
        whole = detokenize.decode(self._pieces, token_ids)
        return [whole[start:end] for start, end in detokenize.offsets(self._pieces, token_ids)]

    def _load(self) -> detokenize.Pieces | None:
        from tokenizers import Tokenizer

        with LearningLog(self._run_dir, read_only=True) as log:
            base = log.version(self._policy, 0)
        path = self._run_dir / (base.path if base is not None else "") / "tokenizer.json"
        return detokenize.pieces_of(Tokenizer.from_file(str(path))) if path.is_file() else None
