"""Asking as coroutines and for data: concurrent, cancelled, typed; in real workers, in both cages."""

from __future__ import annotations

import asyncio
import json

import pytest

from rlmd.repl import ReplSession
from tests.repl import Host, Run

# --- coroutines ------------------------------------------------------------------------------------------------


async def test_coroutines_ask_at_once_and_the_loop_goes_on(run: Run, host: Host) -> None:
    """Forty are out while a task of the cell's own still ticks."""
    host.gate.clear()
    source = (
        "import asyncio\n"
        "async def tick():\n"
        "    while True:\n        print('.', end='', flush=True)\n        await asyncio.sleep(0.01)\n"
        "ticking = asyncio.ensure_future(tick())\n"
        "async def ask(n):\n    await asyncio.sleep(0)\n    return await llm_query_async(str(n))\n"
        "r = await asyncio.gather(*(ask(n) for n in range(40)))\nticking.cancel()\n"
        "print(r == [f're:{n}' for n in range(40)])"
    )
    running = asyncio.ensure_future(run(source))
    await host.until_in_flight(40)
    ticked = len(host.printed)
    while len(host.printed) < ticked + 4 and not running.done():
        await asyncio.sleep(0.01)
    host.gate.set()
    assert (await running).output.strip(".") == "True\n"


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("await llm_query('a')", "'re:a'\n"),
        ("await llm_query_batched(['a', 'b'])", "['re:a', 're:b']\n"),
        ("await llm_query_batched_async(['a', 'b'])", "['re:a', 're:b']\n"),
        ("await llm_query_batched_async([])", "[]\n"),
        ("r = await llm_query_batched_async(['a', 'FAIL'])\nok(r), bool(r[1])", "(['re:a'], False)\n"),
        ("try:\n    await llm_query_async('FAIL')\nexcept SubQueryError as e:\n    print(e.kind)", "host_failed\n"),
        ("import asyncio\nawait asyncio.gather(llm_query('a'), llm_query('b'))", "['re:a', 're:b']\n"),
        ("import asyncio\nasync def f(): return await llm_query_async('a')\nasyncio.run(f())", "'re:a'\n"),
        ("import json, pickle\nr = llm_query('a')\njson.dumps(r), type(pickle.loads(pickle.dumps(r)))",
         "('\"re:a\"', <class 'str'>)\n"),
        ("r = llm_query_batched(['a'])\nr + ['b'], r == ['re:a']", "(['re:a', 'b'], True)\n"),
    ],
)  # fmt: skip
async def test_whatever_a_model_takes_them_for(run: Run, source: str, output: str) -> None:
    report = await run(source)
    assert report.output == output
    assert report.ok


@pytest.mark.parametrize(
    "source",
    [
        "llm_query('Is it lit?', 'x' * 300)", "llm_query('xyz', 'Is it lit?')", "llm_query('Is it?', ['a', 'b'])",
        "llm_query_batched(['Is it?'], ['x'])", "await llm_query_async('Is it lit?', model=chunks('xyz')[0])",
    ],
)  # fmt: skip
async def test_a_text_where_a_models_name_belongs_is_told_what_to_do(run: Run, source: str) -> None:
    """Many models give the text as the second argument. The session goes on."""
    report = await run(f"kept = 1\n{source}")
    assert not report.ok
    assert 'into the prompt, before the question: llm_query(text + "\\n\\n" + question)' in report.output
    assert not report.lost
    assert (await run("kept")).output == "1\n"


async def test_a_wrong_argument_is_answered_with_the_right_ones(run: Run) -> None:
    report = await run("search('lamp', top_k=3)")
    assert report.output.endswith("search(query, k=10) is how it is called.\n")
    assert report.error == "TypeError: Scaffold.search() got an unexpected keyword argument 'top_k'"
    report = await run("rlm_query('a', text='b')")
    assert report.output.endswith("rlm_query(question, context=None) is how it is called.\n")
    report = await run("def mine(a): ...\nmine(b=1)")
    assert report.output.endswith("unexpected keyword argument 'b'\n")


async def test_threads_and_coroutines_ask_side_by_side(run: Run, host: Host) -> None:
    report = await run(
        "import asyncio\n"
        "r = await asyncio.gather(*(llm_query_async(f'c{n}') if n % 2 else asyncio.to_thread(llm_query, f't{n}')\n"
        "                           for n in range(60)))\n"
        'r == [f\'re:{"c" if n % 2 else "t"}{n}\' for n in range(60)]'
    )
    assert report.output == "True\n"
    assert not report.lost


async def test_a_coroutine_that_is_cancelled_takes_its_sub_query_along(run: Run, host: Host) -> None:
    host.gate.clear()
    report = await run(
        "import asyncio\n"
        "try:\n    await asyncio.wait_for(llm_query_async('a'), 0.05)\nexcept TimeoutError:\n    print('given up')"
    )
    assert report.output == "given up\n"
    assert (host.in_flight, host.cancelled) == (0, 1)
    host.gate.set()
    assert (await run("await llm_query_async('b')")).output == "'re:b'\n"


