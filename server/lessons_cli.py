"""`agentrl lessons` and `agentrl progress`: what was learned, what may be taught, and whether it helps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from agentrl.types import LessonState

lessons_app = typer.Typer(
    help="Lessons: what the run learned from hints and skills, to read, approve, retire and share.",
    no_args_is_help=True,
)

RunDir = Annotated[Path, typer.Option("--run-dir", help="Folder of the run.")]
DEFAULT_RUN = Path("runs/default")
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
Scope = Annotated[str, typer.Option("--scope", help="Whose lessons: the scope of an API key.")]
Ids = Annotated[list[str], typer.Argument(help="Lessons as `agentrl lessons list` names them.")]
Why = Annotated[str, typer.Option("--reason", help="Why; it stands beside the lesson.")]


class ExportFormat(StrEnum):
    AGENTS_MD = "agents-md"
    SKILL_MD = "skill-md"
    JSON = "json"


@lessons_app.command("list")
def list_(
    run_dir: RunDir = DEFAULT_RUN,
    scope: Scope = "default",
    state: Annotated[
        LessonState | None, typer.Option(help="Only lessons in this state, for example those proposed.")
    ] = None,
    json_: AsJson = False,
) -> None:
    """Every lesson: its state, how many turns it came from, whether the newest version asked holds it, and what of it
    reads like an attack."""
    from server.cli import table
    from server.lessons_pages import listed

    found = listed(run_dir, scope, state)
    if json_:
        typer.echo(json.dumps(found))
        return
    marks = ("suspicious",) if any(row["suspicious"] for row in found["lessons"]) else ()
    table(found["lessons"], ("id", "state", "origin", "num_turns", "stands", *marks, "text"))


@lessons_app.command()
def show(
    name: Annotated[str, typer.Argument(help="The lesson.")],
    run_dir: RunDir = DEFAULT_RUN,
    scope: Scope = "default",
    json_: AsJson = False,
) -> None:
    """One lesson: its turns or the file it stood in, what its state means, its probe, and what each version answered to
    it."""
    from server.cli import show as show_data
    from server.lessons_pages import shown

    show_data(shown(run_dir, scope, name), as_json=json_)


@lessons_app.command()
def approve(
    names: Annotated[list[str] | None, typer.Argument(help="Lessons as `list` names them.")] = None,
    all_: Annotated[
        bool,
        typer.Option("--all", help="All that are proposed, but those marked as suspicious: name them."),
    ] = False,
    run_dir: RunDir = DEFAULT_RUN,
    scope: Scope = "default",
    json_: AsJson = False,
) -> None:
    """Let lessons be taught; the turns that waited for it are trained next."""
    from server.lessons_pages import proposed

    chosen = list(names or [])
    if not chosen and not all_:
        raise typer.BadParameter("name a lesson, or say --all")
    plain, marked = proposed(run_dir, scope) if all_ else ([], [])
    left = [name for name in marked if name not in chosen]
    _change(run_dir, scope, [*chosen, *plain], LessonState.APPROVED, "", as_json=json_, left=left)


@lessons_app.command()
def reject(
    names: Ids,
    reason: Why = "by hand",
    run_dir: RunDir = DEFAULT_RUN,
    scope: Scope = "default",
    json_: AsJson = False,
) -> None:
    """Let lessons never be taught; the turns that brought nothing else are set aside with that reason. Says which
    versions have learned one already."""
    _change(run_dir, scope, names, LessonState.REJECTED, reason, as_json=json_)


@lessons_app.command()
def retire(
    names: Ids,
    reason: Why = "by hand",
    run_dir: RunDir = DEFAULT_RUN,
    scope: Scope = "default",
    json_: AsJson = False,
) -> None:
    """Teach lessons no more; weights already trained stay."""
    _change(run_dir, scope, names, LessonState.RETIRED, reason, as_json=json_)


@lessons_app.command()
def export(
    out: Annotated[
        Path | None,
        typer.Argument(
            help="A file, or for skill-md a folder; without it, standard output. An AGENTS.md that is there already "
            "keeps what it holds: the lessons stand between two marks, and the next export replaces that part."
        ),
    ] = None,
    format_: Annotated[
        ExportFormat, typer.Option("--format", help="How other agents want them.")
    ] = ExportFormat.AGENTS_MD,
    run_dir: RunDir = DEFAULT_RUN,
    scope: Scope = "default",
) -> None:
    """Write the approved lessons for agents that are not served here."""
    from server.lessons_pages import export as write

    typer.echo(write(run_dir, scope, format_.value, out))


@lessons_app.command("import")
def import_(
    path: Annotated[
        Path,
        typer.Argument(
            help="A file or a folder: transcripts and comments (.jsonl, .json), rules (.md, .txt; headings, "
            "tables and code are not read). Transcripts are "
            "chats of OpenAI's or Anthropic's API, items of Responses, or session files of Claude Code and Codex."
        ),
    ],
    paragraphs: Annotated[
        bool,
        typer.Option("--paragraphs", help="Propose each paragraph of a text that is no list of rules."),
    ] = False,
    run_dir: RunDir = DEFAULT_RUN,
    scope: Scope = "default",
    json_: AsJson = False,
) -> None:
    """Learn lessons from transcripts of other agents, past the gates of live hints, and from review comments. Says how
    many transcripts, comments, rules (items of a list) and paragraphs it read.

    Comments and rules are proposed, whatever the run approves by itself: read them, then `agentrl lessons approve`. One
    that names no request is then taught as what stands for every request of the scope. What reads like an attack is
    marked as suspicious. What is no lesson is named with the reason, users' words that were read as no correction too.
    """
    from agentrl.signals.transcripts import Dropped
    from server.cli import show as show_data
    from server.lesson_told import in_lines
    from server.lessons_pages import take

    found = asyncio.run(take(run_dir, scope, path, paragraphs=paragraphs))
    if not json_:
        found["dropped"] = in_lines([Dropped(**one) for one in found["dropped"]], ": --json names them all")
    show_data(found, as_json=json_)


def progress(run_dir: RunDir = DEFAULT_RUN, json_: AsJson = False) -> None:
    """Say which lessons the served version holds, and whether learning helps, against the control conversations."""
    from server.progress import progress_of, sentences
    from server.typed import of_run

    found = progress_of(run_dir)
    typer.echo(json.dumps(found) if json_ else "\n".join(of_run(sentences(found), run_dir)))


def _change(
    run_dir: Path,
    scope: str,
    names: list[str],
    state: LessonState,
    reason: str,
    *,
    as_json: bool,
    left: Sequence[str] = (),
) -> None:
    """Args: left: lessons that somebody has to name."""
    from server.lessons_pages import change

    found = change(run_dir, scope, names, state, reason)
    said = found.pop("said")
    if as_json:
        typer.echo(json.dumps(found | {"left": list(left)}))
        return
    waiting = (
        f"left, for they are marked as suspicious: {', '.join(left)}; read them, and name what to approve"
    )
    typer.echo("\n".join(filter(None, (said, waiting if left else ""))) or "nothing is proposed")
