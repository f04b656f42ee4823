"""Replies that follow a grammar, from a random model with one id per byte."""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_harness import Harness
from engine_models import IDS, prompt, reference

from agentrl.config import EngineConfig
from agentrl.engine.base import Finished, Sampled
from agentrl.engine.grammar import Grammars
from agentrl.engine.local import LocalEngine
from agentrl.engine.local_process import LocalProcessEngine
from agentrl.engine.sampling import draw
from agentrl.errors import RequestError
from agentrl.types import FinishReason, Sampling

NEVER = IDS["~"]
"""An id that stands for the end of a reply in these tests."""


POINT = json.dumps(
    {
        "type": "object",
        "properties": {"x": {"type": "integer", "minimum": -99, "maximum": 99}, "on": {"type": "boolean"}},
        "required": ["x", "on"],
        "additionalProperties": False,
    }
)


def text(engine: Harness, job: int) -> str:
    assert engine.scheduler.decode is not None
    return engine.scheduler.decode(engine.ids(job))


def random_schema(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    """A schema all of whose values are short."""
    kinds = ["integer", "boolean", "null", "enum", "const", "string", "pattern"]
    kind = rng.choice(kinds + (["object", "array", "anyOf"] * 2 if depth < 2 else []))
    if depth == 0:
        kind = rng.choice(["object", "array"])
    match kind:
        case "object":
            names = rng.sample(["a", "name", "ü", "of it"], rng.randint(0, 2))
            return {
                "type": "object",
                "properties": {name: random_schema(rng, depth + 1) for name in names},
                "required": [name for name in names if rng.random() < 0.7],
                "additionalProperties": False,
            }
        case "array":
            low = rng.randint(0, 1)
            return {
                "type": "array",
                "items": random_schema(rng, depth + 1),
                "minItems": low,
                "maxItems": rng.randint(low, 2),
            }
        case "anyOf":
            return {"anyOf": [random_schema(rng, depth + 1) for _ in range(rng.randint(1, 3))]}
        case "integer":
            low = rng.randint(-50, 50)
            return {"type": "integer", "minimum": low, "maximum": low + rng.randint(0, 300)}
        case "enum":
            return {"enum": rng.sample([None, True, 3, "red", 'q"uote', [1], {"k": 2}], rng.randint(1, 3))}
        case "const":
            return {"const": rng.choice(["same", 7, False, [None]])}
        case "string":
            return {"type": "string", "minLength": rng.randint(0, 2), "maxLength": rng.randint(2, 5)}
        case "pattern":
            return {"type": "string", "pattern": "^[a-c]{2}(x|yz)$"}
        case _:
            return {"type": kind}


def follows(value: Any, schema: dict[str, Any]) -> bool:
    """A second opinion on the keywords that `random_schema` uses."""
    if "anyOf" in schema:
        return any(follows(value, one) for one in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        options = schema.get("enum", [schema.get("const")])
        return json.dumps(value) in {json.dumps(one) for one in options}
    match schema["type"]:
        case "null":
            return value is None
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            whole = isinstance(value, int) and not isinstance(value, bool)
            return whole and schema["minimum"] <= value <= schema["maximum"]
        case "string" if "pattern" in schema:
            return isinstance(value, str) and re.search(schema["pattern"], value) is not None
        case "string":
            return isinstance(value, str) and schema["minLength"] <= len(value) <= schema["maxLength"]
        case "array":
            return (
                isinstance(value, list)
                and schema["minItems"] <= len(value) <= schema["maxItems"]
                and all(follows(one, schema["items"]) for one in value)
            )
        case _:
            return (
                isinstance(value, dict)
                and set(schema["required"]) <= set(value) <= set(schema["properties"])
                and all(follows(value[name], schema["properties"][name]) for name in value)
            )


def test_two_hundred_replies_to_random_schemas_follow_them(qwen: Path) -> None:
    rng = random.Random(7)
    schemas = [random_schema(rng) for _ in range(200)]
    engine = Harness(qwen, max_running=32)
    ways = [{}, {"temperature": 0.0}, {"temperature": 2.0, "top_k": 40}, {"top_p": 0.9}]
    jobs = [
        engine.generate(
            prompt(seed, 6), grammar=json.dumps(schema), max_tokens=500, seed=seed, **ways[seed % 4]
        )
        for seed, schema in enumerate(schemas)
    ]
    engine.run()

    assert not engine.failed
    for job, schema in zip(jobs, schemas, strict=True):
        assert engine.ended[job].finish_reason is FinishReason.STOP, (schema, text(engine, job))
        assert follows(json.loads(text(engine, job)), schema), (schema, text(engine, job))


def test_logprobs_are_of_what_the_grammar_left_and_raw_ones_of_all(qwen: Path) -> None:
    # The three replies of this language are ab, ac and b; after a the next is b or c, and a reply ends with "~".
    engine = Harness(qwen)
    asked = prompt(3, 10)
    jobs = [
        engine.generate(asked, grammar="regex:ab|ac|b", stop_token_ids=(NEVER,), seed=seed, temperature=1.5)
        for seed in range(12)
    ]
    engine.run()

    after = {"": "ab", "a": "bc", "ab": "~", "ac": "~", "b": "~"}
    said = {text(engine, job) for job in jobs}
    assert said <= {"ab~", "ac~", "b~"}
    assert len(said) > 1
    for job in jobs:
        ids = engine.ids(job)
        with torch.no_grad():
            logits = reference(qwen)(torch.tensor([[*asked, *ids]])).logits[0].float()
        for i, row in enumerate(engine.sampled[job]):
            here = logits[len(asked) + i - 1]
            allowed = [IDS[letter] for letter in after[text(engine, job)[:i]]]
            left = torch.log_softmax(here[allowed] / 1.5, dim=-1)
            assert row[2] == pytest.approx(float(left[allowed.index(row[1])]), abs=1e-4)
            assert row[3] == pytest.approx(float(torch.log_softmax(here, dim=-1)[row[1]]), abs=1e-4)
            assert row[4] == len(allowed)


@pytest.mark.parametrize(
    ("way", "support"),
    [
        ({}, {1: 0.2, 2: 0.2, 3: 0.1}),
        ({"temperature": 0.5}, {1: 0.04, 2: 0.04, 3: 0.01}),
        ({"top_k": 2}, {1: 0.2, 2: 0.2}),
        ({"top_p": 0.79}, {1: 0.2, 2: 0.2}),
        ({"temperature": 0.0}, {1: 1.0}),
    ],
)
def test_the_mask_comes_before_every_filter(way: dict[str, Any], support: dict[int, float]) -> None:
    logits = torch.log(torch.tensor([[0.5, 0.2, 0.2, 0.1], [0.5, 0.2, 0.2, 0.1]]))
    mask = {1: np.array([False, True, True, True])}
    drawn: dict[int, float] = {}
    for u in range(100):
        draws = draw(logits, [Sampling(), Sampling(**way)], [u / 100, u / 100], mask)
        drawn[draws.token_ids[1]] = draws.logprobs[1]
        assert draws.num_allowed == [4, len(support)]
        assert draws.raw_logprobs[1] == pytest.approx(math.log([0.5, 0.2, 0.2, 0.1][draws.token_ids[1]]))

    total = sum(support.values())
    assert set(drawn) == set(support)
    assert sum(math.exp(logprob) for logprob in drawn.values()) == pytest.approx(1.0, abs=1e-6)
    for token_id, mass in support.items():
        assert drawn[token_id] == pytest.approx(math.log(mass / total), abs=1e-6)


def test_a_forced_id_has_a_support_of_one_and_logprob_zero(qwen: Path) -> None:
    engine = Harness(qwen)
    job = engine.generate(prompt(1, 5), grammar="regex:fixed", temperature=1.3)
    engine.run()

    assert text(engine, job) == "fixed"
    assert [(row[2], row[4]) for row in engine.sampled[job]] == [(0.0, 1)] * 5
    assert all(row[3] < -0.01 for row in engine.sampled[job])


def test_requests_of_one_batch_do_not_disturb_each_other(qwen: Path) -> None:
    asks: list[dict[str, Any]] = [
        {"grammar": POINT, "temperature": 1.2},
        {"grammar": "regex:[a-z]{10,20}!", "top_k": 20},
        {},
        {"temperature": 0.0},
        {"temperature": 1.4, "top_p": 0.9},
    ]

    def run(chosen: list[int]) -> list[list[tuple[int, float, float, int]]]:
        engine = Harness(qwen)
        jobs = [engine.generate(prompt(i, 7 + i), max_tokens=60, seed=i, **asks[i]) for i in chosen]
        engine.run()
        return [[(row[1], row[2], row[3], row[4]) for row in engine.sampled[job]] for job in jobs]

    alone = [run([i])[0] for i in range(len(asks))]
    together = run(list(range(len(asks))))

    assert [[row[0] for row in rows] for rows in together] == [[row[0] for row in rows] for rows in alone]
    assert [[row[3] for row in rows] for rows in together] == [[row[3] for row in rows] for rows in alone]
    for rows, others in zip(together, alone, strict=True):
        assert [row[1] for row in rows] == pytest.approx([row[1] for row in others], abs=1e-4)


def test_a_stop_id_is_allowed_where_the_reply_is_complete_and_only_there(qwen: Path) -> None:
    engine = Harness(qwen)
    jobs = [
        engine.generate(prompt(i, 5), grammar=POINT, stop_token_ids=(NEVER, 999), max_tokens=400)
        for i in range(10)
    ]
    engine.run()

    for job in jobs:
        said = text(engine, job)
        assert engine.ended[job].finish_reason is FinishReason.STOP
        assert said.index("~") == len(said) - 1
        assert set(json.loads(said[:-1])) == {"x", "on"}


def test_a_reply_that_is_cut_inside_its_grammar_says_length(qwen: Path) -> None:
    engine = Harness(qwen)
    cut = engine.generate(prompt(1, 5), grammar="regex:abcdef", max_tokens=5)
    whole = engine.generate(prompt(1, 5), grammar="regex:abcdef", max_tokens=6, stop_token_ids=(NEVER,))
    engine.run()

    assert (text(engine, cut), engine.ended[cut].finish_reason) == ("abcde", FinishReason.LENGTH)
    assert (text(engine, whole), engine.ended[whole].finish_reason) == ("abcdef", FinishReason.STOP)


def test_a_stop_string_ends_a_reply_inside_its_grammar(qwen: Path) -> None:
    engine = Harness(qwen)
    job = engine.generate(prompt(1, 5), grammar="regex:abc-def", stop=("c-",))
    engine.run()

    assert text(engine, job) == "abc-"
    assert engine.ended[job].finish_reason is FinishReason.STOP


def test_reasoning_is_free_and_the_grammar_begins_behind_its_end(qwen: Path) -> None:
    engine = Harness(qwen)
    free = engine.generate(prompt(4, 8), max_tokens=12, temperature=0.0)
    engine.run()
    ids = engine.ids(free)
    first = next(i for i in range(2, 11) if ids[i] not in ids[:i] and ids[i + 1] not in ids[: i + 1])
    after, ends = ids[first], (ids[first + 1], NEVER)
    way: dict[str, Any] = {"temperature": 0.0, "grammar": POINT, "max_tokens": 300}
    job = engine.generate(prompt(4, 8), grammar_after=after, stop_token_ids=ends, **way)
    never = engine.generate(prompt(4, 8), grammar_after=NEVER, stop_token_ids=ends[:1], **way)
    engine.run()

    assert engine.ids(job)[: first + 1] == ids[: first + 1]
    behind = engine.ids(job)[first + 1 :]
    assert engine.scheduler.decode is not None
    assert set(json.loads(engine.scheduler.decode(behind[:-1]))) == {"x", "on"}
    assert behind[-1] in ends
    # Without its end, reasoning goes on to the limit: the stop id that greedy decoding would take is not to be had.
    assert engine.ended[never].finish_reason is FinishReason.LENGTH
    assert ends[0] not in engine.ids(never)


def test_a_request_that_moves_to_another_version_goes_on_in_its_grammar(
    qwen: Path, versions: list[Path]
) -> None:
    engine = Harness(qwen, max_resident_versions=1)
    jobs = [
        engine.generate(prompt(i, 9), grammar="regex:([0-9]{3} ){12}end", max_tokens=80) for i in range(3)
    ]
    engine.step(20)
    engine.load(1, versions[1])
    engine.run()

    for job in jobs:
        assert re.fullmatch(r"([0-9]{3} ){12}end", text(engine, job))
        assert [(span.version, span.start) for span in engine.ended[job].version_spans][1][0] == 1
        assert {row[5] for row in engine.sampled[job]} == {0, 1}


def test_others_go_on_while_a_grammar_is_compiled(qwen: Path) -> None:
    engine = Harness(qwen, max_running=2)
    compile_now = engine.compile
    engine.compile = lambda: None  # type: ignore[method-assign]
    bound = engine.generate(prompt(1, 5), grammar=POINT, max_tokens=300)
    gone = engine.generate(prompt(1, 5), grammar=POINT)
    free = [engine.generate(prompt(i, 5)) for i in range(3)]
    engine.step(30)

    assert all(engine.ended[job].finish_reason is FinishReason.LENGTH for job in free)
    assert engine.ids(bound) == []
    engine.abort(gone)
    compile_now()
    engine.run()
    assert engine.ended[gone].finish_reason is FinishReason.ABORT
    assert set(json.loads(text(engine, bound))) == {"x", "on"}
    assert engine.ids(gone) == []
    assert engine.rows() == 0


def test_a_grammar_is_compiled_once_and_the_oldest_is_let_go(qwen: Path) -> None:
    grammars = Grammars(qwen, 256, max_grammars=2)
    first = grammars.compile("regex:a")
    grammars.compile("regex:b")
    assert grammars.compile("regex:a") is first
    grammars.compile("regex:c")

    assert grammars.ready("regex:a") is first
    assert grammars.ready("regex:b") is None
    assert grammars.ready("regex:c") is not None


IMPOSSIBLE = [
    ('{"enum": []}', "Unsatisfiable"),
    ('{"type": "integer", "minimum": 5, "maximum": 4}', "minimum"),
    ('{"type": "array", "uniqueItems": true}', "uniqueItems"),
    ('{"not": {"type": "string"}}', "not"),
    ('{"$ref": "http://localhost:1/schema"}', "localhost"),
    ('{"$ref": "#/$defs/nowhere"}', "nowhere"),
    ('{"type": "string", "format": "shoe-size"}', "shoe-size"),
    ('{"type": "string", "pattern": "(?=a)b"}', "look-around"),
    ('{"uniqueItems": true, "x-guidance": {"lenient": true}}', "uniqueItems"),
    ("[]", "object"),
    (json.dumps({"const": "x" * 200_000}), "characters"),
    ("{", "no JSON"),
    ('{"type": "number", "maximum": NaN}', "NaN is no number"),
    ('{"type": "number", "maximum": 1e999}', "cannot be read"),
    (json.dumps({"const": 10**400}), "out of range"),
    (r'{"const": "\ud800"}', "cannot be read"),
    ('{"items":' * 150 + "{}" + "}" * 150, "recursion limit"),
    ("regex:\ud800", "cannot be read"),
    ("regex:(", "unclosed group"),
    (r"regex:[^\s\S]", "no reply at all"),
]


@pytest.mark.parametrize(("grammar", "reason"), IMPOSSIBLE)
def test_a_grammar_that_cannot_be_honoured_is_refused_with_its_reason(
    qwen: Path, grammar: str, reason: str
) -> None:
    engine = Harness(qwen)
    job = engine.generate(prompt(1, 5), grammar=grammar)
    other = engine.generate(prompt(1, 5))
    engine.run()

    error = engine.failed[job]
    assert isinstance(error, RequestError)
    assert (error.status, error.param) == (400, "grammar")
    assert reason in str(error)
    assert "Change the schema" in str(error)
    assert len(engine.ids(other)) == 8
    assert engine.rows() == 0


def test_a_reply_that_its_grammar_lets_nothing_follow_fails_alone(qwen: Path) -> None:
    # The stop id is the letter without which the expression cannot go on.
    engine = Harness(qwen)
    stuck = engine.generate(prompt(1, 5), grammar="regex:ab~c", stop_token_ids=(NEVER,))
    other = engine.generate(prompt(2, 5))
    engine.run()

    assert engine.ids(stuck) == [IDS["a"], IDS["b"]]
    assert "no id to go on with" in str(engine.failed[stuck])
    assert len(engine.ids(other)) == 8
    assert engine.rows() == 0


@pytest.mark.parametrize("kind", [LocalEngine, LocalProcessEngine])
async def test_an_engine_follows_grammars_and_refuses_impossible_ones(
    qwen: Path, kind: type[LocalEngine] | type[LocalProcessEngine]
) -> None:
    config = EngineConfig(precision="fp32", max_len=512)
    async with await kind.start(qwen, config) as engine:
        settings = Sampling(grammar=POINT, max_tokens=300, seed=4)
        replies = []
        for _ in range(2):
            events = [event async for event in engine.generate(prompt(1, 6), settings)]
            assert isinstance(events[-1], Finished)
            assert events[-1].finish_reason is FinishReason.STOP
            replies.append([event.token_id for event in events if isinstance(event, Sampled)])
        assert replies[0] == replies[1]
        impossible = engine.generate(prompt(1, 6), Sampling(grammar='{"uniqueItems": true}'))
        with pytest.raises(RequestError, match="uniqueItems") as refused:
            await anext(impossible)
        assert refused.value.param == "grammar"
        assert [event async for event in engine.generate(prompt(1, 6), Sampling(max_tokens=3))]


@pytest.mark.parametrize("broken", [ValueError, RecursionError, BaseException])
async def test_a_text_that_breaks_the_compiler_ends_its_own_request_only(
    qwen: Path, monkeypatch: pytest.MonkeyPatch, broken: type[BaseException]
) -> None:
    def compile_text(grammars: Grammars, text: str) -> None:
        raise broken("a fault in the compiler")  # a panic of Rust's is no Exception

    monkeypatch.setattr(Grammars, "compile", compile_text)
    config = EngineConfig(precision="fp32", max_len=512)
    async with asyncio.timeout(30), await LocalEngine.start(qwen, config) as engine:
        with pytest.raises(RequestError, match=f"compiling it failed .{broken.__name__}"):
            await anext(engine.generate(prompt(1, 6), Sampling(grammar=POINT)))
        assert [event async for event in engine.generate(prompt(1, 6), Sampling(max_tokens=3))]


async def test_a_slow_grammar_stops_nobody_else(qwen: Path) -> None:
    async with await LocalEngine.start(qwen, EngineConfig(precision="fp32", max_len=512)) as engine:
        grammars = engine._worker.scheduler.grammars
        assert grammars is not None
        compile_now, begun, released = grammars.compile, threading.Event(), threading.Event()
        in_time: list[bool] = []

        def slow(text: str) -> Any:
            begun.set()
            in_time.append(released.wait(20))
            return compile_now(text)

        grammars.compile = slow  # type: ignore[method-assign]
        bound = engine.generate(prompt(1, 6), Sampling(grammar=POINT, max_tokens=300))
        first = asyncio.ensure_future(anext(bound))
        assert await asyncio.to_thread(begun.wait, 20)
        free = [event async for event in engine.generate(prompt(2, 6), Sampling(max_tokens=5))]
        released.set()

        assert len(free) == 6
        assert isinstance(await first, Sampled)
        assert in_time == [True]
        async for _ in bound:
            pass


def test_the_usual_layouts_of_json_are_allowed_and_endless_blanks_are_not(qwen: Path) -> None:
    grammar = Grammars(qwen, 256).compile(POINT)

    def is_allowed(said: str) -> bool:
        constraint = grammar.begin([])
        for letter in said:
            token_id = IDS[{" ": "Ġ", "\n": "Ċ"}.get(letter, letter)]
            if not constraint.allowed()[token_id]:
                return False
            constraint.take(token_id)
        return constraint.complete

    value = {"x": -5, "on": True}
    assert is_allowed(json.dumps(value))
    assert is_allowed(json.dumps(value, separators=(",", ":")))
    assert is_allowed(json.dumps(value, indent=2))
    assert is_allowed(json.dumps(value, indent=4))
    assert not is_allowed('{\n\n"x": -5, "on": true}')
    assert not is_allowed('{  "x": -5, "on": true}')
    assert not is_allowed('{"x": -5, "on": 1}')


async def test_a_model_without_a_tokenizer_refuses_grammars_with_the_reason(llama: Path) -> None:
    async with await LocalEngine.start(llama, EngineConfig(precision="fp32", max_len=512)) as engine:
        with pytest.raises(RequestError, match=r"no tokenizer\.json, so no grammar") as refused:
            await anext(engine.generate(prompt(1, 6), Sampling(grammar=POINT)))
        assert refused.value.param == "grammar"
