"""Asking a model: chat messages in, one text a vote out. No torch.

    OpenAIAsker     any endpoint with OpenAI's chat API, ours included: m votes are one request with n = m, so that
                    the endpoint may compute what they share once
    CallableAsker   a function `ask(messages) -> str` of the user's, async or not, once a vote

An asker tries once. Whether a failure may pass is its to say, trying again its caller's.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol

import httpx

from agentrl.errors import JudgeError
from agentrl.signals.meter import PROMPT_TOKENS, REQUESTS, SAMPLED_TOKENS, Meter
from agentrl.signals.threads import Beside
from agentrl.types import JSON

logger = logging.getLogger(__name__)

Form = Literal["json_schema", "json_object", "text"]

MAX_SAID_CHARS: Final = 300
"""Of an endpoint's error that are passed on."""
CHARS_PER_TOKEN: Final = 4
"""Where nobody says how many tokens there were; such requests are counted as `estimated`."""
_PASSING: Final = frozenset((408, 409, 425, 429))
_ONE_ONLY = re.compile(
    r"(?i)(?:^|[\s'\"`({])n['\"`]?\s*(?:[=>:]|must|should|is\b|parameter|value)|multiple (?:choices|completions)"
)
_TOO_LONG = re.compile(r"(?i)context[ _](?:length|window|size)|maximum context|too (?:long|many tokens)")


