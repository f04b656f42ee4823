"""Run folders with a file lost or damaged: one line that names the remedy, and nothing that was learned is lost."""

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from server_house import MODEL, says, serving
from test_server_inspect import one_conversation
from typer.testing import CliRunner

from agentrl.config import Config, load_config, read_config, write_config
from agentrl.engine.base import Engine
from agentrl.errors import AgentRLError, ConfigError, ModelError, StoreError, UserError
from agentrl.store.learning_log import LearningLog
from agentrl.store.signal_log import SignalLog
from agentrl.store.verify import verify
from agentrl.store.versions import VersionStore
from agentrl.types import PolicyVersion, VersionState
from server.cli import app
from server.metrics import Metrics
from server.model_folder import model_folder
from server.run_folder import run_secret
from server.runtime import Runtime
from server.versions import Versions

PUT_BACK = "put it back, or name another folder with --run-dir"
COPY = "put back a copy, or name another folder with --run-dir"


def copy_model(place: Path) -> None:
    shutil.copytree(MODEL, place, dirs_exist_ok=True)


async def open_log(folder: Path) -> None:
    async with await SignalLog.open(folder):
        pass


def begin(folder: Path, model: Path, *numbers: int) -> None:
    """A run that has made these versions, each from the one before; the last serves."""
    asyncio.run(open_log(folder))
    store = VersionStore(folder)
    with LearningLog(folder) as log:
        log.ensure_base("default", str(model.resolve()))
        for parent, number in pairwise((0, *numbers)):
            files = store.write(number, lambda place: shutil.copytree(model, place, dirs_exist_ok=True))
            made = PolicyVersion(
                policy="default",
                number=number,
                parent=parent,
                state=VersionState.CANDIDATE,
                path=store.relative_path(number),
                files=tuple(files),
            )
            log.publish(made)
            log.set_state("default", number, VersionState.SERVING, "passed its gate")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that has made versions 3 and 4."""
    folder = tmp_path / "run"
    begin(folder, MODEL, 3, 4)
    write_config(Config(model=str(MODEL), run_dir=str(folder)), folder / "config.json")
    run_secret(folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """What is in the versions and the databases' own files."""
    return {
        str(path): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ("versions" in path.parts or path.suffix == ".db")
    }


def said(*arguments: str) -> str:
    """What a command that fails says, as `agentrl` prints it."""
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, AgentRLError), done.exception or done.output
    assert "\n" not in str(done.exception)
    return str(done.exception)


async def refused(folder: Path, kind: type[AgentRLError], **settings: Any) -> str:
    with pytest.raises(kind) as caught:
        async with serving(folder, [], **settings):
            pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("lost", "sentence"),
    [
        (["learning.db"], f"learning.db is missing: {PUT_BACK}"),
        (["log.db"], f"log.db is missing: {PUT_BACK}"),
        (
            ["log.db", "learning.db"],
            f"log.db and learning.db are missing: {PUT_BACK.replace('it', 'them', 1)}",
        ),
    ],
)
async def test_versions_whose_logs_are_lost_are_served_by_nobody_and_kept(
    lost: list[str], sentence: str, run: Path
) -> None:
    for name in lost:
        (run / name).unlink()
    before = contents(run)

    expected = f"{run}/versions holds versions 3 to 4 but {sentence}"
    assert await refused(run, StoreError) == expected
    for command in (
        ["status"],
        ["versions"],
        ["doctor"],
        ["rollback", "3"],
        ["lessons", "list"],
        ["learner"],
        ["progress"],
        ["store", "verify"],
    ):
        assert await asyncio.to_thread(said, *command, "--run-dir", str(run)) == expected
    with pytest.raises(StoreError, match="missing"):
        LearningLog(run)
    assert contents(run) == before


async def test_a_learning_db_that_was_begun_anew_beside_versions_is_refused(run: Path) -> None:
    (run / "learning.db").write_bytes(b"")

    expected = (
        f"{run}/versions holds versions 3 to 4 but learning.db knows none: put the run's own back, "
        "or name another folder with --run-dir"
    )
    assert await refused(run, StoreError) == expected
    assert VersionStore(run).numbers() == [3, 4]


