"""What a user's words say of the answer before them: that it was wrong, that it was right, or nothing.

A message is read sentence by sentence. A correction blames the author (you forgot), finds fault with the answer (it
fails, that is not it, a name that the answer used), turns it down (no, wrong, not quite), says again what was wanted
(I said, we use) or asks for it anew (shorter, please; try again). Behind the first sentence that asks for something new
nothing is read: that is another task, and it may begin with the same words ("No more of this", "Stop the server").
English only. What fits no table says nothing. `reactions` weighs what is found here: people word things anew, and the
same words may be news of a success or the next task.
"""

from __future__ import annotations

import re
from typing import Final

from agentrl.signals.phrases import any_of
from agentrl.signals.word_tables import (
    AGAIN,
    COMMON,
    COMPLIMENTS,
    CUSTOMS,
    DEEDS,
    DISMISSALS,
    DOUBTS,
    FAILURES,
    FAULTS,
    FILLERS,
    FORMS,
    GOOD,
    HEDGES,
    IT,
    LAPSES,
    LINKS,
    NEW_SUBJECTS,
    NO_FAULTS,
    ORDERS,
    PRAISE,
    REFUSALS,
    REPROACHES,
    RESERVES,
    RESTATES,
)

MAX_CHARS: Final = 1000
MAX_SENTENCES: Final = 4
MAX_FORM_WORDS: Final = 8
MAX_CONSENT_WORDS: Final = 6
MAX_CLOSING_CHARS: Final = 200
MAX_REPEATED_WORDS: Final = 4
MIN_SHARED_WORDS: Final = 2
MAX_MARKS: Final = 4


def _opening(*parts: str) -> re.Pattern[str]:
    """A pattern that a sentence begins with, behind hedges."""
    return re.compile(rf"(?i)^[\W_]*(?:{any_of(HEDGES)}\b[\s,.!:…—-]*)*(?:{'|'.join(parts)})")


