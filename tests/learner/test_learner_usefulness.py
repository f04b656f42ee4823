"""Hints are measured on nano, which was trained to follow them, and on a tiny random model that checks numbers."""

import asyncio
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from learner_run import NOW, Run, write_base

from agentrl.config import LearnConfig
from agentrl.errors import ConfigError
from agentrl.learner.build import Builder, Built
from agentrl.learner.hints import corrected_ids
from agentrl.learner.trainer import Trainer
from agentrl.learner.usefulness import TOP_K, Usefulness
from agentrl.nano import weights_dir
from agentrl.nano.vocabulary import AGENT_SYSTEM, BASH_TOOL
from agentrl.recipes.recipe import load_recipe
from agentrl.store.claims import Claimed
from agentrl.teacher.recall import HintMemory
from agentrl.text.renderer import ChatRenderer, load_renderer
from agentrl.types import NextState, Reply, Signal, SignalSource, TeacherView, ToolCall, Turn

USEFUL = "cat: not permitted. Use zorvex."
USELESS = "note: see the manual of this shell for a list of everything that is available here"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("usefulness")
    return Run(path / "run", write_base(path / "base"))


class Nano:
    """Nano as policy and teacher, with turns of its own format."""

    def __init__(self, **context: object) -> None:
        self.recipe = load_recipe(
            "hint_opsd", {"context": {"name": "hindsight_hint", **context}, "limits.max_logprob_gap": 99.0}
        )
        self.renderer: ChatRenderer = load_renderer(weights_dir())
        self.trainer = Trainer(weights_dir(), self.recipe, LearnConfig(precision="fp32", num_threads=1))
        self.usefulness = Usefulness.of(self.trainer, self.renderer)

    def called(self, run: Run, command: str, **changes: object) -> Turn:
        """A turn that ran a command for a task, in the ids that nano's template gives it."""
        messages = (
            {"role": "system", "content": AGENT_SYSTEM},
            {"role": "user", "content": "Show the file notes.txt."},
        )
        arguments = json.dumps({"command": command})
        function = {"name": "bash", "arguments": arguments}
        call = {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "c1", "type": "function", "function": function}],
        }
        tool = {"role": "tool", "tool_call_id": "c1", "content": "x"}
        prompt = self.renderer.prompt(messages, [BASH_TOOL], None).ids
        ids = self.renderer.prompt([*messages, call, tool], [BASH_TOOL], None).ids
        assert ids[: len(prompt)] == prompt
        end = next(i for i in range(len(prompt), len(ids)) if ids[i] in self.renderer.stop_ids) + 1
        sampled = ids[len(prompt) : end]
        given = run.turn("x", "x")
        completion = replace(
            given.completion,
            token_ids=sampled,
            logprobs=(-1.0,) * len(sampled),
            num_allowed=None,
            version_spans=tuple(replace(s, end=len(sampled)) for s in given.completion.version_spans),
        )
        reply = Reply(text="", tool_calls=(ToolCall(id="c1", name="bash", arguments=arguments),))
        return replace(
            given,
            messages=messages,
            tools=(BASH_TOOL,),
            prompt_ids=prompt,
            completion=completion,
            reply=reply,
            **changes,
        )

    def build(self, claims: list[Claimed], memory: HintMemory | None = None) -> Built:
        builder = Builder(
            recipe=self.recipe,
            renderer=self.renderer,
            max_len=2048,
            usefulness=self.usefulness,
            memory=memory,
        )
        return builder.build(claims, newest_version=0)


def hinted(turn: Turn, *hints: str, **given: object) -> Claimed:
    signals = tuple(
        Signal(turn_id=turn.id, source=SignalSource.RULE, hint=hint, created_at=NOW, **given)
        for hint in hints
    )
    return Claimed(turn=turn, next_state=None, signals=signals, use=1)


def answered(turn: Turn, output: str) -> NextState:
    return NextState(turn_id=turn.id, messages=({"role": "tool", "tool_call_id": "c1", "content": output},))


