"""Cutting a text into passages of about a thousand characters at the borders that its writer made.

Pure: lines in, passages out. A border is a heading, a blank line, a line end, in that order of preference. Headings are
recognised in reStructuredText, Markdown, Org, and as definitions in source code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

#: A passage is closed at a paragraph's end beyond this many characters …
GOOD_CHARS = 800
#: … and before a paragraph that would bring it beyond this.
MAX_CHARS = 1200
#: A new heading closes a passage of at least this size; smaller ones join, so that no passage is only a title.
MIN_CHARS = 200

_UNDERLINE = re.compile(r"^([=\-~^\"'`#*+:._<>])\1{2,}\s*$")
_MARKDOWN = re.compile(r"^#{1,6}\s+(\S.*?)\s*#*\s*$")
_ORG = re.compile(r"^\*{1,8}\s+(\S.*?)\s*$")
_CODE = re.compile(
    r"^\s*(?:export\s+|public\s+|private\s+|protected\s+|static\s+|pub(?:\([a-z]+\))?\s+|async\s+|abstract\s+|final\s+)*"
    r"(?:class|def|fn|func|function|interface|struct|enum|trait|impl|module|namespace|defun|defmacro|sub|proc)"
    r"\s+([A-Za-z_][\w.:\-]*)|^\((?:defun|defmacro|defcustom|defvar|cl-defun|define)\s+\(?([^\s()]+)"
)


@dataclass(frozen=True, slots=True)
class Passage:
    """Code points ``start`` to ``end``, of which ``line`` is the first line (from 1), under ``heading``."""

    start: int
    end: int
    line: int
    heading: str
    text: str


@dataclass(slots=True)
class _Block:
    """Lines that belong together: a paragraph, or a heading."""

    lines: list[str]
    start: int
    line: int
    heading: str | None = None

    @property
    def chars(self) -> int:
        return sum(map(len, self.lines))


def passages(lines: Iterable[str]) -> Iterator[Passage]:
    """The passages of a text given as its lines, line ends kept. Together they hold all but white space between."""
    open_blocks: list[_Block] = []
    size = 0
    heading = at_open = ""
    for block in _split_long(_blocks(lines)):
        overflows = block.heading is not None or size + block.chars > MAX_CHARS
        if overflows and size >= MIN_CHARS:
            yield from _closed(open_blocks, at_open)
            open_blocks, size = [], 0
        heading = block.heading or heading
        if all(b.heading is not None for b in open_blocks):
            at_open = heading
        open_blocks.append(block)
        size += block.chars
        if size >= GOOD_CHARS and block.heading is None:
            yield from _closed(open_blocks, at_open)
            open_blocks, size = [], 0
    yield from _closed(open_blocks, at_open)


def _closed(blocks: list[_Block], heading: str) -> Iterator[Passage]:
    text = "".join(line for block in blocks for line in block.lines)
    stripped = text.lstrip("\r\n \t")
    lead = len(text) - len(stripped)
    stripped = stripped.rstrip()
    if not stripped:
        return
    # Back to the first line's indent, which a reader of code needs.
    indent = len(text[:lead]) - (text[:lead].rfind("\n") + 1)
    first = lead - indent
    start = blocks[0].start + first
    end = blocks[0].start + lead + len(stripped)
    line = blocks[0].line + text.count("\n", 0, first)
    yield Passage(start, end, line, heading, text[first : lead + len(stripped)])


def _blocks(lines: Iterable[str]) -> Iterator[_Block]:
    """Paragraphs and headings, each with the blank lines that follow it."""
    block: _Block | None = None
    previous: str | None = None
    position, number = 0, 1
    blank = False
    for line in lines:
        is_blank = not line.strip()
        title = None if is_blank else _title_in(line)
        underlines = not is_blank and _is_underline(line, previous)
        if underlines and block is not None:
            before, block = _underlined(block, line)
            if before.lines:
                yield before
        elif block is None:
            block = _Block([line], position, number, title)
        elif (blank and not is_blank) or title is not None:
            yield block
            block = _Block([line], position, number, title)
        else:
            block.lines.append(line)
        blank = is_blank
        previous = None if is_blank else line
        position += len(line)
        number += 1
    if block is not None:
        yield block


def _title_in(line: str) -> str | None:
    """The title that a line is by itself."""
    if len(line) > 300:
        return None
    if line[0] in "#*":
        match = _MARKDOWN.match(line) or _ORG.match(line)
        return None if match is None else match[1]
    match = _CODE.match(line)
    return None if match is None else (match[1] or match[2])


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
    start, number = block.start + block.chars, block.line + newlines
    return block, _Block([*over, title_line, line], start, number, title_line.strip())


def _split_long(blocks: Iterable[_Block]) -> Iterator[_Block]:
    """Cuts blocks above ``MAX_CHARS`` at line ends, and lines above it at white space or anywhere."""
    for block in blocks:
        if block.chars <= MAX_CHARS:
            yield block
            continue
        piece: list[str] = []
        start, line, size = block.start, block.line, 0
        heading = block.heading
        for text in block.lines:
            for part in _parts(text):
                if piece and size + len(part) > MAX_CHARS:
                    yield _Block(piece, start, line, heading)
                    line += sum(p.count("\n") for p in piece)
                    start, piece, size, heading = start + size, [], 0, None
                piece.append(part)
                size += len(part)
        if piece:
            yield _Block(piece, start, line, heading)


def _parts(line: str) -> Iterator[str]:
    while len(line) > MAX_CHARS:
        cut = line.rfind(" ", GOOD_CHARS, MAX_CHARS) + 1 or MAX_CHARS
        yield line[:cut]
        line = line[cut:]
    if line:
        yield line
