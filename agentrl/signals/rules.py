"""The rule judge: exit codes, error text, corrections, approvals and ends, without a model.

It speaks only where the text is plain. Mere absence of an error is not success: a turn without a sign of
either kind gets no reward (law 6). A failure of the machine is nobody's lesson, and getting round a check is punished
whatever its output says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from agentrl.signals.candidates import calls_of, instead
from agentrl.signals.commands import (
    Call,
    earlier_calls,
    failures,
    gaming,
    leaves_nothing,
    made_calls,
    only_shows,
    own_tests,
    repaired,
)
from agentrl.signals.echoes import without_echo
from agentrl.signals.hints import directive, wish
from agentrl.signals.judge import Judgement
from agentrl.signals.outputs import confirms, failed, is_outage, passes, text_of
from agentrl.signals.reactions import classifier, read
from agentrl.signals.wording import approves, consents, is_kind, praises
from agentrl.text.changed_calls import text_of_calls
from agentrl.text.content import message_text
from agentrl.types import End, NextState, SignalSource, Turn

MAX_EVIDENCE_CHARS = 2000
MAX_ASKED_CHARS = 2000
"""Of what users said first, and as many of what they said last: the task, and a log below it."""
ALWAYS = 2
"""After so many earlier approvals and nothing else, one more says nothing."""
LIKELY = 0.5
_BROKE_IN = re.compile(r"\A\s*\[(?:Request )?[Ii]nterrupted[^\]\n]*\]")
_TAGGED = re.compile(r"(?m)^[^\S\n]*<")
_LABELS = ("[", "```", "~~~", ">", "#", "|")


class RuleJudge:
    """Judges a turn by what the tools and the user said next. Reward -1, 0, +1 or None; hints verbatim."""

    name = "rules"
    source = SignalSource.RULE

    def __init__(self) -> None:
        """Raises OSError, KeyError or ValueError where the weights of the classifier are damaged."""
        classifier()

    async def judge(self, turn: Turn, state: NextState) -> Judgement:
        if state.end is not None:
            return judge_end(turn, state)
        tools = [message_text(message) for message in state.messages if message.get("role") == "tool"]
        users = [message_text(message) for message in state.messages if message.get("role") == "user"]
        if tools and turn.reply.tool_calls:
            shown = judge_call(turn, tools)
            return _broken_in(turn, users, shown) if users and not shown.settled else shown
        if users:
            return judge_answer(turn, users[0])
        return Judgement(evidence="nothing to judge by (no tool or user message)", settled=True)


def judge_end(turn: Turn, state: NextState) -> Judgement:
    """Another answer, asked for or written by the user, is preferred to this one; a changed request says nothing.

    What the user wrote is the answer that he would rather have had, in his own words; a call that he changed before it
    ran is that call, and how it differs is a hint.
    """
    if state.end is End.REGENERATED:
        return Judgement(reward=-1.0, evidence="the user asked for another answer", settled=True)
    written = [message for message in state.messages if message.get("role") == "assistant"]
    if state.end is not End.EDITED or not written:
        return Judgement(evidence=f"nothing to judge by ({state.end})", settled=True)
    text, calls = message_text(written[0]), calls_of(written[0])
    if calls:
        text = text_of_calls(calls)
    return Judgement(
        reward=-1.0,
        hint=instead(turn.reply.tool_calls, calls),
        preferred=text.strip() or None,
        evidence=f"the user rewrote it: {text}"[:MAX_EVIDENCE_CHARS],
        settled=True,
    )


def judge_call(turn: Turn, outputs: Sequence[str]) -> Judgement:
    """What the outputs prove of the turn's calls.

    A trick is -1 whatever it printed. A check that fails before anything was changed only shows what was asked about.
    +1 only where the check that failed before passes, unchanged, or where the tool confirms the change.
    """
    calls, before = made_calls(turn.reply.tool_calls), list(earlier_calls(turn.messages))
    trick = gaming(calls, before, _asked(turn))
    if trick is not None:
        return Judgement(reward=-1.0, evidence=f"the call {trick}", settled=True)
    bad = failures(calls, outputs)
    if bad:
        if only_shows(calls[-1], before, outputs):
            return Judgement(evidence="the check fails, and nothing had been changed yet")
        return without_echo(judge_failure(bad[0]), turn.reply.tool_calls)
    if not all(call.is_valid for call in calls):
        return Judgement(reward=-1.0, evidence="the arguments of the call are no JSON object")
    proof = _proof(calls, before, outputs[-1], _asked(turn))
    if proof is not None:
        return Judgement(reward=1.0, evidence=f"{proof}: {outputs[-1]}"[:MAX_EVIDENCE_CHARS])
    return Judgement(evidence="the tools reported no failure")


def _broken_in(turn: Turn, users: Sequence[str], shown: Judgement) -> Judgement:
    """What the tools show, and before it the words of a user who broke in before the agent read that: a correction.
    Anything else that is sent along with outputs (praise, the next request, what a client put in) says nothing of them.
    The gates take such words for a tool's."""
    text = next((words for words in map(_own_words, users) if words), "")
    said = judge_user_text(text, reply=turn.reply.text, asked=(_said(turn) or [""])[-1])
    if said.reward is None or said.reward > 0:
        return shown
    return said if said.hint is not None else replace(said, hint=shown.hint)


