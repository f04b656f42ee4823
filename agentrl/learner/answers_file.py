"""RUN_DIR/base_answers.json: the prompts that versions are asked, and what version 0 answered, with what made them.

It is a cache. Whatever is damaged, or was made with another model, is left aside with a line in the journal, and
written anew with the next prompts; where it cannot be written, a line says so once: no learner ends for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from agentrl.errors import ModelError
from agentrl.files import replace_json
from agentrl.learner.journal import Journal
from agentrl.teacher.scores import fingerprint

FILE: Final = "base_answers.json"

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A prompt and its answers."""

    prompt: Ids
    view: Ids
    """The same with what the teacher was shown."""
    answers: tuple[tuple[int, Ids], ...]
    """Seeds, and what version 0 answered with each."""


class AnswersFile:
    """The file of one line of versions.

    Args:
        policy: the line.
        base: folder of version 0. Its weights are read once for their checksum: some seconds for many GB.
        vocab_size: ids are below it.
        max_reply: most ids of an answer.
        journal: is told why a file was left aside or not written.
    """

    def __init__(
        self, run_dir: Path, *, policy: str, base: Path, vocab_size: int, max_reply: int, journal: Journal
    ) -> None:
        self._path = run_dir / FILE
        self._policy = policy
        self._base = base
        self._vocab_size = vocab_size
        self._max_reply = max_reply
        self._journal = journal
        self._was_told = False

    def read(self) -> list[Kept]:
        """What was kept; nothing where there is no file, or none of use."""
        if not self._path.is_file():
            return []
        try:
            data = json.loads(self._path.read_text(encoding="utf-8"))
            others = [name for name, value in self._made_with.items() if data[name] != value]
            if not others:
                return [self._kept(item) for item in data["asked"]]
            why = f"made with another {' and '.join(others)}"
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            why = f"damaged: {type(error).__name__}: {error}"
        self._journal.event("discarded", file=FILE, reason=why)
        return []

    def write(self, kept: Iterable[Kept]) -> None:
        """In the place of what stands there. Where that fails, nothing is kept over a restart."""
        asked = [{"prompt": one.prompt, "view": one.view, "answers": one.answers} for one in kept]
        try:
            replace_json(self._path, self._made_with | {"asked": asked})
        except OSError as error:
            if not self._was_told:
                self._was_told = True
                self._journal.event(
                    "discarded", file=FILE, reason=f"not written: {type(error).__name__}: {error}"
                )

    @cached_property
    def _made_with(self) -> dict[str, Any]:
        """What the same prompts and answers hang on."""
        try:
            base = fingerprint(self._base)
        except ModelError:  # weights of an older form: told by where they stand
            base = str(self._base)
        return {"policy": self._policy, "base": base, "max_reply": self._max_reply}

    def _kept(self, item: dict[str, Any]) -> Kept:
        """Raises ValueError, TypeError or KeyError for what nobody wrote here."""
        kept = Kept(
            prompt=tuple(item["prompt"]),
            view=tuple(item["view"]),
            answers=tuple((seed, tuple(ids)) for seed, ids in item["answers"]),
        )
        answers = [ids for _, ids in kept.answers]
        ids = [token_id for row in (kept.prompt, kept.view, *answers) for token_id in row]
        if any(type(token_id) is not int or not 0 <= token_id < self._vocab_size for token_id in ids):
            raise ValueError(f"what stands there are not all ids below {self._vocab_size}")
        if any(type(seed) is not int for seed, _ in kept.answers):
            raise ValueError("a seed is no integer")
        if not kept.prompt or not kept.view or any(len(ids) > self._max_reply for ids in answers):
            raise ValueError(f"a prompt is empty, or an answer has more than {self._max_reply} ids")
        return kept