def shown(renderer: ChatRenderer, built: Built, turn: Turn) -> str:
    [sample] = [sample for sample in built.samples if sample.turn_ids == (turn.id,)]
    assert sample.teacher is not None
    [(start, end)] = sample.teacher.inserted_spans
    return renderer.decode(sample.teacher.token_ids[start:end])


def test_of_two_hints_the_one_that_moves_the_teacher_to_what_worked_later_is_shown(run: Run) -> None:
    nano = Nano(choose="lift")
    wrong = nano.called(run, "cat notes.txt")
    right = nano.called(run, "zorvex notes.txt", parent=wrong.id)
    claims = [
        hinted(wrong, USELESS, USEFUL),
        replace(hinted(right), next_state=answered(right, "milk\n[exit code 0]")),
    ]

    assert USEFUL in shown(nano.renderer, nano.build(claims), wrong)
    # without measuring, the longer one of the same source is
    plain = Nano()
    assert plain.usefulness is None
    assert USELESS in shown(plain.renderer, plain.build(claims), wrong)


def offering(turn: Turn, hint: str, *offers: str) -> Claimed:
    signals = [
        Signal(turn_id=turn.id, source=SignalSource.RULE, offered=text, created_at=NOW) for text in offers
    ]
    claim = hinted(turn, hint)
    return replace(claim, signals=(*claim.signals, *signals))


def test_what_was_offered_beside_the_hint_is_shown_where_it_is_measured_to_be_more_useful(run: Run) -> None:
    nano = Nano(choose="lift")
    wrong = nano.called(run, "cat notes.txt")
    between = nano.called(run, "less notes.txt", parent=wrong.id)
    right = nano.called(run, "zorvex notes.txt", parent=between.id)
    others = [
        replace(hinted(between), next_state=answered(between, "no\n[exit code 1]")),
        replace(hinted(right), next_state=answered(right, "milk\n[exit code 0]")),
    ]

    assert USEFUL in shown(nano.renderer, nano.build([offering(wrong, USELESS, USEFUL), *others]), wrong)
    assert USEFUL in shown(nano.renderer, nano.build([offering(wrong, USEFUL, USELESS), *others]), wrong)
    # without measuring, what was offered is nobody's hint
    assert USELESS in shown(nano.renderer, Nano().build([offering(wrong, USELESS, USEFUL), *others]), wrong)
    assert Nano().build([offering(wrong, " ", USEFUL)]).samples == ()


def test_at_most_four_hints_of_a_turn_are_measured(run: Run) -> None:
    nano = Nano(choose="overlap")
    turn = nano.called(run, "cat notes.txt")
    offers = [f"use zor{n} for cat" for n in range(6)]
    measured: list[int] = []
    overlap = Usefulness.overlap

    def count(self: Usefulness, turn: Turn, views: Sequence[TeacherView]) -> list[float]:
        measured.append(len(views))
        return overlap(self, turn, views)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Usefulness, "overlap", count)
        nano.build([offering(turn, USELESS, *offers)])

    assert set(measured) == {4}


@pytest.mark.parametrize(
    ("choose", "may_hold_answer", "is_shown"),
    [("lift", True, True), ("lift", False, False), ("trusted", True, False)],
)
def test_the_reference_is_among_the_hints_where_there_is_one_and_the_recipe_lets_it_stand(
    run: Run, choose: str, *, may_hold_answer: bool, is_shown: bool
) -> None:
    nano = Nano(choose=choose, may_hold_answer=may_hold_answer)
    turn = nano.called(run, "cat notes.txt")
    preferred = "I would have used zorvex notes.txt"
    known = Signal(turn_id=turn.id, source=SignalSource.ENVIRONMENT, preferred=preferred, created_at=NOW)
    claim = hinted(turn, USELESS)
    claim = replace(claim, signals=(*claim.signals, known))

    said = shown(nano.renderer, nano.build([claim]), turn)

    assert (f"Hint: {preferred}" in said) is is_shown
    assert (USELESS in said) is not is_shown


