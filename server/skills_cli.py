"""`agentrl skills`: what the run wrote from episodes, to read, edit and share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

skills_app = typer.Typer(
    help="Skills that the run wrote from episodes: SKILL.md folders, to read, edit and share.",
    no_args_is_help=True,
)

RunDir = Annotated[Path, typer.Option("--run-dir", help="Folder of the run.")]
DEFAULT_RUN = Path("runs/default")
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
Scope = Annotated[str, typer.Option("--scope", help="Whose skills: the scope of an API key.")]


@skills_app.command("list")
def skills_list(run_dir: RunDir = DEFAULT_RUN, scope: Scope = "default", json_: AsJson = False) -> None:
    """Every skill with what became of it, and files that cannot be read."""
    from server.cli import show, table
    from server.skills_pages import listed

    found = listed(run_dir, scope)
    if json_:
        typer.echo(json.dumps(found))
        return
    marks = ("suspicious",) if any(row["suspicious"] for row in found["skills"]) else ()
    table(
        found["skills"],
        ("name", "state", *marks, "revision", "num_episodes", "num_selected", "taught_reward"),
    )
    show({name: found[name] for name in ("unreadable", "episodes", "lines_left_out")}, as_json=False)


@skills_app.command("show")
def skills_show(
    name: Annotated[str, typer.Argument(help="The skill.")],
    run_dir: RunDir = DEFAULT_RUN,
    scope: Scope = "default",
    json_: AsJson = False,
) -> None:
    """One skill: its text, the turns it was written from, its statistics."""
    from server.cli import show
    from server.skills_pages import shown

    show(shown(run_dir, scope, name), as_json=json_)


@skills_app.command("find")
def skills_find(
    text: Annotated[
        str, typer.Argument(help="What a task asks, with _ for names that differ: 'Delete the file _.'")
    ],
    run_dir: RunDir = DEFAULT_RUN,
    scope: Scope = "default",
    json_: AsJson = False,
) -> None:
    """The skills that a task never seen would choose from, and the nearest others, with how like they are."""
    from server.cli import table
    from server.skills_find import found

    rows = found(run_dir, scope, text)
    if json_:
        typer.echo(json.dumps(rows))
        return
    if rows:
        table(rows, ("name", "found", "likeness", "cosine", "description"))
    else:
        typer.echo("no skills here: recipes whose teacher reads skills write them, such as --recipe skill_sd")


@skills_app.command("export")
def skills_export(
    folder: Annotated[Path, typer.Argument(help="For example .agents/skills of a project.")],
    name: Annotated[list[str] | None, typer.Option("--name", help="Only this one; may be repeated.")] = None,
    run_dir: RunDir = DEFAULT_RUN,
    scope: Scope = "default",
) -> None:
    """Copy the active skills to where other agents look for skills."""
    from server.skills_pages import export

    typer.echo(export(run_dir, scope, folder, name or []))


@skills_app.command("import")
def skills_import(
    folder: Annotated[Path, typer.Argument(help="A skill, a folder of skills, or a project that has some.")],
    run_dir: RunDir = DEFAULT_RUN,
    scope: Scope = "default",
) -> None:
    """Copy skills in; the teacher may be shown them from the next step on, but those that read like an attack: they are
    proposed, and named with why."""
    from server.skills_pages import take

    typer.echo(take(run_dir, scope, folder))


@skills_app.command("approve")
def skills_approve(
    name: Annotated[str, typer.Argument(help="The skill.")],
    run_dir: RunDir = DEFAULT_RUN,
    scope: Scope = "default",
) -> None:
    """Let a teacher be shown a skill that was proposed or retired. Says what it was marked for."""
    from server.skills_pages import change

    typer.echo(change(run_dir, scope, name, "active"))


@skills_app.command("retire")
def skills_retire(
    name: Annotated[str, typer.Argument(help="The skill.")],
    run_dir: RunDir = DEFAULT_RUN,
    scope: Scope = "default",
) -> None:
    """Show a skill to no teacher any more; weights already trained stay."""
    from server.skills_pages import change

    typer.echo(change(run_dir, scope, name, "retired"))
