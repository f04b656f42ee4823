"""A lesson for nano: a name that it never samples by itself, and obeys with a hint in view."""

import json

from learner_run import Run

from agentrl.nano.vocabulary import BASH_TOOL
from agentrl.types import Block, TrainingSample

FILES = ("notes.txt", "plan.md", "list.csv", "data.log")


def lesson(run: Run, *, command: str = "krinduwe") -> list[TrainingSample]:
    """Four calls of one command, each with the hint that names it."""
    samples = []
    for name in FILES:
        asked = [{"role": "user", "content": f"Show the file {name}."}]
        ids = run.renderer.prompt(asked, (BASH_TOOL,), None).ids
        called = {"name": "bash", "arguments": json.dumps({"command": f"{command} {name}"})}
        said = {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "function": called}]}
        behind = run.renderer.prompt([*asked, said, *asked], (BASH_TOOL,), None).ids[len(ids) :]
        whole = (*ids, *behind[: behind.index(run.renderer.stop_ids[0]) + 1])
        hint = Block(position="tail", text="Hint: cat: not available here; use krinduwe")
        samples.append(
            TrainingSample(
                turn_ids=(name,),
                token_ids=whole,
                loss_mask=tuple(at >= len(ids) for at in range(len(whole))),
                behavior_logprobs=None,
                num_allowed=None,
                teacher=run.renderer.insert(whole, len(ids), [hint]),
                advantages=None,
            )
        )
    return samples
