"""The converters of our own, in a process that can do nothing but read its input and write its output.

Started by ``converting``: standard input is the file, standard output takes UTF-8. Everything is imported before the
process seals itself, and nothing of the file is read before.
"""

from __future__ import annotations

import bz2
import codecs
import json
import lzma
import os
import posixpath
import re
import resource
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

from rlmd.repl import cage

_PIECE = 256 << 10
#: Looked up before the seal, behind which nothing can be imported.
_CODECS = (
    "latin-1",
    "cp1252",
    "cp1250",
    "cp1251",
    "iso8859-2",
    "koi8-r",
    "shift_jis",
    "euc_jp",
    "gb18030",
    "euc_kr",
    "big5",
)
#: HTML and notebooks are read whole; larger ones are data.
_MAX_WHOLE = 64 << 20


#: What a file that is not what it says leads to; what is encrypted is a RuntimeError of zipfile's.
_DAMAGED = (
    OSError, EOFError, ValueError, LookupError, RuntimeError, MemoryError, zlib.error, lzma.LZMAError,
    zipfile.BadZipFile, ElementTree.ParseError,
)  # fmt: skip


def main() -> None:
    """Arguments: the converter's name, bytes of address space, seconds of CPU time."""
    name, memory, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    convert = CONVERTERS[name]
    for codec in ("utf-8", "cp437", *_CODECS * (name in ("html", "epub"))):
        codecs.lookup(codec)
    _seal(memory, seconds)
    try:
        for piece in convert():
            _write(piece)
    except _DAMAGED:
        os._exit(1)
    os._exit(0)


def _seal(memory: int, seconds: int) -> None:
    limits = [
        (resource.RLIMIT_AS, memory, memory),
        (resource.RLIMIT_CPU, seconds, seconds),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_CORE, 0, 0),
    ]
    try:
        cage.seal(readable=[], landlock=min(cage.landlock_abi(), 1), seccomp=True, limits=limits)
    except (cage.CageError, OSError):
        os._exit(3)


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


# ── compressed files ────────────────────────────────────────────────────────────────────────────────────────


def _decompressed(make: Callable[[], Any]) -> Iterator[bytes]:
    """All members of a file one after the other, never more than a piece in memory."""
    decompressor = make()
    rest = b""
    while data := rest or os.read(0, _PIECE):
        rest = b""
        yield from _flow(decompressor, data)
        if decompressor.eof:
            rest = decompressor.unused_data.lstrip(b"\0")
            decompressor = make()
            if not rest:
                rest = os.read(0, _PIECE)
            if not rest:
                return
    raise EOFError


def _flow(decompressor: Any, data: bytes) -> Iterator[bytes]:
    yield decompressor.decompress(data, _PIECE)
    while not decompressor.eof and not getattr(decompressor, "needs_input", True):
        yield decompressor.decompress(b"", _PIECE)


class _Gzip:
    """zlib's object with the manners of the other two."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    def decompress(self, data: bytes, most: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, most)


# ── HTML ────────────────────────────────────────────────────────────────────────────────────────────────────

_SILENT = frozenset(("script", "style", "template", "noscript", "svg", "head"))
_BLOCKS = frozenset((
    "address", "article", "aside", "blockquote", "dd", "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer",
    "form", "header", "hr", "li", "main", "nav", "ol", "p", "pre", "section", "table", "tbody", "tfoot", "thead", "tr",
    "ul", "h1", "h2", "h3", "h4", "h5", "h6", "br", "title",
))  # fmt: skip
_CHARSET = re.compile(rb"<meta[^>]{0,200}charset=[\"']?([\w-]{1,40})", re.IGNORECASE)


class _Reader(HTMLParser):
    """Text by blocks; headings as ``#`` lines, list items as ``-``, cells apart by tabs."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._silent = 0
        self._kept = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SILENT:
            self._silent += 1
        elif tag == "title" and self._silent:
            self._silent -= 1  # the one thing of a head that is read
            self.pieces.append("\n\n")
        elif tag in _BLOCKS:
            self.pieces.append("\n\n" if tag in ("p", "h1", "h2", "h3", "h4", "h5", "h6", "table") else "\n")
            self.pieces.append("#" * int(tag[1]) + " " if tag[0] == "h" and tag[1:].isdigit() else "- " * (tag == "li"))
            self._kept += tag == "pre"
        elif tag in ("td", "th"):
            self.pieces.append("\t")

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._silent += 1
            self.pieces.append("\n\n")
        elif tag in _SILENT:
            self._silent = max(0, self._silent - 1)
        elif tag in _BLOCKS:
            self._kept -= tag == "pre" and self._kept > 0
            self.pieces.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.pieces.append(data if self._kept else re.sub(r"\s+", " ", data))


def _html() -> Iterator[bytes]:
    yield _read_html(_whole())


def _read_html(data: bytes) -> bytes:
    found = _CHARSET.search(data[:4096])
    reader = _Reader()
    reader.feed(_decoded(data, found[1].decode("ascii") if found else "utf-8"))
    reader.close()
    text = "".join(reader.pieces)
    return re.sub(r"[ \t]*\n(?:[ \t]*\n)+", "\n\n", text).strip().encode("utf-8", "replace") + b"\n"


def _decoded(data: bytes, encoding: str) -> str:
    for name in (encoding, "utf-8"):
        try:
            return data.decode(name)
        except (LookupError, UnicodeDecodeError, ImportError, OSError):  # a codec that would have to be imported now
            continue
    return data.decode("latin-1")


