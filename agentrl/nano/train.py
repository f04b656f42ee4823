"""Train nano from nothing: `python -m agentrl.nano.train --out DIR --seed 0`.

Everything follows the number of steps and nothing the clock, so that a run on a busy machine takes longer and learns
the same. What is kept is a moving average of the weights: the single steps differ by chance in which of several right
commands they prefer. Every few hundred steps a usable Hugging Face folder and the state to resume from replace the
earlier ones.
"""

import argparse
import json
import math
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import distributed
from torch.multiprocessing.spawn import spawn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import Qwen3Config, Qwen3ForCausalLM

from agentrl.nano import corpus, mixture, tokenizer, vocabulary
from agentrl.nano.encoding import Encoder, Example

_AVERAGED = 0.999  # of the average stays at each step: about the last thousand steps count
_POOL = 1_500  # examples drawn at a time, then cut into batches of like length


def config(vocabulary_size: int, ids: dict[str, int]) -> Qwen3Config:
    """The shape of nano: about two million parameters."""
    return Qwen3Config(
        vocab_size=vocabulary_size,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        bos_token_id=ids["<|endoftext|>"],
        eos_token_id=ids["<|im_end|>"],
        pad_token_id=ids["<|endoftext|>"],
    )


def token_weights(tokens: Tokenizer) -> torch.Tensor:
    """Loss weight of each target id: the wrapper of a call is soon certain and would drown the command in it."""
    weights = torch.ones(tokens.get_vocab_size())
    for text in (
        "\n",
        tokenizer.CALL_OPENING,
        tokenizer.CALL_CLOSING,
        "</tool_call>",
        "<tool_call>",
        "<|im_end|>",
    ):
        (index,) = tokens.encode(text, add_special_tokens=False).ids
        weights[index] = 0.25
    weights[tokens.token_to_id("<|endoftext|>")] = 0.0
    return weights


