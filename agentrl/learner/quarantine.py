"""Contradictory signals: the same done in the same situation, called right in one session and wrong in another.

    situation   within a scope, the words of the newest request and of the newest tool output behind it, without those
                that the action took over as arguments
    action      the calls, without the words of the request; or the text of the reply
    sign        of the reward of the most trusted source; a hint without a reward says: not like this

One session has one vote on an action in a situation, its newest. A turn is contradicted when

    opposite    at least as much trust speaks against its sign as for it, its own included; against a user's correction
                only other users do, unless `min_sessions` says that users are strangers: that a command worked
                elsewhere says nothing of what somebody wants
    mixed       one source rewards it and another one punishes it
    elsewhere   another hint, saying something else, came from at least `FAR` times as much trust, and from two sessions
    without     at least as much trust was rewarded after the same request for a call that has no word of the hint, as
                gave a like hint or was rewarded for a call that has one: whatever failed, it went well without
    refused     among strangers, too much trust was rewarded for the same calls but for options that the hint does not
                name, whatever had been asked, beside that which gave a like hint after such calls: a tool's hint
                speaks of what failed, and that works
    alone       fewer than `min_sessions` gave a like hint in the situation, whatever had been done, or after the very
                same calls, whatever had been asked

Then nothing is learned from it, and its hint is shown to no other turn, until that changes. Nobody knows here which
side is right: the many, as far as they are trusted, against the few. Among strangers the many may be an attack on one
request. There a correction, which changes what the policy does, needs more than `CLEAR` times the trust of what speaks
against it; what went well needs a majority, as elsewhere. What the many say wrongly is for the gate, the budgets and
the watch.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from agentrl.learner.actions import (
    ARGUMENT,
    Words,
    action_of,
    are_like,
    call_texts,
    call_words,
    done_words,
    marked,
    named_options,
    output_of,
    request_of,
    situation_of,
    without_options,
    words_of,
)
from agentrl.learner.build import reward_of
from agentrl.learner.trust import Trust, source_of
from agentrl.teacher.contexts import PREFERENCE
from agentrl.text.quoting import unquoted
from agentrl.types import Signal, SignalSource, Turn

MAX_VOTES = 4000
"""Turns of one scope that are remembered; the oldest leave."""
MAX_ASKED = 15
"""The newest like turns that are asked, as many as a recall asks: a house that changed its rules is soon believed."""
FAR = 2.0
CLEAR = 7.0
"""Times the trust that a correction must have among strangers of those who did well by what it speaks against: where
these are an eighth or more it is not taught."""
MIN_SAME = 0.5
"""Least share of the shorter hint's words that like hints have in common."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Vote:
    turn_id: str
    session: str
    request: Words
    output: Words
    sign: int
    hint: Words
    told: Words
    """Those of the hint's words that neither the request nor the action has."""
    options: Words
    """The options that the hint names."""
    trust: float
    by_user: bool
    mixed: str
    """Which source punishes what another one rewards; empty where none does."""
    number: int = field(compare=False)
    """Grows with time."""

    def is_like(self, other: _Vote) -> bool:
        return are_like(self.request, other.request) and (
            (not self.output and not other.output) or are_like(self.output, other.output)
        )

    def side_of(self, other: _Vote, done: Words) -> bool | None:
        """Whether what became of another turn speaks for this one's hint; None where it says nothing of it.

        Args:
            done: the words of the other turn's calls and the names of their tools.
        """
        if other.sign > 0:
            return bool(self.told & done) if done else None
        return True if self.says_like(other) else None

    def speaks_of(self, place: _Place, elsewhere: _Place) -> bool:
        """Whether at another place was done what this one's hint speaks of: the same but for options that it does not
        name."""
        return place[0] == elsewhere[0] and without_options(place[1], self.options) == without_options(
            elsewhere[1], self.options
        )

    def says_like(self, other: _Vote) -> bool:
        """Whether both give like hints."""
        return bool(other.hint) and are_like(self.hint, other.hint, MIN_SAME)


_Place = tuple[str, tuple[str, ...]]
"""(scope, action)"""