def _own_words(text: str) -> str:
    """A message without the line that says of a user that he broke in, up to a line of tags; nothing of one that is
    labelled, fenced or quoted, or has tags elsewhere, for then it may be what a tool has read."""
    own = _TAGGED.split(_BROKE_IN.sub("", text), maxsplit=1)[0].strip()
    return "" if own.startswith(_LABELS) or "<" in own else own


def judge_failure(output: str) -> Judgement:
    """A failed call is -1 with the directing sentence as the hint; an outage says nothing of the agent."""
    if is_outage(output):
        return Judgement(
            evidence=f"the machine failed, not the agent: {output}"[:MAX_EVIDENCE_CHARS], settled=True
        )
    return Judgement(reward=-1.0, hint=directive(text_of(output)), evidence=output[:MAX_EVIDENCE_CHARS])


def judge_answer(turn: Turn, text: str) -> Judgement:
    """What the user's words say of the turn's answer.

    An approval says nothing (0) where the turn only asked for consent, where a check was got round on the way, or where
    this user approves of everything.
    """
    asks = turn.reply.text.rstrip().endswith("?") and not turn.reply.tool_calls
    if asks and consents(text):
        return Judgement(
            reward=0.0, evidence=f"the turn asked, the user consented: {text}"[:MAX_EVIDENCE_CHARS]
        )
    judgement = judge_user_text(text, reply=turn.reply.text, asked=(_said(turn) or [""])[-1])
    if judgement.reward == 1 and (asks or _gamed(turn) or _always_approves(turn)):
        return Judgement(reward=0.0, evidence=f"an approval that says nothing: {text}"[:MAX_EVIDENCE_CHARS])
    return judgement


def judge_user_text(text: str, *, reply: str = "", asked: str = "") -> Judgement:
    """A correction is -1 with the user's own words as the hint, beside praise of the rest 0; praise is +1, else None.

    `reply` and `asked` as in `reactions.read`.
    """
    reading = read(text, reply=reply, asked=asked)
    if reading.corrects:
        evidence = f"the user's words: correction {reading.correction:.2f}: {text}"
        reward = 0.0 if praises(text) else -1.0
        return Judgement(reward=reward, hint=wish(text), evidence=evidence[:MAX_EVIDENCE_CHARS])
    if reading.approves:
        evidence = f"the user's words: approval {reading.approval:.2f}: {text}"
        return Judgement(reward=1.0, evidence=evidence[:MAX_EVIDENCE_CHARS])
    return Judgement(evidence="the user neither corrected nor approved")


def _proof(
    calls: Sequence[Call], before: Sequence[tuple[Call, str | None]], output: str, asked: str
) -> str | None:
    """What is proved by an output without a failure; None where it only lacks one."""
    if any(_tricks(before, asked)):
        return None
    call = calls[-1]
    if repaired(call, before) and passes(output):
        return "what failed before passes now"
    if call.may_be_confirmed and confirms(output, call.tool):
        return "the tool confirms the change"
    return None


def _tricks(made: Sequence[tuple[Call, str | None]], asked: str) -> list[str | None]:
    """How each call gets round a check, as `gaming` names it, by what came before that call alone."""
    found: list[str | None] = []
    earlier: list[tuple[Call, str | None]] = []
    own: set[str] = set()
    for call, output in made:
        found.append(gaming([call], earlier, asked, own))
        own |= own_tests([call])
        if not earlier and output is not None and failed(output):
            earlier.append((call, output))  # one is enough, and a long history is read once
    return found


def _gamed(turn: Turn) -> bool:
    """Whether a call since the last request got round a check: praise of what it pretends is no reward.

    A trick that is over with its command pretends nothing any more where the check that failed passes later, unchanged.
    """
    before, asked = list(earlier_calls(turn.messages)), _asked(turn)
    last = max((at for at, each in enumerate(turn.messages) if each.get("role") == "user"), default=-1)
    first = len(list(earlier_calls(turn.messages[: last + 1])))
    is_gamed = False
    wrong = {call.command for call, output in before[:first] if output and failed(output)}
    for (call, output), trick in zip(before[first:], _tricks(before, asked)[first:], strict=True):
        if trick is not None and not leaves_nothing(trick, call):
            return True
        if trick is not None:
            is_gamed = True
        elif output and failed(output):
            wrong.add(call.command)
        elif output and call.command in wrong and passes(output):
            is_gamed = False
    return is_gamed


def _always_approves(turn: Turn) -> bool:
    """Whether every word of this user since the task was an approval, or more likely one than not."""
    said = _said(turn)
    return len(said) > ALWAYS and all(
        approves(text) or is_kind(text) or read(text, reply="", asked=task).approval >= LIKELY
        for task, text in pairwise(said)
    )


def _asked(turn: Turn) -> str:
    said = "\n".join(_said(turn))
    return (
        said if len(said) <= 2 * MAX_ASKED_CHARS else f"{said[:MAX_ASKED_CHARS]}\n{said[-MAX_ASKED_CHARS:]}"
    )


def _said(turn: Turn) -> list[str]:
    return [message_text(message) for message in turn.messages if message.get("role") == "user"]
