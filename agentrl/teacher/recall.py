"""Hints that outlive their turn: what was said after a request is remembered for requests like it.

A turn whose own next state says nothing of use (a mistyped command is merely "not found", a success needs no
word) can then still be shown to the teacher with the hint that an earlier, like request brought. Requests are
compared by their words, those left out that the action took over as arguments: "Show the file a.txt" and "Show the
file b.md" are one request when the commands name a.txt and b.md. Only what came before a turn is recalled for it, and
only within its scope. Which turn a recalled hint came from is recorded with the step that used it.

What a user said in words may also stand for all that is asked in its scope (`standing`): a teacher who is shown one
wish alone says of everything else that it is free, and so un-teaches the wishes before it. An imported lesson that
names no request (a reviewer's "always use metric units") is a rule: it stands for all of them, whatever a recipe says
of wishes.

Retrieval of earlier experience as the teacher's context: Skill-SD, arXiv 2604.10674, with hints in place of skills.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from agentrl.text.content import message_text
from agentrl.text.quoting import unquoted
from agentrl.types import JSON, Lesson, ToolCall, Turn

MAX_REMEMBERED = 2000
"""Hints of one scope; older ones are forgotten."""
MAX_RULES = 8
"""Rules in one turn's context; of more each turn gets others, so that all are taught in time."""
MAX_FAILED = 20_000
"""Episodes without success that are kept in mind."""
MAX_VOTES = 15
"""The newest like requests that are asked: a house that changed its rules is soon believed."""
MIN_SAME = 0.5
"""Least share of the shorter wish's words, filler aside, that two wishes on the same matter have in common."""