_MARKS = re.compile(rf"([\W_]{{{MAX_MARKS}}})[\W_]+")
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\s)\"']+|\n+|\s+-{1,2}\s+|\s*[—–;]\s*")
_NEW = re.compile(rf"(?i)\b{any_of(NEW_SUBJECTS)}")
_ASKS = _opening(any_of(ORDERS) + r"\b")
_REPROACHES = _opening(any_of(REPROACHES) + r"\b")
_DOUBTS = _opening(any_of(DOUBTS) + r"\b")
_NO = re.compile(
    rf"""(?ix)^[\W_]*(?:(?:hm+|um+|oh|ah|well|sorry|but|wait)\b[\s,.!:…-]*)* (?:(?:no|nope|nah)\b(?!-\w)[\s,]*)+
    (?: [.!:;—-] | $ | (?<=,\s) | (?=(?:that|it|this|you|not|use)\b) | (?=i\s(?:said|meant|want|asked)\b) )
    (?!\W*{any_of(DISMISSALS)}\b)"""
)
_REFUSES = _opening(any_of(REFUSALS))
_CONTRADICTS = re.compile(r"(?i)^[\W_]*(?:but|actually),?\s(?:it|that|this|he|she|they|there|the|you|your)\b")
_NOT = rf"(?:\s(?:not|never|no)\b|n't\b|\scannot\b)(?!\s(?:(?:even|really|very|so|that)\s)?{any_of(NO_FAULTS)}\b)"
_FINDS_FAULT = _opening(
    rf"{any_of(IT)}(?:(?:\s+|(?='))(?:{any_of(LINKS)}))*(?:{_NOT}|\s+{any_of(FAULTS)}\b)",
    any_of(FAILURES) + r"\b",
)
_THE = _opening(
    rf"((?:[\w'().-]+\s){{1,6}}?)(?:(?:{any_of(LINKS)}\s+)*(?:{any_of(FAULTS)}\b|not\b|\w+n't\b)"
    r"|(?:should|must|has\sto|have\sto|needs?\sto|ought\sto)\b)"
)
_YOU = r"you(?:\s(?:just|only|still|again|also|always|even|\w+ly))*"
_BLAMES = _opening(rf"{_YOU}(?:\s|(?=')){any_of(LAPSES)}\b(?!.*\b{any_of(GOOD)}\b)")
_RETELLS = _opening(rf"{_YOU}\s{any_of(DEEDS)}\b(?!.*\b{any_of(GOOD)}\b)", any_of(CUSTOMS))
_RESTATES = _opening(any_of(RESTATES))
_AGAIN = _opening(rf"(?:(?:can|could|would)\syou\s(?:please\s)?)?{any_of(AGAIN)}\b")
_PLEASE_USE = re.compile(
    r"(?i)^\W*(?:(?:no|nope|nah|please)\W+)*use\s(?!.*\b(?:to|for)\b)(?:[\w'/.-]+\s?){1,6}\W*$"
)
_CONTRAST = re.compile(
    r"(?i)\b(?:not|instead of|rather than)\s(?:(?:the|a|an|in|on|for|by|to|from)\s)*([\w'-]{2,})"
)
_AWAITS = re.compile(
    r"(?i)\?\W*$|\bplease (?:tell|provide|share|send|give|confirm|enter|specify|upload|paste|let|choose|name)\b"
    r"|\b(?:then|and) (?:tell|show|send|give) me\b|\blet me know (?!if|whether)"
    r"|\bi(?:'ll| will)? need (?:to know|your|the|more)\b"
)
"""A reply whose end asks for something."""
_REPORTS = re.compile(
    r"(?i)\b(?:fail(?:s|ed|ing|ure)?|errors?|refused|missing|not found|no such|unreachable|timed? ?out|down|delayed"
    r"|crash(?:es|ed)|broken|stale|cannot|can't|could(?:n't| not)|(?:is|are|do|does|did|has)(?:n't| not)|no longer"
    r"|wrong|5\d\d)\b"
)
"""A reply that tells of a fault: what follows may speak of that, not of the reply."""
_RETRACTS = re.compile(
    r"(?i)\b(?:sorry|oops|whoops|apologies|my (?:bad|mistake|fault|error|typo)|i (?:was wrong|mis\w+|forgot|mixed)"
    r"|changed (?:my|our) minds?|second thoughts?|never ?mind|scratch that|undo|revert"
    r"|i (?:told|gave|sent) you (?:the|an?|my) (?:wrong|old))\b"
)
"""Who speaks so takes back what he said himself, or may."""
_SPOILS = re.compile(
    r"(?i)\b(?:wish|if only|yesterday|last (?:time|week|night)|yeah,? right|(?:sure|of course) it|for nothing"
    r"|then (?:it|the|they|again|nothing)|(?:he|she|they|my \w+|everybody|people) (?:\w+ )?(?:lov|lik|ador|prais)\w+"
    r"|i (?:just |then |had to |have )?(?:restart|reboot|reinstall|renew|replac|reset|fix|mend|switch|chang|plugg)\w*"
    r"|by itself|myself|it was (?:the|my|our)|news)\b|\.{2,}\W*$|\u2026\W*$"
    r"|\byou (?:just |only |also |now )*(?:broke|deleted|removed|lost|forgot)\b"
)
"""What makes of praise somebody else's, of another thing, bitter, or short-lived."""
_GOOD = re.compile(rf"(?i)\b(?:{any_of(GOOD)}|green|works?|pass(?:es)?|loads?|looks?)(?!\w)")
_IT_IS = re.compile(r"(?i)^[\W_]*(?:it|this|that)(?:'s|\sis)\b")
_IT_IS_NAMED = re.compile(r"^[\W_]*(?:[Ii]t|[Tt]hat)(?:'s|\sis|\swas)\s(?:\d\S*|[A-Z]\S*)[.!]*$")
_OWN = re.compile(
    r"(?i)^[\W_]*(?:(?:and|ok|okay|so|well|oh|ah|yes|yeah)\b[\s,]*)*"
    r"(?:i|i'?m|i'?ll|i'?ve|my|we|no|nope|nah|here(?:'s)?|this is|maybe)\b"
)
"""Who begins so speaks of himself, declines, or hands something over."""
_ECHO = re.compile(r"^\W*([\w'-]{3,})\?\s+\S")
_PRAISES = re.compile(rf"(?i)(?:\b|(?<=')){any_of(PRAISE)}\b")
_POLITE = re.compile(
    rf"""(?ix)^[\W_]*(?:(?:oh|ah|wow|yes|yep|haha|ok|okay|yay)\b[\s,.!]*)*
    (?: (?:thanks?|thank\syou|thx|ty|cheers)\b(?!\sin\sadvance)
      | {any_of(COMPLIMENTS)}\b(?=\s*(?:[^\w\s']|$|thanks|thank|that|this|it)) )"""
)
_THANKS_AT_END = re.compile(r"(?i)\b(?:thanks|thank you|cheers)\b[\w ]{0,12}\W*$")
_RESERVES = re.compile(rf"(?i)\b{any_of(RESERVES)}\b|n't\b")
_COMMON = re.compile(any_of(COMMON))
_FORM, _FILLER = re.compile(any_of(FORMS)), re.compile(any_of(FILLERS))
_CONSENT = re.compile(
    r"(?i)^\W*(?:yes|yep|yeah|sure|right|exactly|correct|ok|okay|go on|go ahead|please|just|thanks?)\b"
)

_SIGNS = {
    "blames": _BLAMES,
    "fault": _FINDS_FAULT,
    "retells": _RETELLS,
    "refuses": _REFUSES,
    "own": _OWN,
    "it is": _IT_IS,
    "the": _THE,
    "orders": _ASKS,
}


