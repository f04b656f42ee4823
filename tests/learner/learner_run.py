"""A run folder with a tiny model, a log that turns can be put into, and the learner's loop on it."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from learner_models import write_model
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from agentrl.config import Config, LearnConfig, SkillsConfig, write_config
from agentrl.learner import checkpoint
from agentrl.learner.answers_file import AnswersFile
from agentrl.learner.base_answers import MAX_REPLY, BaseAnswers
from agentrl.learner.build import Builder, Built
from agentrl.learner.guards import Guards
from agentrl.learner.journal import Journal
from agentrl.learner.lesson_probes import LessonProbes
from agentrl.learner.loop import LearnLoop
from agentrl.learner.next_answers import next_answers
from agentrl.learner.practice import Practice
from agentrl.learner.rehearsal import Rehearsal
from agentrl.learner.replay import beside_of
from agentrl.learner.second_stage import SecondStage
from agentrl.learner.trainer import Trainer
from agentrl.learner.usefulness import Usefulness
from agentrl.learner.verifier import Verifier, same_answer
from agentrl.recipes.recipe import load_recipe
from agentrl.store.claims import Claimed
from agentrl.store.feeds import HintedTurns, RewardedTurns
from agentrl.store.learning_log import LearningLog
from agentrl.store.signal_log import SignalLog
from agentrl.store.versions import VersionStore
from agentrl.teacher.recall import MAX_REMEMBERED, HintMemory
from agentrl.text.renderer import load_renderer
from agentrl.types import (
    Arm,
    Completion,
    FinishReason,
    MatchedBy,
    NextState,
    Purpose,
    Reply,
    Sampling,
    Signal,
    SignalSource,
    TrainingSample,
    Turn,
    TurnKind,
    VersionSpan,
)
from skills.source import BankSource

TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}"""
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
NOW = 1_700_000_000.0


