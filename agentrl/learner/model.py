"""The policy as the trainer calls it: hidden states of chosen positions, and the output matrix beside them.

A Hugging Face causal LM is taken apart into its body (ids -> hidden states) and its head (hidden states -> logits), so
that logits are made only where something is trained, in chunks, in fp32. Weights are held in fp32; bf16 means autocast.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.utils.logging import disable_progress_bar

from agentrl.config import Precision
from agentrl.errors import ConfigError, ModelError
from agentrl.learner.pack import Bucket, MicroBatch

NumberType = Literal["fp32", "bf16"]


class PolicyModel(nn.Module):
    """A causal LM with full or LoRA weights. `trained` maps the names of trained tensors to them, in a fixed order."""

    def __init__(self, lm: nn.Module, *, precision: NumberType, lora: bool) -> None:
        super().__init__()
        self.lm = lm
        self.precision = precision
        self.lora = lora
        self.trained: dict[str, nn.Parameter] = {
            name: parameter for name, parameter in lm.named_parameters() if parameter.requires_grad
        }
        self.shares_prefix = False
        """Whether a prefix's keys and values may be computed once for many rows."""
        base: Any = cast(Any, lm).get_base_model() if lora else lm
        self._causal_lm = [base]  # in a list: a second registration would double every name
        self.attention: str = base.config._attn_implementation
        head_weight = base.get_output_embeddings().weight
        self._head_name = next(name for name, tensor in lm.named_parameters() if tensor is head_weight)
        self._head = [head_weight]

    @property
    def device(self) -> torch.device:
        return cast(torch.device, self._head[0].device)

    @property
    def config(self) -> Any:
        return self._causal_lm[0].config

    @property
    def causal_lm(self) -> Any:
        """The Hugging Face model itself, adapters included."""
        return self._causal_lm[0]

    def head(self, tensors: Mapping[str, Tensor] | None = None) -> Tensor:
        """[V, H] the output matrix; of `tensors` where it is among them."""
        if tensors is not None and self._head_name in tensors:
            return tensors[self._head_name]
        return cast(Tensor, self._head[0])

    def forward(self, micro: MicroBatch) -> Tensor:
        """[n, H] fp32 hidden states, after the last norm, that predict the micro batch's trained ids."""
        body = self.causal_lm.get_decoder()
        parts = []
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            prefix = None
            if len(micro.prefix):
                prefix = DynamicCache(config=self.config)
                body(input_ids=micro.prefix[None], past_key_values=prefix, use_cache=True)
            for bucket in micro.buckets:
                cache = None if prefix is None else _repeated(prefix, len(bucket.rest), self.config)
                output = body(input_ids=bucket.rest, past_key_values=cache, use_cache=cache is not None)
                parts.append(output.last_hidden_state.flatten(0, 1).index_select(0, bucket.gather))
        return torch.cat(parts).float()

    def hidden_with(self, micro: MicroBatch, tensors: Mapping[str, Tensor] | None) -> Tensor:
        """`forward` with other tensors in the place of the trained ones; None = with the trained ones."""
        if tensors is None:
            return cast(Tensor, self(micro))
        named = {f"lm.{name}": tensor for name, tensor in tensors.items()}
        return cast(Tensor, functional_call(self, named, (micro,)))

    @contextmanager
    def adapter_off(self) -> Iterator[None]:
        """The base model without its adapter; with full weights there is none to take off."""
        assert self.lora, "only a LoRA policy has an adapter"
        with cast(Any, self.lm).disable_adapter():
            yield


def load_policy(path: Path, *, device: str, precision: Precision, lora_rank: int, seed: int) -> PolicyModel:
    """Loads a Hugging Face folder for training.

    Raises:
        ModelError: the folder holds no causal LM, or its head is more than a product with a matrix.
        ConfigError: the device is not there.
    """

    if not (path / "config.json").is_file():
        raise ModelError(f"{path} is not a model folder: it has no config.json")
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"learn.device = {device!r} cannot be used: {error}") from error
    disable_progress_bar()  # the learner's output is read line by line
    try:
        lm = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be loaded as a causal LM: {error}") from error
    # eval mode for good: no dropout, so that policy, teacher and engine compute the same function of the ids
    lm = lm.eval().requires_grad_(requires_grad=lora_rank == 0)
    if lora_rank:
        lm = _with_adapter(lm, lora_rank, seed)
    lm = lm.to(target)
    policy = PolicyModel(lm, precision="fp32", lora=lora_rank > 0)
    _check_head(policy, path)
    policy.shares_prefix = _can_share_prefix(policy)
    set_precision(policy, precision)
    return policy


