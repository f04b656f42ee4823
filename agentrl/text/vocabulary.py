"""Whether two models mean the same by an id, from their folders alone: without torch, before either is loaded."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from agentrl.errors import ConfigError

TOKENIZER = "tokenizer.json"


def check_vocabulary(teacher: Path, policy: Path) -> None:
    """Raises ConfigError unless every id is the same token in both models' folders."""
    files = [folder / TOKENIZER for folder in (teacher, policy)]
    for file in files:
        if not file.is_file():
            raise ConfigError(
                f"{file} is not there, so nobody can say whether the teacher {teacher} has the vocabulary of the "
                f"policy {policy}: put the model's {TOKENIZER} into its folder"
            )
    if files[0].read_bytes() == files[1].read_bytes():
        return
    theirs, ours = (_ids(file) for file in files)
    if theirs != ours:
        differ = sorted(
            token for token in theirs.keys() | ours.keys() if theirs.get(token) != ours.get(token)
        )
        raise ConfigError(
            f"the teacher {teacher} has another vocabulary than the policy {policy}: {len(differ)} tokens differ, the "
            f"first is {differ[0]!r}, id {theirs.get(differ[0])} there and {ours.get(differ[0])} here; choose a "
            "teacher of the policy's family, or teacher = 'self'"
        )


def _ids(file: Path) -> dict[str, int]:
    """Token to id, added tokens included."""
    try:
        return Tokenizer.from_file(str(file)).get_vocab(with_added_tokens=True)
    except Exception as error:  # tokenizers raises Exception itself for whatever it cannot read
        raise ConfigError(f"{file} cannot be read: {error}; put the model's own {TOKENIZER} there") from error
