"""Settings that a user writes reach what they are about: two values of each, and what a learner does under them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from learner_run import Run, write_base

from agentrl.config import load_config, write_config
from agentrl.recipes.recipe import PRESETS, load_recipe, preset_names, read_recipe
from agentrl.store.learning_log import LearningLog
from agentrl.types import Turn


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("model") / "base")


def configured(run: Run, *settings: str) -> Run:
    """The run with settings as `--set` takes them."""
    given = load_config(overrides=settings)
    run.config = run.config.model_copy(update={"guards": given.guards, "curriculum": given.curriculum})
    write_config(run.config, run.path / "config.json")
    return run


def hinted(run: Run, num: int, *, by: str = "", hint: str = "say xyz", **changes: object) -> list[Turn]:
    """Turns of one session, or each of its own."""
    names = [f"{by}{i}" if by else None for i in range(num)]
    return run.record(
        *(
            replace(run.turn(f"task {by}{i}", "abc", turn_id=name, session=by or None), **changes)
            for i, name in enumerate(names)
        ),
        hint=hint,
    )


def fate_of_a_hint_of_one_session(run: Run) -> str:
    [turn] = hinted(run, 1)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
    with LearningLog(run.path) as log:
        return log.fate(turn.id)


def first_step(run: Run) -> list[str]:
    """Whose turns the first step takes, by the letters of their ids."""
    with run.learner() as learner:
        learner.loop.start()
        learner.loop.once()
        with LearningLog(run.path) as log:
            version = log.version("default", 1)
            assert version is not None
            step = log.step(version.step_ids[0])
    assert step is not None
    return sorted(name.rstrip("0123456789") for name in step.turn_ids)


def places_of_who_is_alone_now(run: Run) -> list[str]:
    [done] = run.record(replace(run.turn("done with", "abc", session="other"), scope="other"))
    with LearningLog(run.path) as log:
        log.reject([done.id], "stale")
    hinted(run, 6, by="loud", received_at=1_700_000_300.0)
    return first_step(run)


def places_of_the_newest(run: Run) -> list[str]:
    hinted(run, 2, by="quiet")
    hinted(run, 6, by="loud")
    return first_step(run)


def weights_of(run: Run, turns: list[Turn]) -> list[float]:
    """What a guard makes of their weights in one update."""
    with run.learner() as learner:
        learner.loop.start()
        learner.guards.listen()
        claims = learner.log.records([turn.id for turn in turns])
        built = learner.loop._builder.build(claims, newest_version=0)
        found = learner.guards.weigh(built.samples, claims).samples
    return sorted({round(sample.weights.get("kd", (1.0,))[0], 6) for sample in found})


def weights_of_two_keys(run: Run) -> list[float]:
    return weights_of(run, [*hinted(run, 6, scope="many"), *hinted(run, 2, scope="few")])


def weights_of_two_sources(run: Run) -> list[float]:
    judged = hinted(run, 6)
    told = hinted(run, 2)
    for turn in told:
        run.reward(turn.id, -1.0)  # by a user, whose word counts before the rule's
    return weights_of(run, [*judged, *told])


def weights_of_an_easy_task(run: Run) -> list[float]:
    run.record(*(run.turn("easy", "abc") for _ in range(10)), reward=1.0)
    return weights_of(run, run.record(run.turn("easy", "abc"), hint="say xyz"))


ALONE = ("guards.max_session_share=1.0",)
EDGE = ("curriculum.tasks=edge", *ALONE)


@pytest.mark.parametrize(
    ("others", "setting", "effect", "found"),
    [
        ((), "guards.min_sessions", fate_of_a_hint_of_one_session,
         {"1": "trained", "2": "rejected:contradicted"}),
        # 6 of one key and 2 of another: at three quarters all weigh 1, at a half the six weigh a third
        (ALONE, "guards.max_key_share", weights_of_two_keys, {"0.75": [1.0], "0.5": [0.333333, 1.0]}),
        (ALONE, "guards.max_source_share", weights_of_two_sources, {"1.0": [1.0], "0.5": [0.333333, 1.0]}),
        # the other key sent its last turn five minutes before: within the window the loud one has half of four places
        ((), "guards.active_s", places_of_who_is_alone_now, {"60": ["loud"] * 4, "600": ["loud"] * 2}),
        (ALONE, "curriculum.balance", places_of_the_newest,
         {"[]": ["loud"] * 4, '["session"]': ["loud", "loud", "quiet", "quiet"]}),
        # eleven of thirteen sessions succeeded, one smoothed: 4p(1-p) = 88/169
        (EDGE, "curriculum.min_weight", weights_of_an_easy_task, {"0.1": [0.52071], "0.75": [0.75]}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_learner_does_as_its_setting_says(
    tmp_path: Path,
    base: Path,
    others: tuple[str, ...],
    setting: str,
    effect: Callable[[Run], object],
    found: dict[str, object],
) -> None:
    did = {}
    for number, value in enumerate(found):
        run = Run(tmp_path / f"run{number}", base, batch__turns_per_step=4)
        did[value] = effect(configured(run, *others, f"{setting}={value}"))

    assert did == found


def test_by_default_a_live_stream_is_learned_from_at_eight_turns_or_after_sixty_seconds(
    tmp_path: Path, base: Path
) -> None:
    given = load_config()
    run = Run(tmp_path / "run", base)
    run.config = run.config.model_copy(
        update={"learn": given.learn.model_copy(update={"precision": "fp32", "nice": 0, "max_age_s": 1e9})}
    )
    run.recipe = load_recipe(given.learn.recipe, given.learn.overrides)
    now = [0.0]

    def steps() -> int:
        learner.work()
        return len(learner.journal.of("step"))

    with run.learner() as learner:
        learner.loop._clock = lambda: now[0]
        learner.loop.start()
        hinted(run, 7)
        assert steps() == 0
        hinted(run, 1)
        now[0] += 1.1  # the log is asked once a second
        assert steps() == 1
        hinted(run, 1)
        now[0] += 1.1
        assert steps() == 1
        now[0] += 59.0
        assert steps() == 1
        now[0] += 1.0
        assert steps() == 2


@pytest.mark.parametrize("preset", preset_names())
def test_a_preset_for_live_streams_that_says_nothing_else_steps_at_eight_turns(preset: str) -> None:
    recipe = read_recipe(preset)
    is_said = "turns_per_step" in (PRESETS / f"{preset}.toml").read_text(encoding="utf-8")
    if recipe.rollout.name != "stream":
        assert recipe.batch.turns_per_step >= 8
    elif not is_said:
        assert (recipe.batch.turns_per_step, recipe.batch.max_wait_s) == (8, 60.0)
