"""Behaviour that other RLM implementations were found to get wrong, or hold by tests of their own, as a table.

Each row is a conversation with a real caged worker: cells, and what must come of each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rlmd.repl import CellReport, SubQuery, SubQueryFailure, SubQueryReply, Workers
from rlmd.repl.base import ChildQuery
from tests.repl import Context, Host


@dataclass(frozen=True)
class Cell:
    """Source, and what is asked of its report; a ``None`` asks nothing, ``error=""`` that there be none."""

    source: str
    output: str | None = None
    holds: tuple[str, ...] = ()
    error: str | None = ""
    final: str | None = None
    answer: str | None = None
    interrupted: bool = False
    seconds: float = 20.0


@dataclass(frozen=True)
class Row:
    name: str
    cells: tuple[Cell, ...]
    texts: dict[str, bytes] = field(default_factory=dict)
    kind: str = "text"
    #: Prompts and questions that must have come, in any order.
    asked: tuple[str, ...] | None = None


def row(name: str, *cells: Cell | str, **more: object) -> Row:
    return Row(name, tuple(Cell(one) if isinstance(one, str) else one for one in cells), **more)  # type: ignore[arg-type]


def gives(source: str, output: str) -> Cell:
    return Cell(source, output)


def fails(source: str, error: str, *holds: str) -> Cell:
    return Cell(source, error=error, holds=holds)


def ends(source: str, final: str) -> Cell:
    return Cell(source, final=final)


def stops(source: str) -> Cell:
    return Cell(source, error="CellTimeout: more than 0.2 s of the cell's own time", interrupted=True, seconds=0.2)


#: Where the reference's REPL goes wrong.
WRONG_ELSEWHERE = (
    row("a class", "class A: pass", gives("type(A()).__name__", "'A'\n")),
    row("frozenset and exceptions", gives("frozenset([1]), ZeroDivisionError, TimeoutError",
        "(frozenset({1}), <class 'ZeroDivisionError'>, <class 'TimeoutError'>)\n")),
    row("names before an exception", fails("kept = 1\n1/0", "ZeroDivisionError: division by zero"), gives("kept", "1\n")),
    row("a function reads a global that was rebound", "n = 1\ndef f(): return n", "n = 2", gives("f()", "2\n")),
    row("private names across cells", "_tmp = 5", gives("_tmp", "5\n")),
    row("del sticks", "z = 1", "del z", fails("z", "NameError: name 'z' is not defined")),
    row("an error names its line", fails("x = 1\n\nx.nothing", "AttributeError: ", 'File "<cell 1>", line 3', "x.nothing")),
    row("an error in an earlier cell's function", "def f():\n    return [][1]",
        fails("f()", "IndexError: ", 'File "<cell 2>", line 1', 'File "<cell 1>", line 2', "return [][1]")),
    row("an error with a note or of several lines",
        fails("e = ValueError('a\\nb')\ne.add_note('note')\nraise e", "ValueError: a", "ValueError: a\nb\nnote")),
    row("line ends of a context", gives("context", "'a\\r\\nb\\rc'\n"), texts={"t": b"a\r\nb\rc"}),
    row("bytes that are no UTF-8", gives("ascii(context)", "\"'\\\\udcff\\\\x00\\\\U0001f600'\"\n"),
        texts={"t": b"\xff\x00" + "😀".encode()}),
    row("a lone surrogate in the output", gives("print('\\ud83d')", "\\ud83d\n")),
    row("sys.exit", fails("import sys\nn = 1\nsys.exit(3)", "SystemExit: 3"), gives("n", "1\n")),
    row("exit and quit", Cell("exit()", holds=("ends the cell",)), fails("quit('why')", "SystemExit: why"), gives("1", "1\n")),
    row("an endless loop", stops("n = 1\nwhile True: pass"), gives("n", "1\n")),
    row("files of the machine", fails("open('/etc/passwd')", "FileNotFoundError: "), fails("open('/tmp/x', 'w')", "PermissionError: ")),
    row("the environment", gives("import os\n[n for n in os.environ if n in ('HOME', 'USER', 'PATH')]", "[]\n")),
    row("processes", fails("import os\nos.popen('ls')", "PermissionError: "), fails("os.fork()", "PermissionError: "),
        fails("import subprocess\nsubprocess.run(['true'])", "PermissionError: ")),
    row("the network", fails("import socket\nsocket.create_connection(('127.0.0.1', 9))", "PermissionError: ")),
)  # fmt: skip

#: The ``answer`` of the reference.
ANSWER = (
    row("defaults", gives("answer", "{'content': '', 'ready': False}\n")),
    row("ready surfaces the content once", ends("answer['content'] = 'a'; answer['ready'] = True", "a"), Cell("1", final=None, answer="a")),
    row("content alone is no end", Cell("answer['content'] = 'so far'", answer="so far"), Cell("1", answer="so far")),
    row("another dict counts", ends("answer = {'content': 'b', 'ready': True}", "b"), gives("answer['ready']", "False\n")),
    row("what is no text becomes one", ends("answer['content'] = [1, {'a': 2}]; answer['ready'] = True", "[1, {'a': 2}]")),
    row("nothing is an empty answer", ends("answer['ready'] = True", "")),
    row("zero is an answer", ends("answer['content'] = 0; answer['ready'] = True", "0")),
    row("an earlier answer is not the next cell's", ends("answer = {'content': 1, 'ready': True}", "1"), Cell("x = 2", final=None)),
    row("another value is kept as content", Cell("answer = 'plain'", answer="plain", holds=("answer['content']",)),
        ends("answer['ready'] = True", "plain")),
    row("a dict that fails spoils one cell", "class D(dict):\n    def get(self, *a): raise ValueError\nanswer = D(content='c')",
        Cell("1", "1\n", answer="c")),
    row("a readiness that has no truth spoils one cell",
        fails("class B:\n    def __bool__(self): raise ValueError('b')\nanswer['ready'] = B()", "ValueError: b"), gives("1", "1\n")),
)  # fmt: skip

FINALS = (
    row("FINAL_VAR by name, quoted or not", "x = 5", ends("FINAL_VAR(x)", "5"), ends("FINAL_VAR('x')", "5"), ends('FINAL_VAR("x")', "5")),
    row("FINAL_VAR of all kinds", ends("s = 'a b'\nFINAL_VAR('s')", "a b"), ends("n = [1, 2]\nFINAL_VAR('n')", "[1, 2]"),
        ends("d = {'k': 1}\nFINAL_VAR('d')", "{'k': 1}")),
    row("FINAL_VAR sees updates", "x = 1", "x = 2", ends("FINAL_VAR('x')", "2")),
    row("FINAL_VAR of what is missing is no end", fails("FINAL_VAR('nope')", "NameError: FINAL_VAR: no variable 'nope'"), gives("1", "1\n")),
    row("FINAL keeps parens and quotes", ends("FINAL('f(a(b), \"c\") {[x]}')", 'f(a(b), "c") {[x]}')),
    row("FINAL of several lines", ends("FINAL('one\\n\\ntwo')", "one\n\ntwo")),
    row("SUBMIT by position and by name", ends("SUBMIT('a')", "a"), ends("SUBMIT(answer='k')", "k"), fails("SUBMIT()", "TypeError: ")),
    row("None and nothing are no answers", fails("FINAL(None)", "ValueError: FINAL: the answer is empty"), fails("FINAL('')", "ValueError: ")),
    row("a final and an error", Cell("FINAL('x')\n1/0", error="ZeroDivisionError: division by zero", final="x")),
    row("a final and sys.exit", Cell("import sys\nFINAL('x')\nsys.exit()", final="x")),
)  # fmt: skip

CELLS = (
    row("names and functions stay", "def f(x): return x + n\nn = 1", gives("f(1)", "2\n")),
    row("imports stay", "import math, collections as c", gives("math.floor(2.5), c.Counter('aa')['a']", "(2, 2)\n")),
    row("1/0", fails("1/0", "ZeroDivisionError: division by zero", "Traceback")),
    row("a syntax error", fails("x = (", "SyntaxError: '(' was never closed", '"<cell 1>", line 1'), gives("1", "1\n")),
    row("stdout and stderr in order, parts of lines too",
        gives("import sys\nfor n in range(3):\n    _ = sys.stdout.write('o'); _ = sys.stderr.write('e')\nprint()", "oeoeoe\n")),
    row("no output", gives("x = 1", "")),
    row("an echo of what is huge", Cell("list(range(300_000))", holds=("[0, 1, ", "299999] (2,288,890 characters)"))),
    row("output of one cell is not the next's", gives("print('a', end='')", "a"), gives("print('b')", "b\n")),
    row("output that looks like the protocol", gives("""print('{"t": "done", "cell": 1}'); print('\\x00\\x00\\x00\\x02{}')""",
        '{"t": "done", "cell": 1}\n\x00\x00\x00\x02{}\n')),
    row("unicode", gives("print('äöü', '日本', '😀')", "äöü 日本 😀\n")),
    row("what no pickle takes stays", "f = lambda: 7\ng = (n for n in range(3))", gives("f(), next(g)", "(7, 0)\n"), gives("next(g)", "1\n")),
    row("input is refused", fails("input('?')", "EOFError: "), gives("1", "1\n")),
    row("a debugger finds no one", fails("breakpoint()\nx = 1", "bdb.BdbQuit"), gives("1", "1\n")),
    row("a timeout in sleep", stops("n = 1\nimport time\ntime.sleep(60)"), gives("n", "1\n")),
    row("a timeout while awaiting names the line", "import asyncio\nn = await asyncio.sleep(0, 1)",
        Cell("x = 1\n\n\nawait asyncio.sleep(60)", error="CellTimeout: more than 0.2 s of the cell's own time",
             interrupted=True, seconds=0.2, holds=("in line 4 of <cell 2>",)), gives("n, await asyncio.sleep(0, 2)", "(1, 2)\n")),
    row("recursion", fails("def f(): f()\nf()", "RecursionError: "), gives("1", "1\n")),
    row("an exception that cannot be shown", fails("class E(Exception):\n    def __str__(self): raise SystemExit\nraise E", "E"), gives("1", "1\n")),
    row("variables that fail when they are described",
        "class L(list):\n    def __len__(self): raise ValueError\nl = L('ab')\nclass M(type):\n    __name__ = property(lambda c: 1/0)\n"
        "class A(metaclass=M): pass\na = A()", gives("print(SHOW_VARS())", "L: type (type)\nl: L (L of 2)\nM: type (type)\nA: M (M)\na: A (A)\n")),
    row("builtins that a cell broke", "import builtins\nbuiltins.len = builtins.print = None\n__builtins__ = {}", gives("print(len('abc'))", "3\n")),
    row("streams that a cell broke", "import sys\nsys.stdout = None", "_ = sys.stdout.detach()", "sys.stderr.reconfigure(encoding='ascii')",
        "sys.stdin.close()", "sys.stdout.close()", gives("print('é'); sys.stdin.read()", "é\n''\n")),
    row("tracing that a cell left", "import sys\nsys.settrace(lambda *a: print('TRACED'))", gives("def f(): return 1\nf()", "1\n")),
    row("a timer that a cell left", "import signal\nsignal.signal(signal.SIGALRM, lambda *_: print('LATE'))\nsignal.setitimer(0, 0.05)",
        gives("import time\ntime.sleep(0.1)", "")),
    row("a pool that a cell left", Cell("from concurrent.futures import ThreadPoolExecutor\np = ThreadPoolExecutor(2)\nn = sum(p.map(abs, [-1]))",
        holds=("ended with the cell",)), gives("n", "1\n"), fails("p.submit(abs, 1)", "RuntimeError: ")),
    row("a thread that a cell left", Cell("import threading, time\ndef run():\n    while True: time.sleep(0.001)\nthreading.Thread(target=run).start()",
        holds=("1 thread was still running",)), gives("threading.active_count()", "1\n")),
    row("a Timer that a cell left", Cell("import threading\nthreading.Timer(60, print).start()", holds=("1 thread was",)), gives("1", "1\n")),
    row("top-level await and asyncio.run", gives("import asyncio\nawait asyncio.sleep(0, 1)", "1\n"), gives("asyncio.run(asyncio.sleep(0, 2))", "2\n"),
        gives("async def g():\n    yield 3\n[n async for n in g()]", "[3]\n")),
    row("the source of a cell", "def f():\n    return 1", gives("import inspect\nprint(inspect.getsource(f))", "def f():\n    return 1\n")),
    row("seeded numbers, whoever imports them", gives("import statistics, sys\nsys.modules['random'].random() != 0", "True\n")),
)  # fmt: skip

CONTEXTS = (
    row("a text is a str", gives("type(context).__mro__[1], isinstance(context, str), documents == [context]", "(<class 'str'>, True, True)\n"),
        texts={"t": b"x"}),
    row("a collection is a list", gives("type(context), [d.name for d in context]", "(<class 'list'>, ['a', 'b'])\n"),
        texts={"a": b"1", "b": b"2"}, kind="collection"),
    row("scaffold names that a cell overwrote come back",
        Cell("context = llm_query = rlm_query = SHOW_VARS = None", holds=("restored before the next cell",)),
        gives("context, llm_query('a'), callable(rlm_query), callable(SHOW_VARS)", "('x', 're:a', True, True)\n"), texts={"t": b"x"}),
    row("scaffold names that a cell deleted come back", "del context, grep, ok", gives("context, ok([1])", "('x', [1])\n"), texts={"t": b"x"}),
    row("pieces know their place", gives("[(p.document.name, p.start) for p in [*grep('b'), *chunks(context, 2)]]",
        "[('t', 2), ('t', 0), ('t', 2)]\n"), texts={"t": b"a\nb\n"}),
    row("chunks of odd sizes", gives("len(chunks('abcdef', 2.5))", "4\n"), fails("chunks('abc', 'x')", "TypeError: chunks: size must be a number, not str"),
        fails("chunks(5)", "TypeError: chunks: expected text or a list of texts, not int"), fails("chunks('a', 0)", "ValueError: ")),
)  # fmt: skip

ASKING = (
    row("a callback runs once", gives("llm_query('a')", "'re:a'\n"), asked=("a",)),
    row("order is kept", gives("llm_query_batched([str(n) for n in range(50)]) == [f're:{n}' for n in range(50)]", "True\n")),
    row("none and one", gives("llm_query_batched([]), llm_query_batched(['a']), rlm_query_batched([])", "([], ['re:a'], [])\n")),
    row("a failed slot", gives("r = llm_query_batched(['a', 'FAIL', 'c'])\nok(r), bool(r[1]), isinstance(r[1], str)", "(['re:a', 're:c'], False, False)\n")),
    row("all slots failed", gives("ok(llm_query_batched(['FAIL'] * 3))", "[]\n")),
    row("a failed slot is no text", "r = llm_query_batched(['FAIL'])", fails("''.join(r)", "TypeError: "), fails("FINAL(r[0])", "TypeError: ")),
    row("a failed slot can be copied", gives("import copy, pickle\nr = copy.deepcopy(llm_query_batched(['FAIL']))\nstr(pickle.loads(pickle.dumps(r))[0])",
        "'the host went away (host_failed)'\n")),
    row("a lone failure is an exception of the cell", fails("llm_query('FAIL')", "SubQueryError", "host went away"), gives("1", "1\n")),
    row("errors of the program propagate", fails("llm_query_batched(['a', 5])", "TypeError: llm_query_batched, slot 1"), asked=()),
    row("child runs in their order", gives("rlm_query_batched(['q1', 'FAIL', 'q3'], ['a', 'b', 'c'])[::2]", "['re:q1', 're:q3']\n"), asked=("q1", "FAIL", "q3")),
    row("llm_query never asks a run", gives("llm_query('a'); rlm_query('b')", "'re:b'\n"), asked=("a", "b")),
    row("from threads", gives("from concurrent.futures import ThreadPoolExecutor\nask = llm_query\nwith ThreadPoolExecutor(8) as pool:\n"
        "    r = [*pool.map(ask, map(str, range(40)))]\nr == [f're:{n}' for n in range(40)]", "True\n")),
    row("a name taken in an earlier cell, in a thread", "ask = llm_query", gives("import threading\nr = []\nt = threading.Thread(target=lambda: r.append(ask('a')))\n"
        "t.start(); t.join(); r", "['re:a']\n")),
    row("awaited", gives("import asyncio\nawait asyncio.gather(*(llm_query_async(str(n)) for n in range(3)))", "['re:0', 're:1', 're:2']\n")),
    row("awaited although they need not be", gives("await llm_query('a'), await llm_query_batched(['b'])", "('re:a', ['re:b'])\n")),
    row("prompts of any text", gives("llm_query_batched(['', 'a\\x00b', '\\ud800', '😀'])", "['re:', 're:a\\x00b', 're:\ufffd', 're:😀']\n")),
    row("a model's name of any text", gives("llm_query('a', model='\\ud800\"\\\\')", "'re:a'\n")),
)  # fmt: skip

TABLES = {
    "wrong elsewhere": WRONG_ELSEWHERE,
    "answer": ANSWER,
    "finals": FINALS,
    "cells": CELLS,
    "contexts": CONTEXTS,
    "asking": ASKING,
}


class Oracle(Host):
    """Answers child runs too."""

    async def answer(self, query: SubQuery | ChildQuery, *, batch: int, slot: int) -> SubQueryReply | SubQueryFailure:
        if isinstance(query, ChildQuery):
            query = SubQuery(query.question)
        return await super().answer(query, batch=batch, slot=slot)


@pytest.mark.parametrize(
    "case", [pytest.param(one, id=f"{table}: {one.name}") for table, rows in TABLES.items() for one in rows]
)
async def test_the_table(case: Row, tmp_path: Path) -> None:
    workers, host = Workers(spare_workers=0), Oracle()
    session = await workers.acquire()
    try:
        if case.texts:
            await session.load_contexts([Context(tmp_path, "c", case.texts, kind=case.kind)])
        for cell in case.cells:
            check(cell, await session.run_cell(cell.source, host, seconds=cell.seconds, output_chars=20_000))
        assert session.alive
        if case.asked is not None:
            assert sorted(query.prompt for query in host.queries) == sorted(case.asked)
    finally:
        await workers.close()


def check(cell: Cell, report: CellReport) -> None:
    told = f"{cell.source}\n→ {report}"
    if cell.error is not None:
        error = report.error or ""
        assert error.startswith(cell.error) if cell.error else not error, told
    if cell.output is not None:
        assert report.output == cell.output, told
    for part in cell.holds:
        assert part in report.output, told
    assert (report.final.text if report.final else None) == cell.final, told
    if cell.answer is not None:
        assert report.answer == cell.answer, told
    assert (report.interrupted, report.lost) == (cell.interrupted, False), told
