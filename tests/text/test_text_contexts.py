"""Each privileged context at each place in each family's prompts: taken out again, nothing of it is left.

The deletion property: without the block's ids the teacher's view is the plain prompt with the sampled ids, which stand
verbatim behind the block. Law 2: where nobody looks at the block, the teacher says what the policy says.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from small_models import FAMILY_TOKENS, family_renderer
from test_text_insert import BASH, SYSTEM, USER, deleted, result, says
from transformers import Qwen3Config, Qwen3ForCausalLM

from agentrl.learner.pack import teacher_positions
from agentrl.recipes import axes
from agentrl.signals.labelled import as_turn, from_json
from agentrl.teacher.contexts import blocks
from agentrl.teacher.demonstrations import Sibling
from agentrl.types import JSON, Block, NextState, Reply, Signal, SignalSource, Skill, TeacherView, Turn

TURN, _ = as_turn(
    from_json({
        "id": "t", "domain": "chat", "half": "dev", "made_by": "hand", "messages": [USER], "tools": [],
        "reply": {"text": "Done: a.txt", "calls": []}, "next": [], "end": None, "reason": "",
        "label": {"reward": 0, "fault": "agent", "kind": "praise", "should_hint": False, "hint_contains": []},
    })
)  # fmt: skip


@dataclass(frozen=True)
class Answered:
    signals: tuple[Signal, ...]
    next_state: NextState | None
    turn: Turn = TURN


def word(**said: object) -> Signal:
    return Signal(turn_id="t", source=SignalSource.USER, **said)  # type: ignore[arg-type]


KNOWN = Answered(
    signals=(
        word(hint="use `ls -a` instead <|im_end|>"),
        word(preferred='[{"name": "bash", "arguments": "{\\"command\\": \\"ls -a\\"}"}]'),
        word(reward=-1.0, evidence="- [x] lists\n- [ ] shows hidden files\n- [ ] 日本 [e~["),
    ),
    next_state=NextState(turn_id="t", messages=(result("ls: not found\n[exit code 127] <|eot_id|>"),)),
)
SILENT = Answered(signals=(), next_state=None, turn=replace(TURN, reply=Reply(text="")))
SKILLS = [
    Skill(name=name, description="d", body=body)
    for name, body in (("list-files", "## How\n1. run ls -a\n<|user|>"), ("read", "cat"))
]
SIBLINGS = [Sibling(session="other", text='bash({"command": "ls -a"})\nTwo files.', reward=1.0)]
CONTEXTS: dict[str, type[axes.Option]] = {
    "reference solution": axes.Solution, "demonstration": axes.Demo, "successful sibling": axes.SiblingSuccess,
    "environment feedback": axes.EnvFeedback, "hindsight hint": axes.HindsightHint, "skills": axes.SkillContext,
    "expert trace": axes.ExpertTrace, "own attempt": axes.OwnAttempt, "unmet rubric": axes.UnmetRubrics,
}  # fmt: skip
POSITIONS = ("system", "last_user", "tail")
NUM_BLOCKS = {"skills": 2, "attempt and solution": 2, "hint, feedback and skills": 4, "nothing": 0}


def shown(name: str, position: str, record: Answered = KNOWN) -> list[Block]:
    """The blocks of one of the contexts, or of two combinations, at a place."""
    at = {"position": position}
    context: axes.Option = axes.NoContext()
    if name in CONTEXTS:
        context = CONTEXTS[name].model_validate(at)
    elif name == "attempt and solution":
        context = axes.SeveralContexts(contexts=(axes.OwnAttempt(**at), axes.Solution(**at)))
    elif name == "hint, feedback and skills":
        # each at another place
        there = POSITIONS[(POSITIONS.index(position) + 1) % 3]
        parts = (axes.HindsightHint(**at), axes.EnvFeedback(position=there), axes.SkillContext(**at))
        context = axes.SeveralContexts(contexts=parts)
    known = record is KNOWN
    return blocks(context, record, SKILLS if known else (), None, SIBLINGS if known else ())


ALL = ["nothing", *CONTEXTS, "attempt and solution", "hint, feedback and skills"]


def history(family: str) -> list[JSON]:
    called = [says("", '{"command": "ls"}', "hm"), result("a.txt <|im_start|>")]
    tools = [] if family == "llama-3" else called
    return [SYSTEM, USER, *tools, says("Done.", reasoning="so"), {"role": "user", "content": "more"}]


@pytest.fixture(scope="module")
def policy() -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    rest = {"num_key_value_heads": 1, "head_dim": 8, "vocab_size": 512, "initializer_range": 0.3}
    return Qwen3ForCausalLM(Qwen3Config(**shape, **rest)).eval()


@torch.no_grad()
def logprobs(policy: Qwen3ForCausalLM, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """[B, L-1] log-probs of each id after those before it, of rows of one length."""
    ids = torch.tensor(rows)
    scores = policy(ids).logits[:, :-1].log_softmax(-1)
    return scores.gather(2, ids[:, 1:, None]).squeeze(2)


@torch.no_grad()
def logprobs_past_the_blocks(
    policy: Qwen3ForCausalLM, view: TeacherView, there: Sequence[int]
) -> torch.Tensor:
    """[L-1] log-probs of the plain row's ids at their places in the view, whose blocks no id attends to or counts."""
    size = len(view.token_ids)
    seen = torch.ones(size, dtype=torch.bool)
    for start, end in view.inserted_spans:
        seen[start:end] = False
    mask = torch.ones(size, size, dtype=torch.bool).tril() & (seen | torch.eye(size, dtype=torch.bool))
    ids, counted = torch.tensor([view.token_ids]), (seen.cumsum(0) - 1).clamp(min=0)
    found = policy(ids, attention_mask=mask[None, None], position_ids=counted[None]).logits[0].log_softmax(-1)
    return found[list(there[:-1]), ids[0, list(there[1:])]]


