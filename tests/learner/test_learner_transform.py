"""What transforms make of claimed turns, with real weights behind them: laws 1, 3, 5 and 11."""

import inspect
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from learner_run import NOW, Run, write_base

from agentrl.errors import ConfigError
from agentrl.learner.build import Builder, Built, Dropped, without
from agentrl.learner.confidence import stated, with_confidence
from agentrl.learner.members import confident
from agentrl.learner.pack import Row, teacher_positions
from agentrl.learner.second_stage import SecondStage
from agentrl.learner.teacher_weights import Weights
from agentrl.learner.trainer import Trainer
from agentrl.learner.transform import TRANSFORMS, max_variance
from agentrl.learner.verifier import Verifier, final_answer, same_answer
from agentrl.recipes import axes
from agentrl.recipes.recipe import load_recipe
from agentrl.store.claims import Claimed
from agentrl.types import NextState, RedactedSpan, Signal, SignalSource, TrainingSample, Turn


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("transform")
    return Run(path / "run", write_base(path / "base"))


class Bench:
    """A recipe's trainer, second stage and builder on a tiny model."""

    def __init__(
        self, run: Run, recipe: str, *, verifier: Verifier | None = same_answer, **overrides: object
    ) -> None:
        settings = {name.replace("__", "."): value for name, value in overrides.items()}
        self.run = run
        self.recipe = load_recipe(recipe, settings)
        self.trainer = Trainer(run.base, self.recipe, run.config.learn)
        self.stage = SecondStage.of(self.trainer, run.renderer, verifier=verifier)
        self.builder = Builder(
            recipe=self.recipe, renderer=run.renderer, max_len=self.trainer.max_len, stage=self.stage
        )

    def build(self, claims: Sequence[Claimed]) -> Built:
        built = self.builder.build(claims, newest_version=0)
        named = [turn_id for item in built.dropped for turn_id in item.turn_ids]
        trained = {turn_id for sample in built.samples for turn_id in sample.turn_ids}
        assert sorted([*named, *trained]) == sorted(c.turn.id for c in claims), "every turn, once (law 3)"
        return built


def claim(
    turn: Turn,
    *,
    reward: float | None = None,
    group: str | None = None,
    judged: float | None = None,
    **said: object,
) -> Claimed:
    """A turn whose episode ended with a reward, and one signal that says and judges what is given."""
    signals = (
        (Signal(turn_id=turn.id, source=SignalSource.RULE, created_at=NOW, reward=judged, **said),)
        if said
        else ()
    )
    return Claimed(turn=turn, next_state=None, signals=signals, use=1, group=group, episode_reward=reward)


def group_of(run: Run, rewards: Sequence[float | None], reply: str = "abc", **said: object) -> list[Claimed]:
    return [
        claim(run.turn("do it", reply, logprobs=(-5.0,) * (len(reply) + 1)), reward=reward, group="g", **said)
        for reward in rewards
    ]


def reply_ids(sample: TrainingSample) -> tuple[int, ...]:
    first = sample.loss_mask.index(True)
    return sample.token_ids[first:]


# what is pure


def test_every_transform_has_a_function_with_its_parameters() -> None:
    classes = get_args(get_args(axes.Transform)[0])
    options = {option.model_fields["name"].default: option for option in classes}
    assert set(options) == set(TRANSFORMS)
    for name, function in TRANSFORMS.items():
        arguments = list(inspect.signature(function).parameters)[1:]
        assert set(arguments) == set(options[name].model_fields) - {"name"}, name


def test_every_transform_says_whether_log_probs_stay_valid() -> None:
    """Law 1: those that put ids where nobody has sampled them, or train others than were sampled."""
    classes = get_args(get_args(axes.Transform)[0])
    keeps = {option.model_fields["name"].default: option.keeps_logprobs for option in classes}
    assert keeps == {
        "none": True,
        "drop_constant": True,
        "subset_max_var": True,
        "retry": True,
        "rewrite": True,
        "second_turn": False,
        "confidence_rewrite": False,
        "replace": True,
    }


