"""Lessons from hints: which hints are one lesson, and in which situation one asks whether it was learned.

    hint + turn -> form, situation, names -> a lesson that is there (same form, or like request and same names)
                                             or a new one

Two hints are one lesson where their texts are equal but for what the action of the turn brought along ("cat: a.txt: .."
and "cat: b.md: .."), where like requests were answered with different words for the same thing, or where the texts
name the same and differ in nothing but the command that failed ("cat: not here; use zorp" and "less: not here; use
zorp" are one rule). Texts that only look alike are two: "use a" and "use b" differ in one word. Lessons never cross
scopes (law 10).

A lesson is asked for where it was learned (`agentrl.learner.lesson_probes`); one from elsewhere that comes with no
request has no such place and no probe. What its text names stands with the probe.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import Final, Protocol

from agentrl.signals.candidates import action
from agentrl.store.claims import Claimed
from agentrl.store.lesson_log import Approve, LessonLog
from agentrl.store.lesson_rows import NewHint
from agentrl.teacher.recall import alike, request_words
from agentrl.text.quoting import unquoted
from agentrl.types import JSON, Lesson, LessonState, Reply, Turn

LIKENESS: Final = 0.8
"""Least share of common words of two requests that ask for the same."""
SKILL: Final = "skill:"
"""Before a skill's name where lessons are named; outside the default scope the scope stands between both."""
MAX_NAME_CHARS: Final = 60
BATCH: Final = 500
"""Hints that become lessons in one transaction."""

_SPACE = re.compile(r"\s+")
_SPACES = r"\s+"
_WORD = re.compile(r"[^\s,;!?()\[\]{}\"'`]+")
_PROGRAMS = re.compile(r"^(?P<old>\S+) does not work here; (?P<new>\S+) works$")
_ACTIONS = re.compile(r"^`(?P<old>[^`]+)` failed; `(?P<new>[^`]+)` worked$")
_VERBS = (
    r"(?:use|try|run|call|prefer|choose|pick|invoke|write|say|add|did\ you\ mean|you\ meant"
    r"|(?:replaced|superseded|succeeded|handled|done)\ (?:by|with)|(?:renamed|moved|changed|switch|switched)\ to"
    r"|goes\ by|known\ as|called|it\ has|(?:is|are)\ now|->|=>|(?:sign\ off|end|begin)\ with)"
)
_OFFERS = re.compile(
    rf"""(?ix) (?<![\w-]){_VERBS} :?\s+
    (?:(?:the|a|an|our|instead|command|option|flag|menu|button|method|function|tool|name)\s+){{0,3}}
    (?: `(?P<tick>[^`\n]+)` | "(?P<double>[^"\n]+)" | '(?P<single>[^'\n]+)'
        | (?P<bare>[^\s`"',;]+(?:\s-{{1,2}}\w[\w-]*)*) )"""
)
_WORKS = re.compile(
    r"""(?ix) (?:(?:[,;.]|\bbut)\s+(?P<name>[^\s`"',;]+)\ (?:works|does\ the\ same|is\ the\ one|can\ be\ used)
    | \bonly\s+(?P<only>[^\s`"',;]+)\ (?:is|are|works)
    | (?:^|\b(?:here|now)\ )(?P<first>[^\s`"',;]+)\ is\ (?:used\ (?:in\ place|instead)\ of
        |the\ (?:right\ )?command\ to)) \b"""
)
_IS = re.compile(
    r"""(?ix) \b(?:(?:the|its)\ (?:right\ |new\ )(?:command|program|tool|option|name)(?:\ here)?\ is
        | the\ command\ (?:to\ use\ )?is | you\ need | asks\ for | allowed:
        | has(?=\ \S+\ (?:for\ that|in\ place|instead)))
    \s+ (?P<bare>[^\s`"',;]+)"""
)
"""What is named as the right one in other words. An offer counts before it."""
_CODELIKE = re.compile(r"[._/<>=\d-]|[a-z][A-Z]|::")
_ORDINARY: Final = frozenset((
    "a", "an", "and", "another", "any", "are", "at", "be", "both", "by", "can", "either", "fewer", "for", "from",
    "her", "here", "his", "in", "instead", "is", "it", "its", "less", "more", "my", "no", "not", "of", "on", "one",
    "only", "or", "other", "our", "out", "plain", "proper", "quotes", "shorter", "something", "such", "than", "that",
    "the", "their", "them", "there", "these", "this", "those", "to", "two", "using", "valid", "what", "with",
    "without", "your",
))  # fmt: skip


class Requested(Protocol):
    """What a lesson needs of the turn that it comes from; `agentrl.types.Turn` is one."""

    @property
    def scope(self) -> str: ...
    @property
    def reply(self) -> Reply: ...


