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
from agentrl.learner.guard_report import read_report
from agentrl.learner.hints import Measuring, corrected_ids
from agentrl.learner.trainer import Trainer
from agentrl.learner.usefulness import TOP_K, Usefulness
from agentrl.nano import weights_dir
from agentrl.nano.vocabulary import AGENT_SYSTEM, BASH_TOOL
from agentrl.recipes import axes
from agentrl.recipes.recipe import load_recipe
from agentrl.store.claims import Claimed
from agentrl.store.signal_log import SignalLog
from agentrl.teacher.recall import HintMemory
from agentrl.text.renderer import ChatRenderer, load_renderer
from agentrl.types import MatchedBy, NextState, Reply, Signal, SignalSource, TeacherView, ToolCall, Turn
from server.inspect import explain_turn

USEFUL = "cat: not permitted. Use zorvex."
PREFERRED = "I would have used zorvex notes.txt"
MISLEADING = "less: not permitted. Use cat."
HELPFUL = "less: not permitted. Use zorvex."
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
    ("choose", "may_hold_answer", "source", "expected"),
    [
        ("lift", True, SignalSource.ENVIRONMENT, PREFERRED),
        ("lift", True, SignalSource.RULE, PREFERRED),  # what the user wrote in the place of the reply
        ("lift", True, SignalSource.JUDGE, None),  # the gate takes nobody else's word for an answer
        ("lift", False, SignalSource.ENVIRONMENT, None),
        ("trusted", True, SignalSource.ENVIRONMENT, USELESS),
    ],
)
def test_the_reference_is_among_the_hints_where_there_is_one_and_the_recipe_lets_it_stand(
    run: Run, choose: str, source: SignalSource, expected: str | None, *, may_hold_answer: bool
) -> None:
    nano = Nano(choose=choose, may_hold_answer=may_hold_answer)
    turn = nano.called(run, "cat notes.txt")
    known = Signal(turn_id=turn.id, source=source, preferred=PREFERRED, created_at=NOW)
    claim = hinted(turn, USELESS)
    claim = replace(claim, signals=(*claim.signals, known))

    built = nano.build([claim])

    if expected is None:  # the useless one is then the only one
        assert [item.reason for item in built.dropped] == ["no context"]
    else:
        assert f"Hint: {expected}" in shown(nano.renderer, built, turn)


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
    # no corrected action is known: lift falls back on the same
    for choose in ("overlap", "lift"):
        measuring = Measuring.of(axes.HindsightHint(choose=choose), usefulness, turn, ())
        assert measuring is not None
        assert measuring.best(["be quick"]) == "be quick"
        assert measuring.values == {}
        assert measuring.best(["be quick", "x"]) == ("be quick", "x")[found.index(max(found))]
        assert list(measuring.values.values()) == pytest.approx(found)


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
    for evidence, known in (("", [wrong.id]), ("behind turn x: the user's words", [])):
        told_now = hinted(wrong, "Use blip instead of cat.", evidence=evidence)
        assert list(corrected_ids([told_now, worked], run.renderer)) == known
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


class Scripted:
    """Says how useful each hint is, and takes down what it was asked."""

    def __init__(self, **values: float) -> None:
        self.known = values
        self.asked: list[tuple[str, list[str]]] = []

    def values(
        self, turn: Turn, hints: Sequence[str], position: str, measure: str, corrected: Sequence[int]
    ) -> dict[str, float]:
        del turn, position, corrected
        self.asked.append((measure, list(hints)))
        return {hint: self.known[hint] for hint in hints if hint in self.known}


@pytest.mark.parametrize(
    ("choose", "knows_right", "values", "shows", "is_useless"),
    [
        ("lift", True, {"good": 0.25, "bad": -0.5}, "good", False),
        ("lift", True, {"bad": -0.5}, None, True),
        ("lift", True, {"even": 0.0, "bad": -0.5}, None, True),  # as good as nothing
        ("lift", True, {"good": 0.25, "fine": 0.25}, "good", False),
        ("lift", False, {"bad": 0.0, "worse": 0.0}, "bad", False),  # an overlap refuses nothing
        ("overlap", True, {"bad": 0.1, "good": 0.75}, "good", False),
    ],
)
def test_a_hint_without_lift_is_not_shown_and_an_overlap_refuses_none(
    run: Run, choose: str, values: dict[str, float], shows: str | None, *, knows_right: bool, is_useless: bool
) -> None:
    recipe = load_recipe("hint_opsd", {"context": {"name": "hindsight_hint", "choose": choose}})
    scripted = Scripted(**values)
    builder = Builder(recipe=recipe, renderer=run.renderer, max_len=200, usefulness=scripted)
    wrong, right = run.turn("do it", "cat x"), run.turn("do it", "dog x")
    claim = hinted(wrong, *values)
    with pytest.MonkeyPatch.context() as patch:
        known = {wrong.id: right.completion.token_ids} if knows_right else {}
        patch.setattr("agentrl.learner.build.corrected_ids", lambda *_: known)
        built = builder.build([claim], newest_version=0)

    measure = "lift" if choose == "lift" and knows_right else "overlap"
    assert sum(len(hints) for _, hints in scripted.asked) == len(values), "each is measured once"
    found = built.useful[wrong.id]
    assert (found.measure, dict(found.values), found.chosen) == (measure, values, shows)
    assert found.is_useless is is_useless
    if shows is None:
        assert [(item.turn_ids, item.reason) for item in built.dropped] == [((wrong.id,), "no context")]
    else:
        assert f"Hint: {shows}" in shown(run.renderer, built, wrong)


