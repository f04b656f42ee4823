"""The rule judge: exit codes, error text, corrections and ends, without a model.

It speaks only where the text is plain. Mere absence of an error is not success: a turn without a sign of
either kind gets no reward (law 6).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from agentrl.signals.hints import MAX_READ_CHARS, directive, exit_code
from agentrl.signals.judge import Judgement
from agentrl.text.content import message_text
from agentrl.types import End, NextState, SignalSource, Turn

_ERROR = re.compile(
    r"""(?imx)
    ^(?: \w*(?:Error|Exception):\s | Traceback\ \(most\ recent | fatal:\s | error(?:\[\w+\])?:\s | panic:\s )
    | \b(?: command\ not\ found | No\ such\ file\ or\ directory | Permission\ denied | Segmentation\ fault )\b
    """
)
_CORRECTION = re.compile(
    r"""(?ix)
    ^\W*(?: no\b(?!\ (?:problem|worries)) | wrong\b | nope\b | not\ what\ i | that(?:'s|\ is)\ (?:wrong|not\b|incorrect)
        | you\ (?:should|were\ supposed|forgot|missed) | i\ (?:said|asked|meant|told)\b | incorrect\b | please\ don'?t\b
        | don'?t\b | stop\b | undo\b | actually,?\ )
    """
)
_PRAISE = re.compile(
    r"(?i)^\W*(?:thanks?\b|thank you|perfect\b|great\b|exactly\b|that works|works now|well done|nice\b)"
)

MAX_EVIDENCE_CHARS = 2000


class RuleJudge:
    """Judges a turn by what the tools and the user said next. Reward -1, +1 or None; hints verbatim."""

    name = "rules"
    source = SignalSource.RULE

    async def judge(self, turn: Turn, state: NextState) -> Judgement:
        tools = [message_text(message) for message in state.messages if message.get("role") == "tool"]
        users = [message_text(message) for message in state.messages if message.get("role") == "user"]
        if tools and turn.reply.tool_calls:
            return judge_tool_output(tools)
        if users:
            return judge_user_text(users[0])
        if state.end is End.REGENERATED:
            return Judgement(reward=-1.0, evidence="the user asked for another answer")
        return Judgement(evidence=f"nothing to judge by ({state.end or 'no tool or user message'})")


def judge_tool_output(outputs: Iterable[str]) -> Judgement:
    """A failed call is -1 with the directing sentence as the hint; a call without a sign of failure is None.

    Several calls in one turn are judged by the first that failed.
    """
    for output in outputs:
        code = exit_code(output)
        failed = code != 0 if code is not None else _ERROR.search(output[-MAX_READ_CHARS:]) is not None
        if failed:
            return Judgement(reward=-1.0, hint=directive(output), evidence=output[:MAX_EVIDENCE_CHARS])
    return Judgement(evidence="the tools reported no failure")


def judge_user_text(text: str) -> Judgement:
    """A correction is -1 with the user's own words as the hint, plain praise is +1, all else is None."""
    if _CORRECTION.search(text):
        return Judgement(reward=-1.0, hint=directive(text), evidence=text[:MAX_EVIDENCE_CHARS])
    if _PRAISE.search(text) and directive(text) is None:
        return Judgement(reward=1.0, evidence=text[:MAX_EVIDENCE_CHARS])
    return Judgement(evidence="the user neither corrected nor approved")