def test_the_subset_of_largest_variance_is_that_of_enumeration() -> None:
    def variance(values: Sequence[float]) -> float:
        mean = sum(values) / len(values)
        return sum((value - mean) ** 2 for value in values) / len(values)

    for rewards in ((0.0, 0.2, 0.9, 1.0, 0.4), (1.0, 1.0, 1.0, 0.0, 0.9), (0.5, 0.1, 0.6, 0.7, 0.2)):
        known = {str(index): reward for index, reward in enumerate(rewards)}
        for keep in (2, 3, 4):
            best = max(variance(chosen) for chosen in itertools.combinations(rewards, keep))
            chosen = max_variance(known, keep)
            assert len(chosen) == keep
            assert variance([known[name] for name in chosen]) == pytest.approx(best)
    assert max_variance({"a": 1.0, "b": 0.0}, 4) == {"a", "b"}


def test_a_group_without_contrast_is_dropped_and_counted(run: Run) -> None:
    bench = Bench(run, "grpo", transform="drop_constant", rollout__group_size=2)
    constant = group_of(run, [1.0, 1.0])
    varied = [Claimed(**(vars_of(c) | {"group": "h"})) for c in group_of(run, [1.0, 0.0])]

    built = bench.build([*constant, *varied])

    assert {item.reason for item in built.dropped} == {"constant group"}
    assert [sample.group for sample in built.samples] == ["'default' h"] * 2
    assert [sample.source for sample in built.samples] == ["sampled", "sampled"]


def vars_of(item: Claimed) -> dict[str, object]:
    return {name: getattr(item, name) for name in item.__dataclass_fields__}


def test_a_subset_has_the_advantages_of_the_kept_among_each_other(run: Run) -> None:
    transform = {"name": "subset_max_var", "keep": 2}
    bench = Bench(
        run, "grpo", transform=transform, rollout__group_size=4, advantage={"name": "group", "std": "none"}
    )

    built = bench.build(group_of(run, [0.2, 1.0, 0.4, 0.0]))

    assert [sample.reward for sample in built.samples] == [1.0, 0.0]
    assert [sample.advantages[-1] for sample in built.samples if sample.advantages] == [0.5, -0.5]
    assert {item.reason for item in built.dropped} == {"less variance of rewards"}


# answers behind a context


RETRY = {"name": "retry", "max_tokens": 6}


def test_a_retry_is_sampled_behind_the_hint_and_trained_on_the_plain_prompt(run: Run) -> None:
    bench = Bench(run, "hint_opsd", transform=RETRY)
    turn = run.turn("do it", "abc")

    [sample] = bench.build([claim(turn, hint="be quick")]).samples

    assert sample.source == "retry"
    assert sample.turn_ids == (turn.id,)
    assert sample.token_ids[: len(turn.prompt_ids)] == turn.prompt_ids, "law 5: the prompt as it was served"
    assert reply_ids(sample) != turn.completion.token_ids
    assert sample.behavior_logprobs is None, "they belong to another prompt, and no loss here divides by them"
    assert sample.teacher is not None
    [(start, end)] = sample.teacher.inserted_spans
    assert "Hint: be quick" in run.renderer.decode(sample.teacher.token_ids[start:end])


def test_a_turn_without_context_is_not_tried_again(run: Run) -> None:
    built = Bench(run, "hint_opsd", transform=RETRY).build([claim(run.turn("do it", "abc"))])

    assert [item.reason for item in built.dropped] == ["no context"]


