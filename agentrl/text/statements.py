"""What a clause of a program's output may be: a statement of what is, or an offer of a name.

An attack wants somebody to do something. A statement is in the third person and about things of programs; so it may be

- of words in which programs speak of failures (`KNOWN`), of words of the action, and of code, with one word that may be
  new where it tells of a failure, or
- of new words too where it tells of a failure plainly ("no such", "cannot", "invalid"), names no person, no duty, no
  condition, no deed but a denied one and nothing that attacks are after, and each new word stands where a name does.

An offer ("use X", "did you mean X", "X works") is of known words and of names.
"""

from __future__ import annotations

import re
from typing import Final

from agentrl.text.action_words import words_of
from agentrl.text.clauses import Token
from agentrl.text.dangers import command_fault
from agentrl.text.injection_words import (
    ASSETS,
    CLAIMS,
    DEEDS,
    NEVER,
    PEOPLE,
    SHOWN,
    TERMS,
    TOPICS,
)
from agentrl.text.orders import DENIALS, ORDERING, VERBS, exposes, is_denied, orders, runs, said, waives

_FAILURE = re.compile(
    r"""(?ix)
    \b(?: \w*errors? | fatal | fail(?:s|ed|ure)? | not | no | cannot | unable | invalid | illegal | missing | expected
        | denied | refused | already | mismatch(?:ed)? | \w*warning | \w*exception | bad | ambiguous | un\w+ed
        | un(?:known|met) | does | did | help | hint | tip | required | available | must | deprecated
    )\b | n't\b
    """
)
_FAULT = re.compile(
    r"""(?ix)
    \b(?: already | ambiguous | attempt\w* | bad | badly | beyond | cannot | closed | conflict\w* |
        corrupt\w* | denied | deprecated | disallowed | discontinued | duplicated? | empty | ended |
        exceed\w* | exclusive | expected | expired | failed | fails | failure | forbidden | full |
        hidden | illegal | incompatible | incomplete | inconsistent | incorrect | insufficient | invalid
        | lacks? | malformed | mismatch\w* | missing | misspelled | needs? | neither | never | no |
        non-\w+ | not | nothing | offline | omitting | only | outside | past | refus\w+ | reject\w* |
        required | requires | taken | too | trying | un(?!lock)\w+ed | un\w+able | unable | unbound |
        unclosed | undeclared | undefined | unexpected | unknown | unmatched | unreachable |
        unrecogni[sz]ed | unresolved | unsupported | unterminated | unused | violat\w+ | wrong | zero |
        out\ of | can\ only | timed\ out
    )\b | n't\b
    """
)
"""What tells of a failure plainly."""
_ADVICE: Final = frozenset(
    ("use", "try", "consider", "prefer", "mean", "meant", "instead", "replaced", "renamed", "please")
)
"""What makes a clause no statement, wherever it stands."""
_AT_HEAD: Final = _ADVICE | {
    "run", "see", "call", "type", "choose", "enter", "provide", "specify", "add", "pass", "set", "need", "needs",
}  # fmt: skip
"""What makes a clause no statement where it stands first."""
_FINITE: Final = frozenset((
    "is", "are", "was", "were", "has", "have", "had", "does", "do", "did", "cannot", "can", "could", "must",
    "should", "may", "failed", "got", "requires", "expects", "exceeds", "needs", "contains", "returned",
    "already", "violates", "follows", "depends", "refers", "returns", "takes", "lacks", "holds", "supports",
    "uses", "differs", "conflicts", "ends", "starts", "still", "exists",
))  # fmt: skip
"""Verbs of statements."""
_OBJECTS: Final = frozenset((
    "a", "an", "the", "any", "all", "every", "each", "some", "this", "these", "those", "your", "it", "them",
    "that", "which", "what", "whatever", "who", "where", "how", "to", "everything", "when", "if", "so",
))  # fmt: skip
"""What follows an order, and no bare noun."""
_LABEL = re.compile(r"(?:error|exception|failure|warning|violation)s?$")
_FAILING: Final = frozenset(
    ("error", "failed", "while", "when", "cannot", "not", "failure", "problem", "without")
)
_MEANS: Final = frozenset((
    "requires", "require", "needs", "need", "by", "is", "are", "via", ",", "recommend", "recommends",
    "means", "involves",
))  # fmt: skip
"""Behind what doing something is told of as what has to be done."""
_ERROR = re.compile(r"error|exception|^fatal$|^e$|warning$")
_LONGEST_LABEL: Final = 4
_WITHIN: Final = frozenset(("of", "in", "on", "under", "at", "with", "between", "within", "inside", "for"))
_LONGEST_SUBJECT: Final = 9
_AFTER_NOUN: Final = frozenset((
    "not", "error", "of", "in", "for", "mismatch", "missing", "expected", "required", "at", "too", "using",
    "with", "on", "within", "without", "out", "found",
))  # fmt: skip
"""What follows a noun sooner than an order."""
_PREPOSITIONS: Final = frozenset((
    "by", "in", "at", "on", "from", "to", "with", "before", "after", "for", "during", "without", ",", "and",
    "of", "as",
))  # fmt: skip
_NEAR: Final = 9
_GOT: Final = frozenset(("got", "found", "expected", "was", "is"))
_NOUN = re.compile(
    r"(?:ed|ion|ity|ment|ness|able|ible|ous|ance|ence|ship|ism|ics|ing|ors?|ers|ists?|ings|ions|ities|ments|ics|al|ive)$"
)
"""Endings of words that give no order."""
_DUTIES: Final = frozenset(("must", "should", "need", "needs", "please"))
_BEING: Final = frozenset((
    "be", "have", "match", "contain", "start", "end", "begin", "derive", "inherit", "equal", "appear",
    "come", "follow", "precede", "lie", "fit", "agree",
))  # fmt: skip
"""Behind a duty, what asks nobody to do anything."""
_STATES: Final = frozenset((
    "specified", "defined", "declared", "caught", "initialized", "consistent", "different", "present",
    "constant", "sorted", "greater", "between", "given", "written", "aligned", "broken", "provided",
    "supplied", "passed", "formatted", "named", "located", "included", "enclosed", "quoted", "escaped",
    "separated", "followed", "preceded", "terminated", "prefixed", "registered", "limited", "nested",
    "ordered", "indented", "typed", "signed", "encoded", "decoded", "opened", "closed", "configured", "called",
    "fitted", "converted", "compiled", "padded", "rounded", "scaled", "reshaped", "normalized",
))  # fmt: skip
"""What ends like something that was done, and may be demanded of a value."""
_HEADS: Final = frozenset((
    "cannot", "could", "unable", "failed", "invalid", "no", "missing", "incorrect", "wrong", "unknown",
    "can't", "couldn't", "expired", "bad", "unexpected",
))  # fmt: skip
"""What begins a statement that may be of anything: it was not done, or is not there."""
_OF_VALUES: Final = frozenset(("match", "contain", "short", "long", "weak", "characters", "incorrect"))
"""What is told of a password that was typed."""
_TRYING: Final = frozenset((
    "trying", "attempting", "going", "waiting", "having", "planning", "needing", "asking", "asked",
    "required", "need", "allowed", "expected", "supposed", "permitted", "instructed", "ordered",
    "authorized", "entitled", "invited", "needed", "wanted", "used", "forced", "obliged", "advised",
    "encouraged", "requested", "cleared", "approved",
))  # fmt: skip
"""Behind what `to` leads to a deed."""
_MAX_NEW_BESIDE: Final = 2
"""New words of a statement beside that of the fault."""
_MAX_NEW: Final = 5
"""New words of a statement."""