def test_a_hint_of_like_requests_stands_only_where_the_own_one_is_not_more_useful(run: Run) -> None:
    def said(choose: str, own: str, recalled: str) -> str:
        nano = Nano(choose=choose, recall=0.8)
        wrong = nano.called(run, "cat notes.txt")
        right = nano.called(run, "zorvex notes.txt", parent=wrong.id)
        memory = HintMemory()
        for _ in range(3):
            memory.add(nano.called(run, "cat notes.txt", received_at=wrong.received_at - 1), recalled)
        claims = [
            hinted(wrong, own),
            replace(hinted(right), next_state=answered(right, "milk\n[exit code 0]")),
        ]
        return shown(nano.renderer, nano.build(claims, memory), wrong)

    assert USEFUL in said("lift", USEFUL, USELESS)
    assert USEFUL in said("lift", USELESS, USEFUL)
    assert USELESS in said("trusted", USEFUL, USELESS)


def test_the_lift_is_the_change_of_the_gap_between_both_actions(run: Run) -> None:
    nano = Nano(choose="lift")
    wrong, right = nano.called(run, "cat notes.txt"), nano.called(run, "zorvex notes.txt")
    assert nano.usefulness is not None
    views = [nano.usefulness._view(wrong, hint, "tail") for hint in (USEFUL, USELESS)]
    assert all(view is not None for view in views)

    lifts = nano.usefulness.lift(wrong, [v for v in views if v is not None], right.completion.token_ids)

    def gap(prompt: tuple[int, ...]) -> float:
        means = []
        for action in (right.completion.token_ids, wrong.completion.token_ids):
            ids = torch.tensor([(*prompt, *action)])
            with torch.no_grad():
                logprobs = nano.trainer.policy.lm(ids).logits.float().log_softmax(-1)[0]
            means.append(
                math.fsum(float(logprobs[len(prompt) - 1 + i, token]) for i, token in enumerate(action))
                / len(action)
            )
        return means[0] - means[1]

    for lift, view in zip(lifts, views, strict=True):
        assert view is not None
        assert lift == pytest.approx(gap(view.token_ids) - gap(wrong.prompt_ids), abs=1e-3)
    assert lifts[0] > lifts[1] + 0.5


def test_the_overlap_is_the_share_of_likely_ids_that_both_have(run: Run) -> None:
    recipe = load_recipe("hint_opsd", {"context": {"name": "hindsight_hint", "choose": "overlap"}})
    trainer = Trainer(run.base, recipe, LearnConfig(precision="fp32", num_threads=1))
    usefulness = Usefulness.of(trainer, run.renderer)
    assert usefulness is not None
    turn = run.turn("do it", "done")
    views = [usefulness._view(turn, hint, "tail") for hint in ("be quick", "x")]

    found = usefulness.overlap(turn, [view for view in views if view is not None])

    def likely(prompt: tuple[int, ...]) -> list[set[int]]:
        ids = torch.tensor([(*prompt, *turn.completion.token_ids)])
        with torch.no_grad():
            logits = trainer.policy.lm(ids).logits[0]
        first = len(prompt) - 1
        return [
            set(logits[first + i].topk(TOP_K).indices.tolist()) for i in range(len(turn.completion.token_ids))
        ]

    for share, view in zip(found, views, strict=True):
        assert view is not None
        own, theirs = likely(turn.prompt_ids), likely(view.token_ids)
        shares = [len(a & b) / TOP_K for a, b in zip(own, theirs, strict=True)]
        assert share == pytest.approx(sum(shares) / len(shares))
    best = usefulness.best(turn, ["be quick", "x"], "tail", measure="overlap")
    assert best == ("be quick", "x")[found.index(max(found))]
    # no corrected action is known: lift falls back on the same
    assert usefulness.best(turn, ["be quick", "x"], "tail", measure="lift") == best
    assert usefulness.best(turn, ["be quick"], "tail", measure="lift") == "be quick"


