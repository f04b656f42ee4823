"""Tokens per second of the local engine beside transformers, on one small model, log-probs included.

    python bench/engine.py [--rounds 7] [--seconds 150]

Every way of generating gets the same model (Qwen3 shape, 3.7 M parameters, fp32, random weights), the same prompts
(32 ids) and the same work (128 sampled ids with their log-probs, temperature 1), with one and with two threads. Ways
take turns round by round, so that a busy machine slows all of them alike; the first round warms up and is not counted.
Ways are compared at their better thread count, by their best round: other work on the machine can only slow a round.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from transformers import ContinuousBatchingConfig, GenerationConfig, Qwen3Config, Qwen3ForCausalLM
from transformers.generation.continuous_batching import ContinuousBatchingManager
from transformers.utils import logging

from agentrl.config import EngineConfig
from agentrl.engine.base import Sampled
from agentrl.engine.frontend import Frontend
from agentrl.engine.local import LocalEngine
from agentrl.engine.local_process import LocalProcessEngine
from agentrl.types import Sampling

NUM_PROMPT, NUM_SAMPLED, VOCAB = 32, 128, 2048
BATCHES = (1, 16)
THREADS = (1, 2)

Way = Callable[[list[list[int]]], Awaitable[None]]


def save_model(folder: Path) -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    config = Qwen3Config(
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        intermediate_size=768,
        vocab_size=VOCAB,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    model = Qwen3ForCausalLM(config).eval()
    model.save_pretrained(folder)
    return model


def generate(model: Qwen3ForCausalLM, threads: int) -> Way:
    """transformers generate(): a fixed batch, log-probs from the logits it returns."""
    settings = GenerationConfig(
        max_new_tokens=NUM_SAMPLED,
        do_sample=True,
        top_k=0,
        top_p=1.0,
        output_logits=True,
        return_dict_in_generate=True,
        eos_token_id=None,
        pad_token_id=0,
    )

    @torch.inference_mode()
    def run(prompts: list[list[int]]) -> None:
        torch.set_num_threads(threads)
        ids = torch.tensor(prompts)
        out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        sampled = out.sequences[:, NUM_PROMPT:]
        logprobs = torch.log_softmax(torch.stack(out.logits, 1), -1).gather(2, sampled.unsqueeze(2))
        assert logprobs.shape == (len(prompts), NUM_SAMPLED, 1)

    async def way(prompts: list[list[int]]) -> None:
        run(prompts)

    return way


def continuous(model: Qwen3ForCausalLM, threads: int) -> tuple[Way, ContinuousBatchingManager]:
    """transformers' continuous batching manager, kept running, log-probs of the sampled ids switched on.

    Its cache is laid out as it was fastest here among several sizes, and holds all sequences at once.
    """
    settings = GenerationConfig(
        max_new_tokens=NUM_SAMPLED, do_sample=True, top_k=0, top_p=1.0, eos_token_id=-1, pad_token_id=0
    )
    batching = ContinuousBatchingConfig(
        return_logprobs=True, num_blocks=64, page_size=64, max_batch_tokens=256, allow_block_sharing=False
    )
    # The manager's thread takes over the number of threads that is set when it first computes: in the first round.
    manager = model.init_continuous_batching(generation_config=settings, continuous_batching_config=batching)

    async def way(prompts: list[list[int]]) -> None:
        torch.set_num_threads(threads)
        if not manager.is_running():
            manager.start()
        manager.add_requests(prompts, max_new_tokens=NUM_SAMPLED)
        left = len(prompts)
        while left:
            result = manager.get_result(timeout=1.0)
            if result is not None and result.is_finished():
                assert len(result.logprobs) == NUM_SAMPLED
                left -= 1

    return way, manager


def ours(engine: Frontend) -> Way:
    """Our engine: one concurrent request a prompt, every id streamed with both log-probs."""

    async def one(ids: list[int]) -> None:
        stream = engine.generate(ids, Sampling(max_tokens=NUM_SAMPLED))
        sampled = [event async for event in stream if isinstance(event, Sampled)]
        assert len(sampled) == NUM_SAMPLED

    async def way(prompts: list[list[int]]) -> None:
        await asyncio.gather(*(one(ids) for ids in prompts))

    return way


async def measure(rounds: int, seconds: float) -> dict[tuple[str, int, int], list[float]]:
    """Tokens per second by (way, threads, batch)."""
    results: dict[tuple[str, int, int], list[float]] = {}
    deadline = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = save_model(folder)
        managers: list[ContinuousBatchingManager] = []
        ways: list[tuple[str, int, Way]] = []
        engines: list[Frontend] = []
        for threads in THREADS:
            config = EngineConfig(precision="fp32", num_threads=threads)
            engines += [
                await LocalEngine.start(folder, config),
                await LocalProcessEngine.start(folder, config),
            ]
            batched, manager = continuous(save_model(folder), threads)
            managers.append(manager)
            ways += [
                ("transformers generate()", threads, generate(model, threads)),
                ("transformers continuous batching", threads, batched),
                ("agentrl, thread", threads, ours(engines[-2])),
                ("agentrl, child process", threads, ours(engines[-1])),
            ]
        for count in range(rounds + 1):
            if time.monotonic() > deadline and count > 2:
                break
            prompts = torch.randint(0, VOCAB, (max(BATCHES), NUM_PROMPT)).tolist()
            for batch in BATCHES:
                for way, threads, run in ways:
                    begin = time.perf_counter()
                    await run(prompts[:batch])
                    rate = batch * NUM_SAMPLED / (time.perf_counter() - begin)
                    if count:
                        results.setdefault((way, threads, batch), []).append(rate)
        for engine in engines:
            await engine.aclose()
        for manager in managers:
            manager.stop(block=True)
    return results


def show(results: dict[tuple[str, int, int], list[float]]) -> None:
    console = Console(width=110)
    rounds = len(next(iter(results.values())))
    table = Table(
        title=f"tokens/s, median of {rounds} rounds (best); {torch.__version__}, log-probs included"
    )
    table.add_column("way")
    for threads in THREADS:
        for batch in BATCHES:
            table.add_column(f"{threads} thr, batch {batch}", justify="right")
    names = list(dict.fromkeys(way for way, _, _ in results))
    for way in names:
        cells = [results[way, threads, batch] for threads in THREADS for batch in BATCHES]
        table.add_row(way, *(f"{statistics.median(cell):.0f} ({max(cell):.0f})" for cell in cells))
    console.print(table)

    def at_best(way: str, batch: int) -> float:
        return max(max(results[way, threads, batch]) for threads in THREADS)

    floors = [(names[0], 1, 1.0), (names[0], 16, 1.0), (names[1], 16, 1.5)]
    for way in names[2:]:
        for rival, batch, floor in floors:
            ratio = at_best(way, batch) / at_best(rival, batch)
            mark = "ok" if ratio >= floor else "BELOW THE FLOOR"
            console.print(f"{way}, batch {batch}: {ratio:.2f}x {rival} (at least {floor}x): {mark}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=150.0)
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    show(asyncio.run(measure(arguments.rounds, arguments.seconds)))


if __name__ == "__main__":
    main()
