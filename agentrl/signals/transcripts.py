"""Lessons from text evidence: transcripts of agents that are served elsewhere, review comments, lists of rules.

    transcript ─> turns and next states ─rules─> hints ─gates─> lessons      as from live turns, by the same loop
    comment    ─> what it says to do (`advice`)  ─gates─> lessons

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

from agentrl.signals.advice import advice, why_none
from agentrl.signals.candidates import Candidate
from agentrl.signals.dialects import num_calls
from agentrl.signals.evidence import Comment, Evidence
from agentrl.signals.gates import Case, Refused, admit, as_hint
from agentrl.signals.hints import directive
from agentrl.signals.lessons import lesson_of, merged_into
from agentrl.signals.loop import ACCEPTED, OFFERED, SignalLoop
from agentrl.signals.outputs import failed, text_of
from agentrl.signals.rules import RuleJudge
from agentrl.signals.suspicion import suspicious
from agentrl.store.lesson_rows import NewHint
from agentrl.text.content import message_text
from agentrl.text.observations import as_heard
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
NO_CORRECTION: Final = "read as no correction"
"""Why a user's words behind an answer became none: they neither correct it nor approve of it, as far as is read."""
ONLY_DENIES: Final = "a correction that does not say what should have been"
REST: Final = "too long for one lesson: all but the sentences that say what to do"
MAX_WORDS_CHARS: Final = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """What became no lesson."""

    where: str
    """Line and file."""
    reason: str
    text: str
    """The first words of it; none of a comment that holds a secret."""


@dataclass(slots=True)
class Taken:
    """What became of it."""

    lessons: list[Lesson] = field(default_factory=list)
    """Each text once, none that was known."""
    dropped: list[Dropped] = field(default_factory=list)
    """In the order of the files and of their lines; what was known is not among it."""
    num_known: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    """Hints by "accepted", or by the gate that refused them."""
    num_without_calls: int = 0
    """Transcripts in which no call of a tool was read."""
    num_no_correction: int = 0
    """Users' messages behind an answer that were read as neither a correction nor an approval; each is dropped."""


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
        log = _Steps(list(_steps(messages, tools, scope, f"import-{number}")))
        for hint, (turn, next_state) in await _hints(log, taken.outcomes):
            lesson = lesson_of(NewHint(signal=0, hint=hint, turn=turn, next_state=next_state), state)
            # Without a request it would stand for all of them: somebody is to read that first, and what is marked.
            is_plain = bool(lesson.situation) and suspicious(hint) is None
            first = lesson if is_plain else replace(lesson, state=LessonState.PROPOSED)
            _add(taken, first, turn, known, transcript.where)
        taken.dropped += [_dropped(transcript.where, why, text) for why, text in log.dropped]
        taken.num_no_correction += sum(why == NO_CORRECTION for why, _ in log.dropped)
    for comment in evidence.comments:
        secrets = redactor.secrets([comment.request, comment.text])
        text, spans = redactor.text(comment.text, known=secrets)
        if spans:
            taken.outcomes[BLANKED] += 1
            taken.dropped.append(_dropped(comment.where, "holds a secret", ""))
            continue
        said = {"role": "user", "content": redactor.text(comment.request, known=secrets)[0]}
        turn = _turn("comment", (said,) if comment.request else (), (), scope, None, Reply(text=""))
        for hint in _advice(comment, " ".join(text.split()), taken):
            lesson = lesson_of(NewHint(signal=0, hint=hint, turn=turn, next_state=None), LessonState.PROPOSED)
            _add(taken, lesson, turn, known, comment.where)
    # Transcripts go first, for of equal lessons the one with a situation stays.
    places = {item.where: place for place, item in enumerate(evidence.items)}
    taken.dropped.sort(key=lambda one: places[one.where])
    return taken


def _add(taken: Taken, lesson: Lesson, turn: Turn, known: Sequence[Lesson], where: str) -> None:
    if merged_into(lesson, (*known, *taken.lessons)) is not None:
        taken.num_known += 1
        return
    probe = None
    if lesson.probe is not None and turn.messages:
        situation = {"messages": list(turn.messages), "tools": list(turn.tools)}
        probe = situation | {"held_out": True, "names": lesson.probe["names"]}
    taken.lessons.append(replace(lesson, origin="import", source=where, turn_ids=(), probe=probe))


