"""Tables of phrases, as the rules read them."""

from __future__ import annotations


def any_of(table: str) -> str:
    """A pattern that matches any phrase of a table.

    Args:
        table: patterns, parted by "/" or by line ends; a blank stands for any white space.
    """
    phrases = (phrase.strip() for phrase in table.replace("\n", "/").split("/"))
    return "(?:" + "|".join(phrase.replace(" ", r"\s") for phrase in phrases if phrase) + ")"
