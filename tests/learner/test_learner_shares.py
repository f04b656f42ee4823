import math
import random

import pytest

from agentrl.learner.shares import Cap, capped


def parts(masses: list[float], owners: str, factors: list[float]) -> dict[str, float]:
    whole = math.fsum(mass * factor for mass, factor in zip(masses, factors, strict=True))
    found: dict[str, float] = {}
    for owner, mass, factor in zip(owners, masses, factors, strict=True):
        found[owner] = found.get(owner, 0.0) + mass * factor / whole
    return found


def test_a_loud_owner_is_scaled_down_to_its_share_of_what_is_left() -> None:
    # 10 of 12: with the others' 2 unscaled, half of the whole is 2 as well
    factors = capped([1.0] * 12, [Cap(owners="aaaaaaaaaabc", share=0.5)])

    assert factors[:10] == [pytest.approx(0.2)] * 10
    assert factors[10:] == [1.0, 1.0]


def test_who_is_within_its_share_keeps_its_weight_to_the_bit() -> None:
    assert capped([0.3, 0.7, 0.5], [Cap(owners="aba", share=0.6)]) == [1.0, 1.0, 1.0]


def test_who_is_alone_has_the_whole_update() -> None:
    assert capped([1.0] * 3, [Cap(owners="aaa", share=0.25)]) == [1.0, 1.0, 1.0]


def test_of_two_owners_each_has_half_whatever_smaller_share_was_asked_for() -> None:
    assert parts([1.0] * 8, "aaaaaaab", capped([1.0] * 8, [Cap(owners="aaaaaaab", share=0.1)])) == {
        "a": pytest.approx(0.5),
        "b": pytest.approx(0.5),
    }


def test_two_caps_hold_together_where_they_can() -> None:
    masses = [1.0] * 12
    sessions, keys = "aaaaaabbccdd", "xxxxxxxxyyyy"
    factors = capped(masses, [Cap(owners=sessions, share=0.3), Cap(owners=keys, share=0.55)])

    assert max(parts(masses, sessions, factors).values()) <= 0.3 + 1e-6
    assert max(parts(masses, keys, factors).values()) <= 0.55 + 1e-6


def test_caps_that_exclude_each_other_leave_no_weight_near_zero() -> None:
    # all of key x is session a: x needs a half, a may have .4
    factors = capped([1.0] * 9, [Cap(owners="aaaaaabcd", share=0.4), Cap(owners="xxxxxxyyy", share=0.5)])

    assert min(factors) > 0.1
    assert parts([1.0] * 9, "xxxxxxyyy", factors)["x"] <= 0.5 + 1e-9


def test_no_owner_exceeds_its_share_of_any_random_update() -> None:
    draw = random.Random(3)
    for _ in range(300):
        owners = "".join(draw.choices("abcdefg", weights=[9, 4, 2, 1, 1, 1, 1], k=draw.randint(1, 30)))
        masses = [draw.uniform(0.1, 40.0) for _ in owners]
        share = draw.uniform(0.15, 1.0)
        allowed = max(share, 1 / len(set(owners)))
        factors = capped(masses, [Cap(owners=owners, share=share)])
        assert max(parts(masses, owners, factors).values()) <= allowed + 1e-6
        assert all(0 < factor <= 1 for factor in factors)


def test_a_missing_owner_is_an_error_with_both_lengths() -> None:
    with pytest.raises(ValueError, match="1 owners for 2 samples"):
        capped([1.0, 1.0], [Cap(owners="a", share=0.5)])
