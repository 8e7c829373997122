"""Runs cells in a process of its own; trusted with nothing (child side, standard library alone).

Nothing in this file protects anybody: the cage does (``cage.py``), and the parent checks every frame. Here are the
semantics: cells share one namespace, names bound before an exception stay, top-level ``await`` works, the last
expression is echoed, tracebacks show the cell's own lines, the scaffold names come back with each cell.
The frames are described in ``link.py``.
"""

from __future__ import annotations

import _ast  # ast itself takes 4 ms of a worker's start
import ctypes
import linecache
import os
import random
import signal
import sys
import threading
import types
from collections.abc import Callable

from rlmd.repl import asking, awaiting, cage, cutting, link, scaffold, shapes, spans, texts
from rlmd.repl.asking import Parent
from rlmd.repl.awaiting import CellLoop
from rlmd.repl.link import Channel, Frame, Header, Interrupts, encode, fitting
from rlmd.repl.scaffold import Scaffold, Shown, tell
from rlmd.repl.spans import Tracer

TYPE_CHECKING = False  # the module typing takes 3 ms of a worker's start
if TYPE_CHECKING:
    from typing import Any, TextIO
else:
    Any = object

#: Where the last expression of a cell is kept until it is echoed.
ECHO = "__rlmd_last__"
#: Frames of these files are left out of tracebacks.
OWN_FILES = {
    __file__,
    *(module.__file__ for module in (asking, awaiting, cage, cutting, link, scaffold, shapes, spans, texts)),
}
_COROUTINE = 0x80  # CO_COROUTINE
#: Where the channel and a second descriptor of the output are kept: out of the way of what cells open and close.
_CHANNEL, _OUTPUT = 200, 201


class Repl:
    """One namespace, one cell after the other."""

    def __init__(self, channel: Channel, interrupts: Interrupts) -> None:
        self.module = types.ModuleType("__main__")
        sys.modules["__main__"] = self.module
        self._interrupts = interrupts
        self._tracer = Tracer()
        self.parent = Parent(channel, self._tracer)
        self.scaffold = Scaffold(self.module.__dict__, self.parent, self._tracer)
        self._streams = open_streams()
        _attempt(flush_c_by_line)
        self._loop = CellLoop()

    def run_cell(self, number: int, source: str, echo: int) -> Frame:
        """Runs one cell and describes how it ended; never raises."""
        self._mend()
        self.scaffold.restore()
        error: str | None = None
        answer: str | None = None
        names: list[tuple[str, str, str]] = []
        try:
            self._interrupts.arm()
            error = self._attempt_cell(source, f"<cell {number}>", echo)
            names = self.scaffold.variables()
            answer = self.scaffold.settle_answer()
            self._interrupts.disarm()
        except BaseException as problem:  # noqa: BLE001  what a cell raises ends the cell, whatever it is
            self._interrupts.disarm()
            error = error or self._explain(problem)
        self._quiet()
        for stream in (sys.stdout, sys.stderr):
            _attempt(stream.flush)
        return self._done(number, error, answer, names)

    def _mend(self) -> None:
        """What an earlier cell may have broken of the streams and the signal comes back."""
        self._interrupts.install()
        for descriptor in (1, 2):
            os.dup2(_OUTPUT, descriptor)
        if any(stream.closed for stream in self._streams):
            self._streams = open_streams()
        sys.stdout, sys.stderr = self._streams

    def _attempt_cell(self, source: str, filename: str, echo: int) -> str | None:
        try:
            self._execute(source, filename, echo)
        except SystemExit as leaving:
            tell("sys.exit() ends the cell, not the REPL")
            return None if leaving.code in (None, 0) else f"SystemExit: {leaving.code}"[:500]
        except BaseException as problem:  # noqa: BLE001  as above
            return self._explain(problem)
        return None

    def _execute(self, source: str, filename: str, echo: int) -> None:
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
        code = compile_cell(source, filename)
        namespace = self.module.__dict__
        namespace.pop(ECHO, None)
        if code.co_flags & _COROUTINE:  # it awaits at its top level
            self._loop.run(types.FunctionType(code, namespace)())
        else:
            exec(code, namespace)
        value = namespace.pop(ECHO, None)
        if value is not None:
            sys.stdout.write(shorten(value, echo) + "\n")

    def _quiet(self) -> None:
        """Ends the cell's timers and the loop's idle threads."""
        for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
            signal.setitimer(timer, 0)
        _attempt(self._loop.quiet)

    def _explain(self, problem: BaseException) -> str:
        """Writes the traceback, without our own frames, and returns its last line."""
        import traceback  # 4 ms at start

        if isinstance(problem, KeyboardInterrupt) and self._interrupts.stopped:
            frames = _cells_part(list(traceback.extract_tb(problem.__traceback__)))
            where = f" in line {frames[-1].lineno} of {frames[-1].filename}" if frames else ""
            _attempt(lambda: sys.stderr.write(f"KeyboardInterrupt: stopped{where}; names bound so far are kept\n"))
            return "KeyboardInterrupt"
        try:
            told = traceback.TracebackException.from_exception(problem, compact=True)
            one: Any = told
            while one is not None:
                one.stack = traceback.StackSummary.from_list(_cells_part(one.stack))
                one = one.__cause__ or one.__context__
            text = "".join(told.format())
            last = "".join(told.format_exception_only()).strip().splitlines()[-1]
        except BaseException:  # noqa: BLE001  an exception of a cell's own may fail to be shown
            text = last = type(problem).__name__
        _attempt(sys.stdout.flush)
        _attempt(lambda: sys.stderr.write(text if text.endswith("\n") else text + "\n"))
        return last[:500]

    def _done(self, number: int, error: str | None, answer: str | None, names: list[tuple[str, str, str]]) -> Frame:
        final, text, content = self.scaffold.final, b"", b""
        header: Header = {"t": "done", "cell": number, "ok": error is None, "stopped": self._interrupts.stopped}
        header |= {"error": None if error is None else clean(error), "final": None, "answer": None}
        header["names"] = fitting([[clean(part) for part in name] for name in names])
        header["threads"] = threading.active_count()
        if final is not None:
            text = encode(final[0])
            header["final"] = [len(text), final[1], final[2] if len(final[2] or "") <= 200 else None]
        if answer is not None and final is None:
            content = encode(answer)
            header["answer"] = len(content)
        return header, text + content


