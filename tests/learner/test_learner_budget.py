"""What the probe's pass measures, and what memory it takes."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from learner_models import make, write_model

from agentrl.config import GuardsConfig
from agentrl.learner.base_answers import BaseAnswers
from agentrl.learner.budget import Budget
from agentrl.learner.pack import Row
from agentrl.learner.teacher_weights import Weights
from agentrl.learner.trainer import Trainer

WIDE = 2**17
"""Ids of a vocabulary of which 72 rows of logits are one chunk."""


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wide") / "base"
    return write_model(
        folder,
        vocab_size=WIDE,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=1024,
    )


def test_a_reply_of_many_chunks_is_as_far_from_the_served_version_as_all_its_logits_at_once_say(
    wide: Path,
) -> None:
    trainer = make(wide)
    ids = torch.randint(WIDE, (1, 101), generator=torch.Generator().manual_seed(1))
    rows = {"t": Row(token_ids=tuple(ids[0].tolist()), positions=tuple(range(1, 101)))}
    budget = Budget(rows, {}, {}, GuardsConfig(max_kl_update=9.0, max_kl_base=0.0, max_fall=0.0), min_turns=1)

    def logprobs() -> torch.Tensor:
        with torch.no_grad():
            return trainer.policy.causal_lm(input_ids=ids).logits[0, :-1].log_softmax(-1)

    budget.restart(trainer)
    before = logprobs()
    with torch.no_grad():
        for number, weight in enumerate(trainer.policy.trained.values()):
            weight += 0.5 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(number))
    after = logprobs()

    old, top = before.topk(64)
    new = after.gather(1, top)
    inside = (new.exp() * (new - old)).sum(-1)
    rest, was = 1 - new.exp().sum(-1), 1 - old.exp().sum(-1)
    expected = float((inside + rest * (rest / was).log()).mean())
    assert expected > 0.001
    assert budget.spend(trainer, {}).metrics["kl_update"] == pytest.approx(expected, abs=1e-6)
    assert trainer.mean_logprobs(list(rows.values())) == [
        pytest.approx(float(after.gather(1, ids[0, 1:, None]).mean()), abs=1e-5)
    ]


@pytest.mark.parametrize(
    ("divergences", "refused"),
    [
        ((2.0, 0.02, 0.02, 0.02), False),  # mean .515, its error .495
        ((2.0, 2.0, 2.0, 0.02), True),  # 1.505 and .495
        ((0.6, 0.6, 0.6, 0.6), True),
        ((2.0,) * 8 + (0.02,) * 24, False),  # .515 and .154
        ((2.0,) * 12 + (0.02,) * 20, True),  # .763 and .172
        ((5.0, 0.02, 0.02, 0.02), True),  # 1.265 and 1.245: beyond twice the bound
        ((math.nan, 0.02, 0.02, 0.02), True),
        ((math.inf, 0.02, 0.02, 0.02), True),
    ],
)
def test_no_single_held_out_turn_spends_a_budget(divergences: tuple[float, ...], refused: bool) -> None:
    budget = Budget({}, {}, {}, GuardsConfig(), min_turns=4)

    why, _ = budget._verdict(divergences, 0.5, "kl_base", "version 0")

    assert (why is not None) is refused


def test_a_spent_budget_is_told_with_its_mean_its_error_its_turns_and_its_bound() -> None:
    budget = Budget({}, {}, {}, GuardsConfig(), min_turns=4)

    assert budget._verdict([2.0, 2.0, 2.0, 0.02], 0.5, "kl_base", "version 0") == (
        "KL to version 0 is 1.505 ± 0.495 nats an id on 4 held-out turns, guards.max_kl_base allows 0.5",
        {"kl_base": pytest.approx(1.505), "kl_base_error": pytest.approx(0.495)},
    )


MEASURE = """
import json, sys
from pathlib import Path
import torch
from agentrl.config import GuardsConfig, LearnConfig
from agentrl.learner.budget import Budget
from agentrl.learner.gate import Gate
from agentrl.learner.pack import Row
from agentrl.learner.trainer import Trainer
from agentrl.recipes.recipe import load_recipe

torch.set_num_threads(1)
path, vocab = Path(sys.argv[1]), int(sys.argv[2])
trainer = Trainer(path, load_recipe("hint_opsd"), LearnConfig(precision="fp32"), keeps_base=True)

def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))

def extra(num_ids):
    ids = tuple((7 * at) % vocab for at in range(num_ids))
    rows = {"t": Row(token_ids=ids, positions=tuple(range(1, num_ids)))}
    guards = GuardsConfig(max_kl_update=9.0, max_kl_base=9.0)
    gate = Gate(rows, min_turns=1, budget=Budget(rows, rows, {"t": -1.0}, guards, min_turns=1))
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the high-water mark starts anew
    before = status("VmRSS")
    gate.restart(trainer)
    verdict = gate.judge(trainer, [])
    assert {"kl_update", "kl_base", "probe_fall", "probe_change"} <= verdict.metrics.keys()
    return (status("VmHWM") - before) / 2**20

extra(4)  # code is loaded
print(json.dumps([extra(73), extra(513)]))
"""


@pytest.mark.heavy
@pytest.mark.skipif(
    not os.path.exists("/proc/self/clear_refs"), reason="reads Linux' high-water mark of memory"
)
def test_the_gate_and_the_budgets_take_the_logits_of_one_chunk_however_long_a_reply_is(wide: Path) -> None:
    """MiB that a process of its own gains: an array of 72 positions and the vocabulary is 36 MiB, of 512 it is 256."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(wide), str(WIDE)],
        # Every larger array is mapped by itself, so that what is freed leaves the process.
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    short, long = json.loads(done.stdout)

    assert long < short + 40
    assert long < 200


@pytest.mark.parametrize(
    ("turns", "answers", "said"),
    [
        ((0.9,) * 4, (0.0,) * 8, "KL to version 0 is 0.900 ± 0.000 nats an id on 4 held-out turns, "),
        ((0.0,) * 32, (0.9,) * 8, "KL to version 0 is 0.900 ± 0.000 nats an id on 8 answers of version 0, "),
        ((0.1,) * 4, (0.2,) * 8, None),
    ],
)
def test_held_out_turns_and_version_0s_own_answers_do_not_hide_behind_each_other(
    model_path: Path, turns: tuple[float, ...], answers: tuple[float, ...], said: str | None
) -> None:
    class Known(Budget):
        """Divergences as they are given."""

        def _of_anchors(self, trainer: Trainer, base: Weights) -> list[float]:
            return list(turns)

    class Answers(BaseAnswers):
        def drift(self, trainer: Trainer) -> list[float]:
            return list(answers)

    budget = Known({}, {}, {}, GuardsConfig(), min_turns=4, answers=Answers(()))
    refusal, metrics = budget.to_base(make(model_path))

    assert metrics["kl_base"] == pytest.approx(max(*turns, *answers))
    assert refusal is None if said is None else (refusal or "").startswith(said)
