"""Second turns: a critique, another answer, and what is learnt without the critique."""

from dataclasses import replace

import pytest
from learner_run import Bench, Run, accepts, group_of, reply_ids, vars_of, write_base

from agentrl.learner.verifier import Verifier
from agentrl.store.claims import Claimed
from agentrl.types import NextState


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("transform")
    return Run(path / "run", write_base(path / "base"))


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
