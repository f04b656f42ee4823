"""Turns of one conversation trained as one tree, against one row a turn.

    python -m bench.tree [--scale 25]

Ids are counted for conversations of full length, with room for the whole tree in one micro batch and within the
default limit. Time is measured on the same conversations with every length divided
by `--scale`, so that two cores can compute one row a turn at all; forward and backward pass of the policy, and the
forward pass of a teacher whose block stands at the tail of every turn. Both sides run once, after one another; random
weights cost what trained ones cost.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from agentrl.learner.model import PolicyModel, load_policy
from agentrl.learner.pack import MicroBatch, Row, Sharing, pack

VOCAB = 1024
MAX_TOKENS = 8192


class Shape(NamedTuple):
    """Lengths in ids."""

    turns: int
    prompt: int
    response: int
    observation: int

    def divided(self, scale: int) -> Shape:
        return Shape(self.turns, *(max(1, length // scale) for length in self[1:]))


SHAPES = (Shape(10, 2000, 300, 500), Shape(50, 6000, 250, 1200), Shape(100, 8000, 250, 1200))
BLOCK = 200
"""Ids of the teacher's block, before scaling."""


def conversation(shape: Shape, *, block: int = 0, rewrite_every: int = 0) -> list[Row]:
    """One row a turn, its response trained.

    Args:
        block: ids of a block of its own before each response, which later turns do not keep.
        rewrite_every: after so many turns the client replaces the last observation: the history forks.
    """
    draw = random.Random(0)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(VOCAB) for _ in range(count))

    history, rows = ids(shape.prompt), []
    for number in range(shape.turns):
        start = history + ids(block)
        said = ids(shape.response)
        rows.append(Row(token_ids=start + said, positions=tuple(range(len(start), len(start + said)))))
        history += said + ids(shape.observation)
        if rewrite_every and number % rewrite_every == rewrite_every - 1:
            history = history[: -shape.observation - shape.response // 2] + ids(shape.observation)
    return rows


def small_model(folder: Path) -> PolicyModel:
    config = Qwen3Config(
        vocab_size=VOCAB, hidden_size=192, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=48, max_position_embeddings=32_768, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return load_policy(folder, device="cpu", precision="fp32", lora_rank=0, seed=0)


def run(
    policy: PolicyModel, rows: Sequence[Row], share: Sharing, *, backward: bool
) -> tuple[float, torch.Tensor]:
    """Seconds, packing included, and the gradient of the sum of the trained ids' log-probs; without backward pass,
    the hidden states' sum."""
    wanted = torch.tensor([row.token_ids[position] for row in rows for position in row.positions])
    begin = time.perf_counter()
    found = torch.zeros(())
    with torch.set_grad_enabled(backward):
        for micro in packed(policy, rows, share, roomy=not backward):
            hidden = policy(micro)
            if backward:
                logprobs = (hidden @ policy.head().T).log_softmax(-1)
                logprobs.gather(1, wanted[micro.slots, None]).sum().backward()
            else:
                found += hidden.sum()
    took = time.perf_counter() - begin
    if backward:
        found = torch.cat([parameter.grad.flatten() for parameter in policy.trained.values()])
        for parameter in policy.trained.values():
            parameter.grad = None
    return took, found


def packed(policy: PolicyModel, rows: Sequence[Row], share: Sharing, *, roomy: bool) -> list[MicroBatch]:
    """`roomy`: with room for twice the longest row, as the learner gives every pass without gradient."""
    room = max(MAX_TOKENS, 2 * max(len(row.token_ids) for row in rows)) if roomy else MAX_TOKENS
    return pack(rows, max_tokens=room, share=share, pairs_per_id=policy.pairs_per_id)


def ids_of(micros: Sequence[MicroBatch]) -> int:
    return sum(micro.num_ids for micro in micros)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=int, default=25)
    scale = parser.parse_args().scale
    torch.set_num_threads(1)
    print("| pass | turns | prompt / response / observation | ids in rows | ids computed | ratio | "
          f"with micro_tokens = {MAX_TOKENS} | lengths measured | one row a turn, s | tree, s | ratio | "
          "largest difference of gradients, of their maximum norm |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        policy = small_model(Path(folder))
        run(policy, conversation(SHAPES[0].divided(scale)), "tree", backward=True)  # warm
        for name, block, rewrite_every in (
            ("policy", 0, 0),
            ("rewritten", 0, 5),
            ("teacher, tail", BLOCK, 0),
        ):
            backward = block == 0
            for shape in SHAPES:
                full = conversation(shape, block=block, rewrite_every=rewrite_every)
                in_rows = sum(len(row.needed) for row in full)
                computed = ids_of(packed(policy, full, "tree", roomy=True))
                limited = ids_of(packed(policy, full, "tree", roomy=not backward))
                part = shape.divided(scale)
                rows = conversation(part, block=block // scale, rewrite_every=rewrite_every)
                alone_s, expected = run(policy, rows, "none", backward=backward)
                tree_s, found = run(policy, rows, "tree", backward=backward)
                difference = float((found - expected).abs().max() / expected.abs().max())
                off = f"{difference:.0e}" if backward else ""
                cells = [
                    name, part.turns, " / ".join(map(str, shape[1:])), f"{in_rows:,}", f"{computed:,}",
                    f"{in_rows / computed:.1f}", f"{in_rows / limited:.1f}", " / ".join(map(str, part[1:])),
                    f"{alone_s:.2f}", f"{tree_s:.2f}", f"{alone_s / tree_s:.1f}", off,
                ]  # fmt: skip
                print("|", " | ".join(map(str, cells)), "|", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
