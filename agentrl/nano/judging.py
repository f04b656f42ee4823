"""Turns that nano judges and episodes of which it writes a skill, with the questions that agentrl asks any model."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agentrl.nano import habits as h
from agentrl.nano import styled
from agentrl.nano import vocabulary as v
from agentrl.nano.corpus import (
    BASH_TOOLS,
    Rule,
    any_operation,
    any_rule,
    call,
    error_wording,
    failed,
    first_try,
    opening,
    say,
    short_name,
    user,
    worked,
)
from agentrl.nano.encoding import Example, Message
from agentrl.signals import judge_prompt, skill_prompt
from agentrl.signals.labelled import unsampled
from agentrl.types import NextState, Reply, ToolCall, Turn

MAX_CHARS = 12_000

# What a machine prints that fails, whatever was run; {host} and {file} stand for names.
OUTAGES = (
    "{host}: connection refused", "connect to {host}: Connection timed out", "Could not resolve host: {host}",
    "write {file}: No space left on device", "{host}: 503 Service Unavailable", "429 Too Many Requests",
    "{host}: Network is unreachable", "the request to {host} timed out after 30 s",
    "{host}: Temporary failure in name resolution", "502 Bad Gateway", "{file}: Input/output error",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A turn, what followed it, and the answer that a judge ought to give."""

    messages: list[Message]
    reply: Message
    following: list[Message]
    answer: dict[str, Any]
    tools: list[dict[str, Any]] | None = None


def verdict(
    kind: str, *, fault: str = "none", reward: int | None = None, evidence: str = "", hint: str | None = None
) -> dict[str, Any]:
    """An answer with its fields in the order of the schema."""
    return {"evidence": evidence, "kind": kind, "fault": fault, "reward": reward, "hint": hint}


def half(held_out: bool) -> v.Half:
    """Of the invented names, the half that cases draw from: held out, the one that training never does."""
    return "rules" if held_out else "corpus"


def instead(rule: Rule) -> str:
    return f"Use {rule.new} instead of {rule.old}."


def directed(rng: random.Random, *, held_out: bool = False) -> Case:
    """The command was refused, and the error says what to use."""
    operation = any_operation(rng)
    values = v.arguments(rng, operation)
    old = first_try(rng, operation)
    rule = any_rule(rng, operation, old, half(held_out))
    error = rule.fill(error_wording(rng, held_out=held_out))
    telling = next(line for line in reversed(error.split("\n")) if rule.new in line)
    return Case(
        messages=[*opening(rng), user(operation.task(rng, values))],
        reply=call(operation.line(old, values)),
        following=[failed(rng, error)],
        answer=verdict("error", fault="agent", reward=-1, evidence=telling, hint=instead(rule)),
        tools=BASH_TOOLS,
    )


def refused(rng: random.Random) -> Case:
    """The command was refused, and nothing says what to use."""
    operation = any_operation(rng)
    values = v.arguments(rng, operation)
    old = first_try(rng, operation)
    error = rng.choice((*v.BARE_ERRORS, "{old}: {a}: No such file or directory", "{old}: invalid option"))
    text = error.format(old=short_name(rng, operation, old), a=values["a"])
    return Case(
        messages=[*opening(rng), user(operation.task(rng, values))],
        reply=call(operation.line(old, values)),
        following=[failed(rng, text)],
        answer=verdict("error", fault="agent", reward=-1, evidence=text),
        tools=BASH_TOOLS,
    )


def outage(rng: random.Random, *, held_out: bool = False) -> Case:
    """The machine failed."""
    operation = any_operation(rng)
    values = v.arguments(rng, operation)
    line = operation.line(first_try(rng, operation), values)
    text = rng.choice(OUTAGES).format(host=v.fresh_name(rng, half(held_out)), file=values["a"])
    return Case(
        messages=[*opening(rng), user(operation.task(rng, values))],
        reply=call(line),
        following=[failed(rng, text)],
        answer=verdict("infrastructure", fault="infrastructure", evidence=text),
        tools=BASH_TOOLS,
    )


def ran(rng: random.Random, *, held_out: bool = False) -> Case:
    """The command ran: after a refused one that is shown to work, at the first try it is only no error."""
    operation = any_operation(rng)
    values = v.arguments(rng, operation)
    old = first_try(rng, operation)
    rule = any_rule(rng, operation, old, half(held_out))
    messages = [*opening(rng), user(operation.task(rng, values))]
    output = worked(rng, operation)
    if rng.random() < 0.5:
        line = operation.line(rng.choice((old, rule.new)), values)
        answer = verdict("no_error")
    else:
        error = failed(rng, rule.fill(error_wording(rng, held_out=held_out)))
        messages += [call(operation.line(old, values)), error]
        line = operation.line(rule.new, values)
        answer = verdict("progress", reward=1, evidence=output["content"].split("\n")[0])
    return Case(messages=messages, reply=call(line), following=[output], answer=answer, tools=BASH_TOOLS)


