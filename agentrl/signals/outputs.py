"""What a tool's output says of its call: whether it failed, whether the machine failed, whether it was confirmed."""

from __future__ import annotations

import json
import re
from typing import Any

MAX_READ_CHARS = 8000
"""How much of an output's end is looked at: the judge runs beside the gateway and must not hold it up."""
FEW_LINES = 2
"""An output of at most so many lines is the tool speaking; a longer one may quote a file."""

EXIT_LINE = re.compile(r"^\[exit code (-?\d+)\]$")
_EXIT_FIRST = re.compile(r"(?i)^(?:process exited with code|exit code:?|<returncode>)\s*(-?\d+)")
_EXIT_LAST = re.compile(r"(?i)^exit status (-?\d+)$")

_ERROR = re.compile(
    r"""(?imx)
    ^(?: \w*(?:Error|Exception|NotFound):\s | Traceback\ \(most\ recent | fatal:\s | error(?:\[\w+\])?:\s | panic:\s
       | (?:action|validation|request|call|command|operation)\ (?:failed|refused|rejected|denied|ignored)\b )
    | \b(?: command\ not\ found | No\ such\ file\ or\ directory | Permission\ denied | Segmentation\ fault )\b
    | ^\[\d+\]\ alert\ .*\b(?:invalid|must|required|missing|valid|incorrect)\b | ^\[\d+\]\ \w+\ '[^'\n]*'\ invalid\b
    """
)
_BRIEF_ERROR = re.compile(
    r"(?im)\b(?:is not|not) (?:permitted|allowed)\b|^[\w.-]+: (?:bad|invalid|unknown|unrecognized|missing)\b"
    r"|\bmust be unique\b"
)
_OUTAGE = re.compile(
    r"""(?ix)
    \btime[d-]?\ ?-?out\b | \btimeout\ (?:of\b|after\b|in\b) | took\ too\ long\ to\ respond
    | could(?:\ not|n't)\ resolve | (?:failure|failed)\ (?:in\ name\ resolution|resolving)
    | name\ or\ service\ not\ known
    | connection\ (?:refused|reset|broken|closed|timed) | connection\ attempts\ failed | failed\ to\ connect
    | connect(?:ion|timeout)?error\b | network\ is\ (?:unreachable|down) | \bERR_(?:NAME|CONNECTION|INTERNET|NETWORK)
    | too\ many\ requests | rate[_\ -]?limit | quota\ exceeded
    | \b(?:500|502|503|504)\b.{0,20}\b(?:error|gateway|service|server)
    | \b(?:error|status)\D{0,12}(?:429|50[0234])\b | service\ (?:temporarily\ )?unavailable | internal\ server\ error
    | no\ space\ left | read-only\ file\ system | cannot\ allocate\ memory | out\ of\ memory
    | cannot\ connect\ to\ the\ \w+\ daemon
    """
)
_PASSED = re.compile(r"(?i)\b(?:passed|passes|success|ok|active|healthy)\b")
_NOT_PASSED = re.compile(r"(?i)\b(?:fail(?:s|ed|ures?)?|errors?|inactive|unhealthy|not ok|no tests?)\b")
_CONFIRMED = re.compile(
    r"(?i)\b(?:successful(?:ly)?|confirmed|thank you|(?:message|order|form|changes|settings) (?:was |were )?"
    r"(?:sent|placed|saved|submitted)|has been (?:sent|saved|placed|created|submitted))\b"
)


def exit_code(output: str) -> int | None:
    """The exit code that an output states in its frame; None where it states none.

    Read are a last line `[exit code N]` or `exit status N`, a first line `Exit code N`, `Process exited with code N` or
    `<returncode>N`, and a JSON object's `returncode`.
    """
    stripped = output.strip()
    if not stripped:
        return None
    first, last = stripped.partition("\n")[0].strip(), stripped.rpartition("\n")[2].strip()
    match = EXIT_LINE.match(last) or _EXIT_LAST.match(last) or _EXIT_FIRST.match(first)
    if match:
        return int(match[1])
    code = _fields(stripped).get("returncode")
    return code if isinstance(code, int) and not isinstance(code, bool) else None


def failed(output: str, *, reads: str | None = None) -> bool:
    """Whether the call behind an output failed: by its exit code where there is one, else by what it says.

    Args:
        output: the tool's text.
        reads: the program that shows the contents of files, when the call was one. What it shows may speak of errors,
            so only a line in the program's own name counts.
    """
    code = exit_code(output)
    if code is not None:
        return code != 0
    end = output[-MAX_READ_CHARS:]
    is_brief = len(end.strip().splitlines()) <= FEW_LINES
    if reads is not None:
        if re.search(rf"(?m)^(?:\S*sh: )?(?:line \d+: )?{re.escape(reads)}: ", end):
            return True
        return is_brief and end.startswith(f"{reads} ") and _BRIEF_ERROR.search(end) is not None
    fields = _fields(output)
    if fields.get("error") or fields.get("success") is False or fields.get("ok") is False:
        return True
    if fields:
        return False
    return _ERROR.search(end) is not None or (is_brief and _BRIEF_ERROR.search(end) is not None)


def passes(output: str) -> bool:
    """Whether an output says that a check passed: exit code 0, or words to that effect without a failure among them."""
    code = exit_code(output)
    if code is not None:
        return code == 0
    end = output[-MAX_READ_CHARS:]
    return _PASSED.search(end) is not None and _NOT_PASSED.search(end) is None


def is_outage(output: str) -> bool:
    """Whether a failure is the machine's: network, time-out, rate limit, full disk, missing service."""
    return _OUTAGE.search(output[-MAX_READ_CHARS:]) is not None


def confirms(output: str, tool: str) -> bool:
    """Whether a tool or a page says that the change was made: "sent successfully", `cancelled` for `cancel_order`."""
    end = output[-MAX_READ_CHARS:]
    verb = tool.partition("_")[0]
    if "_" in tool and verb.isalpha():
        stem = re.escape(verb.removesuffix("e"))
        if re.search(rf"(?i)\b{stem}(?:{re.escape(verb[-1])})?ed\b", end):
            return True
    return _CONFIRMED.search(end) is not None


def text_of(output: str) -> str:
    """The words in an output: of a JSON object its message, else the whole."""
    value: Any = _fields(output)
    for name in ("output", "error", "message"):
        if isinstance(value, dict) and value.get(name):
            value = value[name]
    return value if isinstance(value, str) else output


def _fields(output: str) -> dict[str, Any]:
    """The fields of an output that is a JSON object; none otherwise."""
    text = output.strip()
    if not text.startswith("{") or len(text) > MAX_READ_CHARS:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
