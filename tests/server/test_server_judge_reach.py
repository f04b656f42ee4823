"""A judge's endpoint that is dead is noticed before its word is needed, over real sockets."""

import json
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from server_house import eventually, says, serving

from agentrl.config import Config, JudgeConfig, write_config
from agentrl.errors import ConfigError, JudgeError
from agentrl.store.signal_log import SignalLog
from server.doctor import diagnose
from server.judge_reach import unreachable
from server.judge_score import run_score
from server.judges import make_bench

AGENTRL = Path(sys.executable).with_name("agentrl")


def dead_url() -> str:
    """An address that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{one.getsockname()[1]}/v1"


@contextmanager
def refusing(get: int, post: int = 500) -> Iterator[str]:
    """An endpoint that answers every GET and POST with a status and no more."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(get)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.reply(post)

        def reply(self, status: int) -> None:
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def endpoint(url: str, **changes: Any) -> JudgeConfig:
    return JudgeConfig(backend="openai", model="m", base_url=url, **changes)


def test_a_dead_endpoint_is_told_with_the_remedy_and_others_are_not_asked() -> None:
    url = dead_url()

    said = unreachable(endpoint(url)) or ""

    assert said.startswith(f"the judge's endpoint {url} does not answer (ConnectError")
    assert "start it, or mend judge.base_url" in said
    assert unreachable(JudgeConfig(base_url=url)) is None, "the rules ask nobody"


def test_an_endpoint_without_a_list_of_models_has_answered() -> None:
    with refusing(404) as url:
        assert unreachable(endpoint(url)) is None


def test_an_endpoint_that_refuses_the_key_is_told_unless_the_key_is_the_servers_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with refusing(401) as url:
        assert "judge.api_key_env" in (unreachable(endpoint(url)) or "")
        named = endpoint(url, api_key_env="AGENTRL_TEST_KEY")
        assert unreachable(named) is None, "this process does not have it"
        monkeypatch.setenv("AGENTRL_TEST_KEY", "sk-wrong")
        assert "refuses us with status 401" in (unreachable(named) or "")


@pytest.mark.parametrize("key", ["sk-secret\nvalue", "sk-schl\u00fcssel"])
def test_a_key_that_no_header_can_carry_is_told_without_the_key(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("AGENTRL_TEST_KEY", key)
    with refusing(200) as url:
        settings = endpoint(url, api_key_env="AGENTRL_TEST_KEY")
        said = unreachable(settings) or ""
    with pytest.raises(ConfigError) as refused:
        make_bench(Config(judge=settings), own_url=str, own_key="")

    assert str(refused.value) == said
    assert "AGENTRL_TEST_KEY" in said
    assert "sk-" not in said


def test_a_name_that_no_host_can_have_is_told_too() -> None:
    assert "http://a..b/v1 does not answer" in (unreachable(endpoint("http://a..b/v1")) or "")


async def test_a_server_with_a_dead_judge_warns_and_serves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = dead_url()

    async def warned() -> bool:
        return any(url in record.message for record in caplog.records if record.levelno == logging.WARNING)

    async with serving(
        tmp_path / "run",
        lambda *_: says("Ok."),
        judge__backend="openai",
        judge__base_url=url,
        judge__model="m",
    ) as house:
        await eventually(warned)
        assert (await house.ask({"role": "user", "content": "Hello"})).status_code == 200


async def test_the_doctor_names_a_dead_judge(tmp_path: Path) -> None:
    url = dead_url()
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    write_config(Config(run_dir=str(run_dir), judge=endpoint(url)), run_dir / "config.json")
    await (await SignalLog.open(run_dir)).aclose()

    assert f"endpoint {url} does not answer" in diagnose(run_dir)["judge"]
    write_config(Config(run_dir=str(run_dir)), run_dir / "config.json")
    assert "judge" not in diagnose(run_dir)


def test_a_dead_judge_is_not_scored_and_the_command_says_why(tmp_path: Path) -> None:
    url = dead_url()
    done = subprocess.run(
        [
            *(str(AGENTRL), "judge", "score", "--backend", "openai", "--half", "dev", "--json"),
            *("--set", f"judge.base_url={url}", "--set", "judge.model=m"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert f"agentrl: the judge's endpoint {url} does not answer" in done.stderr


async def test_an_endpoint_that_answers_no_question_has_no_score() -> None:
    with refusing(404, post=404) as url:
        overrides = [f"judge.base_url={json.dumps(url)}", "judge.model=m", "judge.max_retries=0"]
        with pytest.raises(JudgeError, match=r"answered none of .* status 404"):
            await run_score("openai", "dev", overrides=overrides, limit=6, alone=True)
