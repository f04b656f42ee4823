"""`python -m bench.losses`: losses over a large vocabulary, ours beside TRL's, Liger's and the naive one.

Each figure of memory or time comes from a process of its own. Extra memory is the growth of its high-water mark of
resident memory during forward and backward pass, less the gradients of hidden states and head; time is processor time
of all threads, since the machine may be shared. Liger is not a dependency (it asks for triton, which its losses for the
CPU do not use): `pip install --no-deps liger-kernel` adds its rows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from agentrl.losses.objective import Denominators, LossBatch, objective
from agentrl.recipes.recipe import Recipe

BETAS = {"fkl": 0.0, "rkl": 1.0, "jsd": 0.5}
ON_POLICY = {"limits": {"max_version_lag": 0, "max_logprob_gap": 1e9}}
SETTINGS: dict[str, dict[str, Any]] = {
    "fkl": {"divergence": "fkl"},
    "rkl": {"divergence": "rkl"},
    "jsd": {"divergence": {"name": "jsd", "beta": 0.5}},
    "topk": {
        "divergence": {"name": "jsd", "beta": 0.5},
        "estimator": {"name": "topk", "k": 100, "support": "student", "tail": "bucket"},
    },
    "pg": {"divergence": "rkl", "estimator": "pg", "offpolicy": "none"} | ON_POLICY,
}
Sides = tuple[Tensor, Tensor, Tensor, Tensor]
"""hidden [N, H], head [V, H], the teacher's hidden states [N, H] and head [V, H]."""


def ours(loss: str, sides: Sides) -> Tensor:
    """The mean over positions by `objective`, on fp32 states as the learner gives them."""
    hidden, head, teacher_hidden, teacher_head = (side.float() for side in sides)
    rows = hidden.shape[0]
    recipe = Recipe.model_validate(
        {"name": loss, "context": "hindsight_hint", "teacher": "self", "mix": "kd"} | SETTINGS[loss]
    )
    batch = LossBatch(
        hidden=hidden,
        head=head,
        token_ids=torch.arange(rows) % head.shape[0],
        sequence=torch.zeros(rows, dtype=torch.long),
        teacher_hidden=teacher_hidden,
        teacher_head=teacher_head,
    )
    whole = Denominators(
        kd_tokens=rows, kd_sequences=1, rl_tokens=0, rl_sequences=0, tokens=rows, sequences=1, episodes=1
    )
    return objective(recipe, batch, whole).loss


def trl(loss: str, sides: Sides) -> Tensor:
    """TRL's divergence in tiles of 4,096 positions by 32,768 ids."""
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    hidden, head, teacher_hidden, teacher_head = sides
    mask = torch.ones(1, hidden.shape[0])
    value, _, _ = _chunked_divergence_loss(
        hidden[None], teacher_hidden[None], head, teacher_head, mask, BETAS[loss]
    )
    return value


def liger(loss: str, sides: Sides) -> Tensor:
    """Liger's, uncompiled, in chunks of 128 positions (its default of 1,024 takes eight times as much)."""
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    hidden, head, teacher_hidden, teacher_head = sides
    function = LigerFusedLinearJSDLoss(
        weight_hard_loss=0.0, weight_soft_loss=1.0, beta=BETAS[loss], compiled=False, chunk_size=128
    )
    return function(
        hidden, head, teacher_hidden, teacher_head, torch.zeros(hidden.shape[0], dtype=torch.long)
    )


def naive(loss: str, sides: Sides) -> Tensor:
    """All logits at once, in the type of the inputs (at least fp32 in the softmax)."""
    hidden, head, teacher_hidden, teacher_head = sides
    wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    log_p = torch.log_softmax(F.linear(hidden, head), dim=-1, dtype=wide)
    log_q = torch.log_softmax(F.linear(teacher_hidden, teacher_head), dim=-1, dtype=wide)
    if loss == "fkl":
        return F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)
    if loss == "rkl":
        return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    log_m = torch.logaddexp(log_p, log_q) - torch.log(torch.tensor(2.0, dtype=wide))
    return 0.5 * sum(F.kl_div(log_m, side, reduction="batchmean", log_target=True) for side in (log_p, log_q))


METHODS: dict[str, Callable[[str, Sides], Tensor]] = {
    "agentrl": ours,
    "TRL": trl,
    "Liger": liger,
    "naive": naive,
}


def methods() -> list[str]:
    wanted = {"TRL": "trl", "Liger": "liger_kernel"}
    return [name for name in METHODS if name not in wanted or find_spec(wanted[name]) is not None]


def inputs(rows: int, vocab: int, width: int, *, near: float, trained: bool = True) -> Sides:
    """A policy with an entropy of some nats and a teacher whose states differ by `near` standard deviations."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, width, generator=generator)
    head = torch.randn(vocab, width, generator=generator) * (2.0 / width**0.5)
    teacher_hidden = hidden + near * torch.randn(rows, width, generator=generator)
    return hidden.requires_grad_(), head.requires_grad_(trained), teacher_hidden, head.detach()


def status(name: str) -> int:
    """Bytes, of this process."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))