@pytest.mark.parametrize("by", ["policy", "teacher"])
def test_where_a_loss_divides_by_them_an_answers_log_probs_are_those_of_the_prompt_it_was_sampled_on(
    run: Run, by: str
) -> None:
    bench = Bench(
        run,
        "openclaw_rl_hint",
        transform=RETRY | {"by": by},
        sync={"name": "ema", "rate": 0.5},
        limits__max_logprob_gap=20.0,
    )
    with torch.no_grad():
        for tensor in bench.trainer.policy.trained.values():
            tensor.mul_(1.1)

    [sample] = bench.build([claim(run.turn("do it", "abc"), hint="be quick")]).samples

    assert sample.source == ("retry" if by == "policy" else "teacher")
    assert sample.behavior_logprobs is not None
    assert sample.teacher is not None
    positions = tuple(i for i, trained in enumerate(sample.loss_mask) if trained)
    there = teacher_positions(sample.teacher, sample.token_ids, positions)
    weights = Weights(bench.trainer.policy, None) if by == "policy" else bench.trainer.teacher
    assert weights is not None
    [behind_hint] = weights.logprobs(
        [Row(token_ids=sample.teacher.token_ids, positions=there)], max_tokens=999
    )
    recorded = torch.tensor([sample.behavior_logprobs[i] for i in positions])
    assert recorded == pytest.approx(behind_hint, abs=1e-4)
    [plain] = Weights(bench.trainer.policy, None).logprobs(
        [Row(token_ids=sample.token_ids, positions=positions)], max_tokens=999
    )
    assert recorded != pytest.approx(plain, abs=1e-2)


def test_the_same_step_samples_the_same_and_the_next_one_does_not(run: Run) -> None:
    """Law 11."""
    turns = [run.turn(f"task {i}", "abc") for i in range(3)]
    claims = [claim(turn, hint="be quick") for turn in turns]
    first, again = (Bench(run, "hint_opsd", transform=RETRY) for _ in range(2))

    assert first.build(claims) == again.build(claims)
    again.trainer.num_steps += 1
    assert first.build(claims) != again.build(claims)


def test_a_rewrite_is_the_teachers_and_the_teacher_has_seen_the_attempt(run: Run) -> None:
    bench = Bench(run, "trd", transform__max_tokens=6)
    with torch.no_grad():
        for tensor in bench.trainer.policy.trained.values():
            tensor.mul_(1.1)  # the teacher stays at version 0
    turn = run.turn("do it", "my attempt")

    [sample] = bench.build([claim(turn, preferred="the solution")]).samples

    assert sample.source == "rewrite"
    assert sample.teacher is not None
    shown = "".join(
        run.renderer.decode(sample.teacher.token_ids[a:b]) for a, b in sample.teacher.inserted_spans
    )
    assert "my attempt" in shown
    assert "the solution" in shown
    assert "my attempt" not in run.renderer.decode(sample.token_ids)


def accepts(even: bool) -> Verifier:
    """Right is an answer of an even number of characters, or an odd one."""
    return lambda record, text: float((len(text) % 2 == 0) == even)


def test_only_rewrites_that_are_found_right_are_trained_where_that_is_asked(run: Run) -> None:
    claims = [claim(run.turn(f"task {i}", "abc")) for i in range(12)]

    def kept(verifier: Verifier) -> tuple[set[str], set[str]]:
        built = Bench(
            run, "trd", verifier=verifier, transform={"name": "rewrite", "verify": True, "max_tokens": 5}
        ).build(claims)
        return {s.turn_ids[0] for s in built.samples}, {item.reason for item in built.dropped}

    even, reasons = kept(accepts(True))
    odd, _ = kept(accepts(False))
    assert reasons == {"rewrite not right"}
    assert even | odd == {item.turn.id for item in claims}
    assert even
    assert odd
    assert not even & odd
    assert kept(lambda record, text: None) == (set(), {"rewrite not verified"}), (
        "unknown is not right (law 6)"
    )


def test_where_the_context_leaves_no_room_the_turn_is_dropped_and_counted(run: Run) -> None:
    bench = Bench(run, "hint_opsd", transform=RETRY)

    built = bench.build([claim(run.turn("do it", "abc"), hint="y" * 600)])

    assert [item.reason for item in built.dropped] == ["no room for a new answer"]


# second turns


def rltf(run: Run, verifier: Verifier, learn: str = "answer", **overrides: object) -> Bench:
    transform = {"name": "second_turn", "learn": learn, "discount": 0.5, "max_tokens": 5} | overrides
    return Bench(
        run,
        "rltf_sd",
        verifier=verifier,
        transform=transform,
        rollout__group_size=2,
        advantage={"name": "group", "std": "none"},
    )


