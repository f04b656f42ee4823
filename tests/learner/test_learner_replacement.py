"""Answers that take the place of a group's worst: retries, rewrites, what once succeeded, a teacher's."""

from pathlib import Path

import pytest
import torch
from learner_run import Bench, Run, claim, group_of, reply_ids, trace_file, write_base

from agentrl.errors import ConfigError
from agentrl.learner.verifier import Verifier


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("transform")
    return Run(path / "run", write_base(path / "base"))


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
    with pytest.raises(ConfigError, match=r"transform\.path = '.*absent\.jsonl' is not there"):
        Bench(run, "ampo", transform__path=str(tmp_path / "absent.jsonl"))
