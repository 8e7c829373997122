"""Runs cells in a process of its own; trusted with nothing (child side, standard library alone).

Nothing in this file protects anybody: the cage does (``cage.py``), and the parent checks every frame. Here are the
semantics: cells share one namespace, names bound before an exception stay, top-level ``await`` works, the last
expression is echoed, tracebacks show the cell's own lines, the scaffold names come back with each cell.

A frame is two big-endian 32-bit lengths, a header (a JSON object with its type in ``t``), and a body (UTF-8).

    parent → worker                                      worker → parent
    start     what to seal, seeds                        ready     layers, python  ·  failed   message
    documents docs, context, kind (+ descriptors)        loaded
    contexts  names in order: what is not named goes     loaded
    run       cell, echo; body: the source               batch     id, sizes, model
    pull      id, slots                                  prompt    id, slot, spans; body: the prompt
    reply     id, slot, ok, kind; body: text or reason   cancel    id
    hits      id, hits                                   search    id, k; body: the query
    value     id, name                                   value     id, found; body: the text
                                                         done      cell, ok, error, …; body: final text, answer
Waiting for a reply, any thread may be the one that reads; it serves the others' frames too.
"""

from __future__ import annotations

import ast
import builtins
import json
import keyword
import linecache
import mmap
import os
import re
import select
import signal
import socket
import struct
import sys
import threading
import types
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from rlmd.repl import cage
from rlmd.repl.spans import Tracer
from rlmd.repl.texts import Document, Piece, chunks, grep, piece_of

Header = dict[str, Any]
Frame = tuple[Header, bytes]

#: Bytes of a frame, either way; the parent holds the same number against us.
MOST_FRAME = 8 << 20
#: Characters of one prompt, final answer or value: 4 bytes each still fit a frame.
MOST_CHARS = 1_900_000
#: Sub-queries of one batch.
MOST_SLOTS = 100_000
#: Variables that are reported after a cell.
MOST_NAMES = 200
SCAFFOLD = (
    "context", "contexts", "documents", "search", "grep", "chunks", "llm_query", "llm_query_batched", "ok",
    "SubQueryError", "answer", "FINAL", "FINAL_VAR", "SUBMIT", "SHOW_VARS",
)  # fmt: skip


# --- interrupts and framing --------------------------------------------------------------------------------------


class Interrupts:
    """SIGINT becomes KeyboardInterrupt in a cell only, and never inside a frame."""

    def __init__(self) -> None:
        self.armed = False
        self.stopped = False
        self._held = 0
        self._pending = False

    def install(self) -> None:
        signal.signal(signal.SIGINT, self._strike)
        signal.signal(signal.SIGXCPU, self._strike)

    def _strike(self, _signal: int, _frame: object) -> None:
        if not self.armed:
            return
        self.stopped = True
        if self._held:
            self._pending = True
        else:
            raise KeyboardInterrupt

    def __enter__(self) -> None:
        if threading.get_ident() == _MAIN:
            self._held += 1

    def __exit__(self, *_: object) -> None:
        if threading.get_ident() == _MAIN:
            self._held -= 1
            if self._pending and not self._held:
                self._pending = False
                raise KeyboardInterrupt


_MAIN = threading.get_ident()


class Channel:
    """Whole frames over a stream socket, from any thread."""

    def __init__(self, descriptor: int, interrupts: Interrupts) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._interrupts = interrupts
        self._sending = threading.Lock()
        self.descriptors: list[int] = []

    def send(self, header: Header, body: bytes = b"") -> None:
        head = json.dumps(header).encode()
        if len(head) + len(body) > MOST_FRAME:
            raise ValueError(f"{len(head) + len(body):,} bytes are more than a frame holds ({MOST_FRAME:,})")
        with self._interrupts, self._sending:
            self._socket.sendall(struct.pack(">II", len(head), len(body)) + head + body)

    def receive(self) -> Frame:
        """The next frame. Waiting for it can be interrupted, reading it cannot."""
        select_one(self._socket.fileno())
        with self._interrupts:
            head, body = struct.unpack(">II", self._exactly(8))
            return json.loads(self._exactly(head)), self._exactly(body)

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            piece, ancillary, _, _ = self._socket.recvmsg(min(size - len(data), 1 << 20), 4096)
            if not piece:
                os._exit(0)  # the parent is gone
            for _, _, raw in ancillary:
                self.descriptors += struct.unpack(f"{len(raw) // 4}i", raw)
            data += piece
        return bytes(data)


