"""Functions of a user's, called beside the event loop.

Each call has a daemon thread of its own: one that hangs takes no place in the pool that the rest of the server uses,
and holds up no end of the process. How many may run at the same time is bounded.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

from agentrl.errors import JudgeError

MAX_THREADS: Final = 64
"""Calls of one function that run at the same time, those that nobody waits for any more included."""


class Beside:
    """Calls one function, async or not, without holding up the event loop."""

    def __init__(self, function: Callable[..., object], *, max_threads: int = MAX_THREADS) -> None:
        self._function = function
        self._is_async = inspect.iscoroutinefunction(function)
        self._places = threading.BoundedSemaphore(max_threads)
        self._max_threads = max_threads

    async def __call__(self, *args: Any, **given: Any) -> object:
        """What the function returns. One that is not async cannot be stopped: cancelled, it goes on unheard.

        Raises:
            JudgeError: as many calls as may run have not come back.
        """
        if self._is_async:
            said = self._function(*args, **given)
        else:
            if not self._places.acquire(blocking=False):
                raise JudgeError(f"{self._max_threads} calls have not come back")
            result: Future[object] = Future()
            result.set_running_or_notify_cancel()
            threading.Thread(target=self._work, args=(result, args, given), name="judge", daemon=True).start()
            said = await asyncio.wrap_future(result)
        return await said if inspect.isawaitable(said) else said

    def _work(self, result: Future[object], args: tuple[Any, ...], given: dict[str, Any]) -> None:
        try:
            said = self._function(*args, **given)
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            self._places.release()
            # No future takes a StopIteration, and whoever waits must neither end with the function nor be cancelled.
            passes = isinstance(error, Exception) and not isinstance(error, StopIteration)
            result.set_exception(error if passes else RuntimeError(f"{type(error).__name__}: {error}"))
        else:
            self._places.release()
            result.set_result(said)