def set_precision(policy: PolicyModel, precision: Precision) -> None:
    """Sets the number type of the forward pass; "auto" takes the faster one by a short measurement."""
    chosen: NumberType = _faster(policy) if precision == "auto" else precision
    policy.precision = chosen
    # PyTorch's fused attention for CPUs has a slow bf16 backward pass; written out it takes half the time
    # of a whole step on a small model.
    written_out = chosen == "bf16" and policy.device.type == "cpu"
    policy.causal_lm.set_attn_implementation("eager" if written_out else policy.attention)


def _repeated(prefix: DynamicCache, times: int, config: Any) -> DynamicCache:
    """A cache of its own for `times` rows, each behind the prefix; gradients flow back into the prefix."""
    layers = [
        (layer.keys.expand(times, -1, -1, -1), layer.values.expand(times, -1, -1, -1))
        for layer in prefix.layers
    ]
    return DynamicCache(layers, config=config)


def _with_adapter(lm: nn.Module, rank: int, seed: int) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    # The adapter's A matrices are random: drawn from the run's seed, and the global generator is put back.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft asks transformers 5 for an attribute by its old name
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(seed)
        settings = LoraConfig(
            r=rank,
            lora_alpha=2 * rank,
            target_modules="all-linear",
            lora_dropout=0.0,
            bias="none",
            task_type="CAUSAL_LM",
        )
        return cast(nn.Module, get_peft_model(cast(Any, lm), settings)).eval()


def _probe_ids(policy: PolicyModel, length: int) -> Tensor:
    return (torch.arange(length, device=policy.device) * 7 + 1) % int(policy.config.vocab_size)


@torch.no_grad()
def _check_head(policy: PolicyModel, path: Path) -> None:
    """Losses multiply hidden states with the head's matrix; a soft cap, a scale or a bias would be missed."""
    ids = _probe_ids(policy, 8)[None]
    logits = policy.causal_lm(input_ids=ids, use_cache=False).logits
    hidden = policy.causal_lm.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    if not torch.allclose(hidden @ policy.head().T, logits, atol=1e-3, rtol=1e-3):
        raise ModelError(
            f"{path}: the logits of this architecture are not the product of its hidden states and its output "
            "matrix (a soft cap, a scale or a bias); such models cannot be trained here, serve it with "
            "--set learn.enabled=false"
        )


@torch.no_grad()
def _can_share_prefix(policy: PolicyModel) -> bool:
    """Whether rows behind a cached prefix have the hidden states of the rows alone. Compared, not assumed."""
    if any(type(layer) is not DynamicLayer for layer in DynamicCache(config=policy.config).layers):
        return False  # sliding windows and recurrent states depend on more than keys and values
    ids = _probe_ids(policy, 24)
    rest = torch.stack([ids[16:], ids[16:].flip(0)])
    everything = torch.arange(rest.numel(), device=policy.device)
    behind = MicroBatch(prefix=ids[:16], buckets=(Bucket(rest=rest, gather=everything),), slots=everything)
    whole = torch.cat([ids[:16].expand(2, -1), rest], dim=1)
    alone = policy.causal_lm.get_decoder()(input_ids=whole, use_cache=False).last_hidden_state[:, 16:]
    return torch.allclose(policy(behind), alone.flatten(0, 1), atol=1e-4, rtol=1e-3)


def _faster(policy: PolicyModel, budget_s: float = 1.0) -> NumberType:
    """The number type with the shorter forward and backward pass over 256 ids."""
    ids = _probe_ids(policy, 64).expand(4, -1).contiguous()
    everything = torch.arange(ids.numel(), device=policy.device)
    micro = MicroBatch(prefix=ids[0, :0], buckets=(Bucket(rest=ids, gather=everything),), slots=everything)
    times: dict[NumberType, float] = {}
    precisions: tuple[NumberType, NumberType] = ("fp32", "bf16")
    for precision in precisions:
        set_precision(policy, precision)
        deadline = time.perf_counter() + budget_s / 2
        best = float("inf")
        for _ in range(5):
            begin = time.perf_counter()
            policy(micro).pow(2).mean().backward()
            if policy.device.type == "cuda":
                torch.cuda.synchronize(policy.device)
            best = min(best, time.perf_counter() - begin)
            if time.perf_counter() > deadline:
                break
        times[precision] = best
        for parameter in policy.trained.values():
            parameter.grad = None
    return min(times, key=lambda name: times[name])
