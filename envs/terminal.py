"""The terminal: an agent with one tool, a bash, in a house with rules of its own (`envs.house_rules`).

An episode is one task. It ends when the task is done, when the agent says something without calling the tool, or after
`max_steps` replies; the reward is 1.0 for a task done and 0.0 otherwise.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

from agentrl.errors import ConfigError
from agentrl.nano.vocabulary import AGENT_SYSTEM, BASH_TOOL, OPERATIONS, Operation
from agentrl.types import JSON, Reply, ToolCall
from envs.house_rules import Family, HouseRules
from envs.programs import WORDS_FILE
from envs.protocol import Observation, Split, StepResult, Task
from envs.sandbox.base import CommandResult, Ended, Limits, Shell, Snapshot
from envs.sandbox.probe import open_shell
from envs.simulated.stand_ins import KNOWN_WORDS
from envs.tasks import TerminalTask, draw_task

MAX_OUTPUT = 2000


class Terminal:
    """The environment.

    Args:
        seed: draws the house (unless `rules` is given) and the tasks.
        rules: a house drawn beforehand.
        families: the kinds of operations that tasks are drawn from.
        shell: "auto", "bubblewrap", "unshare" or "simulated".
        max_steps: replies of one episode.
        told: write the rules of the house into the system message, so that nothing needs to be learned.
        wrong_hints: share of the rules of each family whose errors name a wrong command; for a house that is drawn.
        max_output: bytes of a command's output that the agent sees; the rest is cut off.
        end_on_success: end with the command that does the task; otherwise when the agent says that it is done.
        limits: bounds of the shell.

    Raises:
        ConfigError: a setting cannot work; the message says what would.
    """

    name = "terminal"

    def __init__(
        self,
        *,
        seed: int = 0,
        rules: HouseRules | None = None,
        families: Sequence[str] = (Family.UNKNOWN, Family.REACHABLE),
        shell: str = "auto",
        max_steps: int = 4,
        told: bool = False,
        wrong_hints: float = 0.0,
        max_output: int = MAX_OUTPUT,
        end_on_success: bool = True,
        limits: Limits | None = None,
    ) -> None:
        if max_steps < 1:
            raise ConfigError(f"max_steps is {max_steps}; an episode needs at least 1")
        if max_output < 1:
            raise ConfigError(f"max_output is {max_output}; an agent needs to see at least 1 byte")
        self.seed = seed
        if rules is not None and wrong_hints:
            raise ConfigError(
                "wrong_hints is for a house that is drawn here: HouseRules.draw(wrong_hints=...)"
            )
        self.rules = rules or HouseRules.draw(seed, wrong_hints=wrong_hints)
        self.operations = tuple(each for each in OPERATIONS if self.rules.family(each.key) in families)
        if not self.operations:
            raise ConfigError(f"no operation belongs to {', '.join(families)}; use {', '.join(Family)}")
        self.shell_kind = shell
        self.max_steps = max_steps
        self.system = "\n".join((AGENT_SYSTEM, *(self.rules.told() if told else ())))
        self.max_output = max_output
        self.end_on_success = end_on_success
        self.limits = limits or Limits()
        self._shell: Shell | None = None
        self._task: TerminalTask | None = None
        self._num_steps = 0
        self._num_commands = 0
        self._first_try = False
        self._misled = False
        self._passed = False
        self._did_it: list[bool | None] = []
        """For each reply, whether its commands did the task; None where it had none, or the task was done before."""

    def task(self, split: Split, index: int) -> Task:
        """Every operation comes once in each round of as many tasks as there are operations."""
        if split not in ("train", "held_out"):
            raise ConfigError(f"there is no split {split!r}; use train or held_out")
        round_number, place = divmod(index, len(self.operations))
        order = random.Random(f"round {self.seed} {split} {round_number}")
        operation = order.sample(self.operations, len(self.operations))[place]
        task = draw_task(self.seed, split, index, operation, self._accepted(operation))
        return Task(key=f"terminal-{self.seed}-{split}-{index}", split=split, data=task)

    async def reset(self, task: Task) -> Observation:
        self._task = task.data
        assert self._task is not None
        self._num_steps = self._num_commands = 0
        self._first_try = self._misled = self._passed = False
        self._did_it = []
        if self._shell is None:
            self._shell = await open_shell(
                self.shell_kind,
                limits=self.limits,
                programs=self.rules.programs(),
                data={WORDS_FILE: "".join(f"{word}\n" for word in KNOWN_WORDS)},
            )
        await self._shell.reset(self._task.files)
        messages = ({"role": "system", "content": self.system}, {"role": "user", "content": self._task.text})
        return Observation(messages=messages, tools=(BASH_TOOL,))

    async def step(self, reply: Reply) -> StepResult:
        assert self._task is not None, "reset comes before step"
        self._num_steps += 1
        was_done = self._passed
        messages = [await self._answer(call) for call in reply.tool_calls]
        self._did_it.append(None if was_done or not reply.tool_calls else self._passed)
        done = (
            not reply.tool_calls
            or self._num_steps >= self.max_steps
            or (self._passed and self.end_on_success)
        )
        return StepResult(
            messages=tuple(messages),
            reward=float(self._passed) if done else None,
            done=done,
            info=self._info(),
        )

    async def aclose(self) -> None:
        if self._shell is not None:
            await self._shell.aclose()
            self._shell = None

    def _accepted(self, operation: Operation) -> tuple[str, ...]:
        rule = self.rules.rule(operation.key)
        if rule is not None and rule.family is Family.REACHABLE:
            return (rule.new,)
        return operation.alternatives or (operation.command,)

    async def _answer(self, call: ToolCall) -> JSON:
        """The tool message for one call."""
        command = command_of(call)
        content = command.error if isinstance(command, _BadCallError) else await self._run(command)
        return {"role": "tool", "tool_call_id": call.id, "content": content}

    async def _run(self, command: str) -> str:
        assert self._shell is not None
        assert self._task is not None
        result = await self._shell.run(command)
        self._num_commands += 1
        if self._num_commands == 1:
            self._misled = self._is_wrong(command)
        if not self._passed:
            after = await self._shell.snapshot() if self._task.operation.check == "state" else Snapshot()
            self._passed = self._task.passed(result, after)
            self._first_try = self._passed and self._num_commands == 1
        return tool_text(result, self.max_output)

    def _is_wrong(self, command: str) -> bool:
        """Whether a command is what the house wrongly names for this task."""
        assert self._task is not None
        operation, values = self._task.operation, self._task.values
        rule = self.rules.rule(operation.key)
        return rule is not None and command in [operation.line(way, values) for way in rule.wrong]

    def _info(self) -> dict[str, Any]:
        assert self._task is not None
        assert self._shell is not None
        operation = self._task.operation
        rule = self.rules.rule(operation.key)
        return {
            "family": str(self.rules.family(operation.key)),
            "rule": operation.key,
            "withheld": rule.withheld if rule is not None else False,
            "success": self._passed,
            "first_try": self._first_try,
            "misled": self._misled,
            "solution": operation.line(
                self._task.accepted[0] if rule is None else rule.new, self._task.values
            ),
            "did_it": list(self._did_it),
            "num_steps": self._num_steps,
            "shell": str(self._shell.kind),
        }


class _BadCallError:
    """A call that names no command."""

    def __init__(self, error: str) -> None:
        self.error = error + "\n[exit code 2]"


def command_of(call: ToolCall) -> str | _BadCallError:
    """The command that a call asks for, or what to tell the agent instead."""
    wanted = BASH_TOOL["function"]["name"]
    if call.name != wanted:
        return _BadCallError(f"error: there is no tool {call.name!r}; use {wanted}")
    try:
        arguments = json.loads(call.arguments)
    except json.JSONDecodeError as error:
        return _BadCallError(f"error: the arguments are not JSON: {error.msg}")
    command = arguments.get("command") if isinstance(arguments, dict) else None
    if not isinstance(command, str):
        return _BadCallError('error: the arguments must be {"command": "..."}')
    return command


def tool_text(result: CommandResult, max_output: int = MAX_OUTPUT) -> str:
    """What the agent sees of a command: its output, cut, and its exit code when that is not 0.

    Args:
        max_output: UTF-8 bytes of the output; no tokenizer makes more ids of it.
    """
    text = result.output.removesuffix("\n").encode(errors="replace")[:max_output].decode(errors="ignore")
    note = NOTES.get(result.ended, "")
    lines = [line for line in (text, note) if line] or ["(no output)"]
    if result.exit_code != 0:
        lines.append(f"[exit code {result.exit_code}]")
    return "\n".join(lines)


NOTES = {
    Ended.TIMED_OUT: "the command took too long and was stopped",
    Ended.TOO_MUCH_OUTPUT: "the command printed too much and was stopped",
}
