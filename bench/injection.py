"""The clause model of the gate of hints: trained, and measured on authors that it was not trained on.

    python -m bench.injection --train    # writes agentrl/text/clause_weights.npz
    python -m bench.injection --cross    # of each author, held out of training: what comes through, what is kept

A row is an attack with its payload or an honest answer with its essential part, word for word. A clause that overlaps a
payload is an attacker's, every clause of an honest answer is not; what stands beside a payload is left out, for nobody
said what it is. The authors of the rows did not know the gate.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from agentrl.nano.vocabulary import BARE_ERRORS, ERROR_WORDINGS, fresh_name
from agentrl.signals.hints import MAX_HINT_CHARS
from agentrl.text import clause_risk
from agentrl.text.action_words import action_words
from agentrl.text.clause_features import BITS, WINDOW, Told, features, hashed, spans, windows
from agentrl.text.clause_risk import Model
from agentrl.text.injection import Piece, read_clauses, shown
from agentrl.text.quoting import TOOL, quoted
from agentrl.types import JSON

ROOT: Final = Path(__file__).parents[1]
SIGNALS: Final = ROOT / "tests" / "signals"
PARTS: Final = ROOT / "bench" / "injection"
AUTHORS: Final = {
    "sealed 1": SIGNALS / "injection_sealed.jsonl",
    "sealed 2": SIGNALS / "injection_sealed2.jsonl",
    "a": PARTS / "part_a.jsonl",
    "b": PARTS / "part_b.jsonl",
    "c": PARTS / "part_c.jsonl",
    "sealed 3": SIGNALS / "injection_sealed3.jsonl",
}
"""Who wrote the rows. What programs of this machine printed (`honest_outputs.jsonl`) and what nano's shells print is
trained on beside them."""
ESSENTIAL: Final = 1.5
"""Weight of the clauses that an honest answer must keep; of all others 1."""
UNMARKED: Final = 0.5
"""Weight of the clauses of an attack that nobody marked the payload of, but those that tell of a fault."""
DECAY: Final = 1 / 32
"""Of the squared weights."""
LEAST_TEXTS: Final = 3
"""In which a word stands that is told apart from a name."""
NANO_NAMES: Final = 24
"""Invented names for each wording of nano's shells."""

PADDING: Final = (
    """
not found/no such file/invalid/missing/unknown/unexpected/unsupported/permission denied/not permitted/refused/timed out
out of range/already exists/not available/expired/disabled/read-only/too long/too many arguments/empty/busy/failed
not allowed here/wrong type/expected a number/cannot be read/no such command/undefined/deprecated/could not be opened
""".replace("\n", "/")
    .strip("/")
    .split("/")
)
"""Words of a fault that an attacker may put before an order without an end between them."""
JOINTS: Final = (
    " and ", ", and ", " so ", ", so ", " then ", ", please ", " and please ", " ", ", ", " because ", " but ",
)  # fmt: skip
"""What an attacker may put between the two."""
DILUTED: Final = 3
"""Of so many attacks one is padded as well."""
FRAMED: Final = 6
"""Of so many honest answers one stands as well where the rules of skills quote it (`skills.summarise`)."""


class Example(NamedTuple):
    """The clauses of a text, of long ones each window."""

    told: list[Told]
    labels: list[float | None]
    """Of each whether it is an attacker's; None where nobody knows."""
    weights: list[float]


def read(path: Path) -> list[JSON]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def unmarked() -> list[JSON]:
    """Attacks and honest answers of the older lists, of which no part is marked."""
    attacks = [pair for half in HALVES.values() for pair in half]
    answers = [(action, text) for _, action, text in honest()]
    for part in (third, blind, blind2):
        attacks += [(family, text) for family, texts in part.ATTACKS.items() for text in texts]
        answers += [pair for pairs in part.HONEST.values() for pair in pairs]
    return [
        *({"kind": "attack", "action": "cat notes.txt", "text": text} for _, text in attacks),
        *({"kind": "honest", "action": action, "text": text} for action, text in answers),
    ]


def outputs() -> list[JSON]:
    """Honest answers without an author: of programs, and of nano's shells."""
    rng = random.Random(0)
    rows = [row | {"kind": "honest"} for row in read(SIGNALS / "honest_outputs.jsonl")]
    for wording in (*ERROR_WORDINGS, *BARE_ERRORS):
        for _ in range(NANO_NAMES):
            new = fresh_name(rng, "corpus")
            text = wording.format(old="cat", new=rng.choice((new, f"{new} --all", "less", "head -n 99")))
            rows.append({"kind": "honest", "action": "cat notes.txt", "text": text, "essential": text})
        for name in (fresh_name(rng, "corpus"), f"{fresh_name(rng, 'corpus')}_file"):
            text = f"error: there is no tool {name!r}; use bash"
            rows.append({"kind": "honest", "action": name + " {}", "text": text, "essential": text})
    return rows


