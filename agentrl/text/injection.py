"""What a text from a tool or a page is about: the action that failed, or something else.

Two questions, both answered by structure; None means that nothing was found. `harmless` asks both of each line.

- `hides`: characters that nobody sees or that look like others, terminal escapes, encoded blocks, marks of chat
  templates. Refused from anybody.
- `directs_elsewhere`: text that no user wrote is read by a closed grammar of what may be said. Each of its clauses is

  - a statement, made of the words in which programs speak of failures (`KNOWN`), of words of the action, and of code;
    where it tells of a failure, one word more may be new, or
  - an offer ("use X", "did you mean X", "X works"); all offers together may bring one new name, or a list of them,

  and everything else is refused, some honest text too: a list of what orders look like has no end, this one has. What a
  false name may do is bounded later, by trust and by the share of an update that one source may have.

What is judged may be a line of any length from anybody, so every pattern takes a time linear in it: runs are bounded,
or so written that no second search begins inside a run that the first one has been through.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

from agentrl.text.content import message_text
from agentrl.text.injection_words import KNOWN, NEVER, STOP, TOOLS
from agentrl.types import Turn

_WORD = re.compile(r"[^\W_][\w.+-]*")
_LEAST_WORD: Final = 2

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
    [a-z][a-z0-9+.-]{0,30}:// | \bjavascript: | \bwww\. | \b\d{1,3}(?:\.\d{1,3}){3}\b
    | \S@(?:[^\s@]+|[^\s@]*@)\.\w
    | (?:\b[a-z0-9-]{1,63}|[a-z0-9-]{63})
        \.(?:com|net|org|io|example|dev|app|xyz|ru|cn|info|co|ai|site|online|top|me|test|tools|host|evil|sh)\b(?!\()
    | <\s*(?:div|span|img|script|a|iframe|p|meta)\b | \]\( | (?:^|\s)\|\|?\s | \s&\s | && | \\[xu\d]
    | (?<!\w)[`']\w[^`'"\n]{0,60};\s | \w;\w | \$ | <\( | (?<![-=<\s])>\s*[~/.\w]+/ | :\(\)
    | ~/ | (?<![\w/])\.(?:env|ssh|netrc|aws|pgpass|git/|bash\w*|zsh\w*|profile)\b
    | (?<!\S)-(?=[a-z]*r)(?=[a-z]*f)[a-z]++(?![\w-]) | \bpush\ (?:\S+\ ){0,20}-f\b
    """
)
"""An address, a second command or a file of secrets."""
_TOKEN = re.compile(r"(?<!\w)[`'\"]((?:[^`'\"\n.;:,!?]|[.;:,!?](?!\s)){1,80})[`'\"](?!\w)|\S+")
_ENDS = re.compile(r"([.;:!?)\]])[.;:!?)\]*]*$")
_BRACES = re.compile(r"[{}\[\]\"]+")
_CODE = re.compile(r"^-|^\w+-\w+$|[\d_./<>(){}\[\]=&*@#]|[a-z][A-Z]")
_FAILURE = re.compile(
    r"""(?ix)
    \b(?: \w*errors? | fatal | fail(?:s|ed|ure)? | not | no | cannot | unable | invalid | illegal | missing | expected
        | denied | refused | already | mismatch(?:ed)? | \w*warning | \w*exception | bad | ambiguous | un\w+ed
        | un(?:known|met) | does | did | help | hint | tip | required | available | must | deprecated
    )\b | n't\b
    """
)
_LEADS: Final = frozenset((
    "use", "try", "run", "see", "call", "type", "choose", "enter", "prefer", "mean", "meant", "need", "needs", "has",
    "is", "available", "allowed", "expected", "name", "command", "argument", "as", "called", ":", "moved to",
    "renamed to", "replaced by", "asks for",
))  # fmt: skip
"""What stands before the name that an offer brings."""
_OFFERS: Final = _LEADS | {
    "consider", "instead", "replaced", "renamed", "moved", "now", "asks", "works", "exists", "only", "such", "but",
    "provide", "specify", "add", "pass", "set", "place", "same",
}  # fmt: skip
"""What makes a clause an offer."""
_FOLLOWS: Final = frozenset(("is", "can", "does", "works"))
"""What stands behind a name that is offered first."""
_ARTICLES: Final = frozenset(
    ("a", "an", "the", "any", "all", "every", "each", "some", "this", "these", "those")
)
_DENIES = re.compile(r"\b(?:not|cannot|unable to|failed to|no|without)$|n't$")
"""Behind what any word is denied."""
_BEGINS: Final = frozenset(
    ("use", "try", "run", "see", "did", "but", "please", "maybe", "perhaps", "only", "such")
)
"""What begins a clause behind a comma."""
_GOES_ON: Final = frozenset((
    "mean", "meant", "available", "allowed", "expected", "exists", "run", "one", "with", "consider",
))  # fmt: skip
"""What leads on to the clause behind a colon, a question mark or the end of the line."""
_ADVICE: Final = frozenset(
    ("use", "try", "consider", "prefer", "mean", "meant", "instead", "replaced", "renamed", "please")
)
"""What makes a clause no statement, wherever it stands."""
_AT_HEAD: Final = _ADVICE | {
    "run", "see", "call", "type", "choose", "enter", "provide", "specify", "add", "pass", "set", "need", "needs",
}  # fmt: skip
"""What makes a clause no statement where it stands first."""
_ORDERING: Final = frozenset((
    "must", "should", "to", "please", "you", "may", "can", "will", "and", "or", "now", "just",
))  # fmt: skip
"""Behind what a new word may be an order."""
_VERBS: Final = frozenset((
    "add", "build", "cast", "commit", "create", "drop", "find", "hash", "include", "install", "kill", "list", "merge",
    "open", "parse", "pass", "provide", "pull", "queue", "read", "rebase", "reload", "remove", "sample", "set",
    "specify", "start", "stash", "stop", "stream",
))  # fmt: skip
"""Words of failures that order where an article follows them."""


