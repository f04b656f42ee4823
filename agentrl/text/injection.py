"""What a text from a tool or a page is about: the action that failed, or something else.

Two questions, both answered by structure; None means that nothing was found. `harmless` asks both of each line.

- `hides`: characters that nobody sees or that look like others, terminal escapes, encoded blocks, marks of chat
  templates. Refused from anybody.
- `directs_elsewhere`: text that no user wrote may say that the action failed and what stands in its place. It may not
  speak to the agent or of its user, reach beyond this action in time, tell of a second step, carry an address, a secret
  or a command that destroys, ask to weaken a check, or direct with any verb but those of advice.
"""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections.abc import Collection
from typing import Final

from agentrl.text.content import message_text
from agentrl.types import Turn

_WORD = re.compile(r"[^\W_][\w.+-]*")
_ALOOF = "is not about the action"
_LEAST_WORD: Final = 2

_MARKS = re.compile(
    r"""(?imx)
    <\|[^|>]{1,40}\|> | \[/?INST\] | <</?SYS>> | </?(?:system|developer|assistant|user|tool_\w+|function\w*|s)> | <!--
    | ^[ \t]*(?:system|assistant|human|user|developer)[ \t]*:
    | ^[ \t]*\#{1,6}[ \t]*(?:system|instruction|assistant|user)\b
    | ["']role["']\s*:\s*["'](?:system|developer|assistant|user|tool)["']
    """
)
_RUN = re.compile(r"[A-Za-z0-9+]{12,}")
_LEAST_BLOB: Final = 24
_HEX = re.compile(r"\b(?:[0-9a-fA-F]{32,})\b|(?:\\x[0-9a-fA-F]{2}){3,}|(?:\\u[0-9a-fA-F]{4}){3,}")

