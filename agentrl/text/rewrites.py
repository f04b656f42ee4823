"""Did a person write a reply of ours anew, or did the client only send it back in another form?

Clients trim, cut out, re-format and mark what they send back, and none of that is a judgement. A rewrite is told by its
words alone: some of them must be new, whatever their case, form in Unicode, markup and list numbers.

Who only takes words away is heard where plain words are gone from inside a line, whose two ends stand, and the client
has handed back what it was told so far. An end that is gone may have been cut by a limit or never spoken, a beginning
dropped by a reader that wants the answer alone, whole lines, links and brackets by one that saves room. Who only puts
words before or behind the whole reply cannot be told from a client that adds a name, a footer, the time, or that the
reply was stopped.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence

from agentrl.text.canonical import argument_value, content_text
from agentrl.text.client_forms import CUT_WORDS
from agentrl.text.messages import split_reasoning
from agentrl.types import JSON, FinishReason, Turn

_WORD = re.compile(r"[^\W_]+")
_LINK = re.compile(r"\[([^\[\]]*)\]\([^()\s]*\)")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_FENCE = re.compile(r"(?m)(?:```|~~~)[\w+.-]*+[ \t]*+$")
_NUMBER = re.compile(r"(?m)^(?:[^\w\n]|_)*+\d{1,3}[.)][*_]*+\s")
"""Of a list's item, with the marks around it."""
_IN_BRACKETS = re.compile(r"\[[^\[\]]*\]|\A\s*\([^()]*\)\s*\Z")
"""Notes of a client: "[4,000 characters left out]", a citation's number, or a text that is nothing but a remark."""
_ELLIPSIS = re.compile(r"(?:\b\w++\s*+)?(?:…|\.{3,})(?:\s*\w+)?")
"""With the words beside it, which it may have cut."""
_PLAIN = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*[,;:]?")
"""A word as it stands in a sentence, no number, address or mark-up."""
_CUT = re.compile(rf"(?i)\b(?:{CUT_WORDS})\b")


def rewritten(turn: Turn, message: JSON, *, is_faithful: bool = False) -> str | None:
    """The text that somebody put in the place of a turn's reply; None where the client may have done it by itself.

    Args:
        turn: with its reply as the client was told it.
        message: the assistant message that stands in its place; redacted as the turn is.
        is_faithful: the client is known to hand back what it was told.
    """
    told, now = turn.reply.text.strip(), said_text(message)
    if turn.reply.tool_calls or message.get("tool_calls"):
        return None  # of calls see changed_calls.py
    if is_faithful and _is_crossed_out(told, now):
        return now
    kept = _IN_BRACKETS.sub(" ", _LINK.sub(r"\1", _without_stop(now, turn.sampling.stop)))
    old, new = _words(_LINK.sub(r"\1", told)), _words(_ELLIPSIS.sub(" ", kept))
    if not old or not new or _left_out(old, new) or argument_value(told) == argument_value(now):
        return None
    for words in (_words(_LINK.sub(r"\1", now)), _words(kept)):
        if "".join(words) == "".join(old) or f" {' '.join(old)} " in f" {' '.join(words)} ":
            return None  # another form, or only more before and behind it
        if turn.completion.finish_reason is FinishReason.LENGTH and " ".join(words).startswith(" ".join(old)):
            return None  # it was cut by a limit, in a word perhaps, and filled up since
    if _CUT.search(now) and not _CUT.search(told):
        return None
    return now


def _is_crossed_out(told: str, now: str) -> bool:
    """Whether only plain words inside the lines are gone, and some are."""
    old, new = told.splitlines(), now.splitlines()
    if len(old) != len(new):
        return False
    changed = [
        (before.split(), after.split()) for before, after in zip(old, new, strict=True) if before != after
    ]
    return any(before != after for before, after in changed) and all(map(_lost_words, changed))


def _lost_words(line: tuple[list[str], list[str]]) -> bool:
    """Whether a line lost words between its first and its last one, and nothing but words."""
    before, after = line
    if before == after:
        return True
    if len(after) < 2 or before[0] != after[0] or before[-1] != after[-1]:
        return False
    kept = 0
    lost = []
    for word in before:
        if kept < len(after) and word == after[kept]:
            kept += 1
        else:
            lost.append(word)
    return kept == len(after) and all(map(_PLAIN.fullmatch, lost))


def said_text(message: JSON) -> str:
    """The text of an assistant message without its reasoning."""
    return split_reasoning({}, content_text(message.get("content")))[1].strip()


def _words(text: str) -> list[str]:
    """The words in the one form that they share with whatever a client makes of them."""
    text = unicodedata.normalize("NFKC", html.unescape(_TAG.sub(" ", text))).casefold()
    text = "".join(char for char in text if unicodedata.category(char) != "Cf")
    text = _NUMBER.sub(" ", _FENCE.sub(" ", unicodedata.normalize("NFKC", text)))
    return _WORD.findall(text)


def _left_out(old: Sequence[str], new: Sequence[str]) -> bool:
    """Whether every new word stands in the old ones, in this order; of the last one the beginning will do."""
    rest = iter(old)
    return all(word in rest for word in new[:-1]) and any(word.startswith(new[-1]) for word in rest)


def _without_stop(text: str, stop: Sequence[str]) -> str:
    """A client may put the stop string back that it was spared."""
    return next(
        (text.removesuffix(end.strip()) for end in stop if end.strip() and text.endswith(end.strip())), text
    )
