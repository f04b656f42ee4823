"""Law 3's account: accepted = trained + rejected (with a reason) + pending, at every moment.

Nothing is added up on the way. The fate of each turn is derived, when it is asked for, from the raw tables of both
files: the TEMP VIEW `fates` below, one row a turn of log.db. The first line of the table that applies decides.

    apart     eval, off       its purpose forbids learning; not accepted
    apart     control         a conversation of the control arm; not accepted
    trained                   in a step of a version that serves or served and was not rolled back
                              (or, where all else below would reject it as without a lesson of its own: its answer
                              was learned in such a step on the prompt of another turn)
    rejected  (recorded)      set aside by the gate, a rollback, the learner, or age
    pending   review          could only be shown another turn's hint, which waits for approval (recorded)
    pending   claimed         in the learner's hands, or in a step whose version does not serve yet
    rejected  side            a title, a summary: no turn of the agent's task
    rejected  error           ended in a typed error
    rejected  empty           nothing was sampled
    rejected  ambiguous       which turn it answers, or which request answers it, could not be decided
    rejected  not_chosen      another choice of its request went on
    rejected  client_gone     nobody saw the reply
    rejected  lesson_shown    a lesson stood in the prompt (learn.show_lessons)
    rejected  operator_block  the same of any other text of an operator
    rejected  no_group        the recipe compares turns of a group, and this one has none
    pending   unjudged        the recipe takes what there is, and the judge may still add to it
    pending   review          has hints that wait for approval, and no approved one
    rejected  lesson_rejected, lesson_retired    all its hints belong to lessons that are not to be taught
    pending   waiting         has what the recipe needs
    pending   open            no next state yet
    pending   waiting         the recipe compares answers, and another one to the same prompt may still come
    pending   unjudged        the judge has not finished with it
    pending   waiting         judged, and its group is not complete
    rejected  judge_failed    the judge failed as often as it may
    pending   waiting         judged, and the recipe needs no more than that
    rejected  no_hint, no_reward    judged, without what the recipe needs

The last lines may change their mind: a user's late feedback turns no_hint into waiting, an approval turns review into
waiting. Once a turn is older than the age limit, `LearningLog.expire` records its fate and it stays.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from agentrl.store.database import reading, scalar


class Reason(StrEnum):
    """Why turns are rejected. The learner may add reasons of its own."""

    SIDE = "side"
    ERROR = "error"
    EMPTY = "empty"
    AMBIGUOUS = "ambiguous"
    NOT_CHOSEN = "not_chosen"
    CLIENT_GONE = "client_gone"
    LESSON_SHOWN = "lesson_shown"
    OPERATOR_BLOCK = "operator_block"
    NO_GROUP = "no_group"
    NO_CONTEXT = "no context"
    """Nothing to show the teacher. A signal that comes later makes the turn claimable again, and so does a lesson that
    is approved or imported later."""
    ALREADY_RIGHT = "already right"
    """What was right is held only beside what is learned, and as far as version 0 would have done it too: there was
    nothing to hold it beside, or it was learned since. Claimable again as turns without a context are."""
    NO_PRAISE = "no praise"
    """Only a reward spoke of it, and its update praised nothing: by `guards.max_penalty` penalties then weigh nothing.
    Claimable again as turns without a context are."""
    REVIEW = "review"
    """A note and no rejection, the turn is pending: what it could be shown, another turn's hint, waits for approval.
    Every decision on a lesson wipes it out (`LessonLog.decide`)."""
    NO_HINT = "no_hint"
    NO_REWARD = "no_reward"
    JUDGE_FAILED = "judge_failed"
    EXPIRED = "expired"
    LESSON_REJECTED = "lesson_rejected"
    LESSON_RETIRED = "lesson_retired"
    GROUP_INCOMPLETE = "group_incomplete"
    CONTRADICTED = "contradicted"
    """In quarantine: other sessions say the opposite of the same. It ends when more agree (`LearningLog.readmit`)."""
    EMPTY_APPROVAL = "empty_approval"
    """Its user approves of everything. It ends when he disapproves of something (`LearningLog.readmit`)."""
    HELD_OUT = "held_out"
    """Kept for measuring: in the gate's probe, or where a lesson is asked for."""
    STALE = "stale"
    GATE = "gate"
    ROLLED_BACK = "rolled_back"


SET_ASIDE = (f"rejected:{Reason.ROLLED_BACK}", f"rejected:{Reason.GATE}")
"""Fates of turns whose step was undone with its version; nothing is to teach what they taught (law 8)."""

