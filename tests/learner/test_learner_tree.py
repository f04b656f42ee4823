"""A tree of conversations gives the gradients of one row a turn, and computes each id once."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learner_models import VOCAB, write_model
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from agentrl.config import LearnConfig
from agentrl.learner.model import PolicyModel, load_policy, set_precision
from agentrl.learner.pack import MicroBatch, Row, Sharing, as_tree, pack
from agentrl.learner.trainer import Trainer
from agentrl.learner.tree import branches_of, common, paths_of, visible
from agentrl.learner.tree_attention import FLEX_ATTENTION
from agentrl.recipes.recipe import load_recipe
from agentrl.types import TeacherView, TrainingSample


def load(path: Path, precision: str = "fp32") -> PolicyModel:
    return load_policy(path, device="cpu", precision=precision, lora_rank=0, seed=0)


def ids(count: int, seed: int) -> tuple[int, ...]:
    draw = random.Random(seed)
    return tuple(draw.randrange(VOCAB) for _ in range(count))


def all_of(token_ids: tuple[int, ...], begin: int) -> Row:
    return Row(token_ids=token_ids, positions=tuple(range(begin, len(token_ids))))


def turns(
    num_turns: int, prompt: int, response: int, observation: int, *, tail: int = 0, seed: int = 0
) -> list[Row]:
    """A conversation, one row a turn, each turn's response trained; `tail` ids stand before every response alone."""
    history = ids(prompt, seed)
    rows = []
    for number in range(num_turns):
        said = ids(response, seed + 1000 + number)
        block = ids(tail, seed + 5000 + number)
        rows.append(all_of(history + block + said, len(history) + tail))
        history += said + ids(observation, seed + 9000 + number)
    return rows


def forked() -> list[Row]:
    """Two endings of one beginning, both trained behind the fork and one of them before it."""
    start = ids(30, 1)
    return [all_of(start + ids(9, 2), 20), all_of(start + ids(14, 3), 30)]


def rewritten() -> list[Row]:
    """Three turns, after which the client shortened the second reply and went on."""
    rows = turns(3, 20, 6, 5)
    kept = rows[1].token_ids[:-4]
    return [*rows, all_of(kept + ids(11, 77), len(kept) + 5), all_of(kept + ids(11, 77) + ids(8, 78), 42)]


def nested() -> list[Row]:
    """Forks below forks, below the first id too."""
    rows = []
    for a in range(2):
        for b in range(3):
            path = ids(18, 4) + ids(4 + a, 10 + a) + ids(7, 20 + 3 * a + b)
            rows += [all_of(path + ids(5, 40 + c), len(path) - 2) for c in range(b + 1)]
    return [*rows, all_of(ids(6, 99), 1)]


def duplicates() -> list[Row]:
    [row] = turns(1, 12, 8, 0)
    return [row, row, Row(token_ids=row.token_ids, positions=row.positions[2:4]), *forked(), row]


SHAPES: dict[str, Callable[[], list[Row]]] = {
    "forks": forked,
    "tails": lambda: turns(5, 20, 4, 6, tail=5),
    "rewritten": rewritten,
    "nested": nested,
    "duplicates": duplicates,
    "growing": lambda: turns(5, 20, 4, 6),
}


def weights_of(rows: Sequence[Row]) -> torch.Tensor:
    """[N] a weight of its own for each trained id, some of them zero, some negative."""
    total = sum(len(row.positions) for row in rows)
    return torch.sin(torch.arange(total) * 1.7).clamp(min=-0.8)


def gradient_of(policy: PolicyModel, rows: Sequence[Row], micros: Sequence[MicroBatch]) -> torch.Tensor:
    """Of the weighted sum of the negative log-probs of all trained ids, each looked up by its slot; one vector."""
    wanted = torch.tensor([row.token_ids[position] for row in rows for position in row.positions])
    weights = weights_of(rows)
    for micro in micros:
        logprobs = (policy(micro) @ policy.head().T).log_softmax(-1)
        taken = logprobs.gather(1, wanted[micro.slots, None])[:, 0]
        torch.autograd.backward(-(weights[micro.slots] * taken).sum())
    flat = torch.cat([parameter.grad.flatten() for parameter in policy.trained.values()])
    for parameter in policy.trained.values():
        parameter.grad = None
    return flat


