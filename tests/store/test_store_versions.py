import json
from pathlib import Path

import pytest

from agentrl.errors import StoreError
from agentrl.store.learning_log import LearningLog
from agentrl.store.signal_log import SignalLog
from agentrl.store.versions import MANIFEST, STABLE, VersionStore, disposable, lines_on_disk, older, prune
from agentrl.types import PolicyVersion, VersionFile, VersionState

S, R, C, X = VersionState.SERVING, VersionState.RETIRED, VersionState.CANDIDATE, VersionState.REJECTED
HELLO = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


def write_two(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"hello")
    (folder / "learner_state").mkdir()
    (folder / "learner_state" / "optimizer.pt").write_bytes(b"")


def version(store: VersionStore, number: int, files: list[VersionFile]) -> PolicyVersion:
    return PolicyVersion(
        policy=store.policy,
        number=number,
        parent=number - 1,
        state=C,
        path=store.relative_path(number),
        files=tuple(files),
    )


def test_a_version_is_written_with_its_checksums_and_marked_stable_last(tmp_path: Path) -> None:
    store = VersionStore(tmp_path)

    files = store.write(7, write_two)

    assert files == [
        VersionFile(
            path="learner_state/optimizer.pt",
            sha256="e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            size=0,
        ),
        VersionFile(path="model.safetensors", sha256=HELLO, size=5),
    ]
    assert store.path(7) == tmp_path / "versions" / "000007"
    manifest = json.loads((store.path(7) / MANIFEST).read_text())
    assert (manifest["number"], manifest["policy"], len(manifest["files"])) == (7, "default", 2)
    assert store.numbers() == [7]
    assert store.verify(version(store, 7, files)) == []


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    store = VersionStore(tmp_path)

    def fail(folder: Path) -> None:
        write_two(folder)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.write(1, fail)

    assert list(store.root.iterdir()) == []
    store.write(1, write_two)
    assert store.numbers() == [1]


def test_a_number_is_never_written_twice_but_a_half_written_folder_is_replaced(tmp_path: Path) -> None:
    store = VersionStore(tmp_path)
    store.write(1, write_two)
    with pytest.raises(StoreError, match="never used again"):
        store.write(1, write_two)

    half = store.path(2)
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"hel")
    assert store.numbers() == [1]
    store.write(2, write_two)
    assert store.numbers() == [1, 2]


def test_what_a_crash_leaves_is_ignored_and_cleaned_up(tmp_path: Path) -> None:
    store = VersionStore(tmp_path)
    for number in (1, 2, 3):
        store.write(number, write_two)
    (store.path(2) / STABLE).unlink()
    (store.root / ".writing-000004").mkdir()
    (store.root / ".deleting-000000").mkdir()
    (store.root / "notes").mkdir()

    assert store.numbers() == [1, 3]
    assert store.clean([version(store, number, []) for number in (1, 2)]) == [3]
    assert sorted(path.name for path in store.root.iterdir()) == [".unknown-000003", "000001", "notes"]
    assert VersionStore(tmp_path / "nowhere").clean([]) == []


def test_a_whole_version_that_nobody_published_is_set_aside_and_the_newest_such_stays(tmp_path: Path) -> None:
    store = VersionStore(tmp_path)
    known = [version(store, 1, store.write(1, write_two))]
    for number in (2, 3):
        store.write(number, write_two)

        assert store.clean(known) == [number]
        assert store.clean(known) == []
        assert (store.numbers(), store.set_aside(), store.newest()) == ([1], [number], number)
    assert (store.root / ".unknown-000003" / "model.safetensors").read_bytes() == b"hello"


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: (folder / "model.safetensors").write_bytes(b"hellp"), "model.safetensors has sha256"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda folder: (folder / "extra").write_bytes(b""), "extra was not recorded"),
        (lambda folder: (folder / MANIFEST).write_text("{}"), "not the one that STABLE vouches for"),
        (lambda folder: (folder / STABLE).unlink(), "was not written to its end"),
    ],
)
def test_every_damage_to_a_version_is_named(tmp_path: Path, damage, sentence: str) -> None:
    store = VersionStore(tmp_path)
    files = store.write(1, write_two)

    damage(store.path(1))

    faults = store.verify(version(store, 1, files))
    assert len(faults) == 1
    assert sentence in faults[0]


def test_a_link_is_no_part_of_a_version(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"hello")

    def link(folder: Path) -> None:
        (folder / "model.safetensors").symlink_to(tmp_path / "weights")

    with pytest.raises(StoreError, match="no plain file"):
        VersionStore(tmp_path).write(1, link)


