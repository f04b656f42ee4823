"""Model families: how messages become ids.

The `renderers` package knows some families and writes their ids in Python. Which one a model folder belongs to is not
guessed from its name: the folder's own chat template and the package render the same probes, and only a family that
agrees on every id is taken. Every other model, fine-tunes with a template of their own included, is rendered by its
template (`TemplateFamily`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import renderers
from jinja2.exceptions import TemplateError
from renderers.base import MODEL_RENDERER_MAP
from transformers import PreTrainedTokenizerFast

from agentrl.errors import RequestError
from agentrl.text.plain import PlainTokenizer
from agentrl.types import JSON

_TOOL: JSON = {
    "type": "function",
    "function": {
        "name": "weigh",
        "description": "Weighs fruit.",
        "parameters": {
            "type": "object",
            "properties": {
                "fruit": {"type": "string", "description": "Which one."},
                "times": {"type": "integer"},
            },
            "required": ["fruit"],
        },
    },
}
_CALL: JSON = {
    "id": "call0",
    "type": "function",
    "function": {"name": "weigh", "arguments": '{"fruit": "fig", "times": 2}'},
}
_RESULT: JSON = {"role": "tool", "tool_call_id": "call0", "name": "weigh", "content": "3 g\n"}
_SYSTEM: JSON = {"role": "system", "content": "Be brief."}
_USER: JSON = {"role": "user", "content": " What does a fig weigh?\n"}
_SAYS: JSON = {"role": "assistant", "content": "Let me see."}
CALLS: JSON = {"role": "assistant", "content": "", "tool_calls": [_CALL]}
_THINKS: JSON = {"role": "assistant", "content": "Three.", "reasoning_content": "It said so."}
_THINKS_CALLS: JSON = CALLS | {"content": "Weighing.", "reasoning_content": "I must weigh it."}

PROBES: tuple[tuple[list[JSON], list[JSON]], ...] = (
    ([_USER], []),
    ([_SYSTEM, _USER], []),
    ([_SYSTEM, _USER, _SAYS, _USER, _THINKS, _USER], []),
    ([_USER], [_TOOL]),
    ([_SYSTEM, _USER, CALLS, _RESULT], [_TOOL]),
    ([_SYSTEM, _USER, _THINKS_CALLS, _RESULT, _THINKS, _USER, CALLS, _RESULT, _SAYS, _USER], [_TOOL]),
    ([_USER, _THINKS_CALLS, _RESULT, _THINKS_CALLS, _RESULT], [_TOOL]),
)
"""Messages and tools that show a template's habits: preamble, tools, reasoning kept and dropped, calls, results."""


class Family(Protocol):
    """Renders normal, shielded messages."""

    @property
    def name(self) -> str: ...

    def ids(self, messages: Sequence[JSON], tools: Sequence[JSON]) -> list[int]:
        """Prompt ids, the header of the reply included. Raises RequestError where the template refuses."""
        ...


class PackageFamily:
    """A family of the `renderers` package. `renderer` is the package's object."""

    def __init__(self, name: str, renderer: Any) -> None:
        self.name = name
        self.renderer = renderer

    def ids(self, messages: Sequence[JSON], tools: Sequence[JSON]) -> list[int]:
        try:
            ids = self.renderer.render_ids(
                list(messages), tools=list(tools) or None, add_generation_prompt=True
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RequestError(f"the {self.name} format cannot hold these messages: {error}") from error
        return list(ids)

    def stop_ids(self) -> list[int]:
        return list(self.renderer.get_stop_token_ids())


class TemplateFamily:
    """Whatever the model folder's chat template says."""

    name = "template"

    def __init__(self, tokenizer: PlainTokenizer, owner: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._owner = owner

    def ids(self, messages: Sequence[JSON], tools: Sequence[JSON]) -> list[int]:
        """Messages that the template refuses are merged into a shape that it may take; see `reshaped`."""
        decoded = [_with_argument_objects(message) for message in messages]
        first: Exception | None = None
        for shape in reshaped(decoded):
            try:
                return self._tokenizer.encode(self._text(shape, tools))
            except (TemplateError, ValueError, TypeError, KeyError, AttributeError) as error:
                first = first or error
        raise RequestError(
            f"the model's chat template refuses these messages: {first}", param="messages"
        ) from first

    def _text(self, messages: list[JSON], tools: Sequence[JSON]) -> str:
        text = self._owner.apply_chat_template(
            messages, tools=list(tools) or None, add_generation_prompt=True, tokenize=False
        )
        return str(text)


def reshaped(messages: list[JSON]) -> Iterator[list[JSON]]:
    """The messages as they are; then with roles alternating behind one system message; then with none at all."""
    yield messages
    leading = 0
    while leading < len(messages) and messages[leading]["role"] == "system":
        leading += 1
    system = "\n\n".join(message["content"] for message in messages[:leading])
    rest: list[JSON] = []
    for message in messages[leading:]:
        role = "user" if message["role"] == "system" else message["role"]
        if rest and rest[-1]["role"] == role == "user":
            rest[-1] = rest[-1] | {"content": rest[-1]["content"] + "\n\n" + message["content"]}
        else:
            rest.append(message | {"role": role})
    yield ([{"role": "system", "content": system}] if leading else []) + rest
    if leading and rest and rest[0]["role"] == "user":
        yield [rest[0] | {"content": system + "\n\n" + rest[0]["content"]}, *rest[1:]]


def recognise(tokenizer: PlainTokenizer, template: TemplateFamily) -> PackageFamily | None:
    """The family of the package that renders every probe exactly as the template does."""
    expected = []
    for messages, tools in PROBES:
        try:
            expected.append(template.ids(messages, tools))
        except RequestError:
            expected.append([])
    for family in package_families(tokenizer):
        if all(
            ids and _agrees(family, messages, tools, ids)
            for (messages, tools), ids in zip(PROBES, expected, strict=True)
        ):
            return family
    return None


def package_families(tokenizer: PlainTokenizer) -> Iterator[PackageFamily]:
    """Every family of the package whose control tokens the tokenizer has, in each of its thinking modes."""
    for name in dict.fromkeys(MODEL_RENDERER_MAP.values()):
        config = renderers.config_from_name(name)
        modes: list[JSON] = [{}]
        if "enable_thinking" in config.template_field_names():
            modes += [{"enable_thinking": True}, {"enable_thinking": False}]
        for mode in modes:
            try:
                yield PackageFamily(
                    name, renderers.create_renderer(tokenizer, config, chat_template_kwargs=mode)
                )
            except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError):
                # The tokenizer lacks something that the family needs.
                break


def _agrees(family: PackageFamily, messages: list[JSON], tools: list[JSON], ids: list[int]) -> bool:
    try:
        return family.ids(messages, tools) == ids
    except (RequestError, AssertionError, RuntimeError):
        return False


def _with_argument_objects(message: JSON) -> JSON:
    """Templates expect arguments as objects; text that is no JSON object stays text."""
    if "tool_calls" not in message:
        return message
    calls = []
    for call in message["tool_calls"]:
        arguments = call["function"]["arguments"]
        try:
            value = json.loads(arguments)
        except (ValueError, RecursionError):
            value = None
        function = call["function"] | {"arguments": value if isinstance(value, dict) else arguments}
        calls.append(call | {"function": function})
    return message | {"tool_calls": calls}
