"""Messages to ids and ids to replies, for one model: the only way text and ids meet.

    renderer = load_renderer(folder)
    prompt = renderer.prompt(messages, tools, parent)     ids for the engine, and how they were built
    stream = renderer.stream(tools)                       deltas while the engine samples
    renderer.insert(ids, len(prompt.ids), blocks)         the teacher's view of the same ids

A prompt continues its parent, the turn that it answers, id by id wherever the template would say the same (extend.py):
sampled ids stay as they were sampled, and keys and values can be used again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from transformers import PreTrainedTokenizerFast

from agentrl.errors import ConfigError, ModelError, RequestError
from agentrl.text.changed_calls import calls_in, message_of_calls, offered
from agentrl.text.extend import Differs, Parent, extended
from agentrl.text.families import PROBES, Family, TemplateFamily, recognise
from agentrl.text.messages import normalise, shielded
from agentrl.text.plain import PlainTokenizer
from agentrl.text.reading import ReplyReader
from agentrl.text.reply import Delta, ReplyStream
from agentrl.text.turns import find_format
from agentrl.types import JSON, Block, Reply, TeacherView, Turn

__all__ = ["ChatRenderer", "Delta", "Parent", "Prompt", "Renderer", "ReplyStream", "load_renderer"]

ThinkingRetention = Literal["template", "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """Ids for the engine."""

    ids: tuple[int, ...]
    built_by: str
    """'extended' (the parent's ids verbatim plus the tail) or 'rendered: REASON'."""


class Renderer(Protocol):
    """What the rest of the house asks of a model's text."""

    @property
    def family(self) -> str: ...

    @property
    def stop_ids(self) -> tuple[int, ...]: ...

    @property
    def reasoning_end(self) -> int | None:
        """The id behind which the answer begins, where prompts leave reasoning open; None where they do not."""
        ...

    @property
    def vocab_size(self) -> int: ...

    def prompt(self, messages: Sequence[JSON], tools: Sequence[JSON], parent: Parent | None) -> Prompt:
        """Raises RequestError for messages or tools that the model's format cannot hold."""
        ...

    def parse(self, ids: Sequence[int], tools: Sequence[JSON]) -> Reply:
        """The reply in sampled ids. Never raises: what is malformed is text. The ids of calls are ""."""
        ...

    def stream(self, tools: Sequence[JSON]) -> ReplyStream: ...

    def insert(self, token_ids: Sequence[int], num_prompt: int, blocks: Sequence[Block]) -> TeacherView:
        """`token_ids` with blocks inserted among the first `num_prompt`. Raises ConfigError, with the remedy."""
        ...

    def encode_plain(self, text: str) -> list[int]:
        """Ids of text, control tokens spelled out."""
        ...

    def answer(self, turn: Turn, text: str) -> tuple[int, ...] | None:
        """Ids of a preferred answer to a turn, ended as a reply is ended; None where calls cannot be written.

        A text is encoded with control tokens spelled out. The text of calls (`changed_calls`) becomes the sampled
        reply with those calls in the place of its own: only what differs is tokenised.
        """
        ...

    def decode(self, ids: Sequence[int]) -> str: ...


class ChatRenderer:
    """The `Renderer` of one model; built by `load_renderer`.

    Args:
        family: how its messages become ids.
        stop_ids: what ends a reply.
        thinking_retention: "template" keeps the reasoning of earlier turns where the template would, "all" always.
    """

    def __init__(
        self,
        tokenizer: PlainTokenizer,
        family: Family,
        *,
        stop_ids: Sequence[int],
        thinking_retention: ThinkingRetention = "template",
    ) -> None:
        self.family = family.name
        self.vocab_size = tokenizer.vocab_size
        self._tokenizer = tokenizer
        self._family = family
        self._keep_all = thinking_retention == "all"
        self._turns = find_format(tokenizer, self._try, stop_ids)
        # A reply ends with its message, whether or not the model's settings say so.
        closes = () if self._turns is None else self._turns.close_ids
        self.stop_ids = tuple(dict.fromkeys((*stop_ids, *closes)))
        self._reader = ReplyReader(tokenizer, family, self.stop_ids, try_render=self._try)
        self.reasoning_end = self._reader.reasoning_end

    @property
    def positions(self) -> frozenset[str]:
        """Where blocks can be inserted in this model's prompts; empty where nowhere."""
        return frozenset() if self._turns is None else frozenset({"system", "last_user", "tail"})

    def prompt(self, messages: Sequence[JSON], tools: Sequence[JSON], parent: Parent | None) -> Prompt:
        if tools and not self._reader.calls:
            raise RequestError(
                "this model's chat template writes tool calls in no form that agentrl reads; send no tools",
                param="tools",
            )
        history = normalise(messages)
        reason = "no parent"
        if parent is not None and self._turns is None:
            reason = "the format of the model's messages is not known"
        elif parent is not None and self._turns is not None:
            try:
                ids = extended(
                    parent,
                    history,
                    render=lambda restored: self._rendered(restored, tools),
                    turns=self._turns,
                    reader=self._reader,
                    stop_ids=frozenset(self.stop_ids),
                    keep_all=self._keep_all,
                )
                return Prompt(ids=ids, built_by="extended")
            except Differs as difference:
                reason = str(difference)
        return Prompt(ids=self._rendered(history, tools), built_by=f"rendered: {reason}")

    def parse(self, ids: Sequence[int], tools: Sequence[JSON]) -> Reply:
        return self._reader.parse(ids, tools)

    def stream(self, tools: Sequence[JSON]) -> ReplyStream:
        return self._reader.stream(tools)

    def insert(self, token_ids: Sequence[int], num_prompt: int, blocks: Sequence[Block]) -> TeacherView:
        if self._turns is None:
            raise ConfigError(
                "this model's chat template writes messages in no format that agentrl knows, so that nothing can be "
                "inserted; use a recipe without a privileged context, or a model with a ChatML template"
            )
        return self._turns.insert(token_ids, num_prompt, blocks)

    def encode_plain(self, text: str) -> list[int]:
        return self._tokenizer.plain(text)

    def answer(self, turn: Turn, text: str) -> tuple[int, ...] | None:
        calls = calls_in(text) if turn.reply.tool_calls else ()
        if not calls:
            return (*self.encode_plain(text), self.stop_ids[0])
        if not offered(turn, calls):
            return None
        messages = [PROBES[0][0][0], message_of_calls(calls), PROBES[0][0][0]]
        try:
            written = self._rendered(normalise(messages), ())
        except RequestError:
            return None
        edited = self._reader.with_calls(turn.completion.token_ids, written)
        if edited is None or edited[-1] in self.stop_ids:
            return edited
        return (*edited, self.stop_ids[0])

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids)

    def offsets(self, ids: Sequence[int]) -> list[tuple[int, int]]:
        """Characters [start, end) of `decode(ids)` to which each id contributed; for redaction."""
        return self._tokenizer.offsets(ids)

    def _rendered(self, history: Sequence[JSON], tools: Sequence[JSON]) -> tuple[int, ...]:
        shield = self._tokenizer.shield
        return tuple(self._family.ids(shielded(history, shield), shield.tree(list(tools))))

    def _try(self, messages: Sequence[JSON], tools: Sequence[JSON] = ()) -> list[int] | None:
        try:
            return self._family.ids(messages, tools)
        except RequestError:
            return None


