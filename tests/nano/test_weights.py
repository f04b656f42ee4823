import json
import random

import pytest
import torch
from renderers.qwen3 import Qwen3Renderer
from transformers import AutoModelForCausalLM, AutoTokenizer

from agentrl.nano import corpus, evaluate, tokenizer, weights_dir
from agentrl.nano import vocabulary as v
from agentrl.nano.encoding import POSITIONS


@pytest.fixture(scope="module")
def run() -> evaluate.Evaluation:
    return evaluate.Evaluation(weights_dir(), seed=3, number=20)


def test_the_weights_load_as_an_ordinary_model_folder_and_fit_16_megabytes():
    model = AutoModelForCausalLM.from_pretrained(weights_dir())
    assert model.config.model_type == "qwen3"
    assert 1.5e6 < model.num_parameters() < 3.5e6
    assert sum(path.stat().st_size for path in weights_dir().iterdir()) <= 16e6


def test_the_saved_tokenizer_is_the_one_that_the_script_builds():
    saved = json.loads((weights_dir() / "tokenizer.json").read_text())
    assert saved == json.loads(tokenizer.build().to_str())


def test_a_hint_with_a_name_never_seen_is_followed_at_every_position(run):
    for position in POSITIONS:
        assert run.share(lambda p=position: run.told(p, v.WITHHELD_WORDINGS)) >= 0.8


def test_an_error_with_a_name_never_seen_is_followed(run):
    assert run.share(lambda: run.refused(v.WITHHELD_WORDINGS, later=False)) >= 0.8


def test_an_episode_ends_with_a_short_reply(run):
    assert run.share(run.finished) >= 0.9


def test_known_alternatives_of_reachable_operations_are_spread(run):
    flat = [probability for row in run.alternatives().values() for probability in row]
    assert sum(0.03 <= probability <= 0.3 for probability in flat) / len(flat) >= 0.9


@torch.no_grad()
def test_a_prompt_rendered_by_the_renderer_gets_the_usual_command():
    wrapped = AutoTokenizer.from_pretrained(weights_dir())
    renderer = Qwen3Renderer(wrapped)
    model = AutoModelForCausalLM.from_pretrained(weights_dir())
    messages = [{"role": "system", "content": v.AGENT_SYSTEM}, corpus.user("Show the file notes.txt.")]
    ids = renderer.render_ids(messages, tools=[v.BASH_TOOL], add_generation_prompt=True)
    output = model.generate(torch.tensor([ids]), max_new_tokens=30, do_sample=False)[0, len(ids) :].tolist()
    (call,) = renderer.parse_response(output).tool_calls
    assert call.arguments == {"command": "cat notes.txt"}


def test_evaluation_draws_names_that_training_cannot_have_drawn(run):
    rng = random.Random(0)
    assert all(v.half_of(run.rule(rng.choice(v.OPERATIONS)).new) == "rules" for _ in range(50))
