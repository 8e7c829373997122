"""Turns Debian's linux-doc-6.1 into a folder of plain text: the large real text of the retrieval tests.

    python tests/e2e/kernel_documents.py FOLDER

Owns the recipe alone, with the standard library alone. Every HTML page becomes one ``.txt`` of its main part
(navigation, scripts and permalink signs left out); every file under Documentation/ that is not the source of a
page (device-tree bindings, ABI descriptions, plain text, samples) is copied, decompressed, without images. The
same package gives the same bytes, over ten million tokens at four characters each.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

PACKAGE = Path("/usr/share/doc/linux-doc-6.1")
#: Below this the text is not the one that the questions are about.
LEAST_CHARS = 40_000_000

PARAGRAPHS = frozenset(("p", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "table", "dl", "blockquote"))
BREAKS = PARAGRAPHS | {"div", "li", "ul", "ol", "dt", "dd", "tr", "section", "br", "hr"}
DROPPED = frozenset(("script", "style"))
VOID = frozenset(("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"))
IMAGES = frozenset((".svg", ".png", ".gif", ".jpg", ".dot", ".pdf", ".fig"))


class MainText(HTMLParser):
    """Collects the text of ``<div role="main">``; ``pre`` keeps its lines, other white space is folded."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._main_depth: int | None = None
        self._depth = 0
        self._dropped_at: int | None = None
        self._pre = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self._depth += 1
        given = dict(attributes)
        if self._main_depth is None and given.get("role") == "main":
            self._main_depth = self._depth
        if self._main_depth is None or self._dropped_at is not None:
            return
        if tag in DROPPED or given.get("class") == "headerlink":
            self._dropped_at = self._depth
        elif tag in BREAKS:
            self.pieces.append("\n\n" if tag in PARAGRAPHS else "\n")
        elif tag in ("td", "th"):
            self.pieces.append(" ")
        self._pre += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if self._dropped_at == self._depth:
            self._dropped_at = None
        elif self._main_depth is not None and self._dropped_at is None:
            if tag in BREAKS:
                self.pieces.append("\n\n" if tag in PARAGRAPHS else "\n")
            self._pre -= tag == "pre"
        if self._main_depth == self._depth:
            self._main_depth = 1 << 30  # past the main part: nothing more is collected
        self._depth -= 1

    def handle_data(self, data: str) -> None:
        inside = self._main_depth is not None and self._depth >= self._main_depth
        if inside and self._dropped_at is None:
            self.pieces.append(data if self._pre else " ".join(("x" + data + "x").split())[1:-1])

    def text(self) -> str:
        lines = [line.rstrip() for line in "".join(self.pieces).splitlines()]
        kept: list[str] = []
        for line in lines:
            if line or (kept and kept[-1]):
                kept.append(line)
        return "\n".join(kept).strip() + "\n"


def page_text(html: str) -> str:
    parser = MainText()
    parser.feed(html)
    parser.close()
    return parser.text()


def documents(package: Path) -> Iterator[tuple[str, bytes]]:
    """Yields (relative name, bytes) of every text, in the order of the names."""
    for page in sorted((package / "html").rglob("*.html")):
        text = page_text(page.read_text(encoding="utf-8"))
        if len(text) > 1:
            yield str(page.relative_to(package / "html").with_suffix(".txt")), text.encode()
    for file in sorted((package / "Documentation").rglob("*")):
        if not file.is_file() or file.is_symlink():
            continue
        name = str(file.relative_to(package)).removesuffix(".gz")
        if name.endswith(".rst") or Path(name).suffix in IMAGES:
            continue
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        yield name, data


def write_documents(folder: Path, package: Path = PACKAGE) -> tuple[int, int]:
    """Writes all documents below ``folder``; returns their number and characters.

    Raises:
        SystemExit: when the package is not installed, with what to do.
    """
    if not (package / "html").is_dir():
        raise SystemExit(f"{package} has no html folder; install it: apt-get install linux-doc-6.1")
    number = chars = 0
    for name, data in documents(package):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        number += 1
        chars += len(data.decode("utf-8", "surrogateescape"))
    return number, chars


if __name__ == "__main__":
    written, total = write_documents(Path(sys.argv[1]))
    print(f"{written} documents, {total} characters, {total // 4} tokens at four characters each")
    sys.exit(0 if total >= LEAST_CHARS else 1)