def test_both_turns_are_rewarded_and_the_second_is_learnt_without_the_critique(run: Run) -> None:
    claims = group_of(run, [0.0, 1.0], hint="look again")
    bench = rltf(run, lambda record, text: 1.0 if record.turn.id == claims[0].turn.id else 0.0)

    samples = bench.build(claims).samples

    kinds = [(s.turn_ids[0], s.source, s.weights.get("kd"), s.weights.get("rl")) for s in samples]
    assert len(samples) == 6
    for offset, item, r0, r1 in ((0, claims[0], 0.0, 1.0), (3, claims[1], 1.0, 0.0)):
        first, second, learnt = samples[offset : offset + 3]
        turn = item.turn
        assert [kind[:2] for kind in kinds[offset : offset + 3]] == [
            (turn.id, "sampled"),
            (turn.id, "second_turn"),
            (turn.id, "second_turn"),
        ]
        assert first.token_ids == turn.prompt_ids + turn.completion.token_ids
        assert second.token_ids[: len(first.token_ids)] == first.token_ids, (
            "sampled ids stay as they are (law 1)"
        )
        assert "look again" in run.renderer.decode(second.token_ids)
        assert learnt.token_ids[: len(turn.prompt_ids)] == turn.prompt_ids
        assert reply_ids(learnt) == reply_ids(second)
        assert "look again" not in run.renderer.decode(learnt.token_ids)
        assert {first.reward, second.reward} == {r0 + 0.5 * r1, r1}
        # returns (.5, 1), second rewards (1, 0), mean of first rewards .5
        assert [s.advantages[-1] for s in (first, second, learnt) if s.advantages] == [
            -0.25 if r0 == 0.0 else 0.25,
            0.5 if r1 == 1.0 else -0.5,
            r1 - 0.5,
        ]
        assert set(learnt.weights["rl"]) == {0.0}
        assert "kd" not in learnt.weights
        assert set(first.weights["kd"]) == set(second.weights["kd"]) == {0.0}
        assert {s.behavior_logprobs for s in (second, learnt)} == {None}


def test_a_turn_of_which_one_sample_is_too_long_is_trained_and_not_rejected(run: Run) -> None:
    """Law 3: the second turn reads the first one and its critique as well, and no longer fits."""
    claims = group_of(run, [0.0, 1.0], hint="look again " * 5)
    bench = rltf(run, accepts(True))
    bench.builder = replace(bench.builder, max_len=80)

    built = bench.build(claims)

    assert built.dropped == ()
    assert [sample.source for sample in built.samples] == ["sampled", "second_turn"] * 2
    assert max(len(sample.token_ids) for sample in built.samples) <= 80


def test_feedback_modelling_trains_the_critiques_own_words_and_nothing_else(run: Run) -> None:
    claims = group_of(run, [0.0, 1.0], hint="look again")
    samples = rltf(run, accepts(True), "critique").build(claims).samples

    said = [sample for sample in samples if set(sample.weights.get("rl", (1.0,))) == {0.0}]
    assert len(said) == 2
    for sample in said:
        words = [token for token, trained in zip(sample.token_ids, sample.loss_mask, strict=True) if trained]
        assert run.renderer.decode(words) == "look again"
        assert sample.advantages is not None
        assert {a for a, trained in zip(sample.advantages, sample.loss_mask, strict=True) if trained} == {1.0}


def test_what_followed_a_turn_may_be_its_critique(run: Run) -> None:
    plain = group_of(run, [0.0, 1.0])
    followed = [
        Claimed(
            **(
                vars_of(item)
                | {
                    "next_state": NextState(
                        turn_id=item.turn.id, messages=({"role": "user", "content": "that failed"},)
                    )
                }
            )
        )
        for item in plain
    ]
    bench = rltf(run, accepts(True), critique="next_state")

    samples = bench.build(followed).samples

    read = [sample for sample in samples if "that failed" in run.renderer.decode(sample.token_ids)]
    assert [sample.source for sample in read] == ["second_turn"] * 2
    assert [sample.source for sample in bench.build(plain).samples] == ["sampled"] * 2


# confidence


