"""The model card's figures: `python -m agentrl.nano.evaluate [--weights DIR] [--number N]`.

Replies are decoded greedily and compared whole. Names come from the half that training cannot have drawn, and withheld
wordings never occurred in the corpus. For reachable operations the exact probability of each known command is computed,
for habits that of each value of an axis. Verdicts are compared field by field.
"""

import argparse
import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import Qwen3ForCausalLM

from agentrl.nano import corpus, judging, styled, weights_dir
from agentrl.nano import habits as h
from agentrl.nano import vocabulary as v
from agentrl.nano.corpus import Rule
from agentrl.nano.encoding import POSITIONS, Block, Encoder, Example, Message, Position
from agentrl.nano.tokenizer import control_ids

_LONGEST_REPLY = 96
_AT_ONCE = 27
"""Continuations whose log-probabilities are computed together."""
_NUM_TOPICS = 8
"""Requests over which the probabilities of habits are averaged."""

_JUDGED: dict[str, tuple[Callable[[random.Random], judging.Case], str]] = {
    "directed error": (lambda rng: judging.directed(rng, held_out=True), "error"),
    "bare error": (judging.refused, "error"),
    "outage": (lambda rng: judging.outage(rng, held_out=True), "infrastructure"),
    "progress": (lambda rng: judging.ran(rng, held_out=True), "progress"),
    "no error": (lambda rng: judging.ran(rng, held_out=True), "no_error"),
    "correction": (lambda rng: judging.answered(rng, held_out=True), "correction"),
    "praise": (lambda rng: judging.answered(rng, held_out=True), "praise"),
    "new task": (lambda rng: judging.answered(rng, held_out=True), "new_task"),
}
"""Turns to be judged: what draws them, and the kind of verdict that is kept."""


def prompt(
    messages: list[Message],
    blocks: tuple[Block, ...] = (),
    tools: list[dict[str, Any]] | None = corpus.BASH_TOOLS,
) -> Example:
    """A prompt as an example: the empty last message stands for the reply to come."""
    return Example(
        kind="prompt",
        messages=[*messages, corpus.say("")],
        tools=tools,
        blocks=blocks,
        trained=frozenset(),
    )


def prompt_ids(encoder: Encoder, example: Example) -> list[int]:
    """Ids up to and with the assistant header."""
    return encoder.encode(example)[0][:-1]


@torch.no_grad()
def replies(model: Qwen3ForCausalLM, prompts: list[list[int]], end: int, pad: int) -> list[list[int]]:
    """Greedy replies with their closing token; prompts of one length are decoded together."""
    found: list[list[int]] = [[] for _ in prompts]
    by_length: dict[int, list[int]] = {}
    for index, ids in enumerate(prompts):
        by_length.setdefault(len(ids), []).append(index)
    for length, members in by_length.items():
        output = model.generate(
            torch.tensor([prompts[index] for index in members]),
            attention_mask=torch.ones(len(members), length, dtype=torch.long),
            max_new_tokens=_LONGEST_REPLY,
            do_sample=False,
            eos_token_id=end,
            pad_token_id=pad,
        )
        for index, row in zip(members, output[:, length:].tolist(), strict=True):
            found[index] = row[: row.index(end) + 1] if end in row else row
    return found


@torch.no_grad()
def log_probability(model: Qwen3ForCausalLM, ids: list[int], continuations: list[list[int]]) -> list[float]:
    """Log-probability at temperature 1 of each continuation of one prompt."""
    found = []
    for first in range(0, len(continuations), _AT_ONCE):
        group = continuations[first : first + _AT_ONCE]
        longest = max(map(len, group))
        # No id looks at those after it, so what fills up the shorter ones changes nothing.
        rows = torch.tensor([ids + each + [0] * (longest - len(each)) for each in group])
        logits = model(rows).logits[:, len(ids) - 1 : -1].float().log_softmax(-1)
        for row, each in zip(logits, group, strict=True):
            found.append(float(row[torch.arange(len(each)), torch.tensor(each)].sum()))
    return found


def notes(topic: h.Topic) -> dict[str, h.Style]:
    """Every note on a topic, and its style."""
    found = {}
    for values in itertools.product(*h.AXES.values()):
        style = dict(zip(h.AXES, values, strict=True))
        for seed in range(8):  # of two openings, both
            found[h.note(random.Random(seed), topic, style)] = style
    return found


