"""Gates between a candidate and a hint: length, leak, injection, agreement. What is refused is counted by gate.

    candidates -> length -> leak -> agreement -> injection -> accepted, quoted where nobody vouches for them

A hint is later shown to a teacher as privileged context and is trained into the weights, so text that a tool printed or
a page showed is data and never an order. `understood` therefore asks what a text is about, not only which words it has:
text from a tool may speak of the action that failed and offer something in its place. What else it says is left out,
the gap is shown, and why is recorded (`Passage.shortened`).

A name cannot be judged: "cat: not found; use NAME instead" is accepted for any NAME that hides nothing. What a false
one can do is bounded later, by trust and by the share of an update that one source may have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from agentrl.signals.candidates import Candidate, Origin, without_reminders
from agentrl.signals.hints import MAX_HINT_CHARS, MIN_HINT_CHARS
from agentrl.signals.outputs import MAX_READ_CHARS
from agentrl.text.action_words import action_words
from agentrl.text.content import message_text
from agentrl.text.injection import conceals, feigns, hides, shown, understood
from agentrl.text.quoting import ATTEMPTS, JUDGE, SOMEBODY, TOOL, quoted
from agentrl.types import NextState, Turn

MIN_ANSWER_CHARS = 4
"""A shorter answer ("7", "yes") stands in texts by chance."""
MAX_REASON = 300
"""Characters of why something was left out."""
_SPEAKERS: dict[Origin, str] = {"judge": JUDGE, "later_success": ATTEMPTS, "correction": SOMEBODY}
"""Whose words an untrusted candidate is, where it is not what a tool printed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a candidate is judged against."""

    words: frozenset[str] = frozenset()
    """The failed action and its task, as `action_words` gives them."""
    source: str = ""
    """The end of what the tools answered, in which a candidate may have stood."""
    beside: str = ""
    """The same of the users' messages that came along: they may hold what a tool has read."""
    answer: str | None = None
    """The literal answer, where a hint must not give it away; None where it may."""
    reward: float | None = None
    votes: tuple[float, ...] = ()
    """Of the judge; fewer than two are no vote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a gate says of one candidate."""

    accepted: bool
    reason: str = ""
    """Why not, in a few words."""
    text: str | None = None
    """What of the candidate is accepted, where that is not all of it."""
    left_out: str = ""
    """Why the rest is not, in a few words."""


