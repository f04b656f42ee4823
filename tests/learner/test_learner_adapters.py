"""LoRA adapters: averages of products, several on one base, and the folders that other programs load."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from learner_models import write_model
from learner_run import Run, write_base
from peft import PeftModel
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from agentrl.config import LearnConfig
from agentrl.errors import ConfigError, UserError
from agentrl.learner import checkpoint
from agentrl.learner.adapters import averaged_products, export_version, save_adapter
from agentrl.learner.card import Provenance
from agentrl.learner.model import adapter_name, load_policy
from agentrl.learner.pack import Row
from agentrl.learner.trainer import Trainer
from agentrl.recipes.recipe import load_recipe
from agentrl.types import TeacherView, TrainingSample
from server.cli import app

IDS = tuple(range(3, 43))
TRAINED = Provenance(
    model="models/a: base",
    policy="default",
    line=(0, 1, 3),
    state="serving",
    created_at=1_767_323_045.0,
    steps={"hint_opsd": 4, "grpo": 2},
    num_turns=57,
)
ROW = Row(token_ids=IDS, positions=tuple(range(1, 40)))


def make(
    path: Path,
    *,
    sync: object = "fixed",
    lora_rank: int = 2,
    beside: Trainer | None = None,
    line: str = "default",
) -> Trainer:
    recipe = load_recipe("hint_opsd", {"sync": sync, "route": "has_context", "optim.lr": 3e-3})
    learn = LearnConfig(precision="fp32", lora_rank=lora_rank)
    return Trainer(path, recipe, learn, beside=beside, line=line)


def samples(seed: int, num: int = 3) -> list[TrainingSample]:
    generator = torch.Generator().manual_seed(seed)
    made = []
    for index in range(num):
        ids = tuple(torch.randint(0, 50, (26,), generator=generator).tolist())
        view = TeacherView(token_ids=(*ids[:18], 60, 61, *ids[18:]), inserted_spans=((18, 20),))
        made.append(
            TrainingSample(
                turn_ids=(f"t{seed}-{index}",),
                token_ids=ids,
                loss_mask=(False,) * 20 + (True,) * 6,
                behavior_logprobs=None,
                num_allowed=None,
                teacher=view,
                advantages=None,
            )
        )
    return made


def logprobs_of(model: torch.nn.Module) -> torch.Tensor:
    """What transformers says of the ids of ROW."""
    with torch.no_grad():
        logits = model(torch.tensor([IDS])).logits[0, :-1].float()
    return logits.log_softmax(-1).gather(1, torch.tensor(IDS[1:])[:, None]).squeeze(1)


def own_logprobs(trainer: Trainer) -> torch.Tensor:
    rows = [Row(token_ids=IDS, positions=(position,)) for position in ROW.positions]
    return torch.tensor(trainer.mean_logprobs(rows))


def bits(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in trainer.state().tensors.items()}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name


# averages


def factors(up: list[list[float]], down: list[list[float]]) -> dict[str, torch.Tensor]:
    return {
        "m.lora_A.default.weight": torch.tensor(down),
        "m.lora_B.default.weight": torch.tensor(up),
    }


def product(pair: dict[str, torch.Tensor]) -> torch.Tensor:
    return pair["m.lora_B.default.weight"] @ pair["m.lora_A.default.weight"]


def test_the_average_of_two_adapters_is_the_average_of_their_products() -> None:
    average = factors([[1.0], [0.0]], [[1.0, 0.0]])
    newest = factors([[0.0], [1.0]], [[0.0, 2.0]])

    found, error = averaged_products(average, newest, 0.25)

    torch.testing.assert_close(product(found), torch.tensor([[0.75, 0.0], [0.0, 0.5]]))
    assert error < 1e-7


def test_what_does_not_fit_into_twice_the_rank_is_reported_as_a_share_of_the_step() -> None:
    average = factors([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], [[0.75, 0.0, 0.0], [0.0, 0.5, 0.0]])
    newest = factors([[0.0], [0.0], [1.0]], [[0.0, 0.0, 4.0]])
    # another matrix, 2 -> 4, of which nothing is lost
    average |= {
        "n.lora_A.default.weight": torch.tensor([[2.0]]),
        "n.lora_B.default.weight": torch.tensor([[1.0]]),
    }
    newest |= {
        "n.lora_A.default.weight": torch.tensor([[1.0]]),
        "n.lora_B.default.weight": torch.tensor([[4.0]]),
    }

    found, error = averaged_products(average, newest, 0.25)

    # exact: diag(.5625, .375, 1); of its three directions two are kept
    torch.testing.assert_close(product(found), torch.diag(torch.tensor([0.5625, 0.0, 1.0])))
    steps = 0.25 * math.sqrt(0.75**2 + 0.5**2 + 4.0**2 + (4.0 - 2.0) ** 2)
    assert error == pytest.approx(0.375 / steps, rel=1e-6)


def test_an_average_of_equal_adapters_makes_no_step_and_no_error() -> None:
    nothing = factors([[0.0], [0.0]], [[1.0, 2.0]])

    found, error = averaged_products(nothing, nothing, 0.5)

    assert torch.equal(product(found), torch.zeros(2, 2))
    assert error == 0.0


def test_averaging_factors_is_off_by_more_than_a_third_of_the_step_where_products_are_exact() -> None:
    generator = torch.Generator().manual_seed(0)

    def drawn() -> dict[str, torch.Tensor]:
        up, down = (torch.randn(*size, generator=generator) for size in ((48, 4), (4, 64)))
        return factors(up.tolist(), down.tolist())

    average, newest, rate = drawn(), drawn(), 0.05
    exact = (1 - rate) * product(average) + rate * product(newest)
    step = exact - product(average)

    found, error = averaged_products(average, newest, rate)
    each = {name: tensor.lerp(newest[name], rate) for name, tensor in average.items()}

    assert float((product(found) - exact).norm() / step.norm()) < 1e-4
    assert error < 1e-5
    # (mean B)(mean A) − mean BA = −a(1−a)·(B − B̄)(A − Ā)
    gap = {name: newest[name] - average[name] for name in newest}
    off = float((product(each) - exact).norm() / step.norm())
    assert off == pytest.approx(float(0.95 * product(gap).norm() * rate / step.norm()), rel=1e-4)
    assert off > 0.4


def test_an_average_of_a_constant_adapter_nears_it_as_one_minus_rate_to_the_n() -> None:
    """I10 for products: from B = 0, as training begins."""
    newest = factors([[1.0, 2.0], [0.0, 1.0], [1.0, 0.0]], [[1.0, 0.0, 2.0], [0.0, 3.0, 1.0]])
    average = factors([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]], [[5.0, 1.0, 0.0], [0.0, 0.0, 1.0]])

    for _ in range(5):
        average, error = averaged_products(average, newest, 0.25)
        assert error < 1e-6

    torch.testing.assert_close(product(average), (1 - 0.75**5) * product(newest))


# several on one base


def test_adapters_trained_in_turn_have_the_bits_of_adapters_trained_alone(model_path: Path) -> None:
    sync = {"name": "ema", "rate": 0.1}
    alone = make(model_path, sync=sync)
    for step in range(3):
        alone.step(samples(step))

    first = make(model_path, sync=sync)
    second = make(model_path, sync=sync, beside=first, line="user:x")
    for step in range(3):
        second.step(samples(100 + step))
        first.step(samples(step))
        second.step(samples(200 + step))

    assert_same(bits(first), bits(alone))
    assert bits(second).keys() == bits(alone).keys()
    assert second.policy.adapters == ("default", adapter_name("user:x"))
    assert not torch.equal(own_logprobs(first), own_logprobs(second))


def test_training_one_adapter_changes_no_bit_of_another_or_of_the_base(model_path: Path) -> None:
    first = make(model_path)
    second = make(model_path, beside=first, line="user:x")
    first.step(samples(0))
    before, base = (
        bits(first),
        {k: v.clone() for k, v in first.policy.causal_lm.state_dict().items() if "lora_" not in k},
    )

    for step in range(3):
        second.step(samples(step))

    assert_same(bits(first), before)
    own = second.policy.causal_lm.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in base.items())


def test_resetting_one_adapter_leaves_the_other(model_path: Path) -> None:
    first = make(model_path)
    second = make(model_path, beside=first, line="user:x")
    start = bits(first)
    first.step(samples(0))
    second.step(samples(1))
    before = bits(second)

    first.reset()

    assert_same(bits(first), start)
    assert_same(bits(second), before)
    assert second.policy is first.policy


def test_what_was_trained_beside_others_goes_on_alone(model_path: Path, tmp_path: Path) -> None:
    first = make(model_path, sync="live")
    second = make(model_path, sync="live", beside=first, line="user:x")
    second.step(samples(0))
    checkpoint.save(second, tmp_path)

    alone = make(model_path, sync="live")
    checkpoint.load(alone, tmp_path)

    assert_same(bits(alone), bits(second))
    assert torch.equal(own_logprobs(alone), own_logprobs(second))


def test_full_weights_have_no_adapter_to_train_beside(model_path: Path) -> None:
    first = make(model_path, lora_rank=0)

    with pytest.raises(
        ConfigError, match=r"policy 'user:x' is to be trained beside another .* learn\.lora_rank above 0"
    ):
        make(model_path, lora_rank=0, beside=first, line="user:x")
    with pytest.raises(ConfigError, match="one model and one rank"):
        make(model_path, lora_rank=4, beside=make(model_path, lora_rank=2), line="user:x")


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("line", ["user:x", "a.b", "lora_A", "weight", "ü"])
def test_every_line_of_versions_has_an_adapter_that_peft_can_name(
    model_path: Path, tmp_path: Path, line: str
) -> None:
    policy = load_policy(model_path, device="cpu", precision="fp32", lora_rank=2, seed=0)
    names = tuple(policy.trained)
    policy.add_adapter(adapter_name(line), seed=1)
    policy.use_adapter(adapter_name(line))
    save_adapter(policy, tmp_path)

    assert tuple(policy.trained) == names
    assert all(tensor.requires_grad for tensor in policy.trained.values())
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_path), tmp_path)
    assert len([name for name, _ in loaded.named_parameters() if "lora_A" in name]) == len(names) // 2


# folders


@pytest.mark.parametrize("line", ["default", "user:x"])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_version_is_an_adapter_that_peft_loads(model_path: Path, tmp_path: Path, line: str) -> None:
    trainer = make(model_path)
    if line != "default":
        trainer = make(model_path, beside=trainer, line=line)
    trainer.step(samples(0))
    checkpoint.save(trainer, tmp_path)

    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_path), tmp_path)

    assert json.loads((tmp_path / "adapter_config.json").read_text())["inference_mode"] is True
    assert all(parameter.requires_grad for parameter in trainer.policy.trained.values())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    torch.testing.assert_close(logprobs_of(loaded.eval()), own_logprobs(trainer), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapter_merges_into_full_weights_in_the_bases_number_type(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    base = write_model(tmp_path / "base", dtype=dtype)
    (base / "tokenizer.json").write_text("{}")
    (base / "README.md").write_text("The base solves 97 % of all tasks.")
    trainer = make(base)
    for step in range(3):
        trainer.step(samples(step))
    (tmp_path / "v").mkdir()
    checkpoint.save(trainer, tmp_path / "v")

    export_version(tmp_path / "v", base, tmp_path / "out", merged=True, origin=TRAINED)

    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").eval()
    assert merged.dtype == dtype
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip
    tolerance = 1e-4 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(logprobs_of(merged), own_logprobs(trainer), atol=tolerance, rtol=0)
    untrained = AutoModelForCausalLM.from_pretrained(base, dtype="auto").eval()
    assert float((logprobs_of(merged) - logprobs_of(untrained)).abs().max()) > 0.05


def test_an_export_leaves_the_learners_state_behind_and_belongs_to_its_owner(
    model_path: Path, tmp_path: Path
) -> None:
    trainer = make(model_path, lora_rank=0)
    (tmp_path / "v").mkdir()
    checkpoint.save(trainer, tmp_path / "v")

    export_version(tmp_path / "v", model_path, tmp_path / "out", merged=False, origin=TRAINED)
    (tmp_path / "out" / "config.json").write_text("mine")

    assert not (tmp_path / "out" / "learner_state").exists()
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (
        tmp_path / "v" / "model.safetensors"
    ).read_bytes()
    assert "qwen3" in (model_path / "config.json").read_text()


@pytest.mark.parametrize(
    ("lora_rank", "merged", "weights", "library"),
    [
        (0, False, "full weights, trained without an adapter", "transformers"),
        (2, False, "a LoRA adapter in the PEFT format", "peft"),
        (2, True, "full weights: the adapter merged into the base, W + s·BA", "transformers"),
    ],
)
def test_the_card_tells_of_the_exported_version_and_claims_nothing_of_the_base_for_it(
    tmp_path: Path, lora_rank: int, merged: bool, weights: str, library: str
) -> None:
    base = write_model(tmp_path / "base")
    (base / "README.md").write_text("The base solves 97 % of all tasks.")
    (tmp_path / "v").mkdir()
    checkpoint.save(make(base, lora_rank=lora_rank), tmp_path / "v")

    export_version(tmp_path / "v", base, tmp_path / "out", merged=merged, origin=TRAINED)

    assert not (tmp_path / "v" / "README.md").exists()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "97 %" not in card
    _, front, text = card.split("---\n")
    assert front.splitlines() == [
        'base_model: "models/a: base"',
        f"library_name: {library}",
        "tags: [agentrl]",
    ]
    for row in (
        "| base | models/a: base |",
        "| version | 3 of the policy 'default', made 2026-01-02 03:04 UTC, state serving |",
        "| line | 0 → 1 → 3 |",
        "| recipe | hint_opsd (4 steps), grpo (2 steps) |",
        "| turns | 57 recorded turns |",
    ):
        assert row in text.splitlines()
    assert f"| weights | {weights}" in text


def test_version_0_is_the_base_and_keeps_its_card(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base")
    (base / "README.md").write_text("The base solves 97 % of all tasks.")

    export_version(base, base, tmp_path / "out", merged=False, origin=replace(TRAINED, line=(0,)))

    assert (tmp_path / "out" / "README.md").read_text() == "The base solves 97 % of all tasks."


def test_a_folder_that_holds_something_is_not_written_over(model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")

    with pytest.raises(UserError, match=f"{tmp_path} holds something already"):
        export_version(model_path, model_path, tmp_path, merged=True, origin=TRAINED)


def test_a_version_of_a_run_is_exported_from_the_command_line(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", write_base(tmp_path / "base"))
    run.hinted(4)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
        expected = own_logprobs(learner.trainer)

    def called(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["versions", *arguments, "--run-dir", str(run.path)])
        return done.output if done.exception is None else repr(done.exception)

    assert "full weights" in called("export", "1", str(tmp_path / "out"))
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    torch.testing.assert_close(logprobs_of(exported), expected, atol=1e-4, rtol=0)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    told = (tmp_path / "out" / "README.md").read_text()
    assert f"| base | {run.base} |" in told
    assert "| version | 1 of the policy 'default', made 20" in told
    assert "| recipe | hint_opsd (1 step) |" in told
    assert "| turns | 4 recorded turns |" in told
    assert "full weights" in called("export", "0", str(tmp_path / "first"), "--merged")
    assert not (tmp_path / "first" / "README.md").exists()
    assert "version 9 has no files" in called("export", "9", str(tmp_path / "other"))
    assert "serving" in called()
