"""Which lessons a version is asked for and where, and what it must keep of what version 0 does once it has read one."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from learner_run import Learner, Run, write_base

from agentrl.learner.lesson_probes import MAX_PROBES, LessonProbes
from agentrl.learner.trainer import Trainer
from agentrl.nano import weights_dir
from agentrl.nano.habits import ASSISTANT_SYSTEM
from agentrl.nano.vocabulary import AGENT_SYSTEM
from agentrl.signals.lessons import gather, of_skill
from agentrl.store.account import REVIVED, Reason
from agentrl.types import JSON, Block, Lesson, LessonState, Purpose, Signal, SignalSource, Turn

BASH = {
    "type": "function",
    "function": {
        "name": "bash",
        "description": "Run a command.",
        "parameters": {
            "type": "object",
            "properties": {"command": {"type": "string"}},
            "required": ["command"],
        },
    },
}
LAMP = "Describe the lamp: weight 3 kg or 7 lb, height 2 m or 7 ft."
IMPERIAL = "The lamp has weight 7 lb and height 7 ft."
UNITS = "Please use imperial units."
SHOW = "Show the file notes.txt"
REFUSED = 'The tool said: "cat is not allowed here, only zorvex is"'


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model: it is decided nowhere, so nothing has an effect on it."""
    return write_base(tmp_path_factory.mktemp("model") / "base")


# what is measured, with the model that ships


def asked(run: Run, request: str, **changes: object) -> Turn:
    """A turn whose request stands in the world that nano knows: a note that is wanted, or a shell."""
    is_note = request.startswith("Describe")
    tools: list[JSON] = [] if is_note else [BASH]
    messages = (
        {"role": "system", "content": ASSISTANT_SYSTEM if is_note else AGENT_SYSTEM},
        {"role": "user", "content": request},
    )
    ids = run.renderer.prompt(messages, tools, None).ids
    return run.turn(request, "-", messages=messages, tools=tuple(tools), prompt_ids=ids, **changes)


def call(command: str) -> str:
    arguments = f'{{"name": "bash", "arguments": {{"command": "{command}"}}}}'
    return f"<tool_call>\n{arguments}\n</tool_call>"


def teach(learner: Learner, turn: Turn, reply: str) -> None:
    """Makes a reply the only one that the weights give."""
    tokenizer = learner.run.renderer._tokenizer
    ids = (*turn.prompt_ids, *tokenizer.encode(reply), learner.run.renderer.stop_ids[0])
    weights = list(learner.trainer.policy.trained.values())
    optimizer = torch.optim.AdamW(weights, lr=1e-3, weight_decay=0.0)
    start, tokens = len(turn.prompt_ids), torch.tensor([ids])
    for _ in range(60):
        logits = learner.trainer.policy.causal_lm(input_ids=tokens[:, :-1]).logits[0, start - 1 :]
        loss = torch.nn.functional.cross_entropy(logits, tokens[0, start:], reduction="none").max()
        if loss < 0.02:
            return
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    raise AssertionError(f"the reply was not learned: {float(loss):.2f} nats at its dearest id")


def learned(tmp_path: Path, request: str, hint: str, *replies: str) -> list[bool | None]:
    """Whether a hint is held before anything was taught and after each reply was."""
    run = Run(tmp_path / "run", weights_dir())
    [turn] = run.record(asked(run, request), hint=hint)
    with run.learner() as learner:
        learner.loop.start()
        gather(learner.log, "default", "auto")
        found = list(learner.probes.run(0).values())
        for reply in replies:
            learner.trainer.reset()
            teach(learner, turn, reply)
            found += learner.probes.run(0).values()
    return found


def test_a_wish_in_plain_words_is_held_once_the_weights_do_as_it_says_in_whatever_ending(
    tmp_path: Path,
) -> None:
    metric = "The lamp has weight 3 kg and height 2 m."

    assert learned(
        tmp_path,
        LAMP,
        UNITS,
        f"{IMPERIAL}\nCheers",
        f"{IMPERIAL}\nKind regards",
        f"{metric}\nCheers",
    ) == [False, True, True, False]