# ── notebooks ───────────────────────────────────────────────────────────────────────────────────────────────


def _notebook() -> Iterator[bytes]:
    """Cells one after the other, each below a heading that says which it is; of outputs, what is text."""
    notebook = json.loads(_whole())
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise ValueError
    for number, cell in enumerate(notebook["cells"], 1):
        if not isinstance(cell, dict):
            raise ValueError
        kind = str(cell.get("cell_type", "raw"))
        source = _joined(cell.get("source"))
        body = f"```\n{source}\n```" if kind == "code" else source
        outputs = [_output(one) for one in cell.get("outputs") or () if isinstance(one, dict)]
        told = "\n".join(f"Output:\n{one}" for one in outputs if one.strip())
        yield f"## Cell {number} ({kind})\n\n{body}\n{told}\n\n".encode("utf-8", "replace")


def _output(output: dict[str, Any]) -> str:
    data = output.get("data")
    if isinstance(data, dict):
        return _joined(data.get("text/plain") or data.get("text/markdown"))
    if output.get("output_type") == "error":
        return f"{output.get('ename')}: {output.get('evalue')}"
    return _joined(output.get("text"))


def _joined(source: object) -> str:
    if isinstance(source, list):
        return "".join(map(str, source))
    return source if isinstance(source, str) else ""


# ── documents that are archives of XML ──────────────────────────────────────────────────────────────────────


def _archive() -> zipfile.ZipFile:
    os.lseek(0, 0, os.SEEK_SET)
    return zipfile.ZipFile(os.fdopen(0, "rb", closefd=False))


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > _MAX_WHOLE:
        raise ValueError
    return archive.read(name)


def _xml(archive: zipfile.ZipFile, name: str) -> ElementTree.Element:
    return ElementTree.fromstring(_member(archive, name))  # noqa: S314  sealed, and expat bounds what entities grow to


def _local(tag: object) -> str:
    """A tag or attribute without its namespace."""
    return str(tag).rpartition("}")[2]


def _attribute(element: ElementTree.Element, name: str) -> str:
    return next((value for key, value in element.attrib.items() if _local(key) == name), "")


def _paragraphs(name: str, ends: frozenset[str], level: Callable[[ElementTree.Element], int]) -> Iterator[bytes]:
    """The paragraphs of a member, one a line, headings as ``#`` lines. What was read is let go of."""
    with _archive() as archive, archive.open(name) as member:
        for _, element in ElementTree.iterparse(member):  # noqa: S314  sealed, and expat bounds what entities grow to
            if _local(element.tag) in ends:
                text = "".join(_said(element)).strip()
                depth = level(element)
                element.clear()
                heading = "\n" + "#" * depth + " " if depth and text else ""
                yield (heading + text + "\n").encode("utf-8", "replace")


def _said(element: ElementTree.Element) -> Iterator[str]:
    """The text of a paragraph: of Word in ``t`` elements alone, of OpenDocument anywhere in it."""
    word = "wordprocessingml" in element.tag
    for one in element.iter():
        kind = _local(one.tag)
        yield {"tab": "\t", "br": "\n", "cr": "\n", "line-break": "\n"}.get(kind, "")
        if kind == "s":
            yield " " * min(100, int(_attribute(one, "c") or 1))
        yield (one.text or "") if not word or kind == "t" else ""
        yield (one.tail or "") if not word and one is not element else ""


def _word_level(paragraph: ElementTree.Element) -> int:
    style = next((_attribute(one, "val") for one in paragraph.iter() if _local(one.tag) == "pStyle"), "")
    found = re.fullmatch(r"\D{0,20}([1-6])|Title", style)
    return int(found[1] or 1) if found else 0


def _odt_level(paragraph: ElementTree.Element) -> int:
    if _local(paragraph.tag) != "h":
        return 0
    return min(6, max(1, int(_attribute(paragraph, "outline-level") or 1)))


def _docx() -> Iterator[bytes]:
    return _paragraphs("word/document.xml", frozenset({"p"}), _word_level)


def _odt() -> Iterator[bytes]:
    return _paragraphs("content.xml", frozenset({"p", "h"}), _odt_level)


def _epub() -> Iterator[bytes]:
    """The chapters in the order of the spine."""
    with _archive() as archive:
        container = _xml(archive, "META-INF/container.xml")
        package = next(_attribute(one, "full-path") for one in container.iter() if _local(one.tag) == "rootfile")
        book = list(_xml(archive, package).iter())
        places = {_attribute(one, "id"): _attribute(one, "href") for one in book if _local(one.tag) == "item"}
        chapters = [places[_attribute(one, "idref")] for one in book if _local(one.tag) == "itemref"]
        for chapter in chapters:
            name = posixpath.normpath(posixpath.join(posixpath.dirname(package), unquote(chapter)))
            yield _read_html(_member(archive, name)) + b"\n"


def _whole() -> bytes:
    data = b""
    while piece := os.read(0, _PIECE):
        data += piece
        if len(data) > _MAX_WHOLE:
            raise ValueError
    return data


CONVERTERS: dict[str, Callable[[], Iterator[bytes]]] = {
    "gzip": lambda: _decompressed(_Gzip),
    "xz": lambda: _decompressed(lzma.LZMADecompressor),
    "bzip2": lambda: _decompressed(bz2.BZ2Decompressor),
    "html": _html,
    "notebook": _notebook,
    "docx": _docx,
    "odt": _odt,
    "epub": _epub,
}
