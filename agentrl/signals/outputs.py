"""What a tool's output says of its call: whether it failed, whether the machine failed, whether it was confirmed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final

from agentrl.signals.output_tables import (
    ANSWERERS,
    ANSWERS,
    CHANGES,
    DONE,
    DOWN,
    FAILED_STATES,
    LOOKUPS,
    OUTAGES,
    OWN_FAULTS,
    PAGE_DONE,
    REFUSALS,
    SERVICES,
    SHELLS,
)
from agentrl.signals.phrases import any_of

MAX_READ_CHARS = 8000
"""How much of an output's end is looked at: the judge runs beside the gateway and must not hold it up."""
FEW_LINES = 2
"""An output of at most so many lines is the tool speaking; a longer one may quote a file."""
FEW_WORDS = 3
"""A field of at most so many words holds a state; a longer one may hold anything."""

EXIT_LINE = re.compile(r"^\[exit code (-?\d+)\]$")
_EXIT_FIRST = re.compile(r"(?i)^(?:process exited with code|exit code:?|<returncode>)\s*(-?\d+)")
_EXIT_LAST = re.compile(r"(?i)^exit status (-?\d+)$")

_ERROR = re.compile(
    r"""(?imx)
    ^(?: \w*(?:Error|Exception|NotFound):\s | Traceback\ \(most\ recent | fatal:\s | error(?:\[\w+\])?:\s | panic:\s
       | (?:action|validation|request|call|command|operation)\ (?:failed|refused|rejected|denied|ignored)\b
       | \S+\.\w{1,4}[:(]\d+[,:]\d+\)?:\s\S | \S+:\d+:\s(?:error|\*{3}) | (?:\w+\s){1,2}error:\s
       | \S+\.service\b.*\bfailed\b | npm\ ERR!\s | E:\s[A-Z] | CONFLICT\s\( | (?:HTTP\ )4\d\d\b
       | 4\d\d\ (?:Bad|Not|Un|Forbidden|Conflict) | mcp\ error\b | <tool_use_error> )
    | \b(?: command\ not\ found | No\ such\ file\ or\ directory | Permission\ denied | Segmentation\ fault )\b
    | \(\w+Error\)$ | ^\[\d+\]\ \w+\ '[^'\n]*'\ (?:invalid|error)\b
    """
)
_BRIEF_ERROR = re.compile(
    r"(?im)\b(?:is not|not) (?:permitted|allowed)\b|^[\w.-]+: (?:bad|invalid|unknown|unrecognized|missing)\b"
    r"|\bmust be unique\b"
)
_REFUSED = re.compile(rf"(?i)\b{any_of(REFUSALS)}\b|n't\b")
_DID: Final = (
    r"(?i:(?:added|created|updated|installed|enabled|removed|copied|written|started|done|ok|finished|using)\b"
    r"(?!.*(?:\bnot\b|n't\b|\buse\s|(?<!\b0 )(?<!\bno )fail|(?<!\b0 )(?<!\bno )error|\bcannot\b|:\s)))"
)
"""How a program says what it did. A line that goes on with a reason or a way out says something else."""
_GAP = r"[^\S\n]"
"""White space within a line: behind a line's beginning, any white space reads n blank lines n times each."""
_MARK = rf"^{_GAP}*(?:[-*]{_GAP}+|\[\d+\]{_GAP}*|\d+[.:)]{_GAP}+)"
_PAGE_LINE = re.compile(rf"(?m){_MARK}|^{_GAP}*<\w+")
"""How pages are shown: a list of elements, numbered or not, or their markup."""
_ALERT = re.compile(
    rf"(?im)(?:{_MARK}<?|^{_GAP}*<?)(?:\w+ role=\W?)?(?:alert|alertdialog|toast|notification|error)\b"
    rf"(?!{_GAP}*(?::{_GAP}*)?$).*"
)
_OUTAGE = re.compile(
    rf"(?im)\b{any_of(OUTAGES)}(?!\w)|\b{any_of(SERVICES)}\W+(?:\w+\W+){{0,3}}?{any_of(DOWN)}\b|^killed$"
)
_ANSWER = re.compile(rf"(?i)\b{any_of(ANSWERS)}(?!\w)")
_ANSWERER = re.compile(rf"(?i)\b{any_of(ANSWERERS)}\b")
_OWN_FAULT = re.compile(rf"(?i)\b{any_of(OWN_FAULTS)}\b")
_FAULT_FIELDS: Final = (
    "error",
    "errors",
    "error_code",
    "error_message",
    "errorMessage",
    "isError",
    "is_error",
)
_DONE_FIELDS: Final = ("ok", "success")
_REASON_FIELDS: Final = ("message", "reason", "detail", "details", "msg")
_STATE_FIELDS: Final = ("status", "status_code", "statusCode", "result", "type")
"""Where a tool that answers in JSON says how it went."""
_KILLED: Final = (124, 137)
"""Exit codes of what was ended from outside."""
_PASSED = re.compile(r"(?i)\b(?:passed|passes|success|succeeded|ok|active|healthy|up|running|green|clean)\b")
_NONE_FAILED = re.compile(r"(?i)\b(?:0|no) (?:failed|failures?|errors?|warnings?)\b")
_NOT_PASSED = re.compile(r"(?i)\b(?:fail(?:s|ed|ures?)?|errors?|inactive|unhealthy|not ok|no tests?)\b")
_CONFIRMED = re.compile(
    rf"(?i)\b{any_of(DONE)}\b|(?:{_MARK}<?|^{_GAP}*<?)(?:\w+ role=\W?)?"
    r"(?:alert|status|heading|dialog|toast|banner|notification|message|h\d)\b\W*+(?:(?!last)[^\n]*?\s)?"
    rf"{any_of(PAGE_DONE)}(?:(?<=\s\w{{4}})|(?<=\s\w{{5}})|(?<=\s\w{{6}})|(?<=\s\w{{7}})|(?<=\s\w{{8}})|(?<=\s\w{{9}})"
    r"|(?=[.!'\"<]|\sto\b))"
)
_DENIED = re.compile(
    r"(?i)\b(?:not|never|no|nothing|none|0|cannot|unable|fail\w*|error|already|un\w+ed|will|last)\b|n't\b"
)
"""What makes of a line with a confirmation none."""


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
        return names_itself(output, (reads,)) or (
            is_brief and end.startswith(f"{reads} ") and _BRIEF_ERROR.search(end) is not None
        )
    fields = _fields(output)
    if fields:
        return _says_failed(fields)
    if _ERROR.search(end) or any(_REFUSED.search(line) for line in _ALERT.findall(end)):
        return True
    return is_brief and _BRIEF_ERROR.search(end) is not None


