"""Small models' text: a Qwen3-style folder built on the spot, and a tokenizer with any family's control tokens."""

import functools
import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from agentrl.text.families import PackageFamily, package_families
from agentrl.text.plain import PlainTokenizer
from agentrl.text.renderer import ChatRenderer

DATA = Path(__file__).parent / "data"
CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKUP = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
"""Added tokens of Qwen3 that are not special ones."""

CORPUS = (
    'system user assistant {"name": "bash", "arguments": {"command": "ls -la /tmp"}} the file is in the folder',
    "Let me check. I should run it. What is the weight of a fig? It weighs three grams. <tools> function",
    "naïve café 日本語 русский 🙂 éèà ünïcode \n\n  indented\n\ttabbed code def f(x): return x + 1",
)

CHAT_TEMPLATE = """\
{%- macro text_of(content) %}{{ content if content is string else '' }}{% endmacro %}
{%- set with_system = messages[0].role == 'system' %}
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if with_system %}{{ messages[0].content + '\\n\\n' }}{% endif %}
    {{- '# Tools\\n\\nYou may call one or more functions to assist with the user query.\\n\\n' }}
    {{- 'You are provided with function signatures within <tools></tools> XML tags:\\n<tools>' }}
    {%- for tool in tools %}{{ '\\n' + (tool | tojson) }}{% endfor %}
    {{- '\\n</tools>\\n\\nFor each function call, return a json object with function name and arguments ' }}
    {{- 'within <tool_call></tool_call> XML tags:\\n<tool_call>\\n' }}
    {{- '{"name": <function-name>, "arguments": <args-json-object>}\\n</tool_call><|im_end|>\\n' }}
{%- elif with_system %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set found = namespace(query=messages | length - 1, done=false) %}
{%- for message in messages[::-1] %}
    {%- if not found.done and message.role == 'user' %}
        {%- set said = text_of(message.content).strip() %}
        {%- if not (said.startswith('<tool_response>') and said.endswith('</tool_response>')) %}
            {%- set found.query = messages | length - loop.index %}
            {%- set found.done = true %}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + text_of(message.content) + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {%- set thought = message.reasoning_content if message.reasoning_content is string else '' %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 > found.query and (loop.last or thought) %}
            {{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' }}
            {{- text_of(message.content).lstrip('\\n') }}
        {%- else %}
            {{- text_of(message.content) }}
        {%- endif %}
        {%- for call in message.tool_calls or [] %}
            {%- if not loop.first or message.content %}{{ '\\n' }}{% endif %}
            {{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {%- set arguments = call.function.arguments %}
            {{- arguments if arguments is string else (arguments | tojson) }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.first or loop.previtem.role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}
        {{- '\\n<tool_response>\\n' + text_of(message.content) + '\\n</tool_response>' }}
        {%- if loop.last or loop.nextitem.role != 'tool' %}{{ '<|im_end|>\\n' }}{% endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""


def byte_tokenizer(special: tuple[str, ...], markup: tuple[str, ...] = ()) -> Tokenizer:
    """A byte-level BPE of some 400 tokens, the control tokens added behind them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        CORPUS * 4,
        trainers.BpeTrainer(
            vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        ),
    )
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in markup])
    return tokenizer


def save_folder(folder: Path, tokenizer: Tokenizer, template: str, eos: str) -> Path:
    """What a renderer needs of a model folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eos, "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


FAMILY_TOKENS: dict[str, tuple[str, ...]] = {
    "qwen3": CHATML + MARKUP,
    "prime-qwen3": CHATML + MARKUP,
    "qwen3.5": (*CHATML, *MARKUP, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
    "qwen3.6": (*CHATML, *MARKUP, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
    "qwen3.8": (*CHATML, *MARKUP, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
    "nemotron-3": CHATML + MARKUP,
    "nemotron-3-ultra": CHATML + MARKUP,
    "nemotron-3.5": CHATML + MARKUP,
    "glm-4.5": (
        *("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>", "<|endoftext|>"),
        *("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", *MARKUP),
    ),
    "glm-5": (
        *("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>", "<|endoftext|>"),
        *("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", *MARKUP),
    ),
    "llama-3": (
        *("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
        *("<|eot_id|>", "<|end_of_text|>", "<|eom_id|>", "<|python_tag|>"),
    ),
    "minimax-m2": (
        *("]~!b[", "]~b]", "[e~[", "<think>", "</think>"),
        *("<minimax:tool_call>", "</minimax:tool_call>"),
    ),
    "kimi-k2": (
        *("<|im_user|>", "<|im_assistant|>", "<|im_system|>", "<|im_middle|>", "<|im_end|>"),
        *("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", "<|tool_call_begin|>"),
        *("<|tool_call_argument_begin|>", "<|tool_call_end|>", "<think>", "</think>", "[BOS]", "[EOS]"),
    ),
}


@functools.cache
def family_renderer(name: str, thinking_retention: str = "template") -> tuple[ChatRenderer, PackageFamily]:
    """A family of the package with a tokenizer that has its control tokens."""
    tokens = FAMILY_TOKENS[name]
    special = tuple(token for token in tokens if token not in MARKUP)
    tokenizer = PlainTokenizer(byte_tokenizer(special, tuple(token for token in tokens if token in MARKUP)))
    family = next(family for family in package_families(tokenizer) if family.name == name)
    retention = "all" if thinking_retention == "all" else "template"
    renderer = ChatRenderer(tokenizer, family, stop_ids=family.stop_ids(), thinking_retention=retention)
    return renderer, family
