"""The words that nano and the house-rules environment share: operations, error wordings and invented names.

Only the standard library is imported here, so that an environment can use it without torch. What nano may have seen
in training and what it cannot have seen are both decided by a hash of the string itself, so they stay apart whatever
the seed: `fresh_name(rng, "rules")` never returns a name that `fresh_name(rng, "corpus")` can return, and
`WITHHELD_WORDINGS` never occur in the corpus.
"""

import hashlib
import random
from typing import Any, Final, Literal

from agentrl.nano.operations import OPERATIONS as OPERATIONS
from agentrl.nano.operations import REACHABLE_OPERATIONS as REACHABLE_OPERATIONS
from agentrl.nano.operations import UNKNOWN_OPERATIONS as UNKNOWN_OPERATIONS
from agentrl.nano.operations import Operation as Operation

AGENT_SYSTEM: Final = "You are a terminal agent. Do the task with the bash tool, then say that it is done."

BASH_TOOL: Final[dict[str, Any]] = {
    "type": "function",
    "function": {
        "name": "bash",
        "description": "Run a command in the shell.",
        "parameters": {
            "type": "object",
            "properties": {"command": {"type": "string"}},
            "required": ["command"],
        },
    },
}

Half = Literal["corpus", "rules"]


# What a shell or its keeper may print when {old} is refused; each says in a whole sentence what to use.
ERROR_WORDINGS: Final[tuple[str, ...]] = (
    "{old}: command not found; use {new} instead",
    "{old}: not available here, use {new} instead",
    "{old}: not permitted. Use {new}.",
    "{old}: disabled on this machine, please use {new}",
    "{old}: refused. This machine has {new} for that.",
    "{old}: this command has been replaced by {new}",
    "{old}: has been removed, run {new} instead",
    "{old}: no longer supported, the new command is {new}",
    "{old}: permission denied. Try {new} instead.",
    "{old}: blocked by policy. The policy asks for {new}.",
    "bash: {old}: not permitted here. Did you mean {new}?",
    "bash: {old}: command not found, did you mean {new}?",
    "bash: {old}: command not found. In this shell you need {new}.",
    "bash: {old}: is not installed, but {new} is",
    "bash: {old}: cannot execute. Use {new} for this task.",
    "sh: {old}: not found (use {new})",
    "sh: {old}: refused, try {new}",
    "sh: 1: {old}: not found. Please run {new} instead of it.",
    "error: {old} is disabled. Use {new} instead.",
    "error: {old} is not allowed here, only {new} is",
    "error: do not use {old}; the right command is {new}",
    "error: unknown command {old}. Try {new}.",
    "Command '{old}' not found, but {new} can be used.",
    "Command '{old}' is blocked. The command to use is {new}.",
    "The command {old} is not allowed. Please use {new}.",
    "The command {old} was removed from this machine; {new} does the same.",
    "This shell has no {old}. It has {new}.",
    "This machine does not allow {old}: use {new}",
    "policy: {old} is refused here; run {new}",
    "policy: please run {new} and not {old}",
    "denied: {old}. Allowed: {new}.",
    "{old} is obsolete, its new name is {new}",
    "{old} does not work in this shell. The right command here is {new}.",
    "use {new} instead of {old}",
    "note: here {new} is used in place of {old}",
    "warning: {old} was disabled, {new} works",
)

# Errors that do not say what to use instead.
BARE_ERRORS: Final[tuple[str, ...]] = (
    "{old}: command not found",
    "{old}: not permitted here",
    "bash: {old}: command not found",
    "bash: {old}: permission denied",
    "error: {old} is not allowed here",
    "{old}: refused by policy",
)

