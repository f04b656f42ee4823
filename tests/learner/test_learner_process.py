import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from learner_run import Run, write_base

from agentrl.learner.journal import Journal
from agentrl.learner.process import FAILED, PARENT, REFUSED, STOPPED, learn, main
from agentrl.store.learning_log import LearningLog
from agentrl.types import SignalSource


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run", write_base(tmp_path / "base"))


def events(run: Run) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run.path / "learner.log").read_text().splitlines()]


def started(run: Run, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "agentrl.learner.process", str(run.path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])} | environment,
    )


def until(process: subprocess.Popen[str], event: str) -> Iterator[dict[str, object]]:
    assert process.stdout is not None
    for line in process.stdout:
        found = json.loads(line)
        yield found
        if found["event"] == event:
            return
    pytest.fail(f"the learner ended without {event}")


def test_the_process_learns_until_sigterm_and_leaves_nothing_in_hand(tmp_path: Path) -> None:
    asked = {"route": "has_context", "context__standing": 2, "context__practised": 3}
    run = Run(tmp_path / "run", write_base(tmp_path / "base"), **asked)
    wishes = [run.turn(f"Count {number}", "abc") for number in range(4)]
    run.record(*wishes, hint="Please use a table.", source=SignalSource.USER)
    process = started(run)
    try:
        seen = list(until(process, "version"))
        assert [item["event"] for item in seen if item["event"] != "heartbeat"] == [
            "ready",
            "step",
            "version",
        ]
        assert seen[-1]["state"] == "serving"
        [metrics] = [item["metrics"] for item in seen if item["event"] == "step"]
        assert isinstance(metrics, dict)
        assert metrics["num_practice"] == 3
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == STOPPED
    finally:
        process.kill()
        process.communicate()
    assert run.account() == (4, 4, {}, {})
    assert events(run)[-1]["event"] == "stopped"


@pytest.mark.heavy
def test_a_learner_waits_for_the_end_of_the_one_before_it_and_meanwhile_goes_at_a_signal(run: Run) -> None:
    with ExitStack() as ends:

        def begun(until_event: str) -> subprocess.Popen[str]:
            process = started(run)
            ends.callback(process.communicate)
            ends.callback(process.kill)
            list(until(process, until_event))
            return process

        first, second = begun("ready"), begun("waiting")
        second.terminate()
        assert [item["event"] for item in until(second, "stopped")] == ["stopped"]
        assert second.wait(timeout=60) == STOPPED
        third = begun("waiting")
        first.kill()
        list(until(third, "ready"))


@pytest.mark.heavy
def test_a_killed_process_is_followed_by_one_that_goes_on(run: Run) -> None:
    run.hinted(4)
    process = started(run)
    try:
        list(until(process, "ready"))
    finally:
        process.kill()
        process.communicate()
    run.hinted(4)
    process = started(run)
    try:
        for found in until(process, "stopped"):
            if found["event"] == "version" and run.account()[1] == 8:
                process.terminate()
    finally:
        process.kill()
        process.communicate()
    assert run.account() == (8, 8, {}, {})


