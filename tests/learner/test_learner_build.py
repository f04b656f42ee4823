from dataclasses import replace

import pytest
import torch
from learner_run import NOW, Run, write_base

from agentrl.learner import replay
from agentrl.learner.build import Builder, Built, reward_of
from agentrl.learner.masks import SAMPLED_PATH
from agentrl.learner.replay import OwnAnswers
from agentrl.losses.whole import Members
from agentrl.recipes.recipe import load_recipe
from agentrl.store.claims import Claimed
from agentrl.store.learning_log import LearningLog
from agentrl.types import (
    Completion,
    FinishReason,
    NextState,
    RedactedSpan,
    Signal,
    SignalSource,
    Skill,
    TeacherView,
    TrainingSample,
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
    assert len({sample.group for sample in samples}) == 1
    assert Members.of(samples, torch.device("cpu")).episode.tolist() == [0, 0, 0, 1]
    assert [sample.turn_index for sample in samples] == [0, 1, 2, 0]

    alone = build(run, claims, "openclaw_rl_binary").samples
    # on live traffic each turn is compared on its own
    assert Members.of(alone, torch.device("cpu")).episode.tolist() == [0, 1, 2, 3]


def test_turns_of_one_step_are_compared_by_outcome_and_their_own_reward(run: Run) -> None:
    """OpenClaw-RL for agents: o + r, among the first turns and among the second ones; the third stands alone."""
    claims = []
    for session, outcome, own in (("s~a", 1.0, (0.0, 1.0, 0.0)), ("s~b", 0.0, (0.5, 0.0))):
        for index, reward in enumerate(own):
            turn = run.turn("do it", "done", session=session, logprobs=(-1.0,) * 5, received_at=NOW + index)
            claims.append(claim(turn, signal(turn, reward=reward), group="q", episode_reward=outcome))

    option = {"name": "step_index_group", "std": "none"}
    built = build(run, claims, "grpo", rollout={"name": "student", "group_size": 2}, advantage=option)

    # 1 + 0 against 0 + .5, 1 + 1 against 0
    values = [sample.advantages[-1] for sample in built.samples if sample.advantages]
    assert values == [0.25, 1.0, -0.25, -1.0]
    assert [item.reason for item in built.dropped] == ["no reward"]


def attempt(run: Run, session: str, reply: str) -> Turn:
    return run.turn("do it", reply, session=session, logprobs=(-1.0,) * (len(reply) + 1))


def answer(turn: Turn, text: str) -> NextState:
    return NextState(turn_id=turn.id, messages=({"role": "tool", "content": text},))


def shown(run: Run, sample: TrainingSample) -> str:
    """What the teacher reads and the policy does not."""
    assert sample.teacher is not None
    ids = sample.teacher.token_ids
    spans = sample.teacher.inserted_spans
    kept = [token for at, token in enumerate(ids) if not any(start <= at < end for start, end in spans)]
    assert tuple(kept) == sample.token_ids
    return "".join(run.renderer.decode(ids[start:end]) for start, end in spans)


def test_the_teacher_of_a_failed_attempt_reads_one_that_succeeded(run: Run) -> None:
    failed, solved = attempt(run, "s~gk~0", "nope"), attempt(run, "s~gk~1", "done")
    claims = [claim(turn, group="k", episode_reward=r) for turn, r in ((failed, 0.0), (solved, 1.0))]

    built = build(run, claims, "sdpo")

    [sample] = built.samples
    assert sample.turn_ids == (failed.id,)
    assert "Correct solution: done" in shown(run, sample)
    # the own success is no demonstration for itself, and there was no feedback either
    assert [(item.turn_ids, item.reason) for item in built.dropped] == [((solved.id,), "no context")]


def test_feedback_is_shown_only_where_no_attempt_succeeded(run: Run) -> None:
    turns = [attempt(run, f"s~gf~{i}", "nope") for i in range(2)]
    known = [claim(t, group="f", episode_reward=0.0, next_state=answer(t, "no such file")) for t in turns]
    first, _ = build(run, known, "sdpo").samples
    assert 'Feedback: The tool said: "no such file"' in shown(run, first)

    solved = attempt(run, "s~gf~2", "done")
    with_success = [*known, claim(solved, group="f", episode_reward=1.0)]
    first, *_ = build(run, with_success, "sdpo").samples
    assert "Correct solution: done" in shown(run, first)
    assert "Feedback" not in shown(run, first)


def test_samples_of_two_scopes_never_share_a_group(run: Run) -> None:
    """Law 10: what compares the sequences of a group sees those of one scope."""
    turns = [attempt(run, f"s~gy~{number}", "done") for number in range(3)]
    turns[1] = replace(turns[1], scope="other")
    claims = [claim(turn, group="y", episode_reward=1.0) for turn in turns]

    samples = build(run, claims, "openclaw_rl_binary").samples

    first, other, again = Members.of(samples, torch.device("cpu")).group.tolist()
    assert first == again != other


def test_nothing_of_another_scopes_group_is_shown(run: Run) -> None:
    """Law 10: two keys may use the same group name."""
    failed, solved = attempt(run, "s~gz~0", "nope"), attempt(run, "s~gz~1", "done")
    foreign = replace(solved, scope="other")
    claims = [claim(failed, group="z", episode_reward=0.0), claim(foreign, group="z", episode_reward=1.0)]

    assert build(run, claims, "sdpo").samples == ()


def test_a_routed_recipe_gives_each_attempt_one_loss(run: Run) -> None:
    """I12: wrong with a context to the teacher, right to reward; a wrong one without a context to reward too."""
    failed, solved = attempt(run, "s~gr~0", "nope"), attempt(run, "s~gr~1", "done")
    claims = [claim(turn, group="r", episode_reward=r) for turn, r in ((failed, 0.0), (solved, 1.0))]

    wrong, right = build(run, claims, "srpo").samples
    assert (wrong.weights.get("kd", (1.0,))[0], wrong.weights["rl"][0]) == (1.0, 0.0)
    assert (right.weights["kd"][0], right.weights.get("rl", (1.0,))[0]) == (0.0, 1.0)
    assert right.teacher is None

    hopeless = [claim(turn, group="r", episode_reward=0.0) for turn in (failed, solved)]
    for sample in build(run, hopeless, "srpo").samples:
        assert sample.weights["kd"][0] == 0.0
        assert set(sample.advantages or ()) == {0.0}


def test_the_groups_pass_rate_weighs_its_samples(run: Run) -> None:
    """I14: one of four attempts is right, ¼·¾; where all are, nothing is trained."""
    turns = [attempt(run, f"s~gp~{i}", "done") for i in range(4)]

    def claims(*rewards: float) -> list[Claimed]:
        return [
            claim(t, signal(t, preferred="42"), group="p", episode_reward=r)
            for t, r in zip(turns, rewards, strict=True)
        ]

    samples = build(run, claims(1.0, 0.0, 0.0, 0.0), "paced").samples
    assert [sample.weights["kd"][0] for sample in samples] == [0.1875] * 4
    assert {item.reason for item in build(run, claims(1.0, 1.0, 1.0, 1.0), "paced").dropped} == {"no weight"}


def test_the_blocks_of_several_contexts_stand_in_one_view(run: Run) -> None:
    turn = run.turn("do it", "done")
    contexts = [{"name": "env_feedback", "position": "tail"}, {"name": "solution", "position": "last_user"}]
    claims = [claim(turn, signal(turn, preferred="42"), next_state=answer(turn, "no"))]

    [sample] = build(run, claims, context=contexts).samples

    assert 'Feedback: The tool said: "no"' in shown(run, sample)
    assert "Reference solution: 42" in shown(run, sample)


CONTEXTS: dict[str, dict[str, object]] = {
    "hint_opsd": {},
    "opsd": {},
    "openclaw_rl": {},
    "openclaw_rl_hint": {},
    "sdpo": {"rollout": "stream", "context": "env_feedback"},
    "srpo": {"rollout": "stream", "context": "env_feedback", "advantage": "raw"},
    "pi_opsd": {"rollout": "stream", "advantage": "raw"},
    "rlsd": {"rollout": "stream", "advantage": "raw"},
    "sdar": {"rollout": "stream", "context": "env_feedback", "advantage": "raw"},
    "paced": {"rollout": "stream", "route": "has_context"},
}


@pytest.mark.parametrize("recipe", CONTEXTS)
def test_another_context_changes_the_teachers_view_and_nothing_else(run: Run, recipe: str) -> None:
    """I32: ids, mask, μ, advantages and weights are the same whatever the teacher is shown."""
    turn = run.turn("do it", "done", logprobs=(-1.0,) * 5)

    def built(text: str) -> TrainingSample:
        said = signal(turn, hint=f"{text} it", preferred=text, reward=0.0)
        claims = [claim(turn, said, next_state=answer(turn, text))]
        [sample] = build(run, claims, recipe, **CONTEXTS[recipe]).samples
        return sample

    one, two = built("no such file"), built("permission denied")
    assert one.teacher != two.teacher
    assert replace(one, teacher=None) == replace(two, teacher=None)
    assert "no such file" in shown(run, one)


class _Skills:
    """A library with one skill for every task."""

    def __init__(self, body: str) -> None:
        self._skill = Skill(name="files", description="", body=body)
        self.num_begun = 0

    def begin(self) -> None:
        """The same skill in every step."""
        self.num_begun += 1

    def skills(self, turn: Turn) -> list[Skill]:
        return [self._skill]


def test_another_skill_changes_the_teachers_view_and_nothing_else(run: Run) -> None:
    """I32 for Skill-SD; without a skill the attempt is trained all the same."""
    turns = [attempt(run, f"s~gs~{i}", "done") for i in range(2)]
    claims = [claim(t, group="s", episode_reward=r) for t, r in zip(turns, (1.0, 0.0), strict=True)]
    recipe = load_recipe("skill_sd", {"rollout.group_size": 2})

    def built(skills: _Skills | None) -> TrainingSample:
        builder = Builder(recipe=recipe, renderer=run.renderer, max_len=200, skills=skills)
        return builder.build(claims, newest_version=0).samples[0]

    one, two, none = built(_Skills("Use zap.")), built(_Skills("Use zip.")), built(None)
    assert "Use zap." in shown(run, one)
    assert one.teacher != two.teacher
    assert replace(one, teacher=None) == replace(two, teacher=None) == none


def test_what_stands_beside_a_step_does_not_begin_another(run: Run) -> None:
    """A task keeps its skill within a step: the answers that are replayed in it are part of it."""
    kept = run.record(run.turn("do it", "done", logprobs=(-1.0,) * 5), reward=1.0)
    recipe = load_recipe("openclaw_rl_binary", {"rollout": {"name": "replay", "share": 0.5}})
    skills = _Skills("Use zap.")
    builder = Builder(recipe=recipe, renderer=run.renderer, max_len=200, skills=skills)
    with LearningLog(run.path) as log:
        log.ensure_base("default", str(run.base))
        log.expire(0.0)
        own = OwnAnswers(recipe, log, builder, policy="default", seed=0)

        builder.build([claim(kept[0])], newest_version=0)
        drawn = own.draw(0, 0)

    assert [sample.source for sample in drawn.samples] == ["replay"]
    assert skills.num_begun == 1


def test_what_somebody_rejected_does_not_come_back_with_a_replayed_turn(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.record(run.turn("do it", "done", logprobs=(-1.0,) * 5), reward=1.0)
    recipe = load_recipe("openclaw_rl_binary", {"rollout": {"name": "replay", "share": 0.5}})
    builder = Builder(recipe=recipe, renderer=run.renderer, max_len=200)
    asked: list[str] = []

    def sifted(log: LearningLog, claims: list[Claimed], policy: str) -> list[Claimed]:
        asked.extend(item.turn.id for item in claims)
        return []

    monkeypatch.setattr(replay, "without_refused", sifted)
    with LearningLog(run.path) as log:
        log.ensure_base("default", str(run.base))
        log.expire(0.0)
        drawn = OwnAnswers(recipe, log, builder, policy="default", seed=0).draw(0, 0)
    assert asked
    assert drawn.samples == ()


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
