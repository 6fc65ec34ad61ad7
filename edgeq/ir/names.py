"""Names that nothing else has."""

from __future__ import annotations

from collections.abc import Container


def unused_name(stem: str, *taken: Container[str]) -> str:
    """Returns `stem`, or `stem_1`, ... : the first that is in none of these."""
    name, count = stem, 0
    while any(name in names for names in taken):
        count += 1
        name = f"{stem}_{count}"
    return name


def take_name(stem: str, taken: set[str], *others: Container[str]) -> str:
    """Returns a name that is in none of these, and adds it to the first."""
    name = unused_name(stem, taken, *others)
    taken.add(name)
    return name
