"""Skills found by the meaning of a request, with real models of sentence-transformers, made small."""

import asyncio
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import run
from skills_episodes import WORKED, episode, record, recovered
from skills_models import bert_model, static_model

from agentrl.config import Config, LearnConfig, SkillsConfig, write_config
from agentrl.errors import ConfigError
from agentrl.learner.aside import aside
from agentrl.store.database import connect
from agentrl.store.migrations import migrate
from server.skills_loop import skill_loop
from skills.bank import BANK_NAME, SkillBank, Source, m001_bank
from skills.embed import Embedder, Vector, refuse_missing
from skills.request import Request
from skills.retrieve import SkillIndex
from skills.skill_file import SkillFile
from skills.source import BankSource

# "delete" lies at a cosine of .8 to "erase", and of 0 to "show".
MEANINGS = {"erase": (1.0, 0.0, 0.0), "delete": (0.8, 0.6, 0.0), "show": (0.0, 0.0, 1.0)}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Vectors set by hand."""
    return static_model(tmp_path_factory.mktemp("models") / "words", MEANINGS)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    return bert_model(tmp_path_factory.mktemp("models") / "bert")


class Counting(Embedder):
    """Remembers what was computed."""

    batches: list[list[str]]

    def _encoded(self, texts: list[str], *, is_request: bool) -> list[Vector]:
        self.__dict__.setdefault("batches", []).append(list(texts))
        return super()._encoded(texts, is_request=is_request)


def skill(name: str, description: str = "Use it.") -> SkillFile:
    return SkillFile(name=name, description=description, body="Do it.")


def said(text: str) -> Request:
    return Request.written(text)


def least(likeness: float, cosine: float) -> SkillsConfig:
    return SkillsConfig(min_likeness=likeness, min_cosine=cosine)


# what is found


def test_a_synonym_finds_what_no_common_word_finds(words: str) -> None:
    skills = [skill("remove-files"), skill("print-files")]
    requests = {"remove-files": [said("Erase everything.")], "print-files": [said("Show everything.")]}
    by_words = SkillIndex(skills, requests)
    by_both = SkillIndex(skills, requests, Embedder(words))

    assert by_words.find(said("Delete it all"), least(0.01, 0.8), 5) == []
    assert by_both.find(said("Delete it all"), least(0.01, 0.8), 5) == ["remove-files"]
    assert by_both.find(said("Delete it all"), least(0.01, 0.81), 5) == []
    assert by_both.find(said("Fetch it"), least(0.01, 0.1), 5) == []


def test_what_both_find_comes_before_what_one_finds(words: str) -> None:
    skills = [skill("both"), skill("words"), skill("meaning")]
    requests = {
        "both": [said("erase this file")],  # likeness 2/4, cosine 1
        "words": [said("show that file")],  # likeness 2/4, cosine 0
        "meaning": [said("delete")],  # likeness 0, cosine .8
    }
    index = SkillIndex(skills, requests, Embedder(words))
    asked = said("erase that file")

    assert [index.likeness(asked.words, name) for name in ("both", "words", "meaning")] == [0.5, 0.5, 0.0]
    assert index.find(asked, least(0.5, 0.8), 5) == ["both", "words", "meaning"]
    assert index.find(asked, least(0.5, 0.81), 5) == ["both", "words"]
    assert index.find(asked, least(0.51, 0.8), 5) == ["both", "meaning"]
    assert index.find(asked, least(0.5, 0.8), 1) == ["both"]


def test_where_both_agree_their_order_stands(words: str) -> None:
    requests = {"near": [said("erase all")], "far": [said("delete all of it")], "other": [said("show it")]}
    skills = [skill(name) for name in requests]
    asked, bounds = said("erase all"), least(0.1, 0.5)

    assert SkillIndex(skills, requests).find(asked, bounds, 5) == ["near", "far"]
    assert SkillIndex(skills, requests, Embedder(words)).find(asked, bounds, 5) == ["near", "far"]


def test_the_same_request_has_a_cosine_of_one(bert: str) -> None:
    index = SkillIndex([skill("a")], {"a": [said("erase all the file")]}, Embedder(bert))

    assert index.find(said("erase all the file"), least(1.0, 1.0), 5) == ["a"]
    assert index.matches(said("erase all the file"), least(1.0, 1.0), 5)[0].cosine == 1.0


def test_a_skill_from_elsewhere_is_found_by_the_meaning_of_its_name_and_description(words: str) -> None:
    elsewhere = [skill("cleaning", "Erase what is left over."), skill("erase", "Of no use.")]
    index = SkillIndex([*elsewhere, skill("printing", "Show it.")], {}, Embedder(words))

    assert index.find(said("delete"), least(0.9, 0.8), 5) == ["cleaning", "erase"]


def test_a_skill_with_requests_is_found_by_these_and_not_by_its_name(words: str) -> None:
    index = SkillIndex([skill("erase")], {"erase": [said("show it")]}, Embedder(words))

    assert index.find(said("delete"), least(1.0, 0.5), 5) == []
    assert index.find(said("show"), least(1.0, 0.5), 5) == ["erase"]


def test_a_text_without_a_known_word_and_half_a_character_are_like_nothing(words: str) -> None:
    index = SkillIndex([skill("a")], {"a": [said("\ud800")]}, Embedder(words))

    assert index.find(said("zorp \ud800"), least(1.0, 0.01), 5) == []
    assert index.find(said(""), least(1.0, 0.01), 5) == []
    assert SkillIndex([], {}, Embedder(words)).find(said("erase"), least(0.0, -1.0), 5) == []


# what is computed


def test_each_text_is_computed_once_though_the_index_is_made_anew(words: str) -> None:
    embedder = Counting(words)
    embedder.batches.clear()
    requests = {"a": [said("erase"), said("show")], "b": [said("erase")]}
    for _ in range(3):
        index = SkillIndex([skill("a"), skill("b"), skill("c")], requests, embedder)
        index.find(said("delete"), least(1.0, 0.5), 5)

    assert embedder.batches == [["erase", "show"], ["c: Use it."], ["delete"]]
    SkillIndex([skill("a")], {"a": [*requests["a"], said("remove")]}, embedder).find(
        said("delete"), least(1.0, 0.5), 5
    )
    assert embedder.batches[3:] == [["remove"]]


def test_nothing_is_computed_before_a_new_task_asks(words: str) -> None:
    embedder = Counting(words)
    embedder.batches.clear()
    SkillIndex([skill("a")], {"a": [said("erase")]}, embedder)

    assert embedder.batches == []


def test_vectors_that_are_kept_are_bounded_and_the_least_lately_used_goes(words: str) -> None:
    embedder = Counting(words, max_kept=2)
    embedder.batches.clear()
    for texts in (["a"], ["b"], ["a"], ["c"], ["a"], ["b"]):
        embedder.requests(texts)

    assert embedder.batches == [["a"], ["b"], ["c"], ["b"]]
    many = [f"erase {number}" for number in range(5)]
    assert len(embedder.requests([*many, *many])) == 10
    assert len(embedder._kept) == 2


def test_only_the_newest_eight_requests_of_a_skill_are_embedded(words: str) -> None:
    embedder = Counting(words)
    embedder.batches.clear()
    requests = [said(f"erase {number}") for number in range(20)]
    SkillIndex([skill("a")], {"a": requests}, embedder).find(said("delete"), least(1.0, 0.5), 5)

    assert embedder.batches == [[f"erase {number}" for number in range(8)], ["delete"]]


def test_random_numbers_and_threads_are_as_if_no_model_had_been_loaded(bert: str) -> None:
    torch.set_num_threads(2)

    def states() -> Sequence[object]:
        torch_state = torch.random.get_rng_state().tolist()
        return torch_state, random.getstate(), str(np.random.get_state()), torch.get_num_threads()

    before = states()
    embedder = Embedder(bert)
    embedder.requests(["erase all", "show the file"])

    assert states() == before


def test_other_torch_work_takes_one_thread_and_gives_back_what_it_found_though_it_fails() -> None:
    def work() -> None:
        with aside():
            assert torch.get_num_threads() == 1
            torch.rand(1)
            raise ZeroDivisionError

    torch.set_num_threads(2)
    before = torch.random.get_rng_state().tolist()
    with pytest.raises(ZeroDivisionError):
        work()

    assert (torch.get_num_threads(), torch.random.get_rng_state().tolist()) == (2, before)


def test_vectors_do_not_depend_on_what_they_are_computed_with(bert: str) -> None:
    texts = ["erase", "show the file _", "delete everything the file"]
    together = Embedder(bert).requests(texts)
    alone = Embedder(bert)

    for text, vector in zip(texts, together, strict=True):
        (single,) = alone.requests([text])
        assert np.allclose(single, vector, atol=1e-5)
        assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)


# what is refused


def test_a_missing_extra_is_told_with_the_command_that_installs_it(
    words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)

    refuse_missing(None)
    for refuse in (refuse_missing, Embedder):
        with pytest.raises(ConfigError, match=r"pip install 'agentrl-live\[embeddings\]'"):
            refuse(words)


@pytest.mark.parametrize(
    ("made", "said_of_it"),
    [
        ((), "there is no folder .*hf download"),
        (("config.json",), "has no modules.json"),
        (("modules.json",), "cannot be loaded as a sentence-transformers model"),
    ],
)
def test_a_folder_that_is_no_model_is_refused_with_the_setting_and_the_remedy(
    made: tuple[str, ...], said_of_it: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    for name in made:
        folder.mkdir()
        (folder / name).write_text("{}")

    with pytest.raises(ConfigError, match=rf"skills\.embeddings = .*model'.*{said_of_it}"):
        Embedder(str(folder))


@pytest.mark.parametrize("fault", ["weights", "nan", "code"])
def test_a_model_that_cannot_be_asked_is_refused_at_the_start(fault: str, tmp_path: Path) -> None:
    nan = float("nan")
    folder = Path(static_model(tmp_path / "model", {"show": (nan, nan)} if fault == "nan" else MEANINGS))
    mark = tmp_path / "ran"
    if fault == "weights":
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:20])
    elif fault == "code":
        (folder / "mine.py").write_text(
            f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n"
            "from sentence_transformers.sentence_transformer.modules import StaticEmbedding as Mine\n"
        )
        modules = json.loads((folder / "modules.json").read_text())
        modules[0]["type"] = "mine.Mine"
        (folder / "modules.json").write_text(json.dumps(modules))

    with pytest.raises(ConfigError, match=r"skills\.embeddings = .*model"):
        Embedder(str(folder))
    assert not mark.exists()


# a run


def of(request: str, session: str, task: str):  # type: ignore[no-untyped-def]
    """`cat` was refused and zorp did it, asked for in some words."""
    refused = "cat is not allowed here. Use zorp.\n[exit code 126]"
    moves = (("$ cat notes.txt", refused), ("$ zorp notes.txt", None))
    return episode(request, *moves, session=session, task=task)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A recorded run that wrote one skill, from "Erase notes.txt."."""
    path = tmp_path / "run"
    config = Config(run_dir=str(path), learn=LearnConfig(recipe="skill_sd", nice=0))
    asyncio.run(record(path, of("Erase notes.txt.", "first", "old")))
    write_config(config, path / "config.json")
    asyncio.run(skill_loop(path, config).once())
    return path