def gradient_alone(policy: PolicyModel, rows: Sequence[Row]) -> torch.Tensor:
    """The same sum with one row a pass, through the Hugging Face model itself."""
    weights = weights_of(rows)
    at = 0
    for row in rows:
        logits = policy.causal_lm(torch.tensor([row.token_ids]), use_cache=False).logits[0]
        logprobs = logits.log_softmax(-1)
        for position in row.positions:
            term = -weights[at] * logprobs[position - 1, row.token_ids[position]]
            torch.autograd.backward(term, retain_graph=position != row.positions[-1])
            at += 1
    flat = torch.cat([parameter.grad.flatten() for parameter in policy.trained.values()])
    for parameter in policy.trained.values():
        parameter.grad = None
    return flat


def seen_by(micro: MicroBatch) -> dict[int, tuple[int, ...]]:
    """Slot -> the ids, by position, that the hidden state in it can see; read off the mask itself."""
    prefix = micro.prefix.tolist()
    seen = [tuple(prefix[: place + 1]) for place in micro.prefix_gather.tolist()]
    for bucket in micro.buckets:
        width = bucket.rest.shape[1]
        for place in bucket.gather.tolist():
            rest = bucket.rest[place // width].tolist()
            if bucket.reads is None or bucket.ends is None or bucket.depths is None:
                seen.append((*prefix, *rest[: place % width + 1]))
                continue
            mask = visible(bucket.reads, bucket.ends, len(prefix))[place].tolist()
            at = [*range(len(prefix)), *bucket.depths.tolist()]
            known = [(at[i], value) for i, value in enumerate([*prefix, *rest]) if mask[i]]
            assert [position for position, _ in known] == list(range(len(known)))
            seen.append(tuple(value for _, value in known))
    return dict(zip(micro.slots.tolist(), seen, strict=True))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_tree_has_the_gradient_of_one_row_a_turn(model_path: Path, shape: str, attention: str) -> None:
    policy, rows = load(model_path), SHAPES[shape]()
    assert policy.shares_prefix == "tree"
    policy.causal_lm.set_attn_implementation(attention)
    expected = gradient_alone(policy, rows)
    scale = float(expected.abs().max())

    for micros in (
        [as_tree(rows)],
        pack(rows, max_tokens=8192),
        pack(rows, max_tokens=8192, share="prefix"),
        pack(rows, max_tokens=60, pairs_per_id=1e9),
        pack(rows, max_tokens=8192, share="none"),
    ):
        difference = gradient_of(policy, rows, micros) - expected
        assert float(difference.abs().max()) < 1e-5 * scale


def test_llama_reads_the_trees_mask_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    policy, rows = load(tmp_path), nested()
    assert policy.shares_prefix == "tree"

    for attention in ("sdpa", "eager"):
        policy.causal_lm.set_attn_implementation(attention)
        expected = gradient_alone(policy, rows)
        difference = gradient_of(policy, rows, [as_tree(rows)]) - expected
        assert float(difference.abs().max()) < 1e-5 * float(expected.abs().max())


def test_a_model_with_sliding_windows_shares_nothing(tmp_path: Path) -> None:
    config = MistralConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        sliding_window=64,
    )
    MistralForCausalLM(config).save_pretrained(tmp_path)

    assert load(tmp_path).shares_prefix == "none"


