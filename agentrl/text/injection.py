"""What a text from a tool or a page is about: the action that failed, or something else.

Two questions, both answered by structure.

- `hides`: characters that nobody sees or that look like others, terminal escapes, encoded blocks, marks of chat
  templates. Refused from anybody.
- `understood`: text that no user wrote is read clause by clause, and what is no statement of the failed action and no
  offer of a name (`agentrl.text.statements`) is left out; all offers together may bring one new name, or a list of
  them. What stays stands word for word, each gap is shown, and nothing stays whose meaning hangs on what is gone. A
  list of what orders look like has no end, a grammar of what may be said has one. What a false name may do is bounded
  later, by trust and by the share of an update that one source may have.

What is judged may be a line of any length from anybody, so every pattern takes a time linear in it: runs are bounded,
or so written that no second search begins inside a run that the first one has been through.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from agentrl.text.action_words import is_own
from agentrl.text.clauses import FIELDS, Clause, Token, clauses
from agentrl.text.offers import brought, heads_list, holds_never, lists, offer_fault, offers
from agentrl.text.orders import puts_first, said
from agentrl.text.phrases import names_alone, plainer
from agentrl.text.statements import names_error, states, tells_fault

_MARKS = re.compile(
    r"""(?imx)
    <\|[^|>]{1,40}\|> | \[/?INST\] | <</?SYS>> | <!--
    | </?(?:system|developer|assistant|user|human|tool_\w+|function\w*|invoke|parameter
        |(?:start|end)_of_\w+|s)\b[^<>]{0,40}>
    | ^[ \t]*(?:system|assistant|human|user|developer)[ \t]*:
    | ^[ \t]*\#{1,6}[ \t]*(?:system|instruction|assistant|user)\b
    | ["']role["']\s*:\s*["'](?:system|developer|assistant|user|tool)["']
    """
)
_RUN = re.compile(r"[A-Za-z0-9+]{12,}")
_LEAST_BLOB: Final = 24
_HEX = re.compile(r"\b(?:[0-9a-fA-F]{32,})\b|(?:\\x[0-9a-fA-F]{2}){3,}|(?:\\u[0-9a-fA-F]{4}){3,}")
_HEX_OF_LETTERS = re.compile(r"\b(?=\d*[a-fA-F])(?:[2-7][0-9a-fA-F]){6,}\b")
"""Twelve digits of which each pair is a plain character: of random ones less than one in 300."""
_ESCAPED = re.compile(
    r"(?i)(?:%(?:4[1-9a-f]|5[0-9a]|6[1-9a-f]|7[0-9a])|&#(?:x[46][1-9a-f]|x[57][0-9a]|6[5-9]|[78]\d|9[07-9]|1[01]\d|12[0-2]);)"
)
"""A letter in the escapes of an address or a page, which escape none."""
_SYMBOLS: Final = frozenset("™℠℡№ℓªº℃℉")
"""Signs made of letters that stand for no word."""

_MARK = r"[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe00-\ufe0f\ufe20-\ufe2f]"
_LOADED = re.compile(rf"[A-Za-z]{_MARK}|{_MARK}{{2}}")
"""A plain letter with a mark that makes no letter with it, or marks above marks."""
_OUT = re.compile(
    r"""(?ix)
    [a-z][a-z0-9+.-]{0,30}://(?![\s'"`,.;)]|$) | \bjavascript: | \bwww\. | \b\d{1,3}(?:\.\d{1,3}){3}\b
    | \S@(?:[^\s@]+|[^\s@]*@)\.\w
    | (?:\b[a-z0-9-]{1,63}|[a-z0-9-]{63})
        \.(?:com|net|org|io|example|dev|app|xyz|ru|cn|info|co|ai|site|online|top|me|test|tools|host|evil|sh)\b(?!\()
    | <\s*(?:div|span|img|script|a|iframe|p|meta)\b | \]\( | (?:^|[\s`'\"])\|\|?\s(?!\s?[-<\[('"`]) | \s&\s | &&
    | \\[xu\d](?!\w{0,3}['"])
    | (?<!\w)[`']\w[^`'"\n]{0,60};\s | \w;\w
    | \$(?!(?-i:[a-z_]\w*+|-?\d)(?!\()) | <\( | (?<![-=<\s])>\s*[~/.\w]+/ | :\(\)
    | ~/ | (?<![\w/])\.(?:env|ssh|netrc|aws|pgpass|git/|bash\w*|zsh\w*|profile)\b
    | (?<!\S)-(?=[a-z]*r)(?=[a-z]*f)[a-z]++(?![\w-])
    | (?<!\w)/dev/(?!null|std|tty|fd|pts|shm)\w
    | \|\s?(?:ba|z|da|k|c)?sh\b | \s-\w\s[/~](?!\S)
    | \bpush\ (?:\S+\ ){0,20}-f\b
    """
)
"""An address, a second command or a file of secrets."""
_COLOURS = re.compile(r"\x1b\[(?:(?!0*8(?!\d))\d{1,3};?){0,6}m|\x1b\[K|\r(?=\r{0,2}(?:\n|\Z))")
"""What gives a text a colour, and none that nobody sees."""
_SPELLED = re.compile(
    r"(?<![^\W_])[A-Za-z]([ .*_~\u00b7-])\1{0,2}[A-Za-z](?:\1{1,3}[A-Za-z]){3,}(?![^\W_])"
    r"|(?:(?<![\w.*-])[A-Za-z]([._*-])[A-Za-z](?:\2[A-Za-z]){1,8}[\s,;!]{1,3}){2}"
)
"""Letters that stand alone."""
_STRAIGHT: Final = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'})
"""Quotation marks, each as the plain one."""
_UNSEEN = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]")
"""What neither joins the letters of a script nor the parts of an emoji."""
GAP: Final = "..."
"""What stands for clauses that were left out."""
_GOES_ON: Final = frozenset((
    "mean", "meant", "available", "allowed", "expected", "exists", "run", "one", "with", "consider",
))  # fmt: skip
"""What leads on to the clause behind a colon, a question mark or the end of the line."""
_LEADS_ON: Final = frozenset(("is", "use", "try", "using", "running"))
"""What leads on to the next clause where it stands last."""
_DIRECTING: Final = frozenset(("use", "try", "run", "call", "must", "should", "please", "instead", "prefer"))
_QUESTIONS: Final = frozenset(("mean", "meant", "similar"))
"""What makes a question of an offer."""
_DEPENDS: Final = frozenset((
    "if", "unless", "when", "whenever", "once", "after", "before", "while", "until", "to", "for", "as",
    "provided",
))  # fmt: skip
"""What begins a clause that the next one rests on."""
_SETTING: Final = "offers a setting"
_LEAST_FAULT: Final = 2
"""Words of a fault that says something, whatever it is about."""
_LONGEST_CLAUSE: Final = 80
"""Words of a clause that is read; what looks back over them all would take too long in a longer one."""
_LONGEST: Final = 200
"""Characters of an address on either side of what shows it."""
_ERROR: Final = re.compile(
    r"error|invalid|missing|not_|_not|bad_|unknown|denied|fail|requir|unauth|forbid|conflict|exce|unsup|unavail|expired|limit|mismatch"
    r"|^[ymdhs%tz/:.-]{4,}$"
)
"""What a code of an error says, or the form of a date."""
_LOCAL: Final = re.compile(r"""[(\["']*(?:127\.0\.0\.1(?::\d{1,5})?|unix:///[\w./-]+?)[)\]"',.:;!?]*\s?""")
"""An address of this machine."""
_SCHEME: Final = re.compile(r"^[^\w/]*[a-z]{1,8}://", re.IGNORECASE)
_WARNS: Final = re.compile(
    r"(?i)\b(?:never|don't|do not|avoid|unless|except|only if|dangerous|unsafe|careful|caution|beware|destroys"
    r"|deletes|loses)\b"
)
"""What an offer beside it may not be told without."""


def shown(text: str) -> str:
    """A text as a terminal shows it: without the codes of colours and without what ends its lines twice."""
    return _COLOURS.sub("", text)


def hides(text: str) -> str | None:
    """What a text hides from its reader, or feigns; None where it is plain."""
    for character in text:
        category = unicodedata.category(character)
        if category in ("Cf", "Co", "Cs", "Cn", "Zl", "Zp") or (category == "Cc" and character not in "\n\t"):
            return "hidden characters"
        if not character.isascii() and character not in _SYMBOLS and _stands_for_letters(character):
            return "letters that look like others"
    if _LOADED.search(unicodedata.normalize("NFC", text)):
        return "hidden characters"
    if any(_mixes(word) for word in re.findall(r"\w+", text)):
        return "letters that look like others"
    if _SPELLED.search(text):
        return "letters that stand alone"
    if _MARKS.search(text):
        return "marks of a chat template"
    if (
        _has_blob(text)
        or _HEX.search(text)
        or _HEX_OF_LETTERS.search(text)
        or len(_ESCAPED.findall(text)) > 1
    ):
        return "encoded text"
    return None


def _has_blob(text: str) -> bool:
    """Whether a text holds what looks like Base64, in time linear in its length: a run of 12 characters that ends in
    `==`, or of 24 with a capital, a small letter and a digit that does not go on a word or a path."""
    for match in _RUN.finditer(text):
        if text.startswith("==", match.end()):
            return True
        before, run = text[max(0, match.start() - 1) : match.start()], match.group()
        if before and re.match(r"[\w/.-]", before):
            run = run.partition("+")[2]
        if len(run) >= _LEAST_BLOB and all(re.search(kind, run) for kind in ("[A-Z]", "[a-z]", "[0-9]")):
            return True
    return False


def feigns(source: str) -> bool:
    """Whether an output holds marks of a chat template: what else it says is then nobody's advice."""
    return _MARKS.search(source) is not None


def conceals(source: str) -> bool:
    """Whether an output holds characters that nobody sees: what else it says is then nobody's advice either."""
    return _UNSEEN.search(source) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Understood:
    """What of a text keeps to the failed action."""

    text: str
    """Word for word, with `GAP` for what was left out; empty where nothing stays."""
    faults: tuple[str, ...] = ()
    """Of the clauses that were left out, in their order."""
    tells: bool = False
    """Whether an offer or a fault stays, and the name of what it is about."""


@dataclass(slots=True)
class _Piece:
    """A clause of a text."""

    clause: Clause
    tokens: list[Token]
    at: int
    """Of its line in the text."""
    fault: str | None
    offers: bool


def understood(text: str, words: Collection[str], *, only_statements: bool = False) -> Understood:
    """What of a text from a tool keeps to the failed action.

    Args:
        words: of the failed action, from `action_words`.
        only_statements: whether offers are left out too.
    """
    pieces = _judged(text, words)
    for piece in pieces:
        if only_statements and piece.offers and piece.fault is None:
            piece.fault = "offers something"
    _drop_what_hangs(pieces)
    faults = tuple(piece.fault for piece in pieces if piece.fault is not None)
    return Understood(
        text=_joined(text, pieces) if faults else text.strip(),
        faults=faults,
        tells=_tells(pieces),
    )


def _tells(pieces: list[_Piece]) -> bool:
    """Whether what stays offers something or tells of a fault, and is about something. A fault that names nothing does
    where it was no offer that was left out."""
    kept = [piece for piece in pieces if piece.fault is None]
    faults = [piece for piece in kept if tells_fault(piece.tokens)]
    if not faults and not any(piece.offers for piece in kept):
        return False
    if any(
        token.kind != "known" and (piece is not pieces[0] or n > 0)
        for piece in kept
        for n, token in enumerate(piece.tokens)
    ):
        return True
    is_offer_left_out = any(
        not _DIRECTING.isdisjoint(token.text for token in piece.tokens)
        for piece in pieces
        if piece.fault is not None
    )
    return not is_offer_left_out and any(len(piece.tokens) >= _LEAST_FAULT for piece in faults)


def directs_elsewhere(text: str, words: Collection[str]) -> str | None:
    """What a text from a tool directs at beside the failed action; None where all of it keeps to it.

    Args:
        words: of the failed action, from `action_words`.
    """
    return next((piece.fault for piece in _judged(text, words) if piece.fault is not None), None)


def _judged(text: str, words: Collection[str]) -> list[_Piece]:
    """The clauses of a text, each with what is wrong with it. What an offer ends with a colon, a question mark or its
    line goes on in the next one."""
    pieces: list[_Piece] = []
    names: set[str] = set()
    told: set[str] = set()
    leads_on = is_list = is_told = False
    at = 0
    for line in text.translate(_STRAIGHT).splitlines(keepends=True):
        strays = deque(found.span() for found in _OUT.finditer(line) if not _is_near(line, found, words))
        of_error, is_field = False, FIELDS.search(line) is not None
        for clause in clauses(line.rstrip(), words):
            tokens = [Token(":", "known"), *clause.tokens] if leads_on else clause.tokens
            while strays and strays[0][1] <= clause.start:
                strays.popleft()
            fault, is_offer, is_named = None, False, False
            if len(tokens) > _LONGEST_CLAUSE:
                fault = "a clause without an end"
            elif strays and strays[0][0] < clause.end:
                fault = "an address or a second command"
            elif (is_list or line[clause.start] in "([{") and names_alone(tokens):
                is_named = True
            elif is_list and holds_never(tokens):
                fault = "lists what none may offer"
            elif is_list and lists(tokens, clause.sign):
                pass
            elif (
                is_field
                and clause.sign != ":"
                and len(tokens) == 1
                and tokens[0].kind == "code"
                and _ERROR.search(tokens[0].text) is None
            ):
                fault = "a field that says nothing of the failure"
            elif not states(read := plainer(tokens), of_error=of_error, is_told=is_told, sign=clause.sign):
                fault, is_offer = _offer(read, names, told, clause.sign), True
            if fault is not None:
                is_told = False
            else:
                is_told = is_told or tells_fault(tokens)
                told.update(token.text for token in tokens if token.kind == "code" and not is_offer)
            of_error = clause.sign not in ".!?" and (
                of_error or (fault is None and clause.sign in ":)" and names_error(tokens))
            )
            is_list = fault is None and (
                (clause.sign == ":" and (heads_list(tokens) or (is_told and _is_heading(tokens))))
                or (is_list and clause.sign in ".," and len(tokens) - (tokens[0].text == ":") == 1)
                or (is_list and is_named and clause.sign == "\n")
            )
            pieces.append(_Piece(clause, tokens, at, fault, is_offer or _directs(tokens)))
            leads_on = fault is None and _leads_on(tokens, clause.sign)
        at += len(line)
    return pieces


def _is_heading(tokens: list[Token]) -> bool:
    """Whether a word alone may say of what kind the names are that follow it ("Stages: dev, live")."""
    return len(tokens) - (tokens[0].text == ":") == 1 and (
        tokens[-1].kind == "new" or tokens[-1].text.endswith("s")
    )


def _is_near(line: str, found: re.Match[str], words: Collection[str]) -> bool:
    """Whether an address is the action's own, or of this machine."""
    if is_own(found[0], words):
        return True
    start = line.rfind(" ", max(0, found.start() - _LONGEST), found.start()) + 1
    end = line.find(" ", found.end(), found.end() + _LONGEST)
    if start == 0 and found.start() > _LONGEST:
        return False
    token = line[start : end if end >= 0 else found.end() + _LONGEST]
    if _LOCAL.fullmatch(token):
        return True
    address = _SCHEME.sub("", token)
    return address != token and is_own(address, words)


def _offer(tokens: list[Token], names: set[str], told: set[str], sign: str) -> str | None:
    """What is wrong with a clause that is no statement; where nothing is, its names are added to those of the text."""
    if not offers(tokens):
        return f"says what is no failure: {said(tokens)[:40]!r}"
    fault = _SETTING if sign == ":" and puts_first(tokens) else offer_fault(tokens)
    found = names | (brought(tokens) - told)
    if fault is None and len(found) > 1:
        return "offers more than one name"
    if fault is None:
        names |= found
    return fault


def _directs(tokens: list[Token]) -> bool:
    """Whether a statement of known words may be read as advice."""
    return not _DIRECTING.isdisjoint(token.text for token in tokens) and not tells_fault(tokens)


def _leads_on(tokens: list[Token], sign: str) -> bool:
    return sign in ":?\n" and (
        tokens[-1].text in _LEADS_ON or any(token.text in _GOES_ON for token in tokens)
    )


def _drop_what_hangs(pieces: list[_Piece]) -> None:
    """Leaves out what rests on a clause that was left out: what follows its condition, an offer beside its warning, and
    what only leads on to it."""
    for before, piece in itertools.pairwise(pieces):
        depends = before.clause.sign == "," and before.tokens[0].text in _DEPENDS
        if depends and before.fault is not None and piece.fault is None:
            piece.fault = "rests on what was left out"
        if before.clause.sign == ":" and before.fault == _SETTING and not tells_fault(piece.tokens):
            piece.fault = piece.fault or _SETTING
    is_told, is_left_out = False, False
    for n, piece in enumerate(pieces):
        if piece.fault is None and piece.offers and is_left_out:
            before = pieces[n - 1]
            is_asked = not _QUESTIONS.isdisjoint(token.text for token in piece.tokens)
            if not is_asked and (
                not is_told or (before.fault is not None and before.clause.sign not in ".!?)]\n")
            ):
                piece.fault = "offers something for what was left out"
        is_left_out = is_left_out or piece.fault is not None
        is_told = is_told or (piece.fault is None and tells_fault(piece.tokens))
    for n, piece in enumerate(pieces):
        if piece.fault is None or not _WARNS.search(said(piece.tokens)):
            continue
        for other in (*pieces[max(0, n - 1) : n], *pieces[n + 1 : n + 2]):
            if other.offers and other.fault is None:
                other.fault = "its warning was left out"
    for piece, after in zip(reversed(pieces[:-1]), reversed(pieces), strict=False):
        if piece.fault is None and after.fault is not None and _only_leads(piece):
            piece.fault = "leads to what was left out"


def _only_leads(piece: _Piece) -> bool:
    """Whether a clause says nothing without the next one: a label, or the beginning of an offer."""
    is_known = all(token.kind == "known" for token in piece.tokens)
    if piece.clause.sign == ":" and not tells_fault(piece.tokens):
        return is_known or not piece.offers
    return is_known and _leads_on(piece.tokens, piece.clause.sign)


def _joined(text: str, pieces: list[_Piece]) -> str:
    """The clauses that stay, as they stand in the text, with marks for those that do not."""
    parts: list[str] = []
    start: int | None = None
    end = 0
    for piece in pieces:
        if piece.fault is None:
            start = piece.at + piece.clause.start if start is None else start
            end = piece.at + piece.clause.end
        else:
            if start is not None:
                parts.append(text[start:end].strip())
                start = None
            if not parts or parts[-1] != GAP:
                parts.append(GAP)
    if start is not None:
        parts.append(text[start:end].strip())
    return " ".join(parts) if any(part != GAP for part in parts) else ""


def harmless(text: str, words: Collection[str]) -> str:
    """An output without the lines that hide something and the clauses that direct elsewhere; of one with marks of a
    chat template no clause stays that offers anything either.

    Args:
        words: of the action, from `action_words`.
    """
    plain = "\n".join(line for line in shown(text).split("\n") if hides(line) is None)
    return understood(plain, words, only_statements=feigns(text)).text


def _script(character: str) -> str:
    """The script of a letter by its Unicode name; "" for what is no letter."""
    return unicodedata.name(character, "UNNAMED").split()[0] if character.isalpha() else ""


def _stands_for_letters(character: str) -> bool:
    """Whether a character is a plain letter in another dress: in a circle, in bold, as wide as a Chinese one."""
    plain = unicodedata.normalize("NFKC", character)
    return plain != character and plain.isascii() and plain.isalpha()


def _mixes(word: str) -> bool:
    """Latin beside other letters in one word, or letters that stand for plain ones."""
    scripts = {_script(character) for character in word} - {""}
    return ("LATIN" in scripts and len(scripts) > 1) or unicodedata.normalize(
        "NFKC", word
    ) != unicodedata.normalize("NFC", word)