def corrects(text: str, *, reply: str = "", asked: str = "") -> bool:
    """Whether a user's words turn down the answer before them.

    Args:
        text: what the user said.
        reply: the answer. Where it asks for something in the end, a refusal, a wish or a fact only answers that.
        asked: the request that the reply answered.
    """
    said, text = sentences(text), _clipped(text)
    if not said or _NEW.search(text):
        return False
    is_answer = awaits(reply)
    known, given = words(reply) - words(asked), words(asked)
    is_all = not any(map(is_request, _parts(*said)))
    echo = _ECHO.match(text)
    if is_all and not is_answer and not is_kind(text) and _puts_right(said[0], known, given):
        return True
    if (echo and words(echo[1]) & known) or (not is_answer and _names_a_form(text)):
        return True
    for sentence in said:
        if _finds_fault(sentence, known, given) or (is_all and _RETELLS.match(sentence)):
            return True
        if not is_answer and _turns_down(sentence, is_all=is_all):
            return True
        if is_request(sentence):
            return False
    return False


def approves(text: str) -> bool:
    """Whether a user's words approve of the answer without a reserve, and not in mere politeness before a next task."""
    said = sentences(text)
    if not said or _RESERVES.search(said[0]):
        return False
    if praises(text):
        return True
    parts = _parts(*said)
    polite = is_kind(text) or (
        _THANKS_AT_END.search(text[-MAX_CLOSING_CHARS:]) is not None and not _OWN.match(text)
    )
    return polite and not any(is_request(part) or _RESERVES.search(part) for part in parts)


def is_kind(text: str) -> bool:
    """Whether a message begins with approval, whatever else it holds."""
    said = sentences(text)
    return bool(said) and _POLITE.match(said[0]) is not None


def praises(text: str) -> bool:
    """Whether a sentence says, without a reserve, that the answer or a part of it did what it should."""
    return any(
        _PRAISES.search(each)
        and not _RESERVES.search(each)
        and not each.endswith("?")
        and not _ASKS.match(each)
        for each in sentences(text)
    )


def signs(text: str, *, reply: str, asked: str) -> list[str]:
    """What the tables find in a message, by name, as evidence for a classifier; each table is looked up once.

    "plain" is a correction of a form that means nothing else, "full" an approval that says that the answer did it,
    "spoils" what makes praise no praise of the answer, "waits" that the answer asked for something.

    Args:
        text, reply, asked: as in `corrects`.
    """
    said = sentences(text)
    if not said:
        return []
    known, given = words(reply) - words(asked), words(asked)
    is_all, waits = not any(map(is_request, _parts(*said))), awaits(reply)
    text = _clipped(text)
    echo, turned_down = _ECHO.match(text), corrects(text, reply=reply, asked=asked)
    approved, praised, reports = approves(text), praises(text), _REPORTS.search(reply) is not None
    whole = {
        "corrects": turned_down,
        "plain": turned_down and _is_plain(text, said[0], reply),
        "approves": approved,
        "praises": praised,
        "full": approved and praised,
        "spoils": _SPOILS.search(text) is not None,
        "waits": waits,
        f"retracts {waits}": _RETRACTS.search(text),
        f"reports {waits}": reports,
        f"reports, corrects {turned_down}": reports,
        "kind": is_kind(text),
        "consents": consents(text),
        "asks": not is_all,
        "new": _NEW.search(text) is not None,
        f"puts right {is_all} {waits}": _puts_right(said[0], known, given),
        "echoes": echo is not None and bool(words(echo[1]) & known),
        "form": _names_a_form(text),
        "thanks": _THANKS_AT_END.search(text[-MAX_CLOSING_CHARS:]) is not None,
    }
    found = {name: None for name, is_there in whole.items() if is_there}
    for number, sentence in enumerate(said):
        place = f"{min(number, 1)} {waits}"
        each = {
            f"finds fault {place}": (fault := _finds_fault(sentence, known, given)),
            f"finds fault, reports {reports}": fault,
            f"turns down {place}": _turns_down(sentence, is_all=is_all),
            f"asks {place}": is_request(sentence),
            f"no {place}": _NO.match(sentence),
            "again": _asks_again(sentence),
            "contrast": any(words(word) & known for word in _CONTRAST.findall(sentence)),
            **{name: pattern.match(sentence) for name, pattern in _SIGNS.items()},
            "good": _GOOD.search(sentence),
            "reserve": _RESERVES.search(sentence),
        }
        found |= {name: None for name, is_there in each.items() if is_there}
    return list(found)


def awaits(reply: str) -> bool:
    """Whether a reply asks for something in its end."""
    return _AWAITS.search(reply[-MAX_CLOSING_CHARS:]) is not None


