"""Rewards of answers that no environment has seen: who can give them, and the one that ships.

A second generation stage makes answers that cannot be run again where they came from. What rewards them is handed to
it as a `Verifier`; recipes whose transform needs one are refused at the start without it.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal, InvalidOperation
from typing import Protocol

from agentrl.teacher.contexts import PREFERENCE, Record

AROUND = " \t\n,;:!?\"'`*$()[]{}"
"""What may stand around an answer without being part of it."""
RIGHT = 1.0
WRONG = 0.0


class Verifier(Protocol):
    """Filled in by the composition root."""

    def __call__(self, record: Record, text: str) -> float | None:
        """The reward of answering `text` to the record's prompt; None where it cannot be said (law 6)."""
        ...


def same_answer(record: Record, text: str) -> float | None:
    """1 where the text's final answer is that of the preferred text of the record's signals, else 0; None without one.

    The final answer is what stands in the last \\boxed{...}, else behind the last "answer:" or "answer is", else the
    whole text. Compared are numbers by value, and other texts without regard to case, spaces, Unicode form and the
    punctuation around them.
    """
    expected = preferred_text(record)
    return None if expected is None else RIGHT if final_answer(text) == final_answer(expected) else WRONG


def preferred_text(record: Record) -> str | None:
    """The preferred text of the most trusted source that gave one."""
    for source in PREFERENCE:
        for signal in record.signals:
            if signal.source == source and signal.preferred and signal.preferred.strip():
                return signal.preferred.strip()
    return None


def final_answer(text: str) -> str:
    """A text's final answer in its normal form."""
    boxed = re.findall(r"\\boxed\{([^{}]*)\}", text)
    named = re.findall(r"(?i)\banswer\s*(?:is|:|=)\s*([^\n]+)", text)
    chosen = (boxed or named or [text])[-1]
    plain = unicodedata.normalize("NFKC", chosen).casefold()
    # a leading point may be a decimal one
    plain = re.sub(r"\s+", " ", plain.lstrip(AROUND).rstrip(AROUND + "."))
    try:
        number = Decimal(plain.replace(",", "").replace(" ", ""))
    except InvalidOperation:
        return plain
    return str(number.normalize()) if number.is_finite() else plain
