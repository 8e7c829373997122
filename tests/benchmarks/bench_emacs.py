"""``python -m tests.benchmarks.bench_emacs``: rlm.el in a terminal, beside a floor and beside gptel on the same model.

    python -m tests.benchmarks.bench_emacs [--json FILE] [--inside]

rlm.el is compiled first, as an installed package is. gptel is Debian's elpa-gptel, unpacked into the cache folder with
the two packages that it needs; where they cannot be had its columns stay empty. ``--inside`` measures in Emacs 30.1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import lzma
import os
import pty
import re
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests import trixie
from tests.benchmarks.suite import machine
from tests.harness import ROOT, Folders, Host, config_of

#: Package and the release it is taken from: gptel came after Debian 13, its needs are in it.
GPTEL = (("elpa-gptel", "sid"), ("elpa-transient", "trixie"), ("elpa-compat", "trixie"))
#: One reply of 1 MB in 20,000 pieces, and one that a slow model tells.
PARAGRAPH = "A line of **prose** with `code` in it, some żółw, and what else a model says.\n"
LARGE = {"text": (PARAGRAPH * 13_000)[:1_000_000], "chunk": 50}
SLOW = {"text": PARAGRAPH * 40, "chunk": 12, "pause": 0.01}
PATIENCE = 300

Figures = dict[str, float]


@dataclass
class Measured:
    """What rlm.el took for ``what``, and what the others took; in the units of emacs.el."""

    what: str
    ours: Figures
    floor: Figures = field(default_factory=dict)
    gptel: Figures = field(default_factory=dict)


# ── parts ───────────────────────────────────────────────────────────────────────────────────────────────────────


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rlmd-benchmarks"


def gptel_folders() -> list[Path]:
    """The load path of gptel, fetched once; empty where it cannot be had."""
    target = cache() / "gptel"
    if not (target / "ready").exists():
        try:
            for package, release in GPTEL:
                unpack(package, release, target)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"gptel cannot be had: {error}", file=sys.stderr)
            return []
        (target / "ready").touch()
    return sorted((target / "usr/share/emacs/site-lisp/elpa-src").iterdir())


def debian() -> str:
    """The archive that this machine's apt takes packages from."""
    asked = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
    found = next((uri for uri in told if uri.rstrip("/").endswith("/debian")), None)
    if found is None:
        raise FileNotFoundError("apt knows no archive of Debian")
    return found.rstrip("/")