def measure(method: str, loss: str, rows: int, vocab: int, width: int, trained: bool) -> dict[str, float]:
    """In this process: MiB beyond the gradients, and seconds."""
    torch.set_num_threads(2)
    METHODS[method](loss, inputs(8, 256, 8, near=0.5, trained=trained)).backward()  # loads code
    sides = inputs(rows, vocab, width, near=0.5, trained=trained)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the high-water mark starts anew
    before = status("VmRSS")
    wall, processor = time.monotonic(), time.process_time()
    METHODS[method](loss, sides).backward()
    wall, processor = time.monotonic() - wall, time.process_time() - processor
    gradients = sum(side.grad.nbytes for side in sides[:2] if side.grad is not None)
    return {
        "extra_mib": (status("VmHWM") - before - gradients) / 2**20,
        "processor_s": processor,
        "wall_s": wall,
    }


def isolated(method: str, loss: str, rows: int, vocab: int, width: int, trained: bool) -> dict[str, float]:
    """`measure` in a process of its own."""
    given = json.dumps([method, loss, rows, vocab, width, trained])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "bench.losses", "--one", given],
        # Every larger array is mapped by itself: the figure is what lives, not what glibc's heap keeps of the dead.
        env=os.environ | {"TRL_EXPERIMENTAL_SILENCE": "1", "MALLOC_MMAP_THRESHOLD_": str(2**20)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{method} {loss} failed: {done.stderr[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def costs(
    cases: Sequence[tuple[str, str]], rows: int, vocab: int, width: int, *, trained: bool = True
) -> None:
    print(
        f"\n{rows:,} positions, vocabulary {vocab:,}, width {width}, fp32, head "
        f"{'trained' if trained else 'frozen'}\n"
    )
    print("| method | loss | extra memory, MiB | processor, s | wall, s |\n|---|---|---|---|---|")
    for method, loss in cases:
        found = isolated(method, loss, rows, vocab, width, trained)
        print(
            f"| {method} | {loss} | {found['extra_mib']:,.0f} | {found['processor_s']:.1f} | "
            f"{found['wall_s']:.1f} |",
            flush=True,
        )


def error(method: str, loss: str, near: float, dtype: torch.dtype) -> tuple[float, float]:
    """Largest difference of the gradients (in hidden states, in the head) from fp64 on the same numbers, relative to
    their largest entry."""
    rounded = [side.detach().to(dtype) for side in inputs(64, 8192, 256, near=near)]

    def gradients(name: str, kind: torch.dtype) -> list[Tensor]:
        sides = [side.to(kind) for side in rounded]
        leaves = [side.requires_grad_() for side in sides[:2]]
        return list(torch.autograd.grad(METHODS[name](loss, tuple(sides)), leaves))

    exact = gradients("naive", torch.float64)
    found = gradients(method, dtype)
    return tuple(
        ((own.double() - true).norm() / true.norm()).item() if dtype == torch.bfloat16
        else ((own.double() - true).abs().max() / true.abs().max()).item()
        for own, true in zip(found, exact, strict=True)
    )  # fmt: skip


def errors() -> None:
    print(
        "\nError of the gradients against fp64 on the same numbers, 64 positions, vocabulary 8,192, width 256: hidden "
        "states / head.\nfp32: largest difference over largest entry. bf16 inputs: norm of the difference over norm.\n"
    )
    print("| method | loss | fp32, far | fp32, near | bf16, far | bf16, near |\n|---|---|---|---|---|---|")
    for loss in BETAS:
        for method in methods():
            cells = [
                " / ".join(f"{part:.1e}" for part in error(method, loss, near, dtype))
                for dtype in (torch.float32, torch.bfloat16)
                for near in (0.5, 0.04)
            ]
            print(f"| {method} | {loss} | {' | '.join(cells)} |", flush=True)
    for near in (0.5, 0.04):
        value = naive("rkl", tuple(side.double() for side in inputs(64, 8192, 256, near=near))).item()
        print(f"\n{'far' if near == 0.5 else 'near'}: KL(π‖q) = {value:.4f} nats")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument(
        "--full", action="store_true", help="32,768 positions of a vocabulary of 151,936: half an hour"
    )
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*json.loads(arguments.one))))
        return 0
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    errors()
    compared = [(method, loss) for loss in BETAS for method in methods()]
    costs([*compared, ("agentrl", "topk"), ("agentrl", "pg")], 512, 32768, 256)
    large = [(method, "jsd") for method in methods() if method != "naive"]
    costs(large, 512, 151_936, 256)
    # As many ids a chunk and all positions: what grows with positions alone.
    costs([("agentrl", "jsd")], 32768, 1024, 256)
    if arguments.full:
        costs([("agentrl", "jsd")], 32768, 151_936, 256)
    return 0


if __name__ == "__main__":
    sys.exit(main())
