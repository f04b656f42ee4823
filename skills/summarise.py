"""From an ended episode to a skill, by rules: what failed, what worked in its place, and what to do from the start.

    a call that failed, and a later one that worked     ->  Run `new` instead of `old`. The tool said: "..."
    a failure without a way out in the episode          ->  the tool's sentence that directs, quoted
    a correction by the user                            ->  the user's sentence, quoted
    an episode that succeeded                           ->  its calls in order

Words of a command that stand in the request are its arguments and are left out, and so is what the failed command and
the one in its place have in common behind their difference: what is written holds for requests of the same kind, and
one rule is one skill whatever it was met with. Where the tool names both programs, what it names is the rule. Text of
tools and users has to pass the gates of hints (`agentrl.signals.gates`) and is
quoted, never written as an instruction of our own.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from agentrl.errors import AgentRLError
from agentrl.signals.candidates import Candidate
from agentrl.signals.commands import earlier_calls, gaming, made_calls
from agentrl.signals.gates import admit, case_of
from agentrl.signals.hints import directive
from agentrl.signals.lessons import stands_in
from agentrl.signals.outputs import failed, is_outage, text_of
from agentrl.signals.rules import RuleJudge
from agentrl.store.episodes import Episode, Step
from agentrl.text.content import message_text
from agentrl.types import ToolCall
from skills.library import Draft
from skills.skill_file import MAX_DESCRIPTION, slug

MAX_REQUEST_CHARS = 300
MAX_COMMAND_CHARS = 300
MAX_MISTAKES = 8
MAX_WORKFLOW = 12
GAP = "..."
"""Stands for an argument that the request names."""

_PUNCTUATION = ".,;:!?\"'`()[]{}"


class SummariserError(AgentRLError):
    """A summariser failed or answered with something else than a skill. It is counted, and there is no skill."""


class Summariser(Protocol):
    """Anything that writes skills. `summarise` returns None where an episode teaches nothing."""

    @property
    def name(self) -> str: ...

    async def summarise(self, episode: Episode) -> Draft | None: ...


class RuleSummariser:
    """Without a model, at no cost."""

    name = "rules"

    async def summarise(self, episode: Episode) -> Draft | None:
        judge, said = RuleJudge(), {}
        for step in episode.steps:
            if step.next_state is None or step.turn.reply.tool_calls:
                continue
            judged = await judge.judge(step.turn, step.next_state)
            if judged.reward is not None and judged.reward < 0 and judged.hint is not None:
                said[step.turn.id] = judged.hint
        return by_rules(episode, said)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """Something that failed or was corrected."""

    old: str
    """What was done, in general form; empty for a reply in words."""
    new: str | None
    """What worked later in its place."""
    said: str | None
    """The sentence that says what should have been done, verbatim."""
    by_user: bool = False
    did: str = ""
    """The whole of what worked later, the request's arguments aside."""

    @property
    def line(self) -> str:
        if self.new is not None:
            why = "" if self.said is None else f' The tool said: "{self.said}"'
            return f"Run `{self.new}` instead of `{self.old}`.{why}"
        if self.by_user:
            return f'The user said: "{self.said}"'
        return f'`{self.old}` fails here. The tool said: "{self.said}"'


def by_rules(episode: Episode, corrections: Mapping[str, str]) -> Draft | None:
    """The skill that an episode teaches by rules; None where it teaches none.

    Args:
        corrections: turn id -> what the user said should have been.
    """
    request = request_of(episode)
    found = mistakes(episode, request, corrections)
    worked = [one for one in found if one.new is not None]
    told = [one for one in found if one.new is None and one.said is not None]
    ruled = {one.did: one.new for one in worked if one.new is not None}
    golden = workflow(episode, request) if episode.reward is not None and episode.reward > 0 else []
    golden = list(dict.fromkeys(ruled.get(step, step) for step in golden))
    said = len(golden) == 1 and any(golden[0] == one.new for one in worked)
    flow = [] if said else golden
    if not worked and not told and not flow:
        return None
    lines = [one.line for one in worked]
    if flow:
        lines += (
            [f"Run `{flow[0]}`."]
            if len(flow) == 1
            else [f"{n}. Run `{step}`." for n, step in enumerate(flow, 1)]
        )
    lines += [one.line for one in told]
    best = golden or [one.new for one in worked[:1] if one.new is not None]
    if best:
        name = "use " + " then ".join(best)
    else:
        name = f"not {told[0].old}" if told[0].old else f"user said {told[0].said}"
    return Draft(
        name=slug(name),
        description=f"Use for requests like this one: {shortened(request)}"[:MAX_DESCRIPTION],
        body="\n".join(dict.fromkeys(lines)),
        adds=True,
        is_quoted=True,
    )