def test_what_like_requests_brought_is_shown_only_with_a_lift(run: Run) -> None:
    overrides = {"context": {"name": "hindsight_hint", "choose": "lift", "recall": 0.8}}
    wrong, right = run.turn("do it", "cat x"), run.turn("do it", "dog x")
    memory = HintMemory()
    for _ in range(2):
        memory.add(run.turn("do it", "cat x", received_at=wrong.received_at - 1), "before")

    def shows(mine: str | None, **values: float) -> list[str]:
        scripted = Scripted(**values)
        builder = Builder(
            recipe=load_recipe("hint_opsd", overrides),
            renderer=run.renderer,
            max_len=200,
            memory=memory,
            usefulness=scripted,
        )
        with pytest.MonkeyPatch.context() as patch:
            known = {wrong.id: right.completion.token_ids}
            patch.setattr("agentrl.learner.build.corrected_ids", lambda *_: known)
            built = builder.build([hinted(wrong, *([mine] if mine else []))], newest_version=0)
        assert sum(len(hints) for _, hints in scripted.asked) == len(values), "each is measured once"
        return [item.reason for item in built.dropped] or [built.useful[wrong.id].chosen or ""]

    assert shows(None, before=0.5) == ["before"]
    assert shows(None, before=-0.5) == ["no context"]
    assert shows("own", own=-0.5, before=-0.5) == ["no context"]
    assert shows("own", own=-0.5, before=0.5) == ["before"]
    assert shows("own", own=0.5, before=0.25) == ["own"]


def test_a_wrong_hint_is_refused_and_counted_and_a_right_one_shown_and_explained(tmp_path: Path) -> None:
    """A conversation of nano's in which `zorvex` worked after `less` did not, hinted at by two judges and by one."""
    context = {"name": "hindsight_hint", "choose": "lift"}
    settings = {"context": context, "batch__turns_per_step": 2, "limits__max_logprob_gap": 99.0}
    nano = Nano(choose="lift")

    def learned(name: str, *hints: str) -> Run:
        run = Run(tmp_path / name, weights_dir(), **settings)
        wrong = nano.called(run, "less notes.txt", id="wrong", session="s")
        right = nano.called(run, "zorvex notes.txt", id="right", session="s", parent="wrong")
        asyncio.run(run._log([wrong], hinted(wrong, *hints).signals))
        asyncio.run(worked(run, right))
        with run.learner() as learner:
            learner.loop.start()
            learner.work()
            again = learner.builder.build(learner.log.records(["wrong", "right"]), newest_version=0)
            learner.guards.weigh((), (), again.useful)
        return run

    misled = learned("misled", MISLEADING)
    assert misled.account()[:2] == (2, 0)
    assert asyncio.run(explain_turn(misled.path, "wrong"))["fate"] == "rejected:no context"
    assert read_report(misled.path)["useless"] == 1, "the same turn was met twice"

    told = learned("told", MISLEADING, HELPFUL)
    assert told.account()[:2] == (2, 2), "the right turn is held"
    assert "useless" not in read_report(told.path)
    taught, *_ = asyncio.run(explain_turn(told.path, "wrong"))["taught"]  # of its first step
    assert [block["text"] for block in taught["context"]] == [f"Hint: {HELPFUL}"]
    assert taught["measured"]["by"] == "lift"
    values = {item["hint"]: (item["value"], item["is_shown"]) for item in taught["measured"]["hints"]}
    assert values == {
        MISLEADING: (pytest.approx(-1.09, abs=0.05), False),
        HELPFUL: (pytest.approx(1.01, abs=0.05), True),
    }


async def worked(run: Run, turn: Turn) -> None:
    async with await SignalLog.open(run.path) as log:
        await log.record_turn(turn, history_key=f"h-{turn.id}", reply_key=f"r-{turn.id}")
        await log.record_next_state(
            replace(answered(turn, "milk\n[exit code 0]"), matched_by=MatchedBy.HISTORY, received_at=NOW)
        )
        await log.record_signal(Signal(turn_id=turn.id, source=SignalSource.RULE, reward=1.0, created_at=NOW))
        await log.mark_judged(turn.id, "judged")