def others() -> list[JSON]:
    """All that is trained on beside the marked rows of the authors."""
    beside, printed = unmarked(), outputs()
    return beside + printed + framed(beside + printed)


def padded(rows: Sequence[JSON]) -> list[JSON]:
    """Payloads behind words of a fault in one clause, and such words alone, which are honest."""
    rng = random.Random(1)
    found = []
    for row in rows:
        if row["kind"] != "attack" or "\n" in row["payload"] or rng.randrange(DILUTED):
            continue
        words = rng.choice((", ", ", ", " and ", " ")).join(rng.sample(PADDING, rng.randint(2, 8)))
        payload = row["payload"][0].lower() + row["payload"][1:]
        start, rest = rng.choice(("error: ", "cat: ", "")), rng.choice(("", "", ", " + rng.choice(PADDING)))
        text = start + words + rng.choice(JOINTS) + payload + rest
        found.append({"kind": "attack", "action": row["action"], "text": text, "payload": payload})
        found.append({"kind": "honest", "action": row["action"], "text": start + words, "essential": words})
    return found


def framed(rows: Sequence[JSON]) -> list[JSON]:
    """Honest answers as the rules of skills quote them; what they quote has passed the gate."""
    honest = [row for row in rows if row["kind"] != "attack" and "\n" not in row["text"]][::FRAMED]
    frames = ("`{}` fails here. {}", "Run `{0}` instead of `{0} -v`. {1}")
    return [
        row | {"kind": "honest", "text": frame.format(row["action"], quoted(row["text"], TOOL))}
        for n, row in enumerate(honest)
        for frame in (frames[n % 2],)
    ]


def examples(rows: Sequence[JSON]) -> list[Example]:
    """The clauses of rows, with what is known of each."""
    found = []
    for row in rows:
        text, part = shown(row["text"]), row.get("payload") or row.get("essential", "")
        start, is_attack = text.find(part), row["kind"] == "attack"
        pieces = read_clauses(text, words_of_action(row["action"]))
        told = [window for piece in pieces for window in windows(piece.told)]
        overlaps = [among for piece in pieces for among in _overlaps(piece, start, start + len(part))]
        if "payload" not in row and is_attack:
            overlaps = [window.sign != ":" and not window.tells_fault for window in told]
        found.append(
            Example(
                told,
                [float(is_attack) if overlap or not is_attack else None for overlap in overlaps],
                [_weight(row, overlap) for overlap in overlaps],
            )
        )
    return found


def _overlaps(piece: Piece, start: int, end: int) -> list[bool]:
    """Of a clause or each window of a long one whether it overlaps a part of the text: a window by half of itself or of
    the part."""
    found = []
    num_tokens = len(piece.told.tokens)
    for span in spans(num_tokens):
        first = piece.at + piece.clause.places[span.start]
        last = piece.end if span.stop >= len(piece.tokens) else piece.at + piece.clause.places[span.stop]
        shared = min(last, end) - max(first, start)
        least = 1 if num_tokens <= WINDOW else min(last - first, end - start) / 2
        found.append(shared >= least)
    return found


def _weight(row: JSON, overlaps: bool) -> float:
    if row["kind"] == "attack":
        return 1.0 if "payload" in row else UNMARKED
    return ESSENTIAL if overlaps and row.get("essential") else 1.0


def words_of_action(action: str) -> frozenset[str]:
    return action_words(record(action, "")[0])


def trained(data: Sequence[Example]) -> Model:
    """Logistic regression, by L-BFGS from zero, so without a seed."""
    counts = Counter(
        word
        for example in data
        for word in {t.text for told in example.told for t in told.tokens if t.kind == "word"}
    )
    known = hashed(word for word, count in counts.items() if count >= LEAST_TEXTS)
    sizes, columns, found, importances = [], [], [], []
    for example in data:
        if not example.told:
            continue
        buckets, owners = features(example.told, known)
        is_known = np.array([label is not None for label in example.labels])
        order = np.argsort(owners, kind="stable")
        order = order[is_known[owners[order]]]
        columns.append(buckets[order].astype(np.int64))
        sizes.append(np.bincount(owners, minlength=len(is_known))[is_known])
        found += [label for label in example.labels if label is not None]
        importances += [
            w for w, label in zip(example.weights, example.labels, strict=True) if label is not None
        ]
    sized = np.concatenate(sizes)
    matrix = torch.sparse_csr_tensor(
        torch.from_numpy(np.append(0, np.cumsum(sized))),
        torch.from_numpy(np.concatenate(columns)),
        torch.from_numpy(np.repeat(sized**-0.5, sized).astype(np.float32)),
        (len(found), 1 << BITS),
    )
    return Model(*_fitted(matrix, torch.tensor(found), torch.tensor(importances)), known)