_WORD = re.compile(r"[^\s,;:!?()\[\]{}\"'`]+")
_ARGUMENT = "_"
_FILLER = frozenset((
    "a", "again", "always", "an", "and", "answer", "answers", "any", "are", "as", "ask", "asked", "at", "be", "but",
    "can", "could", "do", "don", "for", "from", "have", "here", "i", "in", "instead", "is", "it", "like", "me", "mean",
    "meant", "message", "messages", "more", "must", "my", "need", "never", "no", "not", "note", "notes", "of", "on",
    "only", "or", "please", "prefer", "rather", "replies", "reply", "said", "should", "so", "t", "text", "that", "the",
    "them", "then", "there", "this", "to", "told", "use", "using", "want", "wanted", "what", "when", "with", "would",
    "write", "written", "wrong", "you", "your",
))  # fmt: skip
"""Words of a wish that do not say what it is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """A hint and the turn whose next state brought it, or the imported lesson."""

    hint: str
    turn_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Remembered:
    received_at: float
    session: str
    words: frozenset[str]
    hint: str
    told: frozenset[str] = frozenset()
    """What the hint names that neither the request nor the action had."""
    by_user: bool = False
    """Whether a user said it in words."""
    is_rule: bool = False
    """Whether it is of no request and stands for all."""


class HintMemory:
    """The hints of a log, fed in the order of its signals; of several hints of one turn the newest stands."""

    def __init__(self) -> None:
        self._scopes: dict[str, dict[str, _Remembered]] = {}
        self._failed: dict[tuple[str, str], frozenset[str]] = {}
        """(scope, session) -> the words of its calls."""
        self._resting: dict[str, dict[str, _Remembered]] = {}
        """scope -> rules that are shown to nobody now."""
        self._is_awake = False
        self._may_be_shown: Callable[[str, str], bool] | None = None

    def heed(self, may_be_shown: Callable[[str, str], bool]) -> None:
        """Asks from now on, before a turn's hint is recalled for another turn, whether that may be.

        Args:
            may_be_shown: is given the ids of both turns, the one with the hint first.
        """
        self._may_be_shown = may_be_shown

    def _may(self, hint_of: str, turn: Turn) -> bool:
        return self._may_be_shown is None or self._may_be_shown(hint_of, turn.id)

    def clear(self) -> None:
        self._scopes.clear()
        self._failed.clear()
        self._resting.clear()

    def ended(self, scope: str, session: str, reward: float, calls: Sequence[ToolCall] = ()) -> None:
        """An episode got its reward. What a hint of a failed one names was of no help if it was called, and is not
        recalled; nothing is known of a hint that nobody followed.

        Args:
            calls: of the episode's turns, where it failed.
        """
        self._failed.pop((scope, session), None)
        if reward <= 0:
            self._failed[scope, session] = _lower(_called(calls))
            if len(self._failed) > MAX_FAILED:
                del self._failed[next(iter(self._failed))]

    def _did_not_help(self, scope: str, item: _Remembered) -> bool:
        called = self._failed.get((scope, item.session))
        return called is not None and (not item.told or bool(item.told & called))

    def add(self, turn: Turn, hint: str, *, by_user: bool = False) -> None:
        """Remembers what was said after a turn."""
        remembered = self._scopes.setdefault(turn.scope, {})
        remembered.pop(turn.id, None)
        remembered[turn.id] = _Remembered(
            received_at=turn.received_at,
            session=turn.session,
            words=request_words(turn),
            hint=hint,
            told=_lower(_words(unquoted(hint)))
            - _lower(_words(_request(turn.messages)))
            - _lower(_taken(turn))
            - _FILLER,
            by_user=by_user,
        )
        if len(remembered) > MAX_REMEMBERED:
            del remembered[next(iter(remembered))]

    def forget(self, turn: Turn) -> None:
        """Forgets what was said after a turn."""
        self._scopes.get(turn.scope, {}).pop(turn.id, None)

    def learn(self, lesson: Lesson) -> None:
        """Remembers a lesson from elsewhere, which no turn of the log brought; its id stands in the turn's place. It
        counts as older than every turn, and is a rule where it names no request."""
        self._resting.get(lesson.scope, {}).pop(lesson.id, None)
        self._scopes.setdefault(lesson.scope, {}).setdefault(lesson.id, _from_elsewhere(lesson))

    def rest(self, lesson: Lesson) -> None:
        """Shows a rule to nobody until it is learned again: the weights keep it by themselves."""
        self._scopes.get(lesson.scope, {}).pop(lesson.id, None)
        self._resting.setdefault(lesson.scope, {}).setdefault(lesson.id, _from_elsewhere(lesson))

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Meanwhile rules that rest stand as well: a measure of what was learned has to know them."""
        before, self._is_awake = self._is_awake, True
        try:
            yield
        finally:
            self._is_awake = before

    def has_resting(self, scope: str) -> bool:
        """Whether rules of a scope rest."""
        return bool(self._resting.get(scope))

    def is_wish(self, scope: str, turn_id: str) -> bool:
        """Whether what a turn brought, or a lesson from elsewhere says, is to stand whatever is asked."""
        found = self._scopes.get(scope, {}).get(turn_id)
        return found is not None and (found.by_user or found.is_rule)

    def recall(self, turn: Turn, own: str | None, similarity: float) -> Recalled | None:
        """The hint that was given most often after requests like this turn's, its own counted with them.

        Args:
            own: the turn's own hint; wins a tie.
            similarity: least share of common words (Jaccard) of like requests.
        """
        words = request_words(turn)
        votes: Counter[str] = Counter() if own is None else Counter({own: 1})
        source = {} if own is None else {own: turn.id}
        num_asked = 0
        for turn_id, item in reversed(self._scopes.get(turn.scope, {}).items()):
            later = item.received_at >= turn.received_at or turn_id == turn.id
            if later or self._did_not_help(turn.scope, item):
                continue
            if alike(words, item.words) >= similarity and self._may(turn_id, turn):
                votes[item.hint] += 1
                source.setdefault(item.hint, turn_id)
                num_asked += 1
                if num_asked == MAX_VOTES:
                    break
        if not votes:
            return None
        # most_common keeps the order of insertion among equals: the own hint first, then the newest
        hint = votes.most_common(1)[0][0]
        return Recalled(hint=hint, turn_id=source[hint])

    def standing(self, turn: Turn, own: str | None, most: int) -> list[Recalled]:
        """What stands for a turn whatever was asked: rules, then the newest hints of users from before it, the oldest
        first. Of those on the same matter the newest stands, and none on the matter of the turn's own.

        Args:
            own: the hint that the turn is shown anyway.
            most: how many hints of users, at most.
        """
        known = self._scopes.get(turn.scope, {})
        wishes = [
            (name, item)
            for name, item in known.items()
            if item.by_user and item.received_at < turn.received_at and name != turn.id
        ]
        resting = self._resting.get(turn.scope, {}) if self._is_awake else {}
        rules = [(name, item) for name, item in (known | resting).items() if item.is_rule]
        found: list[Recalled] = []
        matters = [] if own is None else [matter(own)]

        def stands(name: str, item: _Remembered) -> bool:
            about = matter(item.hint)
            return not any(same_matter(about, other) for other in matters) and self._may(name, turn)

        for name, item in sorted(wishes, key=lambda wish: wish[1].received_at, reverse=True):
            if len(found) == most:
                break
            if stands(name, item):
                found.append(Recalled(hint=item.hint, turn_id=name))
                matters.append(matter(item.hint))
        # Rules are not compared with each other: each was read and approved beside the others.
        standing = [Recalled(hint=item.hint, turn_id=name) for name, item in rules if stands(name, item)]
        drawn = sorted(standing, key=lambda rule: _drawn(turn.id, rule.turn_id))[:MAX_RULES]
        return [rule for rule in standing if rule in drawn] + found[::-1]