def select_one(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll()


# --- sub-queries -------------------------------------------------------------------------------------------------


class SubQueryError(Exception):
    """A sub-query that failed, raised by ``llm_query`` and standing in its slot of a batch. It is falsy and not a
    ``str``; using it as text raises, with the slot and the cause, so that a failure never passes for a finding."""

    def __init__(self, kind: str, message: str, slot: int = 0, total: int = 1) -> None:
        super().__init__(f"slot {slot} of {total}: {message} ({kind})" if total > 1 else f"{message} ({kind})")
        self.kind, self.message, self.slot, self.total = kind, message, slot, total

    @classmethod
    def make(cls, kind: str, message: str, slot: int = 0, total: int = 1) -> SubQueryError:
        # str.join names no more of a wrong item than its type, so the type is named for the failure.
        about = f"SubQueryError(slot {slot}: {message[:48]})"
        return type(about, (cls,), {"__module__": "builtins"})(kind, message, slot, total)

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return f"<SubQueryError: {self!s}>"

    def __format__(self, _spec: str) -> str:
        return f"[sub-query failed: {self!s}]"

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError(f"a failed sub-query is not text: {self!s}. Keep the good results with ok(results).")

    __add__ = __radd__ = __getitem__ = __len__ = __iter__ = __contains__ = __mul__ = __mod__ = _refuse

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and hasattr(str, name):
            self._refuse()
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")


class Ticket:
    """Something asked of the parent and not yet answered."""

    def __init__(self, total: int = 1) -> None:
        self.results: list[Any] = [None] * total
        self.remaining = total

    def settle(self, slot: int, value: Any) -> None:
        self.results[slot] = value
        self.remaining -= 1


class Batch(Ticket):
    """The prompts of one call, which the parent pulls in its own order."""

    def __init__(self, prompts: list[str], spans: list[list[list[Any]]]) -> None:
        super().__init__(len(prompts))
        self.prompts, self.spans = prompts, spans


class Parent:
    """Asks the parent and waits; one thread reads for all that wait."""

    def __init__(self, channel: Channel, tracer: Tracer) -> None:
        self.channel = channel
        self.inbox: deque[Frame] = deque()
        self._tracer = tracer
        self._tickets: dict[int, Ticket] = {}
        self._numbers = 0
        self._turn = threading.Condition()
        self._reading = False

    def ask(self, prompts: list[str], model: str | None) -> list[Any]:
        self._tracer.begin_batch()
        spans = [
            [[found.context, found.name, start, end] for found, start, end in self._tracer.trace(prompt)]
            for prompt in prompts
        ]
        batch = Batch(prompts, spans)
        number = self._open(batch)
        try:
            sizes = [len(prompt) for prompt in prompts]
            if len(prompts) == 1:  # a lone prompt rides along and saves a round trip
                header = {"t": "batch", "id": number, "sizes": sizes, "model": model, "spans": spans[0]}
                self.channel.send(header, encode(prompts[0]))
            else:
                self.channel.send({"t": "batch", "id": number, "sizes": sizes, "model": model})
            self._wait(batch)
        except BaseException:
            self._close(number)
            self.channel.send({"t": "cancel", "id": number})
            raise
        self._close(number)
        return batch.results

    def search(self, query: str, k: int) -> list[Any]:
        ticket = Ticket()
        number = self._open(ticket)
        try:
            self.channel.send({"t": "search", "id": number, "k": k}, encode(query))
            self._wait(ticket)
        finally:
            self._close(number)
        hits = ticket.results[0]
        if isinstance(hits, str):
            raise ValueError(hits)
        return list(hits)

    def _open(self, ticket: Ticket) -> int:
        with self._turn:
            self._numbers += 1
            self._tickets[self._numbers] = ticket
            return self._numbers

    def _close(self, number: int) -> None:
        self._tickets.pop(number, None)

    def _wait(self, ticket: Ticket) -> None:
        while True:
            with self._turn:
                while ticket.remaining and self._reading:
                    self._turn.wait()
                if not ticket.remaining:
                    return
                self._reading = True
            try:
                self._dispatch(*self.channel.receive())
            finally:
                with self._turn:
                    self._reading = False
                    self._turn.notify_all()

    def _dispatch(self, header: Header, body: bytes) -> None:
        kind, ticket = header["t"], self._tickets.get(header.get("id", 0))
        if kind in ("run", "value", "documents", "contexts"):
            self.inbox.append((header, body))
        elif kind == "pull" and isinstance(ticket, Batch):
            for slot in header["slots"]:
                self.channel.send(
                    {"t": "prompt", "id": header["id"], "slot": slot, "spans": ticket.spans[slot]},
                    encode(ticket.prompts[slot]),
                )
        elif kind == "reply" and ticket is not None:
            slot, text = header["slot"], body.decode()
            total = len(ticket.results)
            ticket.settle(slot, text if header["ok"] else SubQueryError.make(header["kind"], text, slot, total))
        elif kind == "hits" and ticket is not None:
            ticket.settle(0, header["error"] or header["hits"])


def encode(text: str) -> bytes:
    """UTF-8; a lone surrogate, which stands for a raw byte of a source, becomes U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return re.sub("[\ud800-\udfff]", "\ufffd", text).encode()


# --- scaffold ----------------------------------------------------------------------------------------------------


class Shown(str):
    """A text that is echoed as itself."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str.__str__(self)


class Scaffold:
    """The names that every cell finds; bound anew before each cell."""

    def __init__(self, namespace: dict[str, Any], parent: Parent, tracer: Tracer) -> None:
        self._namespace, self._parent, self._tracer = namespace, parent, tracer
        self._documents: dict[str, list[Document]] = {}
        self._kinds: dict[str, str] = {}
        self._answer: dict[str, Any] = {"content": "", "ready": False}
        self._bound: dict[str, Any] = {}
        self.final: tuple[str, str, str | None] | None = None

    # Contexts, between cells.

    def add_documents(self, header: Header, descriptors: list[int]) -> None:
        """Decodes documents out of mapped descriptors, which are closed afterwards."""
        maps: list[mmap.mmap | bytes] = []
        try:
            for descriptor in descriptors:
                size = os.fstat(descriptor).st_size
                maps.append(mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) if size else b"")
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        context = header["context"]
        if header["first"]:
            self._documents[context] = []
        self._kinds[context] = header["kind"]
        for name, origin, segments in header["docs"]:
            self._documents[context].append(
                Document.make(
                    _decode(maps, segments), name=name, origin=origin, context=context, watcher=self._tracer.watch
                )
            )
        for mapped in maps:
            if isinstance(mapped, mmap.mmap):
                mapped.close()

    def keep_contexts(self, names: Sequence[str]) -> None:
        self._documents = {name: self._documents[name] for name in names}
        self._tracer.use(document for documents in self._documents.values() for document in documents)

    # Before and after a cell.

    def restore(self) -> None:
        """Binds all scaffold names; the cell's ``answer`` stays what it was."""
        documents = [document for several in self._documents.values() for document in several]
        contexts = {
            name: several[0] if self._kinds[name] == "text" and several else list(several)
            for name, several in self._documents.items()
        }
        self.final = None
        self._bound = {
            "context": next(iter(contexts.values()), ""), "contexts": contexts, "documents": documents,
            "search": self.search, "grep": self.grep, "chunks": chunks, "llm_query": self.llm_query,
            "llm_query_batched": self.llm_query_batched, "ok": ok, "SubQueryError": SubQueryError,
            "answer": self._answer, "FINAL": self.FINAL, "FINAL_VAR": self.FINAL_VAR, "SUBMIT": self.SUBMIT,
            "SHOW_VARS": self.SHOW_VARS,
        }  # fmt: skip
        self._namespace.update(self._bound)

    def settle_answer(self) -> str | None:
        """Takes over what the cell made of ``answer``; tells the cell about scaffold names that it bound."""
        now = self._namespace.get("answer", self._answer)
        if isinstance(now, dict):
            self._answer = now
        else:
            self._answer = {"content": now, "ready": False}
            _tell("`answer` is a dict again; your value is in answer['content']")
        rebound = [n for n, v in self._bound.items() if n != "answer" and self._namespace.get(n, v) is not v]
        if rebound:
            _tell(f"{', '.join(rebound)}: names of the REPL, restored before the next cell; use other names")
        content = self._answer.get("content")
        text = None if content is None or content == "" else as_text(content, "answer['content']")
        if self._answer.get("ready"):
            self._answer["ready"] = False
            self.final = self.final or (text or "", "answer", None)
        return text

    def variables(self) -> list[tuple[str, str, str]]:
        """Name, type and size of what the cells bound, modules and private names left out."""
        shown: list[tuple[str, str, str]] = []
        for name, value in list(self._namespace.items()):
            private = not isinstance(name, str) or name.startswith("_") or name in SCAFFOLD
            if not private and not isinstance(value, types.ModuleType):
                shown.append((name[:100], type(value).__name__[:100], describe(value)))
        return shown[-MOST_NAMES:]

    def value_of(self, name: str) -> str | None:
        if name == "answer":
            content = self._answer.get("content")
            return None if content is None or content == "" else as_text(content, name)
        if name in SCAFFOLD or name not in self._namespace:
            return None
        return as_text(self._namespace[name], name)

    # The names themselves.

    def search(self, query: str, k: int = 10) -> list[Piece]:
        """The best ``k`` passages of all contexts, as pieces with ``.score`` and ``.line``."""
        by_name = {(d.context, d.name): d for several in self._documents.values() for d in several}
        return [
            piece_of(by_name[context, name], start, end, line=line, score=score)
            for context, name, start, end, line, score in self._parent.search(str(query), int(k))
            if (context, name) in by_name
        ]

    def grep(self, pattern: str | re.Pattern[str], docs: Any = None, *, limit: int = 200) -> list[Piece]:
        """Lines that match a regular expression, as pieces with ``.document`` and ``.line``; "(?i)" ignores case."""
        found, more = grep(pattern, self._chosen(docs), limit)
        if more:
            _tell(f"grep: the first {limit:,} lines; there are more (limit=…)")
        return found

    def _chosen(self, docs: Any) -> Iterable[Document]:
        if docs is None:
            return [document for several in self._documents.values() for document in several]
        several = [docs] if isinstance(docs, str) else list(docs)
        named = {d.name: d for all_of in self._documents.values() for d in all_of}
        return [d if isinstance(d, Document) else named.get(d) or Document.make(d, name="") for d in several]

    def llm_query(self, prompt: str, model: str | None = None) -> str:
        """Asks a sub-model once. Raises ``SubQueryError`` when it fails."""
        result = self._parent.ask([_prompt(prompt)], _model(model))[0]
        if isinstance(result, SubQueryError):
            raise result
        return str(result)

    def llm_query_batched(self, prompts: Iterable[str], model: str | None = None) -> list[Any]:
        """Asks all prompts at once; results in their order, a falsy ``SubQueryError`` in each slot that failed."""
        if isinstance(prompts, str):
            raise TypeError("llm_query_batched takes a list of prompts, not one str")
        ready = [_prompt(prompt, slot) for slot, prompt in enumerate(prompts)]
        if len(ready) > MOST_SLOTS:
            raise ValueError(f"llm_query_batched: {len(ready):,} prompts; one batch takes {MOST_SLOTS:,}")
        return self._parent.ask(ready, _model(model)) if ready else []

    def FINAL(self, answer: Any) -> None:  # noqa: N802 -- the name that models were taught
        """Hands over the answer."""
        self._finish(answer, "FINAL", None)

    def SUBMIT(self, answer: Any) -> None:  # noqa: N802 -- as above
        """Hands over the answer."""
        self._finish(answer, "SUBMIT", None)

    def FINAL_VAR(self, name: Any) -> None:  # noqa: N802 -- as above
        """Hands over the value of a variable, given by name or itself."""
        if not isinstance(name, str) or not name.isidentifier():
            names = [n for n, v in self._namespace.items() if v is name and n not in SCAFFOLD and not n.startswith("_")]
            return self._finish(name, "FINAL_VAR", names[0] if names else None)
        if name == "answer":
            return self._finish(_content(self._namespace.get("answer")), "FINAL_VAR", name)
        if name in SCAFFOLD or name not in self._namespace:
            existing = ", ".join(n for n, _, _ in self.variables()) or "none yet"
            raise NameError(f"FINAL_VAR: no variable {name!r} of yours; there are: {existing}")
        return self._finish(self._namespace[name], "FINAL_VAR", name)

    def _finish(self, value: Any, via: str, name: str | None) -> None:
        text = as_text(value, via)
        if not text.strip():
            raise ValueError(f"{via}: the answer is empty")
        self.final = (text, via, name)

    def SHOW_VARS(self) -> Shown:  # noqa: N802 -- as above
        """The variables that exist, one a line."""
        return Shown("\n".join(f"{n}: {kind} ({size})" for n, kind, size in self.variables()) or "no variables yet")


