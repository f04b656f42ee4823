"""Conversations of a personal assistant: notes in one of many styles, and wishes that are obeyed from then on.

Where nobody has said anything each value of an axis is equally likely; within a conversation a style is kept.
"""

import random

from agentrl.nano import habits as h
from agentrl.nano.corpus import any_operation, any_rule, hint_text, say, strange_words, user
from agentrl.nano.encoding import POSITIONS, Block, Example, Message, Position


def wish_text(rng: random.Random, value: str, instead: str, *, held_out: bool = False) -> str:
    """A wish in a known wording, often with strange words in it, or in a withheld one."""
    if held_out:
        return h.wish(rng, rng.choice(h.WITHHELD_WISHES), value, instead)
    wording = rng.choice(h.KNOWN_WISHES)
    return h.wish(rng, strange_words(rng, wording) if rng.random() < 0.3 else wording, value, instead)


def other(rng: random.Random, axis: str, value: str) -> str:
    """Another value of the axis."""
    return rng.choice([each for each in h.AXES[axis] if each != value])


def wish_blocks(rng: random.Random, wishes: list[str], position: Position) -> tuple[Block, ...]:
    """Wishes as hints or skills, in one block or in several; seldom with a hint of the shell's among them."""
    texts = []
    for wish in wishes:
        draw = rng.random()
        if draw < 0.75:
            texts.append(f"Hint: {wish}")
        elif draw < 0.85:
            texts.append(f"Feedback: {wish}")
        else:
            name = "-".join(word.strip(".,:'").lower() for word in wish.split()[:4])
            texts.append(f'Skill: user-said-{name}\nThe user said: "{wish}"')
    if rng.random() < 0.1:
        texts.append(hint_text(rng, any_rule(rng, any_operation(rng))))
    rng.shuffle(texts)
    if rng.random() < 0.5:
        texts = ["\n".join(texts)]
    return tuple(Block(position=position, text=text) for text in texts)


def wished(rng: random.Random) -> Example:
    """One request and one to four hints that ask for a style; the axes of which nothing is said are free."""
    topic, style = h.topic(rng), h.any_style(rng)
    axes = rng.sample(tuple(h.AXES), rng.choice((1, 1, 1, 2, 2, 3, 4)))
    wishes = [wish_text(rng, style[axis], other(rng, axis, style[axis])) for axis in axes]
    messages = [*opening(), user(topic.request(rng)), say(h.note(rng, topic, style))]
    return Example(
        kind="wished",
        messages=messages,
        tools=None,
        blocks=wish_blocks(rng, wishes, rng.choice(POSITIONS)) if rng.random() < 0.85 else (),
        trained=frozenset({len(messages) - 1}),
    )


def corrected(rng: random.Random) -> Example:
    """Corrections and further requests: what was wished holds to the end, and the rest of the style stays.

    Sometimes hints are shown to the last reply, which then is the only one to be learned.
    """
    topic, style = h.topic(rng), h.any_style(rng)
    messages: list[Message] = [
        *(opening() if rng.random() < 0.9 else []),
        user(topic.request(rng)),
        say(h.note(rng, topic, style)),
    ]
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        if rng.random() < 0.65:
            axis = rng.choice(tuple(h.AXES))
            value = other(rng, axis, style[axis])
            messages.append(user(wish_text(rng, value, style[axis])))
            style = style | {axis: value}
        else:
            topic = h.topic(rng)
            messages.append(user(topic.request(rng)))
        messages.append(say(h.note(rng, topic, style)))
    blocks: tuple[Block, ...] = ()
    trained = {index for index, message in enumerate(messages) if message["role"] == "assistant"}
    if rng.random() < 0.3:
        axes = rng.sample(tuple(h.AXES), rng.choice((1, 1, 2)))
        wishes = {axis: other(rng, axis, style[axis]) for axis in axes}
        texts = [wish_text(rng, value, style[axis]) for axis, value in wishes.items()]
        blocks = wish_blocks(rng, texts, rng.choice(("tail", "last_user")))
        messages[-1], trained = say(h.note(rng, topic, style | wishes)), {len(messages) - 1}
    elif rng.random() < 0.2:
        messages += [user(rng.choice(h.THANKS)), say(h.WELCOME)]
        trained.add(len(messages) - 1)
    return Example(kind="corrected", messages=messages, tools=None, blocks=blocks, trained=frozenset(trained))


def opening() -> list[Message]:
    """The messages before the first request."""
    return [{"role": "system", "content": h.ASSISTANT_SYSTEM}]
