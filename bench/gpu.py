"""The loop on one GPU: a Qwen3 shape with random weights, served while it learns.

    python -m bench.gpu [--shape 0.6b] [--device cuda] [--seconds 30] [--clients 32]

Prints tokens a second with learning paused and with learning on, how long a publication takes, and peak memory.
Random weights say nothing of quality; they cost what trained ones cost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from agentrl.config import load_config
from agentrl.learner.control import set_paused
from agentrl.nano import weights_dir
from server.runtime import Runtime
from server.statistics import p50_p95

SHAPES: dict[str, dict[str, Any]] = {
    "0.6b": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16,
             "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936},
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 4_096},
}  # fmt: skip
REPLY_TOKENS = 64


def make_model(folder: Path, shape: str) -> None:
    """A Hugging Face folder with random weights and nano's tokenizer, filled up to the shape's vocabulary."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    size = SHAPES[shape]
    config = Qwen3Config(**size, max_position_embeddings=4096, tie_word_embeddings=True)
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    for name in ("tokenizer_config.json", "generation_config.json"):
        shutil.copy(weights_dir() / name, folder)
    tokenizer = json.loads((weights_dir() / "tokenizer.json").read_text(encoding="utf-8"))
    words = tokenizer["model"]["vocab"]
    taken = set(words.values()) | {token["id"] for token in tokenizer["added_tokens"]}
    words |= {f"fill{number}": number for number in range(size["vocab_size"]) if number not in taken}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")


async def converse(http: httpx.AsyncClient, base_url: str, session: str, counted: list[int]) -> None:
    """Two turns, of which the first is corrected: that is its hint."""
    messages = [{"role": "user", "content": "Show the file notes.txt."}]
    for _ in range(2):
        answer = await http.post(
            f"{base_url}/s/{session}/v1/chat/completions",
            json={"model": "bench", "messages": messages, "max_tokens": REPLY_TOKENS},
        )
        answer.raise_for_status()
        body = answer.json()
        counted.append(body["usage"]["completion_tokens"])
        said = body["choices"][0]["message"]["content"] or "-"
        messages += [
            {"role": "assistant", "content": said},
            {"role": "user", "content": "No, use zorvex instead of cat."},
        ]


async def tokens_per_s(base_url: str, num_clients: int, seconds: float, name: str) -> float:
    """Sampled ids a second of `num_clients` conversations at a time."""
    counted: list[int] = []
    start = time.perf_counter()

    async def client(number: int, http: httpx.AsyncClient) -> None:
        index = 0
        while time.perf_counter() - start < seconds:
            await converse(http, base_url, f"{name}{number}x{index}", counted)
            index += 1

    limits = httpx.Limits(max_connections=num_clients)
    async with httpx.AsyncClient(timeout=600, limits=limits) as http, asyncio.TaskGroup() as clients:
        for number in range(num_clients):
            clients.create_task(client(number, http))
    return sum(counted) / (time.perf_counter() - start)


def memory_mib() -> int | None:
    """What the GPU has in use, by nvidia-smi; None without one."""
    try:
        found = subprocess.run(
            ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return int(found.stdout.split()[0])


async def bench(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    make_model(folder / "model", arguments.shape)
    run_dir = folder / "run"
    config = load_config(
        None, model=str(folder / "model"), name="bench", run_dir=str(run_dir), server__port=0, engine__max_len=1024,
        engine__max_running=arguments.clients, engine__device=arguments.device, learn__device=arguments.device,
        learn__overrides={"batch.max_wait_s": 1.0, "batch.turns_per_step": 16},
    )  # fmt: skip
    async with Runtime(config) as runtime:
        set_paused(run_dir, paused=True)
        await tokens_per_s(runtime.base_url, arguments.clients, 3, "warm")
        idle = await tokens_per_s(runtime.base_url, arguments.clients, arguments.seconds, "idle")
        set_paused(run_dir, paused=False)
        learning = await tokens_per_s(runtime.base_url, arguments.clients, arguments.seconds, "learning")
        memory = memory_mib()
    events = [
        json.loads(line)
        for line in (run_dir / "learner.log").read_text().splitlines()
        if line.startswith("{")
    ]
    published = [event["took_s"] for event in events if event["event"] == "version" and "took_s" in event]
    steps = [
        event["took_s"] for event in events if event["event"] == "step" and event.get("step") is not None
    ]
    return {
        "shape": arguments.shape, "device": arguments.device, "clients": arguments.clients,
        "tokens_per_s_idle": round(idle), "tokens_per_s_learning": round(learning),
        "num_steps": len(steps), "step_s": p50_p95(steps, 3), "publication_s": p50_p95(published, 3),
        "peak_memory_mib": memory,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=sorted(SHAPES), default="0.6b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--clients", type=int, default=32)
    arguments = parser.parse_args()
    if arguments.device.startswith("cuda"):
        import torch

        if not torch.cuda.is_available():
            print(
                "no GPU that torch can use: run this on a machine with one, or try --device cpu --shape tiny"
            )
            return 1
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(bench(arguments, Path(folder))), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