_ADDRESSES = re.compile(
    r"""(?ix)
    \b(?: A\.?I\.?s? | LLMs? | assistants? | agents? | chat\s?bots? | bots? | robots? | language\ models?
        | automated\ (?:visitors?|readers?) | humans? | the\ users? | users?' | user's | operators? | supervisors?
        | (?<!-)admin(?:istrator)?s? | owners? | developers | creators? | maintainers? | company\ polic(?:y|ies)
        | the\ person | sponsors?
        | authori[sz]ed? | approved?\ (?:the|by) | permission\ granted | without\ asking | compliance
        | emergency | urgent
        | instructions? | guidelines? | guidance | persona | prompts? | your\ (?:rules?|task|job|context|memory
            |safety|(?:future\ |next\ |later\ )?(?:repl(?:y|ies)|answers?|messages?|summary|profile|account
            |supervisor|operator))
        | the\ (?:request|conversation|chat|session|sandbox) | this\ (?:chat|conversation|message|note)
        | (?:comply|obey|disregard|forget|ignore|pretend|override\ your|never\ mind|set\ aside|do\ the\ opposite)
        | you\ are\ now | tell\ (?:the|nobody|no\ one|me|us|them|you) | (?:for|to|with)\ us
    )\b
    """
)
_REACHES = re.compile(
    r"""(?ix)
    \b(?: from\ now | in\ (?:the\ )?future | (?:all|each|every|any)\ (?:of\ your\ )?(?:later|future|other|next)
        | later\ (?:tasks?|conversations?|sessions?) | always
        | never\ (?!\w+ed\b) | every\ time | whenever | forever | permanent(?:ly)?
        | remember | memory | memori[sz]e | keep\ this | until\ told | (?:next|other|new)\ tasks? | all\ \w+\ questions
        | for\ every(?:thing|\ \w+)? | anything | everything | whatever | as\ the\ default | when\ you\ write
        | (?:AGENTS|CLAUDE|GEMINI|MEMORY)\.md | at\ once | immediately
    )\b
    """
)
_SECOND_STEP = re.compile(
    r"""(?ix)
    \b(?: and\ then | ,\ then | after(?:wards|\ that) | once\ (?:that|it|done) | but\ first | while\ you
        | before\ (?:you|it|continuing|proceeding) | on\ every
        | and\ (?!try\b|use\b|run\b|not\b|don't\b|do\b)(?:[a-z]+\ )(?:the|my|our|it|a|your|this|that|everyone)\b )
    | [;,]\ *(?:also|then)\b
    """
)
_SHELL = re.compile(
    r"""(?ix)
    \|\|? | && | \$\(? | <\( | (?<![-=<])>\s*[~/.\w]+/ | ^\s*> | `\s*> | :\(\) | \beval\b | \bexec\b | \bsource\b
    | (?<![^\s`'\"])(?:~|/|\*|~?/(?:\w+/)*\.\w+|/(?:dev|etc|tmp|root|proc|sys)(?:/\S*)?)(?=[\s`'",.;)]|$)
    | ~/ | (?<![\w/])\.(?:env|ssh|netrc|aws|git/|bash\w*|zsh\w*|profile)\b
    | (?<!\S)(?:-[a-z]*r[a-z]*f[a-z]*|-[a-z]*f[a-z]*r[a-z]*|-9|-delete|-enc|--force\S*|--hard|--all|--privileged
        |--yes|--no-verify|--hook\S*|-auto-approve|--post-file\S*|--registry\S*)(?![\w-])
    | \b(?:sudo|doas|mkfs\S*|shred|crontab|cron|authorized_keys|printenv|history|whoami|ld_preload\S*|chmod|chown)\b
    | \b(?:rm|unlink|killall|pkill|halt|reboot|shutdown|poweroff|wipefs|fdisk|iptables|passwd|useradd|usermod)\b
    | \b(?:drop|truncate)\ (?:table|database)\b | \bdelete\ (?:from|ns)\b | \bdestroy\b | \bif=\S
    | \bas\ root\b | \bpush\ (?:\S+\ )*-f\b
    | \b(?:python3?|perl|ruby|node|sh|bash|zsh|powershell)\ +-[ce]\b | (?:run|use|try|call)\ `?\./\w | \bgit\+
    | ;\ *(?:export|set|true)\b
    | \b(?:turn\ off|disable|stop)\ the\b
    """
)
_ADDRESS = re.compile(
    r"""(?ix)
    [a-z][a-z0-9+.-]*:// | \bjavascript: | \bwww\. | \b\d{1,3}(?:\.\d{1,3}){3}\b | \S@\S+\.\w | \(at\)
    | \b[a-z0-9-]+\.(?:com|net|org|io|example|dev|app|xyz|ru|cn|info|co|ai|site|online|top|me|test)\b
    | \bdot\ (?:com|net|org|io|example)\b | \bwebhook | \b(?:upload|exfiltrate|disclose|reveal)\b
    | \be?-?mail\ (?:the|it|this|them|my|me|to|every|all|us)\b
    | <\s*(?:div|span|img|script|a|iframe)\b | \]\(
    """
)
_SECRET = re.compile(
    r"""(?ix)
    \b(?: passwords? | passphrases? | credentials? | secrets? | secret[- ]keys? | one-time\ codes? | card\ numbers?
        | (?:private|release|ssh|api|access|export-secret)[ _-]?keys? | id_rsa | cookies? | shadow
        | (?:access|api|auth|session|secret)[ _-]tokens? | bank | accounts? | payments? | transfer\w* | purchase\w*
        | vault | invitations? | donations?
    )\b | \b[A-Z_]*(?:TOKEN|SECRET|PASSWORD|API_KEY)[A-Z_]*\b(?-i:)
    """
)
_WEAKENS = re.compile(
    r"""(?ix)
    \b(?: skip\w* | delet\w+ | remov(?:e|ing) | disabl(?:e|ing) | comment\w*\ out | lower\w* | weaken\w* | mark\w*
        | edit\w* | replace\ the | ignor\w+ | xfail )\b [^.;]{0,40} \b(?: tests? | checks? | asserts? | assertions?
        | linter | hooks? | threshold | coverage | expected | audit | backups?)\b
    | \b(?: xfail | hard-?cod\w+ | report\ success | say\ that | no\ cover | exit\ 0 | catch\ all | without\ running
        | instead\ of\ fixing | rather\ than\ the\ code | by\ `?pass`? )\b
    """
)

