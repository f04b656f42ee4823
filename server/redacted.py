"""What goes to disk instead of secrets, and the session's secrets themselves, which stay in memory (law 10)."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agentrl.text.redaction import Redactor, hidden_ids
from agentrl.text.renderer import ChatRenderer
from agentrl.types import JSON, RedactedSpan, Reply, ToolCall, Turn

PROMPT_PATH = "prompt_ids"
SAMPLED_PATH = "completion.token_ids"
"""Spans of these two paths count ids; of all others, characters."""
MAX_SESSIONS = 10_000
MAX_CLEAN = 10_000

Spans = tuple[RedactedSpan, ...]


@dataclass(slots=True)
class Known:
    """Secrets that a session has shown so far: later they may come without what gave them away."""

    values: set[str] = field(default_factory=set)
    used_at: float = 0.0


class SessionRedactor:
    """Redacts what a session says, by the rules and by what they found in it before."""

    def __init__(self, renderer: ChatRenderer, *, rules: Redactor | None = None) -> None:
        self._renderer = renderer
        self._rules = rules or Redactor()
        self._known: OrderedDict[tuple[str, str], Known] = OrderedDict()
        self._clean: OrderedDict[bytes, None] = OrderedDict()
        """Digests of messages without a secret that the rules know, those that came last at the end."""
        self._placeholder = renderer.encode_plain("*")[0]

    def messages(self, scope: str, session: str, messages: Sequence[JSON]) -> tuple[tuple[JSON, ...], Spans]:
        """Messages with placeholders of equal length, and where they are."""
        known = self._secrets(scope, session)
        redacted, spans = self._messages(messages, known)
        if spans and self._learn(scope, session, self._rules.secrets(list(messages), known=known)):
            # What one message gives away stands bare in another.
            redacted, spans = self._messages(messages, self._secrets(scope, session))
        return redacted, spans

    def meet(self, scope: str, session: str, messages: Sequence[JSON]) -> None:
        """Learns what a history gives away before anything of it is written: nothing was read of it after a restart, or
        a long rest, and at any time a client may put another message before the others."""
        for message in messages:
            digest = _digest(message)
            if self._is_clean(digest):
                continue
            secrets = self._rules.secrets(message)
            if secrets:
                self._learn(scope, session, secrets)
            else:
                self._clean[digest] = None
        self._trim()

    def _messages(self, messages: Sequence[JSON], known: frozenset[str]) -> tuple[tuple[JSON, ...], Spans]:
        redacted: list[JSON] = []
        spans: list[RedactedSpan] = []
        for index, message in enumerate(messages):
            digest = _digest(message)
            # A history is sent again with every request: what the rules found clean once, they find clean again.
            if not known and self._is_clean(digest):
                redacted.append(message)
                continue
            said, found = self._rules.tree(message, f"messages.{index}", known=known)
            redacted.append(said)
            spans += found
            if not found:
                self._clean[digest] = None
        self._trim()
        return tuple(redacted), tuple(spans)

    def _is_clean(self, digest: bytes) -> bool:
        """Whether a message was found clean; one that was stays longer."""
        if digest not in self._clean:
            return False
        self._clean.move_to_end(digest)
        return True

    def _trim(self) -> None:
        """Lets go of what came first. Once a history is through: trimmed on the way, one with a message too many would
        lose each of them just before it is asked for again."""
        while len(self._clean) > MAX_CLEAN:
            self._clean.popitem(last=False)

    def text(self, scope: str, session: str, text: str) -> str:
        known = self._secrets(scope, session)
        redacted, spans = self._rules.text(text, known=known)
        if spans:
            self._learn(scope, session, self._rules.secrets(text, known=known))
        return redacted

    def turn(self, turn: Turn) -> Turn:
        """The turn as it may be written. One without secrets comes back as the same object."""
        messages, in_messages = self.messages(turn.scope, turn.session, turn.messages)
        tools, in_tools = self._tree(turn, list(turn.tools), "tools")
        grammar, in_grammar = self._tree(turn, turn.sampling.grammar, "sampling.grammar")
        reply, in_reply = self._reply(turn)
        secrets = self._secrets(turn.scope, turn.session)
        if not secrets:
            return turn
        # The ids hold nothing that is not in the messages or was in earlier ones, so they are looked at only now.
        prompt_ids, in_prompt = self._ids(turn.prompt_ids, PROMPT_PATH, secrets)
        sampled_ids, in_sampled = self._ids(turn.completion.token_ids, SAMPLED_PATH, secrets)
        spans = (*in_messages, *in_tools, *in_grammar, *in_reply, *in_prompt, *in_sampled)
        if not spans:
            return turn
        return replace(
            turn,
            messages=messages,
            tools=tuple(tools),
            sampling=replace(turn.sampling, grammar=grammar),
            reply=reply,
            prompt_ids=prompt_ids,
            completion=replace(turn.completion, token_ids=sampled_ids),
            redacted_spans=spans,
        )

    def forget_before(self, clock: float) -> None:
        """Lets go of the secrets of sessions that were last heard of before `clock` (time.monotonic)."""
        while self._known and next(iter(self._known.values())).used_at < clock:
            self._known.popitem(last=False)

    def _secrets(self, scope: str, session: str) -> frozenset[str]:
        known = self._known.get((scope, session))
        if known is None:
            return frozenset()
        known.used_at = time.monotonic()
        self._known.move_to_end((scope, session))
        return frozenset(known.values)

    def _learn(self, scope: str, session: str, found: Iterable[str]) -> bool:
        """Whether one of them is new."""
        known = self._known.setdefault((scope, session), Known())
        num_known = len(known.values)
        known.values.update(found)
        known.used_at = time.monotonic()
        self._known.move_to_end((scope, session))
        if len(self._known) > MAX_SESSIONS:
            self._known.popitem(last=False)
        return len(known.values) > num_known

    def _tree(self, turn: Turn, value: Any, path: str) -> tuple[Any, Spans]:
        known = self._secrets(turn.scope, turn.session)
        redacted, spans = self._rules.tree(value, path, known=known)
        if spans:
            self._learn(turn.scope, turn.session, self._rules.secrets(value, known=known))
        return redacted, spans

    def _reply(self, turn: Turn) -> tuple[Reply, Spans]:
        said = {
            "text": turn.reply.text,
            "reasoning": turn.reply.reasoning,
            "tool_calls": [[call.name, call.arguments] for call in turn.reply.tool_calls],
        }
        redacted, spans = self._tree(turn, said, "reply")
        calls = tuple(
            ToolCall(id=call.id, name=name, arguments=arguments)
            for call, (name, arguments) in zip(turn.reply.tool_calls, redacted["tool_calls"], strict=True)
        )
        return Reply(text=redacted["text"], reasoning=redacted["reasoning"], tool_calls=calls), spans

    def _ids(self, ids: tuple[int, ...], path: str, secrets: frozenset[str]) -> tuple[tuple[int, ...], Spans]:
        """Ids with the placeholder's id for each that holds a character of a secret: as many ids as before."""
        found = self._rules.find(self._renderer.decode(ids), known=secrets)
        if not found:
            return ids, ()
        hidden = hidden_ids(self._renderer.offsets(ids), found)
        blanked = tuple(
            self._placeholder if hide else token_id for token_id, hide in zip(ids, hidden, strict=True)
        )
        return blanked, tuple(runs(hidden, path))


def _digest(message: JSON) -> bytes:
    return hashlib.blake2b(repr(message).encode(errors="surrogatepass"), digest_size=16).digest()


def runs(hidden: Sequence[bool], path: str) -> Iterable[RedactedSpan]:
    """The spans of ids [start, end) that are hidden."""
    start = None
    for index, hide in enumerate([*hidden, False]):
        if hide and start is None:
            start = index
        elif not hide and start is not None:
            yield RedactedSpan(path=path, start=start, end=index, rule="secret")
            start = None
