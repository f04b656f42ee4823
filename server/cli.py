"""The command line. Parses first and imports what a command needs after: `agentrl --help` loads no torch."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import agentrl
from agentrl.errors import AgentRLError
from server.lessons_cli import lessons_app, progress
from server.settings_pages import settings
from server.skills_cli import skills_app

app = typer.Typer(
    name="agentrl",
    help="Serve an agent's model, record what it did, learn from what happened next.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
store_app = typer.Typer(help="Look after the logs of a run.", no_args_is_help=True)
app.add_typer(store_app, name="store")
versions_app = typer.Typer()
app.add_typer(versions_app, name="versions")
recipes_app = typer.Typer(help="The learning methods: every one is a point in one algebra.")
app.add_typer(recipes_app, name="recipes")
app.add_typer(skills_app, name="skills")
app.add_typer(lessons_app, name="lessons")
app.command()(progress)
app.command()(settings)
judge_app = typer.Typer(help="Judges: what says how good a turn was.", no_args_is_help=True)
app.add_typer(judge_app, name="judge")

RunDir = Annotated[Path, typer.Option("--run-dir", help="Folder of the run.")]
DEFAULT_RUN = Path("runs/default")
HOST, PORT, RECIPE = "127.0.0.1", "8765", "hint_opsd"
"""What the help says of the settings' defaults, whose import costs a tenth of a second."""
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Any setting: --set engine.max_running=8.")]


def _version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(agentrl.__version__)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help="Folder of a Hugging Face model, or 'nano'.")],
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Learning method (`agentrl recipes` lists them), or a TOML file.", show_default=RECIPE
        ),
    ] = None,
    no_learn: Annotated[bool, typer.Option("--no-learn", help="Serve and record, but do not train.")] = False,
    host: Annotated[
        str | None,
        typer.Option(help="Address to bind; other than loopback needs a key.", show_default=HOST),
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 = any free one.", show_default=PORT)] = None,
    run_dir: RunDir = DEFAULT_RUN,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings.")] = None,
    set_: Set = None,
) -> None:
    """Serve MODEL at an OpenAI-compatible endpoint and learn from its use."""
    from agentrl.config import load_config
    from server.serving import serve_until_signal

    settings = load_config(
        config,
        set_ or [],
        model=model,
        run_dir=str(run_dir),
        server__host=host,
        server__port=port,
        learn__recipe=recipe,
        learn__enabled=False if no_learn else None,
    )
    raise typer.Exit(serve_until_signal(settings))


@app.command()
def learner(run_dir: RunDir = DEFAULT_RUN) -> None:
    """Run the learner of a run in the foreground, for example beside `serve --no-learn`."""
    from server.learner_child import refuse_beside_another
    from server.learner_main import main as learn
    from server.run_files import existing_run
    from server.runtime import upgrade

    refuse_beside_another(existing_run(run_dir))
    upgrade(run_dir, learns=True)
    raise typer.Exit(learn([str(run_dir)]))


@app.command()
def demo(
    seed: Annotated[int, typer.Option(help="Draws the house rules, the tasks and the samples.")] = 0,
    run_dir: Annotated[Path | None, typer.Option("--run-dir", help="Where the run is kept.")] = None,
    judge: Annotated[
        str, typer.Option(help="rules, or self: the policy judges too, and the report compares both.")
    ] = "rules",
    json_: AsJson = False,
    set_: Set = None,
) -> None:
    """Watch a model learn the house rules of a shell while agents use it (a few minutes)."""
    from server.demo import run_demo

    asyncio.run(run_demo(seed, run_dir=run_dir, as_json=json_, overrides=set_ or [], judge=judge))


