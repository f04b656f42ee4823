"""The OpenAI chat dialect: a body in, a ChatRequest for the gateway; its events out, as JSON or as chunks.

Beyond OpenAI's fields, replies say `reasoning_content` and, in every finished choice, `agentrl`: the turn's id, the
policy version, whether the turn was recorded and, where a tool call was demanded, whether one came.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from agentrl.errors import AgentRLError
from agentrl.types import JSON, Reply, Sampling, ToolCall
from server.events import Ended, Event, Piece, TokenLogprob
from server.wire.bad_body import refused_body
from server.wire.chat_body import ChatBody
from server.wire.errors import error_reply
from server.wire.sse import DONE, event


def read_body(data: bytes) -> ChatBody:
    """Raises Refused (400) with the first thing that is wrong."""
    try:
        body = ChatBody.model_validate_json(data)
    except ValidationError as error:
        raise refused_body(error, data, ChatBody) from error
    body.refuse_unservable()
    return body


def sampling_of(body: ChatBody, *, max_tokens: int) -> Sampling:
    """How to sample. `max_tokens` is the server's limit and the default."""
    asked = body.max_completion_tokens or body.max_tokens or max_tokens
    return Sampling(
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        top_k=max(0, body.top_k or 0),
        max_tokens=min(asked, max_tokens),
        seed=body.seed,
        stop=body.stops(),
        top_logprobs=(body.top_logprobs or 0) if body.logprobs else 0,
        grammar=body.grammar(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatWriter:
    """Writes the reply to one request."""

    body: ChatBody
    response_id: str
    created: int
    model: str
    fingerprint: str

    def plain(self, ended: Iterable[Ended]) -> JSON:
        """The whole reply; `ended` holds every choice in order."""
        choices = list(ended)
        reply: JSON = {
            **self._head("chat.completion"),
            "choices": [self._choice(end) for end in choices],
            "usage": usage(choices),
        }
        if self.body.return_token_ids:
            reply["prompt_token_ids"] = list(choices[0].turn.prompt_ids)
        return reply

    async def stream(self, events: AsyncIterator[Event]) -> AsyncIterator[bytes]:
        """The reply as server-sent events. An error ends the stream as an event, without [DONE]."""
        opened: set[int] = set()
        ends: list[Ended] = []
        try:
            async for item in events:
                if item.choice not in opened:
                    opened.add(item.choice)
                    yield self._chunk(item.choice, {"role": "assistant", "content": ""})
                if isinstance(item, Piece):
                    yield self._chunk(item.choice, delta(item), logprobs=item.logprobs)
                else:
                    ends.append(item)
                    yield self._last_chunk(item)
        except AgentRLError as error:
            yield event(error_reply(error).body())
            return
        if self.body.stream_options and self.body.stream_options.include_usage:
            yield event({**self._head("chat.completion.chunk"), "choices": [], "usage": usage(ends)})
        yield DONE

    def _head(self, kind: str) -> JSON:
        return {
            "id": self.response_id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }

    def _choice(self, end: Ended) -> JSON:
        choice = {
            "index": end.choice,
            "message": message(end.turn.reply),
            "logprobs": logprob_content(end.logprobs) if self.body.logprobs else None,
            "finish_reason": finish_reason(end),
            "agentrl": self._extension(end),
        }
        return choice | self._token_ids(end)

    def _chunk(
        self, choice: int, change: JSON, *, logprobs: tuple[TokenLogprob, ...] = (), **more: Any
    ) -> bytes:
        entry = {"index": choice, "delta": change, "logprobs": None, "finish_reason": None, **more}
        if self.body.logprobs and logprobs:
            entry["logprobs"] = logprob_content(logprobs)
        chunk = {**self._head("chat.completion.chunk"), "choices": [entry]}
        if self.body.stream_options and self.body.stream_options.include_usage:
            chunk["usage"] = None
        return event(chunk)

    def _last_chunk(self, end: Ended) -> bytes:
        more = {"finish_reason": finish_reason(end), "agentrl": self._extension(end)} | self._token_ids(end)
        return self._chunk(end.choice, {}, logprobs=end.logprobs, **more)

    def _token_ids(self, end: Ended) -> JSON:
        return {"token_ids": list(end.turn.completion.token_ids)} if self.body.return_token_ids else {}

    def _extension(self, end: Ended) -> JSON:
        said: JSON = {
            "turn_id": end.turn.id,
            "policy_version": end.turn.completion.version,
            "recorded": end.recorded,
        }
        if self.body.demands_call:
            # Nothing forces the model. Only the named tool is offered, so any call is a call of it.
            said["tool_choice_met"] = bool(end.turn.reply.tool_calls)
        return said


def message(reply: Reply) -> JSON:
    said: JSON = {"role": "assistant", "content": reply.text, "refusal": None}
    if reply.reasoning:
        said["reasoning_content"] = reply.reasoning
    if reply.tool_calls:
        said["content"] = reply.text or None
        said["tool_calls"] = [tool_call(call) for call in reply.tool_calls]
    return said


def tool_call(call: ToolCall) -> JSON:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def delta(piece: Piece) -> JSON:
    change: JSON = {}
    said = piece.delta
    if said.reasoning:
        change["reasoning_content"] = said.reasoning
    if said.text:
        change["content"] = said.text
    if said.tool_index is not None:
        call: JSON = {"index": said.tool_index, "function": {"arguments": said.arguments}}
        if piece.call_id is not None:
            call |= {"id": piece.call_id, "type": "function"}
            call["function"] = {"name": said.tool_name, "arguments": said.arguments}
        change["tool_calls"] = [call]
    return change


def finish_reason(end: Ended) -> str:
    return "tool_calls" if end.turn.reply.tool_calls else str(end.turn.completion.finish_reason)


def usage(ends: Iterable[Ended]) -> JSON:
    """Ids, as OpenAI counts them: the prompt once, the choices together."""
    ends = list(ends)
    prompt = len(ends[0].turn.prompt_ids) if ends else 0
    sampled = sum(len(end.turn.completion.token_ids) for end in ends)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": sampled,
        "total_tokens": prompt + sampled,
        "prompt_tokens_details": {"cached_tokens": ends[0].num_cached if ends else 0},
    }


def logprob_content(tokens: Iterable[TokenLogprob]) -> JSON:
    def entry(token: str, logprob: float) -> JSON:
        return {"token": token, "logprob": logprob, "bytes": list(token.encode(errors="replace"))}

    return {
        "content": [
            entry(one.token, one.logprob) | {"top_logprobs": [entry(*other) for other in one.top]}
            for one in tokens
        ],
        "refusal": None,
    }
