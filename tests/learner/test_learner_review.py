"""In review nothing is trained that nobody approved: every recipe either learns from lessons alone or is refused."""

import asyncio
import json
from pathlib import Path

import pytest
from learner_run import NOW, Run, write_base

from agentrl.config import write_config
from agentrl.errors import ConfigError
from agentrl.learner.loop import LearnLoop
from agentrl.learner.process import JOURNAL, REFUSED, learn
from agentrl.recipes.recipe import Recipe, load_recipe, preset_names, read_recipe
from agentrl.recipes.reviewed import PRESETS, unreviewed
from agentrl.store.learning_log import LearningLog
from agentrl.types import LessonState, Signal, SignalSource

RUNNABLE = [name for name in preset_names() if not read_recipe(name).lacks]
HINT = {"name": "hindsight_hint", "position": "tail", "recall": 0.8}
FEEDBACK = {"name": "env_feedback", "position": "tail"}
SAID: dict[str, dict[str, object]] = {
    "right": {"source": SignalSource.ENVIRONMENT, "reward": 1.0},
    "wrong": {"source": SignalSource.ENVIRONMENT, "reward": -1.0},
    "better": {"source": SignalSource.USER, "preferred": "xyz"},
    "hinted": {"hint": "say xyz"},
    "all": {"hint": "say uvw", "preferred": "uvw", "reward": -1.0, "evidence": "it said abc"},
}


def several(*contexts: dict[str, object], only_first: bool = False) -> dict[str, object]:
    return {"name": "several", "contexts": list(contexts), "only_first": only_first}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("model") / "base")


def reviewed(path: Path, base: Path, recipe: str, **overrides: object) -> Run:
    run = Run(path, base, recipe=recipe, **overrides)
    learn = run.config.learn.model_copy(update={"approve": "review"})
    run.config = run.config.model_copy(update={"learn": learn})
    write_config(run.config, path / "config.json")
    return run


def every_kind_of_turn(run: Run) -> None:
    """Eight of each: only rewarded, punished, corrected by another answer, hinted, and hinted with all of it."""
    for name, said in SAID.items():
        turns = [run.turn(f"{name} {i}", "abc", session=f"{name}~g{i // 4}~{i % 4}") for i in range(8)]
        signals = [
            Signal(turn_id=turn.id, created_at=NOW, **({"source": SignalSource.RULE} | said))
            for turn in turns
        ]
        asyncio.run(run._log(turns, signals))


@pytest.mark.parametrize("name", RUNNABLE)
def test_in_review_a_preset_trains_nothing_or_is_refused_at_the_start_with_its_axis_and_a_remedy(
    tmp_path: Path, base: Path, name: str
) -> None:
    run = reviewed(tmp_path / "run", base, name)
    every_kind_of_turn(run)
    if name in PRESETS:
        with run.learner() as learner:
            learner.loop.start()
            for _ in range(20):
                learner.loop.once()
            assert {step["num_turns"] for step in learner.journal.of("step")} <= {0}
    else:
        assert learn(run.path) == REFUSED
        [said] = [json.loads(line) for line in (run.path / JOURNAL).read_text().splitlines()]
        assert (said["event"], said["error"], said["again"]) == ("failed", "ConfigError", False)
        message = said["message"]
        assert message.startswith("learn.approve = 'review' trains nothing that nobody approved")
        assert any(f"({axis} '" in message for axis in ("mix", "context", "rollout", "transform"))
        assert "set learn.recipe = 'hint_opsd' or 'openclaw_rl_hint'" in message
        assert "or learn.approve = 'auto'" in message

    accepted, trained, *_ = run.account()
    assert (accepted, trained) == (40, 0)


def test_the_presets_that_the_message_names_are_those_that_work_in_review() -> None:
    assert tuple(name for name in RUNNABLE if not unreviewed(read_recipe(name))) == PRESETS