def mistakes(episode: Episode, request: str, corrections: Mapping[str, str]) -> list[Mistake]:
    """What failed in an episode and what was corrected, in its order, each once."""
    attempts = [calls_of(episode, step) for step in episode.steps]
    found: dict[tuple[str, str | None, str | None], Mistake] = {}
    for number, (step, calls) in enumerate(zip(episode.steps, attempts, strict=True)):
        for call, output in calls:
            if output is None:
                continue
            old = command_of(call)
            later = [
                command_of(other)
                for others in attempts[number + 1 :]
                for other, fault in others
                if other.name == call.name and fault is None
            ]
            did = nearest(old, later) if later else None
            said = admitted(step, directive(text_of(output)), "error_text")
            pair = None if did is None else replaced(old, did, request, said or "")
            mistake = Mistake(
                old=general(old, request) if pair is None else pair[0],
                new=None if pair is None else pair[1],
                said=said,
                did="" if did is None else general(did, request),
            )
            if mistake.new is not None and said is not None and _names(said, old, mistake.old):
                mistake = replace(mistake, said=None)
            found.setdefault((mistake.old, mistake.new, None if mistake.new else mistake.said), mistake)
    for step in episode.steps:
        said = admitted(step, corrections.get(step.turn.id), "correction")
        if said is not None:
            found.setdefault(("", None, said), Mistake(old="", new=None, said=said, by_user=True))
    return list(found.values())[:MAX_MISTAKES]


def workflow(episode: Episode, request: str) -> list[str]:
    """The calls of an episode that did not fail, in their order, in general form."""
    steps = [
        general(command_of(call), request)
        for step in episode.steps
        for call, output in calls_of(episode, step)
        if output is None
    ]
    return list(dict.fromkeys(step for step in steps if step))[:MAX_WORKFLOW]


def calls_of(episode: Episode, step: Step) -> list[tuple[ToolCall, str | None]]:
    """The calls of a turn of which something is known, each with the output of its failure, None where it worked.

    Nothing is known of a call that met an outage of the machine, or that nobody answered; but for the last one of an
    episode that was rewarded: many environments end with the call that does the task, and show its output to nobody.
    """
    ended_well = step is episode.steps[-1] and episode.reward is not None and episode.reward > 0
    answers = {call.id: output for call, output in outcomes(step)}
    found: list[tuple[ToolCall, str | None]] = []
    for call in step.turn.reply.tool_calls:
        output = answers.get(call.id)
        if output is None:
            found += [(call, None)] if ended_well else []
        elif not failed(output, reads=made_calls([call])[0].reads):
            found.append((call, None))
        elif not is_outage(output):
            found.append((call, output))
    return found


def trick_in(episode: Episode) -> str | None:
    """How an episode gets round a check instead of meeting it; None where it does not."""
    for step in episode.steps:
        users = (message_text(one) for one in step.turn.messages if one.get("role") == "user")
        before = list(earlier_calls(step.turn.messages))
        trick = gaming(made_calls(step.turn.reply.tool_calls), before, "\n".join(users))
        if trick is not None:
            return trick
    return None


def admitted(step: Step, text: str | None, origin: Literal["error_text", "correction"]) -> str | None:
    """A sentence of a tool or a user, where it passes the gates that hints have to pass."""
    if text is None:
        return None
    candidate = Candidate(text=text, origin=origin, trusted=origin == "correction")
    passage = admit([candidate], case_of(step.turn, step.next_state))
    return passage.accepted[0].text.strip() if passage.accepted else None