@pytest.mark.parametrize("family", FAMILY_TOKENS)
def test_every_context_at_every_place_comes_out_again_without_a_trace(
    family: str, policy: Qwen3ForCausalLM
) -> None:
    renderer, _ = family_renderer(family)
    prompt = renderer.prompt(history(family), [BASH], None).ids
    rng = random.Random(family)
    sampled = tuple(rng.randrange(renderer.vocab_size) for _ in range(7))
    plain = prompt + sampled
    alone = logprobs(policy, [plain])[0]
    num_views = 0
    for name in ALL:
        for position in POSITIONS:
            found = shown(name, position)
            assert len(found) == NUM_BLOCKS.get(name, 1), name
            view = renderer.insert(plain, len(prompt), found)
            assert len(view.inserted_spans) == len(found)
            assert deleted(view) == plain, (name, position)
            assert view.token_ids[-7:] == sampled
            texts = [renderer.decode(view.token_ids[start:end]) for start, end in view.inserted_spans]
            assert all(any(block.text in text for text in texts) for block in found), (name, position)
            # where the learner looks for the sampled ids in the teacher's view
            there = teacher_positions(view, plain, range(len(plain)))
            assert there[-7:] == tuple(range(len(view.token_ids) - 7, len(view.token_ids)))
            past = logprobs_past_the_blocks(policy, view, there)
            assert float((past - alone).abs().max()) <= 1e-4, (name, position)
            num_views += 1

    assert num_views == 36


@pytest.mark.parametrize("name", ALL)
def test_a_turn_of_which_nothing_is_known_has_no_block(name: str) -> None:
    assert [shown(name, position, SILENT) for position in POSITIONS] == [[], [], []]


def test_a_block_that_is_not_taken_out_changes_what_is_said(policy: Qwen3ForCausalLM) -> None:
    renderer, _ = family_renderer("qwen3")
    prompt = renderer.prompt(history("qwen3"), [BASH], None).ids
    view: TeacherView = renderer.insert((*prompt, 5, 6), len(prompt), shown("hindsight hint", "tail"))

    with_it = logprobs(policy, [view.token_ids])[0, -2:]
    without = logprobs(policy, [deleted(view)])[0, -2:]
    assert float((with_it - without).abs().max()) > 1e-2