def names_itself(output: str, programs: Iterable[str]) -> bool:
    """Whether a line begins with a program's own name, as programs begin what they have to say of themselves, unless it
    goes on with what was done ("mdadm: added /dev/sdc1")."""
    names = "|".join(map(re.escape, programs))
    begins = rf"(?m)^(?:\S*sh: )?(?:line \d+: )?(?:{names}): (?!{_DID})"
    return re.search(begins, output[-MAX_READ_CHARS:]) is not None


def refuses(output: str) -> bool:
    """Whether a tool that speaks for itself says, in a line or two, what was wrong with its call."""
    end = output[-MAX_READ_CHARS:]
    lines = end.strip().splitlines()
    if len(lines) > FEW_LINES or _PAGE_LINE.search(end):
        return False
    return any(_REFUSED.search(line) for line in lines) and not _is_data(output)


def passes(output: str) -> bool:
    """Whether an output says that a check passed: exit code 0, or words to that effect without a failure among them."""
    code = exit_code(output)
    if code is not None:
        return code == 0
    end = output[-MAX_READ_CHARS:]
    end = _NONE_FAILED.sub("", end)
    return _PASSED.search(end) is not None and _NOT_PASSED.search(end) is None


def is_outage(output: str) -> bool:
    """Whether a failure is the machine's: network, time-out, rate limit, full disk, missing service."""
    if exit_code(output) in _KILLED:
        return True
    return any(
        (_OUTAGE.search(line) or (_ANSWER.search(line) and _ANSWERER.search(line)))
        and not _OWN_FAULT.search(line)
        for line in output[-MAX_READ_CHARS:].splitlines()
    )


