"""Samples that a step gets beside the claimed turns: a file's answers, and the policy's own earlier ones."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from learner_run import Run, write_base

from agentrl.errors import ConfigError
from agentrl.learner.offline import OfflineFile
from agentrl.learner.pack import Row
from agentrl.learner.replay import OwnAnswers
from agentrl.learner.trainer import Trainer
from agentrl.nano import weights_dir
from agentrl.recipes.recipe import load_recipe
from agentrl.store.learning_log import LearningLog
from agentrl.text.renderer import load_renderer
from agentrl.types import Arm, Purpose, Turn

STRICT = {"limits.max_version_lag": 64, "limits.max_logprob_gap": 100.0}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("model") / "base")


def write(tmp_path: Path, records: Sequence[dict[str, Any] | str]) -> Path:
    path = tmp_path / "records.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in records) + "\n")
    return path


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def replies(number: int) -> list[dict[str, Any]]:
    return [{"messages": said(f"task {i}"), "reply": f"reply {i}"} for i in range(number)]


def comparisons(number: int) -> list[dict[str, Any]]:
    return [
        {"messages": said(f"task {i}"), "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(number)
    ]


def opened(base: Path, path: Path | str, recipe: str = "agent_distill", **overrides: Any) -> OfflineFile:
    settings = {"rollout.path": str(path), "batch.turns_per_step": 4} | {
        name.replace("__", "."): value for name, value in overrides.items()
    }
    return OfflineFile(load_recipe(recipe, settings), load_renderer(base), max_len=512, seed=0)


# the file


def test_an_answer_stands_behind_its_rendered_prompt_and_ends_as_a_reply_does(
    tmp_path: Path, base: Path
) -> None:
    renderer = load_renderer(base)
    path = write(tmp_path, [{"messages": said("hello"), "reply": "Hi <|im_end|>!"}])

    [sample] = opened(base, path).draw(0, 7).samples

    prompt = renderer.prompt(said("hello"), [], None).ids
    answer = (*renderer.encode_plain("Hi <|im_end|>!"), renderer.stop_ids[0])
    assert sample.token_ids == prompt + answer
    assert sample.loss_mask == (False,) * len(prompt) + (True,) * len(answer)
    assert renderer.decode(answer[:-1]) == "Hi <|im_end|>!"
    assert sample.source == "offline"
    assert sample.turn_ids == ()


def test_a_chain_of_hindsight_is_read_answer_by_answer_and_its_words_are_not_learnt(
    tmp_path: Path, base: Path
) -> None:
    """Two lines make the chain: the first answer's prompt and ids stand as a prefix in the second's prompt."""
    renderer = load_renderer(base)
    first = said("Name a colour. A bad answer:")
    both = [*first, {"role": "assistant", "content": "Seven."}, *said("A good answer:")]
    records = [{"messages": first, "reply": "Seven."}, {"messages": both, "reply": "Blue."}]

    samples = opened(base, write(tmp_path, records), "chain_of_hindsight").draw(0, 0).samples

    bad, good = sorted(samples, key=lambda sample: len(sample.token_ids))
    assert good.token_ids[: len(bad.token_ids)] == bad.token_ids
    for sample, text in ((bad, "Seven."), (good, "Blue.")):
        learnt = [i for i, trained in zip(sample.token_ids, sample.loss_mask, strict=True) if trained]
        assert renderer.decode(learnt[:-1]) == text


@pytest.mark.parametrize(("recipe", "records"), [("agent_distill", replies(3)), ("redi", comparisons(3))])
def test_no_answer_of_a_file_is_ever_given_a_sampler(
    tmp_path: Path, base: Path, recipe: str, records: list[dict[str, Any]]
) -> None:
    """Laws 1 and 7: without log-probs there is no ratio."""
    samples = opened(base, write(tmp_path, records), recipe).draw(0, 0).samples

    assert samples
    assert all(sample.behavior_logprobs is None and sample.num_allowed is None for sample in samples)


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("grpo", {}),
        ("openclaw_rl_binary", {}),
        ("openclaw_rl_opd", {"route": "all"}),
        ("hint_opsd", {"route": "all", "divergence": "rkl", "estimator": "iw_k3"}),
    ],
)
def test_a_recipe_with_a_ratio_cannot_read_a_file(recipe: str, overrides: dict[str, Any]) -> None:
    name = "openclaw_rl_hint" if recipe == "openclaw_rl_opd" else recipe
    for rollout in ("offline", "mixed"):
        with pytest.raises(
            ConfigError, match=f"rollout '{rollout}' brings answers that the policy did not sample"
        ):
            load_recipe(name, overrides | {"rollout": rollout})


def test_chosen_and_rejected_are_a_pair_and_a_bad_reply_is_a_rejected_side(
    tmp_path: Path, base: Path
) -> None:
    bad = {"messages": said("task"), "reply": "bad", "reward": 0.0}
    good = {"messages": said("task"), "reply": "good", "reward": 1.0}
    file = opened(base, write(tmp_path, [*comparisons(1), bad, good]), "redi", batch__turns_per_step=6)

    samples = {
        load_renderer(base).decode(s.token_ids[s.loss_mask.index(True) : -1]): s
        for s in file.draw(0, 0).samples
    }

    assert {text: sample.preferred for text, sample in samples.items()} == {
        "good 0": True,
        "bad 0": False,
        "bad": False,
        "good": True,
    }
    assert samples["good 0"].pair == samples["bad 0"].pair is not None
    assert samples["bad"].pair not in (None, samples["bad 0"].pair)
    assert samples["good"].pair is None


def test_a_route_keeps_the_bad_answers_of_a_file_out(tmp_path: Path, base: Path) -> None:
    records = [
        {"messages": said("task"), "reply": name, "reward": reward}
        for name, reward in (("good", 1.0), ("neutral", 0.0), ("bad", -1.0))
    ]
    path = write(tmp_path, records)
    route = {"name": "reward_at_least", "threshold": 0.5}

    drawn = opened(base, path, route=route).draw(0, 0)

    assert [sample.reward for sample in drawn.samples] == [1.0]
    assert drawn.dropped == {"records.jsonl:2": "no weight", "records.jsonl:3": "no weight"}
    with pytest.raises(ConfigError, match=r"route 'reward_at_least' lets no line of it be learned from"):
        opened(base, path, route=route | {"threshold": 1.5})


def test_each_record_is_read_once_an_epoch_in_an_order_of_its_own(tmp_path: Path, base: Path) -> None:
    path = write(tmp_path, replies(6))
    file = opened(base, path, rollout__epochs=2)
    again = opened(base, path, rollout__epochs=2)

    lines = [file.draw(step, 0).origin["lines"] for step in range(3)]

    assert [len(part) for part in lines] == [4, 4, 4]
    order = [number for part in lines for number in part]
    assert sorted(order[:6]) == sorted(order[6:]) == [1, 2, 3, 4, 5, 6]
    assert order[:6] != order[6:]
    assert (file.has_more(2), file.has_more(3)) == (True, False)
    # what a step takes hangs on its number alone: a restarted learner goes on
    assert again.draw(2, 5).origin == file.draw(2, 0).origin
    assert opened(base, path, rollout__epochs=0).has_more(10**6)


def test_the_last_step_of_a_file_takes_what_is_left(tmp_path: Path, base: Path) -> None:
    file = opened(base, write(tmp_path, replies(6)))

    assert [len(file.draw(step, 0).samples) for step in range(3)] == [4, 2, 0]
    assert file.draw(1, 0).origin["file"].endswith("records.jsonl")


def test_a_record_that_is_too_long_is_named(tmp_path: Path, base: Path) -> None:
    path = write(tmp_path, [{"messages": said("x"), "reply": "y" * 600}, *replies(1)])

    drawn = opened(base, path).draw(0, 0)

    assert len(drawn.samples) == 1
    [(name, why)] = drawn.dropped.items()
    assert name == "records.jsonl:1"
    assert why.startswith("longer than the model: ")


BROKEN: list[tuple[str, Any, str]] = [
    ("agent_distill", "{", "line 1 is no JSON"),
    ("agent_distill", {"messages": said("x")}, "a record has a reply, or chosen and rejected"),
    ("agent_distill", {"messages": said("x"), "chosen": "a"}, "a record has a reply, or chosen and rejected"),
    ("agent_distill", {"messages": [], "reply": "a"}, "line 1: messages"),
    ("agent_distill", {"messages": said("x"), "reply": "a", "rewrad": 1}, "line 1: rewrad"),
    ("agent_distill", comparisons(1)[0], "line 1 has chosen and rejected, but mix 'kd'"),
    ("redi", comparisons(1)[0] | {"reward": 1.0}, "a reward belongs to a reply"),
]


@pytest.mark.parametrize(("recipe", "record", "message"), BROKEN, ids=lambda value: str(value)[:20])
def test_a_file_that_cannot_be_learned_from_is_refused_with_its_line(
    tmp_path: Path, base: Path, recipe: str, record: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        opened(base, write(tmp_path, [record]), recipe)


def test_single_answers_are_refused_where_answers_are_compared(tmp_path: Path, base: Path) -> None:
    path = write(tmp_path, replies(1))
    with pytest.raises(
        ConfigError, match="mix 'dpo' compares two: give chosen and rejected, or set mix = 'redi'"
    ):
        OfflineFile(
            load_recipe("dpo", {"rollout": {"name": "offline", "path": str(path)}}),
            load_renderer(base),
            max_len=512,
            seed=0,
        )


def test_a_missing_path_or_file_is_refused_with_the_remedy(tmp_path: Path, base: Path) -> None:
    with pytest.raises(ConfigError, match=r"--set learn\.overrides\.rollout\.path=PATH"):
        opened(base, "")
    with pytest.raises(ConfigError, match=r"rollout\.path = '.*absent' is not there"):
        opened(base, tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"rollout\.path: .* cannot be read"):
        opened(base, tmp_path)
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConfigError, match="holds no record"):
        opened(base, tmp_path / "empty")


def test_tool_calls_are_written_as_the_model_s_template_writes_them(tmp_path: Path) -> None:
    folder = weights_dir()
    renderer = load_renderer(folder)
    parameters = {"type": "object", "properties": {"command": {"type": "string"}}}
    bash = {"type": "function", "function": {"name": "bash", "description": "Run.", "parameters": parameters}}
    call = {"id": "c1", "type": "function", "function": {"name": "bash", "arguments": '{"command": "ls"}'}}
    answer = {"content": "", "tool_calls": [call]}
    path = write(tmp_path, [{"messages": said("list the files"), "tools": [bash], "reply": answer}])
    recipe = load_recipe("agent_distill", {"rollout.path": str(path)})

    [sample] = OfflineFile(recipe, renderer, max_len=4096, seed=0).draw(0, 0).samples

    start = sample.loss_mask.index(True)
    assert sample.token_ids[:start] == renderer.prompt(said("list the files"), [bash], None).ids
    assert sample.token_ids[-1] in renderer.stop_ids
    read = renderer.parse(sample.token_ids[start:], [bash])
    assert [(one.name, json.loads(one.arguments)) for one in read.tool_calls] == [("bash", {"command": "ls"})]


# whole runs


def mean_logprob(trainer: Trainer, run: Run, text: str, reply: str) -> float:
    prompt, ids = run.prompt(text), tuple(run.renderer.encode_plain(reply))
    row = Row(token_ids=prompt + ids, positions=tuple(range(len(prompt), len(prompt) + len(ids))))
    return trainer.mean_logprobs([row])[0]


def test_a_run_learns_a_file_to_its_end_and_stops_there(tmp_path: Path, base: Path) -> None:
    path = write(tmp_path, replies(6))
    run = Run(tmp_path / "run", base, recipe="agent_distill", rollout__path=str(path), rollout__epochs=4)
    with run.learner() as learner:
        learner.loop.start()
        before = mean_logprob(learner.trainer, run, "task 1", "reply 1")
        learner.work()

        assert learner.trainer.num_steps == 6
        assert mean_logprob(learner.trainer, run, "task 1", "reply 1") > before + 0.5
        assert run.account() == (0, 0, {}, {})
    with LearningLog(run.path) as log:
        [step_id] = log.serving().step_ids
        step = log.step(step_id)
        assert step is not None
        assert step.turn_ids == ()
        assert step.metrics["file"] == str(path)
        assert len(step.metrics["lines"]) == 4


def test_a_restarted_run_goes_on_where_the_file_was_left(tmp_path: Path, base: Path) -> None:
    path = write(tmp_path, replies(12))
    settings = {"recipe": "agent_distill", "rollout__path": str(path)}
    run, whole = Run(tmp_path / "run", base, **settings), Run(tmp_path / "whole", base, **settings)
    with run.learner() as learner:
        learner.loop.start()
        assert learner.loop.once()
        assert learner.trainer.num_steps == 1
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
        parts = {name: tensor.detach().clone() for name, tensor in learner.trainer.policy.trained.items()}
    with whole.learner() as learner:
        learner.loop.start()
        learner.work()

        assert learner.trainer.num_steps == 3
        for name, tensor in learner.trainer.policy.trained.items():
            assert tensor.equal(parts[name]), name


def test_offline_pairs_are_learned_without_a_live_turn(tmp_path: Path, base: Path) -> None:
    path = write(tmp_path, comparisons(4))
    rollout = {"name": "offline", "path": str(path), "epochs": 3}
    run = Run(tmp_path / "run", base, recipe="dpo", rollout=rollout, mix={"name": "dpo", "beta": 1.0})
    with run.learner() as learner:
        learner.loop.start()
        learner.work()

        steps = learner.journal.of("step")
        assert len(steps) == 6
        assert steps[0]["metrics"]["loss"] == pytest.approx(math.log(2), abs=1e-5)
        assert steps[-1]["metrics"]["shared/preferred_share"] == 1.0
        assert all(step["num_turns"] == 0 for step in steps)


def test_a_mixed_step_is_part_live_and_part_file(tmp_path: Path, base: Path) -> None:
    path = write(tmp_path, replies(3))
    rollout = {"name": "mixed", "path": str(path), "p": 0.5}
    context = {"name": "hindsight_hint", "position": "tail"}
    run = Run(tmp_path / "run", base, rollout=rollout, route="all", context=context)
    run.hinted(4)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()

        assert run.account() == (4, 4, {}, {})
        assert [step["num_turns"] for step in learner.journal.of("step")] == [2, 2]
    with LearningLog(run.path) as log:
        [step_id] = log.serving().step_ids
        assert len(log.step(step_id).metrics["lines"]) == 2


def test_a_step_whose_records_are_all_unusable_is_passed_over_and_named(tmp_path: Path, base: Path) -> None:
    long = [{"messages": said("x"), "reply": "y" * 600}] * 4
    run = Run(tmp_path / "run", base, recipe="agent_distill", rollout__path=str(write(tmp_path, long)))
    with run.learner() as learner:
        learner.loop.start()
        learner.work()

        assert learner.trainer.num_steps == 0
        assert [event["reason"] for event in learner.journal.of("dropped")] == ["unusable record"] * 4


# the policy's own answers


def rewarded(run: Run, number: int, *, reward: float = 1.0, **changes: object) -> list[Turn]:
    turns = [run.turn(f"task {run.num_turns}", "abc", logprobs=(-5.0,) * 4, **changes) for _ in range(number)]
    return run.record(*turns, reward=reward)


def reward_run(tmp_path: Path, base: Path, rollout: dict[str, Any], **overrides: Any) -> Run:
    settings = {name.replace(".", "__"): value for name, value in STRICT.items()} | overrides
    return Run(tmp_path / "run", base, recipe="openclaw_rl_binary", rollout=rollout, **settings)


def drawn(run: Run, step: int = 0, newest: int = 1) -> Any:
    with run.learner() as learner:
        source = learner.loop._beside
        assert isinstance(source, OwnAnswers)
        return source.draw(step, newest)


def test_trained_successes_are_replayed_with_their_own_log_probs_and_counted_once(
    tmp_path: Path, base: Path
) -> None:
    run = reward_run(tmp_path, base, {"name": "replay", "share": 0.5})
    first = rewarded(run, 2)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
        assert run.account() == (2, 2, {}, {})
        rewarded(run, 2)
        learner.work()

        assert run.account() == (4, 4, {}, {})
        assert [step["num_turns"] for step in learner.journal.of("step")] == [2, 2]
    with LearningLog(run.path) as log:
        [step_id] = log.serving().step_ids
        assert sorted(log.step(step_id).metrics["replayed"]) == sorted(turn.id for turn in first)
    [sample, _] = drawn(run).samples
    assert sample.source == "replay"
    assert sample.turn_ids == ()
    assert sample.behavior_logprobs is not None
    assert sample.behavior_logprobs[-4:] == (-5.0,) * 4
    assert sample.advantages is not None
    assert sample.advantages[-1] == 1.0


def test_only_answers_within_the_bound_are_replayed(tmp_path: Path, base: Path) -> None:
    run = reward_run(tmp_path, base, {"name": "replay", "share": 0.5, "max_lag": 3})
    rewarded(run, 2)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()

    assert len(drawn(run, newest=3).samples) == 2
    assert drawn(run, newest=4).samples == ()


@pytest.mark.parametrize(
    ("changes", "reward"),
    [({"purpose": Purpose.EVAL}, 1.0), ({"arm": Arm.CONTROL}, 1.0), ({}, 0.0), ({}, -1.0)],
    ids=["evaluation", "control", "neutral", "failed"],
)
def test_what_may_not_be_learned_or_did_not_succeed_is_not_replayed(
    tmp_path: Path, base: Path, changes: dict[str, Any], reward: float
) -> None:
    run = reward_run(tmp_path, base, {"name": "replay", "share": 0.5})
    rewarded(run, 2, reward=reward, **changes)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
        learner.log.expire(0.0)

    assert drawn(run).samples == ()


def test_what_was_rolled_back_is_not_learned_again(tmp_path: Path, base: Path) -> None:
    """Law 8."""
    run = reward_run(tmp_path, base, {"name": "replay", "share": 0.5})
    rewarded(run, 2)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
        both = learner.log.successes(oldest_version=0, newest_version=9)
        assert len(both) == 2
        # trained in a version that stands, and set aside with a later one
        learner.log.reject(both[:1], "rolled_back")
        assert learner.log.successes(oldest_version=0, newest_version=9) == both[1:]
        learner.log.rollback("default", 0, "worse")

        assert learner.log.successes(oldest_version=0, newest_version=9) == []
        assert run.account() == (2, 0, {"rolled_back": 2}, {})


def test_an_answer_that_expired_untrained_may_be_replayed_and_one_in_hand_not(
    tmp_path: Path, base: Path
) -> None:
    run = reward_run(tmp_path, base, {"name": "replay", "share": 0.5})
    rewarded(run, 1)
    with LearningLog(run.path) as log:
        log.expire(0.0)
        assert len(log.successes(oldest_version=0, newest_version=0)) == 1
    rewarded(run, 1)
    with LearningLog(run.path) as log:
        log.claim(limit=1, needs="reward", max_age_s=1e12)
        assert len(log.successes(oldest_version=0, newest_version=0)) == 1


def test_version_0_s_good_answers_are_rehearsed_and_no_later_ones(tmp_path: Path, base: Path) -> None:
    rehearse = [{"name": "js_rehearsal", "coef": 0.1}]
    run = reward_run(tmp_path, base, {"name": "stream", "rehearsal": 0.5}, regularisers=rehearse)
    old = rewarded(run, 2)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
        rewarded(run, 2, version=1)
        learner.work()
        assert run.account() == (4, 4, {}, {})
        assert [step["metrics"]["num_rehearsed"] for step in learner.journal.of("step")] == [0, 8]

    found = drawn(run, step=5, newest=9)

    assert sorted(found.origin["rehearsed"]) == sorted(turn.id for turn in old)
    assert [sample.source for sample in found.samples] == ["rehearsal"] * 2
    for sample in found.samples:
        assert sample.turn_ids == ()
        assert sample.behavior_logprobs is not None
        assert sample.behavior_logprobs[-4:] == (-5.0,) * 4
        assert sample.version == 0
        assert sample.reward == 1.0
