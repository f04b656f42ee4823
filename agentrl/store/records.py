"""Turns, next states and signals to rows and back. SQL and packing only; transactions are the caller's.

A prompt that extends its parent's prompt and reply is stored as what it adds: `prompt_base` names the parent's row
and `prompt_ids` holds the tail. Every MAX_DEPTH-th turn of a conversation stores its prompt whole, so that reading
one turn never follows more than that many rows.
"""

from __future__ import annotations

import json
import math
import re
import sqlite3
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agentrl.errors import StoreError
from agentrl.store import codec
from agentrl.store.conversations import Conversations, content_of, read_chain, read_content, scope_key
from agentrl.store.database import scalar
from agentrl.store.packing import SAME, PackedTurn
from agentrl.types import (
    Arm,
    Completion,
    End,
    FinishReason,
    MatchedBy,
    NextState,
    Purpose,
    RedactedSpan,
    Reply,
    Sampling,
    Signal,
    SignalSource,
    ToolCall,
    Turn,
    TurnKind,
    VersionSpan,
)

MAX_DEPTH = 64
"""Rows that reading one prompt may follow."""
GROUP = re.compile(r"(?P<group>.*~g[^~]+)~[^~]+", re.DOTALL)
"""Sessions of one group: `<anything>~g<group>~<k>`."""
UNJUDGED_ENDS = (End.NOT_CHOSEN, End.CLIENT_GONE)
"""Ends after which nobody saw the reply: there is nothing to judge."""

