import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from learner_models import VOCAB, write_model

from agentrl.config import LearnConfig
from agentrl.errors import ConfigError, LearnerError
from agentrl.learner import checkpoint
from agentrl.learner.pack import Row
from agentrl.learner.trainer import Trainer, TrainerState
from agentrl.recipes.recipe import load_recipe
from agentrl.types import TeacherView, TrainingSample

LR = {"optim.lr": 3e-3}
HINT = (60, 61, 62)


def make(path: Path, recipe: str = "hint_opsd", *, lora_rank: int = 0, **overrides: object) -> Trainer:
    settings = LR | {name.replace("__", "."): value for name, value in overrides.items()}
    return Trainer(path, load_recipe(recipe, settings), LearnConfig(precision="fp32", lora_rank=lora_rank))


def sample(
    index: int, *, hint: bool = True, num_prompt: int = 30, num_sampled: int = 6, **changes: object
) -> TrainingSample:
    generator = torch.Generator().manual_seed(index)
    preamble = tuple(torch.randint(0, 50, (20,), generator=torch.Generator().manual_seed(99)).tolist())
    own = torch.randint(0, 50, (num_prompt - 20 + num_sampled,), generator=generator).tolist()
    ids = preamble + tuple(own)
    view = None
    if hint:
        cut = num_prompt - 2
        view = TeacherView(token_ids=ids[:cut] + HINT + ids[cut:], inserted_spans=((cut, cut + len(HINT)),))
    values = {
        "turn_ids": (f"t{index}",),
        "token_ids": ids,
        "loss_mask": (False,) * num_prompt + (True,) * num_sampled,
        "behavior_logprobs": None,
        "num_allowed": None,
        "teacher": view,
        "advantages": None,
    } | changes
    return TrainingSample(**values)


def with_rewards(
    trainer: Trainer, samples: Sequence[TrainingSample], advantages: Sequence[float]
) -> list[TrainingSample]:
    """The samples with the policy's own log-probs as the sampler's."""
    result = []
    for index, (item, advantage) in enumerate(zip(samples, advantages, strict=True)):
        start = item.loss_mask.index(True)
        rows = [Row(token_ids=item.token_ids, positions=(p,)) for p in range(start, len(item.token_ids))]
        logprobs = trainer.mean_logprobs(rows)
        length = len(item.token_ids)
        result.append(
            sample(
                index,
                hint=False,
                behavior_logprobs=(0.0,) * start + tuple(logprobs),
                num_allowed=(0,) * start + (VOCAB,) * (length - start),
                advantages=(0.0,) * start + (advantage,) * (length - start),
            )
        )
    return result


def bits(state: TrainerState) -> tuple[dict[str, torch.Tensor], object]:
    return {name: tensor.detach().clone() for name, tensor in state.tensors.items()}, state.counters


def assert_same(trainer: Trainer, expected: tuple[dict[str, torch.Tensor], object]) -> None:
    tensors, counters = bits(trainer.state())
    assert counters == expected[1]
    assert tensors.keys() == expected[0].keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, expected[0][name]), name


def kl_to_teacher(trainer: Trainer, samples: Sequence[TrainingSample]) -> float:
    """Mean over the trained positions of KL(teacher with the hint, version 0 || policy without it)."""
    base = make(trainer.model_path)
    total = 0.0
    for item in samples:
        assert item.teacher is not None
        length = sum(item.loss_mask)
        with torch.no_grad():
            theirs = base.policy.causal_lm(torch.tensor([item.teacher.token_ids])).logits[0, -length - 1 : -1]
            ours = trainer.policy.causal_lm(torch.tensor([item.token_ids])).logits[0, -length - 1 : -1]
        p, q = theirs.log_softmax(-1), ours.log_softmax(-1)
        total += float((p.exp() * (p - q)).sum(-1).mean()) / len(samples)
    return total


def test_distillation_moves_the_plain_prompt_to_what_the_hinted_teacher_says(model_path: Path) -> None:
    trainer = make(model_path)
    samples = [sample(i) for i in range(4)]
    before = kl_to_teacher(trainer, samples)

    for _ in range(30):
        trainer.step(samples)

    assert kl_to_teacher(trainer, samples) < 0.3 * before


