"""The synthetic corpus: conversations of a terminal agent.

Everything is drawn from one `random.Random`, so a seed fixes the corpus. What is to be learned: the usual command when
nothing else is known; one of several known commands where there are several; the command named by an error, a hint or a
skill in the context, whatever its name; and a short reply once the command has worked.
"""

import json
import random
import re
from dataclasses import dataclass
from typing import Any

from agentrl.nano import vocabulary as v
from agentrl.nano.encoding import POSITIONS, Block, Example, Message

BASH_TOOLS: list[dict[str, Any]] = [v.BASH_TOOL]


# Parts of which errors are put together besides the known wordings: with these alone, nano would learn the wordings by
# heart and follow no other.
_OPENINGS = (
    "",
    "",
    "",
    "bash: ",
    "sh: ",
    "error: ",
    "warning: ",
    "note: ",
    "policy: ",
    "sh: 1: ",
    "sorry, ",
    "shell: ",
)
_REASONS = (
    "{old}: command not found", "{old}: not available here", "{old}: not permitted", "{old}: permission denied",
    "{old}: disabled on this machine", "{old}: blocked", "{old}: no such command", "{old} is not allowed",
    "{old} is not installed", "{old} is refused", "{old} is gone", "{old} is blocked by policy", "{old} was removed",
    "{old} was disabled", "{old} does not work here", "no {old} here", "do not run {old}", "not {old}",
    "cannot run {old}",
    "the command {old} is not allowed", "command '{old}' not found", "this shell has no {old}", "`{old}` refused",
    "this machine does not have {old}", "denied: {old}", "{old}: denied",
    "{old} is against the policy", "no policy allows {old}",
)  # fmt: skip
_ADVICE = (
    "use {new}", "use {new} instead", "please use {new}", "try {new}", "try {new} instead", "run {new}", "run `{new}`",
    "did you mean {new}?", "{new} does the same", "{new} works", "{new} is", "only {new} is allowed", "you need {new}",
    "the right command is {new}", "the command to use is {new}", "this machine has {new}", "it has {new}",
    "here it is {new}",
    "you can use {new} for this", "its new name is {new}", "allowed: {new}", "see {new}", "we have {new}",
    "{new} can be used", "everybody here asks for {new}", "the owner asks for {new}", "ask for {new}",
    "allowed is {new}",
    "what is allowed: {new}", "the policy is {new}", "the policy of this machine is to use {new}",
)  # fmt: skip
_JOINS = ("; ", ", ", ". ", ": ", ", but ", " (", ", so ", "\n", " - ")


def _between(wording: str) -> str:
    """What stands between the two commands of a wording."""
    return re.split(r"\{old\}|\{new\}", wording)[1].strip()


# Of all wordings: a word that never occurred would be noise to nano, whatever stands around it.
_ANY_WORDS = tuple(
    sorted(
        set(re.findall(r"[a-z]{2,}", " ".join((*v.ERROR_WORDINGS, *v.HINT_WORDINGS))))
        - {"old", "new", "doing"}
    )
)

# Shorter parts, such as a full stop, tell nothing.
_WITHHELD_PARTS = tuple(part for part in map(_between, v.WITHHELD_WORDINGS) if len(part) > 8)


def strange_words(rng: random.Random, wording: str) -> str:
    """The wording with one to three of its words replaced or joined by any others."""
    words = wording.split(" ")
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(words) + 1)
        free = at < len(words) and "{" not in words[at]
        words[at : at + (1 if free and rng.random() < 0.6 else 0)] = [rng.choice(_ANY_WORDS)]
    return " ".join(words)


def composed_wording(rng: random.Random) -> str:
    """An error put together of parts, never with the middle part of a withheld one."""
    while True:
        parts = [rng.choice(_REASONS), rng.choice(_ADVICE)]
        if rng.random() < 0.2:
            parts.reverse()
        join = rng.choice(_JOINS)
        second = parts[1][0].upper() + parts[1][1:] if join == ". " and rng.random() < 0.8 else parts[1]
        wording = (
            rng.choice(_OPENINGS)
            + parts[0]
            + join
            + second
            + (")" if join == " (" else rng.choice(("", ".")))
        )
        if rng.random() < 0.3:
            wording = wording[0].upper() + wording[1:]
        if rng.random() < 0.6:
            wording = strange_words(rng, wording)
        if not any(part in wording for part in _WITHHELD_PARTS):
            return wording


