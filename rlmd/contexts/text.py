"""The stored form of a text: what is binary, what becomes UTF-8, how code points map to bytes and lines.

A stored text is bytes, decoded everywhere by ``decode``: UTF-8 with surrogateescape, so that one byte that is no
UTF-8 is one code point, as in Emacs. Nothing here knows files, blobs or SQLite.
"""

from __future__ import annotations

import codecs
import re
import sys
from array import array
from bisect import bisect_right
from collections.abc import Callable

#: A mark each so many code points: finding an offset decodes half of that on average, about 30 µs, and the marks of
#: 1 GB take 1 MB.
STEP = 16_384
#: Read and decode in pieces of this many bytes: decoding one holds the GIL for under a millisecond.
CHUNK = 256 * 1024
#: How much of a file is looked at to tell text from binary.
SNIFF_BYTES = 8192

_PAGE_END, _PAGE_END_BYTES = re.compile("\f"), re.compile(b"\f")
BOM_UTF8 = codecs.BOM_UTF8
#: UTF-32 first: its little-endian mark begins with that of UTF-16.
_WIDE_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
#: Formats that may show no NUL early on, or look like text (PDF), and are none.
_MAGIC = (
    b"%PDF-",
    b"\x1f\x8b",
    b"PK\x03\x04",
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"GIF8",
    b"BZh",
    b"\xfd7zXZ",
    b"\x28\xb5\x2f\xfd",
    b"7z\xbc\xaf",
    b"\x7fELF",
    b"\x00asm",
    b"wOF2",
    b"OggS",
    b"ID3",
    b"RIFF",
)


def decode(data: bytes | memoryview) -> str:
    """The text of stored bytes; undecodable bytes become lone surrogates, one each."""
    return str(data, "utf-8", "surrogateescape")


