"""Who writes skills, by the settings of a run."""

import asyncio
import json
import threading
from pathlib import Path

import pytest
from skills_episodes import record, recovered

from agentrl.config import Config, SkillsConfig, write_config
from agentrl.errors import ConfigError
from server.skills_loop import asking, skill_loop, summariser
from server.skills_pages import export, listed, take
from skills import figures
from skills.bank import SkillBank
from skills.library import Draft, Origin, SkillLibrary

ANSWER = {"name": "Show files", "description": "When a file is shown.", "golden_workflow": ["run zorp FILE"]}


def config(summariser: str) -> Config:
    return Config(skills=SkillsConfig(summariser=summariser))


async def summarised(tmp_path: Path, code: str, name: str) -> tuple[list[str], dict[str, int]]:
    """The bodies of the skills and the outcomes, with a user's file as the summariser."""
    file = tmp_path / "mine.py"
    file.write_text(code)
    run_dir = tmp_path / "run"
    await record(run_dir, recovered())
    await skill_loop(run_dir, config(f"{file}:{name}")).once()
    with SkillBank(run_dir / "skills") as bank:
        return [skill.body for skill in SkillLibrary(run_dir / "skills").all()], figures.outcomes(bank)


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_a_users_function_is_asked_as_a_model(kind: str, tmp_path: Path) -> None:
    code = f"{kind} ask(messages):\n    assert messages[0]['role'] == 'system'\n    return {json.dumps(ANSWER)!r}\n"

    assert await summarised(tmp_path, code, "ask") == (["## How\n1. run zorp FILE"], {"written": 1})


async def test_a_function_that_waits_holds_nothing_else_up() -> None:
    begun, go = threading.Event(), threading.Event()

    def ask(messages: object) -> str:
        begun.set()
        assert go.wait(10), "nothing else ran while the function waited"
        return "answer"

    async def other() -> None:
        assert await asyncio.to_thread(begun.wait, 10)
        go.set()

    answer, _ = await asyncio.gather(asking(ask)([]), other())
    assert answer == "answer"


async def test_a_users_class_writes_skills_itself(tmp_path: Path) -> None:
    code = (
        "from skills.library import Draft\n"
        "class Mine:\n    name = 'mine'\n"
        "    async def summarise(self, episode):\n"
        "        return Draft(name='mine', description='d', body=episode.session, is_quoted=True)\n"
    )

    assert await summarised(tmp_path, code, "Mine") == (["s1"], {"written": 1})


@pytest.mark.parametrize("line", ["raise RuntimeError('down')", "return 3", "return 'no idea'"])
async def test_whatever_a_function_does_wrong_is_a_failed_summary(line: str, tmp_path: Path) -> None:
    assert await summarised(tmp_path, f"def ask(messages):\n    {line}\n", "ask") == ([], {"failed": 1})


async def test_a_text_that_hides_something_is_refused(tmp_path: Path) -> None:
    hidden = ANSWER | {"golden_workflow": ["run zorp\u200b FILE"]}
    code = f"def ask(messages):\n    return {json.dumps(hidden)!r}\n"

    assert await summarised(tmp_path, code, "ask") == ([], {"refused": 1})


@pytest.mark.parametrize(("review", "state"), [(True, "proposed"), (False, "active")])
def test_what_is_imported_waits_for_an_approval_where_skills_do(
    review: bool, state: str, tmp_path: Path
) -> None:
    folder = tmp_path / "in" / "pdf"
    folder.mkdir(parents=True)
    (folder / "SKILL.md").write_text("---\nname: pdf\ndescription: d\n---\nx\n")
    write_config(Config(skills=SkillsConfig(review=review)), tmp_path / "config.json")

    assert take(tmp_path, "default", folder) == "imported: pdf"
    assert [row["state"] for row in listed(tmp_path, "default")["skills"]] == [state]


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("gpt", "path/file.py:Name"), ("http://x:1", "path/file.py:Name"), ("json:nosuch", "nosuch"),
     ("json:JSONDecoder", "ask(messages)"), ("json:__all__", "ask(messages)")],
)  # fmt: skip
def test_what_writes_no_skills_is_refused_with_the_remedy(name: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=remedy.replace("(", r"\(").replace(")", r"\)")):
        summariser(name)


def test_an_export_names_the_skill_that_it_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    write_config(Config(), tmp_path / "run" / "config.json")
    library = SkillLibrary(tmp_path / "run" / "skills")
    origin = Origin(turn_ids=("t1",), version=3, score=1.0)
    library.learn(
        Draft(name="use-blip", description="To show files.", body="## How\n1. run blip FILE"), origin
    )
    library.learn(
        Draft(name="use-zorp", description="To count words.", body="## How\n1. call zorp -w NAME"), origin
    )
    (library.path / "use-zorp" / "SKILL.md").write_text("not yaml: [")

    said = export(tmp_path / "run", "default", tmp_path / "out", [])

    first, second = said.splitlines()
    assert first == f"1 skills in {tmp_path / 'out'}: use-blip"
    assert second.startswith("  use-zorp was left out: ")
    assert "SKILL.md" in second
