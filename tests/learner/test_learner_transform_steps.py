"""What transforms made, through the trainer and the account."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from learner_run import RETRY, Bench, Run, group_of, trace_file, write_base

from agentrl.learner.build import Dropped, without
from agentrl.learner.pack import teacher_positions
from agentrl.recipes.recipe import load_recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("transform")
    return Run(path / "run", write_base(path / "base"))


# the account


def test_a_turn_in_several_samples_is_either_trained_or_rejected() -> None:
    dropped = [
        Dropped(turn_ids=("a",), reason="x"),
        Dropped(turn_ids=("b",), reason="y"),
        Dropped(turn_ids=("b",), reason="z"),
    ]
    assert without(dropped, {"a"}) == (Dropped(turn_ids=("b",), reason="y"),)


def test_a_run_trains_retries_counts_them_and_can_be_repeated(tmp_path: Path) -> None:
    """Laws 3 and 11, through claim, build, step and version."""
    base = write_base(tmp_path / "base")

    def weights(name: str) -> dict[str, torch.Tensor]:
        run = Run(tmp_path / name, base, recipe="hint_opsd", transform=RETRY, route="has_context")
        run.hinted(4)
        run.record(run.turn("no hint", "abc"))
        with run.learner() as learner:
            learner.loop.start()
            learner.work()
            steps = learner.journal.of("step")
            assert sum(int(step["num_turns"]) for step in steps) == 4
            versions = [version for version in learner.log.versions("default") if version.number]
            assert [version.metrics["num_retry"] for version in versions] == [4.0]
            assert run.account()[1:3] == (4, {"no context": 1})
            return learner.bits()[0]

    first, again = weights("first"), weights("again")
    assert all(torch.equal(first[name], again[name]) for name in first)


# through the trainer


CASES: dict[str, dict[str, object]] = {
    "trd": {},
    "kepo": {"teacher": "self", "limits__max_version_lag": 0},
    "herl": {},
    "ampo": {},
    "rltf_sd": {},
    "rltf_fm": {},
    "caopd": {},
    "pi_distill": {},
    "mgsr": {"teacher": "self"},
    "r3": {},
}


@pytest.mark.parametrize("name", CASES)
def test_every_preset_takes_a_step_on_what_its_transform_made(run: Run, tmp_path: Path, name: str) -> None:
    overrides = dict(CASES[name])
    recipe = load_recipe(name, {"teacher": "self"} if "teacher" in overrides else {})
    if recipe.group_size > 1:
        overrides["rollout__group_size"] = 2
    if "max_tokens" in recipe.transform.params and recipe.transform.generates:
        overrides["transform__max_tokens"] = 5
    if name == "ampo":
        record = {"messages": [{"role": "user", "content": "do it"}], "reply": "so", "reward": 1.0}
        overrides["transform__path"] = str(trace_file(tmp_path / "t.jsonl", record))
    overrides["limits__max_logprob_gap"] = 30.0  # the log-probs of these turns are made up
    verdicts = itertools.cycle([1.0, 0.0])
    bench = Bench(run, name, verifier=lambda record, text: next(verdicts), **overrides)
    rewards = [1.0, 0.0] if name in ("caopd", "kepo", "rltf_sd", "rltf_fm") else [0.0, 0.0]
    said = {"hint": "be quick", "preferred": "yes", "evidence": "short", "judged": 0.0}
    first = bench.builder.build(group_of(run, [1.0, 0.0], "on it", **said), newest_version=0)
    built = bench.build(group_of(run, rewards, "Confidence: 90%", **said))
    before = {key: tensor.detach().clone() for key, tensor in bench.trainer.policy.trained.items()}

    result = bench.trainer.step(built.samples)

    assert first.samples
    assert result.trained, [item.reason for item in (*built.dropped, *result.dropped)]
    assert math.isfinite(result.metrics["grad_norm"])
    assert result.metrics["grad_norm"] > 0
    moved = {
        key for key, tensor in bench.trainer.policy.trained.items() if not torch.equal(tensor, before[key])
    }
    assert moved


def test_a_joint_step_has_the_gradient_of_both_views_of_the_same_ids(run: Run) -> None:
    """The whole of J, written out with two forward passes of the same weights: its gradient's norm is the step's."""
    alpha, beta = 0.25, 0.3
    verdicts = itertools.cycle([1.0, 0.0])
    bench = Bench(
        run,
        "pi_distill",
        verifier=lambda record, text: next(verdicts),
        transform__max_tokens=5,
        rollout__group_size=4,
        mix__alpha=alpha,
        mix__beta=beta,
        offpolicy={"name": "ratio", "denominator": "sampler"},
    )
    samples = bench.build(group_of(run, [0.0] * 4, preferred="yes")).samples
    assert [sample.reward for sample in samples] == [1.0, 0.0, 1.0, 0.0]
    model = bench.trainer.policy.causal_lm

    def logprobs(ids: tuple[int, ...], positions: tuple[int, ...]) -> torch.Tensor:
        return model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)[[p - 1 for p in positions]]

    loss = torch.zeros(())
    count = sum(sum(sample.loss_mask) for sample in samples)
    for sample in samples:
        assert sample.teacher is not None
        assert sample.behavior_logprobs is not None
        assert sample.advantages is not None
        own = tuple(i for i, trained in enumerate(sample.loss_mask) if trained)
        there = teacher_positions(sample.teacher, sample.token_ids, own)
        student, teacher = logprobs(sample.token_ids, own), logprobs(sample.teacher.token_ids, there)
        ids = torch.tensor([[sample.token_ids[p]] for p in own])
        mu = torch.tensor([sample.behavior_logprobs[p] for p in own])
        advantage = sample.advantages[own[0]]

        def rewarded(
            side: torch.Tensor, ids: torch.Tensor = ids, mu: torch.Tensor = mu, a: float = advantage
        ) -> torch.Tensor:
            return -((side.gather(1, ids)[:, 0] - mu).exp() * a).sum()

        def distance(of: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
            return (of.exp() * (of - to)).sum()

        loss = loss + alpha * (rewarded(teacher) + beta * distance(teacher, student.detach())) / count
        loss = loss + (1 - alpha) * (rewarded(student) + beta * distance(teacher.detach(), student)) / count
    gradients = torch.autograd.grad(loss, list(bench.trainer.policy.trained.values()))
    expected = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))

    result = bench.trainer.step(samples)

    assert len(result.trained) == len(samples)
    assert result.metrics["loss"] == pytest.approx(float(loss.detach()), abs=1e-4)
    assert result.metrics["grad_norm"] == pytest.approx(expected, rel=1e-3)
