"""What a text from a tool or a page is about: the action that failed, or something else.

Two questions.

- `hides`: characters that nobody sees or that look like others, terminal escapes, encoded blocks, marks of chat
  templates. Refused from anybody.
- `understood`: text that no user wrote is read clause by clause. Left out is what no clause may hold (an address, a
  second command, a name that destroys or lowers a protection, words of another alphabet) and what reads like an
  attack to a small model of clauses (`agentrl.text.clause_risk`); an offer that says no more than a name is none, for
  nobody can tell a false name by its words. What stays stands word for word, each gap is shown, and nothing stays
  whose meaning hangs on what is gone. What a false name may do is bounded later, by trust and by the share of an
  update that one source may have.

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
from agentrl.text.clause_features import Told
from agentrl.text.clause_risk import MOST_RISK, risks
from agentrl.text.clauses import Clause, Token, clauses
from agentrl.text.dangers import command_fault, destroys, exposes, is_danger
from agentrl.text.statements import names_alone, offers, offers_name, said, tells_fault

_MARKS = re.compile(
    r"""(?imx)
    <\|[^|>]{1,40}\|> | \[/?INST\] | <</?SYS>> | <!--
    | </?(?:system|developer|assistant|user|human|tool_\w+|function\w*|invoke|parameter
        |(?:start|end)_of_\w+)\b[^<>]{0,40}>
    | </?s>
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
_LEADS_ON: Final = frozenset(("is", "use", "try", "using", "running", "mean", "this", "run", "with", "one"))
"""What leads on to the next clause where it stands last."""
_DIRECTING: Final = frozenset(("use", "try", "run", "call", "must", "should", "please", "instead", "prefer"))
_ASKING: Final = (
    "did you mean this", "did you mean", "did you mean one of these", "did you mean one of the following",
    "most similar command is", "most similar commands are", "maybe you meant", "perhaps you meant",
)  # fmt: skip
"""How a clause ends that a name follows on the next line."""
_QUESTIONS: Final = frozenset(("mean", "meant", "similar"))
"""What makes a question of an offer."""
_DEPENDS: Final = frozenset((
    "if", "unless", "when", "whenever", "once", "after", "before", "while", "until", "to", "for", "as",
    "provided",
))  # fmt: skip
"""What begins a clause that the next one rests on."""
_LEAST_FAULT: Final = 2
"""Words of a fault that says something, whatever it is about."""
_LONGEST_CLAUSE: Final = 80
"""Words of a clause that is read; what looks back over them all would take too long in a longer one."""
_MOST_CLAUSES: Final = 1000
"""Of a text that are read; all behind them is left out."""
_EXIT: Final = re.compile(r"exit code \d{1,3}")
"""What a shell of ours adds."""
_LONGEST: Final = 200
"""Characters of an address on either side of what shows it."""
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
class Piece:
    """A clause of a text."""

    clause: Clause
    at: int
    """Of its line in the text."""
    told: Told
    fault: str | None

    @property
    def tokens(self) -> list[Token]:
        return self.clause.tokens

    @property
    def said(self) -> str:
        return said(self.tokens)

    @property
    def start(self) -> int:
        """Of the clause in the text."""
        return self.at + self.clause.start

    @property
    def end(self) -> int:
        return self.at + self.clause.end

    @property
    def advises(self) -> bool:
        """Whether it may be read as advice."""
        return not self.told.tells_fault and not _DIRECTING.isdisjoint(token.text for token in self.tokens)


def understood(text: str, words: Collection[str], *, only_statements: bool = False) -> Understood:
    """What of a text from a tool keeps to the failed action.

    Args:
        words: of the failed action, from `action_words`.
        only_statements: whether offers are left out too.
    """
    pieces = _judged(text, words)
    for piece in pieces:
        if only_statements and piece.advises and piece.fault is None:
            piece.fault = "offers something"
    _drop_what_hangs(pieces)
    faults = tuple(piece.fault for piece in pieces if piece.fault is not None)
    return Understood(
        text=_joined(text, pieces) if faults else text.strip(),
        faults=faults,
        tells=_tells(pieces),
    )


def _tells(pieces: list[Piece]) -> bool:
    """Whether what stays offers something, or tells of a fault and what it is about. A fault that names nothing is
    enough where it was no advice that was left out."""
    kept = [piece for piece in pieces if piece.fault is None]
    if any(piece.advises for piece in kept):
        return True
    faults = [piece for piece in kept if piece.told.tells_fault]
    names = any(
        token.kind != "word" and (piece is not pieces[0] or n > 0)
        for piece in kept
        for n, token in enumerate(piece.tokens)
    )
    if names or not faults:
        return bool(faults)
    is_advice_left_out = any(
        not _DIRECTING.isdisjoint(token.text for token in piece.tokens)
        for piece in pieces
        if piece.fault is not None
    )
    return not is_advice_left_out and any(len(piece.tokens) >= _LEAST_FAULT for piece in faults)


def directs_elsewhere(text: str, words: Collection[str]) -> str | None:
    """What a text from a tool directs at beside the failed action; None where all of it keeps to it.

    Args:
        words: of the failed action, from `action_words`.
    """
    return next((piece.fault for piece in _judged(text, words) if piece.fault is not None), None)


