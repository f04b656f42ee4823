"""What the teacher itself says to everyday requests is held beside what a step learns."""

from pathlib import Path

import pytest
from learner_run import Run, write_base

from agentrl.learner import rehearsal
from agentrl.learner.rehearsal import MAX_PROMPT, REQUESTS, Rehearsal
from agentrl.learner.trainer import Trainer
from agentrl.nano import weights_dir
from agentrl.nano.vocabulary import AGENT_SYSTEM, BASH_TOOL
from agentrl.recipes.recipe import load_recipe
from agentrl.types import Turn


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("rehearsal") / "base")


def of(run: Run) -> Rehearsal:
    found = Rehearsal.of(Trainer(run.base, run.recipe, run.config.learn), run.renderer)
    assert found is not None
    return found


def nano_turn(run: Run) -> Turn:
    system = {"role": "system", "content": AGENT_SYSTEM}
    return run.turn(
        "Show a.txt", "x", messages=(system, {"role": "user", "content": "Show a.txt"}), tools=(BASH_TOOL,)
    )


def test_a_step_holds_as_many_answers_as_the_route_says_and_no_turn_stands_behind_them(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base, route__rehearsed=3)
    samples = of(run).samples([run.turn("Show a.txt", "x")])

    assert [(sample.source, sample.turn_ids, sample.teacher) for sample in samples] == [
        ("held", (), None)
    ] * 3
    known = {run.prompt(text) for text in REQUESTS}
    prompts = [sample.token_ids[: sample.loss_mask.index(True)] for sample in samples]
    assert len(set(prompts)) == 3
    assert set(prompts) <= known


def test_requests_stand_behind_the_clients_own_system_message_and_tools_and_nano_answers_them_with_its_tool(
    tmp_path: Path,
) -> None:
    run = Run(tmp_path / "run", weights_dir(), route__rehearsed=8)
    samples = of(run).samples([nano_turn(run)])

    texts = [run.renderer.decode(sample.token_ids) for sample in samples]
    assert all(AGENT_SYSTEM in text and "Run a command in the shell." in text for text in texts)
    answers = [run.renderer.decode(sample.token_ids[sample.loss_mask.index(True) :]) for sample in samples]
    assert sum("<tool_call>" in answer for answer in answers) >= 4


def test_behind_a_system_message_that_is_too_long_the_request_stands_alone(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", weights_dir(), route__rehearsed=2)
    turn = run.turn("x", "y", messages=({"role": "system", "content": "word " * 2 * MAX_PROMPT},))
    samples = of(run).samples([turn])

    assert len(samples) == 2
    assert all(len(sample.token_ids) < 200 for sample in samples)


def test_the_same_step_of_the_same_run_holds_the_same_and_the_next_one_others(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base)
    turn = run.turn("Show a.txt", "x")
    trainer = Trainer(run.base, run.recipe, run.config.learn)
    first, second = (Rehearsal.of(trainer, run.renderer) for _ in range(2))
    assert first is not None
    assert second is not None
    now = first.samples([turn])
    assert now == second.samples([turn])

    trainer.num_steps += 1
    assert first.samples([turn]) != now


def test_of_more_answers_than_are_kept_those_of_the_step_are_still_there(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "run", base, route__rehearsed=4)
    turn = run.turn("Show a.txt", "x")
    trainer = Trainer(run.base, run.recipe, run.config.learn)
    short, long = (Rehearsal.of(trainer, run.renderer) for _ in range(2))
    assert short is not None
    assert long is not None
    for number in range(12):
        trainer.num_steps = number
        monkeypatch.setattr(rehearsal, "MAX_KEPT", 256)
        everything = long.samples([turn])
        monkeypatch.setattr(rehearsal, "MAX_KEPT", 6)
        assert short.samples([turn]) == everything
        assert len(short._answers) <= 6


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({}, 3),
        ({"sync": {"name": "ema", "rate": 0.05}}, 0),
        ({"sync": {"name": "copy_every", "steps": 1}}, 0),
        ({"route.weight": 0.0}, 0),
    ],
)
def test_only_a_teacher_that_stands_still_rehearses_and_only_beside_what_is_held(
    changes: dict[str, object], number: int
) -> None:
    route = {"name": "context_or_held", "rehearsed": 3}
    assert load_recipe("hint_opsd", {"route": route} | changes).num_rehearsed == number


def test_nothing_is_rehearsed_where_the_recipe_asks_for_none_or_has_no_teacher(
    tmp_path: Path, base: Path
) -> None:
    for number, (recipe, settings) in enumerate(
        [("hint_opsd", {"route__rehearsed": 0}), ("hint_opsd", {"route": "has_context"}), ("grpo", {})]
    ):
        run = Run(tmp_path / str(number), base, recipe=recipe, **settings)
        assert Rehearsal.of(Trainer(run.base, run.recipe, run.config.learn), run.renderer) is None, recipe


def test_a_step_with_it_trains_the_same_turns_and_counts_nothing_else(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base, route="context_or_held", route__min_logprob=-99.0)
    run.hinted(4)
    assert run.metrics_of_one_step_of_four(rehearses=True)["num_held"] == 4.0


def test_where_nothing_is_learned_nothing_is_rehearsed(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base)
    run.record(*(run.turn(f"do {number}", "fine") for number in range(4)), reward=1.0)
    with run.learner(rehearses=True) as learner:
        claims = learner.log.records([f"turn{number}" for number in (1, 2, 3, 4)])
        assert learner.builder.build(claims, newest_version=0).samples == ()