def _rounded(number: int, step: int) -> int:
    return -(-number // step) * step


def collate(
    rows: list[tuple[list[int], list[bool]]], pad: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Input ids [batch, length], flat positions whose next token is learned, and those next tokens.

    Rows are padded on the right: under causal attention no real token sees the padding, so no attention mask is needed.
    Both outputs are rounded up to few different shapes, each of which costs the matrix library a set-up; the target of
    a position that only fills up is the padding token.
    """
    length = _rounded(max(len(ids) for ids, _ in rows) - 1, 16)
    inputs = torch.full((len(rows), length), pad)
    positions: list[int] = []
    targets: list[int] = []
    for row, (ids, mask) in enumerate(rows):
        inputs[row, : len(ids) - 1] = torch.tensor(ids[:-1])
        learned = [index for index, learn in enumerate(mask) if learn]
        positions += [row * length + index - 1 for index in learned]
        targets += [ids[index] for index in learned]
    filling = _rounded(len(targets), 128) - len(targets)
    positions += [0] * filling
    targets += [pad] * filling
    return inputs, torch.tensor(positions), torch.tensor(targets)


def batches(
    rng: random.Random, encoder: Encoder, tokens: int, draw: Callable[[random.Random], Example]
) -> Iterator[list[tuple[list[int], list[bool]]]]:
    """Endless batches of encoded examples of like length, each of at most `tokens` ids."""
    while True:
        pool = sorted((encoder.encode(draw(rng)) for _ in range(_POOL)), key=lambda row: len(row[0]))
        cut: list[list[tuple[list[int], list[bool]]]] = [[]]
        for row in pool:
            if _rounded(len(row[0]) - 1, 16) * (len(cut[-1]) + 1) > tokens:
                cut.append([])
            cut[-1].append(row)
        rng.shuffle(cut)
        yield from cut


def learned_logits(model: Qwen3ForCausalLM, inputs: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Logits [learned positions, vocabulary] in fp32; the others are never computed."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.model(input_ids=inputs, use_cache=False).last_hidden_state
        logits: torch.Tensor = model.lm_head(hidden.flatten(0, 1)[positions])
    return logits.float()


@torch.no_grad()
def exact_match(model: Qwen3ForCausalLM, encoder: Encoder, examples: list[Example], pad: int) -> float:
    """Share of examples whose learned tokens are all the most probable ones."""
    rows = [encoder.encode(example) for example in examples]
    inputs, positions, targets = collate(rows, pad)
    right = (learned_logits(model, inputs, positions).argmax(-1) == targets) | (targets == pad)
    owner = positions // inputs.shape[1]
    wrong = {int(row) for row, good in zip(owner, right, strict=True) if not good}
    return 1 - len(wrong) / len(rows)


def probes(seed: int, number: int = 64) -> dict[str, list[Example]]:
    """Examples with one right answer: a hint alone, one of three hints, an error, the usual command."""
    rng = random.Random(seed)
    open_ended = tuple(way + " " for operation in vocabulary.OPERATIONS for way in operation.alternatives)
    sets: dict[str, list[Example]] = {
        "usual": [],
        "hint": [],
        "three": [],
        "refused": [],
        "remembered": [],
    }
    while min(map(len, sets.values())) < number:
        example = mixture.example(rng)
        hints = sum(block.text.count("Hint: ") + block.text.count("Skill: ") for block in example.blocks)
        key = {"plain": "usual", "hinted": "hint" if hints == 1 else "three" if hints == 3 else ""}.get(
            example.kind, example.kind
        )
        if key not in sets or len(sets[key]) >= number:
            continue
        calls = [index for index, message in enumerate(example.messages) if message.get("tool_calls")]
        last = calls[{"refused": 1, "remembered": -1}.get(key, 0)]
        line = json.loads(example.messages[last]["tool_calls"][0]["function"]["arguments"])["command"]
        if key in ("usual", "remembered") and any(line.startswith(several) for several in open_ended):
            continue
        cut = example.messages[: last + 1]
        sets[key].append(
            Example(
                kind=key, messages=cut, tools=example.tools, blocks=example.blocks, trained=frozenset({last})
            )
        )
    return sets


def save(model: Qwen3ForCausalLM, tokens: Tokenizer, folder: Path) -> None:
    """Write the Hugging Face folder file by file, each one replaced at once."""
    draft = folder.with_name(folder.name + ".draft")
    model.save_pretrained(draft)
    tokenizer.save(tokens, draft)
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(draft.iterdir()):
        os.replace(path, folder / path.name)
    draft.rmdir()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the command line asks for; `tokens` are ids per step and process, `rate` is the peak learning rate."""

    out: Path
    steps: int
    first_lessons: int
    seed: int
    processes: int
    threads: int
    rate: float
    tokens: int
    resume: Path | None


def average(model: Qwen3ForCausalLM, processes: int) -> None:
    """Average gradients over the processes, so that all take the same step."""
    if processes == 1:
        return
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients]) / processes
    distributed.all_reduce(flat)
    parts = torch.split(flat, [gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def train(rank: int, plan: Plan, meeting: str) -> None:
    """Run the training in one of the processes; the first one reports and leaves the weights in `plan.out`."""
    if plan.processes > 1:
        distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=plan.processes)
    torch.set_num_threads(plan.threads)
    torch.manual_seed(plan.seed)
    tokens = tokenizer.build()
    ids = tokenizer.control_ids(tokens)
    pad = ids["<|endoftext|>"]
    model = Qwen3ForCausalLM(config(tokens.get_vocab_size(), ids))
    # On the CPU the backward pass of fused attention is several times slower than two small matrix products.
    model.set_attn_implementation("eager")
    decayed = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    plain = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": 0.05},
        {"params": plain, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.97), eps=1e-8)
    moving = get_ema_multi_avg_fn(_AVERAGED)  # type: ignore[no-untyped-call]
    averaged = AveragedModel(model, multi_avg_fn=moving)
    step = 0
    if plan.resume is not None:
        state = torch.load(plan.resume, weights_only=True)
        model.load_state_dict(state["model"])
        averaged.load_state_dict(state["averaged"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    # A resumed run draws new examples rather than those already seen.
    rng = random.Random(f"{plan.seed} {step} {rank}")
    encoder = Encoder(tokens)
    weights = token_weights(tokens)
    held_out = probes(seed=999_983) if rank == 0 else {}
    lessons = [batches(rng, encoder, plan.tokens, draw) for draw in (corpus.short, mixture.example)]
    if rank == 0:
        print(
            json.dumps({"parameters": model.num_parameters(), "vocabulary": tokens.get_vocab_size()}),
            flush=True,
        )
    began, seen, total, total_weight = time.monotonic(), 0, 0.0, 0.0
    while step < plan.steps:
        share = step / plan.steps
        rate = plan.rate * min(1.0, (step + 1) / 200) * (0.04 + 0.96 * 0.5 * (1 + math.cos(math.pi * share)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        rows = next(lessons[step >= plan.first_lessons])
        inputs, positions, targets = collate(rows, pad)
        losses = torch.nn.functional.cross_entropy(
            learned_logits(model, inputs, positions), targets, reduction="none"
        )
        weight = weights[targets]
        loss = (losses * weight).sum() / weight.sum()
        torch.autograd.backward(loss)
        average(model, plan.processes)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step, seen = step + 1, seen + len(rows) * plan.processes
        total, total_weight = (
            total + float((losses.detach() * weight).sum()),
            total_weight + float(weight.sum()),
        )
        if rank > 0:
            continue
        averaged.update_parameters(model)
        if step % 250 == 0:
            figures = {
                key: round(exact_match(averaged.module, encoder, examples, pad), 3)
                for key, examples in held_out.items()
            }
            minutes = round((time.monotonic() - began) / 60, 2)
            line = {"minutes": minutes, "step": step, "examples": seen, "lr": round(rate, 6)}
            print(json.dumps(line | {"loss": round(total / total_weight, 4)} | figures), flush=True)
            total, total_weight = 0.0, 0.0
        if step % 500 == 0 or step == plan.steps:
            save(averaged.module, tokens, plan.out)
            draft = plan.out.with_name(plan.out.name + ".state.pt.draft")
            torch.save(
                {
                    "model": model.state_dict(),
                    "averaged": averaged.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step,
                },
                draft,
            )
            os.replace(draft, plan.out.with_name(plan.out.name + ".state.pt"))
    if plan.processes > 1:
        distributed.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the weights; the state stands beside it"
    )
    parser.add_argument("--steps", type=int, default=20_000, help="an hour or more on two idle cores")
    parser.add_argument(
        "--first-lessons", type=int, default=4_000, help="steps on short examples at the start"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2, help="each works on batches of its own")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--tokens", type=int, default=2_048, help="ids per step and process")
    parser.add_argument("--resume", type=Path, help="a state file of an earlier run with the same vocabulary")
    plan = Plan(**vars(parser.parse_args()))
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{folder}/meeting"
        if plan.processes == 1:
            train(0, plan, meeting)
        else:
            spawn(train, args=(plan, meeting), nprocs=plan.processes)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
