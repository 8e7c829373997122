"""Runs cells in a process of its own; trusted with nothing (child side, standard library alone).

Nothing in this file protects anybody: the cage does (``cage.py``), and the parent checks every frame. Here are the
semantics: cells share one namespace, names bound before an exception stay, top-level ``await`` works, the last
expression is echoed, tracebacks show the cell's own lines, the scaffold names come back with each cell.
The frames are described in ``link.py``.
"""

from __future__ import annotations

import _sitebuiltins
import _thread
import builtins
import os
import sys

from rlmd.repl import cage, leaving
from rlmd.repl.arrivals import Arrivals
from rlmd.repl.awaiting import CellLoop
from rlmd.repl.link import Channel, Frame, Header, Interrupts, encode, fitting
from rlmd.repl.scaffold import Scaffold, Shown, tell
from rlmd.repl.streams import OUTPUT, Streams, attempt, give_reserve_back

TYPE_CHECKING = False  # typing takes 3 ms
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType
    from typing import Any

#: Where the last expression of a cell is kept until it is echoed.
ECHO = "__rlmd_last__"
_COROUTINE = 0x80  # CO_COROUTINE
#: Where the channel is kept: out of the way of what cells open and close.
_CHANNEL = 200
#: What the module site would add, which is not imported.
_BUILTINS = vars(builtins) | {"exit": sys.exit, "quit": sys.exit, "help": _sitebuiltins._Helper()}


class Repl:
    """One namespace, one cell after the other."""

    def __init__(self, channel: Channel, interrupts: Interrupts, arrivals: Arrivals) -> None:
        self.module = type(sys)("__main__")
        sys.modules["__main__"] = self.module
        self._interrupts = interrupts
        self.scaffold = Scaffold(self.module.__dict__, channel)
        self._streams = Streams()
        self._loop = CellLoop()
        #: Lines of cells by file name, as ``linecache`` keeps them.
        self._lines: dict[str, tuple[int, None, list[str], str]] = {}
        arrivals.await_module("linecache", self._give_lines)

    def _give_lines(self, linecache: Any) -> None:
        linecache.cache.update(self._lines)
        self._lines = linecache.cache

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
            builtins.__dict__.update(_BUILTINS)
            names = self.scaffold.variables()
            answer = self.scaffold.settle_answer()
            self._interrupts.disarm()
        except BaseException as problem:  # noqa: BLE001  what a cell raises ends the cell, whatever it is
            self._interrupts.disarm()
            error = error or self._explain(problem)
        give_reserve_back()
        self._end_leftovers()
        self._streams.flush()
        return self._done(number, error, answer, names)

    def _mend(self) -> None:
        """What an earlier cell may have broken of Python itself, the streams and the signal comes back."""
        builtins.__dict__.update(_BUILTINS)
        self.module.__dict__["__builtins__"] = builtins
        self._interrupts.install()
        self._streams.mend()

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
        self._lines[filename] = (len(source), None, source.splitlines(keepends=True), filename)
        code = compile_cell(source, filename)
        namespace = self.module.__dict__
        namespace.pop(ECHO, None)
        if code.co_flags & _COROUTINE:  # it awaits at its top level
            self._loop.run(eval(code, namespace))
        else:
            exec(code, namespace)
        value = namespace.pop(ECHO, None)
        if value is not None:
            sys.stdout.write(shorten(value, echo) + "\n")

    def _end_leftovers(self) -> None:
        for end in (leaving.end_timers, lambda: leaving.end_threads(self._loop.quiet())):
            attempt(end)

    def _explain(self, problem: BaseException) -> str:
        """Writes the traceback, without our own frames, and returns its last line."""
        give_reserve_back()
        if isinstance(problem, KeyboardInterrupt) and self._interrupts.stopped:
            places = [*self._loop.places, *_places(problem)]
            where = next((f" in line {line} of {name}" for name, line in reversed(places) if _is_cell(name)), "")
            text = last = "KeyboardInterrupt"
            text += f": stopped{where}; names bound so far are kept\n"
        else:
            text, last = _told(problem)
        attempt(lambda: self._streams.write(text))
        return last[:500]

    def _done(self, number: int, error: str | None, answer: str | None, names: list[tuple[str, str, str]]) -> Frame:
        final, text, content = self.scaffold.final, b"", b""
        header: Header = {"t": "done", "cell": number, "ok": error is None, "stopped": self._interrupts.stopped}
        header |= {"error": None if error is None else clean(error), "final": None, "answer": None}
        header["names"] = fitting([[clean(part) for part in name] for name in names])
        header["threads"] = _thread._count() + 1
        if final is not None:
            text = encode(final[0])
            header["final"] = [len(text), final[1], final[2] if len(final[2] or "") <= 200 else None]
        if answer is not None and final is None:
            content = encode(answer)
            header["answer"] = len(content)
        return header, text + content


