"""Secrets kept from disk: found in texts, messages and ids, and replaced by a run of `*` of equal length.

A built-in rule names the literals with which its secrets begin. Only where one of them stands is its pattern tried, so
that a text without secrets costs a few substring searches. Where a pattern has a group, only that part is replaced.

Many rules know a secret by what stands before it (`password=`), and later the value comes alone. Who redacts a whole
session passes on the values found so far (`known`); they stay in memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from agentrl.errors import ConfigError
from agentrl.types import JSON, RedactedSpan

PLACEHOLDER = "*"
MIN_KNOWN = 6
"""Shorter values are not looked for alone: they would be found in the middle of ordinary words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How one kind of secret looks."""

    name: str
    pattern: re.Pattern[str]
    literals: tuple[str, ...] = ()
    """Lower case; every match begins with one of them, in any case. Empty: the pattern is searched everywhere."""

    def matches(self, text: str, lowered: str) -> Iterator[re.Match[str]]:
        if not self.literals:
            yield from self.pattern.finditer(text)
            return
        for literal in self.literals:
            at = lowered.find(literal)
            while at >= 0:
                match = self.pattern.match(text, at)
                if match is not None:
                    yield match
                at = lowered.find(literal, match.end() if match is not None and match.end() > at else at + 1)


def _rule(name: str, pattern: str, *literals: str) -> Rule:
    return Rule(name=name, pattern=re.compile(pattern), literals=literals)


_NAMES = (
    *("api_key", "api-key", "apikey", "secret", "password", "passwd", "passphrase"),
    *("access_key", "access-key", "accesskey", "auth_token", "auth-token", "authtoken"),
    *("access_token", "access-token", "accesstoken"),
)

RULES = (
    _rule(
        "private_key",
        # Line breaks may be escaped, as in JSON; a key that is cut off goes as far as its alphabet does.
        r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?:[A-Za-z0-9+/=:,.\s]|-(?!----)|\\[nr])*"
        r"(?:-----END [A-Z ]{0,40}PRIVATE KEY-----)?",
        "-----begin ",
    ),
    _rule("bearer", r"\b(?i:bearer)\s{1,8}((?=[^\s]{0,60}\d)[A-Za-z0-9_\-./+=~]{8,})", "bearer"),
    _rule(
        "authorization",
        r"(?i:authorization)\W{1,8}(?i:basic|bearer|token)\s{1,8}([A-Za-z0-9_\-./+=~]{6,})",
        "authorization",
    ),
    _rule("url_password", r"://[^\s/:@'\"]{0,80}:([^\s/@'\"]{3,200})@", "://"),
    _rule("openai_key", r"\bsk-[A-Za-z0-9_-]{16,}", "sk-"),
    _rule("github_token", r"\bgh[pousr]_[A-Za-z0-9]{20,}", "ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    _rule("github_token", r"\bgithub_pat_[A-Za-z0-9_]{20,}", "github_pat_"),
    _rule("gitlab_token", r"\bglpat-[A-Za-z0-9_-]{16,}", "glpat-"),
    _rule("aws_key_id", r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", "akia", "asia"),
    _rule("google_key", r"\b(?:AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,})", "aiza", "ya29."),
    _rule("slack_token", r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}", "xox"),
    _rule("stripe_key", r"\b(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,}", "sk_", "rk_"),
    _rule("huggingface_token", r"\bhf_[A-Za-z0-9]{20,}", "hf_"),
    _rule("package_token", r"\b(?:npm_[A-Za-z0-9]{30,}|pypi-[A-Za-z0-9_-]{40,})", "npm_", "pypi-"),
    _rule("jwt", r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}", "eyj"),
    _rule(
        "assignment",
        # Quoted, or with a digit: code says `secret = read()` and prose says `password: none`, too.
        r"[A-Za-z_-]{6,10}[A-Za-z0-9_]{0,20}(?:\\?[\"'])?\s{0,3}(?:=>|[:=])\s{0,3}(?:"
        r"\\[\"']([^\"'\\\n]{6,200})"
        r"|[\"']((?:[^\"'\\\n]|\\.){6,200})"
        r"|((?=[^\s]{0,60}\d)[A-Za-z0-9_\-./+=~!#$%^&*@]{8,200}))",
        *_NAMES,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A secret at characters [start, end) of a text."""

    start: int
    end: int
    rule: str