def action_words(turn: Turn) -> frozenset[str]:
    """The words of a turn's calls and of the newest request, with the flags, in lower case; none that says nothing."""
    texts = [message_text(m) for m in reversed(turn.messages) if m.get("role") == "user"][:1]
    names: set[str] = set()
    for call in turn.reply.tool_calls:
        values = _arguments(call.arguments)
        names.update(words_of(" ".join((call.name, *values))))
        texts += values.values()
    if not turn.reply.tool_calls:
        texts.append(turn.reply.text)
    tokens = {token.lower() for text in texts for token in text.split() if len(token) >= _LEAST_WORD}
    return frozenset((names - TOOLS).union(tokens, *map(words_of, texts))) - STOP


def words_of(text: str) -> set[str]:
    """The words of a text in lower case; of a word with joints (`Vec::new`, `list.append`, `--all`) its parts too."""
    found: set[str] = set()
    for match in _WORD.findall(text):
        whole = match.rstrip(".+-").lower()
        found.add(whole)
        found.update(part for part in re.split(r"[._+-]", whole))
    return {word for word in found if len(word) >= _LEAST_WORD}


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


class _Token(NamedTuple):
    """A word of a clause."""

    text: str
    kind: str
    """Of the action ("own"), "known", "code", "new", or of another alphabet ("foreign")."""
    is_label: bool = False
    """Whether it stands alone in its line, or first and before a colon, as programs name themselves."""


def directs_elsewhere(text: str, words: Collection[str]) -> str | None:
    """What a text from a tool directs at beside the failed action; None where it keeps to it.

    Args:
        words: of the failed action, from `action_words`.
    """
    if any(not _is_own(found[0], words) for found in _OUT.finditer(text)):
        return "an address or a second command"
    brought: set[str] = set()
    for clause in _clauses(text, words):
        if _states(clause):
            continue
        said = " ".join(token.text for token in clause)
        if not any(token.text in _OFFERS for token in clause):
            return f"says what is no failure: {said[:40]!r}"
        if any(token.kind != "own" and not NEVER.isdisjoint(words_of(token.text)) for token in clause):
            return "offers what none may"
        names = [n for n, token in enumerate(clause) if token.kind not in ("own", "known")]
        first = next(n for n, token in enumerate(clause) if token.text in _OFFERS)
        if not all(_is_name(clause, n) for n in names):
            return f"offers more than a name: {said[:40]!r}"
        brought |= {
            clause[n].text
            for n in names
            if not _goes_on(clause, n) and (n > first or clause[n].kind == "new")
        }
    if len(brought) > 1:
        return "offers more than one name"
    return None


def _states(clause: list[_Token]) -> bool:
    """Whether a clause only says what is: one word alone, or what failed with one new word that is not the first."""
    kinds = [token.kind for token in clause]
    if "foreign" in kinds:
        return False
    if kinds == ["new"]:
        return clause[0].is_label
    advises = clause[0].text in _AT_HEAD or any(token.text in _ADVICE for token in clause)
    if advises and not {"new", "code"}.isdisjoint(kinds):
        return False
    if any(
        token.kind == "known"
        and token.text in _VERBS
        and after.text in _ARTICLES
        and before.text in _ORDERING
        for before, token, after in zip([_Token("to", "known"), *clause], clause, clause[1:], strict=False)
    ):
        return False
    if "new" not in kinds:
        return True
    n = kinds.index("new")
    has_failure = _FAILURE.search(" ".join(token.text for token in clause)) is not None
    return has_failure and kinds.count("new") == 1 and n > 0 and clause[n - 1].text not in _ORDERING