def gather(log: LessonLog, policy: str, approve: Approve) -> None:
    """Gives every accepted hint its lesson. Whoever may write learning.db may call it, at any time: what was
    gathered is not gathered again.

    Args:
        approve: "auto" begins lessons as approved and approves hints that were proposed. "review" begins them as
            proposed, and only texts of one form are one lesson: other words are not what somebody read and approved.
    """
    if approve == "auto":
        log.approve_proposed(policy)
    known: Known | None = None
    while hints := log.new_hints(policy, limit=BATCH):
        if known is None:
            known = Known(log.bare_lessons(policy))
        found: list[Lesson] = []
        links: dict[int, tuple[str, str]] = {}
        for item in hints:
            lesson = lesson_of(item, state_of(approve))
            same = known.same(lesson, done=done_in(item.turn), in_other_words=approve == "auto")
            if same is None:
                found.append(lesson)
                known.add(lesson)
            links[item.signal] = (item.turn.id, (same or lesson).id)
        log.add_lessons(found, links, policy)


def without_refused(log: LessonLog, claims: Iterable[Claimed], policy: str) -> list[Claimed]:
    """The claims without the offers that say, in whatever words, what somebody rejected or retired."""
    claims = list(claims)
    if not any(signal.offered for claim in claims for signal in claim.signals):
        return claims
    down = (LessonState.REJECTED, LessonState.RETIRED)
    known = Known(lesson for lesson in log.bare_lessons(policy) if lesson.state in down)

    def may_stay(turn: Turn, offered: str) -> bool:
        item = NewHint(signal=0, hint=offered, turn=turn, next_state=None)
        lesson = lesson_of(item, LessonState.PROPOSED)
        return known.same(lesson, done=done_in(turn), in_other_words=True) is None

    return [
        replace(
            claim,
            signals=tuple(
                signal
                if signal.offered is None or may_stay(claim.turn, signal.offered)
                else replace(signal, offered=None)
                for signal in claim.signals
            ),
        )
        for claim in claims
    ]


class Known:
    """Lessons, filed by what two that say the same have in common: a judge that is a model words every hint anew, and
    only what could be the same is compared."""

    def __init__(self, lessons: Iterable[Lesson] = ()) -> None:
        self._filed: defaultdict[tuple[str, ...], list[Lesson]] = defaultdict(list)
        for lesson in lessons:
            self.add(lesson)

    def add(self, lesson: Lesson) -> None:
        for key in self._keys(lesson):
            self._filed[key].append(lesson)

    def same(self, lesson: Lesson, *, done: frozenset[str], in_other_words: bool) -> Lesson | None:
        """See `merged_into`."""
        like = [other for key in self._keys(lesson) for other in self._filed.get(key, ())]
        return merged_into(lesson, like, done=done, in_other_words=in_other_words)

    @staticmethod
    def _keys(lesson: Lesson) -> list[tuple[str, ...]]:
        keys: list[tuple[str, ...]] = [(lesson.scope, "form", lesson.form)]
        names = names_in(lesson.probe)
        return [*keys, (lesson.scope, "names", *names)] if names else keys


def state_of(approve: Approve) -> LessonState:
    """The state in which a lesson begins."""
    return LessonState.APPROVED if approve == "auto" else LessonState.PROPOSED


def lesson_of(item: NewHint, state: LessonState) -> Lesson:
    """A hint as a lesson of its own, with the request of its turn as the situation of its probe."""
    text, turn = item.hint.strip(), item.turn
    form = form_of(text, turn)
    return Lesson(
        id=lesson_id(turn.scope, form),
        text=text,
        state=state,
        turn_ids=(turn.id,),
        scope=turn.scope,
        form=form,
        situation=tuple(sorted(request_words(turn))),
        probe=_probe(turn, text),
    )


def of_skill(scope: str, name: str, text: str, turn: Turn | None) -> Lesson:
    """A skill that teachers may be shown, as a lesson.

    Args:
        text: what it says to do.
        turn: the first of the episode that it was written from, whose request is its situation; None where it came
            from elsewhere and has no probe.
    """
    return Lesson(
        id=f"{SKILL}{name}" if scope == "default" else f"{SKILL}{scope}/{name}",
        text=text,
        state=LessonState.APPROVED,
        turn_ids=() if turn is None else (turn.id,),
        scope=scope,
        origin="skill",
        situation=() if turn is None else tuple(sorted(request_words(turn))),
        probe=None if turn is None else _probe(turn, text),
    )


def name_of_skill(lesson: Lesson) -> str:
    """The name of the skill that `of_skill` made a lesson of."""
    return lesson.id.removeprefix(SKILL).rpartition("/")[2]


def _probe(turn: Turn, text: str) -> JSON:
    return {"turn_id": turn.id, "held_out": False, "names": names_of(text, turn)}


