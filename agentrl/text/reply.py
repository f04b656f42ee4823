"""A sampled reply as a client sees it, parsed once while it grows.

Three kinds of region follow each other in sampled ids: reasoning, text, and blocks of tool calls. Their markers are
control ids, so one pass over the ids finds them, and a piece goes out as soon as nothing that may follow can change
it. `parse` feeds the same pass, so deltas and reply cannot differ.

What is held back: part of a character; white space, which belongs to the template when a marker follows; a block of
calls until it closes, because a malformed one is text; and a block begun inside reasoning, which is reasoning if the
reasoning is closed after it and a call if not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol

from agentrl.text.detokenize import Detokenizer
from agentrl.types import Reply, ToolCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What one more id added to a reply. A tool call comes whole: index, name and arguments in one delta."""

    text: str = ""
    reasoning: str = ""
    tool_index: int | None = None
    tool_name: str | None = None
    arguments: str = ""


class ReplyStream(Protocol):
    """Deltas while the ids come in. Joined, they are the reply that `finish` returns."""

    def feed(self, token_id: int) -> list[Delta]: ...

    def finish(self) -> tuple[list[Delta], Reply]:
        """The rest, and the whole. To be called once."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Markers:
    """The control ids of a family's replies."""

    think: int | None = None
    end_think: int | None = None
    calls: Mapping[int, int] = field(default_factory=dict)
    """Opening id of a block of calls -> its closing id."""


class _In(Enum):
    START = auto()
    """Only white space so far."""
    REASONING = auto()
    DOUBT = auto()
    """A block of calls inside reasoning: only what follows tells what it is."""
    TEXT = auto()
    CALLS = auto()
    DONE = auto()


