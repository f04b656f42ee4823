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
from transformers.utils.logging import disable_progress_bar

from agentrl.config import Precision
from agentrl.errors import ConfigError, ModelError
from agentrl.learner.pack import Bucket, MicroBatch, Padding, Sharing
from agentrl.learner.sharing import sharing_of
from agentrl.learner.tree_attention import tree_mask

NumberType = Literal["fp32", "bf16"]
FIRST_ADAPTER = "default"
"""peft's own name for the adapter that a model gets first."""

WRITTEN_OUT_COST = 6.0
"""How much slower a multiplication of written-out attention is than one of the weights, which fused attention equals:
its scores go through memory. Two for 500 ids, ten for 2,000."""

COMPILED_WIDTH = 16
"""Ids that padded rows are a multiple of where products are compiled: an eighth more ids for nano, 260 MiB less."""


class PolicyModel(nn.Module):
    """A causal LM with full or LoRA weights. `trained` maps the names of trained tensors to them, in a fixed order."""

    def __init__(self, lm: nn.Module, *, precision: NumberType, lora: bool) -> None:
        super().__init__()
        self.lm = lm
        self.precision = precision
        self.lora = lora
        self.adapter = FIRST_ADAPTER
        """Name of the adapter in force; without LoRA it means nothing."""
        self.trained = self._trainable()
        """Trained tensors by name. An adapter's have the names of the first one's, whichever is in force, so that what
        was trained as one of many can be loaded alone."""
        self._trained_of = {self.adapter: self.trained}
        self.shares_prefix: Sharing = "none"
        """What of rows that begin alike may be computed once."""
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
    def max_len(self) -> int:
        """Most ids of one sequence."""
        return int(getattr(self.config, "max_position_embeddings", 2**31))

    @property
    def causal_lm(self) -> Any:
        """The Hugging Face model itself, adapters included."""
        return self._causal_lm[0]

    @property
    def pairs_per_id(self) -> float:
        """How many pairs of attention (an id that looks at an id) take as long as all the rest that is done for one.

        By arithmetic: weights of the body / (2 · layers · heads · head dimension).
        """
        config = self.config
        layers, heads = int(config.num_hidden_layers), int(config.num_attention_heads)
        head_dim = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
        body = self.causal_lm.get_decoder()
        table = self.causal_lm.get_input_embeddings().weight
        num_weights = sum(int(tensor.numel()) for tensor in body.parameters() if tensor is not table)
        slower = WRITTEN_OUT_COST if config._attn_implementation == "eager" else 1.0
        return max(1.0, num_weights / (2 * layers * heads * head_dim) / slower)

    @property
    def padding(self) -> Padding:
        """In bf16 on a CPU, oneDNN compiles every product anew for each number of rows and frees none of it."""
        compiles = self.precision == "bf16" and self.device.type == "cpu"
        return Padding(multiple_of=COMPILED_WIDTH if compiles else 1, max_len=self.max_len)

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
                output = body(input_ids=micro.prefix[None], past_key_values=prefix, use_cache=True)
                parts.append(output.last_hidden_state[0].index_select(0, micro.prefix_gather))
            for bucket in micro.buckets:
                cache = None if prefix is None else _repeated(prefix, len(bucket.rest), self.config)
                tree: dict[str, Any] = {}
                if bucket.depths is not None and bucket.reads is not None and bucket.ends is not None:
                    attention = self.config._attn_implementation
                    mask = tree_mask(bucket.reads, bucket.ends, len(micro.prefix), attention)
                    tree = {"attention_mask": mask, "position_ids": bucket.depths[None]}
                output = body(
                    input_ids=bucket.rest, past_key_values=cache, use_cache=cache is not None, **tree
                )
                parts.append(output.last_hidden_state.flatten(0, 1).index_select(0, bucket.gather))
        return torch.cat(parts).float()

    def hidden_with(self, micro: MicroBatch, tensors: Mapping[str, Tensor] | None) -> Tensor:
        """`forward` with other tensors in the place of the trained ones; None = with the trained ones."""
        if tensors is None:
            return cast(Tensor, self(micro))
        first, own = f".{FIRST_ADAPTER}.", f".{self.adapter}."
        named = {f"lm.{name.replace(first, own)}": tensor for name, tensor in tensors.items()}
        return cast(Tensor, functional_call(self, named, (micro,)))

    def add_adapter(self, name: str, seed: int) -> None:
        """Puts one more adapter, with the settings of the first, on the same base. It starts as the base does; the
        adapter in force stays in force.

        Args:
            name: not there yet; `adapter_name` makes one of a line's name.
            seed: draws its A matrices.
        """
        assert self.lora, "only a LoRA policy has adapters"
        assert name not in self._trained_of, f"there is an adapter {name!r} already"
        lm, in_force = cast(Any, self.lm), self.adapter
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            lm.add_adapter(name, _lora_settings(lm.peft_config[FIRST_ADAPTER].r))
        lm.set_adapter(name)
        lm.eval()
        self.adapter = name
        self._trained_of[name] = self._trainable()
        lm.set_adapter(in_force)
        self.adapter = in_force

    def use_adapter(self, name: str) -> None:
        """Puts an adapter in force: the forward pass, `trained` and gradients are then its own."""
        if name != self.adapter:
            cast(Any, self.lm).set_adapter(name)
            self.adapter, self.trained = name, self._trained_of[name]

    def _trainable(self) -> dict[str, nn.Parameter]:
        first, own = f".{FIRST_ADAPTER}.", f".{self.adapter}."
        return {
            name.replace(own, first): parameter
            for name, parameter in self.lm.named_parameters()
            if parameter.requires_grad
        }

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of all adapters, the first one first."""
        return tuple(self._trained_of) if self.lora else ()

    @contextmanager
    def adapter_off(self) -> Iterator[None]:
        """The base model without its adapter; with full weights there is none to take off."""
        assert self.lora, "only a LoRA policy has an adapter"
        with cast(Any, self.lm).disable_adapter():
            yield


def adapter_name(line: str) -> str:
    """The adapter of a line of versions. peft makes it a part of the tensors' names, where a dot or a word of its own
    would be misread, so all but letters, digits and hyphens is spelled out."""
    if line == FIRST_ADAPTER:
        return line
    return "line-" + "".join(c if c.isascii() and c.isalnum() else f"-{ord(c):x}-" for c in line)


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
    policy.shares_prefix = sharing_of(policy, _probe_ids(policy, 24).tolist())
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
    from peft import get_peft_model

    # The adapter's A matrices are random: drawn from the run's seed, and the global generator is put back.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft asks transformers 5 for an attribute by its old name
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(seed)
        return cast(nn.Module, get_peft_model(cast(Any, lm), _lora_settings(rank))).eval()


def _lora_settings(rank: int) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules="all-linear",
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )


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


def _faster(policy: PolicyModel, budget_s: float = 1.0) -> NumberType:
    """The number type with the shorter forward and backward pass over 256 ids."""
    ids = _probe_ids(policy, 64).expand(4, -1).contiguous()
    everything = torch.arange(ids.numel(), device=policy.device)
    micro = MicroBatch(
        prefix=ids[0, :0],
        prefix_gather=everything[:0],
        buckets=(Bucket(rest=ids, gather=everything),),
        slots=everything,
    )
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