_UNTAUGHT = f"'{Reason.NO_CONTEXT}', '{Reason.ALREADY_RIGHT}', '{Reason.NO_PRAISE}'"
_UNSAID = f"'{Reason.NO_HINT}', '{Reason.NO_REWARD}', '{Reason.JUDGE_FAILED}', '{Reason.EXPIRED}'"
REVOCABLE = f"({_UNTAUGHT}, '{Reason.REVIEW}')"
"""As SQL, the reasons of turns that may be claimed again all the same."""

RETURNING = (
    Reason.NO_CONTEXT, Reason.ALREADY_RIGHT, Reason.NO_PRAISE, Reason.NO_HINT, Reason.NO_REWARD, "no_pair",
    Reason.JUDGE_FAILED, Reason.EXPIRED, Reason.NO_GROUP,
)  # fmt: skip
"""Of turns that may be claimed or replayed after all, with what is said or set later."""
REVIVED = (Reason.LESSON_REJECTED, Reason.LESSON_RETIRED, Reason.CONTRADICTED, Reason.EMPTY_APPROVAL)
"""Of turns that come back with a user's or with other sessions' word."""

NO_END = 2**62
"""Above the seq of any turn."""

PENDING = ("open", "unjudged", "review", "waiting", "claimed")
"""The kinds of pending, in the order a turn goes through them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """accepted == trained + sum(rejected) + sum(pending)."""

    accepted: int
    """Turns of purpose train in the learning arm."""
    trained: int
    rejected: dict[str, int]
    """By reason."""
    pending: dict[str, int]
    """By kind; all kinds are present."""
    apart: dict[str, int]
    """Turns that were never accepted: control, eval, off."""

    @property
    def balanced(self) -> bool:
        return self.accepted == self.trained + sum(self.rejected.values()) + sum(self.pending.values())


def _has(condition: str) -> str:
    return f"EXISTS (SELECT 1 FROM signals s WHERE s.turn = t.seq AND {condition})"  # noqa: S608


_EPISODE_REWARD = """EXISTS (SELECT 1 FROM signals e INDEXED BY episode_rewards WHERE e.scope = t.scope
    AND e.session = t.session AND e.source = 'environment' AND e.reward IS NOT NULL
    AND EXISTS (SELECT 1 FROM turns q WHERE q.seq = e.turn AND q.purpose = 'train'))"""
_HAS_REWARD = f"({_has('s.reward IS NOT NULL')} OR {_EPISODE_REWARD})"
_HAS_ANY = f"({_has('(s.reward IS NOT NULL OR s.hint IS NOT NULL OR s.preferred IS NOT NULL)')} OR {_EPISODE_REWARD})"
_LESSON = """coalesce((SELECT l.state FROM lesson_hints h JOIN lessons l ON l.id = h.lesson
    WHERE h.signal = s.id AND h.turn_id = {turn}), 'proposed')"""
_IMPORTED = """EXISTS (SELECT 1 FROM lesson_hints h JOIN lessons l ON l.id = h.lesson
    WHERE h.signal = s.id AND h.turn_id = {turn} AND l.origin = 'import')"""
TAUGHT = f"""CASE {_LESSON} WHEN 'approved' THEN 1
    WHEN 'proposed' THEN {{approve}} IS NOT 'review' AND NOT {_IMPORTED} ELSE 0 END"""
"""Whether a hint (signal `s` of a turn) may be shown to a teacher; {turn} and {approve} are to be filled in. A hint
whose lesson has not been made yet is a proposed one. What was imported and waits for a decision waits for it whoever
says the same later."""
_HINTED = "s.hint <> ''"
_BARRED = f"""g.approve IS NOT NULL AND {_has(_HINTED)}
    AND NOT {_has(f"{_HINTED} AND {TAUGHT.format(turn='t.id', approve='g.approve')}")}"""
STANDS = f"{_HINTED} AND {_LESSON.format(turn='t.id')} = '{{state}}'"
"""Whether a hint (signal `s` of turn `t`) belongs to a lesson of the state that is to be filled in."""
_LIVE_STEP = """EXISTS (SELECT 1 FROM step_turns u JOIN steps p ON p.id = u.step
    LEFT JOIN versions v ON v.policy = p.policy AND v.number = p.version
    WHERE u.turn_id = t.id AND u.use {use} 0 AND p.voided_at IS NULL AND {condition})"""
_SERVED, _UNDECIDED = "v.state IN ('serving', 'retired')", "(v.state IS NULL OR v.state = 'candidate')"


def _unless_lent(fate: str) -> str:
    """The fate of a turn by itself, unless its answer is in a step on the prompt of another turn (its use is 0)."""
    served, undecided = (_LIVE_STEP.format(use="=", condition=state) for state in (_SERVED, _UNDECIDED))
    return f"CASE WHEN {served} THEN 'trained:' WHEN {undecided} THEN 'pending:claimed' ELSE {fate} END"


_NEW_LESSON = """EXISTS (SELECT 1 FROM lessons l INDEXED BY later_lessons WHERE l.policy = t.policy
    AND l.scope = t.scope AND l.state = 'approved' AND l.changed_at > r.created_at
    AND (l.changed_at > l.created_at OR l.origin = 'import'))"""
_NEWS = f"({_has('s.created_at > r.created_at')} OR {_NEW_LESSON})"
"""Whether something may have come for a turn that taught nothing: a signal, or a lesson that was approved or imported
since."""


def _view(name: str, unless_lent: Callable[[str], str]) -> str:
    """One row for each turn. Table names are without file: none stands in both log.db and learning.db.

    Args:
        unless_lent: makes the fate, as SQL, of a turn whose answer may be lent of the one that it has by itself.
    """
    return f"""CREATE TEMP VIEW {name} AS