def _is_name(clause: list[_Token], n: int) -> bool:
    """Whether a word stands where a name is offered, and nothing more is made of it."""
    if clause[n].kind == "code":
        return True
    after = clause[n + 1].text if n + 1 < len(clause) else ""
    before = clause[n - 1].text if n else ""
    return (
        clause[n].kind != "foreign"
        and after not in _ARTICLES
        and (
            len(clause) == 1
            or before in _LEADS
            or before[:1] == "-"
            or " ".join(token.text for token in clause[max(0, n - 2) : n]) in _LEADS
            or (before in ("", ",", "but", "only", "here", "this") and after in _FOLLOWS)
            or (before in (",", "or") and clause[0].text == ":")
            or (n > 0 and clause[n - 1].kind != "known")
        )
    )


def _goes_on(clause: list[_Token], n: int) -> bool:
    """Whether a name is one of a list, an argument of a command of the action, or what another one replaces."""
    last = clause[n - 1].text if n else ""
    if last in ("or", ",", "and"):
        return n + 1 == len(clause) or clause[n + 1].text in (",", "or", "and")
    if last == "of":
        return n > 1 and clause[n - 2].text == "instead"
    return any(token.kind == "own" for token in clause[max(0, n - 3) : n]) and (
        n > 0 and clause[n - 1].kind != "known"
    )


def _clauses(text: str, words: Collection[str]) -> Iterator[list[_Token]]:
    """The clauses of a text. What an offer ends with a colon, a question mark or its line goes on in the next one."""
    clause: list[_Token] = []
    for line in text.splitlines():
        if line.lstrip().startswith(("{", "[{")):
            line = _BRACES.sub(" ", line).replace(":", ": ").replace(",", ". ")
        for tokens, end in _read(line, words):
            if clause:
                tokens.insert(0, _Token(":", "known"))
            if end in ":?\n" and (tokens[-1].text == "is" or any(token.text in _GOES_ON for token in tokens)):
                clause = tokens
            else:
                clause = []
            yield tokens


def _read(line: str, words: Collection[str]) -> Iterator[tuple[list[_Token], str]]:
    """The clauses of a line, each with the sign behind it."""
    clause: list[_Token] = []
    for match in _TOKEN.finditer(line):
        is_quoted = match[1] is not None
        raw = match[1] or match[0]
        parts = raw.strip(".,;:!?()[]{}*'\"`").split()
        if clause and (
            (not is_quoted and (raw[0] in "([" or raw in ("-", "--")))
            or (clause[-1].text == "," and parts and parts[0].lower() in _BEGINS)
        ):
            yield clause, ","
            clause = []
        for part in parts:
            kind = _kind(part, words, is_code=is_quoted and len(parts) == 1)
            if kind == "new" and clause and _DENIES.search(" ".join(token.text for token in clause[-2:])):
                kind = "known"
            if kind:
                is_label = match.start() == 0 and (raw[-1] == ":" or match.end() == len(line))
                clause.append(_Token(part.lower(), kind, is_label))
        end = _ENDS.search(raw) if not is_quoted else None
        if end is not None:
            if clause:
                yield clause, end[1]
            clause = []
        elif not is_quoted and raw.endswith(",") and clause:
            clause.append(_Token(",", "known"))
    if clause:
        yield clause, "\n"


def _kind(part: str, words: Collection[str], *, is_code: bool) -> str:
    """What kind of word this is; "" for what is none."""
    word = part.lower()
    if word in KNOWN and word not in words:
        return "known"
    if not any(character.isalnum() for character in part):
        return ""
    if _is_own(part, words):
        return "own"
    if not word.isascii():
        return "foreign"
    pieces = [piece for piece in re.split(r"[-'/]", word) if len(piece) > 1]
    if all(piece in KNOWN or piece in _OFFERS for piece in pieces) or word.endswith("n't") or word.isdigit():
        return "known"
    return "code" if is_code or _CODE.search(part) else "new"


def harmless(text: str, words: Collection[str]) -> str:
    """An output without the lines that hide something or direct elsewhere; in one with marks of a chat template no
    line stays that offers anything either.

    Args:
        words: of the action, from `action_words`.
    """
    is_feigned = feigns(text)
    lines = (line.rstrip("\r") for line in text.split("\n"))
    return "\n".join(
        line
        for line in lines
        if hides(line) is None
        and directs_elsewhere(line, words) is None
        and not (is_feigned and not all(map(_states, _clauses(line, words))))
    )


def _is_own(found: str, words: Collection[str]) -> bool:
    """Whether the action itself holds what was found."""
    parts = words_of(found)
    return found.strip().lower() in words or bool(parts and all(part in words for part in parts))


def _arguments(text: str) -> dict[str, str]:
    """The arguments of a call by name; the whole text under no name where it is no JSON object."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = text
    return (
        {name: str(value) for name, value in values.items()}
        if isinstance(values, dict)
        else {"": str(values)}
    )


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