class AskError(JudgeError):
    """A model gave no answer.

    `may_pass`: the same question may be answered later. `too_long`: a shorter one may be.
    """

    def __init__(
        self,
        message: str,
        *,
        may_pass: bool = False,
        too_long: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.may_pass = may_pass
        self.too_long = too_long
        self.retry_after_s = retry_after_s


class Asker(Protocol):
    """Anything that answers. Raises AskError where it did not answer at all."""

    async def ask(
        self, messages: Sequence[JSON], *, schema: JSON, num: int, temperature: float, timeout_s: float
    ) -> list[str]:
        """Up to `num` answers, one a vote. Fewer where some were lost; none is an AskError."""
        ...

    async def aclose(self) -> None: ...


class OpenAIAsker:
    """Asks an endpoint. What it counts: requests, tokens, and `estimated` requests whose tokens it was not told.

    Args:
        base_url: up to and with `/v1`; a function where it is known only later.
        model: as the endpoint names it.
        meter: is told of every request.
        api_key: the bearer token; None sends none.
        max_tokens: of one answer.
        form: the response_format that the endpoint is asked for.
        headers: to be sent, for every request.
        is_local: no proxy of the environment's stands between.
    """

    def __init__(
        self,
        base_url: str | Callable[[], str],
        model: str,
        *,
        meter: Meter,
        api_key: str | None = None,
        max_tokens: int = 400,
        form: Form = "json_schema",
        headers: Callable[[], Mapping[str, str]] = dict,
        is_local: bool = False,
    ) -> None:
        self._base_url = base_url
        self._model = model
        self._meter = meter
        self._api_key = api_key
        self._max_tokens = max_tokens
        self._form = form
        self._headers = headers
        sent = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        # Each question has a time limit of its own, over all that it does.
        self._client = httpx.AsyncClient(headers=sent, timeout=httpx.Timeout(None), trust_env=not is_local)
        self._takes_many = True
        self._limit_name = "max_tokens"

    async def aclose(self) -> None:
        await self._client.aclose()

    async def ask(
        self, messages: Sequence[JSON], *, schema: JSON, num: int, temperature: float, timeout_s: float
    ) -> list[str]:
        body: JSON = {"model": self._model, "messages": list(messages), "temperature": temperature}
        if self._form == "json_schema":
            named = {"name": "verdict", "schema": schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        elif self._form == "json_object":
            body["response_format"] = {"type": "json_object"}
        try:
            async with asyncio.timeout(timeout_s):
                return await self._answers(body, num)
        except TimeoutError as error:
            self._meter.add("timeouts")
            raise AskError(f"no answer within {timeout_s:g} s", may_pass=True) from error

    async def _answers(self, body: JSON, num: int) -> list[str]:
        """As many as there were, from one request where the endpoint takes n."""
        texts: list[str] = []
        if num == 1 or self._takes_many:
            try:
                texts = await self._post(body if num == 1 else body | {"n": num})
            except _OneOnlyError as error:
                logger.info(
                    "%s answers once a request (%s): every vote is one from now on", self._model, error
                )
                self._takes_many = False
        if len(texts) >= num:
            return texts[:num]
        # Refused, or left unread: several servers take n and answer once.
        self._takes_many = self._takes_many and len(texts) > 1
        more = await asyncio.gather(
            *(self._post(body) for _ in range(num - len(texts))), return_exceptions=True
        )
        for said in more:
            if isinstance(said, BaseException) and not isinstance(said, AskError):
                raise said
        texts += [text for said in more if not isinstance(said, BaseException) for text in said]
        if not texts:
            raise next(said for said in more if isinstance(said, AskError))
        return texts[:num]

    async def _post(self, body: JSON) -> list[str]:
        base = self._base_url if isinstance(self._base_url, str) else self._base_url()
        limit_name = self._limit_name
        _begin(self._meter)
        try:
            reply = await self._client.post(
                f"{base.rstrip('/')}/chat/completions",
                json=body | {limit_name: self._max_tokens},
                headers=dict(self._headers()),
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise AskError(
                f"{base} does not answer ({type(error).__name__}: {error})", may_pass=True
            ) from error
        if reply.status_code != 200:
            fault = self._fault(reply)
            if limit_name == "max_tokens" and "max_completion_tokens" in str(fault):
                # What newer models of OpenAI's call the same thing. Other requests may be under way with the old name.
                self._limit_name = "max_completion_tokens"
                return await self._post(body)
            if reply.status_code in (400, 422, 501) and "n" in body and _refuses_n(reply, str(fault)):
                raise _OneOnlyError(str(fault))
            raise fault
        try:
            data = reply.json()
            texts = [_content(choice) for choice in data["choices"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise AskError(f"{base} answered with something else than a completion", may_pass=True) from error
        self._count(body, data.get("usage"), texts)
        if not texts:
            raise AskError(f"{base} answered without a choice", may_pass=True)
        return texts

    def _count(self, body: JSON, usage: Any, texts: Sequence[str]) -> None:
        prompt, sampled = (
            (usage.get("prompt_tokens"), usage.get("completion_tokens"))
            if isinstance(usage, dict)
            else (None, None)
        )
        if not isinstance(prompt, int) or not isinstance(sampled, int):
            self._meter.add("estimated")
            prompt, sampled = estimated(body["messages"], texts)
        self._meter.add(PROMPT_TOKENS, prompt)
        self._meter.add(SAMPLED_TOKENS, sampled)

    def _fault(self, reply: httpx.Response) -> AskError:
        """An error reply as what its reader can do about it."""
        code, said = reply.status_code, _said(reply, self._api_key)
        passing = code in _PASSING or code >= 500
        where = f"{self._model} was refused with status {code}: {said}"
        if code in (401, 403):
            where += ". judge.api_key_env names the environment variable that holds the key"
        elif "response_format" in said or "json_schema" in said:
            where += ". Set judge.response_format to 'json_object' or 'text'"
        return AskError(
            where,
            may_pass=passing and code != 501,
            too_long=not passing and _TOO_LONG.search(said) is not None,
            retry_after_s=_seconds(reply.headers.get("retry-after")),
        )


class CallableAsker:
    """Asks a function, at the same time once a vote. It may take `schema`, `temperature` and `timeout_s` by name.

    A function that is not async runs in a thread, where it cannot be stopped: it goes on past its time limit, unheard.
    While too many do, it is not asked.
    """

    def __init__(self, function: Callable[..., object], *, meter: Meter, name: str = "the function") -> None:
        self._call = Beside(function)
        self._meter = meter
        self._name = name
        self._takes = keywords(function, ("schema", "temperature", "timeout_s"))

    async def aclose(self) -> None:
        """Nothing is held."""

    async def ask(
        self, messages: Sequence[JSON], *, schema: JSON, num: int, temperature: float, timeout_s: float
    ) -> list[str]:
        given = {"schema": schema, "temperature": temperature, "timeout_s": timeout_s}
        given = {name: given[name] for name in self._takes}
        try:
            async with asyncio.timeout(timeout_s):
                said = await asyncio.gather(
                    *(self._one(messages, given) for _ in range(num)), return_exceptions=True
                )
        except TimeoutError as error:
            self._meter.add("timeouts")
            raise AskError(f"no answer within {timeout_s:g} s", may_pass=True) from error
        texts = [each for each in said if isinstance(each, str)]
        if not texts:
            raise next(each for each in said if isinstance(each, BaseException))
        return texts

    async def _one(self, messages: Sequence[JSON], given: Mapping[str, Any]) -> str:
        _begin(self._meter)
        try:
            said = await self._call(messages, **given)
        except Exception as error:
            raise AskError(f"{self._name} failed: {type(error).__name__}: {error}", may_pass=True) from error
        if not isinstance(said, str):
            raise AskError(f"{self._name} answered with a {type(said).__name__}, not with a text")
        self._meter.add("estimated")
        prompt, sampled = estimated(messages, [said])
        self._meter.add(PROMPT_TOKENS, prompt)
        self._meter.add(SAMPLED_TOKENS, sampled)
        return said


def _begin(meter: Meter) -> None:
    """Counts a request. Raises AskError where the hour has none left: the votes of one question may be several."""
    if not meter.admits():
        raise AskError("the judge's calls or tokens of this hour are spent")
    meter.add(REQUESTS)


def keywords(function: Callable[..., object], names: Sequence[str]) -> tuple[str, ...]:
    """Which of the names a function takes."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return ()
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return tuple(names)
    return tuple(name for name in names if name in parameters)


def estimated(messages: Sequence[JSON], texts: Sequence[str]) -> tuple[int, int]:
    """About how many tokens a prompt and its answers have."""
    prompt = sum(len(str(message.get("content") or "")) for message in messages)
    return -(-prompt // CHARS_PER_TOKEN), -(-sum(map(len, texts)) // CHARS_PER_TOKEN)


class _OneOnlyError(Exception):
    """The endpoint answers once a request."""


def _refuses_n(reply: httpx.Response, said: str) -> bool:
    try:
        error = reply.json()["error"]
        param = error.get("param")
    except (ValueError, KeyError, TypeError, AttributeError):
        param = None
    return param == "n" or (param is None and _ONE_ONLY.search(said) is not None)


def _said(reply: httpx.Response, api_key: str | None) -> str:
    """The message of an error reply, whatever its shape, in one line and without the key, which some repeat."""
    try:
        data = reply.json()
        error = data.get("error", data) if isinstance(data, dict) else data
        text = error.get("message") or error.get("detail") if isinstance(error, dict) else error
        code = error.get("code") if isinstance(error, dict) else None
        said = f"{text} ({code})" if isinstance(code, str) else str(text)
    except ValueError:
        said = reply.text
    if api_key:
        # Before anything is cut: a part of a key is no longer found.
        said = said.replace(api_key, "***")
    return " ".join(said.split())[:MAX_SAID_CHARS] or "without a word"


def _content(choice: JSON) -> str:
    content = choice["message"].get("content")
    return content if isinstance(content, str) else ""


def _seconds(text: str | None) -> float | None:
    try:
        return max(0.0, float(text)) if text is not None else None
    except ValueError:
        return None
