"""Cutting a text into passages of about a thousand characters at the borders that its writer made.

Pure: lines in, passages out. A border is a heading, a blank line, a list item, a line end, in that order of preference.
Headings are recognised in reStructuredText, Markdown, Org, and as definitions in source code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

#: A passage is closed at a paragraph's end beyond this many characters …
GOOD_CHARS = 800
#: … and before a paragraph or list item that would bring it beyond this.
MAX_CHARS = 1200
#: A new heading closes a passage of at least this size; smaller ones join, so that no passage is only a title.
MIN_CHARS = 200
#: Of a line that may be a heading without mark-up, what does not end one, and the paragraph that must stand below it.
_LONGEST_TITLE = 80
_NO_TITLE_END = frozenset(".,:;!?\\{}|&=>\"'”’")
_LEAST_BELOW = 60
#: Only longer paragraphs are cut at their list items.
_LONG_PARAGRAPH = 300

Syntax = Literal["plain", "markdown", "org", "code"]
_SYNTAXES: dict[str, Syntax] = {
    "": "plain",
    "txt": "plain",
    "text": "plain",
    "rst": "plain",
    "rest": "plain",
    "log": "plain",
    "md": "markdown",
    "markdown": "markdown",
    "mkd": "markdown",
    "org": "org",
}
_UNDERLINE = re.compile(r"^([=\-~^\"'`#*+:._<>])\1{2,}\s*$")
_TITLES: dict[Syntax, re.Pattern[str]] = {
    "markdown": re.compile(r"^(?P<level>#{1,6})\s+(?P<title>\S.*?)\s*#*\s*$"),
    "org": re.compile(r"^(?P<level>\*{1,8})\s+(?P<title>\S.*?)\s*$"),
    "code": re.compile(
        r"^(?P<level>\s*)(?:(?:export|public|private|protected|static|pub(?:\([a-z]+\))?|async|abstract|final)\s+)*"
        r"(?:class|def|fn|func|function|interface|struct|enum|trait|impl|module|namespace|sub|proc"
        r"|\((?:defun|defmacro|defcustom|defvar|cl-defun|define))\s+\(?(?P<title>[A-Za-z_](?:[\w.:\-]*\w)?)"
    ),
}
_ITEM = re.compile(r"^\s*(?:[-*+•]|\(?[0-9]{1,3}[.)]|\(?[a-z#][.)])\s")


@dataclass(frozen=True, slots=True)
class Passage:
    """Code points ``start`` to ``end``, of which ``line`` is the first line (from 1).

    ``trail`` are the headings above it, the outermost first.
    """

    start: int
    end: int
    line: int
    trail: tuple[str, ...]
    text: str

    @property
    def heading(self) -> str:
        return self.trail[-1] if self.trail else ""


@dataclass(slots=True)
class _Block:
    """Lines that belong together: a paragraph, a part of one, or a heading.

    ``level`` is a heading's depth, or, where ranks are only told by the order of their first use, its style; ``ends``
    says that a paragraph ends here.
    """

    lines: list[str]
    start: int
    line: int
    heading: str | None = None
    level: int | str = ""
    ends: bool = True

    @property
    def chars(self) -> int:
        return sum(map(len, self.lines))


def syntax_of(name: str) -> Syntax:
    """How a document's headings look, by the ending of its name."""
    base = name.rsplit("/", 1)[-1]
    return _SYNTAXES.get(base.rpartition(".")[2].lower() if "." in base else "", "code")


def passages(lines: Iterable[str], syntax: Syntax = "plain") -> Iterator[Passage]:
    """The passages of a text given as its lines, line ends kept. Together they hold all but white space between."""
    blocks: list[_Block] = []
    size = 0
    trail: list[tuple[int | str, str]] = []
    at_open: tuple[str, ...] = ()
    for block in _small(_titled(_blocks(lines, syntax), syntax)):
        overflows = block.heading is not None or size + block.chars > MAX_CHARS
        if overflows and size >= MIN_CHARS:
            yield from _closed(blocks, at_open)
            blocks, size = [], 0
        if block.heading is not None:
            trail = _extended(trail, block.level, block.heading)
        if not blocks or block.heading is not None:  # what it joins is short: most of the passage lies under it
            at_open = tuple(title for _, title in trail)
        blocks.append(block)
        size += block.chars
        if size >= GOOD_CHARS and block.heading is None and block.ends:
            yield from _closed(blocks, at_open)
            blocks, size = [], 0
    yield from _closed(blocks, at_open)


def _extended(trail: list[tuple[int | str, str]], level: int | str, heading: str) -> list[tuple[int | str, str]]:
    """The trail with a new heading, which ends those of its own rank and below."""
    levels = [known for known, _ in trail]
    kept: list[tuple[int | str, str]]
    if isinstance(level, int):
        kept = [(known, title) for known, title in trail if isinstance(known, int) and known < level]
    else:
        kept = trail[: levels.index(level)] if level in levels else trail
    return [*kept[-5:], (level, heading)]


def _closed(blocks: list[_Block], trail: tuple[str, ...]) -> Iterator[Passage]:
    text = "".join(line for block in blocks for line in block.lines)
    if not text.strip():
        return
    lead = len(text) - len(text.lstrip())
    first = text.rfind("\n", 0, lead) + 1  # back over the first line's indent, which a reader of code needs
    past = len(text.rstrip())
    start = blocks[0].start
    yield Passage(start + first, start + past, blocks[0].line + text.count("\n", 0, first), trail, text[first:past])