def states(clause: list[Token], *, of_error: bool = False, is_told: bool = False, sign: str = ".") -> bool:
    """Whether a clause only says what is.

    Args:
        of_error: whether the clause before it in its sentence names an error ("TypeError:").
        is_told: whether a fault was told before it, and nothing left out since.
        sign: what ends it.
    """
    kinds = [token.kind for token in clause]
    if "foreign" in kinds:
        return False
    if kinds == ["new"]:
        is_led = sign in ":)]" or of_error
        return clause[0].is_label or (is_led and clause[0].text not in DEEDS | NEVER | PEOPLE)
    advises = _advises(clause)
    if advises and command_fault(clause) is not None:
        return False
    if advises and not {"new", "code"}.isdisjoint(kinds):
        return False
    if demands(clause) or orders(clause) or exposes(clause):
        return False
    if "new" not in kinds:
        return not runs(clause)
    if waives(clause):
        return False
    n = kinds.index("new")
    has_failure = _FAILURE.search(said(clause[: n + 1] if _binds(clause[:n]) else clause)) is not None
    if (
        has_failure
        and kinds.count("new") == 1
        and n > 0
        and clause[n - 1].text not in ORDERING
        and not _binds(clause[:n])
        and not (clause[n - 1].text == "," and not _follows_comma(clause, n))
        and not is_deed(clause, n)
        and ((ASSETS | PEOPLE | CLAIMS).isdisjoint(words_of(clause[n].text)) or _is_missing(clause, n))
    ):
        return True
    if sign == ":" and clause[0].text in SHOWN and len(clause) <= _LONGEST_LABEL:
        return True
    if sign == ":" and len(clause) <= _LONGEST_LABEL and _LABEL.search(clause[-1].text):
        return clause[0].text not in DEEDS
    if advises:
        return False
    if of_error or tells_fault(clause) or _binds(clause):
        return _declares(clause)
    return (
        is_told
        and _subject(clause) > 0
        and kinds.count("new") <= _MAX_NEW_BESIDE
        and "code" not in kinds
        and any(token.text.isdigit() for token in clause)
        and (TOPICS | TERMS).isdisjoint(token.text for token in clause)
        and _declares(clause)
    )


