"""Candidates for a hint: what the records of a turn offer, before any gate has looked at it.

    error_text      the directing sentence of what a tool answered                   not trusted
    correction      the directing sentence of what the user answered                 trusted, but beside an output
    later_success   a failed action beside the one that worked later                 not trusted: it quotes arguments
    reference       what the environment or the user would rather have had           trusted

Pure functions of a turn, its next state, its signals, and the calls around it. The reference is often known after the
turn was judged, so that the learner asks for it (`agentrl.learner.hints`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, Literal

from agentrl.signals.commands import MAX_COMMAND_CHARS, read_call
from agentrl.signals.hints import directive
from agentrl.signals.outputs import failed, text_of
from agentrl.text.content import message_text
from agentrl.text.quoting import unquoted
from agentrl.types import JSON, NextState, Signal, SignalSource, ToolCall, Turn

Origin = Literal["error_text", "correction", "later_success", "reference", "judge"]
MAX_ACTION_CHARS: Final = 120
"""A longer action is no example that fits into a sentence."""
MAX_LATER: Final = 8
"""Calls of a request among which the way out of a failure is looked for. Further on, what worked was mostly another
step of the task; and each costs a look into the log."""

BEHIND: Final = "behind turn "
"""How the evidence of a hint begins that was said of a call once its request was closed: what came in between had not
read it."""

_NAME = r"-{0,2}\w(?:[\w./+-]*\w)?"
_WORD = re.compile(_NAME)
_MARK = r"""[`"'‘“*]"""
_WRONG = re.compile(
    rf"""(?ix)
    (?: \b(?:do\ not|don['’]t|never|stop)\ (?:ever\ )?(?:use|using|run|running|call|calling)
        | \b(?:instead\ of|in\ place\ of|rather\ than) (?:\ (?:using|running|calling))?
        | (?:[,;(–—-]|\band|\bbut)\s*not(?:\ (?:with|by))?
        | \b(?:use|run|call|try)\s+\S+\s+not )
    \s+ (?:the\s+)?
    (?: {_MARK}+ (?P<marked>{_NAME})
        | (?P<name>{_NAME}) (?!\w)
          (?= \s*(?:\Z|[.,;:!?()\n]) | \s+-{{1,2}}\w
            | \s+(?:for|to|here|there|when|because|since|unless|please|again|any\s?more|next|from\ now
                |command|tool|program|option|flag|(?:on|in)\ (?:this|that|these|those|the|my|our))\b ) )"""
)
"""What is called wrong: what is marked as a name or stands at the end of its clause, for "rather than write so much"
names no tool."""
_COMMANDS = ("command", "cmd", "commands", "keystrokes")
"""Arguments that are run."""
_TEXTS = re.compile(r"(?s)<<.*|'[^']*'|\"[^\"]*\"")
_STEP = re.compile(r"[|;&\n(]+")
_REMINDERS = ("system-reminder", "environment_details", "environment_context")
"""Tags in which clients put in what nobody said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A text that may become a hint."""

    text: str
    origin: Origin
    """"judge": a model wrote it after reading all of these."""
    trusted: bool
    """Whether a user or an environment of ours said it. All else may have been written by anybody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WayOut:
    """An earlier call of a request that failed, and how one that worked later differs from it."""

    num_back: int
    """How many turns before the one that worked."""
    wrong: Sequence[ToolCall]
    candidate: Candidate
    is_told: bool
    """Whether what the failed call was answered said itself what to do."""


def candidates(state: NextState) -> list[Candidate]:
    """What was said of a turn by those who answered it. Beside an output nobody knows whose words a user's message has,
    for there are clients that send in it what a tool has read: the output's own come first."""
    said = _said(state.messages, "user", "correction")
    if not _tools(state):
        return said
    return [*_said(state.messages, "tool", "error_text"), *(replace(one, trusted=False) for one in said)]


def from_judge(text: str, state: NextState) -> Candidate:
    """A judge's hint. Words of the user are the user's; any other text rests on what the next state's tools printed.
    Either is trusted only where no tool spoke."""
    tools, users = (
        [message_text(message) for message in state.messages if message.get("role") == role]
        for role in ("tool", "user")
    )
    if any(text in said for said in tools):
        return Candidate(text=text, origin="error_text", trusted=False)
    if any(text in said for said in users):
        return Candidate(text=text, origin="correction", trusted=not tools)
    return Candidate(text=text, origin="judge", trusted=not tools)


def said_by_user(hint: str, source: SignalSource, state: NextState | None) -> bool:
    """Whether a hint is a user's own word: given as such, or standing in what the user answered and beside no tool's
    output. A quotation is somebody else's, also where a client sends tools' output as the user's."""
    if source is SignalSource.USER:
        return True
    if state is None or unquoted(hint) != hint:
        return False
    said = from_judge(hint.strip(), state)
    return said.origin == "correction" and said.trusted


def later_success(wrong: Turn, later: Sequence[tuple[Turn, NextState | None]]) -> Candidate | None:
    """The first later call of the same tool that is another one and worked, as a difference to the failed one.

    None without such a call, or where there is no sentence that says how they differ.
    """
    for turn, state in later:
        if state is not None and worked(state):
            found = between(wrong.reply.tool_calls, turn.reply.tool_calls)
            if found is not None:
                return found
    return None


def ways_out(turn: Turn) -> list[WayOut]:
    """The same from one turn alone, which has worked: the calls before it in its own messages that failed and of which
    it is the first success, the nearest first. At most MAX_LATER calls back, none from before the newest request."""
    found = []
    worked_since: list[Sequence[ToolCall]] = []
    for num_back, (calls, outputs) in enumerate(_calls_before(turn), 1):
        if num_back > MAX_LATER:
            break
        if not any(map(failed, outputs)):
            worked_since.append(calls)
            continue
        candidate = between(calls, turn.reply.tool_calls)
        if candidate is not None and all(between(calls, later) is None for later in worked_since):
            is_told = any(directive(text_of(text)) for text in outputs)
            found.append(WayOut(num_back=num_back, wrong=calls, candidate=candidate, is_told=is_told))
    return found


def spoken_of(turn: Turn, hint: str) -> tuple[int, Sequence[ToolCall]] | None:
    """How many turns before a closing reply the calls were made that a hint speaks against, and these: the newest since
    the request of which the hint names the tool, a program or an option as wrong ("instead of cat", "not --long"), and
    the reply does not. None where it speaks of none, or of a reply with calls of its own.
    """
    named = {(found["marked"] or found["name"]).lower() for found in _WRONG.finditer(hint)}
    wrong = named - _words(turn.reply.text)
    if turn.reply.tool_calls or not wrong:
        return None
    for num_back, (calls, _) in enumerate(islice(_calls_before(turn), MAX_LATER), 1):
        if any(not wrong.isdisjoint(used(call)) for call in calls):
            return num_back, calls
    return None


def is_behind(signal: Signal) -> bool:
    """Whether a judge's signal was moved to a call from the reply that closed its request."""
    by_judge = signal.source not in (SignalSource.USER, SignalSource.ENVIRONMENT)
    return by_judge and signal.evidence.startswith(BEHIND)


def is_said_later(hint: str, signals: Iterable[Signal]) -> bool:
    """Whether a turn's hint was said once its request was closed, and by nobody before."""
    return all(is_behind(signal) for signal in signals if (signal.hint or "").strip() == hint.strip())


def without_reminders(text: str) -> str:
    """A message without what its client put in, in tags of its own."""
    for name in _REMINDERS:
        *ended, rest = text.split(f"</{name}>")
        text = "".join(part.partition(f"<{name}>")[0] for part in ended) + rest
    return text


def is_reminder(message: JSON) -> bool:
    """Whether a message holds what a client put in and nothing that anybody said."""
    text = message_text(message) if message.get("role") == "user" else ""
    return bool(text.strip()) and not without_reminders(text).strip()


def used(call: ToolCall) -> set[str]:
    """A call's tool, and of a command the programs and options, in small letters: its other words, texts in quotation
    marks and what is fed to it are what it was used on."""
    found, read = {call.name}, read_call(call.name, call.arguments)
    for name, text in zip(read.names, read.values, strict=True):
        if name in _COMMANDS:
            steps = (step.split() for step in _STEP.split(_TEXTS.sub(" ", text[:MAX_COMMAND_CHARS])))
            found |= {
                word for step in steps for at, word in enumerate(step) if at == 0 or word.startswith("-")
            }
    return {word.lower() for word in found}


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))


def _calls_before(turn: Turn) -> Iterator[tuple[list[ToolCall], list[str]]]:
    """The calls since the newest request with their outputs, the newest first."""
    outputs: list[str] = []
    for message in reversed(turn.messages):
        if is_reminder(message):
            continue
        if message.get("role") == "tool":
            outputs.append(message_text(message))
        elif message.get("role") == "assistant" and outputs:
            yield calls_of(message), outputs
            outputs = []
        else:
            return


def between(wrong: Sequence[ToolCall], right: Sequence[ToolCall]) -> Candidate | None:
    """The difference of two single calls of one tool."""
    if len(wrong) != 1 or len(right) != 1:
        return None
    [before], [after] = wrong, right
    return difference(before, after) if before.name == after.name else None


def difference(wrong: ToolCall, right: ToolCall) -> Candidate | None:
    """`a` failed; `b` worked. Where only the program differs, the programs alone: what worked for one file works for
    others. None where they share no word: that was another step of the task, or where they are long or equal."""
    before, after = action(wrong), action(right)
    if before == after or max(len(before), len(after)) > MAX_ACTION_CHARS or "\n" in before + after:
        return None
    old, new = before.split(), after.split()
    if len(old) > 1 and old[1:] == new[1:] and old[0] != new[0]:
        text = f"{old[0]} does not work here; {new[0]} works"
    elif set(old[1:]) & set(new[1:]):
        text = f"`{before}` failed; `{after}` worked"
    else:
        return None
    return Candidate(text=text, origin="later_success", trusted=False)


def instead(made: Sequence[ToolCall], ran: Sequence[ToolCall]) -> str | None:
    """What somebody had run in the place of a call, as a hint; None unless one of the calls differs, in a few words."""
    changed = [pair for pair in zip(made, ran, strict=False) if action(pair[0]) != action(pair[1])]
    if len(made) != len(ran) or len(changed) != 1:
        return None
    [(old, new)] = changed
    before, after = (action(call) for call in (old, new))
    if max(len(before), len(after)) > MAX_ACTION_CHARS or "\n" in before + after:
        return None
    return f"Call {new.name} with `{after}`, not {old.name} with `{before}`."


def action(call: ToolCall) -> str:
    """A call as a person would write it: its only text argument, else its arguments in JSON."""
    try:
        values = json.loads(call.arguments)
    except (ValueError, RecursionError):
        return call.arguments
    if isinstance(values, dict) and len(values) == 1:
        [only] = values.values()
        if isinstance(only, str):
            return only.strip()
    return f"{call.name} {json.dumps(values, ensure_ascii=False)}"


def worked(state: NextState) -> bool:
    """Whether tools answered and none of them tells of a failure."""
    texts = _tools(state)
    return bool(texts) and not any(map(failed, texts))


def calls_of(message: JSON) -> list[ToolCall]:
    calls = [call.get("function") or {} for call in message.get("tool_calls") or ()]
    return [
        ToolCall(id="", name=str(call.get("name", "")), arguments=str(call.get("arguments", "")))
        for call in calls
    ]


def _tools(state: NextState) -> list[str]:
    return [message_text(message) for message in state.messages if message.get("role") == "tool"]


def _said(messages: Sequence[JSON], role: str, origin: Origin) -> list[Candidate]:
    texts = [message_text(message) for message in messages if message.get("role") == role]
    if role == "tool":
        texts = [text for text in texts if failed(text)]
    found = [directive(text_of(text)) for text in texts]
    return [Candidate(text=text, origin=origin, trusted=role == "user") for text in found if text is not None]


def references(signals: Iterable[Signal]) -> list[Candidate]:
    """The answers that users and environments would rather have had; nobody else's word for an answer is taken. A
    rule's is what the user wrote in the place of the reply."""
    trusted = (SignalSource.USER, SignalSource.ENVIRONMENT, SignalSource.RULE)
    return [
        Candidate(text=signal.preferred, origin="reference", trusted=True)
        for signal in signals
        if signal.preferred and signal.source in trusted
    ]
