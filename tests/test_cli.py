"""The command line: in this process where that is the same, else as a process, the way a user meets it."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import run

from agentrl.config import Config
from agentrl.learner.process import LOCK_FILE

AGENTRL = Path(sys.executable).with_name("agentrl")


def process(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(AGENTRL), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
    )


def how(command: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A learner changes the process that it is: its priority, what signals do."""
    return process if command == "learner" else run


@pytest.mark.parametrize(
    "command",
    [
        "demo",
        "serve",
        "learner",
        "rollout",
        "status",
        "versions",
        "rollback",
        "pause",
        "resume",
        "explain",
        "doctor",
        "skills",
        "settings",
    ],
)
def test_every_command_explains_itself(command: str, tmp_path: Path) -> None:
    done = run(command, "--help", cwd=tmp_path)

    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_the_settings_are_listed_with_their_defaults_and_what_they_do(tmp_path: Path) -> None:
    said = run("settings", "votes", cwd=tmp_path)
    assert said.stdout == "judge.votes = 3\n    Answers to one question.\n"
    rows = json.loads(run("settings", "--json", cwd=tmp_path).stdout)
    assert rows["server.api_keys.key"]["default"] is None
    assert rows["engine.max_running"]["default"] == 16
    nothing = run("settings", "zorp", cwd=tmp_path)
    assert (nothing.returncode, "no setting has 'zorp' in its name" in nothing.stderr) == (2, True)


def test_the_help_of_serve_names_the_defaults_that_the_settings_have(tmp_path: Path) -> None:
    said = run("serve", "--help", cwd=tmp_path).stdout
    defaults = Config()
    for value in (defaults.server.host, str(defaults.server.port), defaults.learn.recipe):
        assert f"[default: ({value})]" in said.replace("│", " ")


def test_a_learner_beside_another_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    with (tmp_path / "run" / LOCK_FILE).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = process("learner", "--run-dir", "run", cwd=tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "agentrl: another learner works on run: stop it first\n"


def test_a_learner_with_settings_that_cannot_work_says_so_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"learn": {"recipe": "grpoo"}}')

    done = process("learner", "--run-dir", "run", cwd=tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("agentrl: unknown recipe 'grpoo', did you mean 'grpo'? known are: ")
    assert done.stderr.count("\n") == 1
    (line,) = map(json.loads, (tmp_path / "run" / "learner.log").read_text().splitlines())
    assert (line["event"], line["error"], line["again"]) == ("failed", "ConfigError", False)


@pytest.mark.parametrize("command", ["learner", "versions", "status", "doctor"])
def test_a_run_of_an_earlier_release_is_not_refused_for_a_setting_that_is_called_otherwise_now(
    command: str, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"guards": {"max_approvals": 7}}')

    done = how(command)(command, "--run-dir", "run", cwd=tmp_path)

    assert "no setting" not in done.stderr
    assert "max_approvals" not in done.stderr


@pytest.mark.parametrize("command", ["learner", "versions", "status", "doctor"])
def test_a_run_with_a_setting_that_no_release_has_is_refused_by_its_name(
    command: str, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"guards": {"aproval_span": 20}}')

    done = how(command)(command, "--run-dir", "run", cwd=tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "agentrl: run/config.json: guards.aproval_span is no setting: did you mean guards.approval_span? "
        "`agentrl settings` lists all; `agentrl serve` writes the file anew\n"
    )


def test_a_demo_where_no_folder_can_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")

    done = run("demo", cwd=tmp_path)

    assert done.returncode == 2
    assert "runs/demo-seed0 cannot be made: Not a directory" in " ".join(done.stderr.split())
    assert "--run-dir" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interruption_while_the_command_loads_is_no_traceback(tmp_path: Path) -> None:
    """As Ctrl-C within its first half second."""
    script = (
        "import sys, types, server.__main__; lazy = types.ModuleType('server.cli')\n"
        "def missing(name): raise KeyboardInterrupt\n"
        "lazy.__getattr__ = missing; sys.modules['server.cli'] = lazy; server.__main__.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (130, "")


def test_help_loads_no_torch(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['agentrl', '--help']; "
        "import server.cli; server.cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert (done.returncode, "doctor" in done.stdout) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (("serve", "no/such/model"), "Give a folder with config.json"),
        (("serve", "nano", "--recipe", "hint_opds"), "hint_opsd"),
        (("serve", "nano", "--host", "0.0.0.0"), "key"),
        (("serve", "nano", "--set", "engine.max_runing=1"), "engine.max_runing"),
        (("status",), "agentrl serve"),
        (("explain",), "agentrl serve"),
        (("rollout", "--base-url", "http://127.0.0.1:9/v1", "--env", "nowhere:Env"), "nowhere"),
        (("rollout", "--base-url", "http://127.0.0.1:9/v1", "--purpose", "fun"), "train, eval, off"),
        (("rollout", "--base-url", "http://127.0.0.1:9/v1", "--env-set", "nosuch=1"), "it takes seed, rules"),
        (("rollout", "--base-url", "http://127.0.0.1:9/v1", "--env-set", "max_steps=two"), "cannot be made"),
        (("serve", "nano", "--run-dir", "/proc/none"), "name another folder"),
    ],
)
def test_what_cannot_work_is_one_line_with_its_remedy(
    arguments: tuple[str, ...], remedy: str, tmp_path: Path
) -> None:
    done = run(*arguments, cwd=tmp_path)

    assert done.returncode == 2
    assert remedy in done.stderr
    assert "Traceback" not in done.stderr


def test_a_users_own_envs_skills_and_server_disturb_no_command(tmp_path: Path) -> None:
    for name in ("envs", "skills"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the user's own')")
    (tmp_path / "server.py").write_text("raise RuntimeError('the user\\'s own')")
    (tmp_path / "agentrl.py").write_text("raise RuntimeError('the user\\'s own')")

    assert process("--help", cwd=tmp_path).returncode == 0
    assert "agentrl serve" in process("status", cwd=tmp_path).stderr
    served = process("serve", "nano", "--host", "0.0.0.0", cwd=tmp_path)
    assert "key" in served.stderr


def test_a_run_folder_is_one_models(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"model": "some/other"}')

    done = run("serve", "nano", "--port", "0", "--run-dir", "run", cwd=tmp_path)

    assert (done.returncode, "is a run of some/other" in done.stderr) == (2, True)