def test_of_several_ways_to_do_as_a_wish_says_each_is_right(tmp_path: Path) -> None:
    note = "The lamp has weight 3 kg and height 2 m.\nCheers"

    assert learned(
        tmp_path,
        LAMP,
        "Please use a friendly opening.",
        f"Here you go!\n{note}",
        f"Sure thing!\n{note}",
        f"Certainly.\n{note}",
    ) == [False, True, True, False]


def test_a_garbled_command_that_holds_the_word_is_not_the_lesson(tmp_path: Path) -> None:
    assert learned(tmp_path, SHOW, REFUSED, call("zorvex notes.txt"), call("zorvex netos.txt")) == [
        False,
        True,
        False,
    ]


def test_what_changes_nothing_has_no_effect_until_a_version_loses_what_version_0_does(tmp_path: Path) -> None:
    assert learned(tmp_path, LAMP, "Be kind to animals.", "lamp lamp 7 7") == [None, False]


def test_where_version_0_does_not_do_what_a_lesson_names_what_it_does_is_nobodys_measure(
    tmp_path: Path,
) -> None:
    """With this in view it still says cat: whoever learned the named program has broken nothing."""
    misread = 'The tool said: "bash: for: not found; use `kepler` instead"'

    assert learned(tmp_path, SHOW, misread, call("kepler notes.txt")) == [None, None]


def test_a_result_says_what_the_version_answered_how_much_it_keeps_and_where_it_was_asked(
    tmp_path: Path,
) -> None:
    run = Run(tmp_path / "run", weights_dir())
    run.record(asked(run, LAMP, turn_id="told"), hint=UNITS)
    with run.learner() as learner:
        learner.loop.start()
        gather(learner.log, "default", "auto")
        learner.probes.run(0)
        run.record(asked(run, LAMP, turn_id="apart", purpose=Purpose.EVAL))
        learner.probes.run(0)

        [lesson] = learner.log.lessons()
        [own, apart] = learner.log.probes("default", 0)
        assert lesson.probe == {"turn_id": "apart", "held_out": True, "names": []}
        assert (lesson.held_by, lesson.broken_by, lesson.is_apart) == ((), (), True)
        assert own.name == apart.name == f"lesson {lesson.id}"
        assert (own.held_out, apart.held_out) == (False, True)
        assert own.detail == "The lamp has weight 3 kg (7 lb) and height 2 m (7 ft).\nKind regards<|im_end|>"
        # of the pounds alone that version 0 would write, it writes as much without the wish
        assert own.score is not None
        assert 0.2 < own.score < 0.5


def test_a_skill_is_shown_to_version_0_as_teachers_are_shown_it_and_moves_to_an_unseen_situation(
    tmp_path: Path,
) -> None:
    run = Run(tmp_path / "run", weights_dir())
    [turn] = run.record(asked(run, SHOW, turn_id="shown"), reward=1.0)
    skills = [
        of_skill("default", "use-zorvex", "cat does not work here; zorvex works", turn),
        of_skill("team", "from-elsewhere", "cat does not work here; zorvex works", None),
    ]
    with run.learner() as learner:
        learner.loop.start()
        probes = LessonProbes(
            learner.log, run.renderer, learner.trainer, policy="default", skills=lambda: skills
        )

        assert probes.run(0) == {"skill:use-zorvex": False}
        [known] = probes._wanted.values()
        assert "Skill: use-zorvex\ncat does not work here; zorvex works" in run.renderer.decode(known.view)
        assert "zorvex notes.txt" in run.renderer.decode(known.row.token_ids)

        run.record(asked(run, SHOW, turn_id="apart", purpose=Purpose.EVAL))
        probes.run(0)
        run.record(*(run.turn(f"something else {number}", "abc") for number in range(70)))
        probes.run(0)
        assert [one.held_out for one in learner.log.probes("default", 0)] == [False, True, True]
        teach(learner, turn, call("zorvex notes.txt"))
        assert probes.run(0) == {"skill:use-zorvex": True}
        [held, elsewhere] = learner.log.with_results(skills)
        assert (held.held_by, held.is_apart, elsewhere.held_by) == ((0,), True, ())


