"""Nano's tokenizer: a byte-level BPE with Qwen3's control tokens and very few ids per prompt.

The fixed sentences of the Qwen3 tool preamble, of the agents and of a judge's questions are kept whole by the
pre-tokenizer and merged fully by BPE itself, so a plain copy without added tokens compresses them just as well. Three
rules keep the ids of a text independent of what stands around it: a newline outside a fixed sentence is a token of its
own; a word that may be an invented name never takes the space before it with it; known commands are one token each.
"""

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from agentrl.nano import habits, vocabulary
from agentrl.signals import judge_prompt, skill_prompt

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
)
# As in Qwen3, these are added tokens but not special ones: decoding keeps them.
_VISIBLE = frozenset(SPECIAL_TOKENS[3:])

TOOLS_HEADER = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
TOOLS_FOOTER = (
    "</tools>\n\nFor each function call, return a json object with function name and arguments within ",
    " XML tags:",
    '{"name": <function-name>, "arguments": <args-json-object>}',
)
CALL_OPENING = '{"name": "bash", "arguments": {"command": "'
CALL_CLOSING = '"}}'
FIXED = (
    vocabulary.AGENT_SYSTEM,
    TOOLS_HEADER,
    json.dumps(vocabulary.BASH_TOOL),
    *TOOLS_FOOTER,
    CALL_OPENING,
    CALL_CLOSING,
    "[exit code ",
    "(no output)",
    habits.ASSISTANT_SYSTEM,
    # The questions of a judge and of a summariser, and the frames of their answers.
    judge_prompt.SYSTEM,
    "The mark is ",
    " tools that the agent has",
    "bash(command): Run a command in the shell.",
    " before: the system",
    " before: the agent",
    " before: a tool",
    " before: the user",
    " the turn that is judged",
    " what followed: a tool",
    " what followed: the user",
    'calls bash {"command": "',
    "Judge the turn.",
    '{"evidence": "',
    '", "kind": "',
    '", "fault": "',
    '", "reward": ',
    ', "hint": "',
    ', "hint": null}',
    '"}',
    skill_prompt.SYSTEM,
    "Reward of the episode: ",
    ". Look first at what the agent did wrong.",
    ". Look first at how it got there.",
    "<episode>",
    "</episode>",
    "] agent ran: ",
    "] tool answered: ",
    "] agent said: ",
    '{"name": "',
    '", "description": "',
    '", "success_analysis": "", "mistake_analysis": ["',
    '"], "golden_workflow": ["',
    '"]}',
)
ENDINGS = (".txt", ".md", ".csv", ".log", ".dat", ".html", ".sh", ".c")
# Merges that fewer invented names than this share would spend vocabulary on single names.
_NAMES, _MIN_FREQUENCY, _REPEAT = 60_000, 60, 1_000

CHAT_TEMPLATE = """\
{#- Qwen3's chat format for text messages and function tools. -#}
{%- set first = 1 if messages[0].role == 'system' else 0 -%}
{%- if tools -%}
<|im_start|>system
{% if first %}{{ messages[0].content + '\\n\\n' }}{% endif %}HEADER
{%- for tool in tools %}{{ '\\n' + (tool | tojson) }}{% endfor -%}
{{ '\\n' }}FOOTER<|im_end|>
{% elif first -%}
<|im_start|>system
{{ messages[0].content + '<|im_end|>\\n' }}
{%- endif -%}
{%- set query = namespace(index=messages | length - 1, open=true) -%}
{%- for message in messages[::-1] -%}
{%- set text = message.content if message.content is string else '' -%}
{%- set wrapped = text.strip().startswith('<tool_response>') and text.strip().endswith('</tool_response>') -%}
{%- if query.open and message.role == 'user' and not wrapped -%}
{%- set query.index = messages | length - loop.index -%}
{%- set query.open = false -%}
{%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
{%- set text = message.content if message.content is string else '' -%}
{%- if message.role == 'user' or (message.role == 'system' and not loop.first) -%}
{{ '<|im_start|>' + message.role + '\\n' + text + '<|im_end|>\\n' }}
{%- elif message.role == 'assistant' -%}
{%- set thought = message.reasoning_content if message.reasoning_content is string else '' -%}
{%- if not thought and '</think>' in text -%}
{%- set thought = text.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') -%}
{%- set text = text.split('</think>')[-1].lstrip('\\n') -%}
{%- endif -%}
{{ '<|im_start|>assistant\\n' }}
{%- if loop.index0 > query.index and (loop.last or thought) -%}
{{ '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + text.lstrip('\\n') }}
{%- else -%}
{{ text }}
{%- endif -%}
{%- for call in message.tool_calls or [] -%}
{%- set function = call.function or call -%}
{%- if text or not loop.first %}{{ '\\n' }}{% endif -%}
{{ '<tool_call>\\n{"name": "' + function.name + '", "arguments": ' }}
{%- if function.arguments is string %}{{ function.arguments }}{% else %}{{ function.arguments | tojson }}{% endif -%}
{{ '}\\n</tool_call>' }}
{%- endfor -%}
{{ '<|im_end|>\\n' }}
{%- elif message.role == 'tool' -%}
{%- if loop.first or loop.previtem.role != 'tool' %}{{ '<|im_start|>user' }}{% endif -%}
{{ '\\n<tool_response>\\n' + text + '\\n</tool_response>' }}
{%- if loop.last or loop.nextitem.role != 'tool' %}{{ '<|im_end|>\\n' }}{% endif -%}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif -%}
{%- endif -%}
""".replace("HEADER", TOOLS_HEADER).replace(
    "FOOTER",
    f"{TOOLS_FOOTER[0]}<tool_call></tool_call>{TOOLS_FOOTER[1]}\n<tool_call>\n{TOOLS_FOOTER[2]}\n</tool_call>",
)


