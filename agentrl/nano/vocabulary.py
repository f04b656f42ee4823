"""The words that nano and the house-rules environment share: operations, error wordings and invented names.

Only the standard library is imported here, so that an environment can use it without torch. What nano may have seen
in training and what it cannot have seen are both decided by a hash of the string itself, so they stay apart whatever
the seed: `fresh_name(rng, "rules")` never returns a name that `fresh_name(rng, "corpus")` can return, and
`WITHHELD_WORDINGS` never occur in the corpus.
"""

import hashlib
import random
from dataclasses import dataclass
from typing import Any, Final, Literal

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
Check = Literal["output", "state"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One thing a task can ask for.

    Attributes:
        key: identifier, e.g. "show_file".
        command: the usual command without its arguments, e.g. "wc -l"; for a reachable operation the first alternative.
        doing: the operation in two to five words, e.g. "show a file"; used in hints and skills.
        wordings: task phrasings with {a} and, where there are two arguments, {b}.
        arguments: kind of each argument, in the order a, b: file, new_file, dir, new_dir, word, page, script, source,
            package.
        template: the argument part of the command line, e.g. "{a} {b}".
        alternatives: known ways to do it, usual command included; empty unless the operation is reachable. Not all
            of them are installed anywhere: an environment supplies programs of these names taking these arguments.
        check: whether success shows in the output of the command or in the files afterwards.
    """

    key: str
    command: str
    doing: str
    wordings: tuple[str, ...]
    arguments: tuple[str, ...] = ("file",)
    template: str = "{a}"
    alternatives: tuple[str, ...] = ()
    check: Check = "output"

    @property
    def program(self) -> str:
        """The first word of the usual command, which is what a shell names in an error."""
        return self.command.split()[0]

    def line(self, command: str, values: dict[str, str]) -> str:
        """The whole command line for a command (usual, alternative or invented) and the argument values."""
        return command + " " + self.template.format(**values)

    def task(self, rng: random.Random, values: dict[str, str]) -> str:
        """One phrasing of the task, drawn uniformly."""
        return rng.choice(self.wordings).format(**values)


UNKNOWN_OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        key="show_file",
        command="cat",
        doing="show a file",
        wordings=(
            "Show the file {a}.",
            "Show me what is in {a}.",
            "Give me the contents of {a}.",
            "What does {a} say?",
        ),
    ),
    Operation(
        key="count_lines",
        command="wc -l",
        doing="count lines",
        wordings=(
            "Count the lines of {a}.",
            "How many lines are in {a}?",
            "Give me the number of lines in {a}.",
            "Find out how many lines {a} has.",
        ),
    ),
    Operation(
        key="copy_file",
        command="cp",
        doing="copy a file",
        wordings=(
            "Copy {a} to {b}.",
            "Make a copy of {a} named {b}.",
            "Duplicate {a} as {b}.",
            "Copy the file {a} as {b}.",
        ),
        arguments=("file", "new_file"),
        template="{a} {b}",
        check="state",
    ),
    Operation(
        key="move_file",
        command="mv",
        doing="rename a file",
        wordings=(
            "Rename {a} to {b}.",
            "Move {a} to {b}.",
            "Change the name of {a} to {b}.",
            "Give {a} the new name {b}.",
        ),
        arguments=("file", "new_file"),
        template="{a} {b}",
        check="state",
    ),
    Operation(
        key="delete_file",
        command="rm",
        doing="delete a file",
        wordings=("Delete {a}.", "Remove the file {a}.", "Get rid of {a}.", "The file {a} must go."),
        check="state",
    ),
    Operation(
        key="make_directory",
        command="mkdir",
        doing="make a directory",
        wordings=(
            "Make a directory {a}.",
            "Create the directory {a}.",
            "Add a new folder {a}.",
            "Create a folder named {a}.",
        ),
        arguments=("new_dir",),
        check="state",
    ),
    Operation(
        key="remove_directory",
        command="rmdir",
        doing="remove a directory",
        wordings=(
            "Remove the directory {a}.",
            "Delete the empty directory {a}.",
            "Get rid of the folder {a}.",
            "The folder {a} must go.",
        ),
        arguments=("dir",),
        check="state",
    ),
    Operation(
        key="first_lines",
        command="head",
        doing="show the first lines",
        wordings=(
            "Show the first lines of {a}.",
            "Show the top of {a}.",
            "How does {a} begin?",
            "Give me the start of {a}.",
        ),
    ),
    Operation(
        key="last_lines",
        command="tail",
        doing="show the last lines",
        wordings=(
            "Show the last lines of {a}.",
            "Show the bottom of {a}.",
            "How does {a} end?",
            "Give me the end of {a}.",
        ),
    ),
    Operation(
        key="reverse_characters",
        command="rev",
        doing="reverse each line",
        wordings=(
            "Reverse each line of {a}.",
            "Show the lines of {a} spelled backwards.",
            "Print each line of {a} backwards.",
            "Mirror every line of {a}.",
        ),
    ),
    Operation(
        key="reverse_lines",
        command="tac",
        doing="show lines from last to first",
        wordings=(
            "Show the lines of {a} from last to first.",
            "Show {a} upside down.",
            "Print {a} from bottom to top.",
            "Turn the order of the lines of {a} around.",
        ),
    ),
    Operation(
        key="create_file",
        command="touch",
        doing="create an empty file",
        wordings=(
            "Create an empty file {a}.",
            "Make an empty file {a}.",
            "Add a new file {a}.",
            "Create the file {a}.",
        ),
        arguments=("new_file",),
        check="state",
    ),
    Operation(
        key="search_word",
        command="grep",
        doing="search a file",
        wordings=(
            "Search for {a} in {b}.",
            "Find the lines with {a} in {b}.",
            "Which lines of {b} contain {a}?",
            "Look for the word {a} in {b}.",
        ),
        arguments=("word", "file"),
        template="{a} {b}",
    ),
    Operation(
        key="list_directory",
        command="ls",
        doing="list a directory",
        wordings=(
            "List the directory {a}.",
            "Which files are in {a}?",
            "List the files in the folder {a}.",
            "What is in the folder {a}?",
        ),
        arguments=("dir",),
    ),
    Operation(
        key="number_lines",
        command="nl",
        doing="number the lines",
        wordings=(
            "Number the lines of {a}.",
            "Show {a} with line numbers.",
            "Print {a} with numbered lines.",
            "Put a number before each line of {a}.",
        ),
    ),
    Operation(
        key="compare_files",
        command="diff",
        doing="compare two files",
        wordings=(
            "Compare {a} with {b}.",
            "What is the difference between {a} and {b}?",
            "Show how {a} and {b} differ.",
            "Compare the files {a} and {b}.",
        ),
        arguments=("file", "file"),
        template="{a} {b}",
    ),
    Operation(
        key="drop_repeated",
        command="uniq",
        doing="drop repeated lines",
        wordings=(
            "Show {a} without repeated lines.",
            "Drop the repeated lines of {a}.",
            "Print {a} without duplicate lines.",
            "Leave out the duplicate lines of {a}.",
        ),
    ),
    Operation(
        key="link_file",
        command="ln",
        doing="link a file",
        wordings=(
            "Link {a} as {b}.",
            "Make a link {b} to {a}.",
            "Create a link from {b} to {a}.",
            "Let {b} be a link to {a}.",
        ),
        arguments=("file", "new_file"),
        template="{a} {b}",
        check="state",
    ),
    Operation(
        key="encode_file",
        command="base64",
        doing="encode a file",
        wordings=(
            "Encode {a}.",
            "Encode the file {a} as text.",
            "Print {a} in encoded form.",
            "Give me {a} encoded.",
        ),
    ),
    Operation(
        key="join_files",
        command="paste",
        doing="join two files",
        wordings=(
            "Join {a} and {b} side by side.",
            "Show {a} and {b} side by side.",
            "Print {a} next to {b}.",
            "Put the lines of {a} and {b} next to each other.",
        ),
        arguments=("file", "file"),
        template="{a} {b}",
    ),
    Operation(
        key="measure_file",
        command="du",
        doing="measure a file",
        wordings=(
            "How big is {a}?",
            "Measure the size of {a}.",
            "How much space does {a} take?",
            "Give me the size of {a}.",
        ),
    ),
)

REACHABLE_OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        key="checksum_file",
        command="md5sum",
        doing="make a checksum",
        wordings=(
            "Make a checksum of {a}.",
            "Give me the checksum of {a}.",
            "What is the checksum of {a}?",
            "Compute a checksum for {a}.",
        ),
        alternatives=(
            "md5sum",
            "sha1sum",
            "sha224sum",
            "sha256sum",
            "sha384sum",
            "sha512sum",
            "b2sum",
            "cksum",
        ),
    ),
    Operation(
        key="compress_file",
        command="gzip",
        doing="compress a file",
        wordings=("Compress {a}.", "Compress the file {a}.", "Make {a} smaller.", "Shrink the file {a}."),
        alternatives=("gzip", "bzip2", "xz", "zstd", "lz4", "compress", "lzip", "brotli"),
        check="state",
    ),
    Operation(
        key="page_file",
        command="less",
        doing="page through a file",
        wordings=(
            "Page through {a}.",
            "Let me read {a} page by page.",
            "Open {a} for reading.",
            "Open {a} in a pager.",
        ),
        alternatives=("less", "more", "most", "pg", "view", "bat"),
    ),
    Operation(
        key="pack_directory",
        command="tar",
        doing="pack a directory",
        wordings=(
            "Pack the directory {a}.",
            "Make an archive of the folder {a}.",
            "Put the folder {a} in an archive.",
            "Archive the directory {a}.",
        ),
        arguments=("dir",),
        alternatives=("tar", "zip", "7z", "rar", "cpio", "ar"),
        check="state",
    ),
    Operation(
        key="order_lines",
        command="sort -n",
        doing="put lines in order",
        wordings=(
            "Put the lines of {a} in order.",
            "Sort {a}.",
            "Sort the lines of {a}.",
            "Show the lines of {a} in order.",
        ),
        alternatives=("sort -n", "sort -r", "sort -f", "sort -u", "sort -V", "sort -h", "sort -M", "sort -d"),
    ),
    Operation(
        key="edit_file",
        command="vi",
        doing="edit a file",
        wordings=("Edit {a}.", "Edit the file {a}.", "Open {a} in an editor.", "Make a change in {a}."),
        alternatives=("vi", "vim", "nano", "emacs", "ed", "pico", "joe", "micro"),
        check="state",
    ),
    Operation(
        key="fetch_page",
        command="curl",
        doing="fetch a page",
        wordings=("Fetch {a}.", "Fetch the page {a}.", "Download {a}.", "Get {a} from the server."),
        arguments=("page",),
        alternatives=("curl", "wget", "aria2c", "lynx", "axel", "links"),
        check="state",
    ),
    Operation(
        key="run_script",
        command="bash",
        doing="run a script",
        wordings=("Run the script {a}.", "Run {a}.", "Execute {a}.", "Start the script {a}."),
        arguments=("script",),
        alternatives=("bash", "sh", "zsh", "dash", "ksh", "fish"),
    ),
    Operation(
        key="dump_bytes",
        command="xxd",
        doing="dump bytes",
        wordings=(
            "Dump the bytes of {a}.",
            "Show {a} in hex.",
            "Make a hex dump of {a}.",
            "Print the bytes of {a}.",
        ),
        alternatives=("xxd", "hexdump", "od", "hd", "hexyl"),
    ),
    Operation(
        key="send_file",
        command="scp",
        doing="send a file",
        wordings=(
            "Send {a} to the server.",
            "Upload {a}.",
            "Upload the file {a}.",
            "Bring {a} to the server.",
        ),
        alternatives=("scp", "rsync", "sftp", "ftp", "rcp", "tftp", "nc"),
        check="state",
    ),
    Operation(
        key="install_package",
        command="apt",
        doing="install a package",
        wordings=(
            "Install {a}.",
            "Install the package {a}.",
            "I need the package {a}.",
            "Set up the package {a}.",
        ),
        arguments=("package",),
        template="install {a}",
        alternatives=("apt", "yum", "dnf", "pacman", "apk", "brew", "snap", "zypper", "pip", "conda"),
        check="state",
    ),
    Operation(
        key="print_paper",
        command="lp",
        doing="print on paper",
        wordings=(
            "Print {a} on paper.",
            "Send {a} to the printer.",
            "Bring {a} on paper.",
            "Let the printer print {a}.",
        ),
        alternatives=("lp", "lpr", "enscript", "a2ps", "paps"),
        check="state",
    ),
    Operation(
        key="check_spelling",
        command="aspell",
        doing="check the spelling",
        wordings=(
            "Check the spelling of {a}.",
            "Look for spelling mistakes in {a}.",
            "Is the spelling of {a} right?",
            "Find the spelling mistakes in {a}.",
        ),
        alternatives=("aspell", "hunspell", "ispell", "spell", "enchant"),
    ),
    Operation(
        key="compile_source",
        command="gcc",
        doing="compile a program",
        wordings=("Compile {a}.", "Compile the program {a}.", "Build {a}.", "Build the program from {a}."),
        arguments=("source",),
        alternatives=("gcc", "clang", "cc", "tcc", "icc"),
        check="state",
    ),
)

OPERATIONS: Final = UNKNOWN_OPERATIONS + REACHABLE_OPERATIONS

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