@app.command()
def rollout(
    base_url: Annotated[str, typer.Option(help="The endpoint, for example http://127.0.0.1:8765/v1.")],
    env: Annotated[
        str, typer.Option(help="terminal, personal, path/file.py:Class, module:Class or an entry point.")
    ] = "terminal",
    model: Annotated[str, typer.Option(help="Model name; name@7 pins a version.")] = "nano",
    api_key: Annotated[str, typer.Option(envvar="OPENAI_API_KEY", help="API key.")] = "none",
    num_agents: Annotated[int, typer.Option(min=1, help="Agents at the same time.")] = 8,
    num_episodes: Annotated[int, typer.Option(min=1, help="Episodes in all.")] = 200,
    group_size: Annotated[int, typer.Option(min=1, help="Episodes of the same task, for group methods.")] = 1,
    temperature: Annotated[float, typer.Option(min=0, help="Sampling temperature.")] = 1.0,
    purpose: Annotated[str, typer.Option(help="train, or eval: recorded but never learned from.")] = "train",
    split: Annotated[
        str | None, typer.Option(help="Tasks to play: train or heldout (default for eval).")
    ] = None,
    first_task: Annotated[int, typer.Option(min=0, help="Number of the first task.")] = 0,
    env_set: Annotated[
        list[str] | None,
        typer.Option("--env-set", help="An argument of the environment: --env-set max_steps=1."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws tasks, and the house rules or the user.")] = 0,
    json_: AsJson = False,
    lines: Annotated[bool, typer.Option("--lines", help="One JSON line an episode, as it ends.")] = False,
) -> None:
    """Let agents play an environment against an endpoint, as ordinary clients."""
    from server.rollout import run_rollout

    summary = asyncio.run(
        run_rollout(
            env=env,
            base_url=base_url,
            model=model,
            api_key=api_key,
            num_agents=num_agents,
            num_episodes=num_episodes,
            group_size=group_size,
            temperature=temperature,
            purpose=purpose,
            split=split,
            seed=seed,
            first_task=first_task,
            env_options=dict(named_value(text) for text in env_set or []),
            lines=lines,
        )
    )
    show(summary, as_json=json_ or lines)
    if summary["num_turns"] == 0:
        typer.echo(
            f"agentrl: nobody answered at {base_url}: start `agentrl serve MODEL`, and give its address with /v1",
            err=True,
        )
        raise typer.Exit(1)
    if 2 * summary["num_failed_episodes"] > summary["num_episodes"]:
        failed, number = summary["num_failed_episodes"], summary["num_episodes"]
        typer.echo(
            f"agentrl: {failed} of {number} episodes could not be played: `errors` above says why", err=True
        )
        raise typer.Exit(1)
    if summary["interrupted"]:
        typer.echo(
            f"agentrl: interrupted after {summary['num_episodes']} of {num_episodes} episodes", err=True
        )
        raise typer.Exit(130)


@app.command()
def status(
    run_dir: RunDir = DEFAULT_RUN,
    all_: Annotated[bool, typer.Option("--all", help="Everything, every version with its figures.")] = False,
    json_: AsJson = False,
) -> None:
    """Turns, learning, versions and latency of a run, in short; --json holds everything."""
    from server.inspect import status_of
    from server.status import short
    from server.typed import of_run

    found = status_of(run_dir)
    show(of_run(found if json_ or all_ else short(found), run_dir), as_json=json_)


@versions_app.callback(invoke_without_command=True)
def versions(context: typer.Context, run_dir: RunDir = DEFAULT_RUN, json_: AsJson = False) -> None:
    """Every version: its state, whether its files are on disk, its gate and what it was trained on. Files that nothing
    needs any more, those of versions that were rolled back among them, are on disk until the learner next tidies up:
    within a minute of its work, and not before a learner runs."""
    if context.invoked_subcommand is not None:
        return
    from server.inspect import versions_of

    rows = versions_of(run_dir)
    if json_:
        typer.echo(json.dumps(rows))
        return
    table(rows, ("number", "parent", "state", "on_disk", "num_steps", "num_turns", "served_at", "reason"))


@versions_app.command("export")
def versions_export(
    number: Annotated[int, typer.Argument(help="The version.")],
    out: Annotated[Path, typer.Argument(help="A folder that is not there yet.")],
    merged: Annotated[
        bool, typer.Option("--merged", help="Full weights, also where the version is an adapter.")
    ] = False,
    run_dir: RunDir = DEFAULT_RUN,
) -> None:
    """Copy a version out for other programs: a model folder, or an adapter in the PEFT format."""
    from server.inspect import export

    typer.echo(export(run_dir, number, out, merged=merged))


@app.command()
def rollback(
    number: Annotated[int, typer.Argument(help="The version to serve again.")],
    reason: Annotated[str, typer.Option(help="Why; it stands in the log.")] = "by hand",
    run_dir: RunDir = DEFAULT_RUN,
) -> None:
    """Serve an earlier version again; the learner goes back with it and sets the turns behind aside. The files of the
    versions after it are deleted when it next tidies up: `agentrl versions export` keeps one."""
    from server.inspect import roll_back

    typer.echo(roll_back(run_dir, number, reason))


@app.command()
def pause(run_dir: RunDir = DEFAULT_RUN) -> None:
    """Stop learning; serving and recording go on."""
    from server.inspect import set_paused

    typer.echo(set_paused(run_dir, paused=True))


@app.command()
def resume(run_dir: RunDir = DEFAULT_RUN) -> None:
    """Go on learning."""
    from server.inspect import set_paused

    typer.echo(set_paused(run_dir, paused=False))


@app.command()
def explain(
    turn: Annotated[
        str,
        typer.Argument(
            help="A turn id, a response id, or 'last': the newest turn that may be learned from, so no evaluation, no "
            "side turn (a title, a summary), none of the control arm and no answer of the model as a judge. Where "
            "nothing was taught on it yet, newest_trained_turn is one of which everything can be told."
        ),
    ] = "last",
    any_: Annotated[bool, typer.Option("--any", help="'last' means the newest turn of any kind.")] = False,
    run_dir: RunDir = DEFAULT_RUN,
    json_: AsJson = False,
) -> None:
    """Show one turn from request to the version that learned from it: what followed, votes, hint and gates, what the
    teacher was shown, and the loss of every id."""
    from server.clocks import with_clocks
    from server.inspect import explain_turn
    from server.taught_pages import for_people

    story = asyncio.run(explain_turn(run_dir, turn, of_any_kind=any_))
    if not json_:
        story = with_clocks(story | {"taught": for_people(story["taught"])})
    show(story, as_json=json_)


@app.command()
def doctor(run_dir: RunDir = DEFAULT_RUN, json_: AsJson = False) -> None:
    """Say why nothing trains: the account of turns, what the waiting ones wait for, the first condition not met."""
    from server.doctor import diagnose
    from server.typed import of_run

    show(of_run(diagnose(run_dir), run_dir), as_json=json_)


@recipes_app.callback(invoke_without_command=True)
def recipes(context: typer.Context, json_: AsJson = False) -> None:
    """Every method that ships: paper, evidence (C code read, P paper, S summary, A abstract) and what it needs."""
    if context.invoked_subcommand is not None:
        return
    from server.recipe_pages import listed

    rows = listed()
    if json_:
        typer.echo(json.dumps(rows))
        return
    table(rows, ("name", "paper", "evidence", "needs"))


@recipes_app.command("show")
def recipes_show(
    name: Annotated[str, typer.Argument(help="A preset, or a TOML file.")],
    json_: AsJson = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the recipe: --set divergence=rkl.")
    ] = None,
) -> None:
    """One method with its axes resolved, what each option does, and the formula that they fill in."""
    from server.recipe_pages import page

    # The spelling of `serve` works here as well.
    changes = [text.removeprefix("learn.overrides.") for text in set_ or []]
    show(page(name, dict(named_value(text, "--set") for text in changes)), as_json=json_)


@judge_app.command("score")
def judge_score(
    backend: Annotated[
        str,
        typer.Option(
            help="rules, self, openai, callable (see the settings judge.*), or path/file.py:Name or module:Name."
        ),
    ] = "rules",
    half: Annotated[
        str,
        typer.Option(
            help="Of the labelled turns: test, sealed, sealed2, or dev for those who improve a judge."
        ),
    ] = "test",
    alone: Annotated[
        bool, typer.Option("--alone", help="Ask the model about every turn, without the rules before it.")
    ] = False,
    target: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Seek the least agreement of the votes for this accuracy on dev, and check it on --half.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask about so many turns only.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings.")] = None,
    run_dir: RunDir = DEFAULT_RUN,
    set_: Set = None,
    json_: AsJson = False,
) -> None:
    """Ask a judge about every labelled turn: agreement, coverage and cost, by kind of signal and domain."""
    from server.judge_figures import markdown
    from server.judge_score import run_score

    score = asyncio.run(
        run_score(
            backend,
            half,
            config=config,
            overrides=set_ or [],
            run_dir=run_dir,
            alone=alone,
            limit=limit,
            target=target,
        )
    )
    typer.echo(json.dumps(score) if json_ else markdown(score))


@store_app.command("verify")
def store_verify(run_dir: RunDir = DEFAULT_RUN) -> None:
    """Re-derive every hash, count and checksum of a run; exit 1 where one does not hold."""
    from agentrl.learner.process import is_at_work
    from agentrl.store.verify import verify
    from server.run_files import existing_run

    run_dir = existing_run(run_dir)
    faults = verify(run_dir, is_live=is_at_work(run_dir))
    for fault in faults:
        typer.echo(fault, err=True)
    typer.echo(f"{len(faults)} faults" if faults else "every hash, count and checksum holds")
    raise typer.Exit(1 if faults else 0)


def named_value(text: str, option: str = "--env-set") -> tuple[str, Any]:
    """ "name=value" given to `option`, with the value read as TOML where it is, as for --set."""
    from agentrl.config import parse_value
    from agentrl.errors import ConfigError

    name, mark, raw = text.partition("=")
    if not mark:
        raise ConfigError(f"{option} {text!r} has no '='; write {option} NAME=VALUE")
    return name.strip(), parse_value(raw.strip())


def show(data: dict[str, Any], *, as_json: bool) -> None:
    """A dictionary as JSON, or as an indented outline for people."""
    if as_json:
        typer.echo(json.dumps(data))
        return
    for line in outline(data):
        typer.echo(line)


def outline(data: Any, indent: int = 0) -> list[str]:
    """Nested data as lines of `name: value`."""
    pad = "  " * indent
    lines: list[str] = []
    for name, value in data.items() if isinstance(data, dict) else enumerate(data, 1):
        if isinstance(value, dict | list | tuple) and value:
            lines += [f"{pad}{name}:", *outline(value, indent + 1)]
        else:
            shown = f"{value:.4g}" if isinstance(value, float) and abs(value) < 1e6 else value
            text = "-" if shown is None or shown in ({}, [], ()) else str(shown)
            lines.append(f"{pad}{name}: " + text.replace("\n", f"\n{pad}  "))
    return lines


def table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """Rows as plain columns for people, one line a row however long its last cell is."""
    cells = [columns, *([cell(row.get(name)) for name in columns] for row in rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(columns) - 1)]
    for line in cells:
        padded = [text.ljust(width) for text, width in zip(line[:-1], widths, strict=True)]
        typer.echo("  ".join([*padded, " ".join(line[-1].split())]).rstrip())


def cell(value: Any) -> str:
    if value is None:
        return "-"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def main() -> None:
    """Entry point: errors that the user can mend are one line on standard error, without a stack."""
    try:
        app()
    except AgentRLError as error:
        typer.echo(f"agentrl: {error}", err=True)
        sys.exit(2)
    except asyncio.CancelledError:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output went away (agentrl versions | head); nothing is left to say.
        sys.stderr.close()
        sys.exit(1)


if __name__ == "__main__":
    main()