def encode(text: str) -> bytes:
    """The stored bytes of a text. Lone surrogates that stand for no byte are kept as three bytes each."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


#: How text is got out of what begins so.
_REMEDIES = (
    ((b"PK\x03\x04", b"7z\xbc\xaf", b"Rar!"), "If it is an archive, unpack it, and load the folder."),
    (
        (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*"),
        "tesseract FILE - reads what is written in a picture.",
    ),
    ((b"SQLite format 3\0",), "sqlite3 FILE .dump writes it as text."),
    ((b"\x7fELF",), "strings FILE, or objdump -d FILE, writes what can be read of it."),
    ((b"\xd0\xcf\x11\xe0",), "libreoffice --convert-to txt FILE makes text of old office documents."),
)


def hint_for(head: bytes) -> str:
    """What to do about a file that begins with ``head`` and is no text."""
    of_kind = next((told for magics, told in _REMEDIES if head.startswith(magics)), "Convert it to text first.")
    return f"{of_kind} A converter of yours, in [converters], does so at each load."


def is_binary(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is no text: a known format, or NULs at the rate of random bytes.

    A stray NUL is no reason: logs have them. Random bytes have one in 256; a text of 8 KiB may have 16.
    """
    if head.startswith(_MAGIC):
        return True
    return head.count(0) > max(4, len(head) // 512)


def wide_encoding(head: bytes) -> tuple[str, int] | None:
    """The UTF-16 or UTF-32 encoding named by a byte order mark, and the mark's length."""
    return next(((name, len(bom)) for bom, name in _WIDE_BOMS if head.startswith(bom)), None)


class Meter:
    """Measures a stored text while its bytes flow by: code points, lines, widest code point, sparse marks."""

    def __init__(self) -> None:
        self.bytes = 0
        self.chars = 0
        self.newlines = 0
        self.max_codepoint = 0x7F
        #: Where the first byte is that is no UTF-8.
        self.first_stray: int | None = None
        #: After a form feed a page begins; the first one does at 0.
        self.pages = array("Q", [0])
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._pending = 0
        self._marks = array("Q")

    def feed(self, data: bytes) -> None:
        """Takes the next bytes; at most ``CHUNK`` of them at a time keeps other threads alive."""
        if data.isascii() and not self._pending:
            self._advance_ascii(data)
        else:
            self._advance(self._decoder.decode(data), self.bytes - self._pending)
            self._pending = len(self._decoder.getstate()[0])
        self.bytes += len(data)

    def finish(self) -> None:
        self._advance(self._decoder.decode(b"", final=True), self.bytes - self._pending)
        self._pending = 0

    @property
    def marks(self) -> bytes:
        """For each full ``STEP`` code points: the byte offset, then the newlines before it (little-endian u64)."""
        marks = self._marks
        if sys.byteorder == "big":  # pragma: no cover
            marks = array("Q", marks)
            marks.byteswap()
        return marks.tobytes()

    def _advance_ascii(self, data: bytes) -> None:
        if b"\f" in data:
            self.pages.extend(self.chars + found.end() for found in _PAGE_END_BYTES.finditer(data))
        counted = 0
        for at in range(STEP - self.chars % STEP, len(data) + 1, STEP):
            self.newlines += data.count(b"\n", counted, at)
            counted = at
            self._marks.extend((self.bytes + at, self.newlines))
        self.newlines += data.count(b"\n", counted)
        self.chars += len(data)

    def _advance(self, text: str, base: int) -> None:
        if not text:
            return
        self._widen(text)
        if "\f" in text:
            self.pages.extend(self.chars + found.end() for found in _PAGE_END.finditer(text))
        if self.first_stray is None:
            self._look_for_stray(text, base)
        counted, offset = 0, base
        for at in range(STEP - self.chars % STEP, len(text) + 1, STEP):
            piece = text[counted:at]
            self.newlines += piece.count("\n")
            offset += len(piece.encode("utf-8", "surrogateescape"))
            counted = at
            self._marks.extend((offset, self.newlines))
        self.newlines += text.count("\n", counted)
        self.chars += len(text)

    def _look_for_stray(self, text: str, base: int) -> None:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            self.first_stray = base + len(text[: error.start].encode("utf-8", "surrogateescape"))

    def _widen(self, text: str) -> None:
        if self.max_codepoint == sys.maxunicode or text.isascii():
            return
        if len(text.encode("utf-16-le", "surrogatepass")) > 2 * len(text):
            self.max_codepoint = sys.maxunicode
        elif self.max_codepoint < 0xFFFF:
            try:
                text.encode("latin-1")
                self.max_codepoint = 0xFF
            except UnicodeEncodeError:
                self.max_codepoint = 0xFFFF


class Ruler:
    """Maps code points of one stored text to bytes and lines, and back.

    Args:
        chars: Code points of the text.
        size: Its bytes.
        marks: As made by ``Meter``.
        read: Gives the text's bytes from an offset to another.
    """

    def __init__(self, chars: int, size: int, marks: bytes, read: Callable[[int, int], bytes]) -> None:
        self._chars = chars
        self._size = size
        self._read = read
        values = array("Q", marks)
        if sys.byteorder == "big":  # pragma: no cover
            values.byteswap()
        self._offsets = values[0::2]
        self._newlines = values[1::2]

    def text(self, start: int, end: int) -> str:
        """The code points from ``start`` to ``end``, both cut to the text."""
        start = min(max(start, 0), self._chars)
        end = min(max(end, start), self._chars)
        if self._chars == self._size:  # each code point is one byte
            return decode(self._read(start, end))
        first = self.byte_of(start)
        data = self._read(first, min(first + 4 * (end - start), self._size))
        return decode(data)[: end - start]

    def byte_of(self, char: int) -> int:
        """The byte offset of a code point."""
        if self._chars == self._size or char <= 0:
            return char
        if char >= self._chars:
            return self._size
        step, rest = divmod(char, STEP)
        base = self._offsets[step - 1] if step else 0
        if not rest:
            return base
        data = decode(self._read(base, min(base + 4 * rest, self._size)))
        return base + len(data[:rest].encode("utf-8", "surrogateescape"))

    def char_of(self, byte: int) -> int:
        """The code point that begins at a byte offset."""
        if self._chars == self._size or byte <= 0:
            return byte
        if byte >= self._size:
            return self._chars
        step = bisect_right(self._offsets, byte)
        base = self._offsets[step - 1] if step else 0
        return step * STEP + len(decode(self._read(base, byte)))

    def line_of(self, char: int) -> int:
        """The line of a code point, from 1."""
        char = min(max(char, 0), self._chars)
        step = char // STEP
        known = self._newlines[step - 1] if step else 0
        base = self._offsets[step - 1] if step else 0
        return known + self._read(base, self.byte_of(char)).count(b"\n") + 1
