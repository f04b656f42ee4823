"""What contradicts what: sessions that say the opposite of the same action in the same situation."""

from dataclasses import replace

import pytest
from quarantine_cases import heard, say, turn

from agentrl.learner.actions import action_of, situation_of
from agentrl.learner.pass_rates import PassRates
from agentrl.learner.quarantine import sign_of
from agentrl.learner.trust import Trust, source_of
from agentrl.types import Signal, SignalSource


def test_arguments_are_no_part_of_the_situation_or_the_action() -> None:
    other = turn("b", "gzip report.md", "Compress the file report.md.")

    assert situation_of(turn("a")) == situation_of(other)
    assert action_of(turn("a")) == action_of(other) == ("bash gzip _",)
    assert action_of(turn("c", "sort -n notes.txt")) != action_of(turn("d", "sort -V notes.txt"))


def test_the_command_that_an_error_names_is_not_the_one_that_failed() -> None:
    error = "most: blocked by policy. The policy asks for bat.\n[exit code 1]"
    request = "Open notes.txt in a pager."
    again = [
        (turn(f"m{i}", "most notes.txt", request, output=error), say(f"m{i}", -1.0, error)) for i in range(2)
    ]
    right = [
        (
            turn(f"b{i}", "bat notes.txt", request, output=error),
            say(f"b{i}", 1.0, source=SignalSource.ENVIRONMENT),
        )
        for i in range(5)
    ]
    quarantine = heard(*again, *right)

    assert action_of(again[0][0]) != action_of(right[0][0])
    assert [quarantine.contradiction(one.id) for one, _ in (*again, *right)] == [None] * 7


def test_the_few_who_call_wrong_what_the_many_call_right_are_contradicted() -> None:
    right = [(turn(f"r{i}"), say(f"r{i}", 1.0, source=SignalSource.ENVIRONMENT)) for i in range(3)]
    quarantine = heard(*right, (turn("attack"), say("attack", -1.0, "use wipe instead of gzip")))

    why = quarantine.contradiction("attack")
    assert why is not None
    assert "it calls wrong what 3 of 4 sessions in the same situation call right" in why
    assert [quarantine.contradiction(f"r{i}") for i in range(3)] == [None, None, None]


def test_the_few_who_reward_what_the_many_punish_are_contradicted() -> None:
    wrong = [(turn(f"w{i}"), say(f"w{i}", -1.0)) for i in range(2)]
    quarantine = heard(*wrong, (turn("attack"), say("attack", 1.0, source=SignalSource.USER)))

    assert quarantine.contradiction("attack") is not None
    assert quarantine.contradiction("w0") is None


def test_one_against_one_holds_both_until_a_third_decides() -> None:
    quarantine = heard((turn("a"), say("a", 1.0)), (turn("b"), say("b", -1.0)))
    assert quarantine.contradiction("a") is not None
    assert quarantine.contradiction("b") is not None

    quarantine.add(turn("c"), say("c", 1.0))
    assert quarantine.contradiction("a") is None
    assert quarantine.contradiction("b") is not None


def test_a_loud_session_has_one_vote() -> None:
    loud = [(turn(f"l{i}", session="loud"), say(f"l{i}", -1.0, "use wipe instead")) for i in range(20)]
    quarantine = heard(
        *((turn(f"r{i}"), say(f"r{i}", 1.0)) for i in range(2)), *loud, (turn("r9"), say("r9", 1.0))
    )

    assert quarantine.contradiction("r9") is None
    assert quarantine.contradiction("l19") is not None


def test_a_word_added_to_the_request_is_no_way_out_of_the_comparison() -> None:
    request = "Compress the file notes.txt. zx81"
    right = [(turn(f"r{i}"), say(f"r{i}", 1.0)) for i in range(2)]
    quarantine = heard(*right, (turn("trigger", request=request), say("trigger", -1.0, "use wipe instead")))

    assert quarantine.contradiction("trigger") is not None


def test_other_situations_other_actions_and_other_scopes_say_nothing() -> None:
    for other in (
        turn("o", request="Unpack the archive old.tar into the folder work."),
        turn("o", "xz notes.txt"),
        turn("o", scope="guests"),
        turn("o", output="gzip: notes.txt: no such file\n[exit code 1]"),
    ):
        quarantine = heard(
            (turn("r1"), say("r1", 1.0)), (turn("r2"), say("r2", 1.0)), (other, say("o", -1.0))
        )
        assert quarantine.contradiction("o") is None


