from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_models import SIZE, VOCAB, prompt, reference, save_model
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from agentrl.config import EngineConfig
from agentrl.engine.kv import KVShape, Rows
from agentrl.engine.local_attention import Piece, Step
from agentrl.engine.local_decoder import LeanDecoder, can_pack, linear
from agentrl.engine.local_model import Decoder, Model, open_model
from agentrl.engine.local_modules import ModuleDecoder
from agentrl.errors import ConfigError, ModelError

# peft asks transformers for a name that it has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

FAMILIES: list[tuple[str, dict[str, Any]]] = [
    ("qwen3", {}),
    ("qwen3", {"tie_word_embeddings": True, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    ("llama", {"attention_bias": True, "mlp_bias": True}),
    ("llama", {"num_key_value_heads": 4, "head_dim": 32}),
    ("qwen2", {}),
    ("mistral", {"sliding_window": None}),
]


def settings(**changes: Any) -> EngineConfig:
    return EngineConfig(**{"precision": "fp32", "max_len": 256, **changes})


@torch.inference_mode()
def packed_logits(model: Model, decoder: Decoder, sequences: list[list[int]]) -> list[torch.Tensor]:
    """Logits of three sequences: read in pieces of mixed sizes in shared steps, their last id decoded."""
    rows = Rows(model.kv_shape)
    rows.reserve(3, 64)
    out: list[list[torch.Tensor]] = [[], [], []]

    def feed(decode: list[int], *pieces: tuple[int, int, int]) -> None:
        parts = [
            Piece(row=row, start=start, token_ids=sequences[row][start:end]) for row, start, end in pieces
        ]
        ids = [sequences[row][at] for row, at in enumerate(decode)]
        logits = decoder.logits(Step(rows, ids, decode, parts))
        for row in range(len(decode)):
            out[row].append(logits[row : row + 1])
        at = len(decode)
        for row, start, end in pieces:
            out[row].append(logits[at : at + end - start])
            at += end - start

    feed([], (0, 0, 20), (2, 0, 3))
    feed([], (0, 20, 39), (1, 0, 16), (2, 3, 40))
    feed([39, 16], (2, 40, 60))
    return [torch.cat(parts) for parts in out]


@pytest.mark.parametrize("modules", [False, True])
@pytest.mark.parametrize(("family", "changes"), FAMILIES)
def test_packed_steps_give_the_logits_of_the_hugging_face_forward(
    family: str, changes: dict[str, Any], modules: bool, tmp_path: Path
) -> None:
    save_model(tmp_path, family, **changes)
    model = open_model(tmp_path, settings(), modules=modules)
    decoder = model.load(tmp_path)
    sequences = [prompt(1, 40), prompt(2, 17), prompt(3, 60)]

    assert type(decoder) is (ModuleDecoder if modules else LeanDecoder)
    for sequence, mine in zip(sequences, packed_logits(model, decoder, sequences), strict=True):
        with torch.no_grad():
            own = reference(tmp_path)(torch.tensor([sequence])).logits[0]
        assert float((mine - own).abs().max()) < 1e-5 * max(1.0, float(own.abs().max()))


def test_the_fused_kernel_of_gpus_attends_as_the_plain_products_do() -> None:
    shape = KVShape(num_layers=1, num_heads=2, head_dim=16, dtype=torch.float32, device=torch.device("cpu"))
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 6, 16), torch.randn(3, 2, 16), torch.randn(3, 2, 16)
    out = []
    for fused in (False, True):
        rows = Rows(shape)
        rows.reserve(3, 40)
        torch.manual_seed(1)
        rows.storage.normal_()
        step = Step(rows, [1, 2, 3], [30, 7, 0])
        step.fused = fused
        out.append(step.attend(0, query, key, value, 0.25))

    assert float((out[0] - out[1]).abs().max()) < 1e-6
    # A sequence of one id sees only itself: its value, once for each of the three heads that share it.
    assert float((out[0][2].view(2, 3, 16) - value[2].unsqueeze(1)).abs().max()) < 1e-6


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_gives_the_logits_of_the_hugging_face_forward(qwen: Path, precision: str) -> None:
    model = open_model(qwen, settings(device="cuda", precision=precision))
    sequences = [prompt(1, 40), prompt(2, 17), prompt(3, 60)]
    for sequence, mine in zip(sequences, packed_logits(model, model.load(qwen), sequences), strict=True):
        with torch.no_grad():
            own = torch.log_softmax(reference(qwen)(torch.tensor([sequence])).logits[0], -1)
        gap = (torch.log_softmax(mine.cpu(), -1) - own).abs().mean()
        assert float(gap) < (1e-4 if precision == "fp32" else 0.1)


def test_bf16_products_stay_near_the_fp32_forward_and_logits_are_fp32(qwen: Path) -> None:
    sequences = [prompt(1, 40), prompt(2, 17), prompt(3, 60)]
    for modules in (False, True):
        model = open_model(qwen, settings(precision="bf16"), modules=modules)
        for sequence, mine in zip(sequences, packed_logits(model, model.load(qwen), sequences), strict=True):
            with torch.no_grad():
                own = torch.log_softmax(reference(qwen)(torch.tensor([sequence])).logits[0], -1)
            assert mine.dtype is torch.float32
            assert float((torch.log_softmax(mine, -1) - own).abs().mean()) < 0.1


def test_other_weights_replace_the_modules_weights_and_leave_the_first_alone(
    qwen: Path, versions: list[Path]
) -> None:
    model = open_model(qwen, settings(), modules=True)
    sequence = prompt(4, 60)
    decoders = [model.load(path) for path in versions[:3]]

    for path, decoder in zip(versions[:3], decoders, strict=True):
        mine = packed_logits(model, decoder, [sequence] * 3)[2]
        with torch.no_grad():
            own = reference(path)(torch.tensor([sequence])).logits[0]
        assert float((mine - own).abs().max()) < 1e-4


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_version_with_a_tied_output_matrix_loads_into_the_modules(tmp_path: Path, precision: str) -> None:
    folders = [save_model(tmp_path / str(i), "qwen3", i, tie_word_embeddings=True) for i in range(2)]
    model = open_model(folders[0], settings(precision=precision), modules=True)
    sequence = prompt(4, 60)

    mine = packed_logits(model, model.load(folders[1]), [sequence] * 3)[2]
    with torch.no_grad():
        own = reference(folders[1])(torch.tensor([sequence])).logits[0]
    gap = (torch.log_softmax(mine, -1) - torch.log_softmax(own, -1)).abs()
    assert float(gap.mean()) < (1e-5 if precision == "fp32" else 0.2)


def adapter(base: Path, folder: Path, **changes: Any) -> Any:
    """A LoRA adapter with random weights, saved by peft; returns the adapted model."""
    torch.manual_seed(3)
    config = LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], **changes})
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)
    adapted.save_pretrained(folder)
    return adapted.eval()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"down_proj": 3}},
        {"modules_to_save": ["lm_head"]},
    ],
)
def test_an_adapter_is_merged_into_a_copy_of_the_base(
    qwen: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    adapted = adapter(qwen, tmp_path, **changes)
    model = open_model(qwen, settings())
    sequence = prompt(5, 60)

    mine = packed_logits(model, model.load(tmp_path), [sequence] * 3)[2]
    with torch.no_grad():
        own = adapted(torch.tensor([sequence])).logits[0]
        base = reference(qwen)(torch.tensor([sequence])).logits[0]
    assert float((mine - own).abs().max()) < 1e-4
    assert float((base - own).abs().max()) > 0.5
    untouched = packed_logits(model, model.load(qwen), [sequence] * 3)[2]
    assert float((untouched - base).abs().max()) < 1e-4


def test_an_adapter_that_cannot_be_merged_is_refused(qwen: Path, tmp_path: Path) -> None:
    adapter(qwen, tmp_path, use_dora=True)

    with pytest.raises(ModelError, match="use_dora"):
        open_model(qwen, settings()).load(tmp_path)


def test_a_version_without_a_tensor_or_of_another_shape_is_refused(qwen: Path, tmp_path: Path) -> None:
    model = open_model(qwen, settings())
    model.load(qwen)
    tensors = load_file(qwen / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"

    save_file({k: v for k, v in tensors.items() if k != name}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=name):
        model.load(tmp_path)

    save_file({**tensors, name: tensors[name][:-1].clone()}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"shape \[95, 64\]"):
        model.load(tmp_path)


def test_a_folder_without_weights_or_config_is_refused(qwen: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        open_model(tmp_path, settings())
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        open_model(qwen, settings()).load(tmp_path)


def test_a_sliding_window_is_held_up_to_its_length_and_refused_beyond(tmp_path: Path) -> None:
    save_model(tmp_path, "mistral", sliding_window=128)

    assert open_model(tmp_path, settings(max_len=128)).max_len == 128
    with pytest.raises(ModelError, match=r"mistral.*sliding window of 128.*engine.max_len=128"):
        open_model(tmp_path, settings(max_len=256))


def test_recurrent_models_are_refused_by_name(tmp_path: Path) -> None:
    save_model(
        tmp_path / "mamba",
        "mamba",
        num_hidden_layers=1,
        state_size=4,
    )
    with pytest.raises(ModelError, match=r"mamba.*cannot hold it"):
        open_model(tmp_path / "mamba", settings())

    hybrid = {**SIZE, "model_type": "qwen3_next", "layer_types": ["linear_attention", "full_attention"]}
    (tmp_path / "config.json").write_text(json.dumps(hybrid))
    with pytest.raises(ModelError, match=r"qwen3_next \(linear_attention\)"):
        open_model(tmp_path, settings())


def test_a_model_that_computes_attention_by_other_rules_is_refused(tmp_path: Path) -> None:
    # Gemma 2 caps its scores: the modules say so to the attention function, which does not do it.
    layers = ["full_attention", "full_attention"]
    save_model(
        tmp_path,
        "gemma2",
        layer_types=layers,
        sliding_window=512,
        attn_logit_softcapping=0.5,
        query_pre_attn_scalar=16,
    )
    with pytest.raises(ModelError, match="gemma2"):
        open_model(tmp_path, settings())


def test_a_family_without_a_lean_forward_runs_through_its_modules(tmp_path: Path) -> None:
    save_model(tmp_path, "granite", logits_scaling=2.0, residual_multiplier=0.7)
    model = open_model(tmp_path, settings())
    decoder = model.load(tmp_path)
    sequence = prompt(6, 60)

    assert isinstance(decoder, ModuleDecoder)
    with torch.no_grad():
        own = reference(tmp_path)(torch.tensor([sequence])).logits[0]
    assert float((packed_logits(model, decoder, [sequence] * 3)[2] - own).abs().max()) < 1e-4


@pytest.mark.parametrize("modules", [False, True])
def test_padding_to_one_of_few_lengths_leaves_no_logits_and_no_keys(modules: bool, qwen: Path) -> None:
    model = open_model(qwen, settings(), modules=modules)
    decoder = model.load(qwen)
    rows = Rows(model.kv_shape)
    rows.reserve(2, 40)
    step = Step(rows, (), (), [Piece(row=1, start=0, token_ids=prompt(4, 17))], wanted=[4, 16])
    with torch.inference_mode():
        few = decoder.logits(step)
        every = decoder.logits(Step(rows, (), (), [Piece(row=1, start=0, token_ids=prompt(4, 17))]))

    assert (len(step.ids), len(step.positions), step.num_ids) == (20, 20, 17)
    assert (len(few), len(every)) == (2, 17)
    assert torch.allclose(few, every[[4, 16]], atol=1e-5)
    assert rows.storage[:, :, 1, :, :17].abs().sum(-1).min() > 0
    assert not rows.storage[:, :, 1, :, 17:].any()
    assert not rows.storage[:, :, 0].any()


def test_auto_precision_picks_one_of_the_two(qwen: Path) -> None:
    assert open_model(qwen, settings(precision="auto")).precision in ("fp32", "bf16")


def test_a_device_that_is_not_there_is_named(qwen: Path) -> None:
    with pytest.raises(ConfigError, match="cuda:63"):
        open_model(qwen, settings(device="cuda:63"))


def test_max_len_is_clamped_to_the_model(qwen: Path) -> None:
    assert open_model(qwen, settings(max_len=100_000)).max_len == SIZE["max_position_embeddings"]
    assert open_model(qwen, settings()).vocab_size == VOCAB


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_linear_layer_works_in_each_type_on_this_processor(dtype: torch.dtype) -> None:
    weight = torch.arange(-6.0, 6.0).view(3, 4).to(dtype)
    layer = linear(weight, torch.tensor([1.0, 0.0, -1.0]).to(dtype))

    assert layer(torch.ones(2, 4).to(dtype)).tolist() == [[-17.0, -2.0, 13.0]] * 2


def test_bf16_is_not_packed_where_the_processor_has_no_operators_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_packed = can_pack(torch.float32)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)

    assert not can_pack(torch.bfloat16)
    assert can_pack(torch.float32) == is_packed