def put_back(run: Path, *known: int) -> None:
    """Puts a learning.db back that was copied when these were all versions."""
    begin(run.parent / "older", MODEL, *known)
    shutil.copy(run.parent / "older" / "learning.db", run)


async def test_an_older_copy_of_learning_db_deletes_no_version(run: Path) -> None:
    await asyncio.to_thread(put_back, run)
    before = contents(run)

    expected = (
        f"{run}/versions holds version 4 but learning.db knows none above 0: it is an older copy; "
        "put the run's newest back, or name another folder with --run-dir"
    )
    assert await refused(run, StoreError) == expected
    for command in (["status"], ["rollback", "3"], ["learner"]):
        assert await asyncio.to_thread(said, *command, "--run-dir", str(run)) == expected
    assert verify(run) == [
        expected,
        *(f"{run}/versions/00000{number} belongs to no version" for number in (3, 4)),
    ]
    assert contents(run) == before


async def test_a_learning_db_older_than_another_lines_beginning_is_refused(run: Path) -> None:
    VersionStore(run, "user:x").write(1, copy_model)
    before = contents(run)

    expected = (
        f"{run}/versions/policy=user%3Ax holds version 1 but learning.db knows none: put the run's own back, "
        "or name another folder with --run-dir"
    )
    assert await refused(run, StoreError) == expected
    assert expected in verify(run)
    assert contents(run) == before


async def a_turn_of_version_4(run: Path) -> None:
    async with serving(run, [says("Hello.")]) as house:
        await house.engine.load_version(4, VersionStore(run).path(4))
        assert (await house.ask("hello")).status_code == 200


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_learning_is_not_begun_anew_in_a_log_that_has_turns_of_versions(
    elsewhere: bool, run: Path, tmp_path: Path
) -> None:
    await a_turn_of_version_4(run)
    if elsewhere:
        (tmp_path / "new").mkdir()
        shutil.copy(run / "log.db", tmp_path / "new")
        run = tmp_path / "new"
    else:
        (run / "learning.db").unlink()
        shutil.rmtree(run / "versions")

    expected = (
        "log.db holds turns of version 4 but learning.db knows none: put the run's own learning.db and versions back, "
        "or begin anew in another folder with --run-dir"
    )
    assert await refused(run, StoreError, learn__enabled=True) == expected
    with pytest.raises(StoreError, match=expected):
        LearningLog(run)
    assert not (run / "learning.db").exists()
    assert verify(run) == [expected]
    async with serving(run, []) as house:  # without a learner no number is used again
        assert house.runtime.versions.newest == 0


async def test_learning_is_begun_anew_in_a_log_whose_turns_are_all_of_version_0(run: Path) -> None:
    async with serving(run, [says("Hello.")]) as house:
        assert (await house.ask("hello")).status_code == 200
    (run / "learning.db").unlink()
    shutil.rmtree(run / "versions")

    with LearningLog(run) as log:
        assert log.ensure_base("default", str(MODEL)).number == 0
    assert verify(run) == []