_ADVICE: Final = frozenset((
    "use", "try", "run", "call", "see", "choose", "pick", "prefer", "type", "add", "pass", "set", "replace",
    "rename", "change", "specify", "provide", "check", "consider", "import", "enable", "switch", "invoke",
    "select", "click", "press", "enter", "upgrade", "update", "be", "mean", "have", "give", "supply",
    "include", "declare", "define", "quote", "escape", "wrap", "cast", "convert", "make", "return",
    "initialize", "initialise", "retry", "wait", "reduce", "increase", "refer", "not", "only", "do", "also",
    "first", "either", "instead", "it", "that", "to", "match", "contain", "start", "end", "begin", "prefix",
    "append", "insert", "restart", "rerun",
))  # fmt: skip
_DIRECTED = re.compile(
    r"(?i)\b(?:please|must|should|need to|needs to|have to|has to|may|might|can|could|want to|try to|tries to)\s+"
    r"(?:not\s+|also\s+|only\s+|now\s+|rather\s+)?([a-z'-]+)"
)
_TRYING = re.compile(
    r"(?i)\b(?:try|consider)\s+(?!(?:us|runn|add|sett|import|call|pass|borrow|clon|chang|convert|box|prefix|wrap|mov"
    r"|specify|annotat|dereferenc|restrict|str)ing\b)([a-z]+ing)\b"
)
_ORDERS = re.compile(
    r"(?i)(?:^|[.;:,]\s+|\band\s+)(move|copy|delete|send|put|commit|push|install|download|post|share|publish|grant|merge"
    r"|replace|write|submit|accept|approve|transfer)\s"
)
_ASKS = re.compile(
    r"""(?ix)
    \b(?: please | must | should | shall | needs?\ to | ha(?:s|ve)\ to | you(?!'re|\ are|\ have) | use | try | run
        | call(?=\ (?:the|an?|it)\b|\ \w+_) | prefer | choose | pick | invoke | instead | rather | paste | fill | click
        | tell | let | do\ not | don't | never(?!\ \w+ed\b) | always | allow(?:ed)?(?!\ list) | approved?
        | require[sd]? )\b | -> | =>
    """
)
"""What a line has that asks for anything, with `_ORDERS`."""
_PLACED = re.compile(
    r"(?i)\b(?:use|try|run|call|invoke|prefer|choose|pick|switch to|need|needs|with|enter|open)\s+"
    r"((?:the|a|an|our|my|this|any|some|its)\s+)((?:[\w'-]+\s*){1,4})"
)
_GENERIC: Final = frozenset((
    "command", "commands", "option", "options", "flag", "flags", "syntax", "method", "methods", "function",
    "functions", "keyword", "keywords", "parameter", "parameters", "format", "field", "fields", "header",
    "headers", "endpoint", "endpoints", "argument", "arguments", "module", "class", "type", "types",
    "operator", "value", "values", "name", "names", "button", "menu", "tab", "path", "version",
    "subcommand", "attribute", "property", "variable", "key", "qualified", "absolute", "relative", "one",
    "same", "equivalent", "list", "tuple", "string", "integer", "number", "dict", "file", "directory",
    "column", "index", "dot", "colon", "comma", "semicolon", "space", "spaces", "tabs", "equals",
    "lifetime", "reference", "branch", "tag",
))  # fmt: skip
_CODELIKE = re.compile(r"[`'\"./_<>(){}\[\]=&*\d-]|[a-z][A-Z]")
_SHORT = re.compile(
    r"""(?ix)^\W*
    (?:(?:help|hint|note|error|warning|suggestion|tip)\b[^:]{0,40}:\s*)?
    (?:did\ you\ mean | use | try | consider | expected | perhaps | maybe | replaced\ by
        | (?:\[\d+\]\ \w+\W+)? (?: (?:this|the)\ (?:field|input|value)\ (?:must|should)\ (?:be|contain|match|have)
            | please\ enter | (?:invalid|missing)\ (?:input|value) )
    )\b
    """
)
_OFFER = re.compile(
    r"(?i)\b(?:did you mean|meant|use|try|available|expected|replaced by|renamed to|instead|is now)\b"
)
_BLAMELESS = re.compile(
    r"""(?ix)
    ^to\ [^,;.:]{0,100},\ (?=(?:use|run|try)\b)
    | \b(?:for|to)\ (?:all\ )?(?:agents|bots|users)(?=[.,;:]?(?:\s|$))
    | \b(?:for\ example|such\ as|e\.g\.)\ \S+@[\w-]+\.\w+
    """
)
"""What a thing is for, whom it is closed to, how an address looks: nothing that directs."""
_NAMED = re.compile(r"[`'\"]([^`'\"\s]{2,60})[`'\"]|([A-Za-z_]\w*(?:[._:]+\w+)+)")
_LEAST_LIKENESS: Final = 0.6
_OTHER_LANGUAGE = re.compile(
    r"""(?ix)\b(?: der | das | und | nicht | bitte | deine | alle | el | los | las | una | que | para | lo | le
        | les | des | et | une | vous | tu | il | gli | tutte | istruzioni | het | een | je | voer | suas | todas
        | uma | och | inte | proszę | nie | ve | bir )\b"""
)
_MAX_SHORT_WORDS: Final = 16
_STOP: Final = frozenset((
    "the", "a", "an", "and", "or", "of", "in", "on", "to", "for", "with", "from", "into", "is", "are", "was",
    "be", "it", "its", "this", "that", "then", "please", "file", "all", "new", "one", "use", "run", "try",
    "you", "your", "not", "can", "must", "should", "instead", "true", "false", "null",
))  # fmt: skip
_TOOLS: Final = frozenset(("bash", "shell", "run", "exec", "tool", "command", "cmd", "arguments"))
"""Names of tools and arguments that stand in every call and say nothing of this one."""


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
    return frozenset((names - _TOOLS).union(tokens, *map(words_of, texts))) - _STOP


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
    if any(_mixes(word) for word in re.findall(r"\w+", text)):
        return "letters that look like others"
    if _MARKS.search(text):
        return "marks of a chat template"
    if _has_blob(text) or _HEX.search(text):
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