def compile_cell(source: str, filename: str) -> CodeType:
    """Compiles a cell, with top-level ``await``; a last expression is bound to ``ECHO``."""
    import _ast  # ast itself takes 4 ms

    tree: Any = compile(source, filename, "exec", _ast.PyCF_ONLY_AST)
    if tree.body and isinstance(tree.body[-1], _ast.Expr):
        last: Any = tree.body[-1]
        place = {name: getattr(last, name) for name in ("lineno", "col_offset", "end_lineno", "end_col_offset")}
        target = _ast.Name(ECHO, _ast.Store(), **place)
        tree.body[-1] = _ast.Assign([target], last.value, **place)
    code: CodeType = compile(tree, filename, "exec", flags=_ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    return code


def shorten(value: Any, limit: int) -> str:
    """``repr`` of the echoed value; of a long one only head and tail are written, of a long text not more is made."""
    if isinstance(value, str) and not isinstance(value, Shown) and len(value) > limit:
        plain = str.__getitem__
        head, tail = plain(value, slice(0, limit // 2)), plain(value, slice(len(value) - limit // 4, None))
        return f"{head!r} … {tail!r} ({len(value):,} characters)"
    text = repr(value)
    if len(text) <= 2 * limit:
        return text  # the parent cuts it, and counts
    return f"{text[: limit // 2]} … {text[-(limit // 4) :]} ({len(text):,} characters)"


def _told(problem: BaseException) -> tuple[str, str]:
    """The traceback of what a cell raised, and the line that names it."""
    try:
        import traceback  # 4 ms

        told = traceback.TracebackException.from_exception(problem, compact=True)
        one: Any = told
        while one is not None:
            one.stack = traceback.StackSummary.from_list(_cells_part(one.stack))
            one = one.__cause__ or one.__context__
        text = "".join(told.format())
        is_syntax = issubclass(type(problem), SyntaxError)
        last = f"{type(problem).__name__}: {told.msg}" if is_syntax else next(told.format_exception_only())
        text += _usage(problem)
        return text if text.endswith("\n") else text + "\n", (last.strip().splitlines() or [text])[0]
    except BaseException:  # noqa: BLE001  an exception of a cell's own may fail to be shown
        return type(problem).__name__ + "\n", type(problem).__name__


def _usage(problem: BaseException) -> str:
    """How a function of ours is called that was called in another way: Python names the wrong argument alone."""
    name = str(problem).partition("()")[0].removeprefix("Scaffold.")
    if not isinstance(problem, TypeError) or f"Scaffold.{name}()" not in str(problem):
        return ""
    import inspect

    parameters = list(inspect.signature(getattr(Scaffold, name)).parameters.values())[1:]
    return f"{name}({', '.join(str(one.replace(annotation=one.empty)) for one in parameters)}) is how it is called.\n"


def _cells_part(stack: list[Any]) -> list[Any]:
    """A traceback's frames from the first one of a cell on, without those of this program."""
    first = next((i for i, frame in enumerate(stack) if _is_cell(frame.filename)), 0)
    return [frame for frame in stack[first:] if not frame.filename.startswith("<rlmd ")]


def _places(problem: BaseException) -> Iterator[tuple[str, int]]:
    trace = problem.__traceback__
    while trace is not None:
        yield trace.tb_frame.f_code.co_filename, trace.tb_lineno
        trace = trace.tb_next


def _is_cell(filename: str) -> bool:
    return filename.startswith("<cell ")


def clean(text: str) -> str:
    return encode(str(text)).decode()


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
    arrivals = Arrivals()
    arrivals.seed(start["random_seed"])
    sys.path += start["packages"]
    limits = [tuple(limit) for limit in start["limits"]]
    try:
        if start["namespaces"]:  # before the limits: files are made, and threads are counted in there
            from rlmd.repl import namespaces

            namespaces.enter(start["readable"], cage.platform_machine())
        layers = cage.seal(
            readable=start["readable"], landlock=start["landlock"], seccomp=start["seccomp"], limits=limits,
            namespaces=start["namespaces"],
        )  # fmt: skip
    except (cage.CageError, OSError, ValueError) as error:
        channel.send({"t": "failed", "message": str(error)})
        return
    channel.send({"t": "ready", "layers": layers, "python": sys.version.split()[0]})
    serve(channel, Repl(channel, interrupts, arrivals))


def serve(channel: Channel, repl: Repl) -> None:
    while True:
        inbox = repl.scaffold.parent.inbox
        header, body = inbox.pop(0) if inbox else channel.receive()
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
    except BaseException:  # noqa: BLE001  a __str__ of a cell's own may do anything
        text = None
    channel.send({"t": "value", "id": header["id"], "found": text is not None}, encode(text or ""))


def _settle_descriptors(descriptor: int) -> None:
    """Moves channel and output out of the way, closes what else was inherited, empties stdin."""
    os.dup2(descriptor, _CHANNEL)
    os.closerange(3, _CHANNEL)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if null > 2:
        os.close(null)
    os.dup2(1, OUTPUT)