class Quarantine:
    """What the signals of a line of versions say of like situations, fed in their order.

    Args:
        min_sessions: sessions that must give like hints before one is believed.
    """

    def __init__(self, trust: Trust, *, min_sessions: int = 1) -> None:
        self._trust = trust
        self._min_sessions = min_sessions
        self._least = CLEAR if min_sessions > 1 else 1.0
        self._votes: dict[_Place, OrderedDict[str, _Vote]] = {}
        self._places: OrderedDict[str, _Place] = OrderedDict()
        """turn id -> where its vote is."""
        self._requests: dict[tuple[str, Words], OrderedDict[str, None]] = {}
        """(scope, request) -> its turns."""
        self._alike: dict[int, set[_Place]] = {}
        """Among strangers: the places of one scope where the same was done but for options."""
        self._num_added = 0
        self._found: dict[str, str | None] = {}
        """turn id -> what speaks against it, as far as asked since the votes changed last."""
        self._changed: set[_Place] = set()
        self._newest: dict[str, _Place] = {}
        """The turns of which something was said since `changed` was asked."""
        self._withdrawn: set[tuple[str, Words]] = set()
        """(scope, request) of the votes that were given up or replaced since."""

    def add(self, turn: Turn, signals: Sequence[Signal]) -> None:
        """Takes in all that is said of a turn, in the place of what was said before; the same once more is no newer."""
        source = source_of(signals)
        trust = self._trust.of(source, turn.scope)
        sign = sign_of(signals)
        if source is None or trust == 0 or sign == 0:
            self._remove(turn.id)
            return
        request, output = situation_of(turn)
        hint = unquoted(next((signal.hint for signal in signals if signal.hint), "")) if sign < 0 else ""
        known = set(words_of(" ".join((request_of(turn), output_of(turn), *call_texts(turn)))))
        place = (turn.scope, action_of(turn))
        vote = _Vote(
            turn_id=turn.id,
            session=turn.session,
            request=request,
            output=output,
            sign=sign,
            hint=marked(hint, known),
            told=marked(hint, {*words_of(request_of(turn)), *words_of(" ".join(call_texts(turn)))})
            - {ARGUMENT, *(call.name.lower() for call in turn.reply.tool_calls)},
            options=named_options(hint, place[1]) if hint and self._min_sessions > 1 else frozenset(),
            trust=trust,
            by_user=source is SignalSource.USER,
            mixed=_punished_by(self._trust.heard(signals, turn.scope)) if sign > 0 else "",
            number=self._num_added,
        )
        if self._places.get(turn.id) == place and self._votes[place][turn.id] == vote:
            return
        self._remove(turn.id)
        self._num_added += 1
        self._found.clear()
        self._requests.setdefault((turn.scope, request), OrderedDict())[turn.id] = None
        self._votes.setdefault(place, OrderedDict())[turn.id] = vote
        if self._min_sessions > 1:
            self._alike.setdefault(_plain_key(place), set()).add(place)
        self._places[turn.id] = self._newest[turn.id] = place
        self._changed.add(place)
        while len(self._places) > MAX_VOTES:
            self._remove(next(iter(self._places)))

    def __contains__(self, turn_id: object) -> bool:
        """Whether a turn's vote is remembered."""
        return turn_id in self._places

    def contradiction(self, turn_id: str) -> str | None:
        """What speaks against a turn's signal, as a sentence; None where nothing does, or nothing is known of it."""
        if turn_id not in self._found:
            place = self._places.get(turn_id)
            own = None if place is None else self._votes[place][turn_id]
            self._found[turn_id] = None if own is None or place is None else self._against(own, place)
        return self._found[turn_id]

    def may_be_shown(self, hint_of: str, turn_id: str) -> bool:
        """Whether the hint of one turn is anything for another one: it is believed, and the other did not go well
        without it; what a user wants is no matter of that."""
        if self.contradiction(hint_of) is not None:
            return False
        place, other = self._places.get(hint_of), self._places.get(turn_id)
        if place is None or other is None:
            return True
        hinted, vote = self._votes[place][hint_of], self._votes[other][turn_id]
        if hinted.by_user or not hinted.told:
            return True
        return hinted.side_of(vote, done_words(other[1])) is not False

    def _against(self, own: _Vote, place: _Place) -> str | None:
        if own.mixed:
            return f"it is rewarded, and {own.mixed} punishes it"
        sessions: dict[str, _Vote] = {own.session: own}
        num_asked = 0
        for vote in reversed(self._votes[place].values()):
            if vote.session in sessions or not own.is_like(vote):
                continue
            sessions[vote.session] = vote
            num_asked += 1
            if num_asked == MAX_ASKED:
                break
        votes = list(sessions.values())
        is_wish = own.by_user and own.sign < 0 and self._min_sessions == 1
        if is_wish:
            votes = [vote for vote in votes if vote.by_user or vote.sign < 0]
        why = _opposite(own, votes, self._least) or _elsewhere(own, votes)
        if why is None and not is_wish:
            why = self._without(own, place)
        return why or self._refused(own, place) or self._alone(own, place)

    def _without(self, own: _Vote, place: _Place) -> str | None:
        if not own.told or not call_words(place[1]):
            return None
        asked = self._after_the_same(place[0], own.request)
        sides = _sides(own, ((own.side_of(vote, done), vote) for vote, done in asked))
        against = _outvoting(sides, self._least)
        if not against:
            return None
        return (
            f"{len(against)} of {len(sides)} sessions with the same request went well without what its hint says, as "
            f"turn {against[0].turn_id}"
        )

    def _refused(self, own: _Vote, place: _Place) -> str | None:
        if self._min_sessions == 1 or not own.hint or own.by_user or not call_words(place[1]):
            return None
        done = self._where_done(own, place)
        sides = _sides(own, ((vote.sign < 0, vote) for vote in done if vote.sign > 0 or own.says_like(vote)))
        against = _outvoting(sides, self._least)
        if not against:
            return None
        return (
            f"{len(against)} of {len(sides)} sessions did with success what its hint speaks against, as turn "
            f"{against[0].turn_id}"
        )

    def _where_done(self, own: _Vote, place: _Place) -> list[_Vote]:
        """The votes on what a turn's hint speaks of, whatever had been asked; the newest first."""
        found = [
            vote
            for elsewhere in self._alike[_plain_key(place)]
            if own.speaks_of(place, elsewhere)
            for vote in self._votes[elsewhere].values()
        ]
        return sorted(found, key=lambda vote: vote.number, reverse=True)

    def _after_the_same(self, scope: str, request: Words) -> Iterator[tuple[_Vote, Words]]:
        """The votes after a request, after one that holds all its words or one whose words it holds, each with the
        words of its calls and the names of their tools; the newest first."""
        turn_ids = [
            turn_id
            for (where, words), turns in self._requests.items()
            if where == scope and are_like(request, words, 1.0)
            for turn_id in turns
        ]
        found = [
            (self._votes[self._places[turn_id]][turn_id], self._places[turn_id][1]) for turn_id in turn_ids
        ]
        for vote, action in sorted(found, key=lambda item: item[0].number, reverse=True):
            yield vote, done_words(action)

    def _alone(self, own: _Vote, place: _Place) -> str | None:
        if not own.hint or self._min_sessions == 1:
            return None
        agreeing = {own.session}
        for turn_id, elsewhere in reversed(self._places.items()):
            vote = self._votes[elsewhere][turn_id]
            if self._vouches(own, place, vote, elsewhere):
                agreeing.add(vote.session)
                if len(agreeing) >= self._min_sessions:
                    return None
        return (
            f"{len(agreeing)} of the {self._min_sessions} sessions that guards.min_sessions asks for say so"
        )

    @staticmethod
    def _vouches(own: _Vote, place: _Place, other: _Vote, elsewhere: _Place) -> bool:
        """Whether another turn's hint counts towards the sessions that are to say so."""
        is_same = place == elsewhere and bool(call_words(place[1]))
        return place[0] == elsewhere[0] and own.says_like(other) and (is_same or own.is_like(other))

    def changed(self, turn_ids: Iterable[str]) -> list[str]:
        """Those of the turns about whose action something was said, or that were given a like hint elsewhere."""
        newest = [(place, self._votes[place][turn_id]) for turn_id, place in self._newest.items()]
        like = {_plain_key(place) for place in self._changed} if self._min_sessions > 1 else set()
        found = []
        for turn_id in turn_ids:
            place = self._places.get(turn_id)
            if place is None:
                continue
            own = self._votes[place][turn_id]
            if (
                place in self._changed
                or (_plain_key(place) in like and any(own.speaks_of(place, where) for where in self._changed))
                or any(
                    scope == place[0] and are_like(own.request, words, 1.0)
                    for scope, words in self._withdrawn
                )
                or any(self._may_free(own, place, vote, elsewhere) for elsewhere, vote in newest)
            ):
                found.append(turn_id)
        self._changed.clear()
        self._newest.clear()
        self._withdrawn.clear()
        return found

    def _may_free(self, own: _Vote, place: _Place, vote: _Vote, elsewhere: _Place) -> bool:
        """Whether what was said elsewhere may end a turn's quarantine."""
        if place[0] != elsewhere[0]:
            return False
        vouches = self._min_sessions > 1 and self._vouches(own, place, vote, elsewhere)
        is_same = bool(own.hint) and are_like(own.request, vote.request, 1.0)
        return vouches or (is_same and own.side_of(vote, done_words(elsewhere[1])) is True)

    def _remove(self, turn_id: str) -> None:
        self._newest.pop(turn_id, None)
        place = self._places.pop(turn_id, None)
        if place is None:
            return
        self._found.clear()
        self._changed.add(place)  # what is given up speaks against nobody any more
        vote = self._votes[place].pop(turn_id)
        self._withdrawn.add((place[0], vote.request))
        if not self._votes[place]:
            del self._votes[place]
            if self._min_sessions > 1:
                key = _plain_key(place)
                self._alike[key].discard(place)
                if not self._alike[key]:
                    del self._alike[key]
        asked = (place[0], vote.request)
        del self._requests[asked][turn_id]
        if not self._requests[asked]:
            del self._requests[asked]