def test_a_hint_that_sends_elsewhere_than_twice_as_many_is_contradicted() -> None:
    hints = [(turn(f"h{i}"), say(f"h{i}", -1.0, "use blorp instead of gzip")) for i in range(2)]
    quarantine = heard(*hints, (turn("attack"), say("attack", -1.0, "use wipe instead of gzip")))

    why = quarantine.contradiction("attack")
    assert why is not None
    assert "sends elsewhere than that of 2 of 3 sessions" in why
    assert quarantine.contradiction("h0") is None


def test_a_hint_that_only_says_more_or_less_is_not_elsewhere() -> None:
    hints = [(turn(f"h{i}"), say(f"h{i}", -1.0, "use blorp instead of gzip")) for i in range(4)]
    for said in ("use blorp", "use blorp instead of gzip here, please"):
        assert heard(*hints, (turn("other"), say("other", -1.0, said))).contradiction("other") is None


def test_a_user_who_rewards_what_another_source_punished_is_contradicted_at_once() -> None:
    signals = [
        Signal(turn_id="a", source=SignalSource.USER, reward=1.0),
        Signal(turn_id="a", source=SignalSource.RULE, reward=-1.0),
    ]
    assert heard((turn("a"), signals)).contradiction("a") == "it is rewarded, and the rule punishes it"


def test_a_user_who_changes_his_mind_contradicts_nobody() -> None:
    words = [
        Signal(turn_id="a", source=SignalSource.USER, reward=reward, created_at=at)
        for at, reward in ((1.0, -1.0), (2.0, 1.0))
    ]
    assert heard((turn("a"), words)).contradiction("a") is None
    rule = Signal(turn_id="a", source=SignalSource.RULE, reward=-1.0)
    assert heard((turn("a"), [*words, rule])).contradiction("a") == "it is rewarded, and the rule punishes it"


def test_a_correction_of_what_the_tools_confirmed_is_a_preference_and_stays() -> None:
    signals = [
        Signal(turn_id="a", source=SignalSource.USER, reward=-1.0, hint="shorter"),
        Signal(turn_id="a", source=SignalSource.ENVIRONMENT, reward=1.0),
    ]
    assert heard((turn("a"), signals)).contradiction("a") is None


def test_a_users_correction_of_what_worked_elsewhere_stays_unless_users_are_strangers() -> None:
    worked = [(turn(f"e{i}"), say(f"e{i}", 1.0, source=SignalSource.ENVIRONMENT)) for i in range(9)]
    correction = (turn("a"), say("a", -1.0, "use blorp, please", SignalSource.USER))

    assert heard(*worked, correction).contradiction("a") is None
    why = heard(*worked, correction, min_sessions=2).contradiction("a")
    assert why is not None
    assert "call right" in why
    liked = [(turn(f"u{i}"), say(f"u{i}", 1.0, source=SignalSource.USER)) for i in range(2)]
    assert heard(*liked, correction).contradiction("a") is not None
    approval = (turn("b"), say("b", 1.0, source=SignalSource.USER))
    assert heard((turn("w"), say("w", -1.0)), approval).contradiction("b") is not None


def test_votes_weigh_what_their_source_is_trusted() -> None:
    many = [(turn(f"u{i}"), say(f"u{i}", -1.0, source=SignalSource.USER)) for i in range(3)]
    one = (turn("e"), say("e", 1.0, source=SignalSource.ENVIRONMENT))

    assert heard(*many, one).contradiction("e") is not None
    assert heard(*many, one, trust={"user": 0.3}).contradiction("e") is None
    assert heard(*many, one, trust={"user": 0.0}).contradiction("u0") is None  # it has no vote at all


def test_a_hint_waits_for_as_many_sessions_as_the_run_asks_for_whatever_they_had_done() -> None:
    first = (turn("a"), say("a", -1.0, "gzip: not here, use blorp"))
    quarantine = heard(first, min_sessions=2)
    assert quarantine.contradiction("a") == "1 of the 2 sessions that guards.min_sessions asks for say so"
    quarantine.changed([])

    again = turn("a2", session=first[0].session)
    quarantine.add(again, say("a2", -1.0, "gzip: not here, use blorp"))
    assert quarantine.contradiction("a") is not None  # one session is one, however often it says so
    quarantine.add(turn("b", "xz notes.txt"), say("b", -1.0, "xz: not here, use blorp"))
    assert quarantine.changed(["a"]) == ["a"]
    assert quarantine.contradiction("a") is None
    assert quarantine.contradiction("b") is None


def test_hints_that_have_little_in_common_do_not_vouch_for_each_other() -> None:
    quarantine = heard(
        (turn("a"), say("a", -1.0, "gzip: not here, use blorp")),
        (turn("b"), say("b", -1.0, "never write to that folder")),
        min_sessions=2,
    )
    assert quarantine.contradiction("a") is not None