def test_a_confidence_is_found_and_written_in_its_own_form() -> None:
    assert with_confidence("Answer: 4. Confidence: 90%", 0.625) == "Answer: 4. Confidence: 62%"
    assert with_confidence('{"confidence": 0.9}', 0.625) == '{"confidence": 0.62}'
    assert with_confidence("confidence is 90", 0.5) == "confidence is 50"
    assert (
        with_confidence("confidence: 10%, then Confidence = 20%", 0.5)
        == "confidence: 10%, then Confidence = 50%"
    )
    assert with_confidence("I am sure.", 0.5) == "I am sure."
    assert stated("no number: confidence high", 0.5) is None


def test_the_stated_confidence_becomes_the_accuracy_of_the_group_in_answer_and_context(run: Run) -> None:
    bench = Bench(run, "caopd", rollout__group_size=4)
    reply = "It is 4. Confidence: 90%!"
    claims = group_of(run, [1.0, 0.0, 0.0, 0.0], reply, preferred="It is 5. Confidence: 99%")

    samples = bench.build(claims).samples

    assert len(samples) == 4
    for sample, item in zip(samples, claims, strict=True):
        old, new = item.turn.completion.token_ids, reply_ids(sample)
        assert run.renderer.decode(new[:-1]) == "It is 4. Confidence: 25%!"
        start = len("It is 4. Confidence: ")
        assert new[:start] == old[:start], "one character an id here: only the edited span is tokenised anew"
        assert new[start + 2 :] == old[start + 2 :]
        assert sample.behavior_logprobs is None, "law 1: nobody sampled this text"
        assert sample.teacher is not None
        [(a, b)] = sample.teacher.inserted_spans
        assert "Confidence: 25%" in run.renderer.decode(sample.teacher.token_ids[a:b])


def test_a_redacted_answer_is_not_edited_but_dropped(run: Run) -> None:
    bench = Bench(run, "caopd", rollout__group_size=2)
    good, bad = group_of(run, [1.0, 0.0], "Confidence: 90%", preferred="x")
    span = RedactedSpan(path="reply.text", start=0, end=3, rule="key")
    hidden = run.turn("do it", "Confidence: 90%", redacted_spans=(span,))

    built = bench.build([good, Claimed(**(vars_of(bad) | {"turn": hidden}))])

    assert [item.reason for item in built.dropped] == ["redacted sample"]


# replacement


def replaced(run: Run, verifier: Verifier | None = None, /, **transform: object) -> Bench:
    settings = {"name": "replace", "max_tokens": 5} | transform
    return Bench(
        run,
        "grpo",
        verifier=verifier,
        transform=settings,
        rollout__group_size=3,
        advantage={"name": "group", "std": "none"},
        offpolicy={"name": "shape", "denominator": "sampler"},
        limits__max_logprob_gap=30.0,
        **({"context": "hindsight_hint"} if transform["source"] in ("retry", "rewrite") else {}),
    )


def test_a_hopeless_group_gets_answers_that_were_tried_until_right(run: Run) -> None:
    claims = group_of(run, [0.0, 0.0, 0.0], hint="be quick")
    tried: list[str] = []

    def third_time(record: object, text: str) -> float:
        tried.append(text)
        return float(len(tried) >= 4)

    bench = replaced(run, third_time, source="retry", when="all_fail", k=2, tries=5)
    samples = bench.build(claims).samples

    assert sorted(sample.source for sample in samples) == ["retry", "retry", "sampled"]
    assert len(tried) == 5, "two at a time: the fourth and, alone or with another, the fifth"
    assert [sample.reward for sample in samples if sample.source == "retry"] == [1.0, 1.0]
    by_source = {s.source: s.advantages[-1] for s in samples if s.advantages}
    assert by_source == pytest.approx({"retry": 1 / 3, "sampled": -2 / 3}), "over the group as it is now"
    assert {s.turn_ids[0] for s in samples} == {c.turn.id for c in claims}


@pytest.mark.parametrize(("rewards", "verdict"), [([1.0, 0.0, 0.0], 1.0), ([0.0, 0.0, 0.0], 0.0)])
def test_a_group_with_a_success_or_without_a_right_retry_stays(
    run: Run, rewards: list[float], verdict: float
) -> None:
    bench = replaced(run, lambda record, text: verdict, source="retry", when="all_fail", k=2, tries=2)

    samples = bench.build(group_of(run, rewards, hint="be quick")).samples

    assert [sample.source for sample in samples] == ["sampled"] * 3


