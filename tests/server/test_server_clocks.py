"""Times that people read have one form, which says their zone."""

from datetime import datetime

from server.clocks import clock, with_clocks

AT = 1_763_700_000.0


def test_a_time_is_told_to_the_second_with_its_zone() -> None:
    told = datetime.fromisoformat(clock(AT + 0.4))

    assert told.timestamp() == AT
    assert told.tzinfo is not None


def test_in_nested_data_what_is_named_a_time_is_told_and_nothing_else() -> None:
    data = {"turn": {"received_at": AT, "latency_s": 0.5}, "steps": [{"created_at": AT}], "claimed_at": None}

    assert with_clocks(data) == {
        "turn": {"received_at": clock(AT), "latency_s": 0.5},
        "steps": [{"created_at": clock(AT)}],
        "claimed_at": None,
    }
