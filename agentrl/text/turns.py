"""Where messages begin and end in ids, and where a block for the teacher may stand.

A family writes its messages with one of a few formats: a header, the content, a closing token. The table below holds
them as text; which one a model uses is found by rendering a probe with its own template (`find_format`), so that a
wrong row cannot go unnoticed: it does not fit, and the model has no format rather than a wrong one.

Contents never hold control ids (plain.py), so headers and closing ids mark the true boundaries. Sampled ids may hold
anything: a header counts only at the beginning and behind the end of a message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agentrl.errors import ConfigError
from agentrl.text.plain import PlainTokenizer
from agentrl.types import Block, TeacherView

Role = str
"""system, user, assistant or tool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnFormat:
    """One way to write messages."""

    name: str
    user: str
    assistant: str
    system: str | None = None
    """None: the family has no system messages."""
    tools: tuple[str, ...] = ()
    """Headers of tool results; they may begin like another header, the longest that fits wins."""
    close: str = ""
    """Ends a message; "" where only the next header does."""
    after: str = ""
    """What the template writes between `close` and the next header."""


FORMATS = (
    TurnFormat(
        name="chatml",
        system="<|im_start|>system\n",
        user="<|im_start|>user\n",
        assistant="<|im_start|>assistant\n",
        tools=("<|im_start|>user\n<tool_response>", "<|im_start|>tool\n"),
        close="<|im_end|>",
        after="\n",
    ),
    TurnFormat(
        name="llama-3",
        system="<|start_header_id|>system<|end_header_id|>\n\n",
        user="<|start_header_id|>user<|end_header_id|>\n\n",
        assistant="<|start_header_id|>assistant<|end_header_id|>\n\n",
        tools=("<|start_header_id|>ipython<|end_header_id|>", "<|start_header_id|>tool<|end_header_id|>"),
        close="<|eot_id|>",
    ),
    TurnFormat(
        name="glm-5",
        system="<|system|>",
        user="<|user|>",
        assistant="<|assistant|>",
        tools=("<|observation|>",),
    ),
    TurnFormat(
        name="glm-4",
        system="<|system|>\n",
        user="<|user|>\n",
        assistant="<|assistant|>",
        tools=("<|observation|>",),
    ),
    TurnFormat(
        name="kimi",
        system="<|im_system|>system<|im_middle|>",
        user="<|im_user|>user<|im_middle|>",
        assistant="<|im_assistant|>assistant<|im_middle|>",
        tools=("<|im_system|>",),
        close="<|im_end|>",
    ),
    TurnFormat(
        name="minimax",
        system="]~b]system\n",
        user="]~b]user\n",
        assistant="]~b]ai\n",
        tools=("]~b]tool",),
        close="[e~[",
        after="\n",
    ),
    TurnFormat(
        name="phi",
        system="<|system|>\n",
        user="<|user|>\n",
        assistant="<|assistant|>\n",
        tools=("<|tool|>",),
        close="<|end|>",
        after="\n",
    ),
    TurnFormat(
        name="gemma-4",
        system="<|turn>system\n",
        user="<|turn>user\n",
        assistant="<|turn>model\n",
        tools=("<|turn>tool",),
        close="<turn|>",
        after="\n",
    ),
    TurnFormat(
        name="gemma",
        user="<start_of_turn>user\n",
        assistant="<start_of_turn>model\n",
        close="<end_of_turn>",
        after="\n",
    ),
)


@dataclass(frozen=True, slots=True)
class Segment:
    """One message in ids: [start, end) with its header, content from `body`, content's end at `close`."""

    role: Role
    start: int
    body: int
    close: int
    end: int


