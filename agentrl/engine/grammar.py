"""Grammars: which ids may come next in a reply that must follow a JSON schema or a regular expression. No torch.

    grammars = Grammars(folder, vocab_size)      once for a model
    grammar = grammars.compile(text)             beside the scheduler's loop: a large schema takes a while
    constraint = grammar.begin(stop_ids, after)  one for each request; microseconds
    constraint.allowed(), constraint.take(id)    before and after every sampled id

A text is a JSON schema, or "regex:" and an expression that the whole reply matches. A constraint knows ids only, not
the weights that chose them: a request that moves to another version keeps its own.

The only file that knows llguidance. Control tokens are no text, so no grammar allows one inside a reply; the ids that
end a reply are allowed where the reply is complete, and only there.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from agentrl.errors import RequestError
from agentrl.text.plain import is_control
from agentrl.types import JSON

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from llguidance._lib import JsonCompileOptions
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

REGEX = "regex:"
"""What a grammar's text begins with where the rest is a regular expression."""
MAX_GRAMMARS = 64
"""Compiled grammars that are kept."""
MAX_CHARS = 200_000
"""Of one text."""
MAX_REASON = 200
"""Characters of an error of llguidance's that may repeat the whole text."""
MAX_STATES = 50_000
"""Of one grammar's lexer, at one to two kB each; an expression that needs more is refused, or ends its reply."""
MAX_TOKEN_BYTES = 255
"""Of one id's text, as its vocabulary writes it; llguidance ends the process over longer ones."""
OPTIONS: JsonCompileOptions = {
    # A keyword that is not enforced would be a promise that is not kept.
    "lenient": False,
    "coerce_one_of": False,
    # Blanks between tokens are free in JSON, and a small model can write nothing else to the end. So only those of
    # the usual layouts: a space, or a new line with its indentation.
    "whitespace_pattern": r"( |\n[ \t]{0,16})",
}


class Constraint:
    """One reply's way through its grammar."""

    __slots__ = ("_after", "_matcher", "_num_text", "_stop_ids", "_vocab_size")

    def __init__(
        self, matcher: LLMatcher, *, stop_ids: list[int], after: int | None, num_text: int, vocab_size: int
    ) -> None:
        self._matcher = matcher
        self._stop_ids = stop_ids
        self._after = after
        self._num_text = num_text
        self._vocab_size = vocab_size

    def allowed(self) -> NDArray[np.bool_]:
        """[V] which ids may come next; at least one.

        Raises:
            RequestError: none may, or the grammar has become too ambiguous to follow.
        """
        if self._after is not None:
            # Reasoning is free, but a reply that ended in it would not follow its grammar.
            mask = np.ones(self._vocab_size, dtype=np.bool_)
            mask[self._stop_ids] = False
            return mask
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error():
            reason = self._matcher.get_error().splitlines()[0]
            raise unusable(f"after what was sampled it leaves nothing to go on with ({reason})")
        mask = np.unpackbits(bits, count=self._vocab_size, bitorder="little").view(np.bool_)
        mask[self._num_text :] = False
        mask[self._stop_ids] = self._matcher.is_accepting()
        if not mask.any():
            raise unusable("after what was sampled it leaves this model no id to go on with")
        return mask

    def take(self, token_id: int) -> None:
        """Goes on by one id that was allowed and does not end the reply."""
        if self._after is not None:
            self._after = None if token_id == self._after else self._after
            return
        taken = self._matcher.consume_token(token_id)
        assert taken, f"id {token_id} was not allowed: {self._matcher.get_error()}"

    @property
    def complete(self) -> bool:
        """Whether the reply follows its grammar and nothing can be added."""
        return self._after is None and self._matcher.is_stopped() and self._matcher.is_accepting()


