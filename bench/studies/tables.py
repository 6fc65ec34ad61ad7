"""Tables in the documentation that scripts write between markers."""

from __future__ import annotations

from pathlib import Path

from edgeq.outputs import write_text


def replace_table(page: Path, name: str, content: str) -> None:
    """Puts `content` between the lines `<!-- table: name -->` and `<!-- end: name -->` of a page.

    Raises:
        ValueError: If the page lacks the markers.
    """
    begin, end = f"<!-- table: {name} -->", f"<!-- end: {name} -->"
    text = page.read_text(encoding="utf-8")
    if begin not in text or end not in text:
        raise ValueError(f"{page} has no markers for the table {name}")
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    write_text(page, f"{head}{begin}\n\n{content}\n\n{end}{tail}")