class Turns:
    """A format, bound to a tokenizer and its stop ids."""

    def __init__(self, turn_format: TurnFormat, tokenizer: PlainTokenizer, stop_ids: Sequence[int]) -> None:
        self.format = turn_format
        self._tokenizer = tokenizer
        headers = [("user", turn_format.user), ("assistant", turn_format.assistant)]
        headers += [("tool", header) for header in turn_format.tools]
        headers += [("system", turn_format.system)] if turn_format.system else []
        # The newline of a header may melt into the content's first token, so it is no part of what is looked for.
        found = [(role, tuple(tokenizer.encode(header.rstrip("\n")))) for role, header in headers]
        self._headers = sorted(found, key=lambda header: len(header[1]), reverse=True)
        self._starts = frozenset(ids[0] for _, ids in self._headers)
        self._close = tokenizer.control_id(turn_format.close)
        self.after = tuple(tokenizer.encode(turn_format.after))
        self._ends = frozenset(stop_ids) | ({self._close} if self._close is not None else set())

    @classmethod
    def fits(cls, turn_format: TurnFormat, tokenizer: PlainTokenizer) -> bool:
        """Whether the tokenizer has the format's control tokens."""
        headers = [turn_format.user, turn_format.assistant, turn_format.system or turn_format.user]
        first = [tokenizer.encode(header)[0] for header in headers]
        closes = not turn_format.close or tokenizer.control_id(turn_format.close) is not None
        return closes and all(token_id in tokenizer.control_ids for token_id in first)

    @property
    def close_ids(self) -> tuple[int, ...]:
        """What ends a message that was cut off."""
        return () if self._close is None else (self._close,)

    def segments(self, ids: Sequence[int]) -> list[Segment]:
        """The messages of a prompt, or of a prompt and a reply; what stands before the first header is left out."""
        ids = tuple(ids)
        starts: list[tuple[Role, int, int]] = []
        for position, token_id in enumerate(ids):
            if token_id in self._starts and self._at_boundary(ids, position, bool(starts)):
                for role, header in self._headers:
                    if ids[position : position + len(header)] == header:
                        starts.append((role, position, position + len(header)))
                        break
        if not starts:
            return []
        ends = [start for _, start, _ in starts[1:]] + [len(ids)]
        return [
            Segment(role, start, body, self._content_end(ids, body, end), end)
            for (role, start, body), end in zip(starts, ends, strict=True)
        ]

    def _at_boundary(self, ids: tuple[int, ...], position: int, begun: bool) -> bool:
        if self._close is None or not begun:
            return True
        before = self._skip_blanks(ids, position)
        return before > 0 and ids[before - 1] in self._ends

    def _content_end(self, ids: tuple[int, ...], body: int, end: int) -> int:
        """In a reply the stop id that was sampled ends the content, whichever it is."""
        if self._close is None:
            return end
        close = self._skip_blanks(ids, end) - 1
        return close if close >= body and ids[close] in self._ends else end

    def _skip_blanks(self, ids: tuple[int, ...], position: int) -> int:
        """Templates put line breaks between messages, some of them not always."""
        while position > 0 and ids[position - 1] in self._tokenizer.blank_ids:
            position -= 1
        return position

    def insert(self, token_ids: Sequence[int], num_prompt: int, blocks: Sequence[Block]) -> TeacherView:
        """The ids with blocks inserted in the prompt, those of one place in the order given.

        Raises ConfigError for a place that this format or prompt does not have.
        """
        segments = self.segments(token_ids[:num_prompt])
        placed = []
        for block in blocks:
            if not block.text:
                raise ConfigError(f"a block for {block.position!r} has no text; leave the block out")
            placed.append((*self._place(block, segments, token_ids), block))
        placed.sort(key=lambda item: item[0])
        out: list[int] = []
        spans: list[tuple[int, int]] = []
        done = 0
        for position, ids, _ in placed:
            out += token_ids[done:position]
            spans.append((len(out), len(out) + len(ids)))
            out += ids
            done = position
        out += token_ids[done:]
        shown = tuple(block for _, _, block in placed)
        return TeacherView(token_ids=tuple(out), inserted_spans=tuple(spans), blocks=shown)

    def _place(self, block: Block, segments: Sequence[Segment], ids: Sequence[int]) -> tuple[int, list[int]]:
        if block.position == "tail":
            if not segments or segments[-1].role != "assistant":
                raise ConfigError("the prompt does not end with the header of an assistant message")
            return segments[-1].start, self._message(block.text)
        if block.position == "last_user":
            users = [segment for segment in segments if segment.role == "user"]
            if not users:
                raise ConfigError("the prompt has no user message; use the block position 'tail' or 'system'")
            return users[-1].close, self._tokenizer.plain("\n\n" + block.text)
        if block.position == "system":
            system = next((segment for segment in segments if segment.role == "system"), None)
            if system is not None:
                return system.close, self._tokenizer.plain("\n\n" + block.text)
            return (segments[0].start if segments else len(ids)), self._message(block.text)
        raise ConfigError(f"unknown block position {block.position!r}; use 'system', 'last_user' or 'tail'")

    def _message(self, text: str) -> list[int]:
        """A message of its own: a system message where the family has them, else a user message."""
        header = self._tokenizer.encode(self.format.system or self.format.user)
        return [*header, *self._tokenizer.plain(text), *self.close_ids, *self.after]


def without_spans(ids: Sequence[int], spans: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """The ids without those in the spans [start, end)."""
    dropped = {position for start, end in spans for position in range(start, end)}
    return tuple(token_id for position, token_id in enumerate(ids) if position not in dropped)


def find_format(
    tokenizer: PlainTokenizer,
    render: Callable[[list[dict[str, str]]], Sequence[int] | None],
    stop_ids: Sequence[int],
) -> Turns | None:
    """The format in which the template writes its messages, checked on a conversation of every plain role.

    Args:
        render: ids of messages with a generation prompt, None where the template refuses them.
    """
    talk = [("user", "apple"), ("assistant", "pear"), ("user", "plum")]
    with_system = render(_messages([("system", "fig"), *talk]))
    without = render(_messages(talk))
    for turn_format in FORMATS:
        if not Turns.fits(turn_format, tokenizer):
            continue
        turns = Turns(turn_format, tokenizer, stop_ids)
        ids, said = (with_system, [("system", "fig"), *talk]) if turn_format.system else (without, talk)
        if ids is not None and _reads(turns, ids, [*said, ("assistant", "")], tokenizer):
            return turns
    return None


def _messages(talk: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in talk]


def _reads(
    turns: Turns, ids: Sequence[int], said: Sequence[tuple[str, str]], tokenizer: PlainTokenizer
) -> bool:
    """Whether the segments are the messages, and each message would be written again as it stands."""
    segments = turns.segments(ids)
    if [segment.role for segment in segments] != [role for role, _ in said]:
        return False
    for segment, (role, content) in zip(segments[:-1], said, strict=False):
        written = tokenizer.decode(ids[segment.start : segment.end])
        if role == "user":
            if written != turns.format.user + content + turns.format.close + turns.format.after:
                return False
        elif content not in written:
            return False
    return True
