"""How one model's replies are read: which markers it has, and in which notation it writes its calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from agentrl.text.calls import CallReader, JsonCalls, PackageCalls, as_calls, json_call
from agentrl.text.canonical import argument_value
from agentrl.text.families import CALLS, PROBES, Family, PackageFamily
from agentrl.text.plain import PlainTokenizer
from agentrl.text.reply import HeldReply, Markers, ReplyParser, ReplyStream
from agentrl.types import JSON, Reply, ToolCall

_THINK = (("<think>", "</think>"), ("<think:opensource>", "</think:opensource>"))
_CALLS = (
    ("<tool_call>", "</tool_call>"),
    ("<minimax:tool_call>", "</minimax:tool_call>"),
    ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
    ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
    ("<tool_calls:opensource>", "</tool_calls:opensource>"),
)


class ReplyReader:
    """Makes parsers for one model.

    A family whose calls stand between two control ids is read while it streams. One of the package's other families
    is read by the package, whole, at the end. A template whose calls show neither has no calls (`calls` is False).
    """

    def __init__(
        self,
        tokenizer: PlainTokenizer,
        family: Family,
        stop_ids: Sequence[int],
        *,
        try_render: Callable[[Sequence[JSON], Sequence[JSON]], list[int] | None],
    ) -> None:
        self._tokenizer = tokenizer
        self._package = family.renderer if isinstance(family, PackageFamily) else None
        self._stops = frozenset(stop_ids)
        think = _pair(tokenizer, _THINK)
        called, marked = _call_block(tokenizer, try_render)
        self._read: CallReader | None = None
        if marked is not None and json_call(tokenizer.decode(called[1:-1])) is not None:
            self._read = JsonCalls(tokenizer)
        elif marked is not None and self._package is not None:
            self._read = PackageCalls(self._package, think or ())
        self._markers = Markers(
            think=think[0] if think else None,
            end_think=think[1] if think else None,
            calls={marked[0]: marked[1]} if marked is not None and self._read is not None else {},
        )
        header = try_render(*PROBES[0]) or []
        self.prefilled = think is not None and _opens(header, think)
        """Whether the prompt leaves reasoning open."""
        self.reasoning_end = self._markers.end_think if self.prefilled else None
        self.calls = self._read is not None or self._package is not None

    def stream(self, tools: Sequence[JSON]) -> ReplyStream:
        """For sampled ids."""
        return self._new(tools, prefilled=self.prefilled)

    def parse(self, ids: Sequence[int], tools: Sequence[JSON]) -> Reply:
        return _feed(self.stream(tools), ids)

    def parse_message(self, ids: Sequence[int]) -> Reply:
        """The content of an assistant message that stands in a prompt, what the prompt had prefilled included."""
        return _feed(self._new((), prefilled=False), ids)

    def closing_ids(self, ids: Sequence[int]) -> tuple[int, ...]:
        """What must follow sampled ids that were cut off before their message may be closed."""
        parser = self._new((), prefilled=self.prefilled)
        for token_id in ids:
            parser.feed(token_id)
        open_still = isinstance(parser, ReplyParser) and parser.reasoning_open
        return (self._markers.end_think,) if open_still and self._markers.end_think is not None else ()

    def with_calls(self, ids: Sequence[int], written: Sequence[int]) -> tuple[int, ...] | None:
        """Sampled ids with other calls in the place of their own; every id outside the calls that differ stays.

        None where calls have no marks of their own, or neither side has any.

        Args:
            written: ids of a message with the other calls, as the family writes it.
        """
        old, new = self._blocks(ids), self._blocks(written)
        if not old or not new:
            return None
        edited: list[int] = []
        at = to = 0  # ends of the last blocks that were compared
        for (start, end), (first, last) in zip(old, new, strict=False):
            same = self._block_key(ids[start:end]) == self._block_key(written[first:last])
            if not same and len(old) != len(new):
                # which of the others is which nobody can tell
                at, to, edited = (at, to, edited) if at else (start, first, [*ids[:start]])
                break
            edited += [*ids[at:start], *(ids[start:end] if same else written[first:last])]
            at, to = end, last
        if len(old) != len(new):
            edited += written[to : new[-1][1]]
            at = old[-1][1]
        return (*edited, *ids[at:])

    def _block_key(self, block: Sequence[int]) -> object:
        """What blocks that make the same calls have in common; of one that makes none its text."""
        calls = None if self._read is None else self._read(block, ())
        if calls is None:
            return self._tokenizer.decode(block)
        return [(call.name, argument_value(call.arguments)) for call in calls]

    def _blocks(self, ids: Sequence[int]) -> list[tuple[int, int]]:
        """[start, end) of the blocks of calls behind the reasoning, marks included."""
        last_thought = max((i for i, one in enumerate(ids) if one == self._markers.end_think), default=-1)
        found, start = [], None
        for index, token_id in enumerate(ids):
            if index > last_thought and start is None and token_id in self._markers.calls:
                start = index
            elif start is not None and token_id == self._markers.calls[ids[start]]:
                found.append((start, index + 1))
                start = None
        return found

    def _new(self, tools: Sequence[JSON], *, prefilled: bool) -> ReplyStream:
        read = self._read
        if read is None and self._package is not None:
            return HeldReply(lambda ids: self._read_whole(ids, tools))
        return ReplyParser(
            self._markers,
            prefilled=prefilled,
            stop_ids=self._stops,
            detokenizer=self._tokenizer.detokenizer(),
            decode=self._tokenizer.decode,
            read_calls=lambda ids: None if read is None else read(ids, tools),
        )

    def _read_whole(self, ids: Sequence[int], tools: Sequence[JSON]) -> Reply:
        stop = next((index for index, token_id in enumerate(ids) if token_id in self._stops), len(ids))
        raw = Reply(text=self._tokenizer.decode(ids[:stop]))
        try:
            parsed: Any = self._package.parse_response(list(ids), tools=list(tools) or None)  # type: ignore[union-attr]
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            return raw
        calls: tuple[ToolCall, ...] | None = as_calls(parsed.tool_calls) if parsed.tool_calls else ()
        if calls is None:
            return raw
        reasoning = (parsed.reasoning_content or "").strip() or None
        return Reply(text=str(parsed.content or ""), reasoning=reasoning, tool_calls=calls)


def _feed(stream: ReplyStream, ids: Sequence[int]) -> Reply:
    for token_id in ids:
        stream.feed(token_id)
    return stream.finish()[1]


def _pair(tokenizer: PlainTokenizer, pairs: Sequence[tuple[str, str]]) -> tuple[int, int] | None:
    for opening, closing in pairs:
        first, last = tokenizer.control_id(opening), tokenizer.control_id(closing)
        if first is not None and last is not None:
            return first, last
    return None


def _call_block(
    tokenizer: PlainTokenizer, try_render: Callable[[Sequence[JSON], Sequence[JSON]], list[int] | None]
) -> tuple[list[int], tuple[int, int] | None]:
    """The ids of a call as the family renders it, markers included, and the markers; ([], None) if it has none."""
    messages, _ = PROBES[0]
    # Without tools: their preamble often shows the markers, too.
    ids = try_render([*messages, CALLS, *messages], ()) or []
    marked = _pair(tokenizer, _CALLS)
    if marked is None or marked[0] not in ids or marked[1] not in ids[ids.index(marked[0]) :]:
        return [], None
    first = ids.index(marked[0])
    return ids[first : ids.index(marked[1], first) + 1], marked


def _opens(header: Sequence[int], think: tuple[int, int]) -> bool:
    """Whether the prompt leaves reasoning open."""
    marks = [token_id for token_id in header if token_id in think]
    return bool(marks) and marks[-1] == think[0]