class Grammar:
    """A compiled text; replies begin from it."""

    __slots__ = ("_matcher", "_num_text", "_vocab_size")

    def __init__(self, matcher: LLMatcher, num_text: int, vocab_size: int) -> None:
        self._matcher = matcher
        self._num_text = num_text
        self._vocab_size = vocab_size

    def begin(self, stop_ids: Sequence[int], after: int | None = None) -> Constraint:
        """A reply's constraint.

        Args:
            stop_ids: what ends the reply; ids beyond the vocabulary end nothing.
            after: the id behind which the grammar begins; None = it begins at once.
        """
        return Constraint(
            self._matcher.deep_copy(),
            stop_ids=[i for i in stop_ids if 0 <= i < self._vocab_size],
            after=after,
            num_text=self._num_text,
            vocab_size=self._vocab_size,
        )


class Grammars:
    """The grammars of one model. `ready` and `compile` may be called from different threads."""

    def __init__(self, folder: Path, vocab_size: int, *, max_grammars: int = MAX_GRAMMARS) -> None:
        """
        Reading a vocabulary of 150,000 takes about a second in which no other thread of Python runs, so it is done
        here, before anything is served.

        Args:
            folder: the model's, with a tokenizer.json.
            vocab_size: width of the model's logits.
            max_grammars: compiled texts to keep; those used last stay.
        """
        self._vocab_size = vocab_size
        self._max_grammars = max_grammars
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Grammar] = OrderedDict()
        self._tokenizer: LLTokenizer | None = None
        self._unreadable = ""
        """Why the tokenizer cannot be followed: such a model serves all requests but those with a grammar."""
        try:
            self._tokenizer = read_tokenizer(folder, vocab_size)
        except (ValueError, ImportError) as error:
            self._unreadable = str(error)
            log.warning("replies cannot be constrained to a grammar: %s", error)

    def ready(self, text: str) -> Grammar | None:
        """The grammar if it is compiled."""
        with self._lock:
            grammar = self._kept.get(text)
            if grammar is not None:
                self._kept.move_to_end(text)
            return grammar

    def compile(self, text: str) -> Grammar:
        """The grammar of a text.

        Raises:
            RequestError: it cannot be honoured; the message says why and what to do.
        """
        kept = self.ready(text)
        if kept is not None:
            return kept
        grammar = self._compiled(text)
        with self._lock:
            self._kept[text] = grammar
            while len(self._kept) > self._max_grammars:
                self._kept.popitem(last=False)
        return grammar

    def _compiled(self, text: str) -> Grammar:
        if self._tokenizer is None:
            raise RequestError(
                f"this model's replies cannot be constrained to a grammar: {self._unreadable}. Ask for free text.",
                param="grammar",
            )
        from llguidance import LLMatcher, LLParserLimits

        if len(text) > MAX_CHARS:
            raise unusable(f"it has {len(text)} characters, of which {MAX_CHARS} are allowed")
        limits = LLParserLimits(max_lexer_states=MAX_STATES, verbose_errors=False)
        try:
            matcher = LLMatcher(self._tokenizer, rules_of(text), log_level=0, limits=limits)
        except (ValueError, RecursionError) as error:
            # What Python reads as JSON and llguidance does not: 1e999, half a surrogate pair, a hundred levels.
            raise unusable(f"it cannot be read ({str(error)[:MAX_REASON]})") from error
        if matcher.is_error():
            raise unusable(matcher.get_error().strip())
        # What is impossible from the start is said at the start. The mask also warms what all replies share.
        matcher.compute_bitmask()
        if matcher.is_error():
            raise unusable("no reply at all would follow it")
        # The tokenizer's own end, and what a model's logits hold beyond its tokenizer.
        return Grammar(matcher, self._tokenizer.eos_token, self._vocab_size)