def test_a_task_never_seen_is_taught_what_a_request_of_the_same_meaning_taught(
    run_dir: Path, words: str
) -> None:
    new = of("Delete it all, please.", "second", "new").steps[0].turn
    other = of("Fetch it.", "third", "other").steps[0].turn
    with BankSource(run_dir, policy="default", settings=SkillsConfig()) as by_words:
        by_words.begin()
        assert by_words.skills(new) == ()
    with BankSource(run_dir, policy="default", settings=SkillsConfig(embeddings=words)) as by_both:
        for _ in range(2):
            by_both.begin()
            assert [shown.body for shown in by_both.skills(new)] == [WORKED]
            assert by_both.skills(other) == ()


def test_what_cannot_be_loaded_ends_the_learner_with_the_reason_in_its_log(
    run_dir: Path, tmp_path: Path
) -> None:
    from server.learner_main import main

    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "modules.json").write_text("[]")
    config = Config.model_validate_json((run_dir / "config.json").read_text())
    skills = config.skills.model_copy(update={"embeddings": str(folder)})
    write_config(config.model_copy(update={"skills": skills}), run_dir / "config.json")

    assert main([str(run_dir)]) == 2
    (line,) = map(json.loads, (run_dir / "learner.log").read_text().splitlines())
    assert (line["event"], line["error"], line["again"]) == ("failed", "ConfigError", False)
    assert line["message"].startswith(f"skills.embeddings = {str(folder)!r} cannot be loaded")