Gate = Callable[[Candidate, Case], Verdict]
PASSED = Verdict(accepted=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A candidate that a gate turned down, or of which it left something out."""

    candidate: Candidate
    gate: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """Which candidates came through."""

    accepted: tuple[Candidate, ...] = ()
    refused: tuple[Refused, ...] = ()
    shortened: tuple[Refused, ...] = ()
    """Those of which a part alone was accepted, each whole as it was, with what is wrong with the rest."""
    by_gate: Counter[str] = field(default_factory=Counter)
    """Refusals by the first gate that refused."""


def case_of(
    turn: Turn, state: NextState | None = None, *, reward: float | None = None, votes: Sequence[float] = ()
) -> Case:
    """The case of a turn's hints as they are made; the answer is known to recipes alone."""
    messages = () if state is None else state.messages
    tools, users = (
        [message_text(message) for message in messages if message.get("role") == role]
        for role in ("tool", "user")
    )
    return Case(
        words=action_words(turn),
        source=_ends(tools),
        beside=_ends(map(without_reminders, users)) if tools else "",
        reward=reward,
        votes=tuple(votes),
    )


def _ends(texts: Iterable[str]) -> str:
    return "\n".join(text[-MAX_READ_CHARS:] for text in texts)


def length(candidate: Candidate, case: Case) -> Verdict:
    """Neither a fragment nor a page."""
    del case
    num_chars = len(candidate.text.strip())
    if MIN_HINT_CHARS <= num_chars <= MAX_HINT_CHARS:
        return PASSED
    return Verdict(accepted=False, reason=f"{num_chars} characters")


def leak(candidate: Candidate, case: Case) -> Verdict:
    """The literal answer stands in the text, whatever the case and spacing."""
    answer = " ".join((case.answer or "").casefold().split())
    if len(answer) < MIN_ANSWER_CHARS or answer not in " ".join(candidate.text.casefold().split()):
        return PASSED
    return Verdict(accepted=False, reason="holds the answer")


def agreement(candidate: Candidate, case: Case) -> Verdict:
    """More than half of the votes have the sign of the judgement that the hint goes with."""
    del candidate
    if case.reward is None or len(case.votes) < 2:
        return PASSED
    num_agreeing = sum(_sign(vote) == _sign(case.reward) for vote in case.votes)
    if 2 * num_agreeing > len(case.votes):
        return PASSED
    return Verdict(accepted=False, reason=f"{num_agreeing} of {len(case.votes)} votes agree")


def injection(candidate: Candidate, case: Case) -> Verdict:
    """Nobody's text may hide anything; of text that no user wrote what speaks of the failed action is accepted, where
    that still offers something or tells of a fault."""
    text = shown(candidate.text)
    fault = hides(text)
    source = case.source if candidate.origin == "error_text" else f"{case.source}\n{case.beside}"
    if fault is None and not candidate.trusted and feigns(source):
        fault = "stands in a feigned conversation"
    if fault is None and not candidate.trusted and conceals(source):
        fault = "stands beside hidden characters"
    if fault is not None:
        return Verdict(accepted=False, reason=fault)
    passed = PASSED if text == candidate.text else Verdict(accepted=True, text=text)
    if candidate.trusted:
        return passed
    found = understood(text, case.words)
    if not found.faults:
        return passed
    faults = "; ".join(dict.fromkeys(found.faults))[:MAX_REASON]
    if not found.tells or len(found.text) < MIN_HINT_CHARS:
        return Verdict(accepted=False, reason=faults)
    return Verdict(accepted=True, text=found.text, left_out=faults)


GATES: dict[str, Gate] = {
    "length": length,
    "leak": leak,
    "agreement": agreement,
    "injection": injection,
}


def asked(case: Case) -> list[str]:
    """The gates that have something to ask of a candidate: a leak where the answer is known, which as hints are made
    it is not (the learner asks where a recipe forbids it), agreement where there are votes."""
    idle = {"leak": case.answer is None, "agreement": case.reward is None or len(case.votes) < 2}
    return [name for name in GATES if not idle.get(name, False)]


def admit(candidates: Iterable[Candidate], case: Case) -> Passage:
    """The candidates that pass every gate, in their order; of equal texts the first."""
    accepted: dict[str, Candidate] = {}
    refused: list[Refused] = []
    shortened: list[Refused] = []
    for candidate in candidates:
        passed = candidate
        cuts: list[Refused] = []
        for name, gate in GATES.items():
            verdict = gate(passed, case)
            if not verdict.accepted:
                refused.append(Refused(candidate=candidate, gate=name, reason=verdict.reason))
                break
            if verdict.text is not None:
                passed = replace(passed, text=verdict.text)
            if verdict.left_out:
                cuts.append(Refused(candidate=candidate, gate=name, reason=verdict.left_out))
        else:
            if passed.text.strip() not in accepted:
                accepted[passed.text.strip()] = passed
                shortened += cuts
    return Passage(
        accepted=tuple(accepted.values()),
        refused=tuple(refused),
        shortened=tuple(shortened),
        by_gate=Counter(item.gate for item in refused),
    )


def as_hint(candidate: Candidate) -> str:
    """The text that a teacher is shown: a trusted one as it stands; of any other what was said, and by whom."""
    if candidate.trusted:
        return candidate.text.strip()
    return quoted(candidate.text, _SPEAKERS.get(candidate.origin, TOOL))


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