def ok(results: Iterable[Any]) -> list[Any]:
    """The results of a batch that did not fail."""
    return [result for result in results if not isinstance(result, SubQueryError)]


def _decode(maps: list[mmap.mmap | bytes], segments: list[list[int]]) -> str:
    if len(segments) == 1:
        index, offset, length = segments[0]
        with memoryview(maps[index]) as view, view[offset : offset + length] as part:
            return str(part, "utf-8", "surrogateescape")
    # A character may lie across two segments of a text that grew.
    return b"".join(maps[i][offset : offset + length] for i, offset, length in segments).decode(
        "utf-8", "surrogateescape"
    )


def _prompt(prompt: Any, slot: int | None = None) -> str:
    where = "llm_query" if slot is None else f"llm_query_batched, slot {slot}"
    if isinstance(prompt, SubQueryError):
        raise TypeError(f"{where}: the prompt is a failed sub-query: {prompt!s}")
    if not isinstance(prompt, str):
        raise TypeError(f"{where}: the prompt must be a str, not {type(prompt).__name__}")
    if len(prompt) > MOST_CHARS:
        raise ValueError(f"{where}: a prompt of {len(prompt):,} characters; at most {MOST_CHARS:,} can be sent")
    return str.__str__(prompt)


def _model(model: Any) -> str | None:
    if model is not None and not isinstance(model, str):
        raise TypeError(f"model must be a str, not {type(model).__name__}")
    return model