TURN_COLUMNS = (
    *("id", "request_id", "scope", "session", "group_key", "parent", "policy", "purpose", "arm", "kind"),
    *("matched_by", "received_at", "version", "num_messages", "num_prompt", "num_sampled", "error"),
    *("block_spans", "version_spans", "tip", "tools", "sampling", "prompt_base", "prompt_depth"),
    *("history_key", "reply_key", "task_key", "kind_reason", "prompt_built_by", "finish_reason"),
    *("first_token_s", "latency_s", "client", "redacted_spans", "reply", "prompt_ids", "token_ids"),
    *("logprobs", "raw_logprobs", "num_allowed", "shown_lessons"),
)
"""All of a turn's row but `seq` and `digest`, in the order of the digest."""
INSERT_TURN = (
    f"INSERT INTO turns ({', '.join(TURN_COLUMNS)}, digest) "  # noqa: S608
    f"VALUES ({', '.join('?' * (len(TURN_COLUMNS) + 1))})"
)
NEXT_STATE_COLUMNS = ("turn", "messages", "matched_by", "ending", "answered_by", "received_at")
SIGNAL_COLUMNS = (
    *("turn", "scope", "session", "source", "reward", "hint", "preferred", "votes", "evidence", "created_at"),
    "offered",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnIds:
    """What a request that continues a turn is built on: the ids, and how many messages they cover."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    num_messages: int
    """Messages of the turn's own request; its reply is one more."""
    block_spans: tuple[tuple[int, int], ...] = ()
    """Ids [start, end) of the prompt that an operator put there."""
    shown_lessons: tuple[str, ...] = ()


class PromptCache:
    """[prompt + reply] id bytes of the newest turns, so that recording a turn need not read its ancestors back.

    It holds ids alone, no row numbers, so a rolled-back transaction cannot leave it wrong.
    """

    def __init__(self, max_bytes: int = 32 * 2**20) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._ids: OrderedDict[str, bytes] = OrderedDict()

    def put(self, turn_id: str, ids: bytes) -> None:
        self._bytes += len(ids) - len(self._ids.pop(turn_id, b""))
        self._ids[turn_id] = ids
        while self._bytes > self._max_bytes:
            self._bytes -= len(self._ids.popitem(last=False)[1])

    def get(self, turn_id: str) -> bytes | None:
        return self._ids.get(turn_id)


def group_key(session: str) -> str | None:
    """The group that a session names itself into; None for a session of its own."""
    match = GROUP.fullmatch(session)
    return match["group"] if match else None


def insert_turn(connection: sqlite3.Connection, packed: PackedTurn, cache: PromptCache) -> None:
    """Writes a turn and what hangs on it. Raises sqlite3.IntegrityError for an id that is there already."""
    turn, done = packed.turn, packed.turn.completion
    conversation = Conversations(connection, turn.scope)
    base, depth, prompt = _prompt_delta(connection, packed, cache)
    values = (
        *(
            turn.id,
            turn.request_id,
            turn.scope,
            turn.session,
            group_key(turn.session),
            turn.parent,
            turn.policy,
        ),
        *(turn.purpose.value, turn.arm.value, turn.kind.value, turn.matched_by.value),
        *(
            float(turn.received_at),
            done.version,
            len(turn.messages),
            len(turn.prompt_ids),
            len(done.token_ids),
        ),
        *(packed.error, packed.block_spans, packed.version_spans),
        *(conversation.chain(packed.messages), conversation.content(packed.tools)),
        *(conversation.content(packed.sampling), base, depth, packed.history_key, packed.reply_key),
        *(codec.storable(turn.task_key), codec.storable(turn.kind_reason)),
        *(codec.storable(turn.prompt_built_by), done.finish_reason.value),
        *(None if turn.first_token_s is None else float(turn.first_token_s), float(turn.latency_s)),
        *(codec.storable(turn.client), packed.redacted_spans, packed.reply, prompt, packed.token_ids),
        *(packed.logprobs, packed.raw_logprobs, packed.num_allowed, packed.shown_lessons),
    )
    seq = connection.execute(INSERT_TURN, (*values, optional_digest(values))).lastrowid
    for call in turn.reply.tool_calls:
        # Two calls of one reply may carry one id where a client or an engine minted it.
        connection.execute("INSERT OR IGNORE INTO call_ids VALUES (?, ?, ?)", (turn.scope, call.id, seq))
    connection.execute("INSERT INTO open_turns VALUES (?, ?, ?)", (seq, turn.scope, turn.session))
    cache.put(turn.id, packed.prompt + packed.sampled)


def optional_digest(values: Sequence[Any]) -> bytes:
    """[16] checksum of the row of a turn or a signal. Without its last value, the shown lessons or the offered hint, it
    is what releases wrote that knew none."""
    return codec.digest(values if values[-1] is not None else values[:-1])


def _prompt_delta(
    connection: sqlite3.Connection, packed: PackedTurn, cache: PromptCache
) -> tuple[int | None, int, bytes]:
    """(base row, depth, blob): against the parent where the prompt begins with its prompt and reply, else whole."""
    turn, prompt = packed.turn, packed.prompt
    if packed.prompt_ids is not None:
        return None, 0, packed.prompt_ids
    parent = connection.execute(
        "SELECT seq, prompt_depth FROM turns WHERE id = ? AND scope = ?", (turn.parent, turn.scope)
    ).fetchone()
    if parent is None or parent["prompt_depth"] + 1 >= MAX_DEPTH:
        return None, 0, codec.pack_id_bytes(prompt)
    covered = cache.get(turn.parent or "")
    if covered is None:
        covered = prompt_bytes(connection, parent["seq"], with_reply=True)
    if not prompt.startswith(covered):
        return None, 0, codec.pack_id_bytes(prompt)
    return parent["seq"], parent["prompt_depth"] + 1, codec.pack_id_bytes(prompt[len(covered) :])


def prompt_bytes(connection: sqlite3.Connection, seq: int, *, with_reply: bool = False) -> bytes:
    """The ids that the engine was given for a turn, as uint32 bytes; with those it sampled when asked.

    Raises:
        ValueError: a blob on the way is damaged.
    """
    rows = connection.execute(
        """WITH RECURSIVE chain (seq, distance) AS (
               SELECT ?, 0
               UNION ALL
               SELECT t.prompt_base, c.distance + 1 FROM chain c JOIN turns t ON t.seq = c.seq
               WHERE t.prompt_base IS NOT NULL)
           SELECT prompt_ids, token_ids FROM chain JOIN turns USING (seq) ORDER BY distance DESC""",
        (seq,),
    ).fetchall()
    parts = [codec.unpack_id_bytes(blob) for row in rows for blob in (row["prompt_ids"], row["token_ids"])]
    return b"".join(parts if with_reply else parts[:-1])


def read_turn(connection: sqlite3.Connection, turn_id: str) -> Turn | None:
    """A turn as it was recorded, log-probs at float32.

    Raises:
        StoreError: the row cannot be read back; the message names the turn and the damage.
    """
    row = connection.execute("SELECT * FROM turns WHERE id = ?", (turn_id,)).fetchone()
    if row is None:
        return None
    try:
        return turn_of(connection, row)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"turn {turn_id} cannot be read back: {error}") from error


