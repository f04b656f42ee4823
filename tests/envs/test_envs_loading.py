"""Environments by name, and users whose folders are named like ours."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from agentrl.errors import ConfigError
from envs import loading
from envs.loading import load_environment
from envs.terminal import Terminal

MINE = textwrap.dedent("""
    from agentrl.types import Reply
    from envs.protocol import Observation, StepResult, Task
    from helper import VALUE

    class Sums:
        name = "sums"

        def __init__(self, most=9):
            self.most = most

        def task(self, split, index):
            return Task(key=f"{split}-{index}", split=split, data=(index, VALUE))

        async def reset(self, task):
            self.right = str(sum(task.data))
            return Observation(messages=({"role": "user", "content": f"{task.data[0]} + {task.data[1]} = ?"},))

        async def step(self, reply: Reply):
            return StepResult(reward=float(reply.text == self.right), done=True)

        async def aclose(self):
            pass

    def make(**options):
        return Sums(**options)

    not_one = 3

    class Half:
        def task(self, split, index): ...
""")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory whose files and packages are named like ours."""
    for name in ("envs", "skills"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the wrong package')")
    (tmp_path / "server.py").write_text("raise RuntimeError('the wrong module')")
    (tmp_path / "envs/mine.py").write_text(MINE)
    (tmp_path / "envs/helper.py").write_text("VALUE = 40")
    (tmp_path / "own_module.py").write_text(MINE.replace("from helper import VALUE", "VALUE = 1"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


async def test_a_file_is_loaded_beside_packages_named_like_ours(folder: Path) -> None:
    env = load_environment("envs/mine.py:Sums")(most=3)
    observation = await env.reset(env.task("train", 2))
    assert observation.messages[0]["content"] == "2 + 40 = ?"
    assert type(env).__module__.startswith("agentrl_file_")
    assert load_environment("envs/mine.py:Sums") is type(env)
    assert load_environment(f"{folder}/envs/mine.py:make")().name == "sums"


def test_a_module_in_the_working_directory_is_found(folder: Path) -> None:
    assert load_environment("own_module:Sums")().name == "sums"


def test_ours_are_found_by_name() -> None:
    assert load_environment("terminal") is Terminal
    assert load_environment("envs.terminal:Terminal") is Terminal


def test_entry_points_are_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("mine", "envs.terminal:Terminal", loading.ENTRY_POINTS)]
    points.append(EntryPoint("broken", "envs.nothing:Terminal", loading.ENTRY_POINTS))
    monkeypatch.setattr(loading, "entry_points", lambda group: [p for p in points if p.group == group])
    assert load_environment("mine") is Terminal
    with pytest.raises(
        ConfigError, match=r"broken = envs.nothing:Terminal cannot be loaded: No module named"
    ):
        load_environment("broken")
    with pytest.raises(
        ConfigError, match=r"known are terminal, personal, mine, broken. Otherwise write path/file.py:Class"
    ):
        load_environment("other")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("envs/none.py:Sums", "there is no file"),
        ("envs/mine.py:Nothing", "it has Sums"),
        ("envs/helper.py:Nothing", "it holds no environment"),
        ("envs/mine.py:not_one", "is a int, not a class"),
        ("envs/mine.py:Half", "it lacks reset, step, aclose"),
        ("server.py:Sums", "could not be imported: RuntimeError: the wrong module"),
        ("no_such_module:Sums", "No module named 'no_such_module'"),
        ("envs.mine:Sums", "for your own file write envs/mine.py:CLASS"),
    ],
)
def test_what_was_tried_stands_in_the_error(folder: Path, spec: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_environment(spec)


def test_an_installed_program_started_in_such_a_folder_uses_our_packages(folder: Path) -> None:
    script = folder / "bin" / "program"
    script.parent.mkdir()
    root = Path(loading.__file__).parents[1]
    script.write_text(
        f"import sys; sys.path.append({str(root)!r})\n"
        "from envs.loading import load_environment\n"
        "print(load_environment('envs/mine.py:Sums')().name, load_environment('terminal').__module__)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.stdout == "sums envs.terminal\n", done.stderr
