"""Which served versions learned a lesson, hold it, and broke it."""

from store_samples import gated, hinted, lesson

from agentrl.store.version_log import Probe
from agentrl.types import LessonState, VersionState

APPROVED = LessonState.APPROVED


async def test_a_lesson_knows_the_served_versions_that_hold_it_and_those_that_broke_it(log, learning) -> None:
    learning.add_lessons([lesson("L1", APPROVED, probe={"turn_id": "t1", "names": ["zorp"]})])
    for number, passed, state in (
        (1, False, VersionState.SERVING),
        (2, True, VersionState.SERVING),
        (3, False, VersionState.REJECTED),
        (4, True, VersionState.SERVING),
        (5, False, VersionState.SERVING),
    ):
        gated(learning, number, state=state)
        learning.record_probe("default", number, Probe(name="lesson L1", passed=passed))
    learning.record_probe("default", 4, Probe(name="held_out", passed=False))

    [found] = learning.lessons()

    assert (found.held_by, found.broken_by) == ((2, 4), (5,)), "1 came before it was learned, 3 never served"
    assert learning.num_probed() == {"L1": 5}
    learning.record_probe("default", 5, Probe(name="lesson L1", passed=True))
    assert learning.lessons()[0].broken_by == (), "of one version the newest result stands"


async def test_a_version_that_loses_what_was_never_to_be_learned_has_broken_it(log, learning) -> None:
    learning.add_lessons([lesson("L1", APPROVED, probe={"turn_id": "t1", "names": []})])
    results = ((1, None, 0.9), (2, False, 0.49), (3, None, 0.8), (4, False, 0.5), (5, False, 0.1))
    for number, passed, score in results:
        gated(learning, number, state=VersionState.SERVING)
        probe = Probe(name="lesson L1", passed=passed, score=score, held_out=number > 4)
        learning.record_probe("default", number, probe)

    [found] = learning.lessons()

    assert (found.held_by, found.without_effect, found.broken_by) == ((), (1, 3), (2, 5)), "4 lost too little"
    [first], [last] = learning.probes("default", 1), learning.probes("default", 5)
    assert (first.passed, first.score, first.held_out) == (None, 0.9, False)
    assert (last.held_out, found.is_apart) == (True, True)


async def test_the_versions_that_learned_a_lesson_are_those_that_serve_or_served(log, learning) -> None:
    for name in ("t1", "t2", "t3"):
        await hinted(log, name, "use zorp")
    learning.configure(needs="hint", approve="auto")
    learning.add_lessons([lesson(state=APPROVED)])
    for number, name, metrics, state in (
        (1, "t1", {"hints_from": {"t1": "t9"}}, VersionState.SERVING),
        (2, "t2", {"hints_from": {"t2": ["t8", "t1"]}}, VersionState.SERVING),
        (3, "t3", {"hints_from": {"t3": ["L1"]}}, VersionState.REJECTED),
    ):
        taken = [one.turn.id for one in learning.claim(limit=10, needs="hint", max_age_s=1e9)]
        learning.release([one for one in taken if one != name])
        parent = learning.serving().number
        gated(
            learning,
            number,
            learning.record_step([name], recipe="r", seed=0, metrics=metrics, version_parent=parent),
            state=state,
        )

    assert learning.learned_from(["t1"]) == [1]
    assert learning.learned_from(["t2"], ["t1"]) == [2]
    assert learning.learned_from(["t1"], ["t1", "L1"]) == [1, 2], "3 never served"
    assert learning.learned_from(["t7"], ["L9"]) == []