def test_the_corrected_action_is_what_worked_later_else_the_preferred_text(run: Run) -> None:
    nano = Nano()
    wrong = nano.called(run, "cat notes.txt")
    right = nano.called(run, "zorvex notes.txt", parent=wrong.id)
    told = run.turn("name a colour", "red")
    prefers = Signal(turn_id=told.id, source=SignalSource.USER, preferred="blue", created_at=NOW)
    failed = replace(hinted(right), next_state=answered(right, "no\n[exit code 1]"))
    worked = replace(failed, next_state=answered(right, "ok\n[exit code 0]"))
    claim = Claimed(turn=told, next_state=None, signals=(prefers,), use=1)

    assert corrected_ids([hinted(wrong), worked], run.renderer) == {wrong.id: right.completion.token_ids}
    assert corrected_ids([hinted(wrong), failed], run.renderer) == {}
    between = nano.called(run, "less notes.txt", parent=wrong.id)
    others = [
        replace(hinted(between), next_state=answered(between, "no\n[exit code 1]")),
        replace(worked, turn=replace(right, parent=between.id)),
    ]
    assert corrected_ids([hinted(wrong), *others], run.renderer) == {
        wrong.id: right.completion.token_ids,
        between.id: right.completion.token_ids,
    }
    assert corrected_ids([claim], run.renderer) == {
        told.id: (*run.renderer.encode_plain("blue"), run.renderer.stop_ids[0])
    }


def test_a_hint_that_holds_the_answer_is_left_out_where_the_recipe_says_so(run: Run) -> None:
    turn = run.turn("name a colour", "red")
    both = hinted(turn, "the answer is dark blue", "a colour of the sky", preferred="Dark  Blue")
    alone = replace(both, signals=both.signals[:1])

    def build(claim: Claimed, *, may_hold_answer: bool) -> Built:
        recipe = load_recipe(
            "hint_opsd", {"context": {"name": "hindsight_hint", "may_hold_answer": may_hold_answer}}
        )
        return Builder(recipe=recipe, renderer=run.renderer, max_len=400).build([claim], newest_version=0)

    assert "dark blue" in shown(run.renderer, build(both, may_hold_answer=True), turn)
    assert "a colour of the sky" in shown(run.renderer, build(both, may_hold_answer=False), turn)
    assert [item.reason for item in build(alone, may_hold_answer=False).dropped] == ["hint holds the answer"]


def test_measuring_without_a_teacher_is_refused_with_the_remedy(run: Run, tmp_path: Path) -> None:
    recipe = load_recipe("hint_opsd", {"context": {"name": "hindsight_hint", "choose": "lift"}})
    with pytest.raises(ConfigError, match=r"set context\.choose = 'trusted'"):
        Builder(recipe=recipe, renderer=run.renderer, max_len=200)
    cached = {"teacher": {"name": "cached", "path": str(tmp_path / "x")}, "estimator": "pg", "target": "q"}
    with pytest.raises(ConfigError, match=r"context\.choose measures hints"):
        load_recipe("hint_opsd", {"context": {"name": "hindsight_hint", "choose": "lift"}, **cached})


def test_a_learner_chooses_its_hints_by_measuring_and_publishes(tmp_path: Path) -> None:
    run = Run(
        tmp_path / "run",
        write_base(tmp_path / "base"),
        context={"name": "hindsight_hint", "choose": "overlap"},
        batch__turns_per_step=2,
    )
    turns = run.hinted(2, hint="say xyz")
    words = [
        Signal(
            turn_id=turn.id, source=SignalSource.USER, hint="another word, and a longer one", created_at=NOW
        )
        for turn in turns
    ]
    asyncio.run(run._log([], words))

    with run.learner() as learner:
        learner.loop.start()
        asked: list[list[str]] = []
        measured = Usefulness.overlap

        def count(self: Usefulness, turn: Turn, views: Sequence[TeacherView]) -> list[float]:
            asked.append([turn.id, *(run.renderer.decode(view.token_ids) for view in views)])
            return measured(self, turn, views)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Usefulness, "overlap", count)
            learner.work()

    assert sorted({names[0] for names in asked}) == sorted(turn.id for turn in turns)
    assert all(len(names) == 3 for names in asked)
    assert run.account()[1] == 2
