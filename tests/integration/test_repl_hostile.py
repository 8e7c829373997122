"""Cells that end, stall, flood or deceive: the daemon goes on, and so does the next session.

What a cell may not reach or do is in ``tests/attacks.py`` and tried by ``test_repl_siege.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rlmd.errors import SessionLost
from rlmd.repl import CellReport, ReplSession, Workers
from tests.attacks import PREAMBLE
from tests.repl import BARE, CAGES, Context, Host


@pytest.fixture(params=sorted(CAGES))
async def caged(request: pytest.FixtureRequest) -> AsyncIterator[ReplSession]:
    workers = Workers(plans=[CAGES[request.param]], spare_workers=0, memory_bytes=1 << 30)
    yield await workers.acquire()
    await workers.close()


@pytest.fixture
async def bare() -> AsyncIterator[ReplSession]:
    workers = Workers(plans=[BARE], spare_workers=0, memory_bytes=1 << 30)
    yield await workers.acquire()
    await workers.close()


async def attack(session: ReplSession, source: str, *, seconds: float = 60, cpu: float | None = None) -> CellReport:
    return await session.run_cell(source, Host(), seconds=seconds, cpu_seconds=cpu, output_chars=4000)


# --- ends of the process ---------------------------------------------------------------------------------------

ENDS = {
    "os._exit": ("os._exit(0)", "exit status 0"),
    "abort": ("os.abort()", "killed by SIG"),
    "segfault": ("ctypes.string_at(0)", "SIGSEGV"),
    "closed channel": ("for n in range(256):\n    try: os.close(n)\n    except OSError: pass", ""),
    "32-bit calls": (
        (
            "import mmap\nm = mmap.mmap(-1, 4096, prot=7)\nm.write(bytes.fromhex('b814000000cd80c3'))\n"
            "ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))()"
        ),
        "SIGSYS",
    ),
    "x32 calls": ("libc.syscall(0x40000000 | 39)", "SIGSYS"),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
async def test_a_worker_that_ends_itself_is_a_lost_session_and_no_more(name: str, caged: ReplSession) -> None:
    source, why = ENDS[name]
    with pytest.raises(SessionLost) as lost:
        await attack(caged, PREAMBLE + source)
    assert why in lost.value.message
    assert not caged.alive


#: Where it spends CPU time, that is what ends it: however late it has its turn, it printed something first.
STUBBORN = {
    "signal ignored": ("import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass", 60, 0.2),
    "interrupt caught": ("import time\nwhile True:\n    try: time.sleep(60)\n    except BaseException: pass", 1, None),
    "loop in C": ("sum(range(10 ** 13))", 60, 0.2),
    "signals blocked": (
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass",
        60,
        0.2,
    ),
}


@pytest.mark.parametrize("name", STUBBORN)
async def test_a_cell_that_will_not_stop_is_killed(name: str, caged: ReplSession) -> None:
    source, seconds, cpu = STUBBORN[name]
    report = await attack(caged, "print('before')\n" + source, seconds=seconds, cpu=cpu)
    assert report.lost
    assert report.interrupted
    what = "1 s of the cell's own time" if cpu is None else f"{cpu} s of CPU time"
    assert report.error == f"CellTimeout: more than {what}"
    assert report.output.startswith("before\n")
    assert not caged.alive


@pytest.mark.parametrize("number", [9, 19])
async def test_a_worker_that_kills_or_stops_itself_is_lost_sooner_or_later(number: int, caged: ReplSession) -> None:
    """Inside bubblewrap it is PID 1, which its own SIGKILL and SIGSTOP do not reach: the deadline does."""
    with contextlib.suppress(SessionLost):
        report = await attack(caged, f"import os\nos.kill(os.getpid(), {number})\nsum(range(10 ** 13))", seconds=0.2)
        assert report.lost
    assert not caged.alive


async def test_threads_left_behind_end_the_session(caged: ReplSession) -> None:
    report = await attack(caged, "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()")
    assert report.lost
    assert report.error == "threads: 1 left running by the cell"
    assert not caged.alive


async def test_a_timer_left_behind_does_not_fire(caged: ReplSession) -> None:
    await attack(
        caged,
        "import signal\nsignal.signal(signal.SIGALRM, lambda *_: print('ESCAPED'))\nsignal.setitimer(0, 0.05, 0.05)",
    )
    report = await attack(caged, "import time\ntime.sleep(0.2)")
    assert report.output == ""


# --- memory, output, frames ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    ["x = bytearray(2 << 30)", "x = [0] * 10\nwhile True: x += x", "9 ** 9 ** 9 ** 9", "'x' * (1 << 40)"],
)
async def test_memory_is_bounded(source: str, caged: ReplSession) -> None:
    report = await attack(caged, source, seconds=2)
    assert not report.ok


async def test_a_flood_of_output_is_counted_and_not_kept(caged: ReplSession) -> None:
    host = Host()
    source = "import os\nline = b'x' * 65535 + b'\\n'\nfor _ in range(200): os.write(1, line)"
    report = await caged.run_cell(source, host, seconds=60, output_chars=1000)
    assert report.cut == 200 * 65536 - 1000
    assert len(report.output) < 1100
    assert len(host.printed) <= 200_000


def frame(header: str, body: str = "b''", *, lengths: str | None = None) -> str:
    """Code that writes a frame of its own to the channel, past the worker's program."""
    return (
        "import os, struct\n"
        f"h, b = {header}, {body}\n"
        f"os.write(200, ({lengths or 'struct.pack(chr(62) + chr(73) * 2, len(h), len(b))'}) + h + b)\n"
    )