def _sides(own: _Vote, heard: Iterable[tuple[bool | None, _Vote]]) -> dict[str, tuple[bool, _Vote]]:
    """By session, a turn's own first, whether its newest vote that says anything is with the turn's hint; at most
    `MAX_ASKED` others."""
    sides: dict[str, tuple[bool, _Vote]] = {own.session: (True, own)}
    for side, vote in heard:
        if side is not None and vote.session not in sides:
            sides[vote.session] = (side, vote)
            if len(sides) > MAX_ASKED:
                break
    return sides


def _outvoting(sides: Mapping[str, tuple[bool, _Vote]], least: float) -> list[_Vote]:
    """The votes against, by session with or against; none where a hint has more than `least` times their trust."""
    against = [vote for is_with, vote in sides.values() if not is_with]
    with_it = [vote for is_with, vote in sides.values() if is_with]
    return against if _outweighs(against, with_it, least) else []


def _outweighs(against: Sequence[_Vote], with_it: Sequence[_Vote], least: float) -> bool:
    """Whether there is a vote against, and `least` times their trust is as much; of equal weights exactly."""
    trusted = math.fsum(vote.trust for vote in with_it)
    return bool(against) and least * math.fsum(vote.trust for vote in against) >= trusted


def _opposite(own: _Vote, votes: Sequence[_Vote], least: float) -> str | None:
    with_it = [vote for vote in votes if vote.sign == own.sign]
    against = [vote for vote in votes if vote.sign == -own.sign]
    if not _outweighs(against, with_it, least if own.sign < 0 else 1.0):
        return None
    said, other = ("wrong", "right") if own.sign < 0 else ("right", "wrong")
    return (
        f"it calls {said} what {len(against)} of {len(votes)} sessions in the same situation call {other}, as turn "
        f"{against[0].turn_id}"
    )


