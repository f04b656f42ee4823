"""`agentrl judge score`: asks any judge about the labelled turns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast, get_args

from agentrl.config import Backend, JudgeConfig, load_config
from agentrl.errors import ConfigError, JudgeError
from agentrl.signals.judge import Judge, Judgement
from agentrl.signals.labelled import Half, LabelledTurn, as_turn, read_half
from agentrl.signals.meter import SAMPLED_TOKENS
from server.auth import judge_key
from server.judge_figures import Verdict, at_agreement, calibrated, cost, summary
from server.judge_reach import unreachable
from server.judges import Bench, judge_of, make_bench, refuse_idle
from server.run_files import ask_server, server_url, settings_of
from server.run_folder import read_secret
from server.typed import serve_again


async def run_score(
    name: str,
    half: str,
    *,
    config: Path | None = None,
    overrides: Sequence[str] = (),
    run_dir: Path | None = None,
    alone: bool = False,
    limit: int | None = None,
    target: float | None = None,
) -> dict[str, Any]:
    """Asks a judge about the turns of a half and sums up.

    Args:
        name: a backend of the settings, or code of the user's, which is scored without the rules before it.
        half: "dev", "test", "sealed" or "sealed2".
        config, overrides: settings, as for `agentrl serve`; those named `judge` matter.
        run_dir: of a running server, where its model is the judge.
        alone: without the rules before it.
        limit: turns, spread over the half; None = all.
        target: least accuracy for which the threshold of agreement is sought on the half dev, and checked on this one.
            The judge then abstains for no want of agreement.

    Raises:
        ConfigError: there is no such half or judge, or its settings cannot work.
        JudgeError: the model that is to judge did not answer once.
    """
    if half not in get_args(Half):
        raise ConfigError(f"there is no half {half!r}; it is one of {', '.join(get_args(Half))}")
    # In a thread: it asks a server, which may be one of this process.
    bench, at_once = await asyncio.to_thread(
        scored_bench, name, config, overrides, run_dir, alone=alone, decides=target is not None
    )
    halves: list[Half] = [cast(Half, half)] if target is None or half == "dev" else ["dev", cast(Half, half)]
    try:
        asked = [
            await verdicts(
                bench.judge, spread(read_half(one), limit), timeout_s=bench.timeout_s, at_once=at_once
            )
            for one in halves
        ]
    finally:
        await bench.aclose()
    found = asked[-1]
    failed = [each.judgement.evidence for each in found if each.failed]
    meter = None if bench.asker is None else bench.meter
    if failed and meter is not None and not meter.counts[SAMPLED_TOKENS]:
        raise JudgeError(
            f"the judge answered none of {len(failed)} questions, so there is nothing to score: {failed[0]}"
        )
    num_asked = sum(map(len, asked))
    score = {"backend": name, "half": half} | summary(found) | {"cost": cost(meter, num_asked)}
    if target is None:
        return score
    fit = calibrated(asked[0], target) | {"num_turns": len(asked[0]), "checked": None}
    if half != "dev" and fit["min_agreement"] is not None:
        fit["checked"] = at_agreement(found, fit["min_agreement"])
    return score | {"calibration": fit}


def scored_bench(
    name: str,
    config: Path | None,
    overrides: Sequence[str],
    run_dir: Path | None,
    *,
    alone: bool = False,
    decides: bool = False,
) -> tuple[Bench, int]:
    """The judge to be scored, and how many turns it is asked about at the same time.

    `decides`: it abstains for no want of agreement.
    """
    given: dict[str, Any] = {"judge__backend": name}
    if ":" in name:
        given, alone = {"judge__backend": "callable", "judge__callable": name}, True
    elif name not in get_args(Backend):
        raise ConfigError(
            f"no judge is named {name!r}: write one of {', '.join(get_args(Backend))}, path/file.py:Name or module:Name"
        )
    if name == "self":
        if run_dir is None:
            raise ConfigError("the served model judges where it is served: name the run with --run-dir")
        run = settings_of(run_dir)
        given |= {"model": run.model, "name": run.served_name}
    settings = load_config(config, overrides, **given)
    if decides and not _judges_by_itself(settings.judge):
        settings = settings.model_copy(
            update={"judge": settings.judge.model_copy(update={"min_agreement": 0.0})}
        )
    url, key = ("", "") if run_dir is None or name != "self" else own_door(run_dir)
    refuse_idle(settings.judge)  # what is missing is named before an endpoint is asked
    silent = unreachable(settings.judge)
    if silent is not None:
        raise JudgeError(silent)
    bench = make_bench(settings, own_url=lambda: url, own_key=key, with_rules=not alone)
    return bench, 1 if bench.asker is None else settings.judge.max_concurrent


def _judges_by_itself(settings: JudgeConfig) -> bool:
    """Whether the judge is code of the user's that is not asked for votes."""
    return settings.backend == "callable" and hasattr(judge_of(settings.callable), "judge")


def own_door(run_dir: Path) -> tuple[str, str]:
    """Address and key under which a running server knows its own judge."""
    live = ask_server(run_dir, "/v1/status")
    secret = read_secret(run_dir)
    if live is None or secret is None:
        model = settings_of(run_dir).model
        raise ConfigError(f"no server is running for {run_dir}: {serve_again(model, run_dir)}")
    return server_url(run_dir) + "/v1", judge_key(secret)


def spread(items: Sequence[LabelledTurn], limit: int | None) -> list[LabelledTurn]:
    """At most `limit` turns, evenly spread."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[number * len(items) // limit] for number in range(limit)]


async def verdicts(
    judge: Judge, items: Iterable[LabelledTurn], *, timeout_s: float | None = 60.0, at_once: int = 1
) -> list[Verdict]:
    """What the judge says of each item. A judge that raises or is late has abstained, and failed."""
    places = asyncio.Semaphore(at_once)

    async def one(item: LabelledTurn) -> Verdict:
        async with places:
            start = time.perf_counter()
            failed = False
            try:
                async with asyncio.timeout(timeout_s):
                    said = await judge.judge(*as_turn(item))
            except Exception as error:  # noqa: BLE001 - a judge is anybody's code; whatever it raises is a failure
                said, failed = Judgement(evidence=f"{type(error).__name__}: {error}"), True
            return Verdict(item=item, judgement=said, seconds=time.perf_counter() - start, failed=failed)

    return list(await asyncio.gather(*map(one, items)))