def lesson_id(scope: str, form: str) -> str:
    """The same on every machine, so that a hint that is gathered twice makes one lesson. Lessons of earlier releases
    keep their shorter ids, the same digits cut off sooner: what is of their form is merged into them."""
    return "L" + hashlib.sha256(f"lesson\0{scope}\0{form}".encode()).hexdigest()[:16]


def merged_into(
    lesson: Lesson,
    known: Iterable[Lesson],
    *,
    done: frozenset[str] = frozenset(),
    in_other_words: bool = True,
) -> Lesson | None:
    """The lesson that says the same already; None where there is none.

    Args:
        done: words of what was done in the lesson's turn, see `done_in`.
        in_other_words: whether one may that names the same after a like request, or but for what was done.
    """
    of_scope = [other for other in known if other.scope == lesson.scope]
    for other in of_scope:
        if other.form == lesson.form:
            return other
    wanted, situation = names_in(lesson.probe), frozenset(lesson.situation)
    if not in_other_words or not wanted:
        return None
    for other in of_scope:
        if names_in(other.probe) == wanted and (
            alike(situation, frozenset(other.situation)) >= LIKENESS
            or _differs_by(done, lesson.form, other.form)
        ):
            return other
    return None


def done_in(turn: Requested) -> frozenset[str]:
    """The words of a turn's actions, in lower case."""
    words = (word for call in turn.reply.tool_calls for word in _WORD.findall(action(call)))
    return frozenset(word.strip(".:").casefold() for word in words)


def _differs_by(done: frozenset[str], form: str, other: str) -> bool:
    """Whether two forms are the same word by word, those that were done in the first one's turn aside."""
    ours, theirs = _WORD.split(form), _WORD.split(other)
    pairs = zip(_WORD.findall(form), _WORD.findall(other), strict=False)
    return ours == theirs and all(one == two or one.strip(".:") in done for one, two in pairs)


def form_of(text: str, turn: Requested) -> str:
    """The text in lower case, single spaces, without the mark of a quotation, the arguments of the turn's action
    replaced by one mark. Programs and options stay: they are what lessons are about."""
    plain = _SPACE.sub(" ", unquoted(text).strip())
    arguments = {
        word.strip(".:")
        for call in turn.reply.tool_calls
        for word in _WORD.findall(action(call))[1:]
        if not word.startswith("-")
    }
    named = names_of(text, turn)

    def masked(match: re.Match[str]) -> str:
        word = match[0]
        bare = word.strip(".:")
        return word.replace(bare, "_") if bare and bare in arguments and bare not in named else word

    return _WORD.sub(masked, plain).casefold().rstrip(".! ")


def names_of(text: str, turn: Requested) -> list[str]:
    """What a text names as right; nothing where it only wishes."""
    plain = unquoted(text).strip()
    if match := _PROGRAMS.match(plain):
        return _short([match["new"]])
    if match := _ACTIONS.match(plain):
        old, new = match["old"].split(), match["new"].split()
        return _short([word for word in new if word not in old] or [match["new"]])
    done = " ".join(action(call) for call in turn.reply.tool_calls)
    found = [match["name"] or match["only"] or match["first"] for match in _WORKS.finditer(plain)]
    for match in _OFFERS.finditer(plain):
        marked = match["tick"] or match["double"] or match["single"]
        bare = (match["bare"] or "").strip(".:!?()")
        if marked:
            found.append(marked.strip())
        # said of an answer of text, "use metric units" names no thing
        elif bare.casefold() not in _ORDINARY and (turn.reply.tool_calls or _CODELIKE.search(bare)):
            found.append(bare)
    if turn.reply.tool_calls:
        named = [match["bare"].strip(".:!?()") for match in _IS.finditer(plain)]
        found += [name for name in named if name.casefold() not in _ORDINARY]
    # a name that the failed action held already tells nothing
    return _short([name for name in found if len(name) > 1 and not stands_in(name, done)][:1])


def _short(names: list[str]) -> list[str]:
    return [] if any(len(name) > MAX_NAME_CHARS for name in names) else names


def names_in(probe: JSON | None) -> list[str]:
    """What the text of a probe's lesson names."""
    return [] if probe is None else list(probe["names"])


def stands_in(name: str, text: str) -> bool:
    """Whether a name stands in a text as a word of its own, whatever the case and spacing."""
    parts = [re.escape(part) for part in name.split()]
    return re.search(rf"(?i)(?<![\w-]){_SPACES.join(parts)}(?![\w-])", text) is not None


def is_like(turn: Turn, lesson: Lesson) -> bool:
    """Whether a turn was asked for what the lesson is about."""
    return alike(request_words(turn), frozenset(lesson.situation)) >= LIKENESS