def test_rewards_raise_what_was_rewarded_and_lower_what_was_not(model_path: Path) -> None:
    trainer = make(model_path, "grpo")
    plain = [sample(i, hint=False) for i in range(4)]
    rows = [Row(token_ids=item.token_ids, positions=tuple(range(30, 36))) for item in plain]
    before = trainer.mean_logprobs(rows)

    result = trainer.step(with_rewards(trainer, plain, (1.0, 1.0, -1.0, -1.0)))
    after = trainer.mean_logprobs(rows)

    assert result.dropped == ()
    assert after[0] + after[1] > before[0] + before[1]
    assert after[2] + after[3] < before[2] + before[3]


def test_zero_weights_move_nothing_and_are_dropped_with_a_reason(model_path: Path) -> None:
    trainer = make(model_path)
    trainer.step([sample(i) for i in range(4)])  # moments that a careless step would go on with
    before = bits(trainer.state())
    length = len(sample(0).token_ids)

    result = trainer.step([sample(i, weights={"kd": (0.0,) * length}) for i in range(4)])

    assert_same(trainer, before)
    assert result.trained == ()
    assert [item.reason for item in result.dropped] == ["no weight"] * 4


def test_what_adds_no_term_to_the_loss_is_dropped_beside_what_is_trained(model_path: Path) -> None:
    """Laws 3 and 7: an answer whose ids were all forced, and one that the route keeps out."""
    trainer = make(model_path, "grpo")
    first, forced, silent = with_rewards(trainer, [sample(i, hint=False) for i in range(3)], (1.0, 1.0, -1.0))
    length = len(first.token_ids)
    forced = replace(forced, num_allowed=(0,) * 30 + (1,) * (length - 30))
    silent = replace(silent, weights={"rl": (0.0,) * length})

    result = trainer.step([forced, first, silent])

    assert [item.turn_ids for item in result.trained] == [("t0",)]
    assert {item.turn_ids: item.reason for item in result.dropped} == {
        ("t1",): "greedy sample",
        ("t2",): "no weight",
    }
    assert result.metrics["num_tokens"] == 6.0


def test_distributions_are_distilled_where_ids_were_forced_and_old_answers_are_rehearsed(
    model_path: Path,
) -> None:
    """A divergence over the vocabulary learns from forced ids; rehearsal has tokens of its own."""
    length = len(sample(0).token_ids)
    forced = sample(0, num_allowed=(0,) * 30 + (1,) * (length - 30))
    assert make(model_path).step([forced]).trained == (forced,)

    trainer = make(model_path, "dph_rl")
    first, second = with_rewards(trainer, [sample(i, hint=False) for i in range(2)], (1.0, 1.0))
    rehearsed = replace(second, source="rehearsal", advantages=None)
    result = trainer.step([first, rehearsed])
    assert (len(result.trained), result.dropped) == (2, ())


def test_a_sample_of_zero_weight_changes_nothing_for_the_others(model_path: Path) -> None:
    length = len(sample(0).token_ids)
    silent = sample(7, weights={"kd": (0.0,) * length})
    alone, together = make(model_path), make(model_path)

    alone.step([sample(0), sample(1)])
    together.step([sample(0), silent, sample(1)])

    for name, parameter in alone.policy.trained.items():
        torch.testing.assert_close(together.policy.trained[name], parameter, atol=1e-5, rtol=0)


def test_an_always_agreeing_teacher_gives_no_gradient(model_path: Path) -> None:
    trainer = make(model_path, route="all")

    result = trainer.step([sample(i, hint=False) for i in range(4)])

    assert abs(result.metrics["loss"]) < 1e-6
    assert result.metrics["grad_norm"] < 1e-5


def test_the_same_samples_give_the_same_weights_bit_for_bit(model_path: Path) -> None:
    runs = []
    for _ in range(2):
        trainer = make(model_path)
        for step in range(3):
            trainer.step([sample(10 * step + i) for i in range(5)])
        runs.append(bits(trainer.state()))

    assert_same(trainer, runs[0])
    assert runs[0][1] == runs[1][1]


