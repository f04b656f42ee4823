"""Lessons from text evidence: transcripts of agents that are served elsewhere, review comments, lists of rules.

    transcript ─> turns and next states ─rules─> hints ─gates─> lessons      as from live turns, by the same loop
    comment    ─> its directing words            ─gates─> lessons

Nothing of it was sampled by a policy of ours: it becomes lessons and never turns, so that no loss ever sees its ids. A
lesson from a transcript is shown to the teacher of like requests; one from a comment that names no request stands, once
somebody has approved it, for all requests of its scope. Secrets are blanked before anything else reads the text (law
10).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Final

from agentrl.signals.candidates import Candidate
from agentrl.signals.dialects import num_calls
from agentrl.signals.evidence import Evidence
from agentrl.signals.gates import Case, admit, as_hint
from agentrl.signals.hints import wish
from agentrl.signals.lessons import lesson_of, merged_into
from agentrl.signals.loop import ACCEPTED, OFFERED, SignalLoop
from agentrl.signals.rules import RuleJudge
from agentrl.store.lesson_rows import NewHint
from agentrl.text.content import message_text
from agentrl.text.redaction import Redactor
from agentrl.types import (
    JSON,
    Arm,
    Completion,
    FinishReason,
    Lesson,
    LessonState,
    MatchedBy,
    NextState,
    Purpose,
    Reply,
    Sampling,
    Signal,
    ToolCall,
    Turn,
    TurnKind,
)

NOTHING: Final = Completion(
    token_ids=(),
    logprobs=(),
    raw_logprobs=None,
    num_allowed=None,
    finish_reason=FinishReason.STOP,
    version_spans=(),
)
"""Transcripts hold text and no sampled ids."""
NO_ADVICE: Final = "no_advice"
"""Counted beside the gates: a comment that says nothing of what should be done."""
BLANKED: Final = "secret"
"""Likewise: a comment that holds a secret, which with a placeholder in its place teaches nothing."""


@dataclass(slots=True)
class Taken:
    """What became of it."""

    lessons: list[Lesson] = field(default_factory=list)
    """Each text once, none that was known."""
    num_known: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    """Hints by "accepted", or by the gate that refused them."""
    num_without_calls: int = 0
    """Transcripts in which no call of a tool was read."""


async def lessons_from(
    evidence: Evidence,
    *,
    scope: str,
    state: LessonState,
    known: Sequence[Lesson] = (),
    redactor: Redactor | None = None,
) -> Taken:
    """The lessons in it; what `known` says already is counted and left out. `redactor` has the run's rules.

    Those of transcripts begin in `state`: they passed the gates for text that nobody vouches for. Those of comments are
    proposed, whatever the run approves by itself: a comment may send anywhere, and who wrote it is not known.
    """
    taken = Taken()
    redactor = redactor or Redactor()
    for number, transcript in enumerate(evidence.transcripts):
        heard, offered = list(transcript.messages), list(transcript.tools)
        taken.num_without_calls += not num_calls(heard)
        # Later a secret may come without what gave it away.
        secrets = redactor.secrets([heard, offered])
        messages, _ = redactor.messages(heard, known=secrets)
        tools, _ = redactor.tree(offered, known=secrets)
        steps = list(_steps(messages, tools, scope, f"import-{number}"))
        for hint, (turn, next_state) in await _hints(steps, taken.outcomes):
            lesson = lesson_of(NewHint(signal=0, hint=hint, turn=turn, next_state=next_state), state)
            # Without a request it would stand for all of them: somebody is to read that first.
            first = lesson if lesson.situation else replace(lesson, state=LessonState.PROPOSED)
            _add(taken, first, turn, known)
    for comment in evidence.comments:
        secrets = redactor.secrets([comment.request, comment.text])
        text, spans = redactor.text(comment.text, known=secrets)
        if spans:
            taken.outcomes[BLANKED] += 1
            continue
        advice = _advice(text, taken.outcomes)
        if advice is not None:
            said = {"role": "user", "content": redactor.text(comment.request, known=secrets)[0]}
            turn = _turn("comment", (said,) if comment.request else (), (), scope, None, Reply(text=""))
            _add(
                taken,
                lesson_of(NewHint(signal=0, hint=advice, turn=turn, next_state=None), LessonState.PROPOSED),
                turn,
                known,
            )
    return taken


def _add(taken: Taken, lesson: Lesson, turn: Turn, known: Sequence[Lesson]) -> None:
    if merged_into(lesson, (*known, *taken.lessons)) is not None:
        taken.num_known += 1
        return
    probe = None
    if lesson.probe is not None and turn.messages:
        situation = {"messages": list(turn.messages), "tools": list(turn.tools)}
        probe = situation | {"held_out": True, "names": lesson.probe["names"]}
    taken.lessons.append(replace(lesson, origin="import", turn_ids=(), probe=probe))


def _advice(text: str, outcomes: Counter[str]) -> str | None:
    """The hint in a comment, past the gates."""
    said = wish(" ".join(text.split()))
    if said is None:
        outcomes[NO_ADVICE] += 1
        return None
    # It waits for somebody to approve it; what hides something from that reader is refused all the same.
    passage = admit([Candidate(text=said, origin="correction", trusted=True)], Case())
    outcomes[passage.refused[0].gate if passage.refused else ACCEPTED] += 1
    return as_hint(passage.accepted[0]) if passage.accepted else None


class _Steps:
    """The turns of one transcript in the place of a log, for the loop that judges live turns."""

    def __init__(self, steps: Sequence[tuple[Turn, NextState]]) -> None:
        self._steps = {turn.id: (turn, state) for turn, state in steps}
        self.signals: list[Signal] = []

    async def answered(self, timeout_s: float, /) -> None:
        raise AssertionError("the steps are there from the beginning")

    async def unjudged(self, limit: int, besides: Collection[str], /) -> list[tuple[Turn, NextState]]:
        del limit
        return [step for turn_id, step in self._steps.items() if turn_id not in besides]

    async def mark_judged(
        self, turn_id: str, outcome: str, detail: str = "", signals: Sequence[Signal] = (), /
    ) -> None:
        self.signals += signals
        del turn_id, outcome, detail

    async def turn(self, turn_id: str, /) -> Turn | None:
        return self._steps[turn_id][0]

    def step(self, turn_id: str) -> tuple[Turn, NextState]:
        return self._steps[turn_id]


async def _hints(
    steps: Sequence[tuple[Turn, NextState]], outcomes: Counter[str]
) -> list[tuple[str, tuple[Turn, NextState]]]:
    log = _Steps(steps)

    def count(outcome: str) -> None:
        outcomes[outcome] += outcome != OFFERED  # nobody measures what is no turn

    await SignalLoop(log, RuleJudge(), counted=count).step()
    return [(signal.hint, log.step(signal.turn_id)) for signal in log.signals if signal.hint]


def _steps(
    messages: Sequence[JSON], tools: Sequence[JSON], scope: str, name: str
) -> Iterator[tuple[Turn, NextState]]:
    """The assistant's turns that something followed."""
    at = [index for index, message in enumerate(messages) if message.get("role") == "assistant"]
    parent = None
    for index, end in pairwise((*at, len(messages))):
        reply = Reply(text=message_text(messages[index]), tool_calls=_calls(messages[index]))
        turn = _turn(f"{name}-{index}", tuple(messages[:index]), tuple(tools), scope, parent, reply)
        parent = turn.id
        if end > index + 1:
            followed = tuple(messages[index + 1 : end])
            yield turn, NextState(turn_id=turn.id, messages=followed, matched_by=MatchedBy.HISTORY)


def _calls(message: JSON) -> tuple[ToolCall, ...]:
    found = []
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        arguments = function.get("arguments", "")
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        found.append(ToolCall(id=str(call.get("id", "")), name=str(function.get("name", "")), arguments=text))
    return tuple(found)


def _turn(
    name: str,
    messages: tuple[JSON, ...],
    tools: tuple[JSON, ...],
    scope: str,
    parent: str | None,
    reply: Reply,
) -> Turn:
    """A turn as the judge sees one; it holds no ids, and no log ever holds it."""
    return Turn(
        id=name,
        request_id=name,
        session="import",
        scope=scope,
        parent=parent,
        matched_by=MatchedBy.HISTORY,
        kind=TurnKind.MAIN,
        kind_reason="imported",
        purpose=Purpose.TRAIN,
        arm=Arm.LEARNING,
        task_key="",
        messages=messages,
        tools=tools,
        prompt_ids=(),
        prompt_built_by="imported",
        completion=NOTHING,
        reply=reply,
        sampling=Sampling(),
        policy="",
    )
