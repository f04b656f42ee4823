"""Turns that were right without a context: held to version 0 beside what is learned, and accounted for."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from learner_models import VOCAB
from learner_run import Run, write_base

from agentrl.config import GuardsConfig, LearnConfig
from agentrl.learner.held_out import is_held_out
from agentrl.learner.streams import mean_reward
from agentrl.learner.trainer import Trainer
from agentrl.losses.batch import HELD, OWN
from agentrl.recipes.recipe import load_recipe
from agentrl.store.learning_log import LearningLog
from agentrl.types import LessonState, TeacherView, TrainingSample

PROMPT, SAMPLED = 12, 6
HINT = (60, 61, 62)
ANY, NONE = -1e9, -1e-9
"""Bounds under which version 0 would have given every answer, or none."""


def sample(index: int, *, hint: bool) -> TrainingSample:
    """Random ids; without a hint it is one that is held."""
    generator = torch.Generator().manual_seed(index)
    ids = tuple(torch.randint(0, VOCAB - 10, (PROMPT + SAMPLED,), generator=generator).tolist())
    view = TeacherView(token_ids=(*ids[:8], *HINT, *ids[8:]), inserted_spans=((8, 8 + len(HINT)),))
    return TrainingSample(
        turn_ids=(f"t{index}",),
        token_ids=ids,
        loss_mask=(False,) * PROMPT + (True,) * SAMPLED,
        behavior_logprobs=None,
        num_allowed=None,
        teacher=view if hint else None,
        advantages=None,
        source="sampled" if hint else "held",
    )


def make(path: Path, **overrides: object) -> Trainer:
    settings = {"optim.lr": 3e-3, "route": "context_or_held"} | {
        name.replace("__", "."): value for name, value in overrides.items()
    }
    return Trainer(path, load_recipe("hint_opsd", settings), LearnConfig(precision="fp32"))


def drift(trainer: Trainer, samples: list[TrainingSample]) -> float:
    """Mean KL(version 0 ‖ policy) at the trained positions of the plain prompts."""
    base = make(trainer.model_path)
    total = 0.0
    for item in samples:
        ids = torch.tensor([item.token_ids])
        with torch.no_grad():
            p, q = (
                model.policy.causal_lm(ids).logits[0, PROMPT - 1 : -1].log_softmax(-1)
                for model in (base, trainer)
            )
        total += float((p.exp() * (p - q)).sum(-1).mean()) / len(samples)
    return total


LEARNED = [sample(index, hint=True) for index in range(4)]
KEPT = [sample(index, hint=False) for index in range(4, 8)]


def test_what_is_held_stays_while_the_weights_move_for_hints(model_path: Path) -> None:
    free, held = make(model_path), make(model_path, route__min_logprob=ANY)
    for _ in range(30):
        free.step(LEARNED)
        held.step([*LEARNED, *KEPT])

    assert drift(held, KEPT) < 0.2 * drift(free, KEPT)
    assert drift(held, LEARNED) > 10 * drift(held, KEPT), "what was hinted is learned all the same"


def test_what_is_held_makes_no_step_alone(model_path: Path) -> None:
    trainer = make(model_path, route__min_logprob=ANY)
    trainer.step(LEARNED)  # so that it has something to be held against
    before = [weight.clone() for weight in trainer.policy.causal_lm.parameters()]

    result = trainer.step(KEPT)

    assert result.trained == ()
    assert [(one.turn_ids, one.reason) for one in result.dropped] == [
        ((f"t{index}",), "already right") for index in range(4, 8)
    ]
    assert all(map(torch.equal, before, trainer.policy.causal_lm.parameters()))


def test_every_sample_is_trained_or_dropped_once(model_path: Path) -> None:
    trained = make(model_path, route__min_logprob=ANY).step([*LEARNED, *KEPT])
    assert [item.turn_ids for item in trained.trained] == [item.turn_ids for item in (*LEARNED, *KEPT)]
    assert trained.dropped == ()

    refused = make(model_path, route__min_logprob=NONE).step([*LEARNED, *KEPT])
    assert [item.turn_ids for item in refused.trained] == [item.turn_ids for item in LEARNED]
    assert [(item.turn_ids, item.reason) for item in refused.dropped] == [
        (item.turn_ids, "already right") for item in KEPT
    ]


def test_cutting_a_batch_into_micro_batches_changes_neither_what_is_held_nor_how_much(
    model_path: Path,
) -> None:
    """I30, up to the order of sums."""
    bound = -4.6  # some ids of this random model lie above it, some below
    whole, cut = (make(model_path, route__min_logprob=bound, batch__micro_tokens=size) for size in (8192, 20))
    first, second = (trainer.step([*LEARNED, *KEPT]) for trainer in (whole, cut))
    assert first.metrics["num_tokens"] == second.metrics["num_tokens"]
    assert 4 * SAMPLED < first.metrics["num_tokens"] < 8 * SAMPLED
    assert first.metrics["grad_norm"] == pytest.approx(second.metrics["grad_norm"], rel=1e-4)


# the loop


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("model") / "base")


def right(run: Run, num: int, prompt: str = "well known") -> None:
    """Rewarded turns without a hint, none of which the gate's probe takes."""
    names = [name for name in (f"right{run.num_turns}x{i}" for i in range(100)) if not is_held_out(name)]
    run.record(*(run.turn(f"{prompt} {name}", "abc", turn_id=name) for name in names[:num]), reward=1.0)