def _content(answer: Any) -> Any:
    return answer.get("content") if isinstance(answer, dict) else answer


def as_text(value: Any, what: str) -> str:
    """``str(value)`` that fits a frame and holds no failed sub-query in place of text."""
    if isinstance(value, SubQueryError):
        raise TypeError(f"{what}: a failed sub-query is no answer: {value!s}")
    text = str("" if value is None else value)
    if len(text) > MOST_CHARS:
        raise ValueError(f"{what}: {len(text):,} characters; at most {MOST_CHARS:,} can be handed over")
    return text


def describe(value: Any) -> str:
    """A few words on a value's size."""
    if isinstance(value, str):
        return f"{len(value):,} characters"
    if isinstance(value, bool | int | float) or value is None:
        return repr(value)[:40] if not isinstance(value, int) or value.bit_length() < 100 else "a long integer"
    if isinstance(value, list | tuple | dict | set | frozenset | bytes | bytearray | deque):
        return f"{type(value).__name__} of {len(value):,}"
    return type(value).__name__[:60]


def _tell(sentence: str) -> None:
    """A line of the REPL itself in the cell's output."""
    sys.stdout.flush()
    sys.__stdout__.write(f"[{sentence}]\n")  # type: ignore[union-attr]  # opened in main()
    sys.__stdout__.flush()  # type: ignore[union-attr]  # as above