def read_object(text: str) -> dict[str, Any]:
    """The JSON object of a reply; empty where it is none."""
    try:
        found = json.loads(text.removesuffix("<|im_end|>"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


class Evaluation:
    """One model and the draws of one seed."""

    def __init__(self, folder: Path, seed: int, number: int) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.encoder = Encoder(self.tokenizer)
        self.model = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.rng = random.Random(seed)
        self.number = number
        ids = control_ids(self.tokenizer)
        self.end, self.pad = ids["<|im_end|>"], ids["<|endoftext|>"]

    def system(self) -> list[Message]:
        return [{"role": "system", "content": v.AGENT_SYSTEM}]

    def rule(self, operation: v.Operation) -> Rule:
        old = corpus.first_try(self.rng, operation)
        return Rule(
            operation=operation,
            old=corpus.short_name(self.rng, operation, old),
            new=v.fresh_name(self.rng, "rules"),
        )

    def share(self, case: Callable[[], tuple[Example, list[str]]]) -> float:
        """Share of `number` drawn cases whose greedy reply is one of the acceptable texts."""
        cases = [case() for _ in range(self.number)]
        decoded = self.answers([example for example, _ in cases])
        return sum(text in accepted for text, (_, accepted) in zip(decoded, cases, strict=True)) / self.number

    def answers(self, prompts: list[Example]) -> list[str]:
        """The greedy replies as texts, with their closing token."""
        ids = [prompt_ids(self.encoder, example) for example in prompts]
        found = replies(self.model, ids, self.end, self.pad)
        return [self.tokenizer.decode(answer, skip_special_tokens=False) for answer in found]

    def text(self, message: Message) -> str:
        return str(self.tokenizer.decode(self.encoder.reply(message), skip_special_tokens=False))

    def first_try(self, *, several: bool) -> tuple[Example, list[str]]:
        """No context: the usual command, or any known one of a reachable operation."""
        operation = self.rng.choice(v.REACHABLE_OPERATIONS if several else v.UNKNOWN_OPERATIONS)
        values = v.arguments(self.rng, operation)
        lines = [operation.line(way, values) for way in operation.alternatives or (operation.command,)]
        messages = [*self.system(), corpus.user(operation.task(self.rng, values))]
        return prompt(messages), [self.text(corpus.call(line)) for line in lines]

    def told(
        self, position: Position, wordings: tuple[str, ...], *, skill: bool = False, others: int = 0
    ) -> tuple[Example, list[str]]:
        """A hint or skill with a wording of an error applies; `others` more do not."""
        operation = self.rng.choice(v.OPERATIONS)
        values = v.arguments(self.rng, operation)
        rule = self.rule(operation)
        rules = [
            rule,
            *(
                self.rule(other)
                for other in self.rng.sample(v.OPERATIONS, others + 1)
                if other is not operation
            ),
        ]
        rules = rules[: others + 1]
        self.rng.shuffle(rules)
        texts = []
        for each in rules:
            wording = self.rng.choice(wordings)
            texts.append(
                corpus.skill_text(self.rng, each, wording) if skill else "Hint: " + each.fill(wording)
            )
        messages = [*self.system(), corpus.user(operation.task(self.rng, values))]
        blocks = (Block(position=position, text="\n".join(texts)),)
        return prompt(messages, blocks), [self.text(corpus.call(operation.line(rule.new, values)))]

    def told_known(self, wordings: tuple[str, ...]) -> tuple[Example, list[str]]:
        """A hint at the tail sends from one known command of a reachable operation to another one."""
        operation = self.rng.choice(v.REACHABLE_OPERATIONS)
        values = v.arguments(self.rng, operation)
        old, new = self.rng.sample(operation.alternatives, 2)
        rule = Rule(operation=operation, old=corpus.short_name(self.rng, operation, old), new=new)
        messages = [*self.system(), corpus.user(operation.task(self.rng, values))]
        blocks = (Block(position="tail", text="Hint: " + rule.fill(self.rng.choice(wordings))),)
        return prompt(messages, blocks), [self.text(corpus.call(operation.line(new, values)))]

    def refused(self, wordings: tuple[str, ...], *, later: bool) -> tuple[Example, list[str]]:
        """The error of the last command, or of an earlier task, says what to use."""
        operation = self.rng.choice(v.OPERATIONS)
        values = v.arguments(self.rng, operation)
        old = corpus.first_try(self.rng, operation)
        name = corpus.short_name(self.rng, operation, old)
        rule = Rule(operation=operation, old=name, new=v.fresh_name(self.rng, "rules"))
        messages = [
            *self.system(),
            corpus.user(operation.task(self.rng, values)),
            corpus.call(operation.line(old, values)),
        ]
        messages.append(corpus.failed(self.rng, rule.fill(self.rng.choice(wordings))))
        if later:
            messages += [corpus.call(operation.line(rule.new, values)), corpus.worked(self.rng, operation)]
            values = v.arguments(self.rng, operation)
            messages += [corpus.say(v.SUCCESS_REPLY), corpus.user(operation.task(self.rng, values))]
        return prompt(messages), [self.text(corpus.call(operation.line(rule.new, values)))]

    def finished(self) -> tuple[Example, list[str]]:
        """After a command that worked, a short reply ends the episode."""
        operation = self.rng.choice(v.OPERATIONS)
        values = v.arguments(self.rng, operation)
        name = (
            v.fresh_name(self.rng, "rules")
            if self.rng.random() < 0.5
            else corpus.first_try(self.rng, operation)
        )
        messages = [
            *self.system(),
            corpus.user(operation.task(self.rng, values)),
            corpus.call(operation.line(name, values)),
        ]
        messages.append(corpus.worked(self.rng, operation))
        return prompt(messages), [self.text(corpus.say(reply)) for reply in v.SUCCESS_REPLIES]

    def judged(self, name: str) -> dict[str, float]:
        """Turns of one name of `_JUDGED`: shares of verdicts that are right in kind, reward, hint, and as a whole."""
        draw, kind = _JUDGED[name]
        cases: list[judging.Case] = []
        while len(cases) < self.number:
            case = draw(self.rng)
            cases += [case] if case.answer["kind"] == kind else []
        said = self.answers([prompt(judging.judge_question(case), tools=None) for case in cases])
        pairs = [(read_object(text), case.answer) for text, case in zip(said, cases, strict=True)]
        figures = {
            field: sum(got.get(field, ...) == due[field] for got, due in pairs) / self.number
            for field in ("kind", "reward", "hint")
        }
        whole = (
            text == self.text(corpus.say(json.dumps(case.answer)))
            for text, case in zip(said, cases, strict=True)
        )
        return figures | {"exact JSON": sum(whole) / self.number}

    def skills(self) -> dict[str, float]:
        """Skills of episodes: exact, and naming the command that works or should have been used."""
        cases = [judging.skill_case(self.rng, held_out=True) for _ in range(self.number)]
        said = self.answers([prompt(messages, tools=None) for messages, _ in cases])
        exact = [
            text == self.text(corpus.say(json.dumps(due))) for text, (_, due) in zip(said, cases, strict=True)
        ]
        teaching = [
            (read_object(text), due) for text, (_, due) in zip(said, cases, strict=True) if due["name"]
        ]
        right = [got.get("golden_workflow") == due["golden_workflow"] for got, due in teaching]
        return {"exact JSON": sum(exact) / len(exact), "names the right command": sum(right) / len(right)}

    def wished(self, position: Position, wordings: tuple[str, ...]) -> tuple[Example, list[str]]:
        """A hint asks for a value of one axis; notes with it in any style do."""
        topic = h.topic(self.rng)
        axis = self.rng.choice(tuple(h.AXES))
        value = self.rng.choice(h.AXES[axis])
        wish = h.wish(self.rng, self.rng.choice(wordings), value, styled.other(self.rng, axis, value))
        messages = [*self.assistant(), corpus.user(topic.request(self.rng))]
        found = [text for text, style in notes(topic).items() if style[axis] == value]
        blocks = (Block(position=position, text=f"Hint: {wish}"),)
        return prompt(messages, blocks, tools=None), self.said(found)

    def corrected(self, wordings: tuple[str, ...], *, whole: bool, later: bool) -> tuple[Example, list[str]]:
        """The user corrects a note: the next one obeys. `whole`: and keeps the rest; `later`: on the next topic too."""
        topic, style = h.topic(self.rng), h.any_style(self.rng)
        axis = self.rng.choice(tuple(h.AXES))
        value = styled.other(self.rng, axis, style[axis])
        wanted = style | {axis: value}
        messages = [
            *self.assistant(),
            corpus.user(topic.request(self.rng)),
            corpus.say(h.note(self.rng, topic, style)),
            corpus.user(h.wish(self.rng, self.rng.choice(wordings), value, style[axis])),
        ]
        if later:
            messages.append(corpus.say(h.note(self.rng, topic, wanted)))
            topic = h.topic(self.rng)
            messages.append(corpus.user(topic.request(self.rng)))
        found = [
            text for text, its in notes(topic).items() if (its == wanted if whole else its[axis] == value)
        ]
        return prompt(messages, tools=None), self.said(found)

    def assistant(self) -> list[Message]:
        return [{"role": "system", "content": h.ASSISTANT_SYSTEM}]

    def said(self, texts: list[str]) -> list[str]:
        return [self.text(corpus.say(text)) for text in texts]

    def habits(self, num_topics: int = _NUM_TOPICS) -> dict[str, float]:
        """The probability of each value of an axis where nobody has said anything, and of all notes together."""
        found = dict.fromkeys([value for values in h.AXES.values() for value in values] + ["any"], 0.0)
        for _ in range(num_topics):
            topic = h.topic(self.rng)
            table = notes(topic)
            ids = prompt_ids(
                self.encoder, prompt([*self.assistant(), corpus.user(topic.request(self.rng))], tools=None)
            )
            options = [self.encoder.reply(corpus.say(text)) for text in table]
            chances = torch.tensor(log_probability(self.model, ids, options)).exp().tolist()
            for style, chance in zip(table.values(), chances, strict=True):
                for value in ("any", *style.values()):
                    found[value] += chance / num_topics
        return found

    def alternatives(self) -> dict[str, list[float]]:
        """For each reachable operation, the probability of each known command, averaged over wordings."""
        table = {}
        for operation in v.REACHABLE_OPERATIONS:
            rows = []
            for wording in operation.wordings:
                values = v.arguments(self.rng, operation)
                ids = prompt_ids(
                    self.encoder, prompt([*self.system(), corpus.user(wording.format(**values))])
                )
                lines = [operation.line(way, values) for way in operation.alternatives]
                options = [self.encoder.reply(corpus.call(line)) for line in lines]
                rows.append(torch.tensor(log_probability(self.model, ids, options)).exp())
            table[operation.key] = torch.stack(rows).mean(0).tolist()
        return table


def evaluate(folder: Path, seed: int = 7, number: int = 200) -> dict[str, float]:
    """All figures by their row names."""
    run = Evaluation(folder, seed, number)
    figures = {
        "first try, usual command": run.share(lambda: run.first_try(several=False)),
        "first try, one of several": run.share(lambda: run.first_try(several=True)),
    }
    for skill in (False, True):
        for label, wordings in (("known", v.KNOWN_WORDINGS), ("withheld", v.WITHHELD_WORDINGS)):
            for position in POSITIONS:
                row = f"{'skill' if skill else 'hint'}, {label} wording, {position}"
                figures[row] = run.share(lambda p=position, s=skill, w=wordings: run.told(p, w, skill=s))  # type: ignore[misc]
    for position in POSITIONS:
        row = f"one hint among three, {position}"
        figures[row] = run.share(lambda p=position: run.told(p, v.KNOWN_WORDINGS, others=2))  # type: ignore[misc]
    for later in (False, True):
        for label, wordings in (("known", v.KNOWN_WORDINGS), ("withheld", v.WITHHELD_WORDINGS)):
            row = f"error{' of an earlier task' if later else ''}, {label} wording"
            figures[row] = run.share(lambda w=wordings, late=later: run.refused(w, later=late))  # type: ignore[misc]
    figures["done after success"] = run.share(run.finished)
    table = run.alternatives()
    flat = [probability for row in table.values() for probability in row]
    figures["alternatives: least probable"] = min(flat)
    figures["alternatives: mean"] = sum(flat) / len(flat)
    figures["alternatives: most probable"] = max(flat)
    figures["alternatives: share within .03-.3"] = sum(
        0.03 <= probability <= 0.3 for probability in flat
    ) / len(flat)
    figures["alternatives: sum of an operation, least"] = min(map(sum, table.values()))
    for label, wordings in (("known", v.KNOWN_WORDINGS), ("withheld", v.WITHHELD_WORDINGS)):
        row = f"hint to another known command, {label} wording"
        figures[row] = run.share(lambda w=wordings: run.told_known(w))  # type: ignore[misc]
    return figures | learned_beside(run)


def learned_beside(run: Evaluation) -> dict[str, float]:
    """The figures of what is no terminal work: verdicts, skills and habits, by their row names."""
    figures: dict[str, float] = {}
    for name in _JUDGED:
        figures |= {f"judge, {name}: {what}": figure for what, figure in run.judged(name).items()}
    figures |= {f"skill written: {what}": figure for what, figure in run.skills().items()}
    for label, wordings in (("known", h.KNOWN_WISHES), ("withheld", h.WITHHELD_WISHES)):
        for position in POSITIONS:
            row = f"wish as a hint, {label} wording, {position}"
            figures[row] = run.share(lambda p=position, w=wordings: run.wished(p, w))  # type: ignore[misc]
        for what, whole, later in (
            ("obeyed", False, False), ("and the rest kept", True, False), ("kept in a later note", True, True),
        ):  # fmt: skip
            row = f"correction, {label} wording, {what}"
            figures[row] = run.share(lambda w=wordings, a=whole, b=later: run.corrected(w, whole=a, later=b))  # type: ignore[misc]
    habits = run.habits()
    figures["habits: all notes together"] = habits.pop("any")
    figures["habits: least probable value"] = min(habits.values())
    figures["habits: most probable value"] = max(habits.values())
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=weights_dir())
    parser.add_argument("--number", type=int, default=200, help="cases per row")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    figures = evaluate(options.weights, options.seed, options.number)
    if options.json:
        print(json.dumps(figures))
        return
    for row, figure in figures.items():
        print(f"| {row:<47} | {figure:.3f} |")


if __name__ == "__main__":
    main()