class Redactor:
    """Rules, with the operator's own patterns behind the built-in ones.

    Args:
        patterns: regular expressions by name; one with groups replaces only what these matched.

    Raises:
        ConfigError: a pattern that does not compile, or that matches the empty text.
    """

    def __init__(self, patterns: dict[str, str] | None = None) -> None:
        self._rules = RULES + tuple(_own_rule(name, pattern) for name, pattern in (patterns or {}).items())

    def find(self, text: str, *, known: Iterable[str] = ()) -> list[Found]:
        """The secrets of a text, in order, overlapping ones joined."""
        lowered = _lowered(text)
        found: list[Found] = []
        for rule in self._rules:
            for match in rule.matches(text, lowered):
                took_part = [group for group in range(1, match.re.groups + 1) if match.start(group) >= 0]
                for start, end in map(match.span, took_part or [0]):
                    if end > start:
                        found.append(Found(start=start, end=end, rule=rule.name))
        for value in known:
            at = text.find(value) if len(value) >= MIN_KNOWN else -1
            while at >= 0:
                found.append(Found(start=at, end=at + len(value), rule="known"))
                at = text.find(value, at + len(value))
        return _joined(found) if found else found

    def text(
        self, text: str, path: str = "", *, known: Iterable[str] = ()
    ) -> tuple[str, tuple[RedactedSpan, ...]]:
        """The text with placeholders, and where they are."""
        found = self.find(text, known=known)
        return blank(text, found), tuple(
            RedactedSpan(path=path, start=one.start, end=one.end, rule=one.rule) for one in found
        )

    def tree(
        self, value: Any, path: str = "", *, known: Iterable[str] = ()
    ) -> tuple[Any, tuple[RedactedSpan, ...]]:
        """A JSON value with placeholders in its string leaves; parts without secrets are the same objects."""
        known = tuple(known)
        if isinstance(value, str):
            return self.text(value, path, known=known)
        items: Iterable[tuple[Any, Any]]
        if isinstance(value, dict):
            items = value.items()
        elif isinstance(value, list | tuple):
            items = enumerate(value)
        else:
            return value, ()
        changed: dict[Any, Any] = {}
        spans: list[RedactedSpan] = []
        for key, item in items:
            redacted, inside = self.tree(item, f"{path}.{key}" if path else str(key), known=known)
            if inside:
                changed[key] = redacted
                spans += inside
        if not changed:
            return value, ()
        if isinstance(value, dict):
            return value | changed, tuple(spans)
        return [changed.get(index, item) for index, item in enumerate(value)], tuple(spans)

    def messages(
        self, messages: Sequence[JSON], *, known: Iterable[str] = ()
    ) -> tuple[tuple[JSON, ...], tuple[RedactedSpan, ...]]:
        """Messages with placeholders, tool arguments included; paths begin with `messages.`."""
        redacted, spans = self.tree(list(messages), "messages", known=known)
        return tuple(redacted), spans

    def secrets(self, value: Any, *, known: Iterable[str] = ()) -> frozenset[str]:
        """The secrets in the string leaves of a JSON value, for `known`. They must not leave memory."""
        known = tuple(known)
        if isinstance(value, str):
            return frozenset(value[one.start : one.end] for one in self.find(value, known=known))
        items = (
            value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
        )
        return frozenset().union(*(self.secrets(item, known=known) for item in items))


def redact_text(text: str) -> tuple[str, tuple[RedactedSpan, ...]]:
    """`Redactor.text` with the built-in rules."""
    return _BUILT_IN.text(text)


def redact_messages(messages: Sequence[JSON]) -> tuple[tuple[JSON, ...], tuple[RedactedSpan, ...]]:
    """`Redactor.messages` with the built-in rules."""
    return _BUILT_IN.messages(messages)


def blank(text: str, found: Iterable[Found]) -> str:
    """`text` with a placeholder for each character of a secret; `found` in order, without overlap."""
    parts, at = [], 0
    for one in found:
        parts += [text[at : one.start], PLACEHOLDER * (one.end - one.start)]
        at = one.end
    return "".join((*parts, text[at:]))


def hidden_ids(offsets: Sequence[tuple[int, int]], found: Iterable[Found]) -> list[bool]:
    """Which ids hold characters of a secret.

    Args:
        offsets: characters [start, end) of each id in the decoded text (`ChatRenderer.offsets`).
        found: secrets of that text, in order.
    """
    hidden = [False] * len(offsets)
    secrets = list(found)
    first = 0
    for index, (start, end) in enumerate(offsets):
        while first < len(secrets) and secrets[first].end <= start:
            first += 1
        hidden[index] = first < len(secrets) and secrets[first].start < end
    return hidden


def _own_rule(name: str, pattern: str) -> Rule:
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(f"redaction pattern {name!r} does not compile: {error}") from error
    if compiled.match(""):
        raise ConfigError(f"redaction pattern {name!r} matches the empty text; make it match something")
    return Rule(name=name, pattern=compiled)


def _lowered(text: str) -> str:
    """Lower case, character for character: a few letters would become two."""
    lowered = text.lower()
    return lowered if len(lowered) == len(text) else "".join(c.lower()[0] for c in text)


def _joined(found: list[Found]) -> list[Found]:
    found.sort(key=lambda one: (one.start, -one.end))
    joined = [found[0]]
    for one in found[1:]:
        last = joined[-1]
        if one.start < last.end:
            joined[-1] = Found(start=last.start, end=max(last.end, one.end), rule=last.rule)
        else:
            joined.append(one)
    return joined


_BUILT_IN = Redactor()


def is_blanked(text: str) -> bool:
    """Whether redaction left placeholders in the text: what it says stands on something that nobody can read."""
    return PLACEHOLDER * MIN_KNOWN in text
