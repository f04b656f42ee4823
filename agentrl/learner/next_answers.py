"""What conversations were answered once a turn had been told what to do instead: for the transform `next_answer`.

In such a conversation the hint stands as the tool or the user gave it, so the answer behind it is what the policy
itself does with the hint in view, sampled and recorded already. What a judge alone knows, or feedback that came later,
stands in no conversation: the answer behind it was given without. A step records whose answers it was lent, with the
turns that it was made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from agentrl.learner.held_out import is_held_out
from agentrl.signals.candidates import is_reminder, is_said_later, used
from agentrl.signals.lessons import names_of, stands_in
from agentrl.store.learning_log import LearningLog
from agentrl.teacher.contexts import hint_of
from agentrl.text.content import message_text
from agentrl.text.quoting import unquoted
from agentrl.types import TrainingSample, Turn

if TYPE_CHECKING:
    from agentrl.learner.build import Claim

SOURCE = "next_answer"
"""Of the samples."""


def next_answers(log: LearningLog, claims: Sequence[Claim]) -> dict[str, Turn]:
    """By turn id the next turn of each claim with a hint of its own, where there is one that had read the hint, may be
    trained and was not itself corrected. Of a call that a user spoke of once its request was closed, the call that he
    was answered with."""
    told: dict[str, tuple[Turn, str]] = {}
    told_later: dict[str, tuple[Turn, str]] = {}
    for claim in claims:
        hint = hint_of(claim.signals)
        if hint is not None:
            kind = told_later if is_said_later(hint, claim.signals) else told
            kind[claim.turn.id] = (claim.turn, hint)
    nearest = log.next_turns(list(told)).items()
    found = {turn_id: turn for turn_id, turn in nearest if has_read(turn, *told[turn_id])}
    for turn_id, (turn, hint) in told_later.items():
        later = log.later_turns(turn_id)
        answers = (one for one in later if is_reopened(one, turn, hint))
        if (answer := next(answers, None)) is not None:
            found[turn_id] = answer
    return {turn_id: turn for turn_id, turn in found.items() if not is_held_out(turn.id)}


def is_reopened(turn: Turn, told: Turn, hint: str) -> bool:
    """Whether a turn answers a hint right away, the first words of a user since another turn and his only ones, by a
    call of what the hint names: what he says besides is another request."""
    since = [message for message in turn.messages[len(told.messages) :] if not is_reminder(message)]
    users = [message for message in since if message.get("role") == "user"]
    if len(users) != 1 or since[-1] is not users[0]:
        return False
    if _plain(message_text(users[0])) != _plain(unquoted(hint)):
        return False
    done = {word for call in turn.reply.tool_calls for word in used(call)}
    return any(name.lower() in done for name in names_of(hint, told))


def has_read(turn: Turn, told: Turn, hint: str) -> bool:
    """Whether a hint stands in what a user or a tool said between two turns of a conversation: word by word, or what it
    names as right, for a judge has words of its own."""
    since = turn.messages[len(told.messages) :] or turn.messages  # a client may have cut its history
    texts = [_plain(message_text(message)) for message in since if message.get("role") in ("user", "tool")]
    words, names = _plain(unquoted(hint)), names_of(hint, told)
    return any((words and words in text) or any(stands_in(name, text) for name in names) for text in texts)


def lent_to(trained: Iterable[TrainingSample], lent: Mapping[str, str]) -> list[str]:
    """The turns whose answers were trained on the prompts of others, each once.

    Args:
        trained: samples of a step.
        lent: by turn whose answer was built for its prompt.
    """
    turn_ids = [turn_id for sample in trained if sample.source == SOURCE for turn_id in sample.turn_ids]
    return list(dict.fromkeys(lent[turn_id] for turn_id in turn_ids if turn_id in lent))


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