def unpack(package: str, release: str, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    mirror = debian()
    with urllib.request.urlopen(f"{mirror}/dists/{release}/main/binary-all/Packages.xz") as answer:
        index = lzma.decompress(answer.read()).decode()
    found = re.search(rf"^Package: {package}\n(?:.+\n)*?Filename: (\S+)", index, re.MULTILINE)
    if not found:
        raise FileNotFoundError(f"{package} is not in {release}")
    archive = target / f"{package}.deb"
    urllib.request.urlretrieve(f"{mirror}/{found[1]}", archive)
    subprocess.run(["dpkg", "-x", archive, target], check=True)


@contextlib.contextmanager
def spawned(*command: str, told: str = "") -> Iterator[str]:
    """A process of ours; yields its first line where it tells something."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE if told else subprocess.DEVNULL, text=True)
    try:
        yield process.stdout.readline().split()[-1] if process.stdout else ""
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


class Desk:
    """An Emacs to be measured: folders, compiled sources, and the environment of both."""

    def __init__(self, inside: bool) -> None:
        self.inside = inside
        self.folders = Folders()
        self.home = self.folders.home
        self.elisp = self.home / "elisp"
        self.elisp.mkdir()
        for source in (ROOT / "elisp").glob("*.el"):
            shutil.copy(source, self.elisp)
        self.gptel = self.home / "gptel"
        self.gptel.mkdir()
        for folder in gptel_folders():
            shutil.copytree(folder, self.gptel / folder.name)
        self.emacs("--batch", "-L", ".", "-f", "batch-byte-compile", *(path.name for path in self.elisp.glob("*.el")))
        if self.has_gptel:
            compiled = "(byte-recompile-directory default-directory 0)"
            self.emacs("--batch", *self.load_path(self.gptel), "--eval", compiled, folder=self.gptel)

    @property
    def has_gptel(self) -> bool:
        return any(self.gptel.iterdir())

    def load_path(self, *parents: Path) -> list[str]:
        found = [folder for parent in parents for folder in sorted(parent.iterdir()) if folder.is_dir()]
        return [word for folder in found for word in ("-L", str(folder))]

    def emacs(self, *arguments: str, folder: Path | None = None, **more: str) -> None:
        """Runs Emacs in a terminal of its own until it ends."""
        command = ["emacs", "-Q", *arguments]
        folders = self.folders.environment()
        environment = {**folders, "PATH": folders["PATH"] + ":/usr/sbin:/sbin", "TERM": "xterm-256color", **more}
        there = str(folder or self.elisp)
        if self.inside:
            command = ["sh", "-c", 'cd "$0" && exec "$@"', there, *command]
            command = trixie.entering(trixie.folder(), *command, shared=self.folders.root)
        parent, child = pty.openpty()
        command = ["setsid", "--ctty", "--wait", *command]
        process = subprocess.Popen(command, cwd=there, env=environment, stdin=child, stdout=child, stderr=child)
        os.close(child)
        said: list[bytes] = []
        reader = threading.Thread(target=drain, args=(parent, said))
        reader.start()
        try:
            status = process.wait(timeout=PATIENCE)
        finally:
            process.kill()
            process.wait()
            reader.join()
            os.close(parent)
        if status:
            raise RuntimeError(b"".join(said)[-3000:].decode(errors="replace"))

    def measure(self, name: str, **more: str) -> Figures:
        """Calls bench-NAME of emacs.el in a fresh Emacs."""
        told = self.home / f"{name}.json"
        repository = trixie.INSIDE if self.inside else ROOT
        load = [*self.load_path(self.gptel), "-L", str(self.elisp), "-l", str(repository / "tests/benchmarks/emacs.el")]
        self.emacs("-nw", *load, "--eval", f'(bench-write "{told}" #\'bench-{name})', **more)
        figures: Figures = json.loads(told.read_text(encoding="utf-8"))
        if "error" in figures:
            raise RuntimeError(f"{name}: {figures['error']}")
        return figures

    def close(self) -> None:
        self.folders.remove()


def drain(terminal: int, said: list[bytes]) -> None:
    """Reads what Emacs paints; one that nobody read from would wait."""
    with contextlib.suppress(OSError):
        while painted := os.read(terminal, 65536):
            said[:] = [*said[-20:], painted]


# ── what is measured ────────────────────────────────────────────────────────────────────────────────────────────


def deltas(desk: Desk) -> Measured:
    """20,000 deltas of 50 characters from a server that sends as fast as it can."""

    def once(name: str) -> Figures:
        socket = desk.folders.socket
        socket.parent.mkdir(parents=True, exist_ok=True)
        socket.unlink(missing_ok=True)
        server = str(ROOT / "elisp/test/rlm-test-server.py")
        with spawned(sys.executable, server, str(socket)):
            while not socket.exists():
                threading.Event().wait(0.02)
            return desk.measure(name)

    return Measured("20,000 deltas at full speed", once("deltas"), floor=once("deltas-floor"))


@contextlib.contextmanager
def models(desk: Desk, reply: object, times: int = 1) -> Iterator[str]:
    """A model server with that reply, and a daemon that uses it; yields the server's address."""
    script = desk.home / "script.json"
    names = [{"name": name, "window": 131_072} for name in ("root", "sub")]
    script.write_text(json.dumps({"models": names, "scripts": {"root": [reply] * times}}), encoding="utf-8")
    fake = (sys.executable, "-m", "tests.fakes.ollama", "--port", "0", "--slots", "2", "--script", str(script))
    with spawned(*fake, told="listening") as url:
        host = Host("box", url, 2, {"root": 32_768, "sub": 32_768})
        desk.folders.write_config(config_of([host], root=("box/root",), sub=("box/sub",)))
        daemon = subprocess.Popen(
            [sys.executable, "-m", "rlmd"], cwd=ROOT, env=desk.folders.environment(), stderr=subprocess.DEVNULL
        )
        try:
            while not desk.folders.socket.exists():
                threading.Event().wait(0.05)
            yield url
        finally:
            daemon.terminate()
            daemon.wait()


def beside_gptel(desk: Desk, what: str, reply: object, case: str) -> Measured:
    with models(desk, reply) as url:
        ours = desk.measure(f"rlm-{case}")
    if not desk.has_gptel:
        return Measured(what, ours)
    with models(desk, reply) as url:
        theirs = desk.measure(f"gptel-{case}", BENCH_MODEL=url.removeprefix("http://"))
    return Measured(what, ours, gptel=theirs)


def memory(desk: Desk) -> Measured:
    with models(desk, "```repl\nsize = str(len(context))\n```\nFINAL_VAR(size)"):
        return Measured("a question of a buffer of 40 MB", desk.measure("memory"))


def every(inside: bool) -> Iterator[Measured]:
    desk = Desk(inside)
    try:
        yield deltas(desk)
        yield beside_gptel(desk, "an answer of 1 MB, at full speed", LARGE, "answer")
        yield beside_gptel(desk, "a short answer, 3 s", SLOW, "answer")
        yield beside_gptel(desk, "a short answer, undone", SLOW, "undo")
        yield beside_gptel(desk, "ten words typed above it meanwhile", SLOW, "typing")
        yield memory(desk)
    finally:
        desk.close()


def line_of(row: Measured) -> str:
    columns = [("rlm.el", row.ours), ("floor", row.floor), ("gptel", row.gptel)]
    told = [
        f"  {name:<8}" + "  ".join(f"{key} {value:,.1f}" for key, value in figures.items() if key != "emacs")
        for name, figures in columns
        if figures
    ]
    return "\n".join([row.what, *told])


def measure(inside: bool, file: Path | None = None) -> list[Measured]:
    print(machine())
    rows = []
    for row in every(inside):
        rows.append(row)
        print(line_of(row), flush=True)
    if file:
        told = {"machine": machine(), "rows": [asdict(row) for row in rows]}
        file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--inside", action="store_true", help="in the Emacs 30.1 of Debian 13")
    given = parser.parse_args()
    measure(given.inside, given.json)