@pytest.mark.parametrize(
    ("bound", "trained", "rejected"),
    [(ANY, 4, {}), (NONE, 3, {"already right": 1})],
    ids=["held", "learned since"],
)
def test_held_turns_are_accounted_for(
    tmp_path: Path, base: Path, bound: float, trained: int, rejected: dict[str, int]
) -> None:
    run = Run(tmp_path / "run", base, route="context_or_held", route__min_logprob=bound)
    run.hinted(3)
    right(run, 1)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()

        assert run.account() == (4, trained, rejected, {})
        [step] = learner.journal.of("step")
        assert step["metrics"].get("num_held", 0) == trained - 3


def test_where_nothing_is_learned_nothing_is_held_and_no_step_is_made(tmp_path: Path, base: Path) -> None:
    """The weights have not moved; a step on what rounding leaves would move them."""
    run = Run(tmp_path / "run", base, route="context_or_held", route__min_logprob=ANY)
    right(run, 4)
    with run.learner() as learner:
        learner.loop.start()
        before = learner.bits()[0]
        learner.work()

        assert run.account() == (4, 0, {"already right": 4}, {})
        assert all(torch.equal(tensor, learner.bits()[0][name]) for name, tensor in before.items())
    with LearningLog(run.path) as log:
        assert log.serving().number == 0


def test_a_failed_turn_of_an_episode_that_ended_well_is_not_held(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base, route="context_or_held", route__min_logprob=ANY)
    run.hinted(2)
    failed, done = (run.turn(f"well known {i}", "abc", turn_id=f"step{i}", session="s") for i in range(2))
    run.record(failed)
    run.record(done, reward=1.0)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()

        assert not any(is_held_out(name) for name in ("step0", "step1"))
        assert run.account() == (4, 3, {"no context": 1}, {})
        assert learner.log.fate("step0") == "rejected:no context"


def test_in_review_a_turn_that_cannot_be_held_waits_for_a_hint_of_a_like_request(
    tmp_path: Path, base: Path
) -> None:
    run = Run(
        tmp_path / "run", base, batch__turns_per_step=2, route="context_or_held", route__min_logprob=NONE
    )
    learn = run.config.learn.model_copy(update={"approve": "review"})
    run.config = run.config.model_copy(update={"learn": learn})
    with run.learner() as learner:
        learner.loop.start()
        run.record(run.turn("and now for something else", "abc", turn_id="first"), hint="say xyz")
        learner.work()
        learner.log.decide([found.id for found in learner.log.lessons()], LessonState.APPROVED)
        run.record(run.turn("tell me the same", "abc", turn_id="told"), hint="say uvw")
        run.record(run.turn("tell me the same", "abd", turn_id="untold"), reward=1.0)
        learner.loop._refreshed = -float("inf")
        learner.work()

        assert not is_held_out("untold")
        assert learner.log.fate("untold") == "pending:review"
        assert run.account() == (3, 1, {}, {"review": 2})


def test_what_is_held_leaves_the_shares_of_what_is_taught_as_they_are(tmp_path: Path, base: Path) -> None:
    """Three turns of one session and one of another, half each; three that are held change nothing."""
    run = Run(
        tmp_path / "run", base, batch__turns_per_step=8, route="context_or_held", route__min_logprob=ANY
    )
    run.config = run.config.model_copy(
        update={"guards": GuardsConfig(max_session_share=0.5, quarantine="off")}
    )
    loud = [run.turn(f"loud {i}", "abc", session="loud", turn_id=f"loud{i}") for i in range(3)]
    run.record(*loud, run.turn("quiet", "abc", turn_id="quiet"), hint="say xyz")
    right(run, 3)
    with run.learner() as learner:
        learner.loop.start()
        claims = learner.log.claim(limit=8, needs="any", max_age_s=1e9)
        built = learner.loop._builder.build(claims, newest_version=0)
        assert sorted(item.source for item in built.samples) == ["held"] * 3 + ["sampled"] * 4
        weighed = learner.guards.weigh(built.samples, claims)

    found = {item.turn_ids[0]: item.weights.get("kd", (1.0,))[0] for item in weighed.samples}
    assert {name: value for name, value in found.items() if not name.startswith("right")} == {
        "loud0": pytest.approx(1 / 3), "loud1": pytest.approx(1 / 3), "loud2": pytest.approx(1 / 3), "quiet": 1.0,
    }  # fmt: skip
    assert [value for name, value in found.items() if name.startswith("right")] == [1.0] * 3


def test_an_answer_that_is_held_is_the_policys_own() -> None:
    """It counts in the mean reward of what the policy says, and no ratio takes it for somebody else's."""
    held = [replace(item, reward=1.0) for item in KEPT[:3]]
    learned = replace(LEARNED[0], reward=-1.0)
    assert mean_reward([*held, learned, replace(KEPT[3], reward=9.0, source="rehearsal")]) == {
        "reward_mean": 0.5
    }
    assert HELD in OWN