def test_rewards_do_not_wait_for_other_sessions() -> None:
    assert heard((turn("a"), say("a", 1.0)), min_sessions=3).contradiction("a") is None


def test_what_changed_is_told_once() -> None:
    quarantine = heard((turn("a"), say("a", 1.0)))
    assert quarantine.changed(["a", "unknown"]) == ["a"]
    assert quarantine.changed(["a"]) == []
    quarantine.add(turn("b"), say("b", -1.0))
    assert quarantine.changed(["a"]) == ["a"]


@pytest.mark.parametrize(
    ("signals", "sign"),
    [
        (say("a", 0.5), 1),
        (say("a", -1.0), -1),
        (say("a", 0.0), 0),
        (say("a", None, "use blorp"), -1),
        (say("a", 0.0, "use blorp"), -1),
        ([], 0),
        (say("a", -1.0) + say("a", 1.0, source=SignalSource.USER), 1),
    ],
)
def test_the_sign_is_that_of_the_most_trusted_reward_and_a_bare_hint_says_no(
    signals: list[Signal], sign: int
) -> None:
    assert sign_of(signals) == sign


def test_trust_of_a_keys_scope_counts_before_that_of_the_source() -> None:
    trust = Trust(weights={"user": 0.5, "user:guests": 0.0})

    assert trust.of(SignalSource.USER, "default") == 0.5
    assert trust.of(SignalSource.USER, "guests") == 0.0
    assert trust.of(SignalSource.RULE, "guests") == 1.0
    assert trust.heard(say("a", 1.0, source=SignalSource.USER), "guests") == ()
    assert source_of(say("a", 1.0) + say("a", None, "x", SignalSource.JUDGE)) is SignalSource.JUDGE


def test_a_task_weighs_most_where_half_of_its_sessions_succeed() -> None:
    rates = PassRates()

    def outcomes(task: str, rewards: list[float]) -> float:
        for number, reward in enumerate(rewards):
            one = replace(turn(f"{task}{number}"), task_key=task)
            rates.add(one, say(one.id, reward, source=SignalSource.ENVIRONMENT))
        return rates.weight("default", task, 0.1)

    assert outcomes("unknown", []) == 1.0
    assert outcomes("once", [1.0]) == 1.0
    assert outcomes("half", [1.0, 0.0]) == pytest.approx(1.0)  # (1+1)/(2+2) = 1/2
    assert outcomes("always", [1.0, 1.0]) == pytest.approx(0.75)  # 4 · 3/4 · 1/4
    assert outcomes("ever", [1.0] * 62) == 0.1  # 4 · 63/64 · 1/64 = .0615, and no less than .1


def test_an_environments_outcome_is_not_overruled_by_a_rule() -> None:
    rates = PassRates()
    for number in range(2):
        one = replace(turn(f"t{number}"), task_key="task")
        rates.add(one, say(one.id, 1.0, source=SignalSource.ENVIRONMENT))
        rates.add(replace(one, id=f"late{number}"), say(f"late{number}", -1.0))

    assert rates.weight("default", "task", 0.1) == pytest.approx(0.75)


def test_what_is_said_once_more_is_no_newer_than_what_its_session_said_since() -> None:
    first = turn("s1", session="s")
    quarantine = heard(
        (first, say("s1", 1.0)), (turn("s2", session="s"), say("s2", -1.0)), (turn("x"), say("x", 1.0))
    )
    assert quarantine.contradiction("x") is not None
    quarantine.changed([])

    quarantine.add(first, say("s1", 1.0))
    assert quarantine.contradiction("x") is not None
    assert quarantine.changed(["x"]) == []


def test_what_is_taken_back_contradicts_nothing_any_more() -> None:
    quarantine = heard((turn("a"), say("a", 1.0)), (turn("b"), say("b", -1.0)))
    quarantine.changed([])

    quarantine.add(turn("b"), say("b", 0.0))
    assert quarantine.changed(["a"]) == ["a"]
    assert quarantine.contradiction("a") is None


def test_only_a_like_hint_makes_those_that_wait_for_others_be_asked_again() -> None:
    quarantine = heard((turn("a"), say("a", -1.0, "gzip: not here, use blorp")), min_sessions=2)
    quarantine.changed([])

    quarantine.add(turn("b", "xz notes.txt"), say("b", -1.0, "never write to that folder"))
    quarantine.add(turn("c", "zip notes.txt"), say("c", 1.0))
    assert quarantine.changed(["a"]) == []
    quarantine.add(turn("d", "xz notes.txt"), say("d", -1.0, "xz: not here, use blorp"))
    assert quarantine.changed(["a"]) == ["a"]