# --- cells -------------------------------------------------------------------------------------------------------


class Repl:
    """One namespace, one cell after the other."""

    def __init__(self, channel: Channel, interrupts: Interrupts) -> None:
        self.module = types.ModuleType("__main__")
        sys.modules["__main__"] = self.module
        self._interrupts = interrupts
        self._tracer = Tracer()
        self.parent = Parent(channel, self._tracer)
        self.scaffold = Scaffold(self.module.__dict__, self.parent, self._tracer)
        self._runner: Any = None

    def run_cell(self, number: int, source: str, echo: int) -> Frame:
        """Runs one cell and describes how it ended; never raises."""
        interrupts, error, report = self._interrupts, None, {"answer": None, "names": []}
        self.scaffold.restore()
        interrupts.stopped = False
        try:
            interrupts.armed = True
            try:
                self._execute(source, f"<cell {number}>", echo)
            except SystemExit as leaving:
                error = None if leaving.code in (None, 0) else f"SystemExit: {leaving.code}"
                _tell("sys.exit() ends the cell, not the REPL")
            except BaseException as problem:
                error = self._explain(problem)
            report = {"answer": self.scaffold.settle_answer(), "names": self.scaffold.variables()}
        except BaseException as problem:
            error = error or self._explain(problem)
        finally:
            interrupts.armed = False
        self._quiet_pools()
        for stream in (sys.stdout, sys.stderr):
            _attempt(stream.flush)
        return self._done(number, error, **report)

    def _execute(self, source: str, filename: str, echo: int) -> None:
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
        code = compile_cell(source, filename)
        namespace = self.module.__dict__
        namespace.pop(ECHO, None)
        if code.co_flags & 0x80:  # CO_COROUTINE: the cell awaits at its top level
            self._await(types.FunctionType(code, namespace)())
        else:
            exec(code, namespace)
        value = namespace.pop(ECHO, None)
        if value is not None:
            sys.stdout.write(shorten(value, echo) + "\n")

    def _await(self, coroutine: Any) -> None:
        import asyncio  # noqa: PLC0415 -- 9 MB that most cells never need

        if self._runner is None:
            self._runner = asyncio.Runner()
        try:
            self._runner.run(coroutine)
        except BaseException:
            runner, self._runner = self._runner, None
            _attempt(runner.close)  # its tasks end with it; the next cell gets a fresh loop
            raise

    def _quiet_pools(self) -> None:
        """Ends the idle threads of the loop's default executor, so that they are not taken for ones left behind."""
        loop = self._runner.get_loop() if self._runner is not None else None
        pool = getattr(loop, "_default_executor", None)
        if pool is not None:
            loop._default_executor = None
            _attempt(lambda: pool.shutdown(wait=False, cancel_futures=True))

    def _explain(self, problem: BaseException) -> str:
        """Writes the traceback, without our own frames, and returns its last line."""
        import traceback  # noqa: PLC0415 -- 4 ms at start

        if isinstance(problem, KeyboardInterrupt) and self._interrupts.stopped:
            sys.stderr.write("KeyboardInterrupt: the cell was stopped; names bound so far are kept\n")
            return "KeyboardInterrupt"
        try:
            told = traceback.TracebackException.from_exception(problem, compact=True)
            one: Any = told
            while one is not None:
                frames = [frame for frame in one.stack if frame.filename not in OWN_FILES]
                one.stack = traceback.StackSummary.from_list(frames)
                one = one.__cause__ or one.__context__
            text = "".join(told.format())
            last = "".join(told.format_exception_only()).strip().splitlines()[-1]
        except BaseException:
            text = last = type(problem).__name__
        _attempt(sys.stdout.flush)
        _attempt(lambda: sys.stderr.write(text if text.endswith("\n") else text + "\n"))
        return last[:500]

    def _done(self, number: int, error: str | None, answer: str | None, names: list[tuple[str, str, str]]) -> Frame:
        final, text, content = self.scaffold.final, b"", b""
        header: Header = {"t": "done", "cell": number, "ok": error is None, "stopped": self._interrupts.stopped}
        header |= {"error": None if error is None else clean(error), "final": None, "answer": None}
        header["names"] = [[clean(part) for part in name] for name in names]
        header["threads"] = threading.active_count()
        if final is not None:
            text = encode(final[0])
            header["final"] = [len(text), final[1], final[2]]
        if answer is not None and final is None:
            content = encode(answer)
            header["answer"] = len(content)
        return header, text + content


