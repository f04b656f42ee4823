"""What the gateway tells a dialect while it answers: pieces as they are sampled, then one end for each choice.

A piece on which a client could act (the argument delta that completes a tool call) and every end come only
after their turn was committed (law 3). A dialect may therefore send each event as soon as it has it.
"""

from __future__ import annotations

from dataclasses import dataclass

from agentrl.text.reply import Delta
from agentrl.types import Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """One sampled id as a client may see it."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """New text of one choice. `call_id` is set on the delta that opens a tool call."""

    choice: int
    delta: Delta
    call_id: str | None = None
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """One choice is complete and, if `recorded`, in the log. Its reply has the minted call ids."""

    choice: int
    turn: Turn
    num_cached: int = 0
    """Prompt ids whose keys and values were reused."""
    recorded: bool = True
    logprobs: tuple[TokenLogprob, ...] = ()
    """Of sampled ids that no earlier piece carried."""


Event = Piece | Ended
