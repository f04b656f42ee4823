"""`agentrl rollout`: agents of an environment against an endpoint, with a summary or a line for each episode."""

from __future__ import annotations

import asyncio
import inspect
import json
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from agentrl.errors import ConfigError
from agentrl.types import Purpose
from envs.loading import load_environment
from envs.protocol import Environment
from envs.runner import Episode, run_episodes
from server.statistics import p50_p95, share

SPLITS = {"train": "train", "heldout": "held_out", "held_out": "held_out"}


async def run_rollout(
    *,
    env: str,
    base_url: str,
    model: str,
    api_key: str,
    num_agents: int,
    num_episodes: int,
    group_size: int,
    temperature: float,
    purpose: str,
    split: str | None,
    seed: int,
    first_task: int = 0,
    env_options: dict[str, Any] | None = None,
    lines: bool = False,
) -> dict[str, Any]:
    """Plays and returns the summary, with "interrupted" where SIGINT ended it. SIGINT and SIGTERM let the episodes at
    hand end and begin no other; a second one ends them as well.

    Raises:
        ConfigError: a setting that cannot work.
    """
    try:
        kind = Purpose(purpose)
    except ValueError:
        raise ConfigError(f"--purpose {purpose!r} is not one of {', '.join(Purpose)}") from None
    if split is not None and split not in SPLITS:
        raise ConfigError(f"--split {split!r} is not one of train, heldout")
    stop = asyncio.Event()
    playing = asyncio.current_task()
    loop = asyncio.get_running_loop()

    by: set[signal.Signals] = set()

    def end(number: signal.Signals) -> None:
        if stop.is_set() and playing is not None:
            playing.cancel()
        by.add(number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):
            loop.add_signal_handler(number, end, number)
    episodes = await run_episodes(
        factory_of(env, seed, env_options or {}),
        root_of(base_url),
        model,
        api_key=api_key,
        num_agents=num_agents,
        num_episodes=num_episodes,
        group_size=group_size,
        temperature=temperature,
        purpose=kind,
        split=None if split is None else SPLITS[split],  # type: ignore[arg-type]
        seed=seed,
        first_task=first_task,
        on_episode=print_line if lines else None,
        stop=stop,
    )
    return summary(episodes) | {"interrupted": signal.SIGINT in by}


def factory_of(env: str, seed: int, options: dict[str, Any]) -> Callable[[], Environment]:
    """What makes one environment for each agent. Raises ConfigError for arguments that it does not take."""
    make = load_environment(env)
    accepted = inspect.signature(make).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    unknown = [name for name in options if name not in accepted and not takes_any]
    if unknown:
        raise ConfigError(f"{env} has no argument {unknown[0]!r}; it takes {', '.join(accepted) or 'none'}")
    seeded = {"seed": seed} if "seed" in accepted or takes_any else {}

    def factory() -> Environment:
        try:
            return make(**(seeded | options))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{env} cannot be made: {error}") from error

    return factory


def root_of(base_url: str) -> str:
    """The server's address without the /v1 that SDKs are given."""
    return base_url.rstrip("/").removesuffix("/v1")


def line_of(episode: Episode) -> dict[str, Any]:
    """One episode as the demo and scripts read it."""
    return {
        "session": episode.session,
        "task": episode.task_key,
        "reward": episode.reward,
        "num_turns": episode.num_turns,
        "num_failed_requests": episode.num_failed_requests,
        "latencies_s": [round(value, 5) for value in episode.latencies_s],
        "versions": list(episode.versions),
        "error": episode.error,
        **episode.info,
    }


def print_line(episode: Episode) -> None:
    # Through the stream itself: a reader of the pipe must see each line as it comes.
    sys.stdout.write(json.dumps(line_of(episode)) + "\n")
    sys.stdout.flush()


def summary(episodes: Sequence[Episode]) -> dict[str, Any]:
    """Success with its interval, overall and by family where the environment tells one, None where it rewards nothing;
    failures; latency."""
    families = sorted({str(episode.info["family"]) for episode in episodes if "family" in episode.info})
    latencies = [1000 * value for episode in episodes for value in episode.latencies_s]
    return {
        "num_episodes": len(episodes),
        "num_turns": sum(episode.num_turns for episode in episodes),
        "num_failed_episodes": sum(bool(episode.error) for episode in episodes),
        "num_failed_requests": sum(episode.num_failed_requests for episode in episodes),
        "success": rate(episodes, is_success) if any(e.reward is not None for e in episodes) else None,
        "first_try": {
            family: rate([e for e in episodes if e.info.get("family") == family], is_first_try)
            for family in families
        },
        "latency_ms": p50_p95(latencies),
        "versions": sorted({version for episode in episodes for version in episode.versions}),
        "errors": sorted({episode.error for episode in episodes if episode.error})[:5],
    }


def is_success(episode: Episode) -> bool:
    return (episode.reward or 0.0) > 0


def is_first_try(episode: Episode) -> bool:
    return bool(episode.info.get("first_try"))


def rate(episodes: Iterable[Episode], holds: Callable[[Episode], bool]) -> dict[str, float | int]:
    held = [holds(episode) for episode in episodes]
    return share(sum(held), len(held)).as_dict()