def confirms(output: str, tool: str) -> bool:
    """Whether a tool or a page says that the change was made: "sent successfully", `cancelled` for `cancel_order`.

    A sentence that also denies something ("not cancelled", "0 messages sent") confirms nothing.
    """
    fields, verb = _fields(output), verb_of(tool)
    done = [_CONFIRMED]
    if changes(tool):
        if any(fields.get(name) is True for name in _DONE_FIELDS):
            return True
        stem = re.escape(verb.removesuffix("e"))
        done.append(
            re.compile(
                rf"(?i)\b(?:{stem}(?:{re.escape(verb[-1])})?ed|{any_of(CHANGES.get(verb, verb + 'n'))})\b"
            )
        )
    if fields:
        lines = [
            f"{name} {value}"
            for name, value in fields.items()
            if value and len(str(value).split()) <= FEW_WORDS
        ]
    else:
        end = output[-MAX_READ_CHARS:]
        lines = re.split(r"\n" if _PAGE_LINE.search(end) else r"\n|(?<=[.!;])\s", end)
    return any(pattern.search(line) for line in lines if not _DENIED.search(line) for pattern in done)


def verb_of(tool: str) -> str:
    """What a tool does, by its name: `create` for `create_issue`, `createIssue` and `mcp__github__create_issue`."""
    last = re.split(r"__|\.", tool)[-1]
    found = re.search(r"[A-Z]?[a-z]+", last)
    return found[0].casefold() if found else ""


def changes(tool: str) -> bool:
    """Whether a tool changes something by itself, by its name of a verb and what the verb is done to."""
    last = re.split(r"__|\.", tool)[-1]
    return len(re.findall(r"[A-Z]?[a-z]+", last)) > 1 and not {verb_of(tool)} & (LOOKUPS | SHELLS)


def text_of(output: str) -> str:
    """The words in an output: of a JSON object its message, else the whole."""
    value: Any = _fields(output)
    for name in ("output", "error", "errors", *_REASON_FIELDS):
        if isinstance(value, dict) and value.get(name):
            value = value[name]
        if isinstance(value, list) and value and isinstance(value[0], str | dict):
            value = value[0]
    return value if isinstance(value, str) else output


def _says_failed(fields: dict[str, Any]) -> bool:
    if any(fields.get(name) for name in _FAULT_FIELDS) or any(
        fields.get(name) is False for name in _DONE_FIELDS
    ):
        return True
    states = [fields.get(name) for name in _STATE_FIELDS]
    if any(isinstance(state, int) and 400 <= state < 600 for state in states):
        return True
    return any(state in FAILED_STATES for state in states) and any(
        fields.get(name) for name in _REASON_FIELDS
    )


def _is_data(output: str) -> bool:
    """Whether an output is a JSON object or list: what stands in it may speak of anything."""
    return isinstance(_json(output), dict | list)


def _fields(output: str) -> dict[str, Any]:
    """The fields of an output that is a JSON object; none otherwise."""
    value = _json(output)
    return value if isinstance(value, dict) else {}


def _json(output: str) -> Any:
    """An output that is a JSON object or list; None otherwise."""
    text = output.strip()
    if not text.startswith(("{", "[")) or len(text) > MAX_READ_CHARS:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