def test_a_model_that_forgets_the_mask_falls_back_to_prefixes(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agentrl.learner import model

    causal = torch.ones(1, 1, 512, 512, dtype=torch.bool).tril()
    monkeypatch.setattr(
        model,
        "tree_mask",
        lambda _, ends, prefix, __: causal[..., prefix:, :][..., : len(ends), : prefix + len(ends)],
    )

    assert load(model_path).shares_prefix == "prefix"


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_gives_the_hidden_states_of_the_written_out_mask(model_path: Path) -> None:
    policy = load(model_path)
    for rows in (nested(), turns(6, 150, 8, 9, tail=7), turns(4, 30, 5, 5)):
        for micro in (as_tree(rows), *pack(rows, max_tokens=8192)):
            with torch.no_grad():
                expected = policy(micro)
                policy.causal_lm.set_attn_implementation(FLEX_ATTENTION)
                found = policy(micro)
                policy.causal_lm.set_attn_implementation("sdpa")
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_tree_has_the_gradient_of_one_row_a_turn(model_path: Path) -> None:
    policy = load_policy(model_path, device="cuda", precision="fp32", lora_rank=0, seed=0)
    results = []
    for share in ("tree", "none"):
        rows = nested()
        micros = [as_tree(rows)] if share == "tree" else pack(rows, max_tokens=8192, share="none")
        for micro in micros:
            here = micro.to(policy.device)
            (policy(here).sin().T * weights_of(rows).cuda()[here.slots]).sum().backward()
        results.append(torch.cat([parameter.grad.flatten() for parameter in policy.trained.values()]))
        for parameter in policy.trained.values():
            parameter.grad = None
    assert float((results[0] - results[1]).abs().max()) < 1e-4 * float(results[1].abs().max())


def test_bf16_trees_stay_close_to_fp32(model_path: Path) -> None:
    policy, rows = load(model_path), nested()
    micro = as_tree(rows)
    exact = policy(micro)
    set_precision(policy, "bf16")

    rough = policy(micro)

    difference = ((rough - exact) @ policy.head().T).detach().abs()
    assert 0 < float(difference.mean()) < 0.1


def test_a_tree_is_written_depth_first_with_the_end_of_each_ids_descendants() -> None:
    rows = [
        Row(token_ids=(1, 2, 3, 4, 5, 5, 0), positions=(2, 6)),
        Row(token_ids=(1, 2, 3, 7, 8, 0), positions=(5,)),
        Row(token_ids=(1, 2, 3, 7, 9, 0), positions=(4, 5)),
        Row(token_ids=(1, 6, 0), positions=(1, 2)),
    ]

    [branches] = branches_of(paths_of(rows), [3, 4, 1], 0, max_mask=1000)

    assert branches.token_ids == (7, 8, 9, 6)
    assert branches.depths == (3, 4, 4, 1)
    assert branches.reads == (3, 3, 3, 1)
    assert branches.ends == (3, 2, 3, 4)
    assert branches.gather == (1, 0, 2, 3)
    assert branches.slots == (2, 3, 4, 6)  # the others are read off the trunk
    assert visible(torch.tensor(branches.reads), torch.tensor(branches.ends), 6).int().tolist() == [
        [1, 1, 1, 0, 0, 0, 1, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 1, 1, 0, 0],
        [1, 1, 1, 0, 0, 0, 1, 0, 1, 0],
        [1, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    ]


def test_the_same_turn_twice_is_computed_once_and_wanted_twice() -> None:
    row = Row(token_ids=(5, 6, 7, 8), positions=(2, 3))

    [path] = paths_of([row, row])

    assert path.token_ids == (5, 6, 7)
    assert sorted(zip(path.slots, path.places, strict=True)) == [(0, 1), (1, 2), (2, 1), (3, 2)]


@given(a=st.lists(st.integers(0, 1), max_size=12), b=st.lists(st.integers(0, 1), max_size=12))
def test_the_common_prefix_ends_where_the_first_difference_stands(a: list[int], b: list[int]) -> None:
    length = common(tuple(a), tuple(b))

    assert a[:length] == b[:length]
    assert length in (len(a), len(b)) or a[length] != b[length]


@st.composite
def tries(draw: st.DrawFn) -> list[Row]:
    """Rows that each go on from a random place of an earlier one, or start anew."""
    rows: list[Row] = []
    for _ in range(draw(st.integers(1, 9))):
        start: tuple[int, ...] = ()
        if rows:
            parent = draw(st.sampled_from(rows)).token_ids
            start = parent[: draw(st.integers(0, len(parent)))]
        own = draw(st.lists(st.integers(0, 3), min_size=max(0, 2 - len(start)), max_size=25))
        token_ids = start + tuple(own)
        places = draw(st.sets(st.integers(1, len(token_ids) - 1), min_size=1, max_size=5))
        rows.append(Row(token_ids=token_ids, positions=tuple(sorted(places))))
    return rows


@given(
    rows=tries(),
    max_tokens=st.integers(1, 120),
    share=st.sampled_from(["none", "prefix", "tree"]),
    pairs_per_id=st.sampled_from([1.0, 100.0, 1e9]),
)
@settings(max_examples=300, deadline=None)
def test_on_any_tree_every_trained_id_is_predicted_once_from_exactly_the_ids_before_it(
    rows: list[Row], max_tokens: int, share: Sharing, pairs_per_id: float
) -> None:
    expected = dict(enumerate(row.token_ids[:p] for row in rows for p in row.positions))
    found: dict[int, tuple[int, ...]] = {}
    for micro in pack(rows, max_tokens=max_tokens, share=share, pairs_per_id=pairs_per_id):
        part = seen_by(micro)
        assert not found.keys() & part.keys()
        found |= part

    assert found == expected
    assert seen_by(as_tree(rows)) == seen_by(as_tree(rows, max_mask=40)) == expected


@given(rows=tries())
@settings(max_examples=200, deadline=None)
def test_one_tree_computes_each_beginning_once(rows: list[Row]) -> None:
    beginnings = {row.token_ids[:end] for row in rows for end in range(1, row.positions[-1] + 1)}

    assert as_tree(rows).num_ids == len(beginnings)


@given(rows=tries(), max_tokens=st.integers(1, 120))
@settings(max_examples=200, deadline=None)
def test_a_micro_batch_has_no_more_ids_than_the_limit_or_the_longest_row(
    rows: list[Row], max_tokens: int
) -> None:
    longest = max(row.positions[-1] for row in rows)
    for micro in pack(rows, max_tokens=max_tokens, pairs_per_id=1e9):
        assert micro.num_ids <= max(max_tokens, longest)


@pytest.mark.parametrize(
    ("num_turns", "prompt", "response", "observation", "distinct", "ratio"),
    [
        (10, 2000, 300, 500, 9_500, 6.2),
        (50, 6000, 250, 1200, 77_300, 27.0),
        (100, 8000, 250, 1200, 151_800, 52.7),
    ],
)
def test_a_conversation_of_n_turns_is_computed_once(
    num_turns: int, prompt: int, response: int, observation: int, distinct: int, ratio: float
) -> None:
    rows = turns(num_turns, prompt, response, observation)
    in_rows = sum(prompt + number * (response + observation) + response for number in range(num_turns))
    assert in_rows == sum(len(row.token_ids) for row in rows)

    micros = pack(rows, max_tokens=8192)

    # all ids of the conversation but the last, which predicts nothing
    assert sum(micro.num_ids for micro in micros) == distinct - 1
    assert in_rows / distinct >= ratio
    assert sorted(slot for micro in micros for slot in micro.slots.tolist()) == list(
        range(num_turns * response)
    )


def test_branches_with_too_large_a_mask_are_written_in_several_sequences(model_path: Path) -> None:
    rows = turns(8, 40, 5, 5, tail=6)
    policy = load(model_path)
    whole, parts = as_tree(rows), as_tree(rows, max_mask=3000)

    assert len(whole.buckets) == 1
    assert len(parts.buckets) > 1
    assert parts.num_ids == whole.num_ids  # no branch has a fork, so nothing is repeated
    for bucket in parts.buckets:
        assert bucket.rest.numel() * (len(parts.prefix) + bucket.rest.numel()) <= 3000
    one, other = (gradient_of(policy, rows, [micro]) for micro in (whole, parts))
    assert float((one - other).abs().max()) < 1e-5 * float(one.abs().max())


def test_a_rewritten_conversation_forks_and_does_not_repeat() -> None:
    before = turns(10, 2000, 300, 500)
    history = before[-1].token_ids
    cut = 2000 + 8 * 800  # the client replaced everything behind the eighth turn
    after = [all_of(history[:cut] + ids(400 + 800 * k, 7 + k), cut + 100 + 800 * k) for k in range(2)]
    after[1] = all_of(after[0].token_ids + ids(800, 9), cut + 900)

    computed = sum(micro.num_ids for micro in pack(before + after, max_tokens=20_000))

    assert computed == len(history) - 1 + len(after[1].token_ids) - 1 - cut


def test_blocks_at_the_tail_of_every_turn_are_branches_of_one_trunk() -> None:
    rows = turns(10, 1000, 60, 100, tail=40)

    computed = sum(micro.num_ids for micro in pack(rows, max_tokens=8192))

    trunk = 1000 + 9 * 160
    assert computed == trunk + 10 * (40 + 60 - 1)
    assert sum(len(row.token_ids) for row in rows) / computed > 5


def test_many_short_turns_behind_a_preamble_stay_in_buckets() -> None:
    rows = [all_of(ids(40, 1) + ids(60, 100 + number), 80) for number in range(16)]

    [micro] = pack(rows, max_tokens=8192, pairs_per_id=250.0)

    assert len(micro.prefix) == 40
    assert [tuple(bucket.rest.shape) for bucket in micro.buckets] == [(16, 59)]
    assert micro.buckets[0].ends is None


def test_a_tree_that_is_too_large_is_cut_into_trees_that_repeat_their_root() -> None:
    rows = turns(12, 100, 20, 30, tail=10)  # the longest has 680 ids
    everything = as_tree(rows).num_ids

    micros = pack(rows, max_tokens=400, pairs_per_id=1e9)

    assert len(micros) > 1
    longest = max(len(row.token_ids) for row in rows)
    assert all(micro.num_ids <= longest for micro in micros)
    assert sum(micro.num_ids for micro in micros) <= everything + (len(micros) - 1) * longest


def samples_of(rows: Sequence[Row], blocks: Sequence[tuple[int, tuple[int, ...]]]) -> list[TrainingSample]:
    """A sample a turn, whose teacher reads the turn's block (place, ids) inserted before that place."""
    return [
        TrainingSample(
            turn_ids=(f"t{number}",),
            token_ids=row.token_ids,
            loss_mask=tuple(place in row.positions for place in range(len(row.token_ids))),
            behavior_logprobs=None,
            num_allowed=None,
            advantages=None,
            teacher=TeacherView(
                token_ids=row.token_ids[:place] + block + row.token_ids[place:],
                inserted_spans=((place, place + len(block)),),
            ),
        )
        for number, (row, (place, block)) in enumerate(zip(rows, blocks, strict=True))
    ]


@pytest.mark.parametrize(
    ("position", "computed"),
    [
        ("tail", 100 + 5 * 30 + 6 * (8 + 10 - 1)),  # one trunk and a branch a turn
        ("equal for all", 8 + 100 + 5 * 30 + 10 - 1),  # the same block at the front: one path
        (
            "other",
            6 * (8 + 100 + 10 - 1) + 30 * 15 + 120,
        ),  # blocks of their own at the front: rows, 120 ids padded
    ],
)
def test_a_step_tells_what_was_shared_of_the_policys_and_the_teachers_pass(
    model_path: Path, position: str, computed: int
) -> None:
    rows = turns(6, 100, 10, 20)
    blocks = {
        "tail": [(row.positions[0], (58 + number, *ids(7, number))) for number, row in enumerate(rows)],
        "equal for all": [(1, ids(8, 1)) for _ in rows],
        "other": [(0, (50 + number, *ids(7, 50 + number))) for number in range(6)],
    }[position]
    recipe = load_recipe("hint_opsd", {"batch.micro_tokens": 300})
    trainer = Trainer(model_path, recipe, LearnConfig(precision="fp32", lora_rank=0))

    metrics = trainer.step(samples_of(rows, blocks)).metrics

    assert metrics["num_policy_ids_in_rows"] == sum(len(row.token_ids) - 1 for row in rows)
    assert metrics["num_policy_ids_computed"] == 100 + 5 * 30 + 10 - 1
    assert metrics["policy_prefix_sharing"] == pytest.approx(1104 / 259)
    assert metrics["num_teacher_ids_in_rows"] == sum(len(row.token_ids) + 8 - 1 for row in rows)
    assert metrics["num_teacher_ids_computed"] == computed


def test_larger_bodies_pay_less_for_attention(tmp_path: Path, model_path: Path) -> None:
    wide = load(write_model(tmp_path, hidden_size=64, intermediate_size=256))

    # 2 layers of [heads 4 x 8]: q and o 64x32 each, k and v 64x16 each, three of 64x256, norms 2x64 + 2x8; last norm 64
    per_layer = 2 * 64 * 32 + 2 * 64 * 16 + 3 * 64 * 256 + 2 * 64 + 2 * 8
    assert wide.pairs_per_id == (2 * per_layer + 64) / (2 * 2 * 4 * 8)
    assert wide.pairs_per_id > load(model_path).pairs_per_id
    set_precision(wide, "bf16")  # attention is written out then
    assert wide.pairs_per_id == (2 * per_layer + 64) / (2 * 2 * 4 * 8) / 6
