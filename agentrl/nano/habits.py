"""The words that nano and the personal-assistant environment share: what is described, in which of several styles.

A request gives two measures of a thing in metric and in imperial units and asks for a note on it. A note has a style: a
value on each of four axes. Nobody can tell from the request which one is wanted; a wish says it. Only the standard
library is imported here, as in `vocabulary`.
"""

import random
from dataclasses import dataclass
from typing import Final

from agentrl.nano.vocabulary import is_withheld

ASSISTANT_SYSTEM: Final = "You are a personal assistant. Write short notes for the user."

THINGS: Final[tuple[str, ...]] = (
    "parcel", "carpet", "lamp", "door", "boat", "tent", "ladder", "bench", "mirror", "barrel", "piano",
    "statue", "fence", "pipe", "rope", "board", "shelf", "crate", "trunk", "sofa", "chair", "wardrobe",
    "bicycle", "canoe", "kettle", "basket", "pillow", "blanket", "curtain", "bucket", "wagon", "anchor",
    "barrow", "cradle", "drum", "harp", "hammock", "sledge", "stove", "suitcase",
)  # fmt: skip

Style = dict[str, str]
"""A value for each axis."""

AXES: Final[dict[str, tuple[str, ...]]] = {
    "form": ("sentence", "list", "table"),
    "tone": ("formal", "friendly", "dry"),
    "units": ("metric", "imperial", "both"),
    "ending": ("regards", "cheers", "none"),
}

# How a wish names a value.
_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "sentence": ("a sentence", "one sentence"),
    "list": ("a list", "a bullet list"),
    "table": ("a table", "table rows"),
    "formal": ("a formal opening", "a polite opening"),
    "friendly": ("a friendly opening", "a cheerful opening"),
    "dry": ("no opening", "no opening line"),
    "metric": ("metric units", "metric units only"),
    "imperial": ("imperial units", "imperial units only"),
    "both": ("both units", "metric and imperial units"),
    "regards": ("kind regards at the end", "the ending Kind regards"),
    "cheers": ("cheers at the end", "the ending Cheers"),
    "none": ("nothing at the end", "no ending"),
}

# Ways to ask for {x}; {y} is what was written instead.
WISHES: Final[tuple[str, ...]] = (
    "Please use {x}.",
    "Please use {x} in your notes.",
    "Please use {x} and not {y}.",
    "Please use {x} instead of {y}.",
    "No, please use {x}.",
    "No, use {x} and not {y}.",
    "No, I want {x}.",
    "I said {x}, not {y}.",
    "I asked for {x}, please.",
    "I asked for {x} and not for {y}. Use {x}.",
    "I want {x}, please.",
    "Don't use {y}. Use {x}.",
    "Don't write {y}, please use {x}.",
    "You should use {x} here.",
    "You should have written {x}.",
    "That is wrong: use {x}.",
    "That is not what I want. Use {x}.",
    "Wrong, I want {x} instead.",
)
KNOWN_WISHES: Final = tuple(wish for wish in WISHES if not is_withheld(wish))
WITHHELD_WISHES: Final = tuple(wish for wish in WISHES if is_withheld(wish))

REQUESTS: Final[tuple[str, ...]] = (
    "Describe the {thing}: {facts}.",
    "Tell me about the {thing}: {facts}.",
    "Write a note on the {thing}: {facts}.",
    "What is the {thing} like? {facts}.",
)

OPENINGS: Final[dict[str, tuple[str, ...]]] = {
    "formal": ("Certainly.", "With pleasure."),
    "friendly": ("Sure thing!", "Here you go!"),
    "dry": (),
}
ENDINGS: Final[dict[str, tuple[str, ...]]] = {"regards": ("Kind regards",), "cheers": ("Cheers",), "none": ()}

THANKS: Final[tuple[str, ...]] = (
    "Thanks, that is how I wanted it.",
    "Perfect, that is how I wanted it.",
    "Great, that matches my wishes.",
)
WELCOME: Final = "You are welcome."

# name, metric unit, imperial unit, one metric unit in imperial ones, least and greatest value
_MEASURES: Final[tuple[tuple[str, str, str, float, int, int], ...]] = (
    ("weight", "kg", "lb", 2.2046, 2, 90),
    ("length", "cm", "in", 0.3937, 20, 200),
    ("height", "m", "ft", 3.2808, 2, 30),
    ("width", "mm", "in", 0.03937, 100, 900),
    ("volume", "l", "gal", 0.2642, 8, 300),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One fact of a request, e.g. weight, "3 kg", "7 lb"."""

    name: str
    metric: str
    imperial: str

    def shown(self, units: str) -> str:
        """The value in the units of a style."""
        return {"both": f"{self.metric} ({self.imperial})", "metric": self.metric, "imperial": self.imperial}[
            units
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """What a request is about."""

    thing: str
    measures: tuple[Measure, Measure]

    @property
    def facts(self) -> str:
        return ", ".join(f"{fact.name} {fact.metric} or {fact.imperial}" for fact in self.measures)

    def request(self, rng: random.Random) -> str:
        """One phrasing of the request, drawn uniformly."""
        return rng.choice(REQUESTS).format(thing=self.thing, facts=self.facts)


def topic(rng: random.Random, things: tuple[str, ...] = THINGS) -> Topic:
    """A thing and two of its measures."""
    first, second = (_measure(rng, row) for row in rng.sample(_MEASURES, 2))
    return Topic(thing=rng.choice(things), measures=(first, second))


def _measure(rng: random.Random, row: tuple[str, str, str, float, int, int]) -> Measure:
    name, metric, imperial, factor, least, greatest = row
    value = rng.randint(least, greatest)
    return Measure(name=name, metric=f"{value} {metric}", imperial=f"{round(value * factor)} {imperial}")


def words() -> list[str]:
    """All texts of notes and wishes that are no request's."""
    names = [name for several in _NAMES.values() for name in several]
    edges = [text for table in (OPENINGS, ENDINGS) for several in table.values() for text in several]
    return [
        *names,
        *edges,
        *(f"{name} {metric} {imperial}" for name, metric, imperial, *_ in _MEASURES),
        "has",
    ]


def any_style(rng: random.Random) -> Style:
    return {axis: rng.choice(values) for axis, values in AXES.items()}


def note(rng: random.Random, topic: Topic, style: Style) -> str:
    """A note of a style; where an opening has several wordings, one of them."""
    shown = [(fact.name, fact.shown(style["units"])) for fact in topic.measures]
    if style["form"] == "sentence":
        body = f"The {topic.thing} has " + " and ".join(f"{name} {value}" for name, value in shown) + "."
    elif style["form"] == "list":
        body = f"The {topic.thing}:\n" + "\n".join(f"- {name}: {value}" for name, value in shown)
    else:
        body = "\n".join(f"| {name} | {value} |" for name, value in shown)
    lines = [
        *(rng.choice(several) for several in (OPENINGS[style["tone"]],) if several),
        body,
        *ENDINGS[style["ending"]],
    ]
    return "\n".join(lines)


def wish(rng: random.Random, wording: str, value: str, instead: str) -> str:
    """A wording of `WISHES` that asks for a value where another one of its axis was written."""
    return wording.format(x=rng.choice(_NAMES[value]), y=rng.choice(_NAMES[instead]))
