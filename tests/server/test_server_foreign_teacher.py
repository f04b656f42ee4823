"""A teacher whose ids are not the policy's is refused before anything is served (law 9)."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from server_house import says, serving

from agentrl.errors import ConfigError
from agentrl.nano import weights_dir

AGENTRL = Path(sys.executable).with_name("agentrl")


def swapped(folder: Path) -> Path:
    """nano's tokenizer with the ids of two tokens exchanged."""
    folder.mkdir()
    file = Path(shutil.copy(weights_dir() / "tokenizer.json", folder))
    content = json.loads(file.read_text())
    vocab = content["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    file.write_text(json.dumps(content))
    return folder


def test_a_teacher_of_another_vocabulary_is_refused_by_serve_in_a_line_and_nothing_is_bound(
    tmp_path: Path,
) -> None:
    teacher = swapped(tmp_path / "teacher")

    asked = f"serve nano --port 0 --run-dir run --recipe opd --set learn.overrides.teacher.path={teacher}"
    done = subprocess.run(
        [AGENTRL, *asked.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert (done.returncode, done.stdout) == (2, "")
    said = " ".join(done.stderr.split())
    assert "teacher 'external' scores the ids of the answers that rollout 'student'" in said
    assert f"the teacher {teacher} has another vocabulary than the policy" in said
    assert "2 tokens differ, the first is 'a'" in said
    assert "choose a teacher of the policy's family, or teacher = 'self'" in said
    assert "Traceback" not in said
    assert os.listdir(tmp_path) == ["teacher"]


@pytest.mark.parametrize(("content", "why"), [(None, "is not there"), ("{}", "cannot be read")])
async def test_a_teacher_whose_vocabulary_nobody_can_read_is_refused_before_a_run_begins(
    tmp_path: Path, content: str | None, why: str
) -> None:
    teacher = swapped(tmp_path / "teacher")
    (teacher / "tokenizer.json").unlink()
    if content is not None:
        (teacher / "tokenizer.json").write_text(content)
    overrides = {"learn__recipe": "opd", "learn__overrides": {"teacher.path": str(teacher)}}

    with pytest.raises(ConfigError, match=f"{teacher}/tokenizer.json {why}"):
        async with serving(tmp_path / "run", [], learn__enabled=True, **overrides):
            pass

    assert os.listdir(tmp_path) == ["teacher"]


async def test_without_a_learner_no_teacher_is_asked(tmp_path: Path) -> None:
    teacher = swapped(tmp_path / "teacher")
    overrides = {"learn__recipe": "opd", "learn__overrides": {"teacher.path": str(teacher)}}

    async with serving(tmp_path / "run", [says("Ok.")], learn__enabled=False, **overrides) as house:
        await house.ask("Hi")