@pytest.mark.parametrize(
    ("name", "overrides", "axis"),
    [
        ("sdpo", {"rollout": "stream", "context": FEEDBACK}, "context 'env_feedback'"),
        ("opsd", {}, "context 'solution'"),
        ("sdft", {}, "context 'demo'"),
        ("openclaw_rl_binary", {}, "mix 'rl'"),
        ("openclaw_rl", {}, "mix 'adv_add'"),
        ("hint_opsd", {"context": several(HINT, FEEDBACK)}, "context 'env_feedback'"),
        ("hint_opsd", {"context": several(HINT, FEEDBACK, only_first=True)}, "context 'env_feedback'"),
        ("hint_opsd", {"route": "all"}, "route 'all'"),
        ("hint_opsd", {"context": "unmet_rubrics"}, "context 'unmet_rubrics'"),
        (
            "hint_opsd",
            {"divergence": "ce", "teacher": "none", "sync": "fixed", "route": "has_context"},
            "divergence 'ce'",
        ),
        (
            "hint_opsd",
            {"rollout.rehearsal": 0.25, "regularisers": [{"name": "js_rehearsal"}]},
            "rollout 'stream'",
        ),
        ("skill_sd", {"rollout": "stream", "advantage": "raw"}, "mix 'sum'"),
    ],
)
def test_what_could_be_learned_without_approval_is_refused_by_the_loop_itself(
    tmp_path: Path, base: Path, name: str, overrides: dict[str, object], axis: str
) -> None:
    run = Run(tmp_path / "run", base, recipe=name, **overrides)
    with run.learner() as learner:
        learn = run.config.learn.model_copy(update={"approve": "review"})
        with pytest.raises(ConfigError, match="trains nothing that nobody approved") as error:
            LearnLoop(
                run.path,
                run.config.model_copy(update={"learn": learn}),
                trainer=learner.trainer,
                builder=learner.loop._builder,
                log=learner.log,
                versions=learner.versions,
                rewarded=learner.rewarded,
                hinted=learner.hinted,
                journal=learner.journal,
            )
    assert axis in str(error.value)


def test_held_to_another_model_right_answers_would_teach_what_nobody_approved() -> None:
    teacher = {"teacher": {"name": "external", "path": "x"}}
    assert unreviewed(load_recipe("hint_opsd", teacher | {"sync": "fixed"})) == [
        "what another model says to right answers (teacher 'external', route 'context_or_held')"
    ]
    assert unreviewed(load_recipe("hint_opsd", teacher | {"route": "has_context"})) == []


def test_a_recipe_that_measures_hints_would_show_preferred_answers_that_nobody_approved() -> None:
    context = {"name": "hindsight_hint", "recall": 0.8, "choose": "lift"}
    assert unreviewed(load_recipe("hint_opsd", {"context": context})) == [
        "preferred answers, which it measures beside hints (context.choose 'lift')"
    ]
    assert unreviewed(load_recipe("hint_opsd", {"context": context | {"choose": "trusted"}})) == []


def test_without_review_the_same_recipes_train_as_before(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base, recipe="opsd")
    turns = [run.turn(f"task {i}", "abc") for i in range(4)]
    signals = [
        Signal(turn_id=turn.id, source=SignalSource.USER, created_at=NOW, preferred="xyz") for turn in turns
    ]
    asyncio.run(run._log(turns, signals))
    with run.learner() as learner:
        learner.loop.start()
        learner.work()

        assert run.account() == (4, 4, {}, {})


def kinds(recipe: Recipe) -> list[str]:
    return [part.name for part in recipe.context.parts]


def test_hints_and_skills_together_work_in_review_and_alone_too() -> None:
    skill = {"name": "skill", "position": "tail"}
    both = load_recipe("hint_opsd", {"context": several(HINT, skill)})
    alone = load_recipe("hint_opsd", {"context": skill})

    assert (kinds(both), kinds(alone)) == (["hindsight_hint", "skill"], ["skill"])
    assert unreviewed(both) == unreviewed(alone) == []


def test_once_one_lesson_is_approved_its_turns_are_trained_and_what_is_only_held_teaches_nothing(
    tmp_path: Path, base: Path
) -> None:
    run = reviewed(tmp_path / "run", base, "hint_opsd", batch__turns_per_step=64)
    every_kind_of_turn(run)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
        assert run.account()[1] == 0
        with LearningLog(run.path) as log:
            log.decide([one.id for one in log.lessons() if one.text == "say xyz"], LessonState.APPROVED)
        learner.loop._refreshed = -float("inf")
        learner.work()

        num_trained = sum(step["num_turns"] for step in learner.journal.of("step"))
        found = {name: learner.log.fate(name) for name in ids_of(run)}
    taught = {name for name, fate in found.items() if fate == "trained"}
    by_prompt = {prompt_of(run, name).rstrip(" 0123456789") for name in taught}
    assert "hinted" in by_prompt
    assert by_prompt <= {"hinted", "right"}, "nothing that was punished, corrected or waits for approval"
    assert num_trained == len(taught)
    assert all(fate == "pending:review" for name, fate in found.items() if prompt_of(run, name)[:3] == "all")


def ids_of(run: Run) -> list[str]:
    return [f"turn{number}" for number in range(1, run.num_turns + 1)]


def prompt_of(run: Run, turn_id: str) -> str:
    with LearningLog(run.path) as log:
        [record] = log.records([turn_id])
    return record.turn.task_key