def turn_of(connection: sqlite3.Connection, row: sqlite3.Row) -> Turn:
    """Raises ValueError, KeyError or TypeError for a damaged row."""
    sampling = read_content(connection, row["sampling"])
    sampling |= {name: tuple(sampling[name]) for name in ("stop", "stop_token_ids")}
    prompt = codec.ids_of(prompt_bytes(connection, row["seq"]))
    if len(prompt) != row["num_prompt"]:
        raise ValueError(f"the prompt has {len(prompt)} ids, recorded were {row['num_prompt']}")
    return Turn(
        **{name: row[name] for name in ("id", "request_id", "session", "scope", "parent", "policy")},
        **{name: row[name] for name in ("task_key", "kind_reason", "prompt_built_by", "client", "error")},
        **{name: row[name] for name in ("received_at", "first_token_s", "latency_s")},
        matched_by=MatchedBy(row["matched_by"]),
        kind=TurnKind(row["kind"]),
        purpose=Purpose(row["purpose"]),
        arm=Arm(row["arm"]),
        messages=read_chain(connection, row["tip"]),
        tools=tuple(read_content(connection, row["tools"])),
        prompt_ids=prompt,
        completion=completion_of(row),
        reply=reply_of(row),
        sampling=Sampling(**sampling),
        **blocks_of(row),
        redacted_spans=tuple(
            RedactedSpan(path=path, start=start, end=end, rule=rule)
            for path, start, end, rule in json.loads(row["redacted_spans"] or "[]")
        ),
    )


def reply_of(row: sqlite3.Row) -> Reply:
    text, reasoning, calls = codec.unpack_json(row["reply"])
    return Reply(
        text=text,
        reasoning=reasoning,
        tool_calls=tuple(ToolCall(id=id_, name=name, arguments=args) for id_, name, args in calls),
    )


def blocks_of(row: sqlite3.Row) -> dict[str, Any]:
    """What an operator put into the prompt: `block_spans` and `shown_lessons`."""
    return {
        "block_spans": tuple((start, end) for start, end in json.loads(row["block_spans"] or "[]")),
        "shown_lessons": tuple(json.loads(row["shown_lessons"] or "[]")),
    }


def completion_of(row: sqlite3.Row) -> Completion:
    """Raises ValueError where a stream is damaged or has another length than was recorded."""
    token_ids = codec.unpack_ids(row["token_ids"])
    if len(token_ids) != row["num_sampled"]:
        raise ValueError(f"the reply has {len(token_ids)} ids, recorded were {row['num_sampled']}")
    logprobs = codec.unpack_floats(row["logprobs"])
    raw = row["raw_logprobs"]
    if row["version_spans"] is not None:
        spans = json.loads(row["version_spans"])
    else:
        spans = [] if row["version"] == -1 else [(row["version"], 0, len(token_ids))]
    return Completion(
        token_ids=token_ids,
        logprobs=logprobs,
        raw_logprobs=logprobs if raw == SAME else None if raw is None else codec.unpack_floats(raw),
        num_allowed=None if row["num_allowed"] is None else codec.unpack_ids(row["num_allowed"]),
        finish_reason=FinishReason(row["finish_reason"]),
        version_spans=tuple(VersionSpan(version=v, start=start, end=end) for v, start, end in spans),
    )


def seq_of(connection: sqlite3.Connection, turn_id: str) -> int:
    """Raises StoreError for an unknown turn."""
    seq = scalar(connection, "SELECT seq FROM turns WHERE id = ?", (turn_id,))
    if seq is None:
        raise StoreError(f"the log has no turn {turn_id}")
    return int(seq)


