"""From a model's answers to one judgement: each answer is a vote, read strictly; together they agree or abstain.

An answer that cannot be read is no vote. A vote that contradicts itself, or claims a success without words of the next
state that show it, counts as an abstention: it takes part in the agreement and has no reward. A hint of what tools or
users said needs such words as well: who quotes what nobody wrote has not read it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from agentrl.config import explain
from agentrl.errors import JudgeError
from agentrl.signals.judge import Judgement
from agentrl.signals.judge_prompt import FAULTS, KINDS, MAX_HINT_CHARS, MAX_QUOTE_CHARS, plain

MIN_QUOTE_CHARS: Final = 2
MAX_SHOWN: Final = 200
"""Characters of an unreadable answer that are shown."""
_SUCCESS: Final = frozenset(("progress", "praise", "new_task"))
_FAILURE: Final = frozenset(("correction", "error", "gamed", "regenerated", "edited", "new_task"))
_NOTHING: Final = frozenset(("infrastructure", "no_error", "none"))
_HINTED: Final = frozenset(("correction", "error", "gamed"))
"""Kinds whose hint rests on words that followed."""
_HINTED_UNSAID: Final = frozenset(("regenerated", "edited"))
"""Kinds in which another answer, and no word about the first one, is what followed."""
_FENCE = re.compile(r"\A```(?:json)?[ \t]*\n(.*)\n[ \t]*```\Z", re.DOTALL)
_THINKING = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_EDGES: Final = " \t\n\"'`.…“”‘’"


def _whole(value: Any) -> Any:
    """1.0 and "1" as some models write them; true is no number."""
    if isinstance(value, bool):
        return "a truth value"
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return int(value) if isinstance(value, str) and value.strip() in ("-1", "0", "1", "+1") else value


class Answer(BaseModel):
    """What a model is to answer; fields of its own are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    kind: str
    fault: str
    reward: Annotated[Literal[-1, 0, 1] | None, BeforeValidator(_whole)]
    hint: str | None = Field(default=None)
    evidence: str | None = Field(default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One answer, after what it may not say was taken out of it."""

    kind: str
    fault: str
    reward: int | None
    hint: str | None = None
    evidence: str = ""
    contradicts: bool = False
    """Whether the answer gave a reward that its own words do not bear."""
    unfounded: bool = False
    """Whether it gave a hint without words that followed."""


def read_json(text: str) -> Any:
    """The JSON of a model's answer, also behind its thoughts or in a fence. Raises ValueError where there is none."""
    text = _THINKING.sub("", text).strip()
    fenced = _FENCE.match(text)
    return json.loads(fenced[1] if fenced else text)


def read_vote(text: str, next_texts: Collection[str]) -> Vote:
    """One answer as a vote.

    Args:
        text: the answer.
        next_texts: of the messages that followed the turn, in which evidence must stand.

    Raises:
        JudgeError: it is no answer to the question.
    """
    try:
        data = read_json(text)
    except (ValueError, RecursionError) as error:
        raise JudgeError(f"the answer is not JSON: {text.strip()[:MAX_SHOWN]!r}") from error
    try:
        answer = Answer.model_validate(data)
    except ValidationError as error:
        raise JudgeError(f"the answer is no verdict: {explain(error)}"[: 2 * MAX_SHOWN]) from error
    if answer.kind not in KINDS or answer.fault not in FAULTS:
        raise JudgeError(f"the answer has kind {answer.kind[:40]!r} and fault {answer.fault[:40]!r}")
    quote = (answer.evidence or "").strip()[:MAX_QUOTE_CHARS]
    is_shown = is_quote(quote, next_texts)
    reward = borne(answer, is_shown=is_shown)
    hint = " ".join((answer.hint or "").split())
    founded = answer.kind in _HINTED_UNSAID or (answer.kind in _HINTED and is_shown)
    due = founded and answer.fault != "infrastructure" and reward in (-1, 0)
    return Vote(
        kind=answer.kind,
        fault=answer.fault,
        reward=reward,
        hint=hint if hint and due and len(hint) <= MAX_HINT_CHARS else None,
        evidence=quote,
        contradicts=reward != answer.reward,
        unfounded=bool(hint) and answer.kind in _HINTED and not is_shown,
    )


def borne(answer: Answer, *, is_shown: bool) -> int | None:
    """The reward that the rest of an answer bears.

    None for a failure of the infrastructure, for the mere absence of an error, for a new task and for a success
    without words of the next state that show it, and where kind and reward say the opposite.
    """
    if answer.reward is None or answer.fault == "infrastructure" or answer.kind in _NOTHING:
        return None
    if answer.kind == "new_task" and not is_shown:
        return None
    if answer.reward == 1:
        return 1 if answer.kind in _SUCCESS and is_shown else None
    if answer.reward == -1:
        return -1 if answer.kind in _FAILURE else None
    return 0


def is_quote(quote: str, texts: Collection[str]) -> bool:
    """Whether words stand in one of the texts, whatever the case, the blanks and the marks around them."""
    words = _folded(quote).strip(_EDGES)
    return len(words) >= MIN_QUOTE_CHARS and any(words in _folded(plain(text)) for text in texts)


def aggregated(votes: Sequence[Vote], *, num_lost: int, min_agreement: float) -> Judgement:
    """One judgement of all votes: the reward that most of them give, where enough agree on it.

    It is not the mean: of [0, 0, 1] that would be 1/3, a reward for what most votes called neutral, and of no class
    that anybody's agreement, or its calibration, was measured on. How sure the votes are is told by the agreement.

    Args:
        votes: those that could be read, at least one.
        num_lost: answers that could not be read.
        min_agreement: least share of the readable votes that are of one class (-1, 0, 1 or nothing).
    """
    classes = Counter(vote.reward for vote in votes).most_common()
    (winner, number), ties = classes[0], len(classes) > 1 and classes[0][1] == classes[1][1]
    agreement = number / len(votes)
    rewards = tuple(float(vote.reward) for vote in votes if vote.reward is not None)
    winning = [vote for vote in votes if vote.reward == winner]
    kind = Counter(vote.kind for vote in winning).most_common(1)[0][0]
    said = next((vote for vote in winning if vote.kind == kind and vote.evidence), winning[0])
    lost = f", {num_lost} unreadable" if num_lost else ""
    evidence = f"{kind}; fault: {said.fault}; {number} of {len(votes)} votes agree{lost}"
    evidence += f': "{said.evidence}"' if said.evidence else ""
    if winner is None or ties or agreement < min_agreement:
        found = Judgement(votes=rewards, evidence=evidence, agreement=agreement)
        return found if winner is None and not ties else _undecided(found, votes)
    return Judgement(
        reward=float(winner),
        hint=_hint(winning),
        votes=rewards,
        evidence=evidence,
        agreement=agreement,
    )


def _undecided(found: Judgement, votes: Sequence[Vote]) -> Judgement:
    each = ", ".join("nothing" if vote.reward is None else f"{vote.reward:+d}" for vote in votes)
    return Judgement(votes=found.votes, evidence=f"the votes disagree: {each}", agreement=found.agreement)


def _hint(votes: Sequence[Vote]) -> str | None:
    """The hint that most of the votes give; of as many the shortest."""
    given = Counter(vote.hint for vote in votes if vote.hint)
    return min(given, key=lambda text: (-given[text], len(text)), default=None)


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()