class ReplyParser:
    """A `ReplyStream` for replies whose regions are marked by control ids.

    Args:
        prefilled: the ids continue reasoning that the prompt has opened.
        detokenizer: a fresh one.
        decode: text of ids, for blocks that turn out to be text.
        read_calls: the calls of a closed block, None where it is malformed.
    """

    def __init__(
        self,
        markers: Markers,
        *,
        prefilled: bool,
        stop_ids: frozenset[int],
        detokenizer: Detokenizer,
        decode: Callable[[Sequence[int]], str],
        read_calls: Callable[[Sequence[int]], tuple[ToolCall, ...] | None],
    ) -> None:
        self._markers = markers
        self._stop_ids = stop_ids
        self._detokenizer = detokenizer
        self._decode = decode
        self._read_calls = read_calls
        self._prefilled = prefilled
        self._state = _In.REASONING if prefilled else _In.START
        self._held: list[int] = []
        self._space: list[str] = []
        self._behind_reasoning = False
        self._behind_calls = False
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[ToolCall] = []

    @property
    def reasoning_open(self) -> bool:
        """Whether the ids so far end inside reasoning."""
        return self._state is _In.REASONING

    def feed(self, token_id: int) -> list[Delta]:
        """Ids behind the first stop id are no part of the reply."""
        if self._state is not _In.DONE and token_id in self._stop_ids:
            return self._end()
        return self._step(token_id)

    def finish(self) -> tuple[list[Delta], Reply]:
        deltas = self._end()
        reply = Reply(
            text="".join(self._text),
            reasoning="".join(self._reasoning) or None,
            tool_calls=tuple(self._calls),
        )
        return deltas, reply

    def _step(self, token_id: int) -> list[Delta]:
        if self._state in (_In.START, _In.TEXT):
            return self._in_text(token_id)
        if self._state is _In.REASONING:
            return self._in_reasoning(token_id)
        if self._state is _In.CALLS:
            return self._in_calls(token_id)
        if self._state is _In.DOUBT:
            return self._in_doubt(token_id)
        return []

    def _in_text(self, token_id: int) -> list[Delta]:
        if token_id == self._markers.think and self._state is _In.START:
            # An unfinished character before the marker is text, and then reasoning cannot begin here.
            deltas = self._add_text(self._detokenizer.flush())
            if self._state is _In.START:
                self._space.clear()
                self._state = _In.REASONING
                return deltas
            return deltas + self._add_text(self._decode([token_id]))
        if token_id == self._markers.end_think and self._state is _In.START:
            # Nothing was thought, or a template has taken it out and left the marker.
            self._leave_reasoning()
            return []
        if token_id in self._markers.calls:
            deltas = self._add_text(self._detokenizer.flush())
            self._state, self._held = _In.CALLS, [token_id]
            return deltas
        return self._add_text(self._detokenizer.feed(token_id))

    def _in_reasoning(self, token_id: int) -> list[Delta]:
        if token_id == self._markers.end_think:
            deltas = self._add_reasoning(self._detokenizer.flush())
            self._leave_reasoning()
            return deltas
        if token_id in self._markers.calls:
            deltas = self._add_reasoning(self._detokenizer.flush())
            self._state, self._held = _In.DOUBT, [token_id]
            return deltas
        if token_id == self._markers.think and self._prefilled and not self._reasoning:
            # Some models repeat the marker that the prompt has already written.
            return []
        return self._add_reasoning(self._detokenizer.feed(token_id))

    def _in_doubt(self, token_id: int) -> list[Delta]:
        if token_id != self._markers.end_think:
            self._held.append(token_id)
            return []
        deltas = self._add_reasoning(self._decode(self._held))
        self._leave_reasoning()
        return deltas

    def _in_calls(self, token_id: int) -> list[Delta]:
        self._held.append(token_id)
        if token_id != self._markers.calls[self._held[0]]:
            return []
        held, self._held, self._state = self._held, [], _In.TEXT
        calls = self._read_calls(held)
        if calls is None:
            return self._add_text(self._decode(held))
        self._behind_reasoning, self._behind_calls = False, True
        first = len(self._calls)
        self._calls += calls
        return [
            Delta(tool_index=first + index, tool_name=call.name, arguments=call.arguments)
            for index, call in enumerate(calls)
        ]

    def _leave_reasoning(self) -> None:
        self._state, self._held = _In.TEXT, []
        self._space.clear()
        self._behind_reasoning = True

    def _end(self) -> list[Delta]:
        """Settles what is held back: nothing more will come."""
        deltas: list[Delta] = []
        if self._state is _In.DOUBT:
            held = self._held
            self._leave_reasoning()
            for token_id in held:
                deltas += self._step(token_id)
        if self._state is _In.CALLS:
            held, self._held, self._state = self._held, [], _In.TEXT
            deltas += self._add_text(self._decode(held))
        if self._state is _In.REASONING:
            deltas += self._add_reasoning(self._detokenizer.flush())
        elif self._state is not _In.DONE:
            deltas += self._add_text(self._detokenizer.flush())
            if self._behind_reasoning and not self._text:
                self._space = ["".join(self._space).lstrip("\n")]
            if not self._behind_calls:
                deltas += self._give_text("".join(self._space))
        self._state = _In.DONE
        return deltas

    def _add_text(self, piece: str) -> list[Delta]:
        if not piece or piece.isspace():
            self._space.append(piece)
            return []
        if self._state is _In.START:
            self._state = _In.TEXT
        whole = "".join(self._space) + piece
        said = whole.rstrip()
        self._space = [whole[len(said) :]]
        if self._behind_calls:
            said = ("\n" if self._text else "") + said.lstrip()
        elif self._behind_reasoning:
            said = said.lstrip("\n")
        self._behind_reasoning = self._behind_calls = False
        return self._give_text(said)

    def _give_text(self, said: str) -> list[Delta]:
        if not said:
            return []
        self._text.append(said)
        return [Delta(text=said)]

    def _add_reasoning(self, piece: str) -> list[Delta]:
        if not piece or piece.isspace():
            self._space.append(piece)
            return []
        whole = ("".join(self._space) if self._reasoning else "") + piece
        said = whole.rstrip() if self._reasoning else whole.strip()
        self._space = [whole[len(whole.rstrip()) :]]
        self._reasoning.append(said)
        return [Delta(reasoning=said)]


class HeldReply:
    """A `ReplyStream` for families whose regions have no markers of their own: everything comes at the end."""

    def __init__(self, parse: Callable[[Sequence[int]], Reply]) -> None:
        self._parse = parse
        self._ids: list[int] = []

    def feed(self, token_id: int) -> list[Delta]:
        self._ids.append(token_id)
        return []

    def finish(self) -> tuple[list[Delta], Reply]:
        reply = self._parse(self._ids)
        deltas = [Delta(reasoning=reply.reasoning)] if reply.reasoning else []
        deltas += [Delta(text=reply.text)] if reply.text else []
        deltas += [
            Delta(tool_index=index, tool_name=call.name, arguments=call.arguments)
            for index, call in enumerate(reply.tool_calls)
        ]
        return deltas, reply
