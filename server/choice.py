"""One choice while it is sampled: ids in, pieces of reply out, and at the end what goes into the log.

Law 3 is kept here: a piece on which a client could act is held back until the gateway has committed the turn.
Law 1 too: the ids stay as they were sampled, whatever is trimmed from the text that the client sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agentrl.engine.base import Sampled
from agentrl.text.renderer import Renderer
from agentrl.text.reply import Delta
from agentrl.types import JSON, Completion, FinishReason, Reply, ToolCall, VersionSpan
from server.events import Piece, TokenLogprob


class Choice:
    """Feed it every sampled id, then call `finish` once."""

    def __init__(
        self,
        index: int,
        turn_id: str,
        renderer: Renderer,
        tools: Sequence[JSON],
        *,
        stop: Sequence[str] = (),
    ) -> None:
        self.index = index
        self.turn_id = turn_id
        self._renderer = renderer
        self._stream = renderer.stream(tools)
        self._trimmer = StopTrimmer(stop)
        self._gate = CallGate()
        self._sampled: list[Sampled] = []
        self._logprobs: list[TokenLogprob] = []

    def __len__(self) -> int:
        return len(self._sampled)

    def feed(self, sampled: Sampled) -> list[Piece]:
        """Pieces that may be sent now."""
        self._sampled.append(sampled)
        if sampled.token_id not in self._renderer.stop_ids:
            self._logprobs.append(self._seen(sampled))
        return self._pieces(self._gate.pass_on(self._trimmed(self._stream.feed(sampled.token_id))))

    def finish(self) -> tuple[list[Piece], Reply, tuple[TokenLogprob, ...]]:
        """The pieces held back, to be sent after the commit; the reply as told; log-probs not yet carried."""
        deltas, reply = self._stream.finish()
        deltas = self._trimmed(deltas) + self._trimmer.rest()
        held = self._pieces(self._gate.pass_on(deltas) + self._gate.rest())
        calls = tuple(
            ToolCall(id=self._call_id(index), name=call.name, arguments=call.arguments)
            for index, call in enumerate(reply.tool_calls)
        )
        told = Reply(text=self._trimmer.cut(reply.text), reasoning=reply.reasoning, tool_calls=calls)
        return held, told, tuple(self._logprobs)

    def completion(self, finish_reason: FinishReason) -> Completion:
        """What was sampled so far. Raw log-probs and support sizes are kept only where every id has them."""
        sampled = self._sampled
        raw = tuple(one.raw_logprob for one in sampled if one.raw_logprob is not None)
        allowed = tuple(one.num_allowed for one in sampled if one.num_allowed is not None)
        return Completion(
            token_ids=tuple(one.token_id for one in sampled),
            logprobs=tuple(one.logprob for one in sampled),
            raw_logprobs=raw if len(raw) == len(sampled) else None,
            num_allowed=allowed if len(allowed) == len(sampled) else None,
            finish_reason=finish_reason,
            version_spans=version_spans(sampled),
        )

    def _trimmed(self, deltas: list[Delta]) -> list[Delta]:
        return [trimmed for delta in deltas for trimmed in self._trimmer.feed(delta)]

    def _pieces(self, deltas: list[Delta]) -> list[Piece]:
        pieces = [
            Piece(
                choice=self.index,
                delta=delta,
                call_id=None if delta.tool_name is None else self._call_id(delta.tool_index or 0),
            )
            for delta in deltas
        ]
        if pieces and self._logprobs:
            pieces[0] = replace(pieces[0], logprobs=tuple(self._logprobs))
            self._logprobs = []
        return pieces

    def _call_id(self, index: int) -> str:
        # Letters and digits only: one real client strips everything else before it sends the id back.
        return f"call{self.turn_id}x{index}"

    def _seen(self, sampled: Sampled) -> TokenLogprob:
        decode = self._renderer.decode
        return TokenLogprob(
            token=decode([sampled.token_id]),
            logprob=sampled.logprob if sampled.raw_logprob is None else sampled.raw_logprob,
            top=tuple((decode([token_id]), logprob) for token_id, logprob in sampled.top_logprobs),
        )


def version_spans(sampled: Sequence[Sampled]) -> tuple[VersionSpan, ...]:
    spans: list[VersionSpan] = []
    for position, one in enumerate(sampled):
        if spans and spans[-1].version == one.version:
            spans[-1] = replace(spans[-1], end=position + 1)
        else:
            spans.append(VersionSpan(version=one.version, start=position, end=position + 1))
    return tuple(spans)


class CallGate:
    """Holds back the first tool call and everything after it: a client may act on a call as soon as it is whole."""

    def __init__(self) -> None:
        self._held: list[Delta] = []

    def pass_on(self, deltas: list[Delta]) -> list[Delta]:
        passed: list[Delta] = []
        for delta in deltas:
            # What a renderer sends of a call may be all of it, so no part of a call can go ahead of the commit.
            holds = bool(self._held) or delta.tool_index is not None
            (self._held if holds else passed).append(delta)
        return passed

    def rest(self) -> list[Delta]:
        held, self._held = self._held, []
        return held


class StopTrimmer:
    """Keeps the stop string that ended a reply out of its text, and out of the stream while it is coming in."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._pending = ""
        self._stopped = False

    def cut(self, text: str) -> str:
        """`text` up to the stop string that is complete first: where the engine ends, whatever came in one piece."""
        found = [(at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0]
        return text[: min(found)[1]] if found else text

    def feed(self, delta: Delta) -> list[Delta]:
        """`delta` with its text delayed as long as it may be the beginning of a stop string."""
        if not self._stop:
            return [delta]
        if not delta.text:
            # Reasoning and calls pass at once, but not ahead of text that came before them.
            return [*self.rest(), delta] if delta.tool_index is not None else [delta]
        if self._stopped:
            return [replace(delta, text="")] if delta.reasoning else []
        text = self._pending + delta.text
        kept = self.cut(text)
        self._stopped = len(kept) < len(text)
        unsure = 0 if self._stopped else self._overlap(kept)
        self._pending = kept[len(kept) - unsure :]
        out = kept[: len(kept) - unsure]
        return [replace(delta, text=out)] if out or delta.reasoning else []

    def rest(self) -> list[Delta]:
        """Text that was held and turned out to be no stop string."""
        text, self._pending = self._pending, ""
        return [Delta(text=text)] if text else []

    def _overlap(self, text: str) -> int:
        """How many of the last characters of `text` begin some stop string."""
        longest = max(map(len, self._stop)) - 1
        for size in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self._stop):
                return size
        return 0