def _elsewhere(own: _Vote, votes: Sequence[_Vote]) -> str | None:
    if not own.hint:
        return None
    said: dict[Words, list[_Vote]] = {}
    for vote in votes:
        if vote.hint:
            said.setdefault(vote.hint, []).append(vote)
    weight = sum(vote.trust for vote in said[own.hint])
    for words, others in said.items():
        is_other = bool(words - own.hint) and bool(own.hint - words)
        if is_other and len(others) > 1 and sum(vote.trust for vote in others) >= FAR * weight:
            return (
                f"its hint sends elsewhere than that of {len(others)} of {len(votes)} sessions in the same situation, "
                f"as turn {others[0].turn_id}"
            )
    return None


def _punished_by(signals: Iterable[Signal]) -> str:
    """Who punishes it by his newest word: whoever changed his mind contradicts nobody."""
    heard = list(signals)
    newest = ((source, reward_of(one for one in heard if one.source == source)) for source in PREFERENCE)
    return next((f"the {source}" for source, reward in newest if (reward or 0) < 0), "")


def sign_of(signals: Sequence[Signal]) -> int:
    """1 what was done is right, -1 it should have been otherwise, 0 not said."""
    reward = reward_of(signals)
    if reward:
        return 1 if reward > 0 else -1
    return -1 if any(signal.hint or signal.preferred for signal in signals) else 0


def _plain_key(place: _Place) -> int:
    """Of a scope and an action without its options; a number, for an action may be a whole file."""
    return hash((place[0], without_options(place[1], frozenset())))
