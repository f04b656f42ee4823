from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from agentrl.text.linear import Linear, hashed
from bench.linear import fit


def make_linear() -> Linear:
    weights = np.zeros((4, 2), np.int8)
    weights[crc32(b"yes") & 3] = (100, -100)
    return Linear(
        labels=("good", "bad"),
        weights=weights,
        scale=np.array([0.01, 0.01], np.float32),
        bias=np.array([0.0, 0.0], np.float32),
        trained_on="abc",
    )


def test_without_a_feature_the_bias_alone_decides() -> None:
    assert make_linear().probabilities([]) == {"good": 0.5, "bad": 0.5}


def test_a_feature_weighs_what_its_bucket_and_its_value_say_and_a_name_twice_counts_twice() -> None:
    once = make_linear().probabilities([(1.0, ["yes"])])
    twice = make_linear().probabilities([(1.0, ["yes", "yes"])])

    assert once["good"] == pytest.approx(1 / (1 + np.exp(-2)), abs=1e-6)
    assert twice["good"] == pytest.approx(1 / (1 + np.exp(-4)), abs=1e-6)


def test_a_name_goes_to_the_bucket_of_its_hash() -> None:
    buckets, values = hashed([(0.5, ["a", "b"]), (2.0, ["a"])], 8)

    assert buckets.tolist() == [crc32(b"a") % 8, crc32(b"b") % 8, crc32(b"a") % 8]
    assert values.tolist() == [0.5, 0.5, 2.0]


def test_what_was_written_is_read_again_and_the_same_weights_are_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    path.write_bytes(make_linear().to_bytes())

    again = Linear.load(path)

    assert (again.labels, again.trained_on) == (("good", "bad"), "abc")
    assert again.to_bytes() == make_linear().to_bytes()


def test_what_is_no_file_of_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.npz").write_text("nothing")

    with pytest.raises(ValueError, match="pickle"):
        Linear.load(tmp_path / "weights.npz")


@pytest.mark.parametrize("kept", [0, 100, 300])
def test_a_file_cut_off_is_refused_as_no_weights(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "weights.npz"
    path.write_bytes(make_linear().to_bytes()[:kept])

    with pytest.raises(ValueError, match=r"weights\.npz holds no weights"):
        Linear.load(path)


def test_a_row_that_counts_thrice_trains_as_three_of_it_would() -> None:
    no, yes = [(1.0, ["no"])], [(1.0, ["yes"])]
    names = ["bad", "good"]

    once = fit([no, yes], names, names, num_buckets=64, penalty=0.1, weights_of=[3.0, 1.0])
    thrice = fit([no, no, no, yes], ["bad", "bad", "bad", "good"], names, num_buckets=64, penalty=0.1)

    for row in (no, yes):
        assert once.probabilities(row)["bad"] == pytest.approx(thrice.probabilities(row)["bad"], abs=0.01)
    assert once.probabilities([])["bad"] > 0.6


def test_training_learns_the_names_that_part_the_labels() -> None:
    rows = [[(1.0, ["no", "thing"])], [(1.0, ["yes", "thing"])]] * 5

    trained = fit(rows, ["bad", "good"] * 5, ["bad", "good"], num_buckets=64, penalty=0.1)

    assert trained.probabilities([(1.0, ["no"])])["bad"] > 0.9
    assert trained.probabilities([(1.0, ["yes"])])["good"] > 0.9
    assert trained.probabilities([(1.0, ["thing"])])["good"] == pytest.approx(0.5, abs=0.01)