def write_base(path: Path) -> Path:
    """A random model with a byte-level tokenizer in the ChatML format: 259 ids."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer.model = models.BPE(vocab=alphabet, merges=[])
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL])
    write_model(path, vocab_size=260)
    tokenizer.save(str(path / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "chat_template": TEMPLATE,
    }
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return path


class Killed(BaseException):
    """Stands for kill -9: no code of ours catches it."""


class Stages(Journal):
    """A journal that keeps its events and may kill the learner at the nth stage."""

    def __init__(self, path: Path, *, kill_at: int | None = None) -> None:
        super().__init__(path)
        self.events: list[dict[str, object]] = []
        self.stages: list[str] = []
        self.kill_at = kill_at
        self.at_stage: dict[str, Callable[[], None]] = {}

    def event(self, event: str, **fields: object) -> None:
        self.events.append({"event": event} | fields)
        super().event(event, **fields)

    def stage(self, name: str) -> None:
        self.stages.append(name)
        if name in self.at_stage:
            self.at_stage.pop(name)()
        if self.kill_at is not None and len(self.stages) == self.kill_at:
            raise Killed(f"stage {self.kill_at}: {name}")

    def of(self, event: str) -> list[dict[str, object]]:
        return [item for item in self.events if item["event"] == event]


class Run:
    """One run folder. `learner` starts a learner on it, as a new process would."""

    def __init__(self, path: Path, base: Path, *, recipe: str = "hint_opsd", **overrides: object) -> None:
        self.path = path
        self.base = base
        path.mkdir(parents=True, exist_ok=True)
        defaults = {"optim.lr": 3e-3, "batch.turns_per_step": 4, "batch.max_wait_s": 0.0}
        settings = defaults | {name.replace("__", "."): value for name, value in overrides.items()}
        self.config = Config(
            model=str(base),
            run_dir=str(path),
            learn=LearnConfig(recipe=recipe, overrides=settings, precision="fp32", nice=0, max_age_s=1e9),
        )
        write_config(self.config, path / "config.json")
        self.recipe = load_recipe(recipe, settings)
        self.renderer = load_renderer(base)
        self.num_turns = 0
        asyncio.run(self._log([]))
        with LearningLog(path) as log:
            log.ensure_base("default", str(base))

    # the log

    def prompt(self, text: str) -> tuple[int, ...]:
        return self.renderer.prompt([{"role": "user", "content": text}], [], None).ids

    def turn(
        self,
        prompt: str,
        reply: str,
        *,
        turn_id: str | None = None,
        session: str | None = None,
        version: int = 0,
        logprobs: Sequence[float] | None = None,
        **changes: object,
    ) -> Turn:
        self.num_turns += 1
        ids = (*self.renderer.encode_plain(reply), self.renderer.stop_ids[0])
        logs = tuple(logprobs) if logprobs is not None else (-5.0,) * len(ids)
        name = turn_id or f"turn{self.num_turns}"
        values: dict[str, object] = {
            "id": name,
            "request_id": f"request-{name}",
            "session": session or f"session-{name}",
            "scope": "default",
            "parent": None,
            "matched_by": MatchedBy.NONE,
            "kind": TurnKind.MAIN,
            "kind_reason": "",
            "purpose": Purpose.TRAIN,
            "arm": Arm.LEARNING,
            "task_key": prompt,
            "messages": ({"role": "user", "content": prompt},),
            "tools": (),
            "prompt_ids": self.prompt(prompt),
            "prompt_built_by": "rendered: no parent",
            "completion": Completion(
                token_ids=ids,
                logprobs=logs,
                raw_logprobs=logs if logprobs is not None else None,
                num_allowed=(260,) * len(ids),
                finish_reason=FinishReason.STOP,
                version_spans=(VersionSpan(version=version, start=0, end=len(ids)),),
            ),
            "reply": Reply(text=reply),
            "sampling": Sampling(),
            "policy": "default",
            "received_at": NOW + self.num_turns,
        }
        return Turn(**(values | changes))

    def record(
        self,
        *turns: Turn,
        hint: str | None = None,
        reward: float | None = None,
        source: SignalSource = SignalSource.RULE,
        evidence: str = "",
    ) -> list[Turn]:
        """Puts answered and judged turns into the log; it is the environment that rewards."""
        signals = [
            Signal(
                turn_id=turn.id,
                source=SignalSource.ENVIRONMENT if reward is not None else source,
                hint=hint,
                reward=reward,
                evidence=evidence,
                created_at=NOW,
            )
            for turn in turns
            if hint is not None or reward is not None
        ]
        asyncio.run(self._log(turns, signals))
        return list(turns)

    def reward(self, turn_id: str, reward: float) -> None:
        """A user's word on a turn that is in the log."""
        word = Signal(turn_id=turn_id, source=SignalSource.USER, reward=reward, created_at=NOW)
        asyncio.run(self._log([], [word]))

    async def _log(self, turns: Sequence[Turn], signals: Sequence[Signal] = ()) -> None:
        async with await SignalLog.open(self.path) as log:
            for turn in turns:
                await log.record_turn(turn, history_key=f"h-{turn.id}", reply_key=f"r-{turn.id}")
                await log.record_next_state(
                    NextState(
                        turn_id=turn.id,
                        messages=({"role": "user", "content": "next"},),
                        matched_by=MatchedBy.HISTORY,
                        received_at=NOW,
                    )
                )
            for signal in signals:
                await log.record_signal(signal)
            for turn in turns:
                await log.mark_judged(turn.id, "judged")

    def hinted(self, num: int, *, version: int = 0, hint: str = "say xyz") -> list[Turn]:
        return self.record(
            *(self.turn(f"task {self.num_turns + i}", "abc", version=version) for i in range(num)), hint=hint
        )

    # the learner

    def learner(
        self,
        *,
        kill_at: int | None = None,
        trainer: Trainer | None = None,
        asks_lessons: bool = False,
        rehearses: bool = False,
    ) -> "Learner":
        return Learner(self, kill_at=kill_at, trainer=trainer, asks_lessons=asks_lessons, rehearses=rehearses)

    def metrics_of_one_step_of_four(self, *, rehearses: bool = False) -> dict[str, object]:
        """Trains all that is there, which is to be four turns in one step, each of them counted once."""
        with self.learner(rehearses=rehearses) as learner:
            learner.loop.start()
            learner.work()
            [step] = learner.journal.of("step")
        assert self.account() == (4, 4, {}, {})
        assert step["num_turns"] == 4
        metrics = step["metrics"]
        assert isinstance(metrics, dict)
        return metrics

    def account(self) -> tuple[int, int, dict[str, int], dict[str, int]]:
        """(accepted, trained, rejected, pending without zeros); its balance is checked."""
        with LearningLog(self.path) as log:
            found = log.account()
        assert found.accepted == found.trained + sum(found.rejected.values()) + sum(found.pending.values())
        return found.accepted, found.trained, found.rejected, {k: n for k, n in found.pending.items() if n}