def consents(text: str) -> bool:
    """Whether a user's words only say that the turn may go on."""
    text = _clipped(text)
    return _CONSENT.match(text) is not None and len(text.split()) <= MAX_CONSENT_WORDS


def is_request(sentence: str) -> bool:
    """Whether a sentence asks for something new."""
    if _AGAIN.match(sentence) or any(map(_REPROACHES.match, _parts(sentence))):
        return False
    return sentence.endswith("?") or _ASKS.match(sentence) is not None


def sentences(text: str) -> list[str]:
    """The first sentences of a text."""
    parts = _SENTENCE_END.split(_clipped(text).replace("\u2019", "'"))
    return [part.strip() for part in parts if part.strip()][:MAX_SENTENCES]


def _clipped(text: str) -> str:
    """The beginning of a text, of each run of marks a few: patterns try every place in a run, from every place."""
    return _MARKS.sub(r"\1", text[:MAX_CHARS])


def words(text: str) -> frozenset[str]:
    """What a text is about: its words of three letters and more and its numbers, without the plural's ending."""
    found = re.findall(r"[\w'-]{3,}|\d+", text[: 4 * MAX_CHARS].casefold())
    return frozenset(word.rstrip("s") for word in found if not _COMMON.fullmatch(word))


def _is_plain(text: str, said: str, reply: str) -> bool:
    """Whether a correction, whose first sentence is `said`, has a form that means nothing else, whoever writes it.

    Who was asked answers, who takes back his own words blames nobody, and a fault behind news of one, or before a
    request, may be that of the world.
    """
    if _BLAMES.match(said):
        return True
    if awaits(reply) or _RETRACTS.search(text[:MAX_CHARS]):
        return False
    if _FINDS_FAULT.match(said) and not said.endswith("?"):
        asks = any(is_request(part) and not _PLEASE_USE.match(part) for part in _parts(*sentences(text)))
        return not asks and _REPORTS.search(reply) is None
    return _names_a_form(text) or _refuses(said) or _asks_again(said)


def _finds_fault(sentence: str, known: frozenset[str], given: frozenset[str]) -> bool:
    """Whether a sentence says that the answer is wrong.

    Args:
        known: the words that the answer brought in.
        given: the words of the request.
    """
    if _DOUBTS.match(sentence):
        return True
    if sentence.endswith("?"):
        return False
    if _BLAMES.match(sentence) or _FINDS_FAULT.match(sentence):
        return True
    named = _THE.match(sentence)
    if named and not _OWN.match(sentence) and words(named[1]) & (known | given):
        return True
    spoken = known | given if _IT_IS.match(sentence) else known
    return _ASKS.match(sentence) is None and any(words(word) & spoken for word in _CONTRAST.findall(sentence))


def _turns_down(sentence: str, *, is_all: bool) -> bool:
    """Whether a sentence refuses the answer, or asks for another one. `is_all`: nothing else is asked for."""
    if is_all and _CONTRADICTS.match(sentence) and not _PRAISES.search(sentence):
        return True
    return _refuses(sentence) or _asks_again(sentence)


def _refuses(sentence: str) -> bool:
    """Whether a sentence says no to the answer, or names what to use."""
    patterns = (_NO, _REFUSES, _PLEASE_USE)
    return not sentence.endswith("?") and any(pattern.match(sentence) for pattern in patterns)


def _asks_again(sentence: str) -> bool:
    """Whether a sentence asks for the same thing anew, or says once more what had been wanted."""
    return any(_AGAIN.match(part) or _RESTATES.match(part) for part in _parts(sentence))


def _puts_right(sentence: str, known: frozenset[str], given: frozenset[str]) -> bool:
    """Whether a statement tells otherwise what the answer told, or repeats of the request what it missed."""
    told = words(sentence)
    if sentence.endswith("?") or _OWN.match(sentence) or _GOOD.search(sentence) or not told:
        return False
    if len(sentence.split()) <= MAX_REPEATED_WORDS and told <= given - known:
        return True
    if _IT_IS_NAMED.match(sentence):
        return not told <= known
    return len(told & (known | given)) >= MIN_SHARED_WORDS and not told <= known | given and " " in sentence


def _names_a_form(text: str) -> bool:
    """Whether a short message says nothing but how the answer should look: "shorter, please"."""
    said = re.findall(r"[\w']+", text[:MAX_CHARS].casefold())
    return (
        len(said) <= MAX_FORM_WORDS
        and any(map(_FORM.fullmatch, said))
        and all(_FORM.fullmatch(word) or _FILLER.fullmatch(word) for word in said)
    )


def _parts(*sentences: str) -> list[str]:
    """Sentences, and what stands behind each of their commas."""
    return [part for sentence in sentences for part in (sentence, *sentence.split(", ")[1:])]
