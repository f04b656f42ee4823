"""New versions come into service between requests, never in one (law 4), and only after their gate (law 8)."""

import asyncio
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from server_house import MODEL, House, SteppedEngine, eventually, says, serving, soon
from typer.testing import CliRunner

from agentrl.config import load_config
from agentrl.engine.scripted import ScriptedEngine
from agentrl.errors import ConfigError, ModelError
from agentrl.store.learning_log import LearningLog
from agentrl.store.versions import VersionStore
from agentrl.types import PolicyVersion, VersionState
from server.cli import app
from server.runtime import Runtime


@contextmanager
def learning(run_dir: Path) -> Iterator[LearningLog]:
    """What the learner's process would write."""
    with LearningLog(run_dir) as log:
        log.ensure_base("default", str(MODEL))
        yield log


def publish(log: LearningLog, run_dir: Path, number: int, parent: int) -> None:
    store = VersionStore(run_dir)
    store.write(number, lambda place: None)
    path = store.relative_path(number)
    log.publish(
        PolicyVersion(policy="default", number=number, parent=parent, state=VersionState.CANDIDATE, path=path)
    )


def accept(log: LearningLog, number: int) -> None:
    log.set_state("default", number, VersionState.SERVING, "the gate passed")


async def serves(house: House, number: int) -> None:
    async def newest() -> bool:
        return house.runtime.versions.newest == number

    await eventually(newest)


async def version_of(house: House, **options: Any) -> str:
    return (await house.ask("Hi", **options)).headers["X-Policy-Version"]


async def test_a_version_serves_once_its_gate_has_passed(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda prompt, sampling: says("Ok.")) as house:
        with learning(tmp_path) as log:
            publish(log, tmp_path, 1, 0)
            await house.runtime.versions.catch_up()
            assert await version_of(house) == "0"

            accept(log, 1)
            await serves(house, 1)
        reply = await house.ask("Hi")
        turn = await house.turn(reply.headers["X-Turn-Id"])
        assert reply.headers["X-Policy-Version"] == "1"
        assert reply.json()["system_fingerprint"] == "default@1"
        assert turn.completion.version == 1
        assert house.engine.loaded[1] == tmp_path / "versions/000001"


async def test_a_request_ends_on_the_version_that_it_began_with(tmp_path: Path) -> None:
    async with serving(
        tmp_path, lambda prompt, sampling: says("One two."), engine_class=SteppedEngine
    ) as house:
        assert isinstance(house.engine, SteppedEngine)
        before = asyncio.create_task(house.ask("Hi"))
        await soon(house.engine.arrived.acquire())
        with learning(tmp_path) as log:
            publish(log, tmp_path, 1, 0)
            accept(log, 1)
            await serves(house, 1)
        after = asyncio.create_task(house.ask("Hi"))
        for _ in range(40):
            house.engine.permits.release()

        for asking, version in ((before, 0), (after, 1)):
            reply = await asking
            turn = await house.turn(reply.headers["X-Turn-Id"])
            assert reply.headers["X-Policy-Version"] == str(version)
            assert [span.version for span in turn.completion.version_spans] == [version]


async def test_a_rollback_makes_the_old_version_serve_again(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda prompt, sampling: says("Ok.")) as house:
        with learning(tmp_path) as log:
            publish(log, tmp_path, 1, 0)
            accept(log, 1)
            await serves(house, 1)
            log.rollback("default", 0, "it forgot things")
            await serves(house, 0)

        assert await version_of(house) == "0"
        names = [model["id"] for model in (await house.http.get("/v1/models")).json()["data"]]
        assert names == ["nano", "nano@0"]


async def test_versions_are_named_and_pinned(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda prompt, sampling: says("Ok.")) as house:
        with learning(tmp_path) as log:
            publish(log, tmp_path, 1, 0)
            accept(log, 1)
            await serves(house, 1)
        models = await house.client().models.list()
        one = await house.client().models.retrieve("nano@1")

        assert [model.id for model in models.data] == ["nano", "nano@1", "nano@0"]
        assert (one.model_extra or {})["policy_version"] == 1
        for name, version in (("nano", "1"), ("nano@1", "1"), ("nano@0", "0")):
            assert await version_of(house, model=name) == version
        with pytest.raises(openai.NotFoundError, match="Known: nano, nano@1, nano@0"):
            await house.client().models.retrieve("nano@7")


