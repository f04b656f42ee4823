"""What a turn costs on the event loop: a short turn whole, redaction, and the readers at hostile texts.

    python -m bench.hot_path [--turns 240]

A short turn is client, web server, gateway and log in one process before a scripted engine. The readers are the gate of
hints and the rules of the judge; their texts are runs that made earlier forms of them quadratic.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

from agentrl.config import Config, load_config
from agentrl.engine.base import Engine
from agentrl.engine.scripted import ScriptedEngine
from agentrl.nano import weights_dir
from agentrl.signals.outputs import failed, is_outage, passes
from agentrl.signals.wording import approves, corrects
from agentrl.text.injection import directs_elsewhere, hides
from agentrl.text.redaction import redact_text
from server.runtime import Runtime

UNITS = (
    "-r",
    "'a ",
    "a:",
    "x,",
    "use cat ,",
    "did you mean: x0,",
    "a ",
    "a\n",
    "e\u0301",
    "%41",
    "7a",
    "and ",
    "use the -",
    "must be ",
    "e.g. /a ",
    "one of a, ",
    "a.b ",
    "\x1b[m",
)
SHORT, LONG = 8_000, 64_000
MAX_REDACTION_MS, MAX_TURN_MS, MAX_LINE_MS, MAX_GROWTH = 1.0, 1000 / 60, 60.0, 16.0


def cpu_ms(action: Callable[[], object], repeats: int = 5) -> float:
    """The fastest of several: what it costs where nobody disturbs it."""

    def once() -> float:
        began = time.process_time()
        action()
        return 1000 * (time.process_time() - began)

    return min(once() for _ in range(repeats))


def gate(text: str) -> None:
    hides(text)
    directs_elsewhere(text, frozenset({"cat"}))


def judge(text: str) -> None:
    for reads in (failed, passes, is_outage, corrects, approves):
        reads(text)


def readers() -> dict[str, tuple[float, float]]:
    """Milliseconds for 8,000 characters of the worst run, and by what eight times its length multiplies them."""
    found = {}
    for name, reads in (("gate of hints", gate), ("rules of the judge", judge)):
        costs = []
        for unit in UNITS:
            short, long = (unit * (size // len(unit)) for size in (SHORT, LONG))
            costs.append((cpu_ms(partial(reads, short)), cpu_ms(partial(reads, long))))
        found[name] = (max(short for short, _ in costs), max(long / max(short, 0.5) for short, long in costs))
    return found


async def short_turn_ms(num_turns: int) -> float:
    """Milliseconds of a core a turn, client included."""
    tokenizer = Tokenizer.from_file(str(weights_dir() / "tokenizer.json"))
    reply = list(tokenizer.encode("Done.<|im_end|>", add_special_tokens=False).ids)
    engine = ScriptedEngine(lambda *_: reply, vocab_size=tokenizer.get_vocab_size())

    async def make_engine(model_path: Path, config: Config, number: int, path: Path) -> Engine:
        return engine

    with tempfile.TemporaryDirectory() as folder:
        config = load_config(
            model=str(weights_dir()), name="nano", run_dir=folder, server__port=0, learn__enabled=False
        )
        async with (
            Runtime(config, make_engine=make_engine) as runtime,
            httpx.AsyncClient(base_url=runtime.base_url, timeout=60) as http,
        ):
            slots = asyncio.Semaphore(8)

            async def one() -> None:
                body = {"model": "nano", "messages": [{"role": "user", "content": "List the files."}]}
                async with slots:
                    (await http.post("/v1/chat/completions", json=body)).raise_for_status()

            await one()
            began = time.process_time()
            await asyncio.gather(*(one() for _ in range(num_turns)))
            return 1000 * (time.process_time() - began) / num_turns


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=240)
    arguments = parser.parse_args()
    line = "ordinary output of a command with a password prompt and https://example.org/path here\n"
    redaction = cpu_ms(lambda: redact_text((line * 100)[:8192]), repeats=50)
    turn = asyncio.run(short_turn_ms(arguments.turns))
    floors = [
        ("a short turn, client included, ms of a core", turn, MAX_TURN_MS),
        ("redaction of 8 KiB, ms", redaction, MAX_REDACTION_MS),
    ]
    for name, (worst, growth) in readers().items():
        floors += [
            (f"{name}: 8,000 hostile characters, ms", worst, MAX_LINE_MS),
            (f"{name}: eight times as many, factor", growth, MAX_GROWTH),
        ]
    table = Table("what", "measured", "at most", "")
    for what, value, most in floors:
        table.add_row(what, f"{value:.3g}", f"{most:.3g}", "ok" if value <= most else "ABOVE THE BOUND")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