def _advice(comment: Comment, text: str, taken: Taken) -> list[str]:
    """The hints in a comment, past the gates."""
    said = advice(text)
    if not said:
        taken.outcomes[NO_ADVICE] += 1
        taken.dropped.append(_dropped(comment.where, why_none(text), text))
    elif " ".join(said) != text:
        taken.dropped.append(_dropped(comment.where, REST, text))
    # They wait for somebody to approve them; what hides something from that reader is refused all the same.
    passage = admit([Candidate(text=one, origin="correction", trusted=True) for one in said], Case())
    for refused in passage.refused:
        taken.outcomes[refused.gate] += 1
        taken.dropped.append(_dropped(comment.where, refused.reason, refused.candidate.text))
    if passage.accepted:
        taken.outcomes[ACCEPTED] += len(passage.accepted)
    return [as_hint(candidate) for candidate in passage.accepted]


def _dropped(where: str, reason: str, text: str) -> Dropped:
    line = " ".join(text.split())
    words = line if len(line) <= MAX_WORDS_CHARS else line[: MAX_WORDS_CHARS - 1] + "…"
    return Dropped(where=where, reason=reason, text=words)


class _Steps:
    """The turns of one transcript in the place of a log, for the loop that judges live turns."""

    def __init__(self, steps: Sequence[tuple[Turn, NextState]]) -> None:
        self._steps = {turn.id: (turn, state) for turn, state in steps}
        self.signals: list[Signal] = []
        self.dropped: list[tuple[str, str]] = []
        """(why, the words) of each hint that a gate refused, of each turn that could not be judged, and of each answer
        to one that may have told what to do and was read as no hint."""

    def refused(self, refused: Refused) -> None:
        self.dropped.append((f"hint refused by {refused.gate}: {refused.reason}", refused.candidate.text))

    async def answered(self, timeout_s: float, /) -> None:
        raise AssertionError("the steps are there from the beginning")

    async def unjudged(self, limit: int, besides: Collection[str], /) -> list[tuple[Turn, NextState]]:
        del limit
        return [step for turn_id, step in self._steps.items() if turn_id not in besides]

    async def mark_judged(
        self, turn_id: str, outcome: str, detail: str = "", signals: Sequence[Signal] = (), /
    ) -> None:
        self.signals += signals
        turn, state = as_heard(*self._steps[turn_id])
        if outcome == "failed":
            self.dropped.append((f"could not be judged: {detail}", message_text(state.messages[0])))
        elif not any(signal.hint for signal in signals):
            reward = next((signal.reward for signal in signals if signal.turn_id == turn_id), None)
            self.dropped += _untold(turn, state, reward, detail)

    async def turn(self, turn_id: str, /) -> Turn | None:
        return self._steps[turn_id][0]

    def step(self, turn_id: str) -> tuple[Turn, NextState]:
        return self._steps[turn_id]


def _untold(turn: Turn, state: NextState, reward: float | None, why: str) -> list[tuple[str, str]]:
    """What of the answer to a turn became no hint, though it may have said what to do; as the judge looks at answers,
    tools before users.

    Args:
        why: the judge's words where it gave no reward, else what became of its hint.
    """
    tools, users = (
        [message_text(message) for message in state.messages if message.get("role") == role]
        for role in ("tool", "user")
    )
    if tools and turn.reply.tool_calls:
        told = [said for text in tools if failed(text) and (said := directive(text_of(text))) is not None]
        return [(why.partition(":")[0], told[0])] if told and reward is None else []
    if not users or (reward is not None and reward > 0):
        return []
    if reward is None:
        return [(NO_CORRECTION, users[0])]
    return [(ONLY_DENIES, users[0])] if reward < 0 and not why else []


async def _hints(log: _Steps, outcomes: Counter[str]) -> list[tuple[str, tuple[Turn, NextState]]]:
    def count(outcome: str) -> None:
        outcomes[outcome] += outcome != OFFERED  # nobody measures what is no turn

    await SignalLoop(log, RuleJudge(), counted=count, refused=log.refused).step()
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