def test_the_best_rewrite_takes_the_worst_attempts_place_and_what_it_improved_gets_a_bonus(run: Run) -> None:
    claims = group_of(run, [0.25, 0.5, 0.0], hint="be quick")
    score = {claims[0].turn.id: 0.75, claims[1].turn.id: 0.25, claims[2].turn.id: 0.5}
    bench = replaced(
        run, lambda record, text: score[record.turn.id], source="rewrite", when="better", bonus=0.1
    )

    first, second, third = bench.build(claims).samples

    assert (first.source, first.reward) == ("sampled", pytest.approx(0.25 + 0.1 * 0.5))
    assert (second.source, second.reward) == ("sampled", 0.5)
    assert (third.source, third.reward) == ("rewrite", 0.75)
    assert third.turn_ids == (claims[2].turn.id,)


def test_a_replaced_episode_is_replaced_whole(run: Run) -> None:
    claims = group_of(run, [0.0, 0.0], hint="be quick")
    later = run.turn("do it", "xyz", session=claims[0].turn.session, logprobs=(-5.0,) * 4)
    bench = replaced(run, lambda record, text: 1.0, source="retry", when="all_fail", k=2)

    built = bench.build([*claims, claim(later, reward=0.0, group="g", hint="be quick")])

    assert [(item.turn_ids, item.reason) for item in built.dropped] == [
        ((later.id,), "replaced with its episode")
    ]
    assert [sample.source for sample in built.samples] == ["retry", "retry"]


def test_a_group_without_contrast_gets_back_what_once_succeeded_on_its_prompt(run: Run) -> None:
    bench = replaced(run, None, source="replay", when="constant_group")
    success, *_ = first = group_of(run, [1.0, 0.0, 0.0], "yes")
    assert [s.source for s in bench.build(first).samples] == ["sampled"] * 3
    failed = group_of(run, [0.0, 0.0, 0.0], "no.")

    samples = bench.build(failed).samples

    [back] = [sample for sample in samples if sample.source == "replay"]
    assert back.token_ids == success.turn.prompt_ids + success.turn.completion.token_ids
    assert back.behavior_logprobs is not None, "its own, of the same prompt"
    assert back.behavior_logprobs[-1] == -5.0
    assert back.turn_ids[0] in {item.turn.id for item in failed}
    assert bench.stage is not None
    bench.stage.clear()
    assert [s.source for s in bench.build(group_of(run, [0.0] * 3, "no.")).samples] == ["sampled"] * 3


def trace_file(path: Path, *records: dict[str, object]) -> Path:
    path.write_text("\n".join(json.dumps(record) for record in records))
    return path


