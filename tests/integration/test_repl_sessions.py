"""A session over time: deadlines, cancelling, loss, limits, the supply of workers; nothing may be left over."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from rlmd.errors import CageUnavailable, Draining, SessionLost
from rlmd.repl import ReplSession, Workers, process
from rlmd.repl.cell import CellClock
from rlmd.repl.process import CagePlan, WorkerProcess, _program
from rlmd.repl.proof import _PROBES
from rlmd.repl.visible import readable_paths
from tests.repl import BARE, CAGES, WITH_BUBBLEWRAP, WITHOUT_BUBBLEWRAP, Context, Host

ROOT = Path(__file__).resolve().parents[2]

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as _runner:
    _runner.run(asyncio.sleep(0))  # uvloop keeps a pipe from its first loop on


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Every descriptor and child process that a test opened is gone after it."""
    _program()  # one descriptor for the life of the process
    before = len(os.listdir("/proc/self/fd"))
    yield
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert [pid for pid in children if b"rlmd" in Path(f"/proc/{pid}/cmdline").read_bytes()] == []
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.fixture(params=sorted(CAGES))
async def workers(request: pytest.FixtureRequest) -> AsyncIterator[Workers]:
    made = Workers(plans=[CAGES[request.param]], spare_workers=0, max_workers=2)
    yield made
    await made.close()


@pytest.fixture
async def session(workers: Workers) -> ReplSession:
    return await workers.acquire()


# --- clocks ----------------------------------------------------------------------------------------------------