def test_lines_have_folders_of_their_own(tmp_path: Path) -> None:
    default, other = VersionStore(tmp_path), VersionStore(tmp_path, "user:a/b")
    default.write(1, write_two)
    other.write(1, write_two)

    assert other.relative_path(1) == "versions/policy=user%3Aa%2Fb/000001"
    assert (default.numbers(), other.numbers()) == ([1], [1])
    assert default.clean([version(default, 1, [])]) == []
    assert other.numbers() == [1]
    assert [(one.policy, one.root) for one in lines_on_disk(tmp_path)] == [
        ("default", default.root),
        ("user:a/b", other.root),
    ]


def line(*states: VersionState, deleted: tuple[int, ...] = ()) -> list[PolicyVersion]:
    return [
        PolicyVersion(
            policy="default",
            number=number,
            parent=number - 1 if number else None,
            state=state,
            path="" if number in deleted else f"versions/{number:06d}",
        )
        for number, state in enumerate(states)
    ]


def test_retention_keeps_the_newest_retired_and_drops_the_rest() -> None:
    versions = line(R, R, R, R, R, S)
    # 0 is the base, 5 serves, 4 is the rollback target.
    assert disposable(versions, {}, keep=0) == [1, 2, 3]
    assert disposable(versions, {}, keep=1) == [1, 2]
    assert disposable(versions, {}, keep=9) == []


def test_of_older_versions_one_stays_for_each_doubling_of_age() -> None:
    # 100 retired ones, 0 to 99: the n-th is number n - 1, its age 100 - n.
    assert older(range(100), 4) == {63, 79, 87, 95, 97, 98}
    # ages 36, 20, 12, 4, 2 and 1: the last three are among the newest in any case.
    assert older(range(100), 1) == {98}
    assert older(range(100), 0) == set()


def test_retention_reaches_back_by_doublings_however_often_it_prunes() -> None:
    on_disk: set[int] = set()
    for newest in range(1, 201):
        on_disk.add(newest)
        versions = line(*[R] * newest, S, deleted=tuple(set(range(1, newest + 1)) - on_disk))  # 0 is the base
        on_disk -= set(disposable(versions, {}, keep=4))
        ages = sorted(newest - number for number in on_disk)
        assert ages[:6] == list(range(min(6, newest)))
        for doubling in (8, 16, 32):
            # an age in retired versions is one less: the newest of all serves
            assert newest <= 2 * doubling or any(doubling < age <= 2 * doubling for age in ages)
        assert len(on_disk) <= 10
        assert ages[-1] <= 64


def test_retention_never_touches_what_serves_waits_is_pinned_or_is_a_teacher() -> None:
    versions = line(R, R, R, S, C, X)

    assert disposable(versions, {1: ["teacher"]}, keep=0) == [5]
    assert disposable(line(R, R, S), {}, keep=0) == []
    assert disposable(line(S, X, X), {2: ["name@2"]}, keep=0) == [1]


def test_the_rollback_target_is_the_nearest_ancestor_that_has_files() -> None:
    versions = line(R, R, R, X, S, deleted=(3,))

    assert disposable(versions, {}, keep=0) == [1]


def test_what_a_candidate_was_built_upon_stays_while_it_waits() -> None:
    versions = line(R, R, R, S)
    candidate = PolicyVersion(policy="default", number=4, parent=1, state=C, path="versions/000004")

    assert disposable([*versions, candidate], {}, keep=0) == []


async def test_pruning_deletes_files_and_keeps_the_records(tmp_path: Path) -> None:
    async with await SignalLog.open(tmp_path):
        store = VersionStore(tmp_path)
        with LearningLog(tmp_path) as log:
            log.ensure_base("default", "base")
            for number in range(1, 6):
                log.publish(version(store, number, store.write(number, write_two)))
                log.set_state("default", number, S, "passed")
            log.pin("default", 2, "teacher")

            assert prune(log, store, keep=0) == [1, 3]

            assert store.numbers() == [2, 4, 5]
            assert [bool(one.path) for one in log.versions()] == [True, False, True, False, True, True]
            assert log.rollback("default", 4, "worse") == [5]
            with pytest.raises(StoreError, match="cannot be pinned"):
                log.pin("default", 1, "teacher")


async def test_a_crash_between_marking_and_deleting_is_made_good_by_cleaning(tmp_path: Path) -> None:
    async with await SignalLog.open(tmp_path):
        store = VersionStore(tmp_path)
        with LearningLog(tmp_path) as log:
            log.ensure_base("default", "base")
            for number in range(1, 4):
                log.publish(version(store, number, store.write(number, write_two)))
                log.set_state("default", number, S, "passed")
            log.forget_files("default", lambda versions, pins: disposable(versions, pins, keep=0))

            assert store.numbers() == [1, 2, 3]
            assert store.clean(log.versions()) == []
            assert store.numbers() == [2, 3]