def load_renderer(model_path: Path, *, thinking_retention: ThinkingRetention = "template") -> ChatRenderer:
    """The renderer of a Hugging Face model folder. Imports no torch and reads nothing but the folder.

    Raises:
        ModelError: no tokenizer that loads without code of the model's own, or no chat template.
    """
    if not (model_path / "tokenizer.json").is_file():
        raise ModelError(
            f"{model_path} has no tokenizer.json; save one there with the model's tokenizer (save_pretrained)"
        )
    try:
        owner = PreTrainedTokenizerFast.from_pretrained(str(model_path), local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"the tokenizer in {model_path} cannot be loaded: {error}") from error
    if not owner.chat_template:
        raise ModelError(f"{model_path} has no chat template; put the model's chat_template.jinja there")
    tokenizer = PlainTokenizer(
        owner.backend_tokenizer, name=str(model_path), eos_token=owner.eos_token, unk_token=owner.unk_token
    )
    template = TemplateFamily(tokenizer, owner)
    if not template.ids([{"role": "user", "content": "hello"}], ()):
        raise ModelError(f"the chat template in {model_path} writes nothing for a user message")
    package = recognise(tokenizer, template)
    stops = package.stop_ids() if package is not None else []
    stops += _configured_stop_ids(model_path, tokenizer)
    return ChatRenderer(
        tokenizer,
        package or template,
        stop_ids=list(dict.fromkeys(stops)),
        thinking_retention=thinking_retention,
    )


def _configured_stop_ids(model_path: Path, tokenizer: PlainTokenizer) -> list[int]:
    """The end-of-sequence ids that the tokenizer and the generation settings name."""
    found = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    settings = model_path / "generation_config.json"
    if settings.is_file():
        named = json.loads(settings.read_text(encoding="utf-8")).get("eos_token_id")
        found += named if isinstance(named, list) else [named]
    return [token_id for token_id in found if isinstance(token_id, int)]
