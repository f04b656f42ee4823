"""The commands on a run's lessons, as processes, beside a server and without one."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from command_line import lessons, run

from agentrl.config import Config, load_config, write_config
from agentrl.errors import UserError
from agentrl.store.learning_log import LearningLog
from agentrl.store.signal_log import SignalLog
from agentrl.types import Lesson, LessonState, PolicyVersion, VersionState
from server import lessons_pages
from server.agents_md import BEGIN, END
from server.lessons_pages import change, export, listed, take
from server.skills_loop import skill_loop
from skills.library import SkillLibrary
from skills.skill_file import SkillState

COMMAND = ("Show the file a.txt", "cat: command not found; use zorp instead")


def a_run(path: Path, *scopes: str, **learn: object) -> Path:
    """A folder with an empty run in runs/default, with an API key for each scope."""
    run_dir = path / "runs" / "default"
    keys = [{"key": f"a-long-secret-of-{scope}", "scope": scope} for scope in scopes]
    config = Config.model_validate({"run_dir": str(run_dir), "learn": learn, "server": {"api_keys": keys}})
    run_dir.mkdir(parents=True)
    write_config(config, run_dir / "config.json")

    async def make() -> None:
        await (await SignalLog.open(run_dir)).aclose()

    asyncio.run(make())
    return path


def transcript(path: Path, *commands: tuple[str, str]) -> Path:
    """A file in which an agent is told after each command what to use."""
    rows = []
    for request, output in commands:
        function = {"name": "bash", "arguments": json.dumps({"command": f"{output.partition(':')[0]} a.txt"})}
        call = {"id": "1", "type": "function", "function": function}
        rows.append(
            {
                "messages": [
                    {"role": "user", "content": request},
                    {"role": "assistant", "content": None, "tool_calls": [call]},
                    {"role": "tool", "tool_call_id": "1", "content": output},
                ]
            }
        )
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_lessons_come_in_are_approved_and_go_out_again(tmp_path: Path) -> None:
    here = a_run(tmp_path, approve="review")
    transcript(
        tmp_path / "other.jsonl", COMMAND, ("Delete old.log", "rm: command not found; use blip instead")
    )

    taken = lessons("import", "other.jsonl", cwd=here)
    assert (len(taken["imported"]), taken["hints"], taken["num_kept_for_export"]) == (2, {"accepted": 2}, 0)
    assert [row["state"] for row in taken["imported"]] == ["proposed", "proposed"]

    first, second = [row["id"] for row in lessons("list", cwd=here)["lessons"]]
    assert run("lessons", "approve", first, cwd=here).returncode == 0
    assert run("lessons", "reject", second, "--reason", "not here", cwd=here).returncode == 0
    assert [row["id"] for row in lessons("list", "--state", "approved", cwd=here)["lessons"]] == [first]
    assert lessons("show", second, cwd=here)["reason"] == "not here"
    assert lessons("show", first, cwd=here)["probe"]["names"] == ["zorp"]

    text = run("lessons", "export", cwd=here).stdout
    assert text == ('## Learned from use\n\n- The tool said: "cat: command not found; use zorp instead"\n')
    assert run("lessons", "export", "AGENTS.md", cwd=here).returncode == 0
    assert (here / "AGENTS.md").read_text() == f"{BEGIN}\n{text}{END}\n"
    assert run("lessons", "export", "out.json", "--format", "json", cwd=here).returncode == 0
    assert run("lessons", "export", "out.json", "--format", "json", cwd=here).returncode == 2, "it is taken"

    assert run("lessons", "retire", first, cwd=here).returncode == 0
    assert lessons("list", "--state", "approved", cwd=here)["lessons"] == []


@pytest.mark.parametrize(
    ("origin", "text", "line"),
    [
        (
            "skill",
            "1. Say `zorvex --all`.\n2) Do not\n   say `cat - 3. x`.",
            "Say `zorvex --all`. Do not say `cat - 3. x`.",
        ),
        ("skill", "3. Juli is the deadline.\nNo later.", "3. Juli is the deadline. No later."),
        ("hint", "1. August is free.\n2. August is not.", "1. August is free. 2. August is not."),
        ("import", "* is not allowed in\nSELECT lists", "* is not allowed in SELECT lists"),
    ],
)
def test_the_steps_of_a_skill_lose_their_numbers_in_an_agents_md_and_nothing_else_does(
    origin: Any, text: str, line: str
) -> None:
    lesson = Lesson(id="L1", text=text, state=LessonState.APPROVED, turn_ids=("a", "b"), origin=origin)

    assert lessons_pages._agents_md([lesson]) == f"## Learned from use\n\n- {line}\n"


@pytest.mark.parametrize(
    ("held", "gap"),
    [
        (b"# Rules\n\nBe kind.\n", b"\n"),
        (b"# Rules\r\n\r\nNo break at the end \xff", b"\r\n\r\n"),
        ("Ärger mit Zeichen\n\n\n".encode(), b"\n"),
    ],
)
def test_an_export_into_an_agents_md_keeps_what_it_holds_and_the_next_one_replaces_the_part_alone(
    tmp_path: Path, held: bytes, gap: bytes
) -> None:
    run_dir = a_run(tmp_path) / "runs" / "default"
    path = tmp_path / "AGENTS.md"
    path.write_bytes(held)
    path.chmod(0o640)
    newline = b"\r\n" if b"\r\n" in held else b"\n"

    def part(*lines: str) -> bytes:
        return newline.join(line.encode() for line in (BEGIN, "## Learned from use", "", *lines, END))

    def approved(id_: str, text: str) -> None:
        with LearningLog(run_dir) as log:
            log.add_lessons([Lesson(id=id_, text=text, state=LessonState.APPROVED, turn_ids=())])

    approved("L1", "use zorp")
    assert export(run_dir, "default", "agents-md", path) == f"1 lessons in {path}"
    assert path.read_bytes() == held + gap + part("- use zorp") + newline
    after = path.read_bytes() + b"\nwritten below later, without a break"
    path.write_bytes(after)

    export(run_dir, "default", "agents-md", path)
    assert path.read_bytes() == after, "the same lessons change nothing"
    approved("L2", f"say {END} never")
    export(run_dir, "default", "agents-md", path)
    said = part("- use zorp", f"- say {END.replace('<!--', '<! --')} never")
    assert path.read_bytes() == after.replace(part("- use zorp"), said)
    assert (path.stat().st_mode & 0o777, sorted(one.name for one in tmp_path.iterdir())) == (
        0o640,
        ["AGENTS.md", "runs"],
    )


@pytest.mark.parametrize("held", [BEGIN, END, f"{END}\n{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_an_agents_md_whose_marks_are_no_pair_is_left_as_it_is(tmp_path: Path, held: str) -> None:
    run_dir = a_run(tmp_path) / "runs" / "default"
    (tmp_path / "AGENTS.md").write_text(held)

    with pytest.raises(UserError, match="once each, in this order"):
        export(run_dir, "default", "agents-md", tmp_path / "AGENTS.md")

    assert (tmp_path / "AGENTS.md").read_text() == held


def test_what_many_turns_brought_comes_first_and_what_one_turn_brought_stands_apart(tmp_path: Path) -> None:
    here = a_run(tmp_path)
    run_dir = here / "runs" / "default"
    number = 0
    with LearningLog(run_dir) as log:
        for text, num_turns in (("use once", 1), ("use twice", 2), ("use elsewhere", 0), ("use thrice", 3)):
            lesson = Lesson(
                id=text,
                text=text,
                state=LessonState.APPROVED,
                turn_ids=(),
                origin="hint" if num_turns else "import",
            )
            hints = {number + index: (f"t{number + index}", lesson.id) for index in range(num_turns)}
            number += num_turns
            log.add_lessons([lesson], hints)

    rows = listed(run_dir, "default")["lessons"]
    assert [(row["text"], row["num_turns"]) for row in rows] == [
        ("use thrice", 3),
        ("use twice", 2),
        ("use once", 1),
        ("use elsewhere", 0),
    ]
    assert export(run_dir, "default", "agents-md", None) == (
        "## Learned from use\n\n- use thrice\n- use twice\n- use elsewhere\n\nSeen once:\n\n- use once"
    )
    assert export(run_dir, "default", "skill-md", None).endswith(
        "- use elsewhere\n\nSeen once:\n\n- use once"
    )
    (tmp_path / "AGENTS.md").write_text(export(run_dir, "default", "agents-md", None))
    there = a_run(tmp_path / "there") / "runs" / "default"
    taken = asyncio.run(take(there, "default", tmp_path / "AGENTS.md"))
    assert [row["text"] for row in taken["imported"]] == [
        "use thrice",
        "use twice",
        "use elsewhere",
        "use once",
    ]


def test_an_export_goes_through_a_link_and_leaves_the_link(tmp_path: Path) -> None:
    run_dir = a_run(tmp_path) / "runs" / "default"
    (tmp_path / "CLAUDE.md").write_text("be kind\n")
    (tmp_path / "AGENTS.md").symlink_to("CLAUDE.md")

    export(run_dir, "default", "agents-md", tmp_path / "AGENTS.md")

    assert (tmp_path / "AGENTS.md").is_symlink()
    assert (tmp_path / "CLAUDE.md").read_text().startswith(f"be kind\n\n{BEGIN}\n")


def test_a_json_export_comes_in_again_elsewhere_with_the_words_of_its_request(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    a_run(one), a_run(two)
    transcript(one / "other.jsonl", COMMAND)
    lessons("import", "other.jsonl", cwd=one)
    assert run("lessons", "export", str(two / "in.json"), "--format", "json", cwd=one).returncode == 0

    [row] = lessons("import", "in.json", cwd=two)["imported"]

    text = 'The tool said: "cat: command not found; use zorp instead"'
    there = {"text": text, "situation": "_ file show the"}
    assert (row["text"], row["state"]) == (there["text"], "proposed")
    found = lessons("show", row["id"], cwd=two)
    assert {name: found[name] for name in there} == there


async def test_a_comment_waits_for_its_approval_whatever_the_run_approves_by_itself(tmp_path: Path) -> None:
    run_dir = (await asyncio.to_thread(a_run, tmp_path)) / "runs" / "default"
    said = {"comment": "use zorp instead of cat", "request": "Show the file a.txt"}
    (tmp_path / "comments.jsonl").write_text(json.dumps(said) + "\n")

    await take(run_dir, "default", tmp_path / "comments.jsonl")

    for _ in range(2):
        assert [row["state"] for row in listed(run_dir, "default")["lessons"]] == ["proposed"]


def test_a_skill_export_is_a_skill_that_other_runs_read(tmp_path: Path) -> None:
    here = a_run(tmp_path)
    transcript(tmp_path / "other.jsonl", COMMAND)
    lessons("import", "other.jsonl", cwd=here)
    assert run("lessons", "export", "out", "--format", "skill-md", cwd=here).returncode == 0

    library = SkillLibrary(tmp_path / "elsewhere")
    assert library.take(here / "out") == ["lessons-learned"]
    assert (
        '- The tool said: "cat: command not found; use zorp instead"' in library.get("lessons-learned").body
    )


def test_skills_are_lessons_too_and_wait_for_approval_in_review(tmp_path: Path) -> None:
    here = a_run(tmp_path, approve="review")
    run_dir = here / "runs" / "default"
    (tmp_path / "use-zorp").mkdir()
    (tmp_path / "use-zorp" / "SKILL.md").write_text(
        "---\nname: use-zorp\ndescription: Use to show a file.\n---\n\nRun zorp.\n"
    )
    assert run("skills", "import", "use-zorp", cwd=here).returncode == 0

    [row] = lessons("list", cwd=here)["lessons"]
    assert (row["id"], row["state"], row["origin"]) == ("skill:use-zorp", "proposed", "skill")
    library = SkillLibrary(run_dir / "skills")
    assert run("lessons", "approve", "--all", cwd=here).returncode == 0
    assert library.get("use-zorp").state is SkillState.ACTIVE
    said = run("lessons", "reject", "skill:use-zorp", cwd=here).stdout
    assert "skill:use-zorp is retired" in said
    assert library.get("use-zorp").state is SkillState.RETIRED


def test_reviews_are_on_for_skills_that_the_run_writes_itself(tmp_path: Path) -> None:
    config = load_config(None, ["learn.approve=review"], run_dir=str(tmp_path), learn__recipe="skill_sd")

    assert config.reviews_skills
    assert skill_loop(tmp_path, config)._settings.review
    assert (config.learn.max_age_s, Config().learn.max_age_s) == (7 * 86400.0, 3600.0)
    assert load_config(None, ["learn.approve=review", "learn.max_age_s=60"]).learn.max_age_s == 60.0


def test_what_cannot_work_is_one_line_with_its_remedy(tmp_path: Path) -> None:
    here = a_run(tmp_path)
    (tmp_path / "bad.jsonl").write_text("not json\n")

    unknown = run("lessons", "approve", "L1", cwd=here)
    unread = run("lessons", "import", "bad.jsonl", cwd=here)
    nothing = run("lessons", "approve", cwd=here)
    no_run = run("lessons", "list", cwd=here.parent)
    unwritten = run("lessons", "export", "bad.jsonl/lessons.md", cwd=here)
    nowhere = run("lessons", "export", "no/such/lessons.md", cwd=here)
    named = run("lessons", "show", "L1", "--run-dir", "./runs/../runs/default", cwd=here)

    assert (unknown.returncode, "`agentrl lessons list` shows them" in unknown.stderr) == (2, True)
    assert (unread.returncode, "line 1 of bad.jsonl is not JSON" in unread.stderr) == (2, True)
    assert nothing.returncode == 2
    assert (no_run.returncode, "holds no run" in no_run.stderr) == (2, True)
    assert (unwritten.returncode, "cannot be written" in unwritten.stderr) == (2, True)
    assert (nowhere.returncode, "there is no folder no;" in nowhere.stderr) == (2, True)
    assert not (here / "no").exists()
    assert "`agentrl lessons list --run-dir runs/../runs/default` shows them" in named.stderr
    assert run("lessons", "export", "new/lessons.md", cwd=here).stdout == "0 lessons in new/lessons.md\n"
    assert "Traceback" not in unknown.stderr + unread.stderr + no_run.stderr


def test_a_recipe_that_recalls_nothing_keeps_imports_for_export_and_says_so(tmp_path: Path) -> None:
    here = a_run(tmp_path, recipe="grpo")
    transcript(tmp_path / "other.jsonl", COMMAND)

    taken = lessons("import", "other.jsonl", cwd=here)

    assert taken["num_kept_for_export"] == 1
    assert "shows teachers no hints of other turns" in taken["why_kept"]


def test_looking_at_the_lessons_of_a_run_that_never_learned_spoils_no_other_command(tmp_path: Path) -> None:
    here = a_run(tmp_path)
    assert lessons("list", cwd=here)["lessons"] == []

    assert "has never worked" in run("status", cwd=here).stdout
    assert "start `agentrl serve nano` again" in run("doctor", cwd=here).stdout


def test_progress_works_on_any_run(tmp_path: Path) -> None:
    here = a_run(tmp_path)

    said = run("progress", cwd=here)

    assert said.returncode == 0, said.stderr
    assert "learn.control_share is 0" in said.stdout
    found = json.loads(run("progress", "--json", cwd=here).stdout)
    assert found["learning"]["num_conversations"] == 0


def test_lessons_of_one_scope_are_not_shown_to_another(tmp_path: Path) -> None:
    here = a_run(tmp_path)
    mine = Lesson(id="L1", text="use zorp", state=LessonState.APPROVED, turn_ids=(), scope="team")
    with LearningLog(here / "runs" / "default") as log:
        log.add_lessons([mine])

    assert lessons("list", cwd=here)["lessons"] == []
    assert [row["id"] for row in lessons("list", "--scope", "team", cwd=here)["lessons"]] == ["L1"]


def test_a_scope_that_nobody_has_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    here = a_run(tmp_path)
    with LearningLog(here / "runs" / "default") as log:
        log.add_lessons([Lesson(id="L1", text="x", state=LessonState.APPROVED, turn_ids=(), scope="team")])

    with pytest.raises(UserError, match="nobody has the scope 'teem': this run has default, team"):
        listed(here / "runs" / "default", "teem")


def test_nothing_comes_in_for_a_scope_that_no_key_has(tmp_path: Path) -> None:
    here = a_run(tmp_path, "alice", "bob")
    (tmp_path / "rules.md").write_text("- Never commit to main.\n")
    (tmp_path / "use-zorp").mkdir()
    (tmp_path / "use-zorp" / "SKILL.md").write_text("---\nname: use-zorp\ndescription: d\n---\nRun zorp.\n")

    for kind, source in (("lessons", "rules.md"), ("skills", "use-zorp")):
        for scope in ((), ("--scope", "alcie")):
            refused = run(kind, "import", source, *scope, cwd=here)
            assert (refused.returncode, refused.stdout) == (2, "")
            assert "this run has alice, bob; name one with --scope" in refused.stderr
        assert run(kind, "import", source, "--scope", "alice", cwd=here).returncode == 0, "it never spoke"

    unknown = run("lessons", "list", "--scope", "alcie", cwd=here)
    assert (unknown.returncode, "nobody has the scope 'alcie'" in unknown.stderr) == (2, True)
    assert len(lessons("list", "--scope", "alice", cwd=here)["lessons"]) == 2


def learned(log: LearningLog, number: int, metrics: dict, *, path: str = "") -> None:
    """A served version with a step that was made with these hints."""
    step = log.record_step([], recipe="r", seed=0, metrics=metrics, version_parent=number - 1)
    log.publish(
        PolicyVersion(
            policy="default",
            number=number,
            parent=number - 1,
            state=VersionState.CANDIDATE,
            path=path or f"versions/{number}",
            step_ids=(step,),
        )
    )
    log.set_state("default", number, VersionState.SERVING, "because")


@pytest.mark.parametrize("state", [LessonState.REJECTED, LessonState.RETIRED])
def test_a_lesson_that_versions_have_learned_says_so_when_it_is_turned_down(
    tmp_path: Path, state: LessonState
) -> None:
    here = a_run(tmp_path)
    run_dir = here / "runs" / "default"
    with LearningLog(run_dir) as log:
        log.ensure_base("default", "base")
        log.add_lessons(
            [
                Lesson(id=name, text=f"text {name}", state=LessonState.APPROVED, turn_ids=())
                for name in ("L1", "L2")
            ]
        )
        learned(log, 1, {"hints_from": {}})
        learned(log, 2, {"hints_from": {"t1": "L2"}})
        learned(log, 3, {"hints_from": {"t2": "L1", "t3": "L2"}})
        log.forget_files("default", lambda versions, pins: [1])

    found = change(run_dir, "default", ["L1", "L2"], state)["learned"]
    said = change(run_dir, "default", ["L2"], state)["said"]

    assert found == {
        "L1": {"versions": [3], "rollback": 2, "num_undone": 1},
        "L2": {"versions": [2, 3], "rollback": 0, "num_undone": 3},
    }
    assert "versions 2, 3 were trained on it already; those weights stay" in said
    assert (
        f"`agentrl rollback 0 --run-dir {run_dir}` serves version 0 again, since no newer one from before it has "
        "files, and sets aside what 3 versions learned since" in said
    )
    near = change(run_dir, "default", ["L1"], state)["said"]
    assert (
        f"`agentrl rollback 2 --run-dir {run_dir}` serves version 2 again, and sets aside what 1 version "
        in near
    )
    assert "trained on it" not in change(run_dir, "default", ["L2"], LessonState.APPROVED)["said"]


@pytest.mark.parametrize("command", ["lessons", "progress"])
def test_the_commands_are_in_the_help(command: str, tmp_path: Path) -> None:
    assert command in run("--help", cwd=tmp_path).stdout