ECHO = "__rlmd_last__"
OWN_FILES = {
    __file__,
    cage.__file__,
    *(f.__code__.co_filename for f in (compile, chunks, Tracer.trace) if hasattr(f, "__code__")),
}


def compile_cell(source: str, filename: str) -> types.CodeType:
    """Compiles a cell, with top-level ``await``; a last expression is bound to ``ECHO``."""
    tree = ast.parse(source, filename)
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        last = tree.body[-1]
        target = ast.copy_location(ast.Name(ECHO, ast.Store()), last)
        tree.body[-1] = ast.copy_location(ast.Assign([target], last.value), last)
    return compile(tree, filename, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


def shorten(value: Any, limit: int) -> str:
    """``repr`` of the echoed value; of a long text only head and tail are made."""
    if isinstance(value, str) and not isinstance(value, Shown) and len(value) > limit:
        plain = str.__getitem__
        head, tail = plain(value, slice(0, limit // 2)), plain(value, slice(len(value) - limit // 4, None))
        return f"{head!r} … {tail!r} ({len(value):,} characters)"
    return repr(value)


def clean(text: str) -> str:
    return encode(str(text)).decode()


def _attempt(action: Callable[[], object]) -> None:
    """Does what a cell may have broken (a closed stdout, a replaced stream); its failure is the cell's own."""
    try:
        action()
    except BaseException:
        return


# --- main --------------------------------------------------------------------------------------------------------


def main(descriptor: int) -> None:
    """Seals the process as the parent says, then serves it until it hangs up."""
    interrupts = Interrupts()
    interrupts.install()
    channel = Channel(descriptor, interrupts)
    start, _ = channel.receive()
    if start["parent"]:
        cage.die_with(start["parent"])
    _open_streams()
    os.closerange(3, descriptor)
    os.closerange(descriptor + 1, 1 << 12)
    import random

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
    except Exception:
        text = None
    channel.send({"t": "value", "id": header["id"], "found": text is not None}, encode(text or ""))


def _open_streams() -> None:
    """Standard streams over the pipe that the parent reads; a lone surrogate is shown as an escape."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if null > 2:
        os.close(null)
    for name in ("stdout", "stderr"):
        # By line: what a cell printed before it was killed is there, and the two streams keep their order.
        stream = open(
            1 if name == "stdout" else 2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", newline="",
            closefd=False,
        )  # fmt: skip
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)


def valid_name(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name) and not hasattr(builtins, name)