def tells_fault(clause: list[Token]) -> bool:
    """Whether a clause tells plainly of a failure."""
    return _FAULT.search(said(clause)) is not None


def _binds(clause: list[Token]) -> bool:
    """Whether a duty is named."""
    return any(token.text in _DUTIES for token in clause)


def _declares(clause: list[Token]) -> bool:
    """Whether a clause of new words that tells of a failure can be nothing else."""
    if clause[0].text == ":":
        clause = clause[1:]
    if sum(token.kind == "new" and not _is_listed(clause, n) for n, token in enumerate(clause)) > _MAX_NEW:
        return False
    if 2 * sum(token.kind == "new" for token in clause) > len(clause) + 2:
        return False
    return _begins_plainly(clause) and all(
        token.kind == "own" or _may_stand(clause, n) for n, token in enumerate(clause)
    )


def _advises(clause: list[Token]) -> bool:
    """Whether a clause says what to do."""
    if any(token.text in _ADVICE and not _is_told(clause, n) for n, token in enumerate(clause)):
        return True
    if clause[0].text == "call" and clause[1:] and clause[1].text == "to":
        return False
    return clause[0].text in _AT_HEAD and not _subject(clause)


def _is_told(clause: list[Token], n: int) -> bool:
    """Whether a word of advice only tells of what is: "the use of x", "cannot use x", "mean must be positive", "got x
    instead"."""
    word, after = clause[n].text, clause[n + 1].text if n + 1 < len(clause) else ""
    before = clause[n - 1].text if n else ""
    if word == "use":
        return after == "of" or is_denied(clause, n)
    if word == "mean":
        return n == 0 and _subject(clause) > 0
    return word == "instead" and not _GOT.isdisjoint(token.text for token in clause) and before != "use"


