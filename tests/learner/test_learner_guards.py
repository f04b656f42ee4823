"""The guards at work in the learner's loop: what they hold back is pending or rejected with a reason, and shown."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from guarded_run import guarded, held_out_names, say, settled
from learner_run import Learner, Run, write_base

from agentrl.config import Config, CurriculumConfig, GuardsConfig, load_config
from agentrl.errors import ConfigError
from agentrl.learner.guard_report import read_report
from agentrl.learner.guard_rules import refuse
from agentrl.learner.held_out import HeldOut
from agentrl.learner.outline import Outline, divergence
from agentrl.recipes.recipe import load_recipe
from agentrl.store.learning_log import LearningLog
from agentrl.store.version_log import Refused
from agentrl.types import Turn


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("model") / "base")


def states(run: Run) -> dict[int, str]:
    with LearningLog(run.path) as log:
        return {version.number: version.state.value for version in log.versions()}


def last_step(learner: Learner) -> dict[str, float]:
    metrics = learner.journal.of("step")[-1]["metrics"]
    assert isinstance(metrics, dict)
    return metrics


# trust


def test_turns_of_a_source_that_is_not_listened_to_are_set_aside_as_untrusted(
    tmp_path: Path, base: Path
) -> None:
    run = guarded(Run(tmp_path / "run", base, batch__turns_per_step=2), trust={"user": 0.0})
    turns = run.record(*(run.turn(f"task {i}", "abc") for i in range(4)))
    for turn in turns[:2]:
        say(run, turn, "user", hint="say evil")
    for turn in turns[2:]:
        say(run, turn, "rule", hint="say xyz")
    with run.learner() as learner:
        learner.loop.start()
        learner.work()

        assert run.account() == (4, 2, {"untrusted": 2}, {})


def test_a_turn_taught_by_a_half_trusted_source_has_half_the_weight(tmp_path: Path, base: Path) -> None:
    weights = {}
    for trust in (1.0, 0.5):
        run = guarded(Run(tmp_path / f"run{trust}", base), trust={"user": trust})
        turns = run.record(*(run.turn(f"task {i}", "abc") for i in range(4)))
        for turn in turns:
            say(run, turn, "user" if turn is turns[0] else "rule", hint="say xyz")
        with run.learner() as learner:
            learner.loop.start()
            claims = learner.log.claim(limit=4, needs="any", max_age_s=1e9)
            built = learner.loop._builder.build(claims, newest_version=0)
            weighed = learner.guards.weigh(built.samples, claims)
            weights[trust] = {
                sample.turn_ids[0]: sample.weights.get("kd", (1.0,))[0] for sample in weighed.samples
            }
    assert set(weights[1.0].values()) == {1.0}
    assert weights[0.5] == {turns[0].id: 0.5, **{turn.id: 1.0 for turn in turns[1:]}}


def test_an_untrusted_hint_is_not_recalled_for_other_turns(tmp_path: Path, base: Path) -> None:
    for trust, trained in ((1.0, 4), (0.0, 0)):
        run = guarded(Run(tmp_path / f"run{trust}", base), trust={"user": trust}, quarantine="off")
        told = run.record(run.turn("do this thing now", "abc"))
        say(run, told[0], "user", hint="say evil")
        say(run, told[0], "rule", reward=-1.0)
        run.record(*(run.turn("do this thing now", "abc") for _ in range(3)))
        with run.learner() as learner:
            learner.loop.start()
            learner.work()
            assert run.account()[1] == trained


# shares


def test_no_session_weighs_more_than_its_share_of_an_update(tmp_path: Path, base: Path) -> None:
    run = guarded(Run(tmp_path / "run", base, batch__turns_per_step=8), max_session_share=0.75)
    run.record(*(run.turn(f"task {i}", "abc", session="loud") for i in range(6)), hint="say xyz")
    run.record(run.turn("task 8", "abc", session="quiet"), hint="say xyz")
    with run.learner() as learner:
        learner.loop.start()
        learner.work()

        assert run.account()[1] == 7  # 6 places of 8 are three quarters; 6 of 7 would be more
        assert last_step(learner)["share/session"] == pytest.approx(0.75)
        assert read_report(run.path)["shares"]["session"] == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("aggregate", "weight"),
    [("token_mean", 4 / 12), ({"name": "sum_const", "budget": 64}, 4 / 12), ("seq_mean", 1.0)],
)
def test_a_share_is_counted_as_the_recipe_adds_up_tokens_or_replies(
    tmp_path: Path, base: Path, aggregate: object, weight: float
) -> None:
    run = guarded(Run(tmp_path / "run", base, aggregate=aggregate), max_session_share=0.5)
    long, short = run.record(run.turn("a task", "abcdefghijk"), run.turn("another", "abc"), hint="say xyz")
    with run.learner() as learner:
        learner.loop.start()
        claims = learner.log.claim(limit=2, needs="any", max_age_s=1e9)
        built = learner.loop._builder.build(claims, newest_version=0)
        found = {
            sample.turn_ids[0]: sample.weights.get("kd", (1.0,))[0]
            for sample in learner.guards.weigh(built.samples, claims).samples
        }
    # 12 trained ids and 4: of two owners each has half
    assert found == {long.id: pytest.approx(weight), short.id: 1.0}


def test_the_rest_of_a_loud_session_waits_for_the_next_update(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base, batch__turns_per_step=4)
    run.record(*(run.turn(f"task {i}", "abc", session="loud") for i in range(6)), hint="say xyz")
    run.record(*(run.turn(f"task {i}", "abc", session=f"q{i}") for i in range(6, 8)), hint="say xyz")
    with run.learner() as learner:
        learner.loop.start()
        learner.work()

        steps = [
            len(event["turn_ids"]) if "turn_ids" in event else event["num_turns"]
            for event in learner.journal.of("step")
        ]
        assert steps[0] == 4
        assert run.account() == (8, 8, {}, {})
    with LearningLog(run.path) as log:
        first = log.step(log.version("default", 1).step_ids[0])  # type: ignore[union-attr]
        assert first is not None
        loud = [turn_id for turn_id in first.turn_ids if turn_id in {f"turn{i}" for i in range(1, 7)}]
        assert len(loud) == 2


# curriculum


def test_turns_of_a_task_that_always_succeeds_weigh_less(tmp_path: Path, base: Path) -> None:
    curriculum = CurriculumConfig(tasks="edge", min_weight=0.2)
    run = guarded(Run(tmp_path / "run", base), curriculum, max_session_share=1.0)
    easy = run.record(*(run.turn("easy", "abc") for _ in range(10)), reward=1.0)
    hinted = run.record(run.turn("easy", "abc"), run.turn("hard", "abc"), hint="say xyz")
    with run.learner() as learner:
        learner.loop.start()
        learner.guards.listen()
        claims = learner.log.records([turn.id for turn in hinted])
        built = learner.loop._builder.build(claims, newest_version=0)
        found = {
            sample.turn_ids[0]: sample.weights.get("kd", (1.0,))[0]
            for sample in learner.guards.weigh(built.samples, claims).samples
        }
    # ten sessions succeeded, the hinted one did not: p = 11/13, 4p(1-p) = 88/169
    assert found == {hinted[0].id: pytest.approx(88 / 169), hinted[1].id: 1.0}
    assert len(easy) == 10


def test_what_succeeds_with_a_lesson_in_the_prompt_makes_no_task_an_easy_one(
    tmp_path: Path, base: Path
) -> None:
    run = guarded(Run(tmp_path / "run", base), CurriculumConfig(tasks="edge"), max_session_share=1.0)
    run.record(*(replace(run.turn("easy", "abc"), block_spans=((0, 1),)) for _ in range(10)), reward=1.0)
    [hinted] = run.record(run.turn("easy", "abc"), hint="say xyz")
    with run.learner() as learner:
        learner.loop.start()
        learner.guards.listen()
        claims = learner.log.records([hinted.id])
        built = learner.loop._builder.build(claims, newest_version=0)
        [sample] = learner.guards.weigh(built.samples, claims).samples

    assert sample.weights.get("kd", (1.0,))[0] == 1.0


# quarantine


def tools(run: Run, name: str, session: str | None = None) -> Turn:
    return run.turn("Compress the file now please", "abc", turn_id=name, session=session)


def test_contradicted_turns_are_quarantined_and_readmitted_when_more_agree(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base, batch__turns_per_step=2)
    run.record(*(tools(run, f"right{i}") for i in range(3)), reward=1.0)
    attack = run.record(tools(run, "attack"), tools(run, "attack2"), hint="say evil")
    with run.learner() as learner:
        learner.loop.start()
        settled(learner)

        rejected = run.account()[2]
        assert rejected["contradicted"] == 2
        with LearningLog(run.path) as log:
            assert {log.fate(turn.id) for turn in attack} == {"rejected:contradicted"}
        [event] = [e for e in learner.journal.of("quarantined") if e["turn_ids"] == ["attack"]]
        assert "in the same situation call right" in str(event["detail"])
        assert read_report(run.path)["quarantined"] == rejected["contradicted"]

        run.record(tools(run, "agree1"), tools(run, "agree2"), hint="say evil")
        settled(learner)
        with LearningLog(run.path) as log:
            assert {log.fate(turn.id) for turn in attack} == {"trained"}
        assert any("attack" in event["turn_ids"] for event in learner.journal.of("readmitted"))  # type: ignore[operator]


def test_a_hint_that_was_believed_is_shown_to_nobody_once_most_speak_against_it(
    tmp_path: Path, base: Path
) -> None:
    fates = {}
    for quarantine in ("auto", "off"):
        run = Run(tmp_path / quarantine, base, batch__turns_per_step=1)
        guarded(run, quarantine=quarantine)
        run.record(tools(run, "attack1"), tools(run, "attack2"), hint="say evil")
        run.record(tools(run, "before"))
        with run.learner() as learner:
            learner.loop.start()
            settled(learner)
            run.record(*(tools(run, f"right{i}") for i in range(3)), reward=1.0)
            settled(learner)
            run.record(tools(run, "after"))
            settled(learner)
        with LearningLog(run.path) as log:
            fates[quarantine] = [log.fate(name) for name in ("attack1", "before", "after")]

    assert fates["auto"] == ["trained", "trained", "rejected:no context"]
    assert fates["off"] == ["trained", "trained", "trained"]


def test_a_new_learner_finds_the_quarantine_of_the_one_before(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base, batch__turns_per_step=2)
    run.record(tools(run, "right1"), tools(run, "right2"), reward=1.0)
    run.record(tools(run, "attack"), hint="say evil")
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
    with LearningLog(run.path) as log:
        assert log.fate("attack") == "rejected:contradicted"
    with run.learner() as learner:
        learner.loop.start()
        run.record(tools(run, "agree1"), tools(run, "agree2"), hint="say evil")
        settled(learner)
        with LearningLog(run.path) as log:
            assert log.fate("attack") == "trained"


def test_without_quarantine_the_contradicted_turn_is_trained(tmp_path: Path, base: Path) -> None:
    run = guarded(Run(tmp_path / "run", base, batch__turns_per_step=2), quarantine="off")
    run.record(tools(run, "right1"), tools(run, "right2"), reward=1.0)
    run.record(tools(run, "attack"), hint="say evil")
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
        with LearningLog(run.path) as log:
            assert log.fate("attack") == "trained"


# budgets


def test_the_divergence_from_an_outline_is_the_kl_of_what_it_tells_apart() -> None:
    old = torch.tensor([[0.7, 0.2, 0.06, 0.04]]).log()
    new = torch.tensor([[0.1, 0.5, 0.2, 0.2]]).log()
    top = old.topk(2)
    outline = Outline(ids=top.indices, logprobs=top.values)

    # ids 0 and 1, and the rest: .1 ln(.1/.7) + .5 ln(.5/.2) + .4 ln(.4/.1)
    expected = 0.1 * -1.9459101 + 0.5 * 0.9162907 + 0.4 * 1.3862944
    assert divergence(new, outline).tolist() == [pytest.approx(expected, rel=1e-5)]
    assert divergence(old, outline).tolist() == [pytest.approx(0.0, abs=1e-6)]
    whole = Outline(ids=torch.arange(4)[None], logprobs=old)
    exact = sum(p * (p / q).log() for p, q in zip(new.exp()[0], old.exp()[0], strict=True))
    assert divergence(new, whole).tolist() == [pytest.approx(float(exact), rel=1e-5)]


def with_probe(run: Run, num: int = 5) -> Run:
    turns = [
        run.turn(f"do {name}", "fine", turn_id=name, logprobs=(-5.5,) * 5) for name in held_out_names(num)
    ]
    run.record(*turns, reward=1.0)
    return run


def test_a_version_that_goes_too_far_from_its_parent_is_rejected(tmp_path: Path, base: Path) -> None:
    run = guarded(with_probe(Run(tmp_path / "run", base)), max_kl_update=1e-6)
    run.hinted(4)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
        run.hinted(4, version=1)
        learner.work()

        # what joins the probe after the parent was looked at counts from the next version on
        assert states(run) == {0: "retired", 1: "serving", 2: "rejected"}
        reason = str(learner.journal.of("version")[-1]["reason"])
        assert learner.log.refused() == Refused(num_versions=1, newest=2, reason=reason)
        assert "KL to the version that serves is" in reason
        assert "guards.max_kl_update allows 1e-06" in reason
        assert run.account()[2] == {"held_out": 5, "gate": 4}
        assert read_report(run.path)["budget"]["kl_update"] > 1e-6


def test_slow_drift_from_version_0_is_stopped_where_no_single_update_goes_far(
    tmp_path: Path, base: Path
) -> None:
    run = guarded(
        with_probe(Run(tmp_path / "run", base, optim__lr=3e-4)), max_kl_update=1.0, max_kl_base=0.02
    )
    spent = []
    with run.learner() as learner:
        learner.loop.start()
        for _ in range(12):
            run.hinted(4, version=max(n for n, state in states(run).items() if state != "rejected"))
            learner.work()
            spent.append(read_report(run.path)["budget"])
            if "rejected" in states(run).values():
                break
        served = [one for one in spent if one["kl_base"] <= 0.02]
        assert len(served) > 1
        assert "KL to version 0 is" in str(learner.journal.of("version")[-1]["reason"])
        assert all(one["kl_update"] < 0.001 for one in spent[1:])


def test_a_probe_that_has_fallen_too_far_since_it_was_sampled_stops_the_line(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base)
    names = held_out_names(5)
    # the sampler's log-probs say that the replies were far likelier then than the model thinks now
    run.record(
        *(run.turn(f"do {name}", "fine", turn_id=name, logprobs=(-1.0,) * 5) for name in names), reward=1.0
    )
    guarded(run, max_fall=2.0)
    run.hinted(4)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()

        assert states(run)[1] == "rejected"
        assert "guards.max_fall allows 2" in str(learner.journal.of("version")[-1]["reason"])


def test_budgets_that_could_not_be_measured_are_named(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base)
    run.hinted(4)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()

        assert states(run)[1] == "serving"
        assert read_report(run.path)["budget"] == {
            "version": 1,
            "kl_base": 0.0,
            "not_measured": ["kl_update", "probe_fall"],
        }, "version 0 answers for itself; a random model is sure of nothing, so that nothing can drift"


def test_the_probe_keeps_what_version_0_did_well_and_reads_its_old_file(tmp_path: Path, base: Path) -> None:
    run = with_probe(Run(tmp_path / "run", base), 3)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
    probe = HeldOut(run.path, grouped=False)
    assert set(probe.anchors) == set(probe.rows) == set(held_out_names(3))
    assert set(probe.sampled.values()) == {-5.5}

    (run.path / "held_out.json").write_text(json.dumps({"old": [[1, 2, 3, 4], 2]}))
    probe = HeldOut(run.path, grouped=False)
    assert {name: (row.token_ids, row.positions) for name, row in probe.rows.items()} == {
        "old": ((1, 2, 3, 4), (2, 3))
    }
    assert (probe.anchors, probe.sampled) == ({}, {})


# what is refused


@pytest.mark.parametrize(
    ("recipe", "guards", "curriculum", "message"),
    [
        ("dpo", {"quarantine": "on"}, {}, "guards.quarantine = 'auto'"),
        ("grpo", {"min_sessions": 2}, {}, "guards.min_sessions = 2"),
        ("grpo", {"max_session_share": 0.5}, {}, "guards.max_session_share"),
        ("dpo", {"max_key_share": 0.5}, {}, "guards.max_key_share"),
        ("dpo", {"max_source_share": 0.5}, {}, "guards.max_source_share"),
        ("dpo", {}, {"tasks": "edge"}, "curriculum.tasks"),
        ("dpo", {"trust": {"user": 0.5}}, {}, "guards.trust between 0 and 1"),
        ("dpo", {}, {"balance": ("key",)}, "curriculum.balance"),
        ("pi_distill", {"trust": {"user": 0.5}}, {}, "mix 'joint' of recipe 'pi_distill' takes every one at"),
        ("pi_distill", {"max_key_share": 0.5}, {}, "guards.max_key_share"),
        ("rltf_sd", {}, {"tasks": "edge"}, "curriculum.tasks"),
    ],
)
def test_guards_that_a_recipe_leaves_no_room_for_are_refused_with_the_remedy(
    recipe: str, guards: dict[str, object], curriculum: dict[str, object], message: str
) -> None:
    config = Config(guards=GuardsConfig(**guards), curriculum=CurriculumConfig(**curriculum))

    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        refuse(config, load_recipe(recipe))
    refuse(config, load_recipe("hint_opsd"))
    refuse(Config(), load_recipe(recipe))


@pytest.mark.parametrize(
    ("setting", "beside", "message"),
    [
        ("curriculum.min_weight=.5", "curriculum.tasks=edge", "0.5 has no effect with curriculum.tasks = equal"),
        ("guards.watch_turns=32", "guards.watch=report", "32 has no effect with guards.watch = off"),
        ("learn.show_share=.2", "learn.show_lessons=true", "0.2 has no effect without learn.show_lessons"),
        ("learn.max_shown=2", "learn.show_lessons=true", "2 has no effect without learn.show_lessons"),
        ("learn.max_shown_tokens=64", "learn.show_lessons=true", "64 has no effect without learn.show_lessons"),
        ("skills.min_cosine=0", "skills.embeddings=a", "0.0 has no effect without skills.embeddings"),
    ],
)  # fmt: skip
def test_a_setting_whose_own_switch_is_off_is_refused_with_the_remedy(
    setting: str, beside: str, message: str
) -> None:
    recipe = load_recipe("hint_opsd")

    (name, _, _), (switch, _, on) = setting.partition("="), beside.partition("=")
    remedy = f"leave it out, or set {switch} = {'the folder of a model' if on == 'a' else on}"
    with pytest.raises(ConfigError, match=f"^{name} = {message}: {remedy}$"):
        refuse(load_config(None, [setting], guards__watch="off"), recipe)
    refuse(load_config(None, [setting, beside]), recipe)


def test_sources_that_do_not_exist_cannot_be_trusted() -> None:
    with pytest.raises(ValueError, match="names no source of signals"):
        GuardsConfig(trust={"usr": 1.0})
    with pytest.raises(ValueError, match="write a number from 0 to 1"):
        GuardsConfig(trust={"user:guests": 2.0})
