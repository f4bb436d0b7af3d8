"""The page: HTML that needs nothing but itself, written as it is made."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TextIO

__all__ = ["Section", "image", "number", "swatch", "table", "themed", "write_page"]

STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
Section = Iterable[str]


def write_page(file: TextIO, title: str, sections: Iterable[Section]) -> None:
    """Write a page of pieces of HTML one after the other, so that it never has to fit into memory.

    Args:
        file: where to; open for text in UTF-8.
        title: plain text.
        sections: pieces of HTML, in which all text is escaped.
    """
    file.write(
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
    )
    for section in sections:
        file.writelines(section)
    file.write("</main>\n</body>\n</html>\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> Iterator[str]:
    """A table whose first column is text and whose others are numbers; cells are HTML, ``columns`` plain text."""
    yield '<div class="wide"><table>\n'
    if caption:
        yield f"<caption>{escape(caption)}</caption>\n"
    yield (
        "<thead><tr>" + "".join(f'<th scope="col">{escape(name)}</th>' for name in columns) + "</tr></thead>\n<tbody>\n"
    )
    for first, *others in rows:
        yield f'<tr><th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in others) + "</tr>\n"
    yield "</tbody></table></div>\n"


def image(file: Path, text: str) -> str:
    """The picture in ``file``, in the page itself; ``text`` is said where it can't be seen."""
    return f'<img alt="{escape(text)}" src="{data(file)}">'


def themed(files: Mapping[str, Path], text: str) -> str:
    """The one of two pictures, ``light`` and ``dark``, that suits the page."""
    dark = f'<source media="(prefers-color-scheme: dark)" srcset="{data(files["dark"])}">'
    return f"<picture>{dark}{image(files['light'], text)}</picture>"


def data(file: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"


def swatch(name: str, colour: str) -> str:
    """A structure's name after a spot of its colour."""
    return f'<span class="swatch" style="background:{escape(colour)}"></span>{escape(name)}'


def number(value: float | None, digits: int = 2) -> str:
    """A number for a cell, a dash where there is none.

    Example::

        >>> number(0.5), number(float("nan")), number(1234.5, 0)
        ('0.50', '–', '1234')
    """
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"
