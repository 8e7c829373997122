"""From formats that are no text to text: a table of converters, each run in a cage with caps on size and time.

A converter reads the file from its standard input and writes UTF-8 to its standard output. Those of our own run in a
sealed Python (``converter_child``); commands run in bubblewrap, without network, home or any file but the system's.
What comes in is not trusted: a bomb meets the cap on size, a loop the one on time. Runs on a thread.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlmd.errors import CageUnavailable, NotText, TooLarge

#: Text that one document may become, bytes. The kernel's whole git log has 1 GB; a bomb has no end.
MAX_BYTES = 1 << 30
#: Seconds that one conversion may take: pdftotext reads 1,000 pages in some 3 s.
SECONDS = 120.0
#: Address space of a converter, bytes.
_MEMORY = 2 << 30
_PIECE = 256 << 10
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/alternatives", "/etc/fonts", "/etc/ld.so.cache")


@dataclass(frozen=True, slots=True)
class Converter:
    """``command`` None: one of ours, by its name. ``text``: the format is text too, and converted only when asked.

    ``pages``: form feeds in what it writes end pages. ``remedy`` says how to get the command.
    """

    name: str
    magic: bytes = b""
    suffixes: tuple[str, ...] = ()
    command: tuple[str, ...] | None = None
    pages: bool = False
    text: bool = False
    remedy: str = ""


TABLE = (
    Converter("gzip", magic=b"\x1f\x8b"),
    Converter("xz", magic=b"\xfd7zXZ\x00"),
    Converter("bzip2", magic=b"BZh"),
    Converter("zstd", magic=b"\x28\xb5\x2f\xfd", command=("zstd", "-dcq"), remedy="Install zstd."),
    Converter(
        "pdf", magic=b"%PDF-", command=("pdftotext", "-enc", "UTF-8", "-q", "-", "-"), pages=True,
        remedy="Install poppler (Arch) or poppler-utils (Debian).",
    ),
    Converter("html", suffixes=(".html", ".htm", ".xhtml"), text=True),
    Converter("notebook", suffixes=(".ipynb",), text=True),
    Converter("docx", suffixes=(".docx", ".docm")),
    Converter("odt", suffixes=(".odt",)),
    Converter("epub", suffixes=(".epub",)),
)  # fmt: skip


class Unconvertible(NotText):
    """It is in a format that becomes text elsewhere, but not here: a scan, damaged, or its program is missing."""


class Converters:
    """Args:
    commands: The user's own: name → (suffixes, command). They come before ours.
    """

    def __init__(self, commands: Mapping[str, tuple[Sequence[str], Sequence[str]]] | None = None) -> None:
        own = (
            Converter(name, suffixes=tuple(suffixes), command=tuple(command), text=True)
            for name, (suffixes, command) in (commands or {}).items()
        )
        self._table = (*own, *TABLE)

    def of(self, name: str, head: bytes, *, convert: bool) -> Converter | None:
        """The converter for a file of this name that begins so.

        Args:
            name: The file's.
            head: Its first bytes.
            convert: Whether formats that are text too (HTML, notebooks) become plain text.
        """
        lower = name.lower()
        for one in self._table:
            by_magic = bool(one.magic) and head.startswith(one.magic)
            by_suffix = bool(one.suffixes) and lower.endswith(one.suffixes)
            if by_magic or (by_suffix and (convert or not one.text)):
                return one
        return None


def converted(converter: Converter, fd: int, check: Callable[[], None]) -> Iterator[bytes]:
    """The text of a file, in pieces.

    Args:
        converter: What makes text of it.
        fd: The open file; its position does not matter.
        check: Called again and again; raises when the load is given up.

    Raises:
        Unconvertible: The converter is not installed, or could not read the file.
        TooLarge: It made more than ``MAX_BYTES``, or took more than ``SECONDS``.
        CageUnavailable: A command, and bubblewrap does not work here.
    """
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        process = subprocess.Popen(
            _command(converter), stdin=again, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/",
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8"}, start_new_session=True,
        )  # fmt: skip
    finally:
        os.close(again)
    try:
        yield from _pieces(converter, process, check)
        if process.wait() != 0:
            raise _failed(converter, process.returncode)
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _pieces(converter: Converter, process: subprocess.Popen[bytes], check: Callable[[], None]) -> Iterator[bytes]:
    assert process.stdout is not None
    out = process.stdout.fileno()
    deadline, total = time.monotonic() + SECONDS, 0
    while True:
        check()
        if time.monotonic() > deadline:
            raise TooLarge(
                f"Converting from {converter.name} took more than {SECONDS:g} s.", hint="Convert it by hand, then load."
            )
        if not select.select([out], [], [], 0.2)[0]:
            continue
        piece = os.read(out, _PIECE)
        if not piece:
            return
        total += len(piece)
        if total > MAX_BYTES:
            raise TooLarge(
                f"Converted from {converter.name}, the text has more than {MAX_BYTES} bytes.",
                hint="Unpack it, and load the parts that you need.",
                limit=MAX_BYTES,
            )
        yield piece


def _failed(converter: Converter, status: int) -> Unconvertible:
    return Unconvertible(
        f"It could not be converted from {converter.name} (status {status}): it may be damaged or encrypted.",
        hint="See whether another program can open it.",
    )


def _missing(converter: Converter) -> Unconvertible:
    assert converter.command is not None
    return Unconvertible(
        f"{converter.name} needs the program {converter.command[0]}, which is not installed.",
        hint=converter.remedy or "Install it, or correct the command in the settings.",
    )


def _command(converter: Converter) -> list[str]:
    if converter.command is None:
        return [sys.executable, "-I", "-S", "-c", _START, converter.name, str(_MEMORY), str(int(SECONDS))]
    program = shutil.which(converter.command[0])
    if program is None:
        raise _missing(converter)
    if not _bubblewrap_works():
        raise CageUnavailable(
            f"Converting from {converter.name} runs a program on a file that is not trusted, and bubblewrap does not"
            " work here.",
            hint="Install bubblewrap (bwrap), or convert the file by hand and load the text.",
        )
    limits = ["prlimit", f"--as={_MEMORY}", f"--cpu={int(SECONDS)}", "--nofile=256", "--core=0", "--"]
    return [*limits, *_caged(program), program, *converter.command[1:]]


def _caged(program: str) -> list[str]:
    arguments = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"]
    arguments += ["--setenv", "LANG", "C.UTF-8", "--setenv", "PATH", "/usr/local/bin:/usr/bin:/bin"]
    for path in _SYSTEM:
        if os.path.islink(path):
            arguments += ["--symlink", os.readlink(path), path]
        else:
            arguments += ["--ro-bind-try", path, path]
    real = os.path.realpath(program)
    if not real.startswith(("/usr/", "/bin/")):
        arguments += ["--ro-bind", real, program]
    arguments += ["--proc", "/proc", "--dev", "/dev", "--size", str(64 << 20), "--tmpfs", "/tmp"]  # noqa: S108  its own
    return [*arguments, "--remount-ro", "/", "--chdir", "/tmp", "--"]  # noqa: S108


@functools.cache
def _bubblewrap_works() -> bool:
    if shutil.which("bwrap") is None or shutil.which("prlimit") is None:
        return False
    tried = subprocess.run(
        [*_caged("/bin/true"), "/bin/true"], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    return tried.returncode == 0


_HERE = Path(__file__).resolve().parent
#: Runs the two files that it needs and nothing else of rlmd, whose imports take ten times as long as a conversion.
_START = f"""
import sys, types
from importlib import util
for name in ("rlmd", "rlmd.repl", "rlmd.contexts"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = []
def run(name, path):
    spec = util.spec_from_file_location(name, path)
    module = sys.modules[name] = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
sys.modules["rlmd.repl"].cage = run("rlmd.repl.cage", {str(_HERE.parent / "repl" / "cage.py")!r})
run("rlmd.contexts.converter_child", {str(_HERE / "converter_child.py")!r}).main()
"""