def test_small_micro_batches_give_the_step_of_one_large_batch(model_path: Path) -> None:
    large, small = make(model_path), make(model_path, batch__micro_tokens=50)
    samples = [sample(i, num_sampled=2 + i) for i in range(6)]

    first, second = large.step(samples), small.step(samples)

    assert first.metrics["num_tokens"] == second.metrics["num_tokens"] == sum(2 + i for i in range(6))
    assert math.isclose(first.metrics["loss"], second.metrics["loss"], rel_tol=1e-5)
    assert math.isclose(first.metrics["grad_norm"], second.metrics["grad_norm"], rel_tol=1e-4)


def test_samples_with_and_without_the_samplers_log_probs_train_in_one_step(model_path: Path) -> None:
    mixed, plain = make(model_path), make(model_path)
    start = 30
    row = Row(token_ids=sample(0).token_ids, positions=tuple(range(start, 36)))
    each = mixed.mean_logprobs([Row(token_ids=row.token_ids, positions=(p,)) for p in row.positions])
    known = sample(0, behavior_logprobs=(0.0,) * start + tuple(each))

    first = mixed.step([known, sample(1)])
    second = plain.step([sample(0), sample(1)])

    assert first.dropped == ()
    assert math.isclose(first.metrics["grad_norm"], second.metrics["grad_norm"], rel_tol=1e-4)


def test_a_sample_too_far_from_its_sampler_is_dropped_and_counted(model_path: Path) -> None:
    trainer = make(model_path)
    far = sample(0, behavior_logprobs=(0.0,) * 30 + (-40.0,) * 6)

    result = trainer.step([far, sample(1)])

    assert [item.turn_ids for item in result.trained] == [("t1",)]
    assert [(item.turn_ids, item.reason) for item in result.dropped] == [
        (("t0",), "too far from the sampler")
    ]


def test_a_gradient_that_is_not_finite_is_not_applied(model_path: Path) -> None:
    trainer = make(model_path, "grpo")
    plain = [sample(i, hint=False) for i in range(2)]
    before = bits(trainer.state())

    result = trainer.step(with_rewards(trainer, plain, (math.inf, -1.0)))

    assert [item.reason for item in result.dropped] == ["gradient not finite"] * 2
    assert_same(trainer, before)


def test_the_context_reaches_the_teacher_alone(model_path: Path) -> None:
    trainer = make(model_path)
    item = sample(0)
    rows = [Row(token_ids=item.token_ids, positions=(31,))]
    before = trainer.mean_logprobs(rows)
    losses = []
    for hint in ((60, 61, 62), (50, 51, 52)):
        view = TeacherView(
            token_ids=item.token_ids[:28] + hint + item.token_ids[28:], inserted_spans=((28, 31),)
        )
        fresh = make(model_path)
        losses.append(fresh.step([sample(0, teacher=view)]).metrics["loss"])

    assert trainer.mean_logprobs(rows) == before
    assert losses[0] != losses[1]
    assert trainer._base is not None
    assert trainer._base.tensors is not None
    assert all(not tensor.requires_grad for tensor in trainer._base.tensors.values())