SELECT t.seq, t.id, t.policy, t.scope, t.session, t.group_key, t.received_at,
    CASE
    WHEN t.purpose <> 'train' THEN 'apart:' || t.purpose
    WHEN t.arm <> 'learning' THEN 'apart:' || t.arm
    WHEN {_LIVE_STEP.format(use=">", condition=_SERVED)} THEN 'trained:'
    WHEN r.reason = '{Reason.REVIEW}' AND g.approve = 'review' THEN 'pending:review'
    WHEN r.reason <> '{Reason.REVIEW}'
        AND NOT (r.reason IN ({_UNTAUGHT}) AND t.seq > coalesce(g.settled, 0) AND {_NEWS})
        THEN CASE WHEN r.reason IN ({_UNTAUGHT}, {_UNSAID})
            THEN {unless_lent("'rejected:' || r.reason")} ELSE 'rejected:' || r.reason END
    WHEN c.turn_id IS NOT NULL THEN 'pending:claimed'
    WHEN {_LIVE_STEP.format(use=">", condition=_UNDECIDED)} THEN 'pending:claimed'
    WHEN t.kind <> 'main' THEN 'rejected:' || t.kind
    WHEN t.error IS NOT NULL THEN 'rejected:error'
    WHEN t.num_sampled = 0 THEN 'rejected:empty'
    WHEN t.matched_by = 'ambiguous' OR n.matched_by = 'ambiguous' THEN 'rejected:ambiguous'
    WHEN n.ending IN ('not_chosen', 'client_gone') THEN 'rejected:' || n.ending
    WHEN t.block_spans IS NOT NULL THEN CASE
        WHEN t.shown_lessons IS NULL THEN 'rejected:{Reason.OPERATOR_BLOCK}' ELSE 'rejected:{Reason.LESSON_SHOWN}' END
    WHEN coalesce(g.group_size, 1) > 1 AND t.group_key IS NULL THEN 'rejected:no_group'
    WHEN coalesce(g.needs, 'any') = 'any' AND n.turn IS NOT NULL
        AND EXISTS (SELECT 1 FROM due_turns d WHERE d.turn = t.seq) THEN 'pending:unjudged'
    WHEN {_BARRED} THEN CASE
        WHEN {_has(STANDS.format(state="proposed"))} THEN 'pending:review'
        WHEN {_has(STANDS.format(state="rejected"))} THEN 'rejected:{Reason.LESSON_REJECTED}'
        ELSE 'rejected:{Reason.LESSON_RETIRED}' END
    WHEN CASE coalesce(g.needs, 'any')
        WHEN 'hint' THEN {_has("s.hint <> ''")} WHEN 'reward' THEN {_HAS_REWARD}
        WHEN 'pair' THEN {_has("s.preferred <> ''")} ELSE {_HAS_ANY} END
        THEN 'pending:waiting'
    WHEN n.turn IS NULL THEN 'pending:open'
    WHEN g.needs = 'pair' THEN 'pending:waiting'
    WHEN EXISTS (SELECT 1 FROM due_turns d WHERE d.turn = t.seq) THEN 'pending:unjudged'
    WHEN coalesce(g.group_size, 1) > 1 THEN 'pending:waiting'
    WHEN (SELECT j.outcome FROM judgements j WHERE j.turn = t.seq ORDER BY j.id DESC LIMIT 1) = 'failed'
        THEN {unless_lent("'rejected:judge_failed'")}
    WHEN coalesce(g.needs, 'any') = 'any' THEN 'pending:waiting'
    ELSE {unless_lent("'rejected:no_' || g.needs")}
    END AS fate
