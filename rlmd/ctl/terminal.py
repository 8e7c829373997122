"""What rlmctl writes and how: results to stdout, everything else to stderr, nothing that could drive a terminal.

Text of contexts and models is foreign: its control characters are shown, not sent. Colours and live display are
for terminals only. Nothing here knows a method of the protocol.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TextIO

from rlmd.errors import Unavailable

if TYPE_CHECKING:
    from pydantic import BaseModel

    from rlmd.errors import RlmdError

Style = Literal["bold", "dim", "red", "yellow", "green"]
_CODES: dict[Style, str] = {"bold": "1", "dim": "2", "red": "31", "yellow": "33", "green": "32"}

#: Methods that are commands of the same name; in a path they are neither.
_METHOD = re.compile(
    r"(?<![\w/.~-])(context|run|session|host|daemon)"
    r"/(load|list|info|peek|search|drop|show|reset|cancel|attach|confirm|continue|export|delete|add|remove|status|doctor|gc|update|flags|diff|pause|resume|wake)(?![\w/.-]*/)\b"
)
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
#: ESC and the other C0 controls become their pictures; C1 controls, lone surrogates and the signs that turn the
#: direction of writing round (which can make a quote read as another) become replacement characters.
_SHOWN: dict[int, str] = {
    **{code: chr(0x2400 + code) for code in range(0x20) if code not in (0x09, 0x0A)},
    0x7F: "\N{SYMBOL FOR DELETE}",
    **dict.fromkeys((*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)), _REPLACEMENT),
    **dict.fromkeys(range(0xD800, 0xE000), _REPLACEMENT),
}


def shown(text: str) -> str:
    """Foreign text as it may be written to a terminal: line breaks and tabs kept, other controls made visible."""
    return text.replace("\r\n", "\n").translate(_SHOWN)


def one_line(text: str, width: int | None = None) -> str:
    """Foreign text on one line, blanks collapsed; cut to ``width`` characters with an ellipsis."""
    line = " ".join(shown(text[: 4 * width + 200] if width else text).split())
    return line if width is None or len(line) <= width else line[: max(1, width - 1)].rstrip() + "…"


@dataclass(frozen=True, slots=True)
class Output:
    """The two streams of a command.

    Attributes:
        colour_out, colour_err: Whether that stream is a terminal that may get colours.
        live: Whether stderr is a terminal on which lines may be rewritten.
        quiet: Whether remarks (not errors) are left out.
    """

    out: TextIO
    err: TextIO
    colour_out: bool = False
    colour_err: bool = False
    live: bool = False
    quiet: bool = False

    @classmethod
    def standard(cls, *, quiet: bool = False, environment: Mapping[str, str] = os.environ) -> Output:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")  # a locale that cannot write a sign of the answer
        capable = environment.get("TERM", "dumb") != "dumb"
        colour = capable and not environment.get("NO_COLOR")
        return cls(
            sys.stdout,
            sys.stderr,
            colour_out=colour and sys.stdout.isatty(),
            colour_err=colour and sys.stderr.isatty(),
            live=capable and sys.stderr.isatty() and not quiet,
            quiet=quiet,
        )

    def print(self, text: str = "") -> None:
        """A line of the result. Raises ``Unavailable`` where it cannot be written."""
        with self._told():
            self.out.write(text + "\n")

    def flush(self) -> None:
        """Raises ``Unavailable`` where what was printed cannot be written."""
        with self._told():
            self.out.flush()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """A full disk is said; that nobody reads on has a status of its own. What is left then goes nowhere: the
        interpreter's own flush at the end must not fail again."""
        try:
            yield
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.out.fileno())
            if isinstance(error, BrokenPipeError):
                raise
            raise Unavailable(
                f"The result cannot be written to standard output: {error.strerror}.",
                hint="Nothing else failed; the answer of a run is kept: rlmctl run list",
            ) from error

    def remark(self, text: str, style: Style | None = "dim") -> None:
        """A line beside the result."""
        if not self.quiet:
            self.err.write(self.painted_err(text, style) + "\n")
            self.err.flush()

    def error(self, error: RlmdError) -> None:
        self.err.write(f"{self.painted_err('error:', 'red')} {shown(error.message)}\n")
        self.hint(error.hint)

    def hint(self, hint: str) -> None:
        """What to do next, below what was wrong."""
        for line in shown(_as_commands(hint)).strip().splitlines():
            self.err.write(f"  {line}\n")
        self.err.flush()

    def model(self, model: BaseModel) -> None:
        """A result as one JSON object: escaped, so that no control character reaches a terminal."""
        import json

        self.print(json.dumps(model.model_dump(mode="json"), ensure_ascii=self.out.isatty(), indent=2))

    def json_line(self, model: BaseModel) -> None:
        import json

        self.print(json.dumps(model.model_dump(mode="json"), ensure_ascii=self.out.isatty(), separators=(",", ":")))
        self.flush()

    def table(self, header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> None:
        """Aligned with a header on a terminal; tab-separated and bare in a pipe, for cut and awk.

        Args:
            right: Numbers of the columns that are aligned to the right.
        """
        cells = [[one_line(cell) for cell in row] for row in rows]
        if not self.out.isatty():
            for row in cells:
                self.print("\t".join(row))
            return
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        numbers = set(right)
        for index, name in enumerate(header):
            table.add_column(name, justify="right" if index in numbers else "left", overflow="fold")
        for row in cells:
            table.add_row(*map(Text, row))
        Console(file=self.out, no_color=not self.colour_out, highlight=False, markup=False).print(table)

    def painted(self, text: str, style: Style | None) -> str:
        """For stdout."""
        return _painted(text, style) if self.colour_out else text

    def painted_err(self, text: str, style: Style | None) -> str:
        return _painted(text, style) if self.colour_err else text


def _as_commands(hint: str) -> str:
    """A hint of the daemon speaks of methods; who reads it here has commands."""
    return _METHOD.sub(lambda found: f"rlmctl {found[1]} {found[2]}".replace(" daemon ", " "), hint)


def _painted(text: str, style: Style | None) -> str:
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if style and text else text


# ── figures for people ──────────────────────────────────────────────────────────────────────────────────────────


def count(number: int, noun: str, plural: str | None = None) -> str:
    """``1 file``, ``1,204 files``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def size(number: float, unit: str = "B") -> str:
    """``950 B``, ``11.4 MB``: three figures that matter."""
    for prefix in ("", "k", "M", "G"):
        if abs(number) < 999.5:
            return f"{number:.3g} {prefix}{unit}"
        number /= 1000
    return f"{number:.3g} T{unit}"


def duration(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``2:05``, ``1:02:05``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def ago(seconds: float) -> str:
    """``now``, ``5 min ago``, ``3 h ago``, ``12 d ago``."""
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{int(seconds // unit)} {name} ago"
    return "now"
