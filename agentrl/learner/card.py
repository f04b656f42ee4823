"""The model card of an exported version: what the run recorded of it, and nothing that nobody measured."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

CARD = "README.md"
Form = Literal["full", "adapter", "merged"]
_LIBRARY = {"full": "transformers", "adapter": "peft", "merged": "transformers"}
_WEIGHTS = {
    "full": "full weights, trained without an adapter, in the base's number type",
    "adapter": "a LoRA adapter in the PEFT format; it needs the base",
    "merged": "full weights: the adapter merged into the base, W + s·BA, in the base's number type",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a version comes from."""

    model: str
    """The base, as the run was told: a name or a folder."""
    policy: str
    line: Sequence[int]
    """Numbers of the versions from 0 to this one, each the parent of the next."""
    state: str
    created_at: float
    """Unix seconds."""
    steps: Mapping[str, int]
    """Optimiser steps along the line, by recipe."""
    num_turns: int
    """Turns of the run's log in those steps, each once."""

    @property
    def is_base(self) -> bool:
        return len(self.line) == 1


def card(origin: Provenance, form: Form) -> str:
    """The text of a trained version's card, with the front matter that model hubs read.

    Args:
        origin: of a version above 0.
        form: what of it is exported.
    """
    number = origin.line[-1]
    made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(origin.created_at))
    recipes = ", ".join(f"{name} ({_number(steps, 'step')})" for name, steps in origin.steps.items())
    rows = {
        "base": origin.model,
        "version": f"{number} of the policy {origin.policy!r}, made {made}, state {origin.state}",
        "line": " → ".join(map(str, origin.line)),
        "recipe": recipes or "no step recorded",
        "turns": _number(origin.num_turns, "recorded turn"),
        "weights": _WEIGHTS[form],
    }
    return "\n".join(
        [
            "---",
            # JSON is YAML: a path with a colon or a quote stays one string
            f"base_model: {json.dumps(origin.model)}",
            f"library_name: {_LIBRARY[form]}",
            "tags: [agentrl]",
            "---",
            f"# Version {number}, trained by agentrl",
            "",
            "| | |",
            "|---|---|",
            *(f"| {name} | {value.replace('|', chr(92) + '|')} |" for name, value in rows.items()),
            "",
            "The figures are what the run has recorded. Turns are counted once, however many steps they were in;",
            "answers read from a file are not among them. This card says nothing of how well the version does: no",
            "figure of the base's own card was measured on these weights, so that card is not copied. See it for",
            "the base's licence.",
            "",
        ]
    )


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" + "s" * (count != 1)
