"""Fields of a body that were ignored and read like a slip of one that is known: `max_tokns`.

Clients send many fields of other servers, which are ignored in silence. One letter or two beside a known name are a
slip, and whoever made it would otherwise never learn that the field had no effect.
"""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

logger = logging.getLogger(__name__)

HEADER: Final = "X-Agentrl-Ignored"
MAX_REMEMBERED: Final = 256
"""Names; a client that makes up ever new ones fills no memory."""
MAX_TOLD: Final = 8
"""Names of one request that its reply and the log tell of: a header has little room."""
MAX_LOGGED: Final = 64
"""Names that the log tells of while the process lives: a client that makes up ever new ones fills no log."""
_PLAIN = re.compile(r"[A-Za-z][\w-]{2,39}", re.ASCII)
_OTHERS: Final = frozenset(("min_tokens", "models", "top_a"))
"""Fields of vLLM (docs.vllm.ai: serving/openai_compatible_server) and OpenRouter (openrouter.ai/docs: guides/routing,
api_reference/parameters) that stand as near to one of ours."""
_MOST: Final = 2
"""Slips of one name."""
_LONG: Final = 8
"""Characters of a name in which two slips leave it recognisable."""


class NearMisses:
    """Remembers what it found of the names that came last, so that a client that goes on sending one has it compared,
    and told in the log, once.

    Args:
        known: the fields that have an effect.
    """

    def __init__(self, known: Iterable[str]) -> None:
        self._known = tuple(known)
        self._found: OrderedDict[str, str | None] = OrderedDict()
        self._num_logged = 0

    def of(self, ignored: Iterable[str]) -> list[str]:
        """Those of the ignored fields that were probably meant to be known ones: the first `MAX_TOLD`."""
        return list(islice((name for name in ignored if self._meant(name) is not None), MAX_TOLD))

    def _meant(self, name: str) -> str | None:
        if not _PLAIN.fullmatch(name):
            return None  # it fits no header, and may be as long as a body: it is not remembered either
        if name not in self._found:
            self._found[name] = meant = nearest(name, self._known)
            if len(self._found) > MAX_REMEMBERED:
                self._found.popitem(last=False)
            if meant is not None:
                self._log(name, meant)
        self._found.move_to_end(name)
        return self._found[name]

    def _log(self, name: str, meant: str) -> None:
        if self._num_logged > MAX_LOGGED:
            return
        if self._num_logged < MAX_LOGGED:
            logger.warning("a request's field %r is not known and was ignored: was %r meant?", name, meant)
        else:
            logger.warning("more such fields are told of in the reply's header %s alone", HEADER)
        self._num_logged += 1


def nearest(name: str, known: Sequence[str]) -> str | None:
    """The known field that a name is a slip of; None where it is none, or a field of another server's."""
    if name in _OTHERS:
        return None
    # A slip changes the length by one at most: fields of other lengths need not be compared.
    like = [other for other in known if abs(len(name) - len(other)) <= _MOST]
    num, best = min(((slips(name.lower(), other), other) for other in like), default=(len(name), ""))
    return best if num <= (_MOST if min(len(name), len(best)) >= _LONG else 1) and len(best) > 2 else None


def slips(one: str, other: str) -> int:
    """Letters that were added, left out, changed, or swapped with the next one: the optimal string alignment
    distance."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for n, letter in enumerate(one, 1):
        last, before, row = before, row, [n]
        for m, wanted in enumerate(other, 1):
            least = min(before[m] + 1, row[m - 1] + 1, before[m - 1] + (letter != wanted))
            if n > 1 and m > 1 and letter == other[m - 2] and one[n - 2] == wanted:
                least = min(least, last[m - 2] + 1)
            row.append(least)
    return row[-1]
