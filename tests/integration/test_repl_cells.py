"""What cells mean: names, output, errors, contexts, sub-queries, finals; in real workers, in both cages."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from rlmd.errors import Conflict, SessionLost, TooLarge
from rlmd.events import Span
from rlmd.repl import Final, ReplSession, SearchPassage, Workers
from tests.repl import Context, Host, Run

# --- what other REPLs get wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("class A:\n    x = 1\nprint(A().x)", "1\n"),
        ("print(frozenset([1]), ZeroDivisionError, TimeoutError)", None),
        ("x = 5\nx", "5\n"),
        ("'a' + \"b\"", "'ab'\n"),
        ("None", ""),
        ("x = [1, 2]", ""),
        ("import collections, math, statistics, textwrap, difflib, csv, dataclasses, datetime; 1", "1\n"),
        ("from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\nP(3)", "P(x=3)\n"),
        ("def f():\n    yield 1\nlist(f())", "[1]\n"),
        ("import asyncio\nasync def f(n):\n    return n\nawait asyncio.gather(f(1), f(2))", "[1, 2]\n"),
        ("import asyncio\nasync def f():\n    return 7\nasyncio.run(f())", "7\n"),
        ("await __import__('asyncio').to_thread(lambda: 3)", "3\n"),
        ("from concurrent.futures import *\nwith ThreadPoolExecutor(4) as t:\n    r = [*t.map(abs, [-1])]\nr", "[1]\n"),
        ("print('a\\r\\nb\\rc', end='')", "a\r\nb\rc"),
        ("print('\\ud83d')", "\\ud83d\n"),
        ("import os\n_ = os.write(1, b'raw \\xff\\n')", "raw \ufffd\n"),
        ("import sys\nprint('out')\nprint('err', file=sys.stderr)\nprint('out')", "out\nerr\nout\n"),
        ("import pickle\nclass Q: pass\npickle.loads(pickle.dumps(Q())).__class__.__name__", "'Q'\n"),
    ],
)  # fmt: skip
async def test_a_cell_is_ordinary_python(run: Run, source: str, output: str | None) -> None:
    report = await run(source)
    assert report.ok, report.output
    assert not report.lost
    if output is not None:
        assert report.output == output


async def test_output_of_c_of_threads_and_of_python_comes_in_its_order(run: Run) -> None:
    report = await run(
        "import ctypes, os, sys, threading\nlibc = ctypes.CDLL(None)\n"
        "print('one')\nlibc.puts(b'two')\nsys.stderr.write('three\\n')\n"
        "t = threading.Thread(target=print, args=('four',))\nt.start(); t.join()\n"
        "os.write(2, b'five\\n')\n_ = libc.printf(b'six\\n')"
    )
    assert report.output == "one\ntwo\nthree\nfour\nfive\nsix\n"


async def test_sessions_side_by_side_see_their_own_output_alone() -> None:
    """Eight at once, each printing its own id: in a REPL that shares its process none came out right."""
    workers = Workers(spare_workers=0)
    sessions = [await workers.acquire() for _ in range(8)]
    source = "import time\nfor _ in range(10):\n    print('kid{0}'); time.sleep(0.002)"
    reports = await asyncio.gather(
        *(one.run_cell(source.format(n), Host(), seconds=20, output_chars=4000) for n, one in enumerate(sessions))
    )
    await workers.close()
    assert [report.output for report in reports] == [f"kid{n}\n" * 10 for n in range(8)]


async def test_names_stay_also_those_bound_before_an_exception(run: Run) -> None:
    failed = await run("kept = 1\n_private = 2\ndef f(): return kept\n1/0\nnever = 3")
    assert failed.error == "ZeroDivisionError: division by zero"
    assert not failed.ok
    report = await run("kept = 2\nprint(f(), _private, 'never' in globals())\ndel kept")
    assert report.output == "2 2 False\n"  # f sees the new value: one namespace
    assert (await run("kept")).error == "NameError: name 'kept' is not defined"


async def test_a_traceback_shows_the_cells_own_lines_and_nothing_of_ours(run: Run) -> None:
    await run("def f(x):\n    return 1 / x")
    report = await run("x = 0\n\nf(x)")
    assert 'File "<cell 2>", line 3, in <module>\n    f(x)\n' in report.output
    assert 'File "<cell 1>", line 2, in f\n    return 1 / x\n' in report.output
    assert "rlmd" not in report.output
    awaited = await run("import asyncio\nasync def g():\n    raise KeyError('k')\nawait g()")
    assert 'File "<cell 3>", line 3, in g' in awaited.output
    assert "runners.py" not in awaited.output
    syntax = await run("x = (1,\ny = 2")
    assert syntax.error is not None
    assert syntax.error.startswith("SyntaxError")
    assert 'File "<cell 4>"' in syntax.output


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import sys\nsys.exit(3)", "SystemExit: 3"),
        ("import sys\nsys.exit()", None),
        ("exit()", None),
        ("quit('done')", "SystemExit: done"),
        ("input('?')", "EOFError: EOF when reading a line"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise GeneratorExit('x')", "GeneratorExit: x"),
        ("def f(): f()\nf()", "RecursionError: maximum recursion depth exceeded"),
        ("class E(Exception):\n    def __str__(self): raise SystemExit\nraise E", None),
        ("x = bytearray(1 << 40)", "MemoryError"),
        ("open('/tmp/x', 'w')", "PermissionError: [Errno 1] Operation not permitted: '/tmp/x'"),
        ("import subprocess\nsubprocess.run(['true'])", "PermissionError: [Errno 1] Operation not permitted"),
    ],
)
async def test_a_cell_that_goes_wrong_ends_itself_and_nothing_else(run: Run, source: str, error: str | None) -> None:
    report = await run(source)
    assert not report.lost
    if error is not None:
        assert report.error is not None
        assert report.error.startswith(error)
    assert (await run("1 + 1")).output == "2\n"


@pytest.mark.parametrize(
    "damage",
    [
        "import sys, io\nsys.stdout = sys.stderr = io.StringIO()",
        "import os\nos.close(1); os.close(2)",
        "import sys\nsys.stdout.close()",
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)",
        "context = documents = llm_query = FINAL = print",
        "del context, llm_query",
        "import os\nfor n in range(3, 150):\n    try:\n        os.close(n)\n    except OSError: pass",
    ],
)
async def test_what_a_cell_broke_is_whole_in_the_next(run: Run, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlmd.repl.execution.GRACE", 60)  # a machine that is busy may take long to let it stop
    await run(damage)
    report = await run("print(llm_query('x'), type(context).__name__, callable(FINAL))")
    assert report.output == "re:x str True\n"
    stopped = await run("while True: pass", seconds=0.2)
    assert stopped.interrupted
    assert not stopped.lost


async def test_scaffold_names_that_a_cell_bound_are_told(run: Run) -> None:
    report = await run("context = 'mine'")
    assert "context" in report.output
    assert "restored" in report.output


# --- output ----------------------------------------------------------------------------------------------------


async def test_head_and_tail_of_a_long_output_stay_and_the_cut_is_counted(run: Run, host: Host) -> None:
    whole = "".join(f"line {n}\n" for n in range(20_000))
    report = await run("for n in range(20_000): print('line', n)", output_chars=1000)
    assert report.output.startswith(whole[:500])
    assert report.output.endswith(whole[-500:])
    assert report.cut == len(whole) - 1000
    assert f"{report.cut:,} characters cut" in report.output
    assert report.digest == hashlib.sha256(whole.encode()).hexdigest()
    assert whole.startswith(host.printed)


async def test_output_of_one_cell_is_not_the_nexts(run: Run) -> None:
    assert (await run("print('one')")).output == "one\n"
    assert (await run("print('two')")).output == "two\n"


async def test_a_long_echoed_text_is_cut_before_it_is_written(run: Run) -> None:
    report = await run("'x' * 10_000_000", output_chars=1000)
    assert "10,000,000 characters" in report.output
    assert len(report.output) < 1200


# --- contexts --------------------------------------------------------------------------------------------------


async def test_a_text_arrives_character_for_character(session: ReplSession, run: Run, tmp_path: Path) -> None:
    data = "a\r\nb\rc\u2028ä€😀".encode() + b"\xff\xc3" + b"\x00end"
    await session.load_contexts([Context(tmp_path, "log", {"log.txt": data}, cuts=(8, 12))])
    report = await run(
        "print(ascii(context)); print(context.encode('utf-8', 'surrogateescape').hex())\n"
        "print(context is documents[0], contexts['log'] is context, context.name, context.start)\n"
        "print(isinstance(context, str))"
    )
    text = data.decode("utf-8", "surrogateescape")
    assert report.output == f"{text!a}\n{data.hex()}\nTrue True log.txt 0\nTrue\n"


async def test_a_collection_is_a_list_of_documents(session: ReplSession, run: Run, tmp_path: Path) -> None:
    documents = {f"d{n}": f"text {n}".encode() for n in range(9000)} | {"empty": b""}
    source = Context(tmp_path, "many", documents, kind="collection")
    await session.load_contexts([source])
    report = await run(
        "print(len(context), context[7], context[7].name, context[-1] == '', contexts['many'] == documents)"
    )
    assert report.output == "9001 text 7 d7 True True\n"
    assert source.opened == 10  # one descriptor for a thousand documents, not one for each


async def test_only_what_changed_is_sent_again_and_what_is_not_named_goes(
    session: ReplSession, run: Run, tmp_path: Path
) -> None:
    one, two = Context(tmp_path, "one", {"a": b"1"}), Context(tmp_path, "two", {"b": b"2"})
    await session.load_contexts([one, two])
    await run("mine = 1")
    newer = Context(tmp_path, "two", {"b": b"22"}, revision=2)
    await session.load_contexts([newer, one])
    assert one.opened == 1
    assert (await run("print(list(contexts), contexts['two'], context, mine)")).output == "['two', 'one'] 22 22 1\n"
    await session.load_contexts([one])
    assert (await run("print(list(contexts), context)")).output == "['one'] 1\n"


async def test_a_context_that_does_not_fit_is_refused_with_both_numbers(session: ReplSession, tmp_path: Path) -> None:
    session.allow_memory(600 << 20)
    big = Context(tmp_path, "big", {"a": ("x" * 999 + "😀").encode()})
    big.documents[0] = type(big.documents[0])(**{**vars(big.documents[0]), "chars": 100 << 20})
    with pytest.raises(TooLarge, match=r"need 912 MiB in the REPL; it may take 600 MiB"):
        await session.load_contexts([big])
    assert session.alive


async def test_grep_chunks_and_search_give_pieces_that_know_their_place(
    session: ReplSession, run: Run, host: Host, tmp_path: Path
) -> None:
    await session.load_contexts([Context(tmp_path, "c", {"d": b"one\ntwo needle\nthree\nneedle four\n"})])
    host.passages = [SearchPassage("c", "d", 4, 14, "two needle", 1.5, 2)]
    report = await run(
        "for p in grep('(?i)NEEDLE'): print(p, p.document.name, p.start, p.end, p.line)\n"
        "for p in search('needle'): print(p, p.start, p.end, p.score, p.line)\n"
        "print(''.join(chunks(context, 10)) == context, max(map(len, chunks(context, 10))) <= 10)\n"
        "print(grep('e', limit=1), context[4:7].start, context[4:14][4:].start)"
    )
    assert report.output == (
        "two needle d 4 14 2\nneedle four d 21 32 4\ntwo needle 4 14 1.5 2\nTrue True\n"
        "[grep: the first 1 lines; there are more (limit=…)]\n['one'] 4 8\n"
    )


# --- sub-queries -----------------------------------------------------------------------------------------------


async def test_a_batch_keeps_its_order_and_fails_slot_by_slot(run: Run, host: Host) -> None:
    report = await run(
        "r = llm_query_batched(['a', 'FAIL b', 'c'])\nprint(r[0], r[2], bool(r[1]), isinstance(r[1], str), ok(r))\nr[1]"
    )
    assert report.output == (
        "re:a re:c False False ['re:a', 're:c']\n<SubQueryError: slot 1 of 3: the host went away (host_failed)>\n"
    )
    assert host.batches == [(1, 3)]


@pytest.mark.parametrize("use", ["''.join(r)", "r[1] + 'x'", "'x' + r[1]", "r[1][:10]", "r[1].strip()", "len(r[1])",
                                 "FINAL(r[1])", "llm_query(r[1])"])  # fmt: skip
async def test_using_a_failed_slot_as_text_names_slot_and_cause(run: Run, use: str) -> None:
    report = await run(f"r = llm_query_batched(['a', 'FAIL'])\n{use}")
    assert report.error is not None
    assert "slot 1" in report.error
    assert "the host went away" in report.error
    assert report.final is None


async def test_a_lone_query_that_fails_raises(run: Run) -> None:
    report = await run("try:\n    llm_query('FAIL')\nexcept SubQueryError as e:\n    print(e.kind, e.message)")
    assert report.output == "host_failed the host went away\n"


async def test_prompts_are_pulled_longest_first_within_the_credit(run: Run, host: Host) -> None:
    host.gate.clear()
    task = asyncio.ensure_future(run("r = llm_query_batched(['x' * n for n in range(300)])\nprint(len(ok(r)))"))
    await host.until_in_flight(128)
    assert sorted((len(q.prompt) for q in host.queries), reverse=True) == list(range(299, 171, -1))
    host.gate.set()
    assert (await task).output == "300\n"
    assert host.most_in_flight == 128


async def test_prompts_say_where_their_text_came_from(
    session: ReplSession, run: Run, host: Host, tmp_path: Path
) -> None:
    text = "".join(f"Line {n} of the log says {n * 7919 % 1000}.\n" for n in range(4000))
    await session.load_contexts([Context(tmp_path, "c", {"d": text.encode()})])
    report = await run(
        "pieces = chunks(context, 3000)\n"
        "r = llm_query_batched([f'What is in this?\\n\\n{p}\\n\\nBe short.' for p in pieces])\n"
        "print([(p.start, p.end) for p in pieces])"
    )
    expected = {Span(context="c", document="d", start=a, end=b) for a, b in eval(report.output)}
    assert len(expected) > 30
    assert {span for query in host.queries for span in query.spans} == expected
    host.queries.clear()
    await run("llm_query('About: ' + '\\n'.join(context.split('\\n')[100:140]))")  # not handed out: found by its lines
    (span,) = host.queries[0].spans
    start = text.index("Line 100 ")
    assert (span.start, span.end) == (start, text.index("\n", text.index("Line 139 ")))


async def test_threads_may_ask_too(run: Run) -> None:
    report = await run(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(8) as pool:\n    r = list(pool.map(llm_query, map(str, range(40))))\n"
        "r == [f're:{n}' for n in range(40)]"
    )
    assert report.output == "True\n"
    assert not report.lost


async def test_a_model_may_be_chosen(run: Run, host: Host) -> None:
    await run("llm_query('a', model='m1'); llm_query_batched(['b', 'c'], 'm2'); llm_query('d')")
    assert [query.model for query in host.queries] == ["m1", "m2", "m2", None]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("llm_query(3)", "TypeError: llm_query: the prompt must be a str, not int"),
        ("llm_query('x' * 2_000_000)", "ValueError: llm_query: a prompt of 2,000,000 characters; at most 1,900,000"),
        ("llm_query_batched('abc')", "TypeError: llm_query_batched takes a list of prompts"),
        ("llm_query_batched(['a', None])", "TypeError: llm_query_batched, slot 1: the prompt must be a str"),
        ("search('x', 0)", "ValueError: search takes k from 1"),
    ],
)
async def test_bad_calls_are_refused_with_a_sentence(run: Run, host: Host, call: str, error: str) -> None:
    report = await run(call)
    assert report.error is not None
    assert report.error.startswith(error)
    assert host.queries == []
    assert (await run("llm_query_batched([])")).output == "[]\n"


async def test_an_error_of_the_host_stops_the_cell_and_keeps_the_session(session: ReplSession, run: Run) -> None:
    broken = Host(lambda prompt: str(1 / 0))
    with pytest.raises(ZeroDivisionError):
        await session.run_cell("n = 1\nllm_query('a')", broken, seconds=20, output_chars=100)
    assert (await run("n")).output == "1\n"


# --- finals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "final"),
    [
        ("FINAL('done (really)')", Final("done (really)", "FINAL")),
        ("FINAL([1, {'a': 2}])", Final("[1, {'a': 2}]", "FINAL")),
        ("SUBMIT(42)", Final("42", "SUBMIT")),
        ("result = 'r'\nFINAL_VAR('result')", Final("r", "FINAL_VAR", "result")),
        ("result = [1]\nFINAL_VAR(result)", Final("[1]", "FINAL_VAR", "result")),
        ("FINAL_VAR('not a name at all')", Final("not a name at all", "FINAL_VAR")),
        ("answer['content'] = 'c'\nanswer['ready'] = True", Final("c", "answer")),
        ("answer = {'content': 7, 'ready': True}", Final("7", "answer")),
        ("answer['content'] = 'c'\nFINAL_VAR('answer')", Final("c", "FINAL_VAR", "answer")),
        ("FINAL(1)\nFINAL(2)", Final("2", "FINAL")),
        ("FINAL('x')\n1/0", Final("x", "FINAL")),
    ],
)
async def test_all_ways_to_finish(run: Run, source: str, final: Final) -> None:
    assert (await run(source)).final == final
    assert (await run("1")).final is None  # a final belongs to its cell


async def test_an_answer_in_the_making_is_reported_as_it_stands(session: ReplSession, run: Run) -> None:
    assert (await run("answer['content'] = 'so far'")).answer == "so far"
    assert (await run("1")).answer == "so far"
    assert await session.value_of("answer") == "so far"
    rebound = await run("answer = 'text'")
    assert rebound.answer == "text"
    assert "answer['content']" in rebound.output
    assert (await run("answer['ready'] = True")).final == Final("text", "answer")


async def test_an_empty_or_missing_final_is_refused_with_what_there_is(run: Run) -> None:
    assert (await run("FINAL('  ')")).error == "ValueError: FINAL: the answer is empty"
    report = await run("found = 1\nFINAL_VAR('result')")
    assert report.error == "NameError: FINAL_VAR: no variable 'result' of yours; there are: found"
    assert report.final is None


async def test_names_are_reported_with_type_and_size(session: ReplSession, run: Run) -> None:
    report = await run("import re\nn = 3\ns = 'x' * 1204\nl = [0] * 40\ndef f(): pass\n_hidden = 1\nprint(SHOW_VARS())")
    assert [(name.name, name.type, name.size) for name in report.names] == [
        ("n", "int", "3"), ("s", "str", "1,204 characters"), ("l", "list", "list of 40"), ("f", "function", "function"),
    ]  # fmt: skip
    assert report.output.startswith("n: int (3)\n")
    assert await session.value_of("l") == str([0] * 40)
    assert [await session.value_of(name) for name in ("nothing", "context", "a.b", "print")] == [None] * 4


async def test_one_thing_at_a_time_and_nothing_after_the_end(session: ReplSession, run: Run, host: Host) -> None:
    host.gate.clear()
    first = asyncio.ensure_future(run("llm_query('a')"))
    await host.asked.wait()
    with pytest.raises(Conflict):
        await run("1")
    host.gate.set()
    await first
    await session.close()
    with pytest.raises(SessionLost):
        await run("1")
    await session.close()