def _judged(text: str, words: Collection[str]) -> list[Piece]:
    """The clauses of a text, each with what is wrong with it."""
    pieces = read_clauses(text, words)
    read = pieces[:_MOST_CLAUSES]
    is_asked = False
    found = risks([piece.told for piece in read])
    for piece, after, risk in zip(read, [*pieces[1:], None], found, strict=False):
        is_name = is_asked and len(piece.tokens) == 1
        if is_name and is_danger(piece.tokens[0]):
            piece.fault = "offers what none may"
        is_safe = is_name or _labels(piece, after) or offers_name(piece.tokens) or _EXIT.fullmatch(piece.said)
        if piece.fault is None and risk > MOST_RISK and not is_safe:
            piece.fault = f"reads like an attack: {piece.said[:40]!r}"
        is_asked = piece.fault is None and (is_name or _asks(piece))
    return pieces


def _labels(piece: Piece, after: Piece | None) -> bool:
    """Whether a clause is the name of a program before what it says of a failure."""
    is_label = piece.clause.sign == ":" and len(piece.tokens) == 1
    return is_label and after is not None and after.at == piece.at and after.told.tells_fault


def _asks(piece: Piece) -> bool:
    """Whether a clause asks whether one of the names behind it was meant, and says no more: they stand on lines of
    their own, as git and npm print them."""
    return piece.clause.sign in "?:\n" and piece.said.endswith(_ASKING)


def read_clauses(text: str, words: Collection[str]) -> list[Piece]:
    """The clauses of a text, each with what no clause may hold, whatever it says."""
    pieces: list[Piece] = []
    is_told = False
    at = 0
    for line in text.translate(_STRAIGHT).splitlines(keepends=True):
        strays = deque(found.span() for found in _OUT.finditer(line) if not _is_near(line, found, words))
        for clause in clauses(line.rstrip(), words):
            while strays and strays[0][1] <= clause.start:
                strays.popleft()
            tokens = clause.tokens
            if len(pieces) == _MOST_CLAUSES:
                rest = Clause([], clause.start, len(text) - at, "\n", [])
                unread = Told((), "", tells_fault=False, is_told=is_told, offers=False)
                return [*pieces, Piece(rest, at, unread, "more clauses than are read")]
            if len(tokens) > _LONGEST_CLAUSE:
                fault: str | None = "a clause without an end"
            elif strays and strays[0][0] < clause.end:
                fault = "an address or a second command"
            else:
                fault = _fault(tokens)
            told = Told(tokens[:_LONGEST_CLAUSE], clause.sign, tells_fault(tokens), is_told, offers(tokens))
            is_told = is_told or told.tells_fault
            pieces.append(Piece(clause, at, told, fault))
        at += len(line)
    return pieces


def _fault(tokens: list[Token]) -> str | None:
    """What no clause may hold, whatever it says."""
    if any(token.kind == "foreign" for token in tokens):
        return "words of another alphabet"
    if exposes(tokens) or destroys(tokens):
        return "offers what none may"
    if not offers(tokens) or names_alone(tokens):
        return None
    if any(map(is_danger, tokens)):
        return "offers what none may"
    only_tells = tells_fault(tokens) and _DIRECTING.isdisjoint(token.text for token in tokens)
    return None if only_tells else command_fault(tokens)


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
    return (address != token or "@" in token) and is_own(address, words)


def _drop_what_hangs(pieces: list[Piece]) -> None:
    """Leaves out what rests on a clause that was left out: what follows its condition, an offer beside its warning, and
    what only leads on to it."""
    for before, piece in itertools.pairwise(pieces):
        depends = before.clause.sign == "," and before.tokens[0].text in _DEPENDS
        if depends and before.fault is not None and piece.fault is None:
            piece.fault = "rests on what was left out"
    is_told, is_left_out = False, False
    for n, piece in enumerate(pieces):
        if piece.fault is None and piece.advises and is_left_out:
            before = pieces[n - 1]
            is_asked = not _QUESTIONS.isdisjoint(token.text for token in piece.tokens)
            if not is_asked and (
                not is_told or (before.fault is not None and before.clause.sign not in ".!?)]\n")
            ):
                piece.fault = "offers something for what was left out"
        is_left_out = is_left_out or piece.fault is not None
        is_told = is_told or (piece.fault is None and piece.told.tells_fault)
    for n, piece in enumerate(pieces):
        if piece.fault is None or not _WARNS.search(piece.said):
            continue
        for other in (*pieces[max(0, n - 1) : n], *pieces[n + 1 : n + 2]):
            if other.advises and other.fault is None:
                other.fault = "its warning was left out"
    for piece, after in zip(reversed(pieces[:-1]), reversed(pieces), strict=False):
        if piece.fault is None and after.fault is not None and _only_leads(piece):
            piece.fault = "leads to what was left out"


def _only_leads(piece: Piece) -> bool:
    """Whether a clause says nothing without the next one: a label, or the beginning of an offer."""
    if piece.told.tells_fault or any(token.kind == "code" for token in piece.tokens):
        return False
    return piece.clause.sign == ":" or (piece.clause.sign in "?\n" and piece.tokens[-1].text in _LEADS_ON)


def _joined(text: str, pieces: list[Piece]) -> str:
    """The clauses that stay, as they stand in the text, with marks for those that do not."""
    parts: list[str] = []
    start: int | None = None
    end = 0
    for piece in pieces:
        if piece.fault is None:
            start = piece.start if start is None else start
            end = piece.end
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
