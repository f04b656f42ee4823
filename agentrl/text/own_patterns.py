"""Redaction patterns of the operator's: compiled, and refused where they could hold up serving.

Every text that goes to disk is searched, and Python's matching cannot be stopped from outside. So each pattern is tried
first, in a process of its own with a bound on its CPU time, on long texts of one repeated character: those on which
nested and overlapping repeats cost most. That finds `(a+)+$` and `\\d+x`; what is slow only on texts that nobody
thought of is not found by trying, which is why the README advises bounded repeats behind a literal beginning.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from agentrl.errors import ConfigError
from agentrl.text.redaction import Redactor

NUM_CHARS: Final = 60_000
"""Of each text that a pattern is tried on."""
CPU_S: Final = 0.3
"""For one of them; a pattern whose cost grows as the text does takes some milliseconds, and one whose cost grows as its
square does needs more whatever a step costs: of the cheapest, those of `(?s)a.*b`, there are two in a nanosecond."""
MOST_CHARS: Final = 24
"""Different characters that texts are made of."""
WALL_S: Final = 60.0
"""Of a trial on a machine that is busy with something else."""
USUAL: Final = "aA0 -_./=\n"

_TRIAL = """
import json, re, signal, sys
pattern, chars, number, seconds = json.load(sys.stdin)
compiled = re.compile(pattern)
for char in chars:
    for text in (char * number + "\\0", char * 28 + "\\0"):
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
        for _ in compiled.finditer(text):
            pass
"""


def own_redactor(patterns: Sequence[str]) -> Redactor:
    """The built-in rules with the operator's patterns behind them.

    Raises:
        ConfigError: a pattern that does not compile, or that matches the empty text.
    """
    return Redactor({f"redact_patterns[{index}]": pattern for index, pattern in enumerate(patterns)})


def refuse_slow(patterns: Sequence[str]) -> None:
    """Tries each pattern. Raises ConfigError for one that takes too long; see the module."""
    for index, pattern in enumerate(patterns):
        chars = "".join(dict.fromkeys(USUAL + pattern))[:MOST_CHARS]
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", "-c", _TRIAL],
                input=json.dumps([pattern, chars, NUM_CHARS, CPU_S]),
                capture_output=True,
                text=True,
                timeout=WALL_S,
                check=False,
            )
            is_slow = done.returncode != 0
        except subprocess.TimeoutExpired:
            is_slow = True
        if is_slow:
            raise ConfigError(
                f"server.redact_patterns[{index}] = {pattern!r} takes more than {CPU_S:g} s for a text of "
                f"{NUM_CHARS} characters, and every reply would wait for it: bound its repeats, as in [0-9]{{1,40}}, "
                "let it begin with a literal, and nest no repeat in another"
            )
