"""How the policy behaves, turn by turn: what the learner's watch compares."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from agentrl.errors import StoreError
from agentrl.store import codec
from agentrl.store.conversations import read_content
from agentrl.store.database import reading
from agentrl.store.log_reader import LogReader
from agentrl.store.packing import SAME
from agentrl.store.records import reply_of
from agentrl.text.content import message_text
from agentrl.types import Arm, End, ToolCall

_ANSWERED = """FROM turns t JOIN next_states n ON n.turn = t.seq
    WHERE t.policy = :policy AND t.purpose = 'train' AND t.kind = 'main' AND t.error IS NULL AND t.num_sampled > 0
    AND coalesce(n.ending, '') NOT IN ('client_gone', 'not_chosen') AND t.block_spans IS NULL"""
"""What is done with a lesson in view is no habit of the weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """One answered turn."""

    turn_id: str
    version: int
    num_sampled: int
    surprise: float | None
    """Mean of -log-prob over its sampled ids, in nats: on the mean of many turns the entropy. None without raw ones."""
    asks: bool
    """It ends in a question to the user and calls no tool."""
    calls: tuple[ToolCall, ...]
    outputs: tuple[str, ...]
    """What its tools returned."""
    edited: bool
    """The user rewrote the answer or asked for another."""


class BehaviourLog(LogReader):
    """Reads log.db anew at every call."""

    def newest(
        self, num: int, *, arm: Arm, since: float = 0.0, without: Sequence[int] = ()
    ) -> list[Behaviour]:
        """The newest `num` answered turns, the newest first.

        Args:
            arm: learning, or the control arm that stays on version 0.
            since: Unix seconds; turns received before are not counted.
            without: versions whose turns are not counted.
        """
        return self._read(
            """AND t.arm = :arm AND t.received_at >= :since
               AND t.version NOT IN (SELECT value FROM json_each(:without))
               ORDER BY t.received_at DESC, t.seq DESC""",
            num,
            {"arm": arm.value, "since": since, "without": json.dumps(list(without))},
        )

    def first(self, num: int, *, since: float = 0.0) -> list[Behaviour]:
        """The first `num` answered turns of the run, or of those received from `since` on."""
        return self._read("AND t.received_at >= :since ORDER BY t.received_at, t.seq", num, {"since": since})

    def _read(self, condition: str, num: int, values: dict[str, object]) -> list[Behaviour]:
        try:
            with reading(self._open()) as connection:
                rows = connection.execute(
                    f"""SELECT t.id, t.version, t.num_sampled, t.logprobs, t.raw_logprobs, t.reply, n.messages, n.ending
                        {_ANSWERED} {condition} LIMIT :num""",
                    values | {"policy": self._policy, "num": num},
                ).fetchall()
                return [_behaviour(connection, row) for row in rows]
        except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"the log cannot be read: {error}") from error


def _behaviour(connection: sqlite3.Connection, row: sqlite3.Row) -> Behaviour:
    reply = reply_of(row)
    raw = row["logprobs"] if row["raw_logprobs"] == SAME else row["raw_logprobs"]
    logprobs = None if raw is None else codec.unpack_floats(raw)
    messages = [read_content(connection, content) for content in json.loads(row["messages"])]
    return Behaviour(
        turn_id=row["id"],
        version=row["version"],
        num_sampled=row["num_sampled"],
        surprise=-sum(logprobs) / len(logprobs) if logprobs else None,
        asks=not reply.tool_calls and reply.text.rstrip().endswith("?"),
        calls=reply.tool_calls,
        outputs=tuple(message_text(message) for message in messages if message.get("role") == "tool"),
        # An end by an edited question has no message: it says nothing about the answer.
        edited=row["ending"] == End.REGENERATED or (row["ending"] == End.EDITED and bool(messages)),
    )
