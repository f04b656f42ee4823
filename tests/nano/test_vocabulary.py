import ast
import random
from pathlib import Path

from agentrl.nano import operations
from agentrl.nano import vocabulary as v


def test_the_two_halves_of_invented_names_are_disjoint_for_every_seed():
    drawn = {
        half: {v.fresh_name(random.Random(seed), half) for seed in range(3000)}
        for half in ("corpus", "rules")
    }
    assert len(drawn["corpus"]) > 2500
    assert not drawn["corpus"] & drawn["rules"]
    assert all(v.half_of(name) == "rules" for name in drawn["rules"])


def test_an_invented_name_is_pronounceable_short_and_no_word_of_the_vocabulary():
    rng = random.Random(1)
    for _ in range(2000):
        name = v.fresh_name(rng, "rules")
        assert name.isalpha()
        assert name.islower()
        assert 4 <= len(name) <= 9
        assert set(name) & set("aeiou")
        assert name not in v.RESERVED_NAMES


def test_the_same_seed_gives_the_same_names_and_arguments():
    first, second = random.Random(5), random.Random(5)
    assert [v.fresh_name(first, "corpus") for _ in range(20)] == [
        v.fresh_name(second, "corpus") for _ in range(20)
    ]
    assert [v.file_name(first) for _ in range(20)] == [v.file_name(second) for _ in range(20)]


def test_every_error_wording_names_both_commands_and_some_are_withheld():
    assert len(v.ERROR_WORDINGS) >= 24
    assert set(v.KNOWN_WORDINGS) | set(v.WITHHELD_WORDINGS) == set(v.ERROR_WORDINGS)
    assert not set(v.KNOWN_WORDINGS) & set(v.WITHHELD_WORDINGS)
    assert len(v.WITHHELD_WORDINGS) >= 6
    for wording in v.ERROR_WORDINGS:
        assert wording.count("{old}") == wording.count("{new}") == 1


def test_there_are_enough_operations_with_distinct_keys_programs_and_wordings():
    assert len(v.UNKNOWN_OPERATIONS) >= 14
    assert len(v.REACHABLE_OPERATIONS) >= 10
    assert len({operation.key for operation in v.OPERATIONS}) == len(v.OPERATIONS)
    programs = [
        {operation.program, *(way.split()[0] for way in operation.alternatives)} for operation in v.OPERATIONS
    ]
    assert sum(map(len, programs)) == len(set().union(*programs))
    wordings = [wording for operation in v.OPERATIONS for wording in operation.wordings]
    assert len(wordings) == len(set(wordings))


def test_reachable_operations_have_four_to_twelve_alternatives_and_unknown_ones_none():
    for operation in v.REACHABLE_OPERATIONS:
        assert 4 <= len(operation.alternatives) <= 12
        assert operation.command == operation.alternatives[0]
        # After the words that all have in common, each one goes on differently.
        words = [way.split() for way in operation.alternatives]
        common = 0
        while len({tuple(way[: common + 1]) for way in words}) == 1:
            common += 1
        assert len({way[common] for way in words}) == len(words)
    assert all(not operation.alternatives for operation in v.UNKNOWN_OPERATIONS)


def test_every_wording_and_template_uses_exactly_the_arguments_of_its_operation():
    rng = random.Random(2)
    for operation in v.OPERATIONS:
        assert len(operation.wordings) >= 4
        values = v.arguments(rng, operation)
        assert len(values) == len(operation.arguments) == len(set(values.values()))
        for wording in operation.wordings:
            assert all(value in wording.format(**values) for value in values.values())
        line = operation.line("zorvex", values)
        assert line.startswith("zorvex ")
        assert all(value in line for value in values.values())


def test_vocabulary_imports_only_the_standard_library():
    modules = set()
    for file in (v.__file__, operations.__file__):
        tree = ast.parse(Path(file).read_text())
        modules |= {node.names[0].name for node in ast.walk(tree) if isinstance(node, ast.Import)}
        modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules <= {"hashlib", "random", "dataclasses", "typing", "agentrl.nano.operations"}