def test_the_process_ends_when_its_parent_is_gone(run: Run) -> None:
    script = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-m', 'agentrl.learner.process', sys.argv[1]],\n"
        "                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)\n"
        "for line in child.stdout:\n"
        "    if 'ready' in line:\n"
        "        break\n"
        "print(child.pid, flush=True)\n"
    )
    parent = subprocess.run(
        [sys.executable, "-c", script, str(run.path)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    pid = int(parent.stdout)
    ended = threading.Event()

    def watch() -> None:
        while Path(f"/proc/{pid}").exists() and "stopped" not in (run.path / "learner.log").read_text():
            ended.wait(0.05)
        ended.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    watcher.join(timeout=30)
    assert ended.is_set()
    assert events(run)[-1]["event"] == "stopped"


def test_a_process_whose_supervisor_died_before_it_could_look_ends(run: Run) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()

    process = started(run, **{PARENT: str(gone.pid)})

    output, _ = process.communicate(timeout=120)
    assert process.returncode == STOPPED
    assert json.loads(output.splitlines()[-1])["event"] == "stopped"


def test_settings_that_cannot_work_are_refused_with_the_remedy(run: Run) -> None:
    data = json.loads((run.path / "config.json").read_text())
    data["learn"]["recipe"] = "no_such_recipe"
    (run.path / "config.json").write_text(json.dumps(data))

    assert main([str(run.path)]) == REFUSED

    last = events(run)[-1]
    assert (last["event"], last["again"]) == ("failed", False)
    assert "no_such_recipe" in str(last["message"])


def test_an_unreadable_config_names_the_setting(run: Run) -> None:
    (run.path / "config.json").write_text('{"learn": {"nice": 99}}')

    assert main([str(run.path)]) == REFUSED
    assert "learn.nice" in str(events(run)[-1]["message"])


def test_a_context_of_skills_without_a_library_is_refused(run: Run) -> None:
    data = json.loads((run.path / "config.json").read_text())
    data["learn"]["overrides"] = {"context": "skill"}
    (run.path / "config.json").write_text(json.dumps(data))

    assert learn(run.path, stop=threading.Event()) == REFUSED
    assert "skill library" in str(events(run)[-1]["message"])


def test_a_second_learner_does_not_work_beside_the_first(run: Run) -> None:
    stop = threading.Event()
    stop.set()
    process = started(run)
    try:
        list(until(process, "ready"))
        assert learn(run.path, stop=stop) == FAILED
    finally:
        process.kill()
        process.communicate()
    last = events(run)[-1]
    assert last["again"] is True
    assert "another learner" in str(last["message"])


def test_a_learner_that_comes_before_the_server_begins_the_line(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", write_base(tmp_path / "base"))
    (run.path / "learning.db").unlink()
    stop = threading.Event()
    stop.set()

    assert learn(run.path, stop=stop) == STOPPED
    with LearningLog(run.path) as log:
        assert log.serving().number == 0


def test_every_line_stands_once_where_the_supervisor_sends_stdout_to_the_log(tmp_path: Path) -> None:
    path = tmp_path / "learner.log"
    with path.open("a") as stdout, Journal(path, stdout) as journal:
        journal.event("ready", loss=float("nan"), rate=0.123456789)
    assert len(path.read_text().splitlines()) == 1
    assert json.loads(path.read_text()) | {"at": 0} == {
        "event": "ready",
        "at": 0,
        "loss": "nan",
        "rate": 0.123457,
    }

    other = io.StringIO()
    with Journal(tmp_path / "second.log", other) as journal:
        journal.event("ready")
    assert other.getvalue() == (tmp_path / "second.log").read_text()


def test_the_log_is_turned_over_by_size_into_a_bounded_number_of_files(tmp_path: Path) -> None:
    path = tmp_path / "learner.log"
    with Journal(path, max_bytes=400) as journal:
        for number in range(100):
            journal.event("step", number=number)

    names = ["learner.log", "learner.log.1", "learner.log.2", "learner.log.3"]
    assert sorted(item.name for item in tmp_path.iterdir()) == names
    assert all((tmp_path / name).stat().st_size < 500 for name in names)
    lines = [line for name in reversed(names) for line in (tmp_path / name).read_text().splitlines()]
    numbers = [json.loads(line)["number"] for line in lines]
    assert numbers == list(range(100 - len(numbers), 100))
    assert len(numbers) > 20


def test_the_last_words_of_a_crash_stand_in_the_log_that_was_turned_over_before(tmp_path: Path) -> None:
    """stdout and stderr, which the supervisor sends there as well, follow into the new file."""
    path = tmp_path / "learner.log"
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from agentrl.learner.journal import Journal\n"
        f"journal = Journal(Path({str(path)!r}), sys.stdout, max_bytes=300)\n"
        "for number in range(12):\n"
        "    journal.event('step', number=number)\n"
        "print('said', flush=True)\n"
        "raise RuntimeError('why it died')\n"
    )
    with path.open("ab") as output:
        subprocess.run([sys.executable, "-c", program], stdout=output, stderr=output, check=False)

    said = path.read_text().splitlines()
    assert said[-1] == "RuntimeError: why it died"
    assert "said" in said
    assert json.loads(said[0])["event"] == "step"
    assert (tmp_path / "learner.log.1").exists()
    whole = [line for item in tmp_path.iterdir() for line in item.read_text().splitlines()]
    assert sorted(json.loads(line)["number"] for line in whole if line.startswith("{")) == list(range(12))
