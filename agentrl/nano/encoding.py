"""Examples of conversations and their token ids in the Qwen3 chat format."""

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from tokenizers import Tokenizer

from agentrl.nano import tokenizer as nano_tokenizer

Message = dict[str, Any]
Position = Literal["tail", "last_user", "system"]
POSITIONS: tuple[Position, ...] = ("tail", "last_user", "system")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A teacher's text and where it stands in the prompt of the last assistant message."""

    position: Position
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A conversation that ends with an assistant message; `trained` are the indices of the messages to learn."""

    kind: str
    messages: list[Message]
    tools: list[dict[str, Any]] | None
    blocks: tuple[Block, ...]
    trained: frozenset[int]


_FIXED = re.compile("(" + "|".join(map(re.escape, sorted(nano_tokenizer.FIXED, key=len, reverse=True))) + ")")
_CHUNK = re.compile(r" ?[^ \n]+|[ \n]")


class Encoder:
    """Token ids and loss mask of an example, equal to those of renderers' Qwen3Renderer with the blocks put in."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._cache: dict[str, list[int]] = {}
        special = nano_tokenizer.control_ids(tokenizer)
        self._start, self._end = special["<|im_start|>"], special["<|im_end|>"]
        self._call, self._call_end = special["<tool_call>"], special["</tool_call>"]
        self._response, self._response_end = special["<tool_response>"], special["</tool_response>"]
        header, footer = nano_tokenizer.TOOLS_HEADER, nano_tokenizer.TOOLS_FOOTER
        self._footer = [
            *self._whole("\n"), *self._whole(footer[0]), self._call, self._call_end, *self._whole(footer[1]),
            *self._whole("\n"), self._call,
            *self._whole("\n"), *self._whole(footer[2]), *self._whole("\n"), self._call_end,
        ]  # fmt: skip
        self._header = self._whole(header)

    def _whole(self, text: str) -> list[int]:
        ids = self._cache.get(text)
        if ids is None:
            if len(self._cache) > 400_000:
                self._cache.clear()
            ids = self._cache[text] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def text(self, text: str) -> list[int]:
        """Ids of ordinary text.

        Beside the fixed sentences no token goes on past a space or newline, so words are encoded apart and cached.
        """
        ids: list[int] = []
        for number, part in enumerate(_FIXED.split(text)):
            for chunk in [part] if number % 2 else _CHUNK.findall(part):
                ids += self._whole(chunk)
        return ids

    def encode(self, example: Example) -> tuple[list[int], list[bool]]:
        """Ids up to the closing <|im_end|> of the last message, and which of them the model has to produce."""
        ids: list[int] = []
        mask: list[bool] = []

        def emit(new: list[int], learn: bool = False) -> None:
            ids.extend(new)
            mask.extend([learn] * len(new))

        def insert(position: Position) -> None:
            for block in example.blocks:
                if block.position == position:
                    if position == "tail":
                        emit(
                            [self._start, *self.text("system\n"), *self.text(block.text), self._end, *newline]
                        )
                    else:
                        emit(self.text("\n\n" + block.text))

        newline = self._whole("\n")
        messages = example.messages
        has_system = messages[0]["role"] == "system"
        if has_system or example.tools:
            emit([self._start, *self.text("system\n")])
            if has_system:
                emit(self.text(messages[0]["content"]))
            if example.tools:
                emit(self.text("\n\n") if has_system else [])
                emit(self._header)
                for tool in example.tools:
                    emit(newline)
                    emit(self._whole(json.dumps(tool, ensure_ascii=False)))
                emit(self._footer)
            insert("system")
            emit([self._end, *newline])
        last_user = max(index for index, message in enumerate(messages) if message["role"] == "user")
        for index, message in enumerate(messages):
            role = message["role"]
            if role == "user":
                emit([self._start, *self.text("user\n"), *self.text(message["content"])])
                if index == last_user:
                    insert("last_user")
                emit([self._end, *newline])
            elif role == "tool":
                emit(
                    [
                        self._start,
                        *self.text("user\n"),
                        self._response,
                        *newline,
                        *self.text(message["content"]),
                    ]
                )
                emit([*newline, self._response_end, self._end, *newline])
            elif role == "assistant":
                if index == len(messages) - 1:
                    insert("tail")
                emit([self._start, *self.text("assistant\n")])
                emit(self.reply(message), index in example.trained)
                if index < len(messages) - 1:
                    emit(newline)
        return ids, mask

    def reply(self, message: Message) -> list[int]:
        """Ids of an assistant message as it is sampled, <|im_end|> included."""
        ids = self.text(message["content"] or "")
        for call in message.get("tool_calls") or []:
            opening, closing = nano_tokenizer.CALL_OPENING, nano_tokenizer.CALL_CLOSING
            command = json.loads(call["function"]["arguments"])["command"]
            inside = self.text(json.dumps(command, ensure_ascii=False)[1:-1])
            newline = self._whole("\n")
            ids = [
                *ids,
                self._call,
                *newline,
                *self._whole(opening),
                *inside,
                *self._whole(closing),
                *newline,
                self._call_end,
            ]
        return [*ids, self._end]