def compile_cell(source: str, filename: str) -> types.CodeType:
    """Compiles a cell, with top-level ``await``; a last expression is bound to ``ECHO``."""
    tree: Any = compile(source, filename, "exec", _ast.PyCF_ONLY_AST)
    if tree.body and isinstance(tree.body[-1], _ast.Expr):
        last: Any = tree.body[-1]
        place = {name: getattr(last, name) for name in ("lineno", "col_offset", "end_lineno", "end_col_offset")}
        target = _ast.Name(ECHO, _ast.Store(), **place)
        tree.body[-1] = _ast.Assign([target], last.value, **place)
    code: types.CodeType = compile(tree, filename, "exec", flags=_ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    return code


def shorten(value: Any, limit: int) -> str:
    """``repr`` of the echoed value; of a long text only head and tail are made."""
    if isinstance(value, str) and not isinstance(value, Shown) and len(value) > limit:
        plain = str.__getitem__
        head, tail = plain(value, slice(0, limit // 2)), plain(value, slice(len(value) - limit // 4, None))
        return f"{head!r} … {tail!r} ({len(value):,} characters)"
    return repr(value)


def _cells_part(stack: list[Any]) -> list[Any]:
    """A traceback's frames from the first one of a cell on, without those of this program."""
    first = next((i for i, frame in enumerate(stack) if frame.filename.startswith("<cell ")), 0)
    return [frame for frame in stack[first:] if frame.filename not in OWN_FILES]


def clean(text: str) -> str:
    return encode(str(text)).decode()


def _attempt(action: Callable[[], object]) -> None:
    """Does what a cell may have broken (a closed stdout, a replaced stream); its failure is the cell's own."""
    try:
        action()
    except BaseException:  # noqa: BLE001  see above
        return


# --- main --------------------------------------------------------------------------------------------------------


def main(descriptor: int) -> None:
    """Seals the process as the parent says, then serves it until it hangs up."""
    interrupts = Interrupts()
    interrupts.install()
    _settle_descriptors(descriptor)
    channel = Channel(_CHANNEL, interrupts)
    start, _ = channel.receive()
    if start["parent"]:
        cage.die_with(start["parent"])
    random.seed(start["random_seed"])
    sys.path += start["packages"]
    limits = [tuple(limit) for limit in start["limits"]]
    try:
        layers = cage.seal(
            readable=start["readable"], landlock=start["landlock"], seccomp=start["seccomp"], limits=limits
        )
    except (cage.CageError, OSError, ValueError) as error:
        channel.send({"t": "failed", "message": str(error)})
        return
    channel.send({"t": "ready", "layers": layers, "python": sys.version.split()[0]})
    serve(channel, Repl(channel, interrupts))


def serve(channel: Channel, repl: Repl) -> None:
    while True:
        header, body = repl.parent.inbox.popleft() if repl.parent.inbox else channel.receive()
        kind = header["t"]
        if kind == "run":
            channel.send(*repl.run_cell(header["cell"], body.decode(), header["echo"]))
        elif kind == "documents":
            descriptors, channel.descriptors = channel.descriptors, []
            repl.scaffold.add_documents(header, descriptors)
            channel.send({"t": "loaded"})
        elif kind == "contexts":
            repl.scaffold.keep_contexts(header["names"])
            channel.send({"t": "loaded"})
        elif kind == "value":
            _send_value(channel, repl, header)


def _send_value(channel: Channel, repl: Repl, header: Header) -> None:
    try:
        text = repl.scaffold.value_of(header["name"])
    except Exception:  # noqa: BLE001  a __str__ of a cell's own may do anything
        text = None
    channel.send({"t": "value", "id": header["id"], "found": text is not None}, encode(text or ""))


def open_streams() -> tuple[TextIO, TextIO]:
    """stdout and stderr over the pipe that the parent reads; a lone surrogate is shown as an escape."""
    # By line: what a cell printed before it was killed is there, and the two streams keep their order.
    options: dict[str, Any] = {"buffering": 1, "encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    stdout, stderr = (open(number, "w", closefd=False, **options) for number in (1, 2))  # noqa: SIM115
    return stdout, stderr


def flush_c_by_line() -> None:
    """What C code prints comes with its line, as Python's does, and not when the process ends."""
    libc = ctypes.CDLL(None)
    by_line = 1  # _IOLBF
    libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, by_line, 0)


def _settle_descriptors(descriptor: int) -> None:
    """Moves channel and output out of the way, closes what else was inherited, empties stdin."""
    os.dup2(descriptor, _CHANNEL)
    os.closerange(3, _CHANNEL)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if null > 2:
        os.close(null)
    os.dup2(1, _OUTPUT)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  as above