def _blocks(lines: Iterable[str], syntax: Syntax) -> Iterator[_Block]:
    """Paragraphs and headings, each with the blank lines that follow it."""
    block: _Block | None = None
    previous: str | None = None
    position, number = 0, 1
    blank = False
    underlined = syntax in ("plain", "markdown")
    for line in lines:
        is_blank = not line.strip()
        title = None if is_blank else _title_in(line, syntax)
        if underlined and block is not None and not is_blank and _is_underline(line, previous):
            before, block = _underlined(block, line)
            if before.lines:
                yield before
        elif block is None:
            block = title or _Block([], position, number)
            _place(block, line, position, number)
        elif (blank and not is_blank) or title is not None or (block.heading is not None and not is_blank):
            yield block
            block = title or _Block([], position, number)
            _place(block, line, position, number)
        else:
            block.lines.append(line)
        blank = is_blank
        previous = None if is_blank else line
        position += len(line)
        number += 1
    if block is not None:
        yield block


def _titled(blocks: Iterable[_Block], syntax: Syntax) -> Iterator[_Block]:
    """Text that lost its mark-up: a short line that stands alone above a longer paragraph is taken for its heading."""
    if syntax != "plain":
        yield from blocks
        return
    waiting: list[_Block] = []
    level = "first"
    for block in blocks:
        if block.heading is None and _may_be_title(block):
            waiting.append(block)
            continue
        if waiting and block.heading is None:
            level = _make_title(waiting, block, level)
        yield from waiting
        waiting.clear()
        yield block
    yield from waiting


def _may_be_title(block: _Block) -> bool:
    first = block.lines[0]
    if len(first) > _LONGEST_TITLE or any(not line.isspace() for line in block.lines[1:]):
        return False
    return first[0].isalnum() and first.rstrip()[-1] not in _NO_TITLE_END and _ITEM.match(first) is None


def _make_title(waiting: list[_Block], below: _Block, level: str) -> str:
    """The last of the short lines before a paragraph is its title; the text's first title stands above all others."""
    last = waiting[-1]
    if below.chars < max(_LEAST_BELOW, len(last.lines[0])):
        return level
    if level == "first" and len(waiting) > 1:
        waiting[0].heading, waiting[0].level = waiting[0].lines[0].strip(), level
        level = "bare"
    last.heading, last.level = last.lines[0].strip(), level
    return "bare"


def _place(block: _Block, line: str, position: int, number: int) -> None:
    block.lines.append(line)
    block.start, block.line = position, number


def _title_in(line: str, syntax: Syntax) -> _Block | None:
    """The heading that a line is by itself."""
    pattern = _TITLES.get(syntax)
    if pattern is None or len(line) > 300:
        return None
    match = pattern.match(line)
    return None if match is None else _Block([], 0, 0, match["title"], len(match["level"]))


def _is_underline(line: str, previous: str | None) -> bool:
    if previous is None or not _UNDERLINE.match(line):
        return False
    title = previous.strip()
    return bool(title) and len(title) <= len(line.strip()) + 2 and not _UNDERLINE.match(previous)


def _underlined(block: _Block, line: str) -> tuple[_Block, _Block]:
    """Splits off the block's last line: with this underline it is a heading."""
    title_line = block.lines.pop()
    over: list[str] = []
    if block.lines and _UNDERLINE.match(block.lines[-1]):
        over = [block.lines.pop()]
    newlines = sum(text.count("\n") for text in block.lines)
    level = ("over " if over else "") + line[0]
    heading = _Block(
        [*over, title_line, line], block.start + block.chars, block.line + newlines, title_line.strip(), level
    )
    block.heading = None if not block.lines else block.heading
    return block, heading


def _small(blocks: Iterable[_Block]) -> Iterator[_Block]:
    """Cuts long paragraphs at their list items, at line ends where these are too long, and lines where they are."""
    for block in blocks:
        if block.chars <= _LONG_PARAGRAPH:
            yield block
            continue
        parts = list(_parts(block))
        for part in parts[:-1]:
            part.ends = False
        yield from parts


def _parts(block: _Block) -> Iterator[_Block]:
    piece = _Block([], block.start, block.line, block.heading, block.level)
    size = 0
    for line in block.lines:
        for text in _bounded(line):
            is_item = size > 0 and _ITEM.match(text) is not None and text is line
            if piece.lines and (is_item or size + len(text) > GOOD_CHARS):
                yield piece
                newlines = sum(t.count("\n") for t in piece.lines)
                piece, size = _Block([], piece.start + size, piece.line + newlines), 0
            piece.lines.append(text)
            size += len(text)
    if piece.lines:
        yield piece


def _bounded(line: str) -> Iterator[str]:
    """A line in pieces of at most ``MAX_CHARS``, cut after a space where there is one."""
    while len(line) > MAX_CHARS:
        cut = line.rfind(" ", GOOD_CHARS, MAX_CHARS) + 1 or MAX_CHARS
        yield line[:cut]
        line = line[cut:]
    if line:
        yield line