FROM turns t
LEFT JOIN next_states n ON n.turn = t.seq
LEFT JOIN settings g ON g.policy = t.policy
LEFT JOIN rejections r ON r.turn_id = t.id
LEFT JOIN claims c ON c.turn_id = t.id"""  # noqa: S608


FATES = _view("fates", _unless_lent)
OWN_FATES = _view("own_fates", str)
"""The same, whatever was learned of a turn's answer on the prompt of another one."""


def define_fates(connection: sqlite3.Connection) -> None:
    """Makes the views on a connection that sees both files."""
    connection.execute(FATES)
    connection.execute(OWN_FATES)


def fate_of(connection: sqlite3.Connection, turn_id: str) -> str | None:
    """'trained', 'rejected:REASON', 'pending:KIND' or 'apart:WHY'; None for an unknown turn."""
    fate = scalar(connection, "SELECT fate FROM fates WHERE id = ?", (turn_id,))
    return None if fate is None else str(fate).rstrip(":")


@dataclass(slots=True)
class Counted:
    """The turns of one line up to a seq of log.db whose fates stand, counted once."""

    until: int = 0
    unsettled: int = 0
    """`settings.unsettled` when they were counted; once it has moved, one of them may have another fate."""
    accepted: int = 0
    fates: Counter[str] = field(default_factory=Counter)


_IN_FLIGHT = """SELECT min(t.seq) FROM turns t WHERE t.id IN (
    SELECT turn_id FROM claims WHERE policy = :policy
    UNION SELECT u.turn_id FROM steps p JOIN step_turns u ON u.step = p.id WHERE p.policy = :policy
        AND p.version IS NULL AND p.voided_at IS NULL
    UNION SELECT u.turn_id FROM versions v JOIN steps p ON p.policy = v.policy AND p.version = v.number
        JOIN step_turns u ON u.step = p.id
        WHERE v.policy = :policy AND v.state = 'candidate' AND p.voided_at IS NULL)"""
"""The first turn that is claimed, or in a step whose version has not been decided on."""


def account(
    connection: sqlite3.Connection, policy: str | None = None, counted: Counted | None = None
) -> Account:
    """Counts every turn of both files, in one snapshot; of one line of versions when `policy` is given.

    Args:
        counted: of that line, from an earlier call or new. What stands in it is not counted again; turns that have
            reached their end meanwhile are added to it. The result is the same.
    """
    with reading(connection):
        if policy is None or counted is None:
            accepted, fates = _count(connection, policy, 0, NO_END)
        else:
            _extend(connection, policy, counted)
            accepted, fates = _count(connection, policy, counted.until, NO_END)
            accepted, fates = accepted + counted.accepted, fates + counted.fates
    tables: dict[str, dict[str, int]] = {"trained": {}, "rejected": {}, "pending": {}, "apart": {}}
    for fate, number in sorted(fates.items()):
        name, _, detail = fate.partition(":")
        tables[name][detail] = number
    return Account(
        accepted=accepted,
        trained=tables["trained"].get("", 0),
        rejected=tables["rejected"],
        pending={kind: tables["pending"].get(kind, 0) for kind in PENDING},
        apart=tables["apart"],
    )


def _extend(connection: sqlite3.Connection, policy: str, counted: Counted) -> None:
    """Adds the turns that have reached their end since. A turn has where it is settled and nobody has it in hand; what
    changes its fate later goes through `lines.unsettle`."""
    row = connection.execute("SELECT settled, unsettled FROM settings WHERE policy = ?", (policy,)).fetchone()
    if row is None:
        return
    if row["unsettled"] != counted.unsettled:
        counted.until, counted.unsettled, counted.accepted = 0, row["unsettled"], 0
        counted.fates.clear()
    in_flight = scalar(connection, _IN_FLIGHT, {"policy": policy})
    until = row["settled"] if in_flight is None else min(row["settled"], in_flight - 1)
    if until > counted.until:
        accepted, fates = _count(connection, policy, counted.until, until)
        counted.accepted += accepted
        counted.fates += fates
        counted.until = until


def _count(
    connection: sqlite3.Connection, policy: str | None, after: int, until: int
) -> tuple[int, Counter[str]]:
    """Accepted turns with after < seq <= until, and how many of all turns there have each fate."""
    where = "seq > :after AND seq <= :until AND (:policy IS NULL OR policy = :policy)"
    values = {"after": after, "until": until, "policy": policy}
    # Counted on its own and not as the sum of the fates: a turn that no line of the table fits shows up.
    accepted = scalar(
        connection,
        f"SELECT count(*) FROM turns WHERE {where} AND purpose = 'train' AND arm = 'learning'",  # noqa: S608
        values,
    )
    rows = connection.execute(f"SELECT fate, count(*) FROM fates WHERE {where} GROUP BY fate", values)  # noqa: S608
    return int(accepted), Counter(dict(map(tuple, rows)))