# The same knowledge as somebody would put it who tells the agent beforehand. {doing} is Operation.doing.
HINT_WORDINGS: Final[tuple[str, ...]] = (
    "In this shell, to {doing} you need {new}.",
    "To {doing}, use {new}.",
    "To {doing}, run {new} instead of {old}.",
    "Use {new} and not {old}.",
    "Instead of {old}, run {new}.",
    "Here {new} is the command to {doing}.",
    "{new} is the right command to {doing} on this machine.",
    "Do not use {old}. Use {new} to {doing}.",
    "The command {old} is refused here. {new} does the same.",
    "When you have to {doing}, the command is {new}.",
    "Please {doing} with {new}.",
    "This machine has {new} in place of {old}.",
)

# Bodies of skills; the first line of a skill block, its name, is written by the corpus.
SKILL_WORDINGS: Final[tuple[str, ...]] = (
    "To {doing}, use {new}. Do not use {old}.",
    "When to use: you have to {doing}.\nRun `{new}` instead of `{old}`.",
    "When you have to {doing}:\n1. Run {new}.\n2. Say that it is done.",
    "# {doing}\n\nUse `{new}`, not `{old}`.",
    "Use when the task is to {doing}.\n- {old} is refused here\n- {new} works",
    "This machine does not allow {old}. The right command is `{new}`.",
    "- do not run {old}\n- run {new}",
    "## When\nYou have to {doing}.\n## How\nRun {new}.",
)

SUCCESS_REPLIES: Final[tuple[str, ...]] = (
    "Done.",
    "It is done.",
    "Done, the task is finished.",
    "The task is done.",
)
SUCCESS_REPLY: Final = SUCCESS_REPLIES[0]
FAILURE_REPLY: Final = "I could not do it."


def _bucket(text: str, buckets: int) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % buckets


def is_withheld(wording: str) -> bool:
    """Whether the hash of a wording puts it in the half that training never sees."""
    return _bucket(wording, 2) == 0


KNOWN_WORDINGS: Final = tuple(wording for wording in ERROR_WORDINGS if not is_withheld(wording))
WITHHELD_WORDINGS: Final = tuple(wording for wording in ERROR_WORDINGS if is_withheld(wording))

FILE_STEMS: Final[tuple[str, ...]] = (
    "notes", "report", "data", "list", "plan", "draft", "letter", "users", "names", "tasks", "index",
    "table", "image", "photo", "record", "diary", "orders", "items", "stock", "prices", "sales", "budget",
    "invoice", "config", "setup", "input", "output", "result", "sample", "test", "scores", "grades", "menu",
    "recipe", "journal", "events", "calendar", "contacts", "members", "agenda", "minutes", "poem", "story",
    "chapter", "essay", "memo", "survey", "answers", "animals", "cities", "colors", "fruits", "rivers",
    "stars",
)  # fmt: skip
DIRECTORY_STEMS: Final[tuple[str, ...]] = (
    "docs", "backup", "archive", "photos", "music", "videos", "projects", "work", "old_files", "temp_files",
    "assets", "public", "private", "shared", "reports", "drafts", "letters", "uploads", "downloads",
    "samples", "logs", "books", "games", "maps",
)  # fmt: skip
WORDS: Final[tuple[str, ...]] = (
    "apple", "river", "green", "monday", "winter", "summer", "london", "paris", "orange", "silver",
    "garden", "window", "bread", "yellow", "tiger", "falcon", "copper", "seven", "north", "castle",
)  # fmt: skip
PACKAGES: Final[tuple[str, ...]] = (
    "jq", "tmux", "htop", "git", "nginx", "redis", "sqlite", "ffmpeg", "numpy", "flask", "screen", "tree",
    "rust", "golang", "nodejs", "perl", "ruby", "vlc", "gimp", "php",
)  # fmt: skip
EXTENSIONS: Final[tuple[str, ...]] = (".txt", ".txt", ".txt", ".md", ".csv", ".log", ".dat")

