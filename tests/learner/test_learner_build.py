import pytest
from learner_run import NOW, Run, write_base

from agentrl.learner.build import SAMPLED_PATH, Builder, Built, reward_of
from agentrl.recipes.recipe import load_recipe
from agentrl.store.claims import Claimed
from agentrl.types import (
    Completion,
    FinishReason,
    RedactedSpan,
    Signal,
    SignalSource,
    TeacherView,
    Turn,
    VersionSpan,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("build")
    return Run(path / "run", write_base(path / "base"))


def signal(turn: Turn, source: SignalSource = SignalSource.RULE, at: float = NOW, **given: object) -> Signal:
    return Signal(turn_id=turn.id, source=source, created_at=at, **given)


def claim(turn: Turn, *signals: Signal, **changes: object) -> Claimed:
    return Claimed(**({"turn": turn, "next_state": None, "signals": signals, "use": 1} | changes))


def build(
    run: Run, claims: list[Claimed], recipe: str = "hint_opsd", *, newest: int = 0, **overrides: object
) -> Built:
    chosen = load_recipe(recipe, {name.replace("__", "."): value for name, value in overrides.items()})
    return Builder(recipe=chosen, renderer=run.renderer, max_len=200).build(claims, newest_version=newest)


def test_a_sample_holds_the_served_and_the_sampled_ids_verbatim(run: Run) -> None:
    turn = run.turn("do it", "done", logprobs=(-1.0, -2.0, -3.0, -4.0, -5.0))

    [sample] = build(run, [claim(turn, signal(turn, hint="be quick"))]).samples

    num_prompt = len(turn.prompt_ids)
    assert sample.token_ids == turn.prompt_ids + turn.completion.token_ids
    assert sample.loss_mask == (False,) * num_prompt + (True,) * 5
    assert sample.behavior_logprobs == (0.0,) * num_prompt + (-1.0, -2.0, -3.0, -4.0, -5.0)
    assert sample.num_allowed == (0,) * num_prompt + (260,) * 5
    assert sample.turn_ids == (turn.id,)
    assert sample.version == 0


def test_the_teacher_reads_the_hint_and_otherwise_the_same_ids(run: Run) -> None:
    turn = run.turn("do it", "done")

    [sample] = build(run, [claim(turn, signal(turn, hint="be quick"))]).samples

    assert sample.teacher is not None
    [(start, end)] = sample.teacher.inserted_spans
    ids = sample.teacher.token_ids
    assert "Hint: be quick" in run.renderer.decode(ids[start:end])
    assert ids[:start] + ids[end:] == sample.token_ids


def test_a_stream_of_the_wrong_length_is_an_error_with_both_lengths() -> None:
    span = VersionSpan(version=0, start=0, end=3)
    with pytest.raises(ValueError, match="raw_logprobs has 2 entries for 3 sampled ids"):
        Completion(
            token_ids=(1, 2, 3),
            logprobs=(-1.0, -1.0, -1.0),
            raw_logprobs=(-1.0, -1.0),
            num_allowed=None,
            finish_reason=FinishReason.STOP,
            version_spans=(span,),
        )


def test_a_turn_without_its_hint_is_dropped_with_the_reason(run: Run) -> None:
    turn = run.turn("do it", "done")

    built = build(run, [claim(turn)])

    assert built.samples == ()
    assert [(item.turn_ids, item.reason) for item in built.dropped] == [((turn.id,), "no context")]


def test_a_turn_of_a_version_too_old_is_dropped_with_the_reason(run: Run) -> None:
    turn = run.turn("do it", "done", version=2)
    claims = [claim(turn, signal(turn, hint="x"))]

    assert len(build(run, claims, newest=10).samples) == 1
    assert [item.reason for item in build(run, claims, newest=11).dropped] == ["version lag"]


def test_a_sequence_longer_than_the_model_is_dropped_never_cut(run: Run) -> None:
    long, long_with_hint = run.turn("a" * 300, "done"), run.turn("do it", "done")

    built = build(
        run,
        [claim(long, signal(long, hint="x")), claim(long_with_hint, signal(long_with_hint, hint="y" * 300))],
    )

    assert [item.reason for item in built.dropped] == [
        "longer than the model",
        "longer than the model with its context",
    ]


def redacted(run: Run, *spans: tuple[str, int, int]) -> Turn:
    return run.turn(
        "do it",
        "done",
        logprobs=(-1.0,) * 5,
        redacted_spans=tuple(
            RedactedSpan(path=path, start=start, end=end, rule="key") for path, start, end in spans
        ),
    )


def test_redacted_sampled_ids_are_outside_the_mask_and_their_log_probs_are_not_trusted(run: Run) -> None:
    turn = redacted(run, ("reply.text", 1, 3), (SAMPLED_PATH, 1, 3))

    [sample] = build(run, [claim(turn, signal(turn, hint="x"))]).samples

    assert sample.loss_mask[len(turn.prompt_ids) :] == (True, False, False, True, True)
    assert sample.behavior_logprobs is None


def test_a_redacted_reply_without_the_places_of_its_ids_is_dropped(run: Run) -> None:
    turn = redacted(run, ("reply.text", 1, 3))

    built = build(run, [claim(turn, signal(turn, hint="x"))])

    assert [item.reason for item in built.dropped] == ["redacted sample"]


def test_recipes_with_ratios_refuse_redacted_samples(run: Run) -> None:
    turn = redacted(run, (SAMPLED_PATH, 1, 3))

    built = build(run, [claim(turn, signal(turn, reward=1.0))], "openclaw_rl_binary")

    assert [item.reason for item in built.dropped] == ["redacted sample"]


def test_recipes_with_ratios_refuse_turns_without_raw_log_probs(run: Run) -> None:
    turn = run.turn("do it", "done")

    built = build(run, [claim(turn, signal(turn, reward=1.0))], "openclaw_rl_binary")

    assert [item.reason for item in built.dropped] == ["no raw log-probs"]


def test_a_live_turns_reward_is_its_advantage(run: Run) -> None:
    turn = run.turn("do it", "done", logprobs=(-1.0,) * 5)

    [sample] = build(run, [claim(turn, signal(turn, reward=-0.5))], "openclaw_rl_binary").samples

    assert sample.advantages == (0.0,) * len(turn.prompt_ids) + (-0.5,) * 5
    assert sample.reward == -0.5
    assert sample.teacher is None


def test_a_turn_that_was_not_judged_is_not_judged_neutral(run: Run) -> None:
    unknown, neutral = (run.turn("do it", "done", logprobs=(-1.0,) * 5) for _ in range(2))

    built = build(run, [claim(unknown), claim(neutral, signal(neutral, reward=0.0))], "openclaw_rl_binary")

    assert [item.reason for item in built.dropped] == ["no reward"]
    assert [sample.reward for sample in built.samples] == [0.0]


def test_an_episode_counts_once_in_its_groups_mean(run: Run) -> None:
    long = [run.turn("do it", "done", session="s~gq~0", logprobs=(-1.0,) * 5) for _ in range(3)]
    short = run.turn("do it", "done", session="s~gq~1", logprobs=(-1.0,) * 5)
    claims = [claim(turn, group="q", episode_reward=1.0) for turn in long]
    claims.append(claim(short, group="q", episode_reward=0.0))

    samples = build(
        run, claims, "grpo", rollout={"name": "student", "group_size": 2}, advantage="loo"
    ).samples

    assert [sample.advantages[-1] for sample in samples if sample.advantages] == [1.0, 1.0, 1.0, -1.0]
    assert {sample.group for sample in samples} == {"q"}


def test_the_users_word_counts_most_and_of_one_source_the_newest(run: Run) -> None:
    turn = run.turn("do it", "done")
    rule = signal(turn, reward=-1.0)
    environment = signal(turn, SignalSource.ENVIRONMENT, reward=0.5)
    first = signal(turn, SignalSource.USER, at=NOW, reward=1.0)
    second = signal(turn, SignalSource.USER, at=NOW + 1, reward=-0.25)
    silent = signal(turn, SignalSource.USER, at=NOW + 2, hint="x")

    assert reward_of([]) is None
    assert reward_of([silent]) is None
    assert reward_of([rule, environment]) == 0.5
    assert reward_of([second, rule, environment, first, silent]) == -0.25


class _Forgetful:
    """A renderer that tokenises anew and so loses an id."""

    def insert(self, token_ids: tuple[int, ...], num_prompt: int, blocks: object) -> TeacherView:
        return TeacherView(token_ids=(7, *token_ids[:-1]), inserted_spans=((0, 1),))


def test_a_view_that_does_not_hold_the_sampled_ids_is_dropped_with_both_lengths(run: Run) -> None:
    turn = run.turn("do it", "done")
    length = len(turn.prompt_ids) + 5
    builder = Builder(recipe=load_recipe("hint_opsd"), renderer=_Forgetful(), max_len=200)

    [dropped] = builder.build([claim(turn, signal(turn, hint="x"))], newest_version=0).dropped

    assert dropped.reason == "teacher's ids differ"
    assert dropped.detail == f"the teacher's view holds {length - 1} of the sample's {length} ids"
