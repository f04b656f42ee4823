"""A teacher's answers, read from a file, for groups in which nothing was right.

The file holds the records of `agentrl.learner.offline`: one answer a line, its prompt beside it. Several lines may
answer one prompt. An answer belongs to a turn whose prompt has the same ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from agentrl.config import explain
from agentrl.errors import ConfigError, UserError
from agentrl.learner.members import Text
from agentrl.learner.offline import Record
from agentrl.types import Turn


class TraceFile:
    """The answers of a file by their prompts.

    Args:
        path: the file.
        text: the model's renderer, which writes prompts and answers.

    Raises:
        ConfigError: a file that cannot be read, or a line that is no answer in words.
    """

    def __init__(self, path: Path, text: Text) -> None:
        self._answers: dict[tuple[int, ...], list[tuple[tuple[int, ...], float | None]]] = {}
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"transform.path: {path} cannot be read: {error}") from error
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = Record.model_validate_json(line)
                prompt = text.prompt(record.messages, record.tools, None).ids
            except ValidationError as error:
                raise ConfigError(f"{path}:{number}: {explain(error)}") from error
            except UserError as error:
                raise ConfigError(f"{path}:{number}: {error}") from error
            answer = record.reply if isinstance(record.reply, str) else (record.reply or {}).get("content")
            calls = isinstance(record.reply, dict) and bool(record.reply.get("tool_calls"))
            if not isinstance(answer, str) or not answer or calls:
                raise ConfigError(
                    f"{path}:{number}: a teacher's answer is one in words, in the field reply, without tool calls"
                )
            ids = (*text.encode_plain(answer), text.stop_ids[0])
            self._answers.setdefault(tuple(prompt), []).append((ids, record.reward))

    def answers(self, turn: Turn) -> Sequence[tuple[tuple[int, ...], float | None]]:
        """(ids, reward where the file gives one) of each answer to the turn's prompt, in the file's order."""
        return self._answers.get(turn.prompt_ids, [])
