"""What tasks can ask for: each operation with its usual command, its phrasings and, where there are several, its ways.

Only the standard library is imported here, as in `vocabulary`.
"""

import random
from dataclasses import dataclass
from typing import Final, Literal

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