async def test_a_learning_db_that_cannot_be_opened_while_serving_is_told_of_once(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await asyncio.to_thread(put_back, run)
    versions = Versions(Config(model=str(MODEL), run_dir=str(run)), model_path=MODEL, metrics=Metrics())

    assert [versions.learning_log() for _ in range(4)] == [None] * 4
    told = [record.getMessage() for record in caplog.records if record.name == "server.versions"]
    assert told == [
        f"no versions are offered, version 0 goes on: {run}/versions holds version 4 but learning.db knows none above "
        "0: it is an older copy; put the run's newest back, or name another folder with --run-dir"
    ]


async def test_a_turn_of_a_version_that_learning_db_does_not_know_is_of_a_newer_one(run: Path) -> None:
    await a_turn_of_version_4(run)
    await asyncio.to_thread(put_back, run, 3)

    assert await refused(run, StoreError) == (
        "log.db holds turns of version 4 but learning.db knows none above 3: it is an older copy; "
        "put the run's newest back, or name another folder with --run-dir"
    )
    assert VersionStore(run).numbers() == [3, 4]


async def test_an_emptied_log_is_refused_where_something_was_learned_of_it(run: Path) -> None:
    turn = await one_conversation(run)
    with LearningLog(run) as log:
        [claim] = log.claim(limit=9, needs="hint", max_age_s=1e9)
        log.record_step([claim.turn.id], recipe="r", seed=0, metrics={}, version_parent=4)
    (run / "log.db").unlink()
    await open_log(run)

    expected = (
        "learning.db learned from turns but log.db holds none: put the run's own back, or name another folder with "
        "--run-dir"
    )
    assert await refused(run, StoreError) == expected
    (run / "versions" / "000003" / "tokenizer.json").unlink()
    assert verify(run) == [
        f"step_turns names turn {turn}, which the log does not hold; a power cut may have taken the log's last turns",
        expected,
        "version 3 of 'default': tokenizer.json is missing",
    ]


async def test_a_damaged_index_of_the_log_is_named_with_what_helps(run: Path) -> None:
    await a_turn_of_version_4(run)
    path = run / "log.db"
    connection = sqlite3.connect(path)
    [root] = connection.execute(
        "SELECT rootpage FROM sqlite_master WHERE name = 'turns_by_version'"
    ).fetchone()
    [size] = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)

    expected = f"cannot read {path}: database disk image is malformed; {COPY}"
    for command in (["status"], ["versions"], ["rollback", "3"], ["learner"]):
        assert await asyncio.to_thread(said, *command, "--run-dir", str(run)) == expected
    assert expected in verify(run)


def test_a_version_that_a_crash_left_before_it_was_known_is_no_older_copy(run: Path) -> None:
    store = VersionStore(run)
    store.write(5, copy_model)

    with LearningLog(run) as log:
        assert log.serving("default").number == 4
        assert store.clean(log.versions()) == [5]
    store.write(6, copy_model)  # above the one set aside; this one is a crash's too
    with LearningLog(run) as log:
        assert log.serving("default").number == 4


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: (folder / "STABLE").unlink(), "{folder} is missing or was not written to its end"),
        (
            lambda folder: (folder / "manifest.json").write_text("{}"),
            "manifest.json is not the one that STABLE vouches for",
        ),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (
            lambda folder: os.truncate(folder / "tokenizer.json", 9),
            "tokenizer.json has 9 bytes, recorded were ",
        ),
    ],
)
async def test_a_damaged_serving_version_is_refused_and_an_earlier_one_serves_after_a_rollback(
    damage: Callable[[Path], None], sentence: str, run: Path
) -> None:
    folder = run / "versions" / "000004"
    damage(folder)

    said_of_it = await refused(run, ModelError)
    assert said_of_it.startswith("version 4 of 'default': " + sentence.format(folder=folder))
    assert said_of_it.endswith(
        "; put a copy of the version's folder back, or serve an earlier one: "
        f"`agentrl versions --run-dir {run}` lists them, `agentrl rollback NUMBER --run-dir {run}` goes back"
    )
    await asyncio.to_thread(CliRunner().invoke, app, ["rollback", "3", "--run-dir", str(run)])
    async with serving(run, []) as house:
        assert house.runtime.versions.newest == 3


async def test_a_file_beside_a_version_and_a_link_to_its_weights_are_no_damage_to_a_server(run: Path) -> None:
    folder = run / "versions" / "000004"
    (folder / ".DS_Store").write_bytes(b"opened in a window")
    (folder / "tokenizer.json").rename(run / "moved.json")
    (folder / "tokenizer.json").symlink_to(run / "moved.json")

    async with serving(run, []) as house:
        assert house.runtime.versions.newest == 4
    assert verify(run) == [
        f"version 4 of 'default': {folder}/tokenizer.json is no plain file; a version holds plain files only"
    ]


async def test_a_setting_that_is_refused_is_not_blamed_on_the_version(run: Path) -> None:
    async def refuse(model_path: Path, config: Config, number: int, path: Path) -> Engine:
        raise ModelError("this model's window is 64 ids: set engine.max_len=64 or less")

    config = load_config(model=str(MODEL), run_dir=str(run), server__port=0, learn__enabled=False)
    with pytest.raises(ModelError) as caught:
        await Runtime(config, make_engine=refuse).start()
    assert str(caught.value) == "this model's window is 64 ids: set engine.max_len=64 or less"