def error_wording(rng: random.Random, *, held_out: bool = False) -> str:
    """A wording of an error that says what to use: one of the known ones or a composed one, or a withheld one."""
    if held_out:
        return rng.choice(v.WITHHELD_WORDINGS)
    return composed_wording(rng) if rng.random() < 0.65 else rng.choice(v.KNOWN_WORDINGS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a house may demand: `old` is refused for an operation, `new` works."""

    operation: v.Operation
    old: str
    new: str

    def fill(self, wording: str) -> str:
        return wording.format(old=self.old, new=self.new, doing=self.operation.doing)


def call(command: str) -> Message:
    """An assistant message that runs a command."""
    function = {"name": "bash", "arguments": json.dumps({"command": command})}
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "call1", "type": "function", "function": function}],
    }


def say(text: str) -> Message:
    return {"role": "assistant", "content": text}


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def tool(text: str) -> Message:
    return {"role": "tool", "tool_call_id": "call1", "content": text}


def failed(rng: random.Random, text: str) -> Message:
    """A tool message of a command that failed."""
    return tool(f"{text}\n[exit code {rng.choice((1, 1, 2, 126, 127, 127))}]")


def worked(rng: random.Random, operation: v.Operation) -> Message:
    """A tool message of a command that worked; what it printed is random text."""
    if (operation.check == "state" and rng.random() < 0.85) or rng.random() < 0.05:
        return tool("(no output)")
    pool = (*v.FILE_STEMS, *v.WORDS, *v.DIRECTORY_STEMS)
    lines = []
    for _ in range(rng.choice((1, 1, 2, 2, 3, 4))):
        words = [
            rng.choice(pool) if rng.random() < 0.8 else str(rng.randrange(1000))
            for _ in range(rng.choice((1, 1, 2, 3)))
        ]
        lines.append(" ".join(words))
    return tool("\n".join(lines))


def opening(rng: random.Random) -> list[Message]:
    """The messages before the first task: the demo agent's system message or none."""
    return [{"role": "system", "content": v.AGENT_SYSTEM}] if rng.random() < 0.9 else []


def any_operation(rng: random.Random) -> v.Operation:
    return rng.choice(v.UNKNOWN_OPERATIONS if rng.random() < 0.6 else v.REACHABLE_OPERATIONS)


def first_try(rng: random.Random, operation: v.Operation) -> str:
    """The command somebody uses who knows nothing of the house: the usual one, or one of several."""
    return rng.choice(operation.alternatives or (operation.command,))


def short_name(rng: random.Random, operation: v.Operation, command: str) -> str:
    """How an error names a command: by its program, unless only the flags tell the alternatives apart."""
    if operation.key == "order_lines" or rng.random() < 0.1:
        return command
    return command.split()[0]


def any_rule(
    rng: random.Random, operation: v.Operation, old: str | None = None, half: v.Half = "corpus"
) -> Rule:
    """A rule for an operation; what works is mostly an invented name, sometimes a known alternative."""
    old = old or first_try(rng, operation)
    others = [alternative for alternative in operation.alternatives if alternative != old]
    new = rng.choice(others) if others and rng.random() < 0.45 else v.fresh_name(rng, half)
    return Rule(operation=operation, old=short_name(rng, operation, old), new=new)


def hint_text(rng: random.Random, rule: Rule) -> str:
    """A hint: mostly the sentence of an error, otherwise a paraphrase; sometimes the whole error as feedback."""
    if rng.random() < 0.08:
        return f"Feedback: {failed(rng, rule.fill(error_wording(rng)))['content']}"
    return "Hint: " + rule.fill(error_wording(rng) if rng.random() < 0.65 else rng.choice(v.HINT_WORDINGS))


def skill_text(rng: random.Random, rule: Rule, wording: str | None = None) -> str:
    """A skill: its name and a body of a heading, a list or a sentence."""
    name = rng.choice(
        (
            rule.operation.key,
            rule.operation.key.replace("_", "-"),
            rule.operation.doing.replace(" ", "-"),
            f"use-{rule.new.replace(' ', '')}",
        )
    )
    if wording is None and rng.random() < 0.25:
        wording = f'Run `{{new}}` instead of `{{old}}`. The tool said: "{error_wording(rng)}"'
    if wording is None:
        draw = rng.random()
        wording = (
            rng.choice(v.SKILL_WORDINGS if draw < 0.5 else v.HINT_WORDINGS)
            if draw < 0.65
            else error_wording(rng)
        )
    return f"Skill: {name}\n{rule.fill(wording)}"


def solution_text(rng: random.Random, line: str) -> str:
    """The right command itself, as a reference, another episode or an expert shows it."""
    made = f"bash({json.dumps({'command': line})})"
    return rng.choice(("Reference solution: {}", "Correct solution: {}", "Expert trace:\n{}")).format(
        rng.choice((line, made))
    )


def knowledge_blocks(rng: random.Random, rules: list[Rule]) -> tuple[Block, ...]:
    """The rules as hints or skills at one position, in one block or in several."""
    position = rng.choice(POSITIONS)
    texts = [(hint_text if rng.random() < 0.6 else skill_text)(rng, rule) for rule in rules]
    if len(texts) > 1 and rng.random() < 0.5:
        texts = ["\n".join(texts)]
    return tuple(Block(position=position, text=text) for text in texts)


def other_rules(rng: random.Random, operation: v.Operation, number: int) -> list[Rule]:
    """Rules of other operations, each different."""
    others = rng.sample([other for other in v.OPERATIONS if other is not operation], number)
    return [any_rule(rng, other) for other in others]


def _example(
    kind: str,
    messages: list[Message],
    blocks: tuple[Block, ...] = (),
    skip: tuple[int, ...] = (),
    tools: list[dict[str, Any]] | None = BASH_TOOLS,
) -> Example:
    """An example of which every assistant message is learned that stands after its blocks and is not in `skip`."""
    first = 0
    if any(block.position == "last_user" for block in blocks):
        first = max(index for index, message in enumerate(messages) if message["role"] == "user")
    if any(block.position == "tail" for block in blocks):
        first = len(messages) - 1
    trained = frozenset(
        index
        for index, message in enumerate(messages)
        if message["role"] == "assistant" and index >= first and index not in skip
    )
    return Example(kind=kind, messages=messages, tools=tools, blocks=blocks, trained=trained)


def _some_tools(rng: random.Random, messages: list[Message]) -> list[dict[str, Any]] | None:
    """No tools for some single turns, which are shorter without; a "system" block needs one of both, though."""
    return None if messages[0]["role"] == "system" and rng.random() < 0.4 else BASH_TOOLS


def plain(rng: random.Random) -> Example:
    """Nothing is known: the first try, and it works; sometimes a second task follows."""
    messages = opening(rng)
    for _ in range(1 if rng.random() < 0.8 else 2):
        operation = any_operation(rng)
        values = v.arguments(rng, operation)
        line = operation.line(first_try(rng, operation), values)
        messages += [
            user(operation.task(rng, values)),
            call(line),
            worked(rng, operation),
            say(rng.choice(v.SUCCESS_REPLIES)),
        ]
    return _example("plain", messages)


def hinted(rng: random.Random) -> Example:
    """One to three hints or skills, seldom up to twelve, of which one applies."""
    operation = any_operation(rng)
    values = v.arguments(rng, operation)
    rule = any_rule(rng, operation)
    number = rng.choice((0, 1, 1, 2, 2, 2)) if rng.random() < 0.94 else rng.randint(3, 11)
    rules = [rule, *other_rules(rng, operation, number)]
    rng.shuffle(rules)
    line = operation.line(rule.new, values)
    messages = [*opening(rng), user(operation.task(rng, values)), call(line)]
    blocks = knowledge_blocks(rng, rules)
    if rng.random() < 0.06:
        blocks = (Block(position=rng.choice(POSITIONS), text=solution_text(rng, line)),)
    return _example("hinted", messages, blocks, tools=_some_tools(rng, messages))


def distracted(rng: random.Random) -> Example:
    """Hints or skills that do not apply."""
    operation = any_operation(rng)
    values = v.arguments(rng, operation)
    rules = other_rules(rng, operation, rng.choice((1, 1, 2, 3)))
    line = operation.line(first_try(rng, operation), values)
    messages = [*opening(rng), user(operation.task(rng, values)), call(line)]
    return _example("distracted", messages, knowledge_blocks(rng, rules), tools=_some_tools(rng, messages))


def _refusal(
    rng: random.Random, operation: v.Operation, values: dict[str, str]
) -> tuple[Rule, list[Message]]:
    old = first_try(rng, operation)
    rule = any_rule(rng, operation, old)
    error = failed(rng, rule.fill(error_wording(rng)))
    return rule, [user(operation.task(rng, values)), call(operation.line(old, values)), error]


def refused(rng: random.Random) -> Example:
    """The first try is refused with an error that says what to use; seldom that is refused in turn."""
    operation = any_operation(rng)
    values = v.arguments(rng, operation)
    rule, messages = _refusal(rng, operation, values)
    messages = [*opening(rng), *messages, call(operation.line(rule.new, values))]
    if rng.random() < 0.08:
        second = Rule(operation=operation, old=rule.new, new=v.fresh_name(rng, "corpus"))
        error = failed(rng, second.fill(error_wording(rng)))
        messages += [error, call(operation.line(second.new, values))]
    messages += [worked(rng, operation), say(rng.choice(v.SUCCESS_REPLIES))]
    return _example("refused", messages)


def remembered(rng: random.Random) -> Example:
    """An error of an earlier task says what to use in a later one, or does not concern it."""
    operation = any_operation(rng)
    values = v.arguments(rng, operation)
    rule, messages = _refusal(rng, operation, values)
    messages += [
        call(operation.line(rule.new, values)),
        worked(rng, operation),
        say(rng.choice(v.SUCCESS_REPLIES)),
    ]
    later = operation if rng.random() < 0.7 else any_operation(rng)
    values = v.arguments(rng, later)
    command = rule.new if later is operation else first_try(rng, later)
    messages = [*opening(rng), *messages, user(later.task(rng, values)), call(later.line(command, values))]
    if rng.random() < 0.5:
        messages += [worked(rng, later), say(rng.choice(v.SUCCESS_REPLIES))]
    return _example("remembered", messages)


def hinted_later(rng: random.Random) -> Example:
    """A block is shown to a later turn: after an error, or after the command has worked."""
    operation = any_operation(rng)
    values = v.arguments(rng, operation)
    rule, messages = _refusal(rng, operation, values)
    rules = [rule, *other_rules(rng, operation, rng.choice((0, 0, 1, 2)))]
    rng.shuffle(rules)
    messages = [*opening(rng), *messages]
    # The refused try was sampled without the block: with it, it would be wrong.
    skip: tuple[int, ...] = (len(messages) - 2,)
    messages += [call(operation.line(rule.new, values))]
    if rng.random() < 0.5:
        messages += [worked(rng, operation), say(rng.choice(v.SUCCESS_REPLIES))]
        if rng.random() < 0.4:
            del messages[skip[0] : skip[0] + 2]
            skip = ()
    return _example("hinted_later", messages, knowledge_blocks(rng, rules), skip)


def stuck(rng: random.Random) -> Example:
    """An error that does not say what to use: another known way is tried, or else the task is given up."""
    operation = any_operation(rng)
    values = v.arguments(rng, operation)
    messages = [*opening(rng), user(operation.task(rng, values))]
    ways = (
        rng.sample(operation.alternatives, rng.choice((2, 2, 3)))
        if operation.alternatives
        else [operation.command]
    )
    for way in ways:
        error = rng.choice(v.BARE_ERRORS).format(old=short_name(rng, operation, way))
        messages += [call(operation.line(way, values)), failed(rng, error)]
    if operation.alternatives:
        messages[-1] = worked(rng, operation)
        messages.append(say(rng.choice(v.SUCCESS_REPLIES)))
    else:
        if rng.random() < 0.5:
            missing = f"{operation.program}: {values['a']}: No such file or directory"
            messages[-1] = failed(rng, missing)
        messages.append(say(v.FAILURE_REPLY))
    return _example("stuck", messages)


def repeat(rng: random.Random) -> Example:
    """Names and file names said again in their order: dozens of tokens to copy, where a command has only a few.

    Without these, copying stalls for long at the right tokens in the wrong order.
    """
    words = [
        v.fresh_name(rng, "corpus") if rng.random() < 0.7 else v.file_name(rng)
        for _ in range(rng.randrange(4, 13))
    ]
    text = rng.choice((" ", " ", ", ", "\n")).join(words)
    messages = [{"role": "system", "content": v.AGENT_SYSTEM}, user("Say: " + text), say(text)]
    return Example(kind="repeat", messages=messages, tools=None, blocks=(), trained=frozenset({2}))


def short(rng: random.Random) -> Example:
    """A single turn, mostly without the tool preamble and with one name to copy: the first lessons."""
    if rng.random() < 0.4:
        return repeat(rng)
    operation = any_operation(rng)
    values = v.arguments(rng, operation)
    start = [{"role": "system", "content": v.AGENT_SYSTEM}]
    blocks: tuple[Block, ...] = ()
    draw = rng.random()
    if draw < 0.35:
        rule, messages = _refusal(rng, operation, values)
        command = rule.new
    else:
        messages, command = [user(operation.task(rng, values))], first_try(rng, operation)
        if draw < 0.85:
            rule = any_rule(rng, operation)
            command, blocks = rule.new, knowledge_blocks(rng, [rule])
    messages = [*start, *messages, call(operation.line(command, values))]
    example = _example("short", messages, blocks)
    tools = example.tools if rng.random() < 0.3 else None
    return Example(kind="short", messages=messages, tools=tools, blocks=blocks, trained=example.trained)