def forged(body: bytes = b"", **fields: object) -> str:
    return frame(repr(json.dumps(fields).encode()), repr(body))


def sizes(*numbers: int) -> bytes:
    """The manifest of a batch."""
    return struct.pack(f">{len(numbers)}I", *numbers)


def end(**fields: object) -> str:
    """A forged end of the first cell."""
    honest = {"t": "done", "cell": 1, "ok": True, "stopped": False, "error": None, "final": None, "answer": None}
    return forged(**(honest | {"names": [], "threads": 1} | fields))


FORGED = {
    "too long": frame("b''", lengths="struct.pack('>II', 9 << 20, 0)"),
    "too long in sum": frame("b''", lengths="struct.pack('>II', 5 << 20, 5 << 20)"),
    "header too long": frame("b'{\"t\":\"cancel\",\"id\":7,\"x\":\"' + b'x' * 270000 + b'\"}'"),
    "too many sub-queries in all": "import os\n" + "".join(
        frame(f"""b'{{"t": "batch", "id": {number}, "total": 99999, "model": null}}'""", "bytes([0, 0, 0, 1]) * 99999")
        for number in (1, 2, 3)
    ),
    "not JSON": frame("b'{'"),
    "not an object": frame("b'[1]'"),
    "nested": frame("b'[' * 100000"),
    "no type": frame("b'{}'"),
    "unknown type": forged(t="nonsense"),
    "start again": forged(t="ready", layers=["all"]),
    "loaded, unasked": forged(t="loaded"),
    "value, unasked": forged(t="value", id=1, found=True),
    "batch of none": forged(t="batch", id=1, total=0, model=None, spans=[]),
    "batch of too many": forged(sizes(*[1] * 100_001), t="batch", id=1, total=100_001, model=None),
    "batch of huge size": forged(sizes(2_000_000, 3), t="batch", id=1, total=2, model=None),
    "batch of a fraction": forged(sizes(1, 1), t="batch", id=1, total=2.0, model=None),
    "batch with fewer sizes": forged(sizes(1), t="batch", id=1, total=2, model=None),
    "batch with half a size": forged(sizes(1, 1)[:-1], t="batch", id=1, total=2, model=None),
    "batch with more sizes": forged(sizes(1, 1, 1), t="batch", id=1, total=2, model=None),
    "batch with id true": forged(sizes(1, 2), t="batch", id=True, total=2, model=None),
    "batch with a model that is no text": forged(sizes(1, 2), t="batch", id=1, total=2, model={"a": 1}),
    "lone prompt that is too long": frame(
        repr(b'{"t": "batch", "id": 1, "total": 1, "model": null, "spans": []}'), "b'x' * 1_900_001"
    ),
    "prompt of another length": (
        forged(sizes(7, 7), t="batch", id=1, total=2, model=None) + forged(b"x", t="prompt", id=1, slot=0, spans=[])
    ),
    "prompt that nobody asked for": (
        forged(sizes(0, 0), t="batch", id=1, total=2, model=None) + forged(t="prompt", id=1, slot=9, spans=[])
    ),
    "batch twice": forged(sizes(1, 1), t="batch", id=1, total=2, model=None) * 2,
    "spans that are none": forged(t="batch", id=1, total=1, model=None, spans=[[1, 2]]),
    "child run that is given more than it sent": forged(
        b"abc", t="batch", id=1, total=1, model=None, kind="run", question=1, given=[9]
    ),
    "child run with text that belongs to nothing": forged(
        b"abc", t="batch", id=1, total=1, model=None, kind="run", question=1, given=[1]
    ),
    "child run with a question longer than its text": forged(
        b"abc", t="batch", id=1, total=1, model=None, kind="run", question=4, given=None
    ),
    "child run given what is no place": forged(
        b"abc", t="batch", id=1, total=1, model=None, kind="run", question=3, given=[["c", "d", 0]]
    ),
    "child run given more than it may": forged(
        b"abc", t="batch", id=1, total=1, model=None, kind="run", question=3, given=[0] * 1001
    ),
    "batch of a kind that is none": forged(b"a", t="batch", id=1, total=1, model=None, kind=5, spans=[]),
    "surrogate in a name": frame(r"""b'{"t":"batch","id":1,"total":2,"model":"\\ud800"}'"""),
    "body that is no UTF-8": frame("b'{\"t\":\"search\",\"id\":1,\"k\":3}'", r"b'\xff'"),
    "end of another cell": end(cell=99),
    "end with names that are none": end(names=[1]),
    "end with a wrong final": end(final=[5, "FINAL", None]),
    "end with a final of another kind": end(final=[0, "MINE", None]),
    "end with ok 1": end(ok=1),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
async def test_a_forged_frame_ends_the_session(name: str, caged: ReplSession) -> None:
    with pytest.raises(SessionLost, match="broke the protocol"):
        await attack(caged, FORGED[name] + "while True: pass", seconds=30)
    assert not caged.alive


async def test_a_forged_end_gains_nothing(caged: ReplSession) -> None:
    """The cell that says it ended while it goes on is found out at the next word that it says."""

    async def pretend_and_go_on() -> None:
        assert (await attack(caged, end() + "llm_query('x')")).ok
        await attack(caged, "1")

    with pytest.raises(SessionLost, match="broke the protocol"):
        await pretend_and_go_on()
    assert not caged.alive


async def test_a_flood_of_small_frames_does_not_hold_up_the_loop(caged: ReplSession) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counter = asyncio.ensure_future(count())
    one = 'h = b\'{"t":"cancel","id":7}\'\nimport struct, os\nf = (struct.pack(\'>II\', len(h), 0) + h) * 1000\n'
    report = await attack(
        caged, one + "for _ in range(20):\n    v = memoryview(f)\n    while v: v = v[os.write(200, v):]"
    )
    counter.cancel()
    assert report.ok
    assert turns > 20_000 / 64  # 20,000 frames, 32 a turn at most: the loop came round in between


async def test_a_worker_that_asks_and_does_not_read_fills_no_memory(caged: ReplSession) -> None:
    """Searches that are refused cost it nothing, and each is answered."""
    one = (
        'import os, struct\nh = b\'{"t":"search","id":7,"k":0}\'\n'
        "f = (struct.pack('>II', len(h), 1) + h + b'x') * 1000\n"
    )
    with pytest.raises(SessionLost, match="64 MiB asked for and not read"):
        await attack(
            caged, one + "while True:\n    v = memoryview(f)\n    while v: v = v[os.write(200, v):]", seconds=120
        )


async def test_long_prompts_are_with_the_host_a_few_at_a_time(caged: ReplSession) -> None:
    """128 of 7.6 MB each would be a gigabyte in the daemon."""
    host = Host(lambda prompt: str(len(prompt)))
    host.gate.clear()
    source = "replies = llm_query_batched(['x' * 1_900_000] * 12)\nreplies.count('1900000')"
    cell = asyncio.ensure_future(caged.run_cell(source, host, seconds=60, output_chars=1000))
    await host.until_in_flight(8)  # 16,000,000 characters
    await asyncio.sleep(0)
    assert host.in_flight == 8
    host.gate.set()
    assert (await cell).output == "12\n"
    assert host.most_in_flight == 8


async def test_descriptors_sent_to_the_daemon_are_closed(bare: ReplSession) -> None:
    """The filter sends none; the daemon takes none all the same."""
    before = len(os.listdir("/proc/self/fd"))
    source = (
        'import socket, os, struct, array\ns = socket.socket(fileno=os.dup(200))\nh = b\'{"t":"cancel","id":7}\'\n'
        "for _ in range(20):\n"
        "    s.sendmsg([struct.pack('>II', len(h), 0) + h], [(1, 1, array.array('i', [1] * 10))])"
    )
    assert (await attack(bare, source)).ok
    assert len(os.listdir("/proc/self/fd")) == before


async def test_nothing_is_open_in_a_cell_but_its_streams_and_the_channel(caged: ReplSession, tmp_path: Path) -> None:
    await caged.load_contexts([Context(tmp_path, "c", {"d": b"text"})])
    report = await attack(
        caged,
        "import os, fcntl\ndef is_open(n):\n    try: fcntl.fcntl(n, 1); return True\n    except OSError: return False\n"
        "print([n for n in range(1024) if is_open(n)])",
    )
    assert report.output == f"[0, 1, 2, {', '.join(map(str, range(200, 210)))}]\n"


async def test_a_cell_that_uses_up_its_descriptors_fails_and_keeps_its_session(
    caged: ReplSession, tmp_path: Path
) -> None:
    """Also while it keeps them: the failure is explained, other cells run, contexts in many files arrive."""
    report = await attack(caged, "import os\nkept = []\nwhile True: kept.append(os.dup(1))")
    assert report.error == "OSError: [Errno 24] Too many open files"
    assert 'File "<cell 1>", line 3, in <module>' in report.output
    assert len((await attack(caged, "kept")).output.split()) > 200
    await caged.load_contexts([Context(tmp_path, f"c{n}", {"d": b"text %d" % n}) for n in range(3)])
    assert "Too many open files" in ((await attack(caged, "contexts['c2'], open('/dev/null')")).error or "")
    many = [Context(tmp_path, "many", {f"d{n}": b"%d" % n for n in range(130)}, kind="collection", apart=True)]
    await caged.load_contexts(many)
    assert (await attack(caged, "len(documents), documents[129]")).output == "(130, '129')\n"
    assert (await attack(caged, "for n in kept: os.close(n)\nopen('/dev/null').close()")).ok


async def test_computing_behind_a_forged_end_is_found_out(caged: ReplSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlmd.repl.session._IDLE_LOOK", 0.7)
    done = end()
    ended = asyncio.Event()
    caged.when_ended(lambda _: ended.set())
    await attack(caged, done + "while True: pass")
    async with asyncio.timeout(30):
        await ended.wait()
    with pytest.raises(SessionLost, match="computed after the end of its cell"):
        await attack(caged, "1")


async def test_computing_while_sub_queries_are_out_is_charged(caged: ReplSession) -> None:
    host = Host()
    host.gate.clear()
    source = "import threading\nthreading.Thread(target=llm_query, args=('x',), daemon=True).start()\nwhile True: pass"
    report = await caged.run_cell(source, host, seconds=1, output_chars=1000)
    assert report.error is not None
    assert report.error.startswith("CellTimeout")
    assert host.in_flight == 0
    assert host.cancelled == 1
    with contextlib.suppress(SessionLost):
        await caged.close()