async def test_weights_that_cannot_be_read_name_their_version_and_the_way_back(tmp_path: Path) -> None:
    await asyncio.to_thread(begin, tmp_path, model_folder("nano"), 1)
    weights = VersionStore(tmp_path).path(1) / "model.safetensors"
    weights.write_bytes(b"\xff" * weights.stat().st_size)

    config = load_config(model="nano", run_dir=str(tmp_path), server__port=0, learn__enabled=False)
    with pytest.raises(
        ModelError, match=r"version 1 cannot be served: .*safetensors cannot be read.*`agentrl rollback"
    ):
        await Runtime(config).start()


async def test_a_learning_db_without_its_log_is_refused_also_without_versions(run: Path) -> None:
    shutil.rmtree(run / "versions")
    (run / "log.db").unlink()

    assert await refused(run, StoreError) == (
        f"{run}/learning.db is there but log.db, whose turns it counts, is missing: {PUT_BACK}"
    )
    assert not (run / "log.db").exists()


def test_other_lines_and_half_written_versions_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "versions" / "000009").mkdir(parents=True)
    with pytest.raises(StoreError, match=r"log\.db does not exist"):
        LearningLog(tmp_path)
    assert not (tmp_path / "learning.db").exists()

    VersionStore(tmp_path, "other").write(2, lambda place: None)
    with pytest.raises(StoreError, match=r"holds version 2 but log\.db and learning\.db are missing"):
        LearningLog(tmp_path)


@pytest.mark.parametrize("name", ["learning.db", "log.db"])
@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["doctor"],
        ["versions"],
        ["rollback", "7"],
        ["learner"],
        ["versions", "export", "7", "out"],
    ],
)
def test_a_file_that_is_no_database_is_named_with_what_helps(
    name: str, command: list[str], run: Path
) -> None:
    (run / name).write_bytes(b"this is no database, " * 400)
    before = contents(run)

    assert said(*command, "--run-dir", str(run)).endswith(f"{run / name}: file is not a database; {COPY}")
    assert contents(run) == before


@pytest.mark.parametrize("name", ["learning.db", "log.db"])
async def test_no_server_starts_on_a_file_that_is_no_database(name: str, run: Path) -> None:
    (run / name).write_bytes(b"this is no database, " * 400)

    assert (await refused(run, StoreError)).endswith(f"{run / name}: file is not a database; {COPY}")


@pytest.mark.parametrize("text", ["no hex at all", "", "abcd", "ä"])
async def test_a_secret_that_is_no_key_is_kept_and_refused(text: str, run: Path) -> None:
    (run / "secret.key").write_text(text)

    assert await refused(run, ConfigError) == f"{run}/secret.key cannot be used (it is no key): {COPY}"
    assert (run / "secret.key").read_text() == text


@pytest.mark.parametrize("text", ["[]", '{"a": 1}', '{"model": 1}', "", "{", '"nano"', "null", b"\xff"])
async def test_a_damaged_config_is_written_anew_by_the_next_start(text: str | bytes, run: Path) -> None:
    (run / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert "config.json" in await asyncio.to_thread(said, "status", "--run-dir", str(run))

    async with serving(run, []) as house:
        assert house.runtime.versions.newest == 4
    assert read_config(run / "config.json").model == str(MODEL)


async def test_a_run_without_a_readable_config_is_still_another_models(run: Path, tmp_path: Path) -> None:
    (run / "config.json").write_text("[]")
    shutil.copytree(MODEL, tmp_path / "other")

    assert await refused(run, ConfigError, model=str(tmp_path / "other")) == (
        f"{run} is a run of {MODEL.resolve()}. Name another folder with --run-dir."
    )


@pytest.mark.parametrize("place", [lambda folder: folder / "file" / "x", lambda _: Path("/proc/x")])
def test_an_export_to_where_no_folder_can_be_is_refused(
    place: Callable[[Path], Path], run: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    out = place(tmp_path)

    for command in (["versions", "export", "4"], ["skills", "export"]):
        with pytest.raises(UserError, match=f"{out} cannot be made .*: name another folder"):
            CliRunner().invoke(app, [*command, str(out), "--run-dir", str(run)], catch_exceptions=False)
    assert (tmp_path / "file").read_text() == "mine"