@pytest.mark.parametrize("lora_rank", [0, 2])
@pytest.mark.parametrize(
    "sync", ["fixed", "live", {"name": "ema", "rate": 0.1}, {"name": "copy_every", "steps": 2}]
)
def test_a_saved_learner_goes_on_bit_for_bit(
    model_path: Path, tmp_path: Path, sync: object, lora_rank: int
) -> None:
    overrides = {"sync": sync, "route": "has_context", "optim__warmup_steps": 5}
    trainer = make(model_path, lora_rank=lora_rank, **overrides)
    for step in range(3):
        trainer.step([sample(10 * step + i) for i in range(3)])
    (tmp_path / "v").mkdir()
    checkpoint.save(trainer, tmp_path / "v")
    saved = bits(trainer.state())
    trainer.step([sample(100 + i) for i in range(3)])
    after = bits(trainer.state())

    other = make(model_path, lora_rank=lora_rank, **overrides)
    checkpoint.load(other, tmp_path / "v")

    assert_same(other, saved)
    other.step([sample(100 + i) for i in range(3)])
    assert_same(other, after)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_version_is_an_ordinary_model_folder_in_the_bases_number_type(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    from transformers import AutoModelForCausalLM

    base = write_model(tmp_path / "base", dtype=dtype)
    (base / "tokenizer.json").write_text("{}")
    trainer = make(base)
    trainer.step([sample(i) for i in range(3)])
    saved = bits(trainer.state())
    folder = tmp_path / "v"
    folder.mkdir()
    checkpoint.save(trainer, folder)

    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert loaded.dtype == dtype
    assert (folder / "tokenizer.json").read_text() == "{}"
    row = Row(token_ids=sample(0).token_ids, positions=(31,))
    with torch.no_grad():
        theirs = (
            loaded(torch.tensor([row.token_ids[:31]]))
            .logits[0, -1]
            .float()
            .log_softmax(-1)[row.token_ids[31]]
        )
    assert math.isclose(
        float(theirs), trainer.mean_logprobs([row])[0], abs_tol=0.05 if dtype == torch.bfloat16 else 1e-4
    )

    other = make(base)
    checkpoint.load(other, folder)
    assert_same(other, saved)  # the fp32 weights, not the rounded ones


def test_a_number_type_that_was_found_automatically_stays_with_the_run(
    model_path: Path, tmp_path: Path
) -> None:
    other = Trainer(model_path, load_recipe("hint_opsd"), LearnConfig(precision="auto"))
    chosen = "fp32" if other.policy.precision == "bf16" else "bf16"
    checkpoint.save(Trainer(model_path, load_recipe("hint_opsd"), LearnConfig(precision=chosen)), tmp_path)

    checkpoint.load(other, tmp_path)

    assert other.policy.precision == chosen
    other.reset()
    assert other.policy.precision == chosen


def test_an_adapter_is_saved_as_peft_loads_it(model_path: Path, tmp_path: Path) -> None:
    trainer = make(model_path, lora_rank=2)
    trainer.step([sample(i) for i in range(3)])
    checkpoint.save(trainer, tmp_path)

    assert (tmp_path / "adapter_model.safetensors").is_file()
    assert (tmp_path / "adapter_config.json").is_file()
    assert not (tmp_path / "model.safetensors").exists()


def test_reset_is_version_0_again(model_path: Path) -> None:
    trainer = make(model_path)
    start = bits(trainer.state())
    trainer.step([sample(i) for i in range(3)])

    trainer.reset()

    assert_same(trainer, start)


def test_a_state_without_its_files_is_an_error_that_names_the_folder(
    model_path: Path, tmp_path: Path
) -> None:
    trainer = make(model_path)
    checkpoint.save(trainer, tmp_path)
    shutil.rmtree(tmp_path / "learner_state")

    with pytest.raises(LearnerError, match=str(tmp_path)):
        checkpoint.load(trainer, tmp_path)


def test_a_state_of_another_teacher_is_refused_with_the_remedy(model_path: Path, tmp_path: Path) -> None:
    checkpoint.save(make(model_path, sync="live", route="has_context"), tmp_path)

    with pytest.raises(ConfigError, match="sync = 'live', this run 'fixed': start a new run folder"):
        checkpoint.load(make(model_path), tmp_path)


def test_the_learning_rate_rises_over_the_warm_up(model_path: Path) -> None:
    trainer = make(model_path, optim__warmup_steps=4, optim__lr=0.4e-3)

    rates = [trainer.step([sample(0)]).metrics["lr"] for _ in range(6)]

    assert [round(rate, 10) for rate in rates] == [1e-4, 2e-4, 3e-4, 4e-4, 4e-4, 4e-4]


def test_a_schedule_moves_the_learning_rate_and_survives_a_restart(model_path: Path, tmp_path: Path) -> None:
    falling = {"optim.lr": {"name": "linear", "start": 4e-4, "end": 1e-4, "steps": 4}}
    recipe = load_recipe("hint_opsd", {"schedules": falling})
    trainer = Trainer(model_path, recipe, LearnConfig(precision="fp32"))

    rates = [trainer.step([sample(0)]).metrics["lr"] for _ in range(2)]
    checkpoint.save(trainer, tmp_path)
    other = Trainer(model_path, recipe, LearnConfig(precision="fp32"))
    checkpoint.load(other, tmp_path)
    rates += [other.step([sample(0)]).metrics["lr"] for _ in range(3)]

    assert [round(rate, 10) for rate in rates] == [4e-4, 3.25e-4, 2.5e-4, 1.75e-4, 1e-4]
