"""HTML that cannot be broken out of: text becomes mark-up in one place, and is escaped there.

Names of elements and attributes come from our own code; everything else, whoever wrote it, is text. Characters that
would turn the reading order, or show nothing, are shown by their number.
"""

from __future__ import annotations

import html
import io
import keyword
import re
import tokenize
from collections.abc import Iterable


class Markup(str):
    """HTML that was made here."""

    __slots__ = ()


#: Controls, bidirectional formatting (CVE-2021-42574), zero-width characters, tags, and what no document may hold.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\ufffe\uffff\U000e0000-\U000e007f]"
)
#: Source longer than this is not coloured.
_MOST_COLOURED = 60_000
_CLASSES = {tokenize.COMMENT: "c", tokenize.STRING: "s", tokenize.NUMBER: "n"}


def text(value: str) -> Markup:
    """Any text, as text."""
    shown = _HIDDEN.sub(lambda found: f"\u27e8U+{ord(found[0]):04X}\u27e9", value.replace("\r\n", "\n"))
    return Markup(html.escape(shown, quote=True))


def element(name: str, *content: str, **attributes: str) -> Markup:
    """An element. Content that is no ``Markup`` is escaped, and so is every attribute; ``class_`` means ``class``."""
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{text(value)}"' for key, value in attributes.items())
    return Markup(f"<{name}{given}>{joined(content)}</{name}>")


def joined(parts: Iterable[str], between: str = "") -> Markup:
    """Parts one after the other."""
    return Markup(between.join(part if isinstance(part, Markup) else text(part) for part in parts))


def code(source: str) -> Markup:
    """Python source with its comments, strings, numbers and keywords marked; what is no Python stays plain."""
    if len(source) > _MOST_COLOURED:
        return text(source)
    try:
        return _coloured(source)
    except (tokenize.TokenError, SyntaxError, ValueError):
        return text(source)


def _coloured(source: str) -> Markup:
    """Raises ``ValueError`` where the tokens do not make up the source again."""
    lines = io.StringIO(source).readlines()
    parts: list[Markup] = []
    taken: list[str] = []
    place = (1, 0)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        between, piece = _piece(lines, place, token.start), _piece(lines, token.start, token.end)
        place = max(place, token.end)
        kind = "k" if token.type == tokenize.NAME and keyword.iskeyword(token.string) else _CLASSES.get(token.type, "")
        parts += [text(between), element("span", piece, class_=kind) if kind and piece else text(piece)]
        taken += [between, piece]
    rest = _piece(lines, place, (len(lines) + 1, 0))
    if "".join([*taken, rest]) != source:
        raise ValueError("tokens that overlap")
    return joined([*parts, text(rest)])


def _piece(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    """The source between two places, each a row from 1 and a column."""
    (row, column), (last, until) = start, end
    if row == last:
        return lines[row - 1][column:until] if row <= len(lines) else ""
    middle = lines[row - 1 : last - 1]
    if not middle:
        return ""
    ending = lines[last - 1][:until] if last <= len(lines) else ""
    return middle[0][column:] + "".join(middle[1:]) + ending