class Learner:
    """What process.py puts together, in this process."""

    def __init__(
        self,
        run: Run,
        *,
        kill_at: int | None = None,
        trainer: Trainer | None = None,
        asks_lessons: bool = False,
        rehearses: bool = False,
    ) -> None:
        self.run = run
        self.log = LearningLog(run.path)
        self.journal = Stages(run.path / "learner.log", kill_at=kill_at)
        self.trainer = trainer or Trainer(run.base, run.recipe, run.config.learn)
        self.versions = VersionStore(run.path)
        self.rewarded = RewardedTurns(run.path, "default")
        self.hinted = HintedTurns(run.path, "default", most=MAX_REMEMBERED)
        self.builder = builder = Builder(
            recipe=run.recipe,
            renderer=run.renderer,
            max_len=self.trainer.max_len,
            memory=HintMemory(),
            stage=SecondStage.of(self.trainer, run.renderer, verifier=same_answer),
            later=partial(next_answers, self.log),
            rehearsal=Rehearsal.of(self.trainer, run.renderer) if rehearses else None,
            practice=Practice.of(self.trainer, run.renderer, self.log.corrected_beginnings),
            usefulness=Usefulness.of(self.trainer, run.renderer),
        )
        self.probes = LessonProbes(self.log, run.renderer, self.trainer, policy="default")
        self.guards = Guards(run.path, run.config, run.recipe, log=self.log, journal=self.journal)
        self.loop = LearnLoop(
            run.path,
            run.config,
            trainer=self.trainer,
            builder=builder,
            log=self.log,
            versions=self.versions,
            rewarded=self.rewarded,
            hinted=self.hinted,
            journal=self.journal,
            beside=beside_of(
                run.recipe, log=self.log, builder=builder, writer=run.renderer, policy="default", seed=0
            ),
            guards=self.guards,
            answers=BaseAnswers(run.renderer.stop_ids, self.answers_file()),
            probes=self.probes if asks_lessons else None,
        )

    def answers_file(self, *, policy: str = "default", max_reply: int = MAX_REPLY) -> AnswersFile:
        return AnswersFile(
            self.run.path,
            policy=policy,
            base=self.run.base,
            vocab_size=self.trainer.policy.head().shape[0],
            max_reply=max_reply,
            journal=self.journal,
        )

    def __enter__(self) -> "Learner":
        return self

    def __exit__(self, *_: object) -> None:
        self.journal.close()
        self.guards.close()
        self.rewarded.close()
        self.hinted.close()
        self.log.close()

    def work(self) -> "Learner":
        """Until there is nothing to do."""
        while self.loop.once():
            pass
        return self

    def bits(self) -> tuple[dict[str, torch.Tensor], object]:
        state = self.trainer.state()
        return {name: tensor.detach().clone() for name, tensor in state.tensors.items()}, state.counters


