"""Proves a session's cage from inside, for ``doctor``: each layer is tried, not asked (parent side)."""

from __future__ import annotations

import json
import os
from typing import NamedTuple

from rlmd.repl.base import SearchPassage, SubQuery, SubQueryFailure, SubQueryReply
from rlmd.repl.session import ReplSession

_PROBE = """
import json, os, socket
def outcome(action):
    try:
        action()
    except Exception as error:
        return type(error).__name__
    return "allowed"
print(json.dumps({
    "network": outcome(lambda: socket.socket(socket.AF_INET)),
    "sockets": outcome(lambda: socket.socket(socket.AF_UNIX)),
    "processes": outcome(os.fork),
    "programs": outcome(lambda: os.execv("/bin/true", ["true"])),
    "writing": outcome(lambda: os.open("/tmp", os.O_WRONLY | os.O_TMPFILE)),
    "folders": outcome(lambda: os.mkdir("/tmp/rlmd-probe")),
    "root": outcome(lambda: os.listdir("/etc")),
    "home": outcome(lambda: os.listdir(HOME)),
}))
"""
_BY_LAYER = {
    "seccomp": ("network", "sockets", "processes", "programs", "writing", "folders"),
    "files": ("root", "home"),
}


class Proof(NamedTuple):
    layer: str
    ok: bool
    message: str
    hint: str


class _NoHost:
    """A cell that asks nothing."""

    def batch_started(self, batch: int, total: int) -> None:
        """Nothing is asked."""

    async def answer(self, query: SubQuery, *, batch: int, slot: int) -> SubQueryReply | SubQueryFailure:
        return SubQueryFailure("no_host", "no sub-queries while the cage is proved")

    async def search(self, query: str, k: int) -> list[SearchPassage]:
        return []

    def output(self, text: str) -> None:
        """The report has it."""


async def prove(session: ReplSession) -> list[Proof]:
    """Runs the probe and judges its findings."""
    home = os.environ.get("HOME", "/root")
    report = await session.run_cell(
        f"HOME = {home!r}\n{_PROBE}", _NoHost(), seconds=10, cpu_seconds=5, output_chars=4000
    )
    try:
        found: dict[str, str] = json.loads(report.output)
    except ValueError:
        return [Proof("cage", False, "The probe did not report", "See the log; report this.")]
    proofs = []
    for layer, probes in _BY_LAYER.items():
        open_ones = [probe for probe in probes if found.get(probe) == "allowed"]
        message = f"open: {', '.join(open_ones)}" if open_ones else f"{', '.join(probes)}: refused"
        proofs.append(Proof(layer, not open_ones, message, "Do not run cells on this machine." if open_ones else ""))
    proofs += [
        Proof(name, name in session.layers, "on" if name in session.layers else "not available", hint)
        for name, hint in (
            ("landlock", "A kernel with Landlock (5.13 or later) would add a layer."),
            ("bubblewrap", "Installing bubblewrap would add a layer."),
        )
    ]
    return [p._replace(hint="") if p.ok else p for p in proofs]