async def test_a_pinned_version_is_held_until_another_needs_its_place(tmp_path: Path) -> None:
    class Forgetful(ScriptedEngine):
        """As the local engine: a version that serves no more goes, unless it is held."""

        async def load_version(self, number: int, path: Path, *, serve: bool = True) -> None:
            await super().load_version(number, path, serve=serve)
            if serve:
                self.loaded = {number: path}

    async with serving(tmp_path, lambda prompt, sampling: says("Ok."), engine_class=Forgetful) as house:
        with learning(tmp_path) as log:
            for number in (1, 2):
                publish(log, tmp_path, number, number - 1)
                accept(log, number)
                await serves(house, number)
        assert set(house.engine.loaded) == {2}
        assert await version_of(house, model="nano@0") == "0"
        assert set(house.engine.loaded) == {2, 0}
        # three places: the newest, its successor, one to hold
        assert await version_of(house, model="nano@1") == "1"
        assert set(house.engine.loaded) == {2, 1}


async def test_a_version_that_is_being_evaluated_outlives_its_files(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda prompt, sampling: says("Ok.")) as house:
        with learning(tmp_path) as log:
            for number in (1, 2):
                publish(log, tmp_path, number, number - 1)
                accept(log, number)
                await serves(house, number)
            assert await version_of(house, model="nano@1") == "1"
            log.forget_files("default", lambda versions, pins: [1])
            publish(log, tmp_path, 3, 2)
            accept(log, 3)
            await serves(house, 3)
        assert await version_of(house, model="nano@1") == "1"
        assert (
            await version_of(house, model="nano@0") == "0"
        )  # takes the one place there is to hold a version
        await house.runtime.versions.catch_up()
        with learning(tmp_path) as log:
            publish(log, tmp_path, 4, 3)
            accept(log, 4)
            await serves(house, 4)
        assert (await house.ask("Hi", model="nano@1")).status_code == 404


async def test_without_a_place_for_it_a_pinned_version_is_refused_with_the_remedy(tmp_path: Path) -> None:
    options = {"engine__max_resident_versions": 2}
    async with serving(tmp_path, lambda prompt, sampling: says("Ok."), **options) as house:
        with learning(tmp_path) as log:
            publish(log, tmp_path, 1, 0)
            accept(log, 1)
            await serves(house, 1)
        await house.engine.drop_version(0)
        refused = await house.ask("Hi", model="nano@0")

        assert refused.status_code == 503
        assert "engine.max_resident_versions" in refused.json()["error"]["message"]


async def test_a_version_that_cannot_be_loaded_leaves_the_old_one_serving(tmp_path: Path) -> None:
    class Choosy(ScriptedEngine):
        async def load_version(self, number: int, path: Path, *, serve: bool = True) -> None:
            if number == 1:
                raise ModelError(f"{path} has no weights")
            await super().load_version(number, path, serve=serve)

    async with serving(tmp_path, lambda prompt, sampling: says("Ok."), engine_class=Choosy) as house:
        with learning(tmp_path) as log:
            publish(log, tmp_path, 1, 0)
            accept(log, 1)

            async def failed() -> bool:
                return house.runtime.metrics.total("version_load_failures_total") == 1

            await eventually(failed)
            assert await version_of(house) == "0"
            publish(log, tmp_path, 2, 1)
            accept(log, 2)
            await serves(house, 2)
        assert await version_of(house) == "2"


async def test_a_server_starts_on_the_version_that_served_last(tmp_path: Path) -> None:
    async with serving(tmp_path, []):
        with learning(tmp_path) as log:
            publish(log, tmp_path, 1, 0)
            accept(log, 1)
    started: list[tuple[int, Path]] = []
    config = load_config(
        model=str(MODEL), name="nano", run_dir=str(tmp_path), server__port=0, learn__enabled=False
    )

    async def make_engine(model_path: Path, config: Any, number: int, path: Path) -> ScriptedEngine:
        started.append((number, path))
        return ScriptedEngine([])

    async with Runtime(config, make_engine=make_engine) as runtime:
        assert runtime.versions.newest == 1
    assert started == [(1, tmp_path / "versions/000001")]