def test_skills_are_opened_with_the_priority_of_a_learner(run_dir: Path) -> None:
    config = Config.model_validate_json((run_dir / "config.json").read_text())
    lowered = config.learn.model_copy(update={"nice": 19})
    write_config(config.model_copy(update={"learn": lowered}), run_dir / "config.json")
    code = (
        "import os, sys; from contextlib import ExitStack; from pathlib import Path; "
        "from server.learner_main import source_of\n"
        "with ExitStack() as stack: assert source_of(Path(sys.argv[1]), stack) is not None\n"
        "print(os.getpriority(os.PRIO_PROCESS, 0))"
    )

    assert python(code, str(run_dir)) == ("19\n", "")


def python(code: str, argument: str) -> tuple[str, str]:
    """What a process of its own says."""
    done = subprocess.run(
        [sys.executable, "-c", code, argument],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    return done.stdout, done.stderr


def test_serve_refuses_a_folder_that_is_not_there_before_it_loads_a_model(tmp_path: Path) -> None:
    setting = ("--set", "skills.embeddings=nowhere")
    refused = run("serve", "nano", "--port", "0", "--recipe", "skill_sd", *setting, cwd=tmp_path)

    assert refused.returncode == 2
    assert refused.stderr.startswith("agentrl: skills.embeddings = 'nowhere': there is no folder nowhere.")
    assert not (tmp_path / "runs").exists()


def test_find_says_what_a_new_task_would_get_and_how_like_it_is(run_dir: Path, words: str) -> None:
    from server.skills_find import found

    asked = "Delete it all, please."
    told = run("skills", "find", asked, "--run-dir", str(run_dir), "--json", cwd=run_dir)
    (alone,) = json.loads(told.stdout)
    assert (alone["name"], alone["found"], alone["likeness"], alone["cosine"]) == ("use-zorp", False, 0, None)

    config = Config.model_validate_json((run_dir / "config.json").read_text())
    skills = config.skills.model_copy(update={"embeddings": words})
    write_config(config.model_copy(update={"skills": skills}), run_dir / "config.json")
    (both,) = found(run_dir, "default", asked)
    assert (both["name"], both["found"], both["likeness"], both["cosine"]) == ("use-zorp", True, 0, 0.8)
    assert [row["likeness"] for row in found(run_dir, "default", "Erase _.")] == [1.0]
    assert found(run_dir, "other", asked) == []
    none = run("skills", "find", asked, "--run-dir", str(run_dir), "--scope", "other", cwd=run_dir)
    assert none.stdout.startswith("no skills here: recipes whose teacher reads skills write them")


# the bank


def test_the_text_of_a_request_is_kept_and_of_an_older_run_its_words(tmp_path: Path) -> None:
    with connect(tmp_path / BANK_NAME) as old:
        migrate(old, [m001_bank])
        old.execute(
            "INSERT INTO sources VALUES ('default', 'a', 's0', 't', '[\"_\", \"erase\"]', '[]', 1.0, 1.0)"
        )
    old.close()
    request = Request.of(recovered("plan.md").steps[0].turn)
    with SkillBank(tmp_path) as bank:
        newer = Source(session="s1", task_key="t", request=request, turn_ids=("s1-0",), reward=1.0)
        bank.close_episode("default", newer, last_seq=1, outcome="written", name="b", is_new=True)
        found = bank.requests("default")

    assert found == {
        "a": [Request(words=frozenset({"_", "erase"}), text="_ erase")],
        "b": [Request(words=frozenset({"show", "the", "file", "_"}), text="Show the file _.")],
    }


def test_no_torch_is_loaded_to_look_whether_the_model_is_there(words: str) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from skills.embed import refuse_missing; "
        "refuse_missing(sys.argv[1]); print('looked')"
    )

    assert python(code, words) == ("looked\n", "")
