"""Proves the cage from inside, for ``doctor``: each layer is tried alone, not asked, and all together (parent side).

A worker with one layer runs a probe of ours, which tries what that layer alone must refuse; no cell of a model's ever
runs in such a worker.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import NamedTuple

from rlmd.repl.base import ChildQuery, SearchPassage, SubQuery, SubQueryFailure, SubQueryReply
from rlmd.repl.process import NEWEST, CagePlan, WorkerStartFailed
from rlmd.repl.session import ReplSession

_PROBE = """
import json, mmap, os, socket
def outcome(action):
    try:
        action()
    except Exception as error:
        return type(error).__name__
    return "allowed"
print(json.dumps({name: outcome(lambda: eval(code)) for name, code in PROBES.items()}))
"""
#: Code by name; each works where nothing holds it, and does no harm there.
_PROBES = {
    "network": "socket.socket(socket.AF_INET)",
    "sockets": "socket.socket(socket.AF_UNIX)",
    "processes": "os.waitpid(os.fork() or os._exit(0), 0)",
    "memory without a name": "os.memfd_create('probe')",
    "priority": "os.nice(0)",
    "writing": "os.open('/tmp', os.O_WRONLY | os.O_TMPFILE)",
    "programs": "os.close(os.open('/bin/sh', os.O_RDONLY))",
    "machine's files": "open('/etc/passwd').close()",
    "home": "os.listdir(HOME)",
    "names of files": "os.stat('/etc/passwd')",
    "other processes": "os.kill(PARENT, 0)",
    "memory": "mmap.mmap(-1, MEMORY + (1 << 20))",
    "descriptors": "[os.dup(1) for _ in range(300)]",
}
_ALONE = CagePlan(bubblewrap=False, landlock=0, seccomp=False, limits=False, watch=False)
#: What a root folder of one's own refuses, whoever made it.
_OUTSIDE = ("writing", "programs", "machine's files", "names of files")


class Layer(NamedTuple):
    """A layer: the plan that has it alone, what it must refuse by itself, and what to do where it is missing."""

    name: str
    plan: CagePlan
    refuses: tuple[str, ...]
    hint: str


_BAD = "Do not run cells on this machine; report this with the kernel's version."
LAYERS = (
    Layer(
        "seccomp", replace(_ALONE, seccomp=True),
        ("network", "sockets", "processes", "memory without a name", "priority", "writing", "other processes"), _BAD,
    ),
    Layer(
        "landlock", replace(_ALONE, landlock=NEWEST), ("writing", "programs", "machine's files", "home"),
        "A kernel with Landlock (5.13 or later) would add a layer.",
    ),
    Layer(
        "bubblewrap", replace(_ALONE, bubblewrap=True),
        (*_OUTSIDE, "other processes"),
        "Installing bubblewrap (bwrap), with user namespaces allowed, would add a layer.",
    ),
    Layer(
        "namespaces", replace(_ALONE, namespaces=True), _OUTSIDE,
        "Cells can ask for names and sizes of files. Install bubblewrap, or let ordinary users make user namespaces.",
    ),
    Layer("limits", replace(_ALONE, limits=True), ("memory", "descriptors"), _BAD),
)  # fmt: skip


class Proof(NamedTuple):
    layer: str
    ok: bool
    message: str
    hint: str


class _NoHost:
    """A cell that asks nothing."""

    def batch_started(self, batch: int, total: int) -> None:
        """Nothing is asked."""

    async def answer(self, query: SubQuery | ChildQuery, *, batch: int, slot: int) -> SubQueryReply | SubQueryFailure:
        return SubQueryFailure("no_host", "no sub-queries while the cage is proved")

    async def search(self, query: str, k: int) -> list[SearchPassage]:
        return []

    def output(self, text: str) -> None:
        """The report has it."""


async def prove_alone(
    start: Callable[[CagePlan], Awaitable[ReplSession]], memory_bytes: int, *, bubblewrap: bool, namespaces: bool
) -> list[Proof]:
    """Tries each layer by itself.

    Args:
        start: Starts a session in a worker with exactly the plan's layers; raises ``WorkerStartFailed``.
        memory_bytes: What a worker may take at most.
        bubblewrap: Whether the configuration wants it.
        namespaces: Whether a worker of this machine makes its own, for want of bubblewrap.
    """
    left_out = {name for name, wanted in (("bubblewrap", bubblewrap), ("namespaces", namespaces)) if not wanted}
    proofs = [await _prove_layer(layer, start, memory_bytes) for layer in LAYERS if layer.name not in left_out]
    if not bubblewrap:
        proofs.append(Proof("bubblewrap", False, "turned off by repl.bubblewrap", "Turning it on would add a layer."))
    return proofs


async def _prove_layer(layer: Layer, start: Callable[[CagePlan], Awaitable[ReplSession]], memory_bytes: int) -> Proof:
    try:
        session = await start(layer.plan)
    except WorkerStartFailed as failure:
        return Proof(layer.name, False, f"not available: {failure}", layer.hint)
    try:
        return await _probe(session, layer.name, layer.refuses, memory_bytes)
    finally:
        await session.close()


async def prove_together(session: ReplSession, memory_bytes: int) -> list[Proof]:
    """Tries everything in the cage that cells really get, and whether what its processes take can be told."""
    namespaced = {"bubblewrap", "namespaces"} & set(session.layers)
    wanted = tuple(name for name in _PROBES if namespaced or name != "names of files")
    cage = await _probe(session, "together", wanted, memory_bytes)
    taken = session.taken()
    if taken is None:
        hint = "Give the daemon a control group (Delegate=yes in its unit), or mount /proc without hidepid."
        return [cage, Proof("watch", False, "what a worker's processes take cannot be seen", hint)]
    by = "its control group" if session.grouped else "/proc"
    return [cage, Proof("watch", True, f"a worker takes {taken.memory_bytes >> 20} MiB, by {by}", "")]


async def _probe(session: ReplSession, name: str, refuses: tuple[str, ...], memory_bytes: int) -> Proof:
    values = {
        "HOME": os.environ.get("HOME", "/root"), "PARENT": os.getpid(), "MEMORY": memory_bytes,
        "PROBES": {probe: _PROBES[probe] for probe in refuses},
    }  # fmt: skip
    source = "".join(f"{key} = {value!r}\n" for key, value in values.items()) + _PROBE
    report = await session.run_cell(source, _NoHost(), seconds=10, cpu_seconds=5, output_chars=4000)
    try:
        found: dict[str, str] = json.loads(report.output)
    except ValueError:
        return Proof(name, False, f"the probe did not report ({report.error})", _BAD)
    allowed = [probe for probe in refuses if found.get(probe) == "allowed"]
    if allowed:
        return Proof(name, False, f"open: {', '.join(allowed)}", _BAD)
    return Proof(name, True, f"{', '.join(refuses)}: refused", "")