def _from_elsewhere(lesson: Lesson) -> _Remembered:
    return _Remembered(
        received_at=0.0,
        session="",
        words=frozenset(lesson.situation),
        hint=lesson.text,
        is_rule=is_rule(lesson),
    )


def is_rule(lesson: Lesson) -> bool:
    """Whether a lesson is of no request and stands for all."""
    return lesson.origin == "import" and not lesson.situation


def request_words(turn: Turn) -> frozenset[str]:
    """The words of the newest user message, the arguments of the turn's tool calls replaced by one mark."""
    taken = _taken(turn)
    return frozenset(_ARGUMENT if word in taken else word.lower() for word in _words(_request(turn.messages)))


def request_text(turn: Turn) -> str:
    """The newest user message as it stands, the arguments of the turn's tool calls replaced by the same mark."""
    taken = _taken(turn)

    def marked(match: re.Match[str]) -> str:
        word = match[0].rstrip(".")
        return _ARGUMENT + match[0][len(word) :] if word in taken else match[0]

    return _WORD.sub(marked, _request(turn.messages))


def num_arguments(turn: Turn) -> int:
    """How many words of the newest user message the turn's tool calls took over."""
    return len(_taken(turn).intersection(_words(_request(turn.messages))))


def asked_words(messages: Sequence[JSON]) -> frozenset[str]:
    """The words of the newest user message of a request that nothing has answered yet."""
    return frozenset(word.lower() for word in _words(_request(messages)))


def alike_unanswered(asked: frozenset[str], known: frozenset[str], num_taken: int) -> float:
    """Likeness of a request that nothing has answered yet to one whose arguments are marked: |a ∩ b| / |a ∪ b|, where
    as many of its own words as that one had arguments count as the mark.

    Args:
        asked: from `asked_words`.
        known: from `request_words`.
        num_taken: from `num_arguments`, of the known request.
    """
    if _ARGUMENT not in known:
        return alike(asked, known)
    own = len(asked - known)
    common = len(asked & known) + (own > 0)
    return common / (len(known) + max(0, own - num_taken)) if asked else 0.0


def _drawn(turn_id: str, lesson: str) -> bytes:
    """The place of a rule in the order in which a turn gets them, the same at every look."""
    return hashlib.sha256(f"{turn_id}\0{lesson}".encode()).digest()


def _request(messages: Sequence[JSON]) -> str:
    return next((message_text(m) for m in reversed(messages) if m.get("role") == "user"), "")


def _taken(turn: Turn) -> set[str]:
    return _called(turn.reply.tool_calls)


def _called(calls: Iterable[ToolCall]) -> set[str]:
    return {word for call in calls for text in _texts(call.arguments) for word in _words(text)}


def _lower(words: Iterable[str]) -> frozenset[str]:
    return frozenset(word.lower() for word in words)


def _words(text: str) -> list[str]:
    return [word for word in (match.rstrip(".") for match in _WORD.findall(text)) if word]


def _texts(arguments: str) -> list[str]:
    """The texts in a tool call's arguments; the whole where they are not JSON."""
    try:
        values = json.loads(arguments)
    except json.JSONDecodeError:
        return [arguments]
    return [str(value) for value in values.values()] if isinstance(values, dict) else [str(values)]


def matter(hint: str) -> frozenset[str]:
    """What a hint is about; all of its words where it has nothing but filler."""
    words = frozenset(word.lower() for word in _words(unquoted(hint)))
    return words - _FILLER or words


def same_matter(a: frozenset[str], b: frozenset[str]) -> bool:
    """Whether two hints are about the same thing, whatever they say of it."""
    return bool(a) and bool(b) and len(a & b) >= MIN_SAME * min(len(a), len(b))


def alike(a: frozenset[str], b: frozenset[str]) -> float:
    """Likeness of two requests: |a ∩ b| / |a ∪ b|; requests without words are like none."""
    return len(a & b) / len(a | b) if a and b else 0.0