def outcomes(step: Step) -> list[tuple[ToolCall, str]]:
    """The calls of a turn, each with what its tool answered; calls without an answer are left out."""
    if step.next_state is None:
        return []
    answers = {
        message.get("tool_call_id"): message_text(message)
        for message in step.next_state.messages
        if message.get("role") == "tool"
    }
    return [(call, answers[call.id]) for call in step.turn.reply.tool_calls if call.id in answers]


def request_of(episode: Episode) -> str:
    """What the episode was asked: the newest user message of its first turn."""
    messages = episode.steps[0].turn.messages
    return next((message_text(one) for one in reversed(messages) if one.get("role") == "user"), "").strip()


def command_of(call: ToolCall) -> str:
    """A call on one line: the text of its only argument, else its name and arguments."""
    try:
        arguments = json.loads(call.arguments)
    except json.JSONDecodeError:
        arguments = call.arguments
    if isinstance(arguments, dict) and len(arguments) == 1:
        (only,) = arguments.values()
        if isinstance(only, str) and only.strip():
            return " ".join(only.split())[:MAX_COMMAND_CHARS]
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return " ".join(f"{call.name} {text}".split())[:MAX_COMMAND_CHARS]


def general(command: str, request: str) -> str:
    """A command with the words that its request names taken out; the first word, what is run, always stays."""
    named = {word.strip(_PUNCTUATION) for word in request.split()}
    first, *rest = command.split() or [""]
    words = [first, *(GAP if word.strip(_PUNCTUATION) in named else word for word in rest)]
    return _closed(words).replace("`", "'")


def nearest(command: str, others: Sequence[str]) -> str:
    """The command that shares most with another one, of equals the first."""
    words = command.split()
    return max(others, key=lambda other: difflib.SequenceMatcher(None, words, other.split()).ratio())


def replaced(old: str, new: str, request: str, said: str = "") -> tuple[str, str] | None:
    """What was put in place of what, in general form; None where both are the same.

    Args:
        said: the tool's sentence on the failed command.
    """
    first, second = general(old, request), general(new, request)
    if first == second:
        return None
    pair = _apart(first, second)
    if pair[0] == pair[1]:  # the order of the arguments is the difference
        return first, second
    named = _named(pair[0], said), _named(pair[1], said)
    return named if all(named) and named[0] != named[1] else pair


def _named(command: str, said: str) -> str:
    """As much of a command's beginning as a sentence names, files aside; empty where it does not name what is run."""
    found, words = "", command.split()
    for end in range(1, len(words) + 1):
        text = " ".join(words[:end])
        is_file = end > 1 and re.search(r"[./]", words[end - 1])
        if is_file or not stands_in(text, said):
            break
        found = text
    return found


def _apart(old: str, new: str) -> tuple[str, str]:
    """Two commands without what they share behind their first difference; what is run always stays."""
    first, second = old.split(), new.split()
    start = 1
    while start < min(len(first), len(second)) and first[: start + 1] == second[: start + 1]:
        start += 1
    shared = {*first[start:]} & {*second[start:]}

    def cut(words: list[str]) -> str:
        return _closed([*words[:start], *(GAP if word in shared else word for word in words[start:])])

    return cut(first), cut(second)


def _closed(words: list[str]) -> str:
    """Words of a command, of gaps that follow each other one and none at the end."""
    while len(words) > 1 and words[-1] == GAP:
        words.pop()
    return re.sub(r"(\.\.\.)( \.\.\.)+", r"\1", " ".join(words))


def _names(said: str, command: str, general: str) -> bool:
    """Whether a sentence is about an argument of this call alone, so that others have nothing of it."""
    kept = {word.strip(_PUNCTUATION) for word in general.split()}
    left_out = {word.strip(_PUNCTUATION) for word in command.split()[1:]} - kept
    return any(stands_in(word, said) for word in left_out if word)


def shortened(text: str) -> str:
    """The start of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_REQUEST_CHARS else line[: MAX_REQUEST_CHARS - 1].rstrip() + "…"