def _subject(clause: list[Token]) -> int:
    """How many words stand before the first verb that is no order; 0 where those may be an order."""
    for n, token in enumerate(clause[:_LONGEST_SUBJECT]):
        if n and (token.text in _FINITE or token.text.endswith("n't") or _has_ended(clause, n)):
            return n
        if n and token.text in _OBJECTS and clause[n - 1].text not in _WITHIN:
            return 0
    return 0


def _is_missing(clause: list[Token], n: int) -> bool:
    """Whether a user is what is not there ("no such user")."""
    return clause[n].text == "user" and n < _LONGEST_LABEL and clause[0].text in _HEADS


def _has_ended(clause: list[Token], n: int) -> bool:
    """Whether a word says what became of what stands before it ("worker 'x' disconnected")."""
    return clause[n].text.endswith("ed") and (
        n + 1 == len(clause) or clause[n + 1].text in _PREPOSITIONS or clause[n - 1].kind in ("code", "own")
    )


def _begins_plainly(clause: list[Token]) -> bool:
    """Whether the first word gives no order."""
    first = clause[0]
    if first.kind != "new" or _NOUN.search(first.text) or _FAULT.search(first.text) or _subject(clause):
        return True
    known = next((token.text for token in clause[1:_NEAR] if token.kind == "known"), "")
    return (known in _AFTER_NOUN or tells_fault(clause[1:_NEAR])) and _OBJECTS.isdisjoint(
        token.text for token in clause[1:3]
    )


def _may_stand(clause: list[Token], n: int) -> bool:
    """Whether a word that the action does not hold may stand where it does in a statement of a failure."""
    token, before = clause[n], clause[n - 1].text if n else ""
    if token.text.removesuffix("'s") in PEOPLE:
        return (
            token.text == "user"
            and n + 1 < len(clause)
            and (clause[n + 1].kind in ("code", "own") or clause[n + 1].text.isdigit())
        )
    if (
        token.text in TERMS
        and token.text not in _DUTIES
        and before not in ("the", "first")
        and any(_is_open(after) for after in clause[n + 1 :])
    ):
        return False
    if token.text in _DUTIES:
        return _requires(clause[n + 1 :])
    if token.text in CLAIMS and before not in ("not", "cannot") and not before.endswith("n't"):
        return False
    if token.text in DEEDS and n + 1 < len(clause) and clause[n + 1].kind == "code" and n > 0:
        return is_denied(clause, n)
    if before in ("must", "should") and token.text in _BEING:
        return True
    if token.kind == "new" and before == "," and not _follows_comma(clause, n):
        return False
    if is_deed(clause, n):
        return False
    if before == "by" and token.text.endswith("ing"):
        return False
    if token.kind != "code" and not ASSETS.isdisjoint(words_of(token.text)):
        return clause[0].text in _HEADS or not _OF_VALUES.isdisjoint(other.text for other in clause)
    if before == "to" and not _is_place(clause, n):
        acts = token.kind == "new" or token.text in DEEDS or token.text in VERBS or "-" in token.text[1:]
        segment = said(clause[: n - 1]).rpartition(",")[2]
        return (
            not acts
            or _ends_head(clause, n)
            or (DENIALS.search(segment) is not None and not segment.endswith(" but"))
        )
    if token.kind == "code":
        return True
    if before == "or" and (clause[0].text in _HEADS or clause[0].text.endswith("n't")):
        return True
    if token.kind == "new" and before in ("and", "or"):
        return token.text not in DEEDS and _is_joined(clause, n)
    if token.kind == "new" and before in ORDERING and before != "to" and not _is_listed(clause, n):
        return False
    if token.text in DEEDS and n == 0:
        return bool(_subject(clause)) or (len(clause) > 1 and _FAULT.search(clause[1].text) is not None)
    return not (token.text in DEEDS and (before in ORDERING or before == ",") and before != "to")


