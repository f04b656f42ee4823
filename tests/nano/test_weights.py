import json
import random

import pytest
import torch
from renderers.qwen3 import Qwen3Renderer
from transformers import AutoModelForCausalLM, AutoTokenizer

from agentrl.nano import corpus, evaluate, tokenizer, weights_dir
from agentrl.nano import habits as h
from agentrl.nano import vocabulary as v
from agentrl.nano.encoding import POSITIONS


@pytest.fixture(scope="module")
def run() -> evaluate.Evaluation:
    return evaluate.Evaluation(weights_dir(), seed=3, number=20)


@pytest.fixture(scope="module")
def few() -> evaluate.Evaluation:
    """For what has long prompts."""
    return evaluate.Evaluation(weights_dir(), seed=5, number=12)


def test_the_weights_load_as_an_ordinary_model_folder_and_fit_16_megabytes():
    model = AutoModelForCausalLM.from_pretrained(weights_dir())
    assert model.config.model_type == "qwen3"
    assert 1.5e6 < model.num_parameters() < 3.5e6
    assert sum(path.stat().st_size for path in weights_dir().iterdir()) <= 16e6


def test_the_saved_tokenizer_is_the_one_that_the_script_builds():
    saved = json.loads((weights_dir() / "tokenizer.json").read_text())
    assert saved == json.loads(tokenizer.build().to_str())


@pytest.mark.heavy
def test_a_hint_with_a_name_never_seen_is_followed_at_every_position(run):
    for position in POSITIONS:
        assert run.share(lambda p=position: run.told(p, v.WITHHELD_WORDINGS)) >= 0.8


@pytest.mark.heavy
def test_an_error_with_a_name_never_seen_is_followed(run):
    assert run.share(lambda: run.refused(v.WITHHELD_WORDINGS, later=False)) >= 0.8


def test_an_episode_ends_with_a_short_reply(run):
    assert run.share(run.finished) >= 0.9


@pytest.mark.heavy
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


@pytest.mark.heavy
def test_refusals_and_outages_are_judged_as_they_are_whatever_was_invented(few):
    for name in ("directed error", "bare error", "outage"):
        said = few.judged(name)
        assert said["kind"] >= 0.8
        assert said["reward"] >= 0.8
        assert said["hint"] >= 0.8


@pytest.mark.heavy
def test_what_worked_after_a_refusal_is_progress_and_what_ran_at_once_is_only_no_error(few):
    assert few.judged("progress")["reward"] >= 0.8
    assert few.judged("no error")["reward"] >= 0.8


@pytest.mark.heavy
def test_what_a_user_says_next_is_told_apart(few):
    assert few.judged("correction")["kind"] >= 0.7
    assert few.judged("praise")["kind"] >= 0.9
    assert few.judged("new task")["kind"] >= 0.9


@pytest.mark.heavy
def test_a_skill_names_the_command_that_worked(run):
    skills = run.skills()
    assert skills["exact JSON"] >= 0.8
    assert skills["names the right command"] >= 0.8


@pytest.mark.heavy
def test_a_wish_in_a_wording_never_seen_is_obeyed_at_every_position(few):
    for position in POSITIONS:
        assert few.share(lambda p=position: few.wished(p, h.WITHHELD_WISHES)) >= 0.8


@pytest.mark.heavy
def test_a_correction_is_obeyed_and_the_rest_of_the_style_stays(few):
    assert few.share(lambda: few.corrected(h.WITHHELD_WISHES, whole=True, later=False)) >= 0.8
    assert few.share(lambda: few.corrected(h.WITHHELD_WISHES, whole=True, later=True)) >= 0.8


@pytest.mark.heavy
def test_where_nobody_has_said_anything_every_value_of_a_habit_is_likely(run):
    habits = run.habits(num_topics=1)
    assert habits.pop("any") >= 0.9
    assert min(habits.values()) >= 0.12
    assert max(habits.values()) <= 0.6


def test_a_note_has_one_style_and_the_styles_have_135_notes():
    found = evaluate.notes(h.topic(random.Random(0)))
    assert len(found) == 135
    assert len({tuple(style.values()) for style in found.values()}) == 81


def test_the_log_probability_of_a_continuation_does_not_depend_on_those_beside_it(run):
    ids = run.encoder.text("Show the file notes.txt.")
    ends = [run.encoder.text(text) for text in ("Show", "Show the file notes.txt.", "It is done.")]
    together = evaluate.log_probability(run.model, ids, ends)
    alone = [evaluate.log_probability(run.model, ids, [end])[0] for end in ends]
    assert together == pytest.approx(alone, abs=1e-4)


def test_evaluation_draws_names_that_training_cannot_have_drawn(run):
    rng = random.Random(0)
    assert all(v.half_of(run.rule(rng.choice(v.OPERATIONS)).new) == "rules" for _ in range(50))