def answered(rng: random.Random, *, held_out: bool = False) -> Case:
    """A user goes on after the agent said that it is done, or after a note: corrects, approves, or asks for more."""
    if rng.random() < 0.5:
        return _after_note(rng, held_out=held_out)
    operation = any_operation(rng)
    values = v.arguments(rng, operation)
    old = first_try(rng, operation)
    messages = [*opening(rng), user(operation.task(rng, values)), call(operation.line(old, values))]
    messages.append(worked(rng, operation))
    rule = any_rule(rng, operation, old, half(held_out))
    draw = rng.random()
    if draw < 0.5:
        said = rng.choice((
            "No, use {new} instead of {old}.", "No, I wanted {new} and not {old}.", "You should have used {new}.",
            "That is wrong: use {new}.", "I asked for {new}, not {old}.", "Wrong, please use {new}.",
        ))  # fmt: skip
        text = rule.fill(said)
        hint = instead(rule) if "{old}" in said else f"Use {rule.new}."
        answer = verdict("correction", fault="agent", reward=-1, evidence=text, hint=hint)
    elif draw < 0.75:
        text = rng.choice(h.THANKS)
        answer = verdict("praise", reward=1, evidence=text)
    else:
        later = any_operation(rng)
        text, answer = later.task(rng, v.arguments(rng, later)), verdict("new_task")
    return Case(
        messages=messages,
        reply=say(rng.choice(v.SUCCESS_REPLIES)),
        following=[user(text)],
        answer=answer,
        tools=BASH_TOOLS,
    )


def _after_note(rng: random.Random, *, held_out: bool) -> Case:
    topic, style = h.topic(rng), h.any_style(rng)
    messages = [*styled.opening(), user(topic.request(rng))]
    draw = rng.random()
    if draw < 0.6:
        axis = rng.choice(tuple(h.AXES))
        text = styled.wish_text(rng, styled.other(rng, axis, style[axis]), style[axis], held_out=held_out)
        answer = verdict("correction", fault="agent", reward=-1, evidence=text, hint=text)
    elif draw < 0.8:
        text = rng.choice(h.THANKS)
        answer = verdict("praise", reward=1, evidence=text)
    else:
        text, answer = h.topic(rng).request(rng), verdict("new_task")
    return Case(
        messages=messages, reply=say(h.note(rng, topic, style)), following=[user(text)], answer=answer
    )


CASES: dict[Callable[[random.Random], Case], float] = {
    directed: 0.35,
    refused: 0.12,
    outage: 0.1,
    ran: 0.2,
    answered: 0.23,
}


def case(rng: random.Random) -> Case:
    """A case of a kind drawn by its weight."""
    return rng.choices(tuple(CASES), weights=tuple(CASES.values()))[0](rng)


def records(case: Case) -> tuple[Turn, NextState]:
    """The case as agentrl would have recorded it, without token ids."""
    calls = tuple(
        ToolCall(id=one["id"], name=one["function"]["name"], arguments=one["function"]["arguments"])
        for one in case.reply.get("tool_calls", ())
    )
    reply = Reply(text=case.reply["content"], tool_calls=calls)
    return unsampled("turn", case.messages, case.tools or (), reply, case.following)


def judge_question(case: Case) -> list[Message]:
    return judge_prompt.question(*records(case), max_chars=MAX_CHARS)


def judged(rng: random.Random) -> Example:
    """A verdict in JSON on one turn."""
    drawn = case(rng)
    return _answered("judged", judge_question(drawn), drawn.answer)


def skill_written(rng: random.Random) -> Example:
    """A skill in JSON from one episode: what was refused and what worked in its place, or that it teaches nothing."""
    messages, answer = skill_case(rng)
    return _answered("skill_written", messages, answer)


def skill_case(rng: random.Random, *, held_out: bool = False) -> tuple[list[Message], dict[str, Any]]:
    """The question about an episode, and the answer that it ought to get."""
    operation = any_operation(rng)
    values = v.arguments(rng, operation)
    old = first_try(rng, operation)
    rule = any_rule(rng, operation, old, half(held_out))
    steps = [(operation.line(old, values), failed(rng, rule.fill(error_wording(rng, held_out=held_out))))]
    steps.append((operation.line(rule.new, values), worked(rng, operation)))
    answer: dict[str, Any] = {
        "name": f"use-{rule.new.replace(' ', '')}",
        "description": f"To {operation.doing}.",
        "success_analysis": "",
        "mistake_analysis": [f"Do not use {rule.old}."],
        "golden_workflow": [f"Run {rule.new}."],
    }
    draw = rng.random()
    if draw < 0.15:
        steps, answer = [(steps[0][0], steps[1][1])], {"name": ""}
    elif draw < 0.3:
        steps = steps[:1]
    lines = []
    for number, (line, output) in enumerate(steps, 1):
        lines += [f"[{number}] agent ran: {line}", f"[{number}] tool answered: {output['content'].strip()}"]
    if "[exit code" not in lines[-1] and rng.random() < 0.8:
        lines.append(f"[{len(steps) + 1}] agent said: {rng.choice(v.SUCCESS_REPLIES)}")
    messages = skill_prompt.question(
        operation.task(rng, values), lines, rng.choice((None, 0.0, 1.0)), max_chars=MAX_CHARS
    )
    return messages, answer


def _answered(kind: str, messages: list[Message], answer: dict[str, Any]) -> Example:
    messages = [*messages, say(json.dumps(answer, ensure_ascii=False))]
    return Example(kind=kind, messages=messages, tools=None, blocks=(), trained=frozenset({2}))