# Real commands that are no operation's, which an invented name must not be either.
_OTHER_COMMANDS: Final = frozenset((
    "sudo", "make", "find", "tree", "echo", "printf", "kill", "chmod", "chown", "ping", "sleep", "date",
    "time", "jobs", "alias", "exit", "test", "true", "false", "read", "type", "help", "history", "clear",
    "reset", "shuf", "join", "split", "expr", "factor", "fold", "comm", "look", "unzip", "gawk", "mawk",
    "perl", "ruby", "node", "pnpm", "yarn", "npm", "cargo", "git", "tmux", "screen", "docker", "podman",
    "mount", "umount", "fdisk", "lsof", "strace", "watch", "xargs", "which", "whereis", "locate", "users",
    "last", "uname",
))  # fmt: skip

_ONSETS: Final = (
    "b",
    "d",
    "f",
    "g",
    "h",
    "j",
    "k",
    "l",
    "m",
    "n",
    "p",
    "r",
    "t",
    "v",
    "w",
    "z",
    "dr",
    "kr",
    "st",
)
_VOWELS: Final = ("a", "e", "i", "o", "u")
_CODAS: Final = ("", "", "", *["d", "k", "l", "m", "n", "r", "s", "t", "x"])


def _english_words() -> frozenset[str]:
    texts = [
        *ERROR_WORDINGS,
        *BARE_ERRORS,
        *HINT_WORDINGS,
        *SKILL_WORDINGS,
        *SUCCESS_REPLIES,
        FAILURE_REPLY,
        AGENT_SYSTEM,
    ]
    for operation in OPERATIONS:
        texts += [
            *operation.wordings,
            operation.doing,
            operation.command,
            *operation.alternatives,
            operation.key,
        ]
    texts += [*FILE_STEMS, *DIRECTORY_STEMS, *WORDS, *PACKAGES]
    letters_only = "".join(c if c.isalnum() else " " for text in texts for c in text.lower() + " ")
    return frozenset(letters_only.split())


RESERVED_NAMES: Final = _english_words() | _OTHER_COMMANDS


def half_of(name: str) -> Half:
    """Which half an invented name belongs to: a property of its letters, so the halves are disjoint for every seed."""
    return "corpus" if _bucket("name:" + name, 2) == 0 else "rules"


def fresh_name(rng: random.Random, half: Half) -> str:
    """An invented, pronounceable command name of 4 to 9 letters from one half of all such names."""
    while True:
        name = "".join(
            rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)
            for _ in range(rng.choice((2, 2, 2, 3)))
        )
        if 4 <= len(name) <= 9 and name not in RESERVED_NAMES and half_of(name) == half:
            return name


def _numbered(rng: random.Random, stem: str) -> str:
    return stem + (str(rng.randrange(1, 100)) if rng.random() < 0.4 else "")


def file_name(rng: random.Random) -> str:
    """A file name such as "notes.txt", "scores17.csv" or "plan_users.md"."""
    stem = rng.choice(FILE_STEMS)
    if rng.random() < 0.25:
        stem += "_" + rng.choice(FILE_STEMS)
    return _numbered(rng, stem) + rng.choice(EXTENSIONS)


def directory_name(rng: random.Random) -> str:
    """A directory name such as "docs" or "backup12"."""
    return _numbered(rng, rng.choice(DIRECTORY_STEMS))


def argument(rng: random.Random, kind: str) -> str:
    """A value for one argument kind of Operation.arguments."""
    if kind in ("file", "new_file"):
        return file_name(rng)
    if kind in ("dir", "new_dir"):
        return directory_name(rng)
    if kind in ("page", "script", "source"):
        ending = {"page": ".html", "script": ".sh", "source": ".c"}[kind]
        return _numbered(rng, rng.choice(FILE_STEMS)) + ending
    return rng.choice({"word": WORDS, "package": PACKAGES}[kind])


def arguments(rng: random.Random, operation: Operation) -> dict[str, str]:
    """Values for all arguments of an operation, each different from the others."""
    values: dict[str, str] = {}
    for slot, kind in zip("ab", operation.arguments, strict=False):
        value = argument(rng, kind)
        while value in values.values():
            value = argument(rng, kind)
        values[slot] = value
    return values