async def test_a_cell_that_awaits_a_reply_can_be_stopped_and_keeps_its_names(session: ReplSession, host: Host) -> None:
    host.gate.clear()
    running = asyncio.ensure_future(
        session.run_cell("n = 1\nawait llm_query_async('a')", host, seconds=20, output_chars=100)
    )
    await host.until_in_flight(1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert host.in_flight == 0
    host.gate.set()
    after = await session.run_cell("n, await llm_query_async('b')", host, seconds=20, output_chars=100)
    assert after.output == "(1, 're:b')\n"


async def test_tasks_that_a_cell_leaves_end_with_it(run: Run, host: Host) -> None:
    """They would go on asking in whichever cell awaits next."""
    report = await run(
        "import asyncio\nseen = []\n"
        "async def ask_on():\n    try:\n        while True:\n            seen.append(await llm_query_async('again'))\n"
        "    finally:\n        seen.append('ended')\n"
        "task = asyncio.ensure_future(ask_on())\nwhile len(seen) < 3: await asyncio.sleep(0)"
    )
    assert "1 asyncio task was still running" in report.output
    asked = len(host.queries)
    assert (await run("await asyncio.sleep(0.05)\nseen[-1], task.cancelled()")).output == "('ended', True)\n"
    assert len(host.queries) == asked


async def test_a_task_that_will_not_end_does_not_hold_up_the_cell(run: Run) -> None:
    report = await run(
        "import asyncio\n"
        "async def stay():\n    while True:\n        try: await asyncio.sleep(9)\n"
        "        except asyncio.CancelledError: pass\n"
        "task = asyncio.ensure_future(stay())\nawait asyncio.sleep(0)"
    )
    assert report.ok
    assert (await run("await asyncio.sleep(0, 'next')")).output == "'next'\n"


# --- data ------------------------------------------------------------------------------------------------------


async def test_replies_come_as_the_type_that_was_asked_for(run: Run, host: Host) -> None:
    replies = {"a": '{"name": "Ada", "born": 1815}', "b": "[1, 2]", "c": "true"}
    host._answer = lambda prompt: replies[prompt]
    report = await run(
        "from dataclasses import dataclass\n@dataclass\nclass Person:\n    name: str\n    born: int\n"
        "print(llm_query('a', schema=Person), llm_query('b', schema=list[int]), llm_query('c', schema=bool))\n"
        "print(await llm_query_async('b', schema={'type': 'array'}))\n"
        "print(llm_query_batched(['b', 'FAIL'], schema=list[float])[0])"
    )  # fmt: skip
    assert report.output == "Person(name='Ada', born=1815) [1, 2] True\n[1, 2]\n[1.0, 2.0]\n"
    asked = [json.loads(query.schema or "null") for query in host.queries]
    assert asked[0]["required"] == ["name", "born"]
    assert asked[1] == {"type": "array", "items": {"type": "integer"}}
    assert [query.schema for query in host.queries if query.prompt == "FAIL"] != [None]


async def test_a_reply_that_the_type_itself_refuses_fails_in_its_slot(run: Run, host: Host) -> None:
    host._answer = lambda prompt: prompt
    report = await run(
        "import dataclasses\n@dataclasses.dataclass\nclass Even:\n    n: int\n"
        "    def __post_init__(self):\n        if self.n % 2: raise ValueError('odd')\n"
        "r = llm_query_batched(['{\"n\": 2}', '{\"n\": 3}'], schema=Even)\nprint(r[0], r[1].kind, r[1].message)"
    )
    assert report.output == "Even(n=2) reply_mismatch ValueError: odd\n"


@pytest.mark.parametrize("schema", ["object()", "dict[int, str]", "lambda: 1"])
async def test_what_is_no_schema_is_refused_before_anything_is_asked(run: Run, host: Host, schema: str) -> None:
    report = await run(f"llm_query('a', schema={schema})")
    assert report.error is not None
    assert "has no JSON. Known are str, int" in report.error
    assert host.queries == []


async def test_many_more_than_may_be_out_at_once_are_all_answered(run: Run, host: Host) -> None:
    """A slot that was answered, or given up before its prompt had come, makes room for the next."""
    source = (
        "import asyncio\n"
        "try:\n    await asyncio.wait_for(llm_query_batched_async([f'late {n}' for n in range(500)]), 0.05)\n"
        "except TimeoutError:\n    pass\n"
        "r = llm_query_batched([str(n) for n in range(600)])\n"
        "print(r == [f're:{n}' for n in range(600)])"
    )
    running = asyncio.ensure_future(run(source))
    assert (await running).output == "True\n"