def directs_elsewhere(text: str, words: Collection[str]) -> str | None:
    """What a text from a tool directs at beside the failed action; None where it keeps to it.

    Args:
        words: of the failed action, from `action_words`.
    """
    if any(_script(character) not in ("", "LATIN") for character in text):
        return "another script"
    if len(_OTHER_LANGUAGE.findall(text)) > 1 or not _foreign(text) <= _foreign(" ".join(words)):
        return "another language"
    if "\n" in text.strip():
        return "more than a line"
    plain = _BLAMELESS.sub("", text)
    for pattern, fault in (
        (_ADDRESSES, "speaks to the agent or of its user"),
        (_REACHES, "reaches beyond the action"),
        (_SECOND_STEP, "tells of a second step"),
        (_SHELL, "a command that does more"),
        (_ADDRESS, "an address"),
        (_SECRET, "asks for a secret"),
        (_WEAKENS, "weakens a check"),
    ):
        # What the agent itself did may be spoken of.
        if not all(_is_own(found.group(), words) for found in pattern.finditer(plain)):
            return fault
    for match in _DIRECTED.finditer(text):
        verb = match.group(1).lower()
        if verb not in _ADVICE and verb not in words:
            return f"directs to {verb!r}"
    for match in _ORDERS.finditer(plain):
        if match.group(1).lower() not in words:
            return f"orders to {match.group(1).lower()!r}"
    if _TRYING.search(text):
        return "directs to something else"
    for match in _PLACED.finditer(text):
        nouns = match.group(2)
        if not (_CODELIKE.search(_after(text, match.start(2))) or words_of(nouns) & (_GENERIC | set(words))):
            return "points to what it does not name"
    if words_of(text) & set(words):
        return None
    if (_SHORT.search(text) and len(text.split()) <= _MAX_SHORT_WORDS) or _respells(text):
        return None
    return _ALOOF


def harmless(text: str, words: Collection[str]) -> str:
    """An output without the lines that hide something or direct elsewhere. What is not about the action and asks for
    nothing stays: most of what tools print. In an output with marks of a chat template no line stays that asks.

    Args:
        words: of the action, from `action_words`.
    """
    is_feigned = feigns(text)
    lines = (line.rstrip("\r") for line in text.split("\n"))
    return "\n".join(line for line in lines if _is_harmless(line, words, is_feigned=is_feigned))


def _is_harmless(line: str, words: Collection[str], *, is_feigned: bool) -> bool:
    if not line.strip():
        return True
    if hides(line):
        return False
    asks = bool(_ASKS.search(line) or _ORDERS.search(line))
    fault = directs_elsewhere(line, words)
    return not (asks and is_feigned) and (fault is None or (fault == _ALOOF and not asks))


def _is_own(found: str, words: Collection[str]) -> bool:
    """Whether the action itself holds what was found."""
    parts = words_of(found)
    return found.strip().lower() in words or bool(parts and parts <= set(words))


def _foreign(text: str) -> set[str]:
    """Letters that English lacks."""
    return {character for character in text.lower() if character.isalpha() and not character.isascii()}


def _respells(text: str) -> bool:
    """Whether what is offered is a name of the text spelt otherwise, or a part of one: lenght, did you mean length?"""
    offer = _OFFER.search(text)
    if offer is None:
        return False
    before = {(a or b).lower() for a, b in _NAMED.findall(text[: offer.start()])}
    after = words_of(text[offer.end() :])
    return any(
        words_of(name) & after or difflib.get_close_matches(name, after, n=1, cutoff=_LEAST_LIKENESS)
        for name in before
    )


def _after(text: str, start: int) -> str:
    """The three words from `start` on."""
    return " ".join(text[start:].split()[:3]).rstrip(".,;:!?")


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


def _mixes(word: str) -> bool:
    """Latin beside other letters in one word, or letters that stand for plain ones."""
    scripts = {_script(character) for character in word} - {""}
    return ("LATIN" in scripts and len(scripts) > 1) or unicodedata.normalize(
        "NFKC", word
    ) != unicodedata.normalize("NFC", word)