def test_a_hopeless_group_gets_the_teachers_answers_that_the_policy_understands_best(
    run: Run, tmp_path: Path
) -> None:
    asked = [{"role": "user", "content": "do it"}]
    answers = ["first way", "another way", "a third way", "wrong"]
    path = trace_file(
        tmp_path / "traces.jsonl",
        *({"messages": asked, "reply": text, "reward": float(text != "wrong")} for text in answers),
        {"messages": [{"role": "user", "content": "else"}], "reply": "not asked", "reward": 1.0},
    )
    bench = Bench(run, "ampo", rollout__group_size=3, transform__path=str(path))
    claims = group_of(run, [0.0, 0.0, 0.0], preferred="42")

    samples = bench.build(claims).samples

    policy = bench.trainer.policy
    understood = {}
    for text in answers[:3]:
        read = (*claims[0].turn.prompt_ids, *run.renderer.encode_plain(text))
        ids = (*read, *run.renderer.encode_plain("\n42"))
        with torch.no_grad():
            logprobs = policy.causal_lm(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        known = [float(logprobs[at - 1, ids[at]].exp()) for at in range(len(read), len(ids))]
        understood[text] = sum(known) / len(known)
    best = sorted(understood, key=lambda text: -understood[text])[:2]
    taken = [sample for sample in samples if sample.source == "teacher"]
    assert sorted(run.renderer.decode(reply_ids(sample)[:-1]) for sample in taken) == sorted(best)
    assert {sample.reward for sample in taken} == {1.0}
    assert {sample.behavior_logprobs for sample in taken} == {None}
    assert [sample.source for sample in samples].count("sampled") == 1


def test_a_line_that_is_no_answer_in_words_is_refused_by_number(run: Run, tmp_path: Path) -> None:
    asked = [{"role": "user", "content": "do it"}]
    path = trace_file(
        tmp_path / "t.jsonl", {"messages": asked, "reply": "x"}, {"messages": asked, "reply": ""}
    )
    with pytest.raises(ConfigError, match=r"t\.jsonl:2: a teacher's answer is one in words"):
        Bench(run, "ampo", transform__path=str(path))
    with pytest.raises(ConfigError, match="cannot be read"):
        Bench(run, "ampo", transform__path=str(tmp_path / "absent.jsonl"))


# what is refused


@pytest.mark.parametrize("recipe", ["rltf_sd", "herl", "pi_distill"])
def test_a_transform_that_needs_rewards_is_refused_without_a_verifier(run: Run, recipe: str) -> None:
    with pytest.raises(ConfigError, match=r"needs a reward for the answers that it samples.*same_answer"):
        Bench(run, recipe, verifier=None)


def test_a_rewrite_that_nobody_can_check_is_refused_where_checking_is_asked(run: Run) -> None:
    Bench(run, "trd", verifier=None)
    with pytest.raises(ConfigError, match="without a verifier"):
        Bench(run, "trd", verifier=None, transform__verify=True)


def test_a_groups_teacher_without_a_file_is_refused(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"names no file of them: --set learn\.overrides\.transform\.path"):
        Bench(run, "ampo")


def test_a_builder_without_a_second_stage_refuses_what_needs_one(run: Run) -> None:
    with pytest.raises(ConfigError, match="without a second generation stage"):
        Builder(recipe=load_recipe("trd"), renderer=run.renderer, max_len=100)


# the verifier that ships


@pytest.mark.parametrize(
    ("text", "preferred", "reward"),
    [
        ("The answer is 1,000.", "1000", 1.0),
        ("so \\boxed{ 0.50 }", "Answer: .5", 1.0),
        ("Answer: 3\nAnswer: 4", "4", 1.0),
        ("Answer: 3\nAnswer: 4", "3", 0.0),
        ("  PARIS! ", "paris", 1.0),
        ("paris, france", "paris", 0.0),
        ("four", "4", 0.0),
    ],
)
def test_answers_are_compared_by_what_they_say(run: Run, text: str, preferred: str, reward: float) -> None:
    assert same_answer(claim(run.turn("q", "a"), preferred=preferred), text) == reward


def test_without_a_reference_nobody_knows(run: Run) -> None:
    assert same_answer(claim(run.turn("q", "a")), "4") is None
    assert same_answer(claim(run.turn("q", "a"), preferred="  "), "4") is None
    assert final_answer("nan") == "nan"


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
        run = Run(tmp_path / name, base, recipe="hint_opsd", transform=RETRY)
        run.hinted(4)
        run.record(run.turn("no hint", "abc"))
        with run.learner() as learner:
            learner.loop.start()
            learner.work()
            steps = learner.journal.of("step")
            assert sum(int(step["num_turns"]) for step in steps) == 4
            versions = [version for version in learner.log.versions("default") if version.number]
            assert [version.metrics["num_retry"] for version in versions] == [3.0, 1.0]
            assert run.account()[1:3] == (4, {"no context": 1})
            return learner.bits()[0]

    first, again = weights("first"), weights("again")
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_nan_marks_what_nobody_sampled_in_an_edited_answer(run: Run) -> None:
    """The log-probs of the distribution sampled from are kept where they still mean something, and only there."""
    turn = run.turn("q", "Confidence: 90%", logprobs=tuple(-float(i) for i in range(16)))
    edited = confident(turn, run.renderer, 0.5).completion

    assert [i for i, value in enumerate(edited.logprobs) if math.isnan(value)] == [12, 13]
    assert edited.logprobs[11] == -11.0
    assert edited.logprobs[14] == -14.0
    assert edited.raw_logprobs is None


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