async def test_a_control_share_needs_a_place_for_version_0(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_resident_versions"):
        async with serving(tmp_path, [], learn__control_share=0.1, engine__max_resident_versions=1):
            pass


async def test_the_status_shows_versions_and_the_account(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda prompt, sampling: says("Ok.")) as house:
        with learning(tmp_path) as log:
            log.configure("default", needs="any")
            await house.ask("Hi", path="/s/a")
            await house.ask("Hi", path="/eval")
            await house.ask("Summarize it.", headers={"X-Turn-Type": "side"})
            status = (await house.http.get("/v1/status")).json()

        account = status["account"]
        assert account["accepted"] == 2
        assert account["accepted"] == account["trained"] + sum(account["rejected"].values()) + sum(
            account["pending"].values()
        )
        assert account["apart"]["eval"] == 1
        assert account["rejected"] == {"side": 1}
        assert [version["number"] for version in status["versions"]] == [0]
        assert status["counts"]["turns"] == 3
        assert status["latency"]["num_turns"] == 3
        assert status["learner"]["state"] == "off"


async def test_a_run_of_an_earlier_release_goes_on_with_the_version_that_served(tmp_path: Path) -> None:
    async with serving(tmp_path, []):
        pass
    with learning(tmp_path) as log:
        publish(log, tmp_path, 1, 0)
        accept(log, 1)
    with closing(sqlite3.connect(tmp_path / "learning.db")) as old, old:
        old.execute("ALTER TABLE settings DROP COLUMN unsettled")
        old.execute("DELETE FROM migrations WHERE name = 'm005_unsettled'")

    async with serving(tmp_path, []) as house:
        assert house.runtime.versions.newest == 1, "nothing else upgrades the file where learning is off"


async def test_a_version_that_cannot_be_asked_for_says_why_and_which_can(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda prompt, sampling: says("Ok.")) as house:
        with learning(tmp_path) as log:
            for number in (1, 2):
                publish(log, tmp_path, number, number - 1)
                accept(log, number)
            publish(log, tmp_path, 3, 2)
            log.set_state("default", 3, VersionState.REJECTED, "it forgot things")
            publish(log, tmp_path, 4, 2)
            publish(log, tmp_path, 5, 4)
            accept(log, 5)
            publish(log, tmp_path, 6, 5)
            log.forget_files("default", lambda versions, pins: [1])
            await serves(house, 5)

        can = "Can be served: nano, nano@5, nano@2, nano@0; `agentrl versions` lists all."
        for number, why in (
            (1, "can serve no more: its files were deleted"),
            (3, "was refused by its gate, or rolled back"),
            (4, "never served: a later one did"),
            (6, "does not serve yet: its gate has not decided"),
        ):
            refused = await house.ask("Hi", model=f"nano@{number}")
            assert refused.status_code == 404
            assert refused.json()["error"] == {
                "message": f"Version {number} {why}. {can}",
                "type": "not_found_error",
                "param": "model",
                "code": "model_not_found",
            }
        with pytest.raises(
            openai.NotFoundError, match=r"There is no model 'nano@7' here\. Known: nano, nano@5"
        ):
            await house.client().models.retrieve("nano@7")


async def test_a_named_version_whose_folder_somebody_took_away_says_so(tmp_path: Path) -> None:
    class Reader(ScriptedEngine):
        async def load_version(self, number: int, path: Path, *, serve: bool = True) -> None:
            if number == 1:
                raise ModelError(f"{path} is no folder")
            await super().load_version(number, path, serve=serve)

    async with serving(tmp_path, lambda prompt, sampling: says("Ok."), engine_class=Reader) as house:
        with learning(tmp_path) as log:
            for number in (1, 2, 3):
                publish(log, tmp_path, number, number - 1)
                accept(log, number)
            await serves(house, 3)
        refused = await house.ask("Hi", model="nano@1")

        assert refused.status_code == 404
        assert refused.json()["error"]["message"] == (
            "Version 1 cannot be loaded: the server's log says why. Can be served: nano, nano@3, nano@2, nano@0; "
            "`agentrl versions` lists all."
        )
        assert await version_of(house, model="nano@2") == "2"


async def test_the_table_of_versions_says_which_have_their_files(tmp_path: Path) -> None:
    async with serving(tmp_path, []):
        pass
    with learning(tmp_path) as log:
        for number in (1, 2, 3):
            publish(log, tmp_path, number, number - 1)
            accept(log, number)
        log.forget_files("default", lambda versions, pins: [1])
    shutil.rmtree(tmp_path / "versions/000002")  # by somebody else: the log does not know

    said = CliRunner().invoke(app, ["versions", "--run-dir", str(tmp_path)], env={"COLUMNS": "80"})

    rows = [line.split() for line in said.output.splitlines()]
    assert rows[0][:4] == ["number", "parent", "state", "on_disk"]
    assert [row[:4] for row in rows[1:]] == [
        ["0", "-", "retired", "yes"],
        ["1", "0", "retired", "no"],
        ["2", "1", "retired", "no"],
        ["3", "2", "serving", "yes"],
    ]
