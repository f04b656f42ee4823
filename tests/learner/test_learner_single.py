"""A client that teaches one rule in one phrasing, on the model that ships: the rule is learned, nothing is garbled."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from learner_run import Run

from agentrl.learner.generate import generate
from agentrl.learner.teacher_weights import Weights
from agentrl.learner.trainer import Trainer
from agentrl.nano import weights_dir
from agentrl.types import JSON, Sampling, Turn

BASH: JSON = {
    "type": "function",
    "function": {
        "name": "bash",
        "description": "Run a command in bash",
        "parameters": {
            "type": "object",
            "properties": {"command": {"type": "string"}},
            "required": ["command"],
        },
    },
}
TAUGHT = ("notes", "report", "data", "list", "plan", "draft", "names", "tasks", "table", "record")
HELD_OUT = (
    "letter.txt",
    "menu.md",
    "poem.csv",
    "cities.log",
    "orders.txt",
    "essay.md",
    "users.csv",
    "index.log",
)
OTHERS = {
    "Copy menu.md to agenda.md.": "cp menu.md agenda.md",
    "Count the lines of scores.csv.": "wc -l scores.csv",
    "Rename memo.txt to diary.txt.": "mv memo.txt diary.txt",
    "Show the file poem.txt.": "hevar poem.txt",
}
NUM_STEPS = 14
NUM_CONVERSATIONS = 8
"""Of one step: two turns each."""


class Client:
    """An agent with one tool, which refuses every command but one and says which."""

    def __init__(self, run: Run, trainer: Trainer) -> None:
        self.run = run
        self.trainer = trainer
        self.num_asked = 0

    def ask(
        self, prompts: Sequence[tuple[int, ...]], temperature: float = 1.0
    ) -> list[tuple[Turn, str | None]]:
        """What the policy answers: a turn, and the command that it calls."""
        seeds = range(self.num_asked, self.num_asked + len(prompts))
        self.num_asked += len(prompts)
        found = generate(
            Weights(self.trainer.policy, None), prompts, seeds, version=0, max_tokens=8192, max_len=1024,
            sampling=Sampling(temperature=temperature, max_tokens=48), stop_ids=frozenset(self.run.renderer.stop_ids),
        )  # fmt: skip
        answers = []
        for prompt, done in zip(prompts, found, strict=True):
            reply = self.run.renderer.parse(done.token_ids, [BASH])
            turn = self.run.turn("", "", prompt_ids=prompt, completion=done, tools=(BASH,))
            turn = replace(turn, reply=reply)
            called = json.loads(reply.tool_calls[0].arguments) if reply.tool_calls else {}
            answers.append((turn, called.get("command")))
        return answers

    def prompt(self, messages: Sequence[JSON]) -> tuple[int, ...]:
        return self.run.renderer.prompt(messages, [BASH], None).ids

    def commands(self, requests: Sequence[str]) -> list[str | None]:
        """What is called at the first try, greedily."""
        prompts = [self.prompt([{"role": "user", "content": text}]) for text in requests]
        return [command for _, command in self.ask(prompts, temperature=0.0)]

    def converse(self, files: Sequence[str], version: int) -> None:
        """Conversations of two turns; what was refused is told by the tool, and so by the judge."""
        histories = [({"role": "user", "content": f"Show the file {name}."},) for name in files]
        asked = self.ask([self.prompt(messages) for messages in histories])
        told: list[tuple[Turn, tuple[JSON, ...]]] = []
        for (turn, command), messages in zip(asked, histories, strict=True):
            name = (command or "").split(" ")[0]
            error = f"bash: {name}: is not installed, but hevar is"
            is_told = command is not None and name != "hevar"
            first = _by(turn, version, messages, session=f"s-{turn.id}")
            self.run.record(first, hint=error if is_told else None)
            if is_told:
                call = {"name": "bash", "arguments": json.dumps({"command": command})}
                calls = [{"id": "c1", "type": "function", "function": call}]
                said = {"role": "assistant", "content": "", "tool_calls": calls}
                result = {"role": "tool", "tool_call_id": "c1", "content": f"{error}\n[exit code 127]"}
                told.append((first, (*messages, said, result)))
        answers = self.ask([self.prompt(messages) for _, messages in told]) if told else []
        for (first, messages), (later, _) in zip(told, answers, strict=True):
            self.run.record(_by(later, version, messages, session=first.session, parent=first.id))


def _by(turn: Turn, version: int, messages: tuple[JSON, ...], **changes: object) -> Turn:
    """The turn as that version's."""
    [span] = turn.completion.version_spans
    done = replace(turn.completion, version_spans=(replace(span, version=version),))
    return replace(turn, messages=messages, completion=done, **changes)


@pytest.mark.heavy
def test_one_client_with_one_rule_in_one_phrasing_teaches_it_and_garbles_nothing(tmp_path: Path) -> None:
    run = Run(
        tmp_path / "run", weights_dir(), optim__lr=7e-4, batch__turns_per_step=NUM_CONVERSATIONS,
        batch__max_wait_s=0.0,
    )  # fmt: skip
    trainer = Trainer(run.base, run.recipe, run.config.learn, keeps_base=True)
    client = Client(run, trainer)
    with run.learner(trainer=trainer, rehearses=True) as learner:
        learner.loop.start()
        for step in range(NUM_STEPS):
            names = [TAUGHT[(step + at) % len(TAUGHT)] for at in range(NUM_CONVERSATIONS)]
            client.converse(
                [f"{name}{'.txt' if at % 2 else '.md'}" for at, name in enumerate(names)],
                learner.log.serving().number,
            )
            learner.work()
        first_tries = client.commands([f"Show the file {name}." for name in HELD_OUT])
        others = client.commands(list(OTHERS))
        states = [version.state.value for version in learner.log.versions()[1:]]

    assert sum(command == f"hevar {name}" for command, name in zip(first_tries, HELD_OUT, strict=True)) >= 7
    assert others == list(OTHERS.values())
    assert "rejected" not in states