def rules_of(text: str) -> str:
    """A text in llguidance's own form.

    Raises:
        RequestError: it is no JSON object.
        ValueError, RecursionError: llguidance cannot read it.
    """
    from llguidance import LLMatcher

    if text.startswith(REGEX):
        return LLMatcher.grammar_from_regex(text.removeprefix(REGEX))
    try:
        schema: Any = json.loads(text, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise unusable(f"it is no JSON ({error}), and does not begin with {REGEX!r}") from error
    if not isinstance(schema, dict):
        raise unusable("a JSON schema is an object here; {} allows any value")
    # The options of llguidance that a schema may carry would undo ours.
    schema.pop("x-guidance", None)
    plain = json.dumps(schema, ensure_ascii=False, allow_nan=False)
    return LLMatcher.grammar_from_json_schema(plain, overrides=OPTIONS)


def no_constant(name: str) -> None:
    """NaN and the infinities, which Python reads and JSON does not know."""
    raise ValueError(f"{name} is no number of JSON")


def unusable(reason: str) -> RequestError:
    return RequestError(
        f"the grammar cannot be honoured: {reason}. Change the schema or the expression: what cannot be enforced is "
        "refused, not ignored.",
        param="grammar",
    )


def read_tokenizer(folder: Path, vocab_size: int) -> LLTokenizer:
    """The bytes of every id, from tokenizer.json. Raises ValueError where ids stand for no bytes."""
    from llguidance import LLTokenizer

    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    tokenizer = Tokenizer.from_str(text)
    settings = json.loads(text)
    if (settings["decoder"] or {}).get("type") == "Metaspace":
        settings["decoder"] = spaces_for(settings["decoder"]["replacement"])
    hide_controls(settings, {i for i, t in tokenizer.get_added_tokens_decoder().items() if is_control(t)})
    hide_long(settings)
    size = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    # llguidance wants an id of its own for the end. Ours differ by request, so its id is one that no model has.
    end = {"id": size, "content": f"<|end of grammar {size} {secrets.token_hex(8)}|>", "special": True}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    settings["added_tokens"].append(end | plain)
    return LLTokenizer(json.dumps(settings), n_vocab=max(vocab_size, size + 1), eos_token=size)


def spaces_for(mark: str) -> JSON:
    """A decoder that llguidance can read, in place of a Metaspace of the same mark."""
    steps = [
        {"type": "Replace", "pattern": {"String": mark}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    return {"type": "Sequence", "decoders": steps}


def hide_long(settings: JSON) -> None:
    """Makes control tokens, in a tokenizer.json, of ids that stand for more text than llguidance can follow.

    Whole sentences that are one id in a small vocabulary: in a grammar's reply they are spelled in smaller ones.
    """
    model, secret = settings["model"], secrets.token_hex(8)
    if not isinstance(model["vocab"], dict):
        return
    long = {name: i for name, i in model["vocab"].items() if len(name.encode()) > MAX_TOKEN_BYTES}
    if not long:
        return
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model.get("merges", ())]
    model["merges"] = [pair for pair in pairs if "".join(pair) not in long]
    for name, i in long.items():
        del model["vocab"][name]
        hidden = f"<|long {i} {secret}|>"  # which no text holds, as with `hide_controls`
        model["vocab"][hidden] = i
        settings["added_tokens"].append(
            {"id": i, "content": hidden, "special": True, "single_word": False}
            | {"lstrip": False, "rstrip": False, "normalized": False}
        )


def hide_controls(settings: JSON, controls: Collection[int]) -> None:
    """Gives control tokens, in a tokenizer.json, names that no text holds.

    Text that must come next is encoded by the tokenizer, and one that knows <tool_call> encodes these letters as the
    control token. Nor are all of them marked as special, Qwen's <tool_call> and <think> are not.
    """
    secret = secrets.token_hex(8)
    names: dict[str, str] = {}
    for token in settings["added_tokens"]:
        token["special"] = token["id"] in controls
        if token["special"] and token["content"] != settings["model"].get("unk_token"):
            names[token["content"]] = token["content"] = f"<|control {token['id']} {secret}|>"
    vocab = settings["model"]["vocab"]
    if isinstance(vocab, dict):
        settings["model"]["vocab"] = {names.get(name, name): i for name, i in vocab.items()}
    else:
        settings["model"]["vocab"] = [[names.get(name, name), score] for name, score in vocab]
    # Names the control tokens, and adds them to whole texts only.
    settings["post_processor"] = None