def _programs() -> list[str]:
    commands = [o.command for o in vocabulary.OPERATIONS] + [
        a for o in vocabulary.OPERATIONS for a in o.alternatives
    ]
    return sorted({command.split()[0] for command in commands}, key=lambda name: (-len(name), name))


def _words() -> list[str]:
    """The words of tasks, errors, hints and skills, which take the space before them into their token."""
    texts = [
        *vocabulary.ERROR_WORDINGS,
        *vocabulary.BARE_ERRORS,
        *vocabulary.HINT_WORDINGS,
        *vocabulary.SKILL_WORDINGS,
    ]
    texts += [
        *vocabulary.SUCCESS_REPLIES,
        vocabulary.FAILURE_REPLY,
        "Hint Skill Feedback system user assistant No such file install request end",
        "Reference solution Correct Expert trace The tool said",
    ]
    texts += [
        *habits.WISHES,
        *habits.REQUESTS,
        *habits.THINGS,
        *habits.THANKS,
        habits.WELCOME,
        *habits.words(),
    ]
    texts += [*judge_prompt.KINDS, *judge_prompt.FAULTS, "null"]
    for operation in vocabulary.OPERATIONS:
        texts += [*operation.wordings, operation.doing]
    found = set(re.findall(r"[A-Za-z]+", re.sub(r"\{\w+\}", "", " ".join(texts))))
    # Single letters stay out: they would split file names such as main.c differently from others.
    return sorted((w for w in found - set(_programs()) if len(w) > 1), key=lambda word: (-len(word), word))


def _pattern() -> str:
    def either(strings: tuple[str, ...] | list[str]) -> str:
        return "|".join(r"\n".join(map(re.escape, string.split("\n"))) for string in strings)

    ends = "(?![A-Za-z0-9_])"
    return "|".join(
        (
            either(sorted(FIXED, key=len, reverse=True)),
            r"\n",
            f"(?<![A-Za-z0-9_])(?:{either(_programs())}){ends}",
            f" ?(?<![A-Za-z0-9_])(?:{either(_words())}){ends}",
            f"(?:{either(ENDINGS)}){ends}",
            f"-[A-Za-z]{ends}",
            "[A-Za-z]+",
            "[0-9]",
            r"\s",
            r"[^\sA-Za-z0-9]",
        )
    )


def _training_text() -> Iterator[str]:
    stems = [*vocabulary.FILE_STEMS, *vocabulary.DIRECTORY_STEMS, *vocabulary.WORDS, *vocabulary.PACKAGES]
    units = [*FIXED, *_programs(), *ENDINGS, *(f"-{letter}" for letter in "nrfuVhMdl")]
    units += (
        [" " + word for word in _words()] + _words() + [part for stem in stems for part in stem.split("_")]
    )
    for unit in units:
        for _ in range(_REPEAT):
            yield unit
    rng = random.Random(0)
    for _ in range(_NAMES):
        yield vocabulary.fresh_name(rng, "corpus")


def build() -> Tokenizer:
    """Train the tokenizer; the result depends on nothing but vocabulary.py."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_pattern()), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        _training_text(),
        trainers.BpeTrainer(
            vocab_size=6_000,
            min_frequency=_MIN_FREQUENCY,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    # Added last, so that their ids follow the plain vocabulary and removing them leaves a plain BPE.
    tokenizer.add_tokens(
        [AddedToken(token, special=token not in _VISIBLE, normalized=False) for token in SPECIAL_TOKENS]
    )
    return tokenizer


def control_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Ids of the control tokens; all of them have to be there."""
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL_TOKENS}
    assert None not in ids.values()
    return {token: index for token, index in ids.items() if index is not None}


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json (with the chat template) into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 2048,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