def test_version_0_is_asked_once_for_a_lesson_and_a_situation(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", weights_dir())
    run.record(asked(run, LAMP, turn_id="told"), hint=UNITS)
    with run.learner() as learner:
        learner.loop.start()
        gather(learner.log, "default", "auto")
        learner.probes.run(0)
        [first] = learner.probes._wanted.values()
        learner.probes.run(0)
        [again] = learner.probes._wanted.values()
        other = LAMP.replace("lamp", "door")
        run.record(asked(run, other, turn_id="apart", purpose=Purpose.EVAL, task_key=LAMP))
        learner.probes.run(0)
        [_, moved] = learner.probes._wanted.values()

    assert again is first
    assert "The door has weight 7 lb" in run.renderer.decode(moved.row.token_ids)


def test_without_version_0_nothing_is_asked(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base, sync={"name": "live"}, route="has_context")
    run.hinted(1)
    with run.learner(trainer=Trainer(base, run.recipe, run.config.learn)) as learner:
        learner.loop.start()
        gather(learner.log, "default", "auto")

        assert learner.trainer.base is None
        assert learner.probes.run(0) == {}


# which are asked, and where


def asked_for(id_: str, prompt: str) -> Lesson:
    return Lesson(
        id=id_,
        text=f"text of {id_}",
        state=LessonState.APPROVED,
        turn_ids=(),
        probe={
            "messages": [{"role": "user", "content": prompt}],
            "tools": [],
            "held_out": True,
            "names": [],
        },
        situation=tuple(prompt.split()),
    )


def test_the_learner_asks_each_version_once_it_serves(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base)
    with run.learner(asks_lessons=True) as learner:
        learner.loop.start()
        learner.log.add_lessons([asked_for("L1", "what now")])
        run.hinted(4)
        learner.work()

        assert [event["version"] for event in learner.journal.of("lessons")] == [1]
        assert learner.journal.of("lessons")[0]["not_held"] == []
        probes = [p for p in learner.log.probes("default", 1) if p.name == "lesson L1"]
        assert [probe.passed for probe in probes] == [None]


def test_versions_take_turns_where_there_are_more_lessons_than_one_is_asked_for(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base)
    with run.learner() as learner:
        learner.loop.start()
        learner.log.add_lessons([asked_for(f"L{number:02}", "what now") for number in range(MAX_PROBES + 3)])
        first, second = learner.probes.run(0), learner.probes.run(0)

        assert len(first) == len(second) == MAX_PROBES
        assert set(first) | set(second) == {f"L{number:02}" for number in range(MAX_PROBES + 3)}


def test_a_learner_that_publishes_fast_asks_less_often(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base)
    ticks = iter([10.0, 13.0, 39.9, 40.0])
    with run.learner() as learner:
        learner.loop.start()
        learner.log.add_lessons([asked_for("L1", "what now")])
        probes = LessonProbes(
            learner.log, run.renderer, learner.trainer, policy="default", clock=lambda: next(ticks)
        )

        assert set(probes.run(0)) == {"L1"}, "it took from 10 to 13, so it rests for 9 * 3 s"
        assert [probes.due(0)[1], probes.due(0)[1]] == [False, True]


def test_only_approved_lessons_with_a_probe_are_asked(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base)
    with run.learner() as learner:
        learner.loop.start()
        one = asked_for("L1", "what now")
        learner.log.add_lessons(
            [replace(one, state=state, id=f"L{state.value}") for state in LessonState]
            + [Lesson(id="bare", text="be kind", state=LessonState.APPROVED, turn_ids=())]
        )

        assert set(learner.probes.run(0)) == {"Lapproved"}


def test_the_situation_becomes_one_that_nothing_is_trained_on_as_soon_as_there_is_one(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base)
    with run.learner() as learner:
        learner.loop.start()
        run.record(run.turn("tell me the same thing again", "abc", turn_id="told"), hint='say "xyz"')
        learner.work()
        [lesson] = learner.log.lessons()
        assert lesson.probe is not None
        assert (lesson.probe["turn_id"], lesson.probe["held_out"]) == ("told", False)

        learner.probes.run(0)
        assert learner.log.lessons()[0].probe == lesson.probe

        run.record(run.turn("something else", "abc", turn_id="other", purpose=Purpose.EVAL))
        run.record(
            run.turn(
                "tell me the same thing again", "abd", turn_id="foreign", purpose=Purpose.EVAL, scope="x"
            )
        )
        learner.probes.run(0)
        assert learner.log.lessons()[0].probe == lesson.probe

        run.record(run.turn("tell me the same thing again", "abd", turn_id="apart", purpose=Purpose.EVAL))
        learner.probes.run(0)
        found = learner.log.lessons()[0].probe
        assert found == {"turn_id": "apart", "held_out": True, "names": ["xyz"]}


AGAIN = "tell me the same thing again"


@contextmanager
def taught(tmp_path: Path, base: Path) -> Iterator[tuple[Run, Learner]]:
    """A learner that has learned one lesson."""
    run = Run(tmp_path / "run", base, batch__turns_per_step=1)
    with run.learner() as learner:
        learner.loop.start()
        run.record(run.turn(AGAIN, "abc", turn_id="told"), hint='say "xyz"')
        learner.work()
        yield run, learner


def places(learner: Learner) -> JSON:
    """The first lesson's probe after it was asked for."""
    learner.probes.run(0)
    probe = learner.log.lessons()[0].probe
    assert probe is not None
    return probe


def test_a_like_turn_that_waits_becomes_the_situation_and_is_never_trained(
    tmp_path: Path, base: Path
) -> None:
    with taught(tmp_path, base) as (run, learner):
        run.record(*(run.turn(AGAIN, "abd", turn_id=name) for name in ("second", "third")))
        run.record(run.turn(AGAIN, "abd", turn_id="hinted"), hint='say "pqr"')

        assert places(learner) == {"turn_id": "third", "held_out": True, "names": ["xyz"]}
        learner.work()
        assert learner.log.fate("third") == "rejected:held_out"
        assert learner.log.fate("hinted") == "trained", "what it was told is not lost"
        run.record(run.turn(AGAIN, "abd", turn_id="fourth"))
        assert places(learner)["turn_id"] == "third", "one is enough"
        assert learner.log.fate("fourth") == "pending:waiting"


def test_a_request_in_other_words_is_the_better_situation(tmp_path: Path, base: Path) -> None:
    with taught(tmp_path, base) as (run, learner):
        run.record(run.turn(f"{AGAIN}, please", "abd", turn_id="other words"))
        run.record(run.turn(AGAIN, "abd", turn_id="same", purpose=Purpose.EVAL))

        assert places(learner)["turn_id"] == "other words"


def test_who_is_set_aside_for_good_keeps_his_reason(tmp_path: Path, base: Path) -> None:
    with taught(tmp_path, base) as (run, learner):
        run.record(run.turn(AGAIN, "abd", turn_id="old"))
        learner.log.reject(["old"], "version lag")

        assert places(learner)["turn_id"] == "old"
        assert learner.log.fate("old") == "rejected:version lag"


def test_after_a_restart_a_skill_is_asked_for_where_it_was_before(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base)
    made = run.turn(AGAIN, "abc", turn_id="made", purpose=Purpose.EVAL)
    run.record(made)
    run.record(*(run.turn(f"{AGAIN} {number}", "abd", turn_id=f"t{number}") for number in range(2)))
    skill = of_skill("default", "say", "Say xyz.", made)
    held = []
    for _ in range(2):
        with run.learner() as learner:
            learner.loop.start()
            learner.probes._situations.settle([skill])
            held.append([learner.log.fate(f"t{number}") for number in range(2)])
            run.record(run.turn(f"{AGAIN} 3", "abd"))

    assert held == [["pending:waiting", "rejected:held_out"]] * 2


@pytest.mark.parametrize("rests_until", [0.0, 1.0])
def test_which_turn_is_held_out_follows_from_the_log_and_not_from_how_long_asking_takes(
    rests_until: float, tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base, batch__turns_per_step=1)
    run.record(run.turn(AGAIN, "abc", turn_id="told"), hint='say "xyz"')
    run.record(*(run.turn(AGAIN, "abc", turn_id=f"t{number}") for number in range(8)))
    with run.learner(asks_lessons=True) as learner:
        learner.loop.start()
        learner.probes._clock = lambda: 0.0
        learner.probes._rests_until = rests_until
        learner.work()

        fates = [learner.log.fate(f"t{number}") for number in range(8)]
        assert fates == ["trained"] * 4 + ["rejected:held_out"] + ["trained"] * 3


def test_the_only_turn_of_a_lesson_is_trained_and_not_kept(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base, batch__turns_per_step=1)
    with run.learner() as learner:
        learner.loop.start()
        run.record(run.turn(AGAIN, "abc", turn_id="told"), hint='say "xyz"')
        gather(learner.log, "default", "auto")

        assert places(learner) == {"turn_id": "told", "held_out": False, "names": ["xyz"]}
        learner.work()
        assert learner.log.fate("told") == "trained"


def test_a_turn_without_a_context_stays_held_out_when_a_hint_comes_later(tmp_path: Path, base: Path) -> None:
    with taught(tmp_path, base) as (run, learner):
        run.record(run.turn(AGAIN, "xyz", turn_id="right"))
        learner.log.reject(["right"], Reason.NO_CONTEXT)

        assert places(learner)["turn_id"] == "right"
        late = Signal(turn_id="right", source=SignalSource.USER, hint="say it twice", created_at=time.time())
        asyncio.run(run._log([], [late]))
        learner.work()
        assert learner.log.fate("right") == "rejected:held_out"


@pytest.mark.parametrize("reason", REVIVED)
def test_turns_that_come_back_with_somebody_s_word_are_no_held_out_situations(
    reason: Reason, tmp_path: Path, base: Path
) -> None:
    with taught(tmp_path, base) as (run, learner):
        run.record(run.turn(AGAIN, "abd", turn_id="aside"), hint='say "pqr"')
        learner.log.reject(["aside"], reason)

        assert places(learner)["turn_id"] == "told"
        assert not learner.log.hold_out("default", "aside")


def test_a_situation_of_an_earlier_release_that_was_trained_is_held_out_no_more(
    tmp_path: Path, base: Path
) -> None:
    with taught(tmp_path, base) as (_, learner):
        [lesson] = learner.log.lessons()
        assert lesson.probe is not None
        learner.log.set_probe(lesson.id, {**lesson.probe, "held_out": True})

        learner.probes.run(1)
        [lesson] = learner.log.lessons()
        assert not lesson.is_apart


def test_a_situation_in_whose_prompt_another_lesson_stood_is_asked_without_it(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base)
    turn = run.turn("tell me the same", "abc", turn_id="told")
    block = Block(position="system", text="Hint: say abc")
    view = run.renderer.insert(turn.prompt_ids, len(turn.prompt_ids), [block])
    shown = replace(turn, prompt_ids=view.token_ids, block_spans=view.inserted_spans, shown_lessons=("L1",))
    run.record(shown, hint='say "xyz"')
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
        [lesson] = learner.log.lessons()
        assert run.account() == (1, 0, {"lesson_shown": 1}, {})
        [situation] = learner.probes._situations.of([lesson], MAX_PROBES)

        assert situation.prompt == turn.prompt_ids != shown.prompt_ids
