"""Hints that say nothing but what the failed call itself wrote: a garbled command is echoed, and a word of it reads
like an instruction ("zor.Please: command not found"), or what failed is offered again ("cat: not found; use cat")."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from agentrl.signals.candidates import action
from agentrl.signals.hints import directive
from agentrl.signals.judge import Judgement
from agentrl.types import ToolCall

_QUOTES = "['\"`‘’“”]"
_MARKS = "'\"`()[]{};,"
_OFFERED = r"(?<!not\ )(?<!n't\ )(?<!never\ )\b(?i:use|try|run|call|type|mean|prefer)\s+(?:the\s+)?"
_ALONE = r"(?:\s+(?:command|tool|instead))*(?=\s*(?:[.!?;]|$))"
"""Behind a name that is offered with nothing more. "Run make again" and "run make here" say when and where."""
_RUN = re.compile(r"(?<![\w.-])(?=(\S+))")


def without_echo(judgement: Judgement, calls: Sequence[ToolCall]) -> Judgement:
    """A judgement of failed calls, without its hint where that only echoes them."""
    if judgement.hint is None or not echoes(judgement.hint, calls):
        return judgement
    return replace(judgement, hint=None)


def echoes(hint: str, calls: Sequence[ToolCall]) -> bool:
    """Whether a hint directs nobody any more once what the calls wrote is left out: their words where a tool repeats
    them (before a colon, in quotation marks), those that are no plain words wherever they stand, and offers of nothing
    but the program that was called."""
    rest = hint
    called = {word for call in calls for word in action(call).split()[:1]}
    words = {word.strip(_MARKS) for call in calls for word in action(call).split()}
    for word in sorted(words & _pieces(hint), key=len, reverse=True):
        same = re.escape(word)
        repeated = rf"(?<![\w.-]){same}(?=\s*:)|(?<={_QUOTES}){same}(?={_QUOTES})"
        anywhere = "" if word.isalpha() else rf"|(?<![\w.-]){same}(?![\w-])"
        again = rf"|{_OFFERED}{_QUOTES}?{same}{_QUOTES}?{_ALONE}" if word in called else ""
        rest = re.sub(repeated + anywhere + again, "_", rest)
    return rest != hint and directive(rest) is None


def _pieces(hint: str) -> set[str]:
    """What can be a word of a call in a hint: from any beginning to any end in a run without white space."""
    runs = [found.group(1) for found in _RUN.finditer(hint)]
    return {run[:end] for run in runs for end in range(1, len(run) + 1)}
