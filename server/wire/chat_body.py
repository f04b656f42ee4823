"""The body of POST /v1/chat/completions: what is accepted, what is ignored and what is refused.

Unknown fields are ignored, at every level: clients echo fields of other servers (`server.wire.near_miss` tells of those
that were probably meant to be known ones). A known field that would change
the answer and that we cannot honour is refused with the remedy.
"""

from __future__ import annotations

import json
from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr

from agentrl.text.messages import normalise
from agentrl.types import JSON
from server.wire.errors import Refused

MAX_CHOICES = 16
MAX_IGNORED = 32
"""Unknown fields of one body that are known by their names: a slip stands among the first."""


class Wire(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Part(Wire):
    type: str = "text"
    text: str | None = None
    refusal: str | None = None
    thinking: str | None = None


def as_text(value: Any) -> Any:
    """Tool arguments as JSON text; a few clients send the object itself."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value


class Function(Wire):
    name: str
    arguments: Annotated[str, BeforeValidator(as_text)] = "{}"


class Call(Wire):
    id: str = ""
    function: Function


class Message(Wire):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    name: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None


class FunctionSchema(BaseModel):
    """A function as the client describes it; kept whole, because the chat template shows it to the model."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str = Field(min_length=1)


class Tool(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)
    type: Literal["function"] = "function"
    function: FunctionSchema


class NamedFunction(Wire):
    name: str


class NamedTool(Wire):
    type: Literal["function"] = "function"
    function: NamedFunction


class StreamOptions(Wire):
    include_usage: bool | None = None


class ResponseFormat(Wire):
    type: str
    json_schema: dict[str, Any] | None = None


class ChatBody(Wire):
    # Unknown fields are allowed for their names: `model_post_init` drops what they hold.
    model_config = ConfigDict(extra="allow", frozen=True)
    _ignored: tuple[str, ...] = PrivateAttr(())
    model: str
    messages: list[Message] = Field(min_length=1)
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    stop: str | list[str] | None = None
    seed: int | None = None
    temperature: float | None = Field(default=None, ge=0, le=10)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = None
    response_format: ResponseFormat | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    functions: list[Any] | None = None
    metadata: dict[str, Any] | None = None
    session_id: str | None = None

    @property
    def demands_call(self) -> bool:
        """Whether tool_choice asks that a tool be called."""
        return self.tool_choice == "required" or isinstance(self.tool_choice, NamedTool)

    def model_post_init(self, context: Any) -> None:
        """Lets go of what is ignored: a body lives as long as its reply is streamed."""
        del context
        extra = self.model_extra or {}
        self._ignored = tuple(islice(extra, MAX_IGNORED))
        extra.clear()

    @property
    def ignored(self) -> tuple[str, ...]:
        """The first `MAX_IGNORED` fields that are not known, by name, in the client's order."""
        return self._ignored

    def refuse_unservable(self) -> None:
        """Raises Refused for what this server would otherwise have to ignore silently."""
        for name in ("frequency_penalty", "presence_penalty", "logit_bias"):
            if getattr(self, name):
                raise Refused(
                    f"{name} is not supported: log-probs of the sampled ids would no longer be those that are "
                    "trained on. Leave it out or set it to its neutral value.",
                    param=name,
                    code="unsupported_parameter",
                )
        if self.functions:
            raise Refused(
                "functions is the old form of tools. Send tools.",
                param="functions",
                code="unsupported_parameter",
            )
        if self.top_logprobs and not self.logprobs:
            raise Refused(
                "top_logprobs needs logprobs. Set logprobs to true.",
                param="top_logprobs",
                code="invalid_value",
            )
        if self.tools and self.tool_choice != "none" and self.grammar() is not None:
            raise Refused(
                "response_format cannot be combined with tools that may be called: a reply that must be JSON has no "
                "room for a call. Send tool_choice 'none', or leave out tools or response_format.",
                param="response_format",
                code="unsupported_parameter",
            )
        if self.tool_choice == "required" and not self.tools:
            raise Refused(
                "tool_choice is 'required' and there are no tools. Send tools or leave tool_choice out.",
                param="tool_choice",
                code="invalid_value",
            )

    def offered_tools(self) -> tuple[JSON, ...]:
        """The tools that the model is shown: none for tool_choice "none", the named one for a named one."""
        tools = tuple(tool.model_dump() for tool in self.tools or ())
        if self.tool_choice == "none":
            return ()
        if not isinstance(self.tool_choice, NamedTool):
            return tools
        wanted = self.tool_choice.function.name
        named = tuple(tool for tool in tools if tool["function"]["name"] == wanted)
        if not named:
            known = ", ".join(tool["function"]["name"] for tool in tools) or "none"
            raise Refused(
                f"tool_choice names {wanted!r}, which is not among the tools sent ({known}).",
                param="tool_choice",
                code="invalid_value",
            )
        return named

    def grammar(self) -> str | None:
        """The JSON schema that the reply must follow, as text; None where the reply is free."""
        form = self.response_format
        if form is None or form.type == "text":
            return None
        if form.type == "json_object":
            return '{"type":"object"}'
        if (
            form.type == "json_schema"
            and form.json_schema
            and isinstance(form.json_schema.get("schema"), dict)
        ):
            # In the client's order: a model writes the fields as the schema lists them, its reasons first.
            try:
                return json.dumps(form.json_schema["schema"], ensure_ascii=False, allow_nan=False)
            except (ValueError, RecursionError) as error:
                raise Refused(
                    f"response_format cannot be honoured: its schema is no JSON ({error}). Use finite numbers, and "
                    "fewer levels.",
                    param="response_format",
                    code="invalid_value",
                ) from error
        raise Refused(
            f"response_format of type {form.type!r} cannot be honoured. Use text, json_object, or json_schema with "
            "json_schema.schema.",
            param="response_format",
            code="invalid_value",
        )

    def stops(self) -> tuple[str, ...]:
        texts = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in texts if text)


def messages_of(body: ChatBody) -> tuple[JSON, ...]:
    """The messages as the gateway, the templates and the log know them. Raises RequestError for what is no text, or
    none where there must be some: only an assistant's message may hold calls alone."""
    for index, message in enumerate(body.messages):
        if message.content is None and message.role != "assistant":
            name = f"messages[{index}].content"
            raise Refused(
                f"{name} is missing: a {message.role} message needs a text.", param=name, code="invalid_value"
            )
    return tuple(normalise([message.model_dump(exclude_none=True) for message in body.messages]))