def _ends_head(clause: list[Token], n: int) -> bool:
    """Whether a deed is what something missing was for ("invalid number of fields to skip")."""
    return n == len(clause) - 1 and clause[0].text in _HEADS


def _follows_comma(clause: list[Token], n: int) -> bool:
    """Whether a word behind a comma begins no order."""
    return _NOUN.search(clause[n].text) is not None or _is_listed(clause, n) or _subject(clause[n:]) > 0


def is_deed(clause: list[Token], n: int) -> bool:
    """Whether a word tells of doing something that neither was denied nor failed ("requires uploading the file")."""
    word, before = clause[n].text, clause[n - 1].text if n else ""
    if not word.endswith("ing") or clause[n].kind == "own" or before in _FAILING:
        return False
    stem = word[:-3]
    if not DEEDS.isdisjoint((stem, stem + "e", stem[:-1])):
        return True
    after = clause[n + 1] if n + 1 < len(clause) else Token("", "known")
    return clause[n].kind == "new" and before in _MEANS and (after.kind == "new" or after.text in _OBJECTS)


def _is_place(clause: list[Token], n: int) -> bool:
    """Whether what follows `to` is no verb: a verb follows it, or what stands before is on its way there."""
    after = clause[n + 1].text if n + 1 < len(clause) else ""
    return after in _FINITE or (
        n > 1 and clause[n - 2].text.endswith("ing") and clause[n - 2].text not in _TRYING
    )


def _is_joined(clause: list[Token], n: int) -> bool:
    """Whether a word behind `and` or `or` is one more thing, or one more deed that was denied, and begins no order."""
    after = clause[n + 1] if n + 1 < len(clause) else Token(",", "known")
    return (
        n < _subject(clause)
        or _NOUN.search(clause[n].text) is not None
        or _is_listed(clause, n)
        or after.text in _PREPOSITIONS
        or after.text in _FINITE
        or (clause[n - 1].text == "or" and (clause[0].text in _HEADS or clause[0].text.endswith("n't")))
    )


def _is_open(token: Token) -> bool:
    """Whether nobody knows what a word may say."""
    return token.kind == "new" or (token.kind == "known" and token.text in DEEDS)


def _requires(clause: list[Token]) -> bool:
    """Whether what follows a duty says what something has to be, and of what nothing has to be done."""
    rest = clause[1:] if clause and clause[0].text == "not" else clause
    if rest and rest[0].text in ("a", "an", "one", "at"):
        return True
    if not rest or rest[0].text not in _BEING or not _is_state(rest):
        return False
    second = rest[1] if len(rest) > 1 else Token("", "known")
    return second.kind != "new" or second.text.startswith("non") or second.text.endswith(("s", "er"))


def demands(clause: list[Token]) -> bool:
    """Whether something has to be done."""
    return any(
        token.text in ("must", "should") and not _is_state(clause[n + 1 :]) for n, token in enumerate(clause)
    )


def _is_state(clause: list[Token]) -> bool:
    """Whether what has to be is no deed of somebody ("be between", not "be sent")."""
    rest = [
        token.text
        for token in clause
        if token.text
        not in ("not", "also", "either", "only", "first", "now", "always", "then", "all", "both")
    ][:2]
    if rest[:1] != ["be"] or len(rest) < 2:
        return True
    return not rest[1].endswith(("ed", "en", "nt", "ut", "un")) or rest[1] in _STATES


def _is_listed(clause: list[Token], n: int) -> bool:
    """Whether a word is one of a list, alone between its signs."""
    before = clause[n - 1].text if n else ""
    after = clause[n + 1].text if n + 1 < len(clause) else ","
    return "," in (before, after) and before in (",", "of", ":", "or") and after in (",", "or", "and")


def names_error(clause: list[Token]) -> bool:
    """Whether a clause before a colon says that what follows is an error."""
    return _ERROR.search(clause[-1].text) is not None or tells_fault(clause)