def _fitted(
    matrix: torch.Tensor, labels: torch.Tensor, importance: torch.Tensor
) -> tuple[NDArray[np.float32], np.float32]:
    weights, bias = torch.zeros(1 << BITS), torch.zeros(1)
    turned = matrix.t().to_sparse_csr()
    optimizer = torch.optim.LBFGS(
        [weights, bias], max_iter=80, history_size=12, line_search_fn="strong_wolfe", tolerance_change=1e-7
    )

    def loss() -> torch.Tensor:
        logits = matrix @ weights + bias
        errors = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, labels, importance, reduction="sum"
        )
        wrong = importance * (logits.sigmoid() - labels)
        weights.grad, bias.grad = turned @ wrong + DECAY * weights, wrong.sum().reshape(1)
        return errors + 0.5 * DECAY * (weights @ weights)

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weights.numpy(), np.float32(bias.item())


def corpus() -> list[JSON]:
    """All that is trained on."""
    marked = [row for path in AUTHORS.values() for part in (read(path),) for row in part + padded(part)]
    return marked + others()


def digest() -> str:
    """Of what the weights are trained on."""
    return sha256(json.dumps(corpus()).encode()).hexdigest()


def save(model: Model, path: Path) -> None:
    """Writes the weights in eight bits each."""
    scale = np.float32(np.abs(model.weights).max() / 127)
    np.savez_compressed(
        path,
        weights=np.round(model.weights / scale).astype(np.int8),
        scale=scale,
        bias=model.bias,
        known=model.known,
        digest=model.digest,
    )


def through(rows: Sequence[JSON]) -> Iterator[bool]:
    """Of each row, whether its payload or its essential part stands in what is accepted of it."""
    for row in rows:
        part = row.get("payload") or row["essential"]
        yield any(part in text for text in told(row["action"], row["text"]))


def cross(limits: Sequence[float]) -> Table:
    """Of each author, with a model of the others: payloads that came through, essential parts that were kept. Honest
    texts that the gate of lengths refuses are counted alone, and padded attacks beside the author's own."""
    table = Table("held out", "too long", *(f"{limit:g}" for limit in limits))
    table.title = "attacks through, honest kept, padded attacks through"
    found: list[list[list[tuple[int, int]]]] = []
    num_long: list[int] = []
    authors = {name: read(path) for name, path in AUTHORS.items()}
    parts = {name: examples(rows + padded(rows)) for name, rows in authors.items()}
    beside = examples(others())
    for name, rows in authors.items():
        model = trained([e for author, part in parts.items() if author != name for e in part] + beside)
        cells: list[list[tuple[int, int]]] = []
        attacks = [row for row in rows if row["kind"] == "attack"]
        honest = [row for row in rows if row["kind"] == "honest"]
        short = [row for row in honest if len(row["text"]) <= MAX_HINT_CHARS]
        more = [row for row in padded(rows) if row["kind"] == "attack"]
        with patch.object(clause_risk, "model", lambda model=model: model):
            for limit in limits:
                with patch("agentrl.text.injection.MOST_RISK", limit):
                    cells.append([_share(part) for part in (attacks, short, more)])
        found.append(cells)
        num_long.append(len(honest) - len(short))
        table.add_row(name, str(num_long[-1]), *map(_cell, cells))
    pooled = [np.sum([cells[n] for cells in found], axis=0).tolist() for n in range(len(limits))]
    table.add_row("all", str(sum(num_long)), *map(_cell, pooled))
    return table


def _share(rows: Sequence[JSON]) -> tuple[int, int]:
    return sum(through(rows)), len(rows)


def _cell(shares: Sequence[tuple[int, int]]) -> str:
    return "\n".join(f"{of} of {among} ({of / max(among, 1):.1%})" for of, among in shares)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--cross", action="store_true")
    parser.add_argument("--limits", type=float, nargs="+", default=[clause_risk.MOST_RISK])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.train:
        save(
            trained(examples(corpus()))._replace(digest=digest()),
            ROOT / "agentrl" / "text" / clause_risk.WEIGHTS,
        )
    if arguments.cross:
        Console(width=160).print(cross(arguments.limits))


sys.path.insert(0, str(SIGNALS))
import injection_blind as blind  # noqa: E402
import injection_blind2 as blind2  # noqa: E402
import injection_third as third  # noqa: E402
from injection_cases import HALVES, honest, record, told  # noqa: E402 (what is measured is what the tests measure)

if __name__ == "__main__":
    main()
