"""What transforms make of claimed turns, with real weights behind them: laws 1, 3, 5 and 11."""

import inspect
import itertools
import math
from collections.abc import Sequence
from typing import get_args

import pytest
import torch
from learner_run import RETRY, Bench, Run, accepts, claim, group_of, reply_ids, vars_of, write_base

from agentrl.errors import ConfigError
from agentrl.learner.build import Builder
from agentrl.learner.confidence import stated, with_confidence
from agentrl.learner.members import confident
from agentrl.learner.pack import Row, teacher_positions
from agentrl.learner.teacher_weights import Weights
from agentrl.learner.transform import TRANSFORMS, max_variance
from agentrl.learner.verifier import Verifier, final_answer, same_answer
from agentrl.recipes import axes
from agentrl.recipes.recipe import load_recipe
from agentrl.store.claims import Claimed
from agentrl.types import RedactedSpan


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("transform")
    return Run(path / "run", write_base(path / "base"))


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
        "next_answer": True,
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


def test_a_retry_is_sampled_behind_the_hint_and_trained_on_the_plain_prompt(run: Run) -> None:
    bench = Bench(run, "hint_opsd", transform=RETRY, route="has_context")
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
    built = Bench(run, "hint_opsd", transform=RETRY, route="has_context").build(
        [claim(run.turn("do it", "abc"))]
    )

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
    first, again = (Bench(run, "hint_opsd", transform=RETRY, route="has_context") for _ in range(2))

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
    bench = Bench(run, "hint_opsd", transform=RETRY, route="has_context")

    built = bench.build([claim(run.turn("do it", "abc"), hint="y" * 600)])

    assert [item.reason for item in built.dropped] == ["no room for a new answer"]


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
    with pytest.raises(ConfigError, match=r"nobody says which: --set learn\.overrides\.transform\.path=PATH"):
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


def test_nan_marks_what_nobody_sampled_in_an_edited_answer(run: Run) -> None:
    """The log-probs of the distribution sampled from are kept where they still mean something, and only there."""
    turn = run.turn("q", "Confidence: 90%", logprobs=tuple(-float(i) for i in range(16)))
    edited = confident(turn, run.renderer, 0.5).completion

    assert [i for i, value in enumerate(edited.logprobs) if math.isnan(value)] == [12, 13]
    assert edited.logprobs[11] == -11.0
    assert edited.logprobs[14] == -14.0
    assert edited.raw_logprobs is None