def insert_next_state(connection: sqlite3.Connection, state: NextState) -> bool:
    """Writes what followed a turn; False, and a row in repeated_next_states, where it has a next state already."""
    turn = connection.execute(
        "SELECT seq, scope, purpose, kind, matched_by, error FROM turns WHERE id = ?", (state.turn_id,)
    ).fetchone()
    if turn is None:
        raise StoreError(f"the log has no turn {state.turn_id}, so nothing can follow it")
    seq = turn["seq"]
    ending = None if state.end is None else state.end.value
    matched, at = state.matched_by.value, float(state.received_at)
    if scalar(connection, "SELECT 1 FROM next_states WHERE turn = ?", (seq,)):
        connection.execute(
            "INSERT INTO repeated_next_states (turn, matched_by, ending, answered_by, received_at) "
            "VALUES (?, ?, ?, ?, ?)",
            (seq, matched, ending, state.answered_by, at),
        )
        return False
    conversation = Conversations(connection, turn["scope"])
    key = scope_key(turn["scope"])
    contents = [conversation.content(content_of(key, message)) for message in state.messages]
    values = (seq, codec.to_json(contents), matched, ending, state.answered_by, at)
    connection.execute(
        "INSERT INTO next_states VALUES (?, ?, ?, ?, ?, ?, ?)", (*values, codec.digest(values))
    )
    connection.execute("DELETE FROM open_turns WHERE turn = ?", (seq,))
    worth_judging = (
        turn["purpose"] == Purpose.TRAIN
        and turn["kind"] == TurnKind.MAIN
        and turn["error"] is None
        and MatchedBy.AMBIGUOUS not in (turn["matched_by"], matched)
        and state.end not in UNJUDGED_ENDS
    )
    if worth_judging:
        connection.execute("INSERT INTO due_turns VALUES (?, 0)", (seq,))
    return True


def read_next_state(connection: sqlite3.Connection, turn_id: str) -> NextState | None:
    row = connection.execute(
        "SELECT n.* FROM next_states n JOIN turns t ON t.seq = n.turn WHERE t.id = ?", (turn_id,)
    ).fetchone()
    if row is None:
        return None
    try:
        return NextState(
            turn_id=turn_id,
            messages=tuple(read_content(connection, content) for content in json.loads(row["messages"])),
            matched_by=MatchedBy(row["matched_by"]),
            end=None if row["ending"] is None else End(row["ending"]),
            answered_by=row["answered_by"],
            received_at=row["received_at"],
        )
    except (ValueError, TypeError) as error:
        raise StoreError(f"the next state of turn {turn_id} cannot be read back: {error}") from error


def insert_signal(connection: sqlite3.Connection, signal: Signal) -> None:
    """Raises ValueError for a reward or vote that is no finite number: SQLite would keep NaN as "not judged"."""
    for number in (*((signal.reward,) if signal.reward is not None else ()), *signal.votes):
        if not math.isfinite(number):
            raise ValueError(f"a reward must be a finite number, not {number}; leave it None where unknown")
    turn = connection.execute(
        "SELECT seq, scope, session FROM turns WHERE id = ?", (signal.turn_id,)
    ).fetchone()
    if turn is None:
        raise StoreError(f"the log has no turn {signal.turn_id} to be judged")
    values: tuple[Any, ...] = (
        *(turn["seq"], turn["scope"], turn["session"], signal.source.value),
        None if signal.reward is None else float(signal.reward),
        None if signal.hint is None else codec.storable(signal.hint),
        None if signal.preferred is None else codec.storable(signal.preferred),
        codec.to_json(signal.votes) if signal.votes else None,
        *(codec.storable(signal.evidence), float(signal.created_at)),
        None if signal.offered is None else codec.storable(signal.offered),
    )
    connection.execute(
        f"INSERT INTO signals ({', '.join(SIGNAL_COLUMNS)}, digest) "  # noqa: S608
        f"VALUES ({', '.join('?' * (len(values) + 1))})",
        (*values, optional_digest(values)),
    )


def read_signals(connection: sqlite3.Connection, turn_id: str) -> list[Signal]:
    """All signals of a turn in the order of their arrival."""
    rows = connection.execute(
        "SELECT s.* FROM signals s JOIN turns t ON t.seq = s.turn WHERE t.id = ? ORDER BY s.id", (turn_id,)
    ).fetchall()
    return [
        Signal(
            turn_id=turn_id,
            source=SignalSource(row["source"]),
            reward=row["reward"],
            hint=row["hint"],
            offered=row["offered"],
            preferred=row["preferred"],
            votes=tuple(json.loads(row["votes"] or "[]")),
            evidence=row["evidence"],
            created_at=row["created_at"],
        )
        for row in rows
    ]