async def test_a_cell_that_runs_too_long_is_interrupted_and_its_names_stay(
    session: ReplSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlmd.repl.execution.GRACE", 60)  # a machine that is busy may take long to let it stop
    report = await session.run_cell("n = 41\nwhile True: pass", Host(), seconds=1, output_chars=1000)
    assert report.error == "CellTimeout: more than 1 s of the cell's own time"
    assert (report.interrupted, report.lost, report.ok) == (True, False, False)
    assert (await session.run_cell("n + 1", Host(), seconds=5, output_chars=100)).output == "42\n"


async def test_waiting_for_sub_queries_costs_a_cell_nothing(session: ReplSession) -> None:
    host = Host()
    host.gate.clear()
    running = asyncio.ensure_future(session.run_cell("llm_query('a')", host, seconds=1, output_chars=100))
    await host.until_in_flight(1)
    await asyncio.wait({running}, timeout=1.5)  # more than what the cell may take by itself
    assert not running.done()
    host.gate.set()
    assert (await running).output == "'re:a'\n"


async def test_cpu_time_is_capped_over_all_threads(session: ReplSession) -> None:
    report = await session.run_cell("while True: pass", Host(), seconds=60, cpu_seconds=0.2, output_chars=100)
    assert report.error == "CellTimeout: more than 0.2 s of CPU time"


def test_the_cells_clock_counts_the_wall_or_while_waiting_the_cpu() -> None:
    wall, cpu = [100.0], [1.0]
    clock = CellClock(lambda: wall[0], lambda: cpu[0])
    wall[0] += 2
    assert clock.seconds() == 2
    clock.wait(True)
    wall[0] += 50
    assert clock.seconds() == 2
    cpu[0] += 3
    clock.wait(True)
    assert clock.seconds() == 5
    clock.wait(False)
    cpu[0] += 10
    wall[0] += 1
    assert clock.seconds() == 6


# --- cancelling and loss ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["llm_query_batched(['a'] * 300)", "llm_query('a')", "while True: llm_query('b')"])
async def test_cancelling_takes_the_sub_queries_along_and_keeps_the_session(source: str, session: ReplSession) -> None:
    host = Host()
    host.gate.clear()
    running = asyncio.ensure_future(session.run_cell(f"n = 1\n{source}", host, seconds=60, output_chars=100))
    await host.until_in_flight(1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert host.in_flight == 0
    assert (await session.run_cell("n", Host(), seconds=5, output_chars=100)).output == "1\n"


async def test_cancelling_a_cell_that_does_not_listen_kills_it_even_when_cancelled_again(session: ReplSession) -> None:
    host = Host()
    host.gate.clear()
    running = asyncio.ensure_future(
        session.run_cell(
            "llm_query('started')\nprint('computing')\nsum(range(10 ** 13))", host, seconds=60, output_chars=100
        )
    )
    await host.until_in_flight(1)
    host.gate.set()
    while not host.printed:  # from here on it computes in C
        await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    async with asyncio.timeout(60):
        await session.close()
    assert not session.alive


async def test_a_worker_killed_from_outside_is_lost_with_the_reason(workers: Workers) -> None:
    session = await workers.acquire()
    host = Host()
    host.gate.clear()
    running = asyncio.ensure_future(session.run_cell("llm_query('a')", host, seconds=60, output_chars=100))
    await host.until_in_flight(1)
    os.kill(session.pid, signal.SIGKILL)
    with pytest.raises(SessionLost, match="SIGKILL"):
        await running
    assert host.in_flight == 0
    assert (await (await workers.acquire()).run_cell("1", Host(), seconds=5, output_chars=100)).ok


async def test_a_worker_killed_while_idle_is_noticed(session: ReplSession) -> None:
    ended = asyncio.Event()
    session.when_ended(lambda _: ended.set())
    os.kill(session.pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        await ended.wait()
    with pytest.raises(SessionLost):
        await session.value_of("x")


async def test_closing_ends_a_running_cell(session: ReplSession) -> None:
    host = Host()
    host.gate.clear()
    running = asyncio.ensure_future(session.run_cell("llm_query('a')", host, seconds=60, output_chars=100))
    await host.until_in_flight(1)
    await session.close()
    with pytest.raises(SessionLost, match="closed"):
        await running


@pytest.mark.parametrize("plan", CAGES.values(), ids=CAGES)
def test_workers_die_with_the_daemon(plan: CagePlan) -> None:
    """Also when it is killed while a cell computes and looks at nothing."""
    program = (
        "import asyncio\nfrom rlmd.repl import Workers\nfrom rlmd.repl.process import CagePlan\n"
        "from tests.repl import Host\n"
        "async def main():\n"
        f"    s = await Workers(plans=[{plan!r}], spare_workers=0).acquire()\n"
        "    print(s.pid, flush=True)\n"
        "    await s.run_cell('while True: pass', Host(), seconds=60, output_chars=100)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT) as daemon:
        assert daemon.stdout is not None
        worker = os.pidfd_open(int(daemon.stdout.readline()))
        daemon.kill()
        ended, _, _ = select.select([worker], [], [], 20)
        os.close(worker)
        assert ended


def test_everything_works_on_uvloop_too(tmp_path: Path) -> None:
    async def main() -> None:
        workers = Workers(plans=[WITHOUT_BUBBLEWRAP])
        session = await workers.acquire()
        await session.load_contexts([Context(tmp_path, "c", {"d": b"text"})])
        host = Host()
        report = await session.run_cell(
            "print(context, llm_query_batched(['a', 'b']))", host, seconds=10, output_chars=100
        )
        assert report.output == "text ['re:a', 're:b']\n"
        assert (await session.run_cell("while True: pass", host, seconds=0.2, output_chars=100)).interrupted
        with pytest.raises(SessionLost):
            await session.run_cell("import os\nos._exit(1)", host, seconds=10, output_chars=100)
        await workers.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


# --- the supply ------------------------------------------------------------------------------------------------


async def test_the_cap_holds_and_a_closed_session_makes_room(workers: Workers) -> None:
    first, second = await workers.acquire(), await workers.acquire()
    third = asyncio.ensure_future(workers.acquire())
    await asyncio.wait({third}, timeout=0.2)
    assert not third.done()
    await first.close()
    assert (await third).alive
    assert second.alive


async def test_a_spare_is_handed_out_and_replaced() -> None:
    workers = Workers(spare_workers=1)
    await workers.start()
    one = await workers.acquire()
    two = await workers.acquire()
    assert one.pid != two.pid
    await workers.close()
    assert not one.alive
    with pytest.raises(Draining):
        await workers.acquire()


async def test_seeds_give_the_same_order_and_the_same_numbers(workers: Workers) -> None:
    source = "import random\nprint(list({str(n) for n in range(50)}), random.random())"
    outputs = []
    for _ in range(2):
        session = await workers.acquire(hash_seed=7, random_seed=11)
        outputs.append((await session.run_cell(source, Host(), seconds=5, output_chars=5000)).output)
        await session.close()
    other = await workers.acquire()
    assert (other.hash_seed, other.random_seed) != (7, 11)
    assert outputs[0] == outputs[1] != (await other.run_cell(source, Host(), seconds=5, output_chars=5000)).output


async def test_a_worker_gets_the_variables_it_is_given_and_none_of_ours(workers: Workers) -> None:
    session = await workers.acquire(environment={"TZ": "UTC"})
    report = await session.run_cell("import os; sorted(os.environ)", Host(), seconds=5, output_chars=1000)
    assert set(eval(report.output)) <= {"TZ", "LANG", "MALLOC_ARENA_MAX", "PYTHONHASHSEED", "PYTHONUTF8", "PWD"}


async def test_packages_of_an_environment_can_be_imported_and_no_others(workers: Workers) -> None:
    plain = await workers.acquire()
    assert not (await plain.run_cell("import structlog", Host(), seconds=5, output_chars=1000)).ok
    with_packages = Workers(spare_workers=0, packages=Path(sys.prefix))
    session = await with_packages.acquire()
    report = await session.run_cell("import structlog; structlog.__name__", Host(), seconds=20, output_chars=1000)
    assert report.output == "'structlog'\n"
    await with_packages.close()


async def test_the_virtual_environment_that_rlmd_is_installed_in_is_not_shown(workers: Workers) -> None:
    assert sys.prefix != sys.base_prefix
    assert [path for path in readable_paths() if path.startswith(sys.prefix)] == []
    session = await workers.acquire()
    report = await session.run_cell(
        f"import os; os.listdir({sys.prefix!r} + '/lib')", Host(), seconds=5, output_chars=99
    )
    assert not report.ok


async def test_without_bubblewrap_namespaces_of_its_own_take_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    workers = Workers(spare_workers=0)
    session = await workers.acquire()
    assert session.layers == ("landlock", "namespaces", "seccomp", "limits", "watch")
    report = await session.run_cell(
        "import os\nprint(os.uname().nodename, os.path.exists('/etc/passwd'), os.path.exists('/usr/lib'))",
        Host(), seconds=20, output_chars=100,
    )  # fmt: skip
    assert report.output == "repl False True\n"
    await workers.close()


def test_where_no_namespaces_may_be_made_landlock_takes_their_place() -> None:
    """As on machines that forbid ordinary users to make user namespaces: bubblewrap and the worker say so."""
    program = (
        "import asyncio\nfrom rlmd.repl import Workers\n"
        "async def main():\n"
        "    workers = Workers(spare_workers=0)\n"
        "    print((await workers.acquire()).layers)\n"
        "    print(*(proof.message for proof in await workers.prove_layers() if not proof.ok), sep='\\n')\n"
        "    await workers.close()\n"
        "asyncio.run(main())\n"
    )
    # A namespace in which no further ones may be made; it takes root, or the right to make the first.
    forbidding = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", forbidding, "sh", sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    layers, bubblewrap, own = done.stdout.splitlines()
    assert layers == "('landlock', 'seccomp', 'limits', 'watch')"
    assert bubblewrap.startswith("not available: bwrap: ")
    assert own.startswith("not available: no namespaces of its own ([Errno 28] unshare")


async def test_with_too_few_layers_no_cell_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    workers = Workers(plans=[WITH_BUBBLEWRAP, CagePlan(bubblewrap=True, landlock=0)], spare_workers=0)
    with pytest.raises(CageUnavailable, match="bubblewrap is not installed") as refused:
        await workers.acquire()
    assert "bwrap" in refused.value.hint
    assert [proof.ok for proof in await workers.prove_layers()] == [False]
    await workers.close()


async def test_a_worker_is_held_by_the_kernels_limits(session: ReplSession) -> None:
    names = ("AS", "CORE", "FSIZE", "NOFILE", "MEMLOCK")
    source = f"import resource as r\nprint([r.getrlimit(getattr(r, 'RLIMIT_' + name)) for name in {names}])"
    report = await session.run_cell(source, Host(), seconds=30, output_chars=1000)
    limits = dict(zip(names, json.loads(report.output.replace("(", "[").replace(")", "]")), strict=True))
    soft, hard = limits["AS"]
    assert 0 < soft <= hard <= 4 << 30
    assert [limits[name] for name in ("CORE", "FSIZE", "MEMLOCK")] == [[0, 0]] * 3
    assert 0 < limits["NOFILE"][0] <= limits["NOFILE"][1] <= 1024


async def test_layers_that_came_too_late_once_are_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy while it boots must not leave its daemon with fewer layers for good."""
    slow = tmp_path / "bwrap"
    slow.write_text("#!/bin/sh\nexec sleep 100\n")
    slow.chmod(0o755)
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", f"{tmp_path}:{path}")
    workers = Workers(plans=[WITH_BUBBLEWRAP, WITHOUT_BUBBLEWRAP], spare_workers=0)
    patience = process.START_SECONDS
    start = process.start_worker

    async def hurried(plan: CagePlan, **more: Any) -> WorkerProcess:
        monkeypatch.setattr(process, "START_SECONDS", 0.2 if plan.bubblewrap else patience)
        return await start(plan, **more)

    monkeypatch.setattr("rlmd.repl.workers.start_worker", hurried)
    session = await workers.acquire()
    assert "bubblewrap" not in session.layers
    await session.close()
    monkeypatch.setattr("rlmd.repl.workers.start_worker", start)
    monkeypatch.setattr(process, "START_SECONDS", patience)
    monkeypatch.setenv("PATH", path)
    session = await workers.acquire()
    assert "bubblewrap" in session.layers
    await workers.close()


async def test_the_layers_are_proved_from_inside(workers: Workers) -> None:
    """In the cage without bubblewrap the worker's own namespaces are proved in its place, where they are used."""
    session = await workers.acquire()
    own = {"namespaces"} - ({"namespaces"} if "bubblewrap" in session.layers else set())
    proofs = {proof.layer: proof for proof in await workers.prove_layers()}
    off = {proof.layer for proof in proofs.values() if proof.message.startswith("turned off")}
    assert {proof.layer for proof in proofs.values() if not proof.ok} == off, proofs
    assert set(proofs) == {"together", "watch", "seccomp", "landlock", "bubblewrap", "limits"} | own
    assert "refused" in proofs["seccomp"].message


async def test_a_layer_that_holds_nothing_is_found_out() -> None:
    """The same probes in a worker without any layer: each of them gets through, and is named."""
    workers = Workers(plans=[BARE], spare_workers=0)
    together, *_ = await workers.prove_layers()
    assert not together.ok
    assert together.message.removeprefix("open: ").split(", ") == [
        probe for probe in _PROBES if probe != "names of files"
    ]
    await workers.close()
