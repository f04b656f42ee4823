"""A server that shows lessons, and conversations with it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from server_house import BASH, House, calls, decode, eventually, says, serving

from agentrl.signals.lessons import gather
from agentrl.store.learning_log import LearningLog
from agentrl.store.version_log import Probe
from agentrl.types import Lesson, LessonState
from server.run_folder import read_secret
from server.shown import may_show

ERROR = "cat is not installed. Use show instead."
LESSON = f'\n\nHint: The tool said: "{ERROR}"'
FAR = "How far is it to the sea?"
SYSTEM = {"role": "system", "content": "You are an agent."}


@asynccontextmanager
async def showing(tmp_path: Path, **settings: Any) -> AsyncIterator[House]:
    """A server that shows lessons, before a model that always calls cat, or says Ok. without tools."""
    options = {"learn__show_lessons": True, "learn__show_share": 0.5} | settings

    def reply(prompt: tuple[int, ...], _: object) -> list[int]:
        return calls("cat a.txt") if "# Tools" in decode(prompt) else says("Ok.")

    async with serving(tmp_path, reply, **options) as house:
        with LearningLog(tmp_path) as log:
            log.ensure_base("default", "base")
            log.configure(needs="hint", approve="auto")
        yield house


def session(
    tmp_path: Path, name: str, *, shows: bool = True, scope: str = "default", share: float = 0.5
) -> str:
    """A session of which lessons may stand in the conversation of task "t", or may not."""
    secret = read_secret(tmp_path)
    assert secret is not None
    return next(
        f"{name}{number}"
        for number in range(1000)
        if may_show(secret, share, scope, f"{name}{number}", "t") is shows
    )


async def begin(
    house: House,
    name: str,
    file: str = "a.txt",
    *,
    said: str | None = None,
    key: str | None = None,
    prefix: str = "",
    **body: Any,
) -> httpx.Response:
    """The first request of a conversation; `prefix` "/eval" makes it an evaluation."""
    answer = await house.ask(
        SYSTEM,
        said or f"Show the file {file}",
        path=f"/s/{name}{prefix}",
        tools=[BASH],
        headers={"X-Task-Key": "t"} | ({"Authorization": f"Bearer {key}"} if key else {}),
        **body,
    )
    return answer.raise_for_status()


def history(first: httpx.Response, output: str = "done", file: str = "a.txt") -> list[dict[str, Any]]:
    """What the client sends next: its request, the call, the call's output."""
    call = first.json()["choices"][0]["message"]["tool_calls"][0]
    said = {"role": "assistant", "content": None, "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": call["id"], "content": output}
    return [SYSTEM, {"role": "user", "content": f"Show the file {file}"}, said, result]


async def goes_on(house: House, first: httpx.Response, path: str, **options: Any) -> httpx.Response:
    headers = {"X-Task-Key": "t"}
    return await house.ask(*history(first, **options), path=path, tools=[BASH], headers=headers)


async def told(house: House, name: str, error: str = ERROR, key: str | None = None) -> str:
    """A conversation whose command fails with a hint; its first turn's id."""
    first = await begin(house, name, key=key)
    headers = {"X-Task-Key": "t"} | ({"Authorization": f"Bearer {key}"} if key else {})
    said = history(first, f"{error}\n[exit code 127]")
    await house.ask(*said, path=f"/s/{name}", tools=[BASH], headers=headers)
    await eventually(lambda: house.runtime.log.signals(first.headers["X-Turn-Id"]))
    return first.headers["X-Turn-Id"]


async def wished(house: House, name: str, wish: str = 'No, sign off with "Cheers".') -> str:
    """A conversation whose reply a user corrects in words; its first turn's id."""
    options = {"path": f"/s/{name}", "headers": {"X-Task-Key": "t"}}
    first = await house.ask(FAR, **options)
    said = [{"role": "user", "content": FAR}, {"role": "assistant", "content": "Ok."}]
    await house.ask(*said, wish, **options)
    await eventually(lambda: house.runtime.log.signals(first.headers["X-Turn-Id"]))
    return first.headers["X-Turn-Id"]


async def corrected(
    house: House, tmp_path: Path, name: str, error: str = ERROR, key: str | None = None
) -> str:
    """The same, and what the learner makes of it: the lesson's id."""
    turn_id = await told(house, name, error, key)
    with LearningLog(tmp_path) as log:
        gather(log, "default", "auto")
        [found] = [lesson for lesson in log.lessons() if turn_id in lesson.turn_ids]
    return found.id


async def stand(house: House, number: int) -> None:
    """Waits until so many lessons may stand in prompts: what others write into learning.db tells of itself nowhere."""

    async def there() -> bool:
        return bool((await house.http.get("/v1/status")).json()["shown"]["num_lessons"] == number)

    await eventually(there)


def probed(tmp_path: Path, lesson: str, number: int = 0, *, passed: bool | None = True) -> None:
    with LearningLog(tmp_path) as log:
        log.record_probe("default", number, Probe(name=f"lesson {lesson}", passed=passed))


def shown(answer: httpx.Response) -> str | None:
    return answer.headers.get("X-Agentrl-Lessons")


def imported(name: str, text: str, at: float) -> Lesson:
    """A lesson from elsewhere that somebody has approved."""
    return Lesson(
        id=name,
        text=text,
        state=LessonState.APPROVED,
        turn_ids=(),
        origin="import",
        form=text,
        situation=("_", "file", "show", "the"),
        created_at=at,
    )


def another(run_dir: Path) -> None:
    """A lesson that may stand: once it does, what was said before it has been looked at."""
    with LearningLog(run_dir) as log:
        log.add_lessons([imported("L1", "use show", 1.0)])