def saved_bits(run: Run, number: int) -> tuple[dict[str, torch.Tensor], object]:
    """The state that a version's folder holds."""
    trainer = Trainer(run.base, run.recipe, run.config.learn)
    checkpoint.load(trainer, VersionStore(run.path).path(number))
    return {name: t.detach().clone() for name, t in trainer.state().tensors.items()}, trainer.state().counters


def same(
    first: tuple[dict[str, torch.Tensor], object], second: tuple[dict[str, torch.Tensor], object]
) -> bool:
    tensors_agree = first[0].keys() == second[0].keys() and all(
        torch.equal(tensor, second[0][name]) for name, tensor in first[0].items()
    )
    return tensors_agree and first[1] == second[1]


class Bench:
    """A recipe's trainer, second stage and builder on a tiny model."""

    def __init__(
        self, run: Run, recipe: str, *, verifier: Verifier | None = same_answer, **overrides: object
    ) -> None:
        settings = {name.replace("__", "."): value for name, value in overrides.items()}
        self.run = run
        self.recipe = load_recipe(recipe, settings)
        self.trainer = Trainer(run.base, self.recipe, run.config.learn)
        self.stage = SecondStage.of(self.trainer, run.renderer, verifier=verifier)
        self.builder = Builder(
            recipe=self.recipe, renderer=run.renderer, max_len=self.trainer.max_len, stage=self.stage
        )

    def build(self, claims: Sequence[Claimed]) -> Built:
        built = self.builder.build(claims, newest_version=0)
        named = [turn_id for item in built.dropped for turn_id in item.turn_ids]
        trained = {turn_id for sample in built.samples for turn_id in sample.turn_ids}
        assert sorted([*named, *trained]) == sorted(c.turn.id for c in claims), "every turn, once (law 3)"
        return built


def claim(
    turn: Turn,
    *,
    reward: float | None = None,
    group: str | None = None,
    judged: float | None = None,
    **said: object,
) -> Claimed:
    """A turn whose episode ended with a reward, and one signal that says and judges what is given."""
    signals = (
        (Signal(turn_id=turn.id, source=SignalSource.RULE, created_at=NOW, reward=judged, **said),)
        if said
        else ()
    )
    return Claimed(turn=turn, next_state=None, signals=signals, use=1, group=group, episode_reward=reward)


def group_of(run: Run, rewards: Sequence[float | None], reply: str = "abc", **said: object) -> list[Claimed]:
    return [
        claim(run.turn("do it", reply, logprobs=(-5.0,) * (len(reply) + 1)), reward=reward, group="g", **said)
        for reward in rewards
    ]


def reply_ids(sample: TrainingSample) -> tuple[int, ...]:
    first = sample.loss_mask.index(True)
    return sample.token_ids[first:]


def accepts(even: bool) -> Verifier:
    """Right is an answer of an even number of characters, or an odd one."""
    return lambda record, text: float((len(text) % 2 == 0) == even)


def vars_of(item: Claimed) -> dict[str, object]:
    return {name: getattr(item, name) for name in item.__dataclass_fields__}


RETRY = {"name": "retry", "max_tokens": 6}


def trace_file(path: Path, *records: dict[str, object]) -> Path:
    path.write_text("\n".join(json.dumps(record) for record in records))
    return path


@contextmanager
def reading_skills(run: Run) -> Iterator[tuple[Learner, LearnLoop]]:
    """A learner of the run and a loop, begun, whose teacher reads the run's skills."""
    with (
        run.learner() as learner,
        BankSource(run.path, policy="default", settings=SkillsConfig()) as skills,
    ):
        loop = LearnLoop(
            run.path,
            run.config,
            trainer=learner.trainer,
            builder=replace(learner.loop._builder, skills=skills),
            log=learner.log,
            versions=learner.versions,
            rewarded=learner.rewarded,
            hinted=learner.hinted,
            journal=learner.journal,
            guards=learner.guards,
        )
        loop.start()
        yield learner, loop
