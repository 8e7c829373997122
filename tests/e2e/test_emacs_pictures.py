"""The pictures in docs/, taken of a graphical Emacs that works with a real daemon and scripted models.

A scene is a function of pictures.el; when what it shows is complete it says so, and the picture is taken. With
RLM_PICTURES=1 they replace those in docs/; else each is only held to show something of the right size.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import pytest

from tests.harness import ROOT, Daemon, Folders, Host, config_of

pytestmark = [pytest.mark.full, pytest.mark.timeout(300)]

SIZE = (1100, 700)
PATIENCE = 90
PICTURES = ROOT / "docs" / "pictures"
PAPER = Path(__file__).parent / "pictures_paper.txt"

CITED = """The cooling loop was changed **twice**, and only the second change held.

In March the pump was exchanged, which lowered the noise but not the temperature:

> the new pump ran quietly, yet the outlet stayed at 71 degrees

What helped was the valve that Amara found stuck half open in June:

> once the valve was freed the outlet fell to 48 degrees within the hour
"""
WORK = (
    (
        "I look for the places that speak of the outlet.\n```repl\nfound = search('outlet temperature degrees', 4)\n"
        "replies = llm_query_batched(['What does this say of the outlet?\\n' + str(hit) for hit in found])\n"
        "print(len(found), 'found')\nfor reply in ok(replies):\n    print('-', reply[:60])\n```"
    ),
    (
        "Both dates are there; I quote them.\n```repl\nanswer['content'] = 'The outlet fell in June.\\n\\n> once the "
        "valve was freed the outlet fell to 48 degrees within the hour'\nanswer['ready'] = True\n```"
    ),
)
LATE = {"text": "late", "latency": 60}
SCENES: dict[str, list[object]] = {
    "answer": [CITED],
    "trace": list(WORK),
    "hosts": [LATE],
    "menu": [],
    "babel": [CITED],
}
HOSTS = {"m40": ("qwen2.5-coder:32b", 1), "rtx": ("llama3.3:70b", 2), "p100": ("deepseek-coder:33b", 1)}


@pytest.fixture(scope="module")
def emacs() -> Path:
    """A graphical Emacs: Debian's, unpacked beside the one in the terminal, which it would replace."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rlmd-tests" / "emacs-gtk"
    program = cache / "usr/bin/emacs-gtk"
    if not (cache / "ready").exists():
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "-qq", "emacs-gtk"], cwd=cache, check=True)
        subprocess.run(["dpkg", "-x", next(cache.glob("*.deb")), cache], check=True)
        shutil.copy(next(cache.glob("usr/**/*.pdmp")), program.with_suffix(".pdmp"))
        (cache / "ready").touch()
    return program


@contextmanager
def display() -> Iterator[str]:
    """A screen of its own; yields its name."""
    reading, writing = os.pipe()
    geometry = f"{SIZE[0]}x{SIZE[1]}x24"
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", geometry, "-nolisten", "tcp", "-noreset", "-ac"],
        pass_fds=[writing],
    )
    os.close(writing)
    try:
        with os.fdopen(reading) as told:
            yield f":{told.readline().strip()}"
    finally:
        server.terminate()
        server.wait()


@contextmanager
def model_server(folder: Path, name: str, model: str, slots: int, replies: list[object]) -> Iterator[str]:
    script = folder / f"{name}.json"
    rule = {"match": "What does this say", "reply": "It tells how warm the outlet was, and when it changed."}
    told = {"models": [{"name": model}], "scripts": {model: replies} if replies else {}, "rules": [rule]}
    script.write_text(json.dumps(told), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "tests.fakes.ollama",
        "--port",
        "0",
        "--slots",
        str(slots),
        "--script",
        str(script),
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def configuration(urls: dict[str, str]) -> str:
    hosts = [Host(name, urls[name], slots, {model: 32_768}) for name, (model, slots) in HOSTS.items()]
    root = tuple(f"{name}/{model}" for name, (model, _) in HOSTS.items() if name == "rtx")
    return config_of(
        hosts, root=root, sub=tuple(f"{name}/{model}" for name, (model, _) in HOSTS.items() if name != "rtx")
    )


@pytest.mark.parametrize("scene", SCENES)
async def test_picture(scene: str, emacs: Path, tmp_path: Path) -> None:
    folders = Folders()
    picture = tmp_path / f"{scene}.png"
    try:
        async with AsyncExitStack() as stack:
            replies = {name: SCENES[scene] if name == "rtx" else [] for name in HOSTS}
            urls = {
                name: stack.enter_context(model_server(folders.home, name, model, slots, replies[name]))
                for name, (model, slots) in HOSTS.items()
            }
            folders.write_config(configuration(urls))
            daemon = Daemon(folders)
            stack.push_async_callback(daemon.stop)
            await daemon.ready()
            shutil.copy(PAPER, folders.home / "cooling.txt")
            take(scene, emacs, stack.enter_context(display()), folders, picture)
    finally:
        folders.remove()
    told = subprocess.run(["identify", "-format", "%w %h %k", picture], capture_output=True, text=True, check=True)
    width, height, colours = map(int, told.stdout.split())
    assert (width, height) == SIZE
    assert colours > 30, "the screen is empty"
    if os.environ.get("RLM_PICTURES"):
        PICTURES.mkdir(exist_ok=True)
        subprocess.run(["convert", picture, "-colors", "64", PICTURES / f"emacs-{scene}.png"], check=True)


def take(scene: str, emacs: Path, screen: str, folders: Folders, picture: Path) -> None:
    ready = folders.home / "ready"
    environment = folders.environment(DISPLAY=screen, RLM_READY=str(ready))
    load = ["-L", str(ROOT / "elisp"), "-l", str(Path(__file__).parent / "pictures.el")]
    command = [str(emacs), "-Q", *load, "-f", f"picture-{scene}"]
    process = subprocess.Popen(command, cwd=folders.home, env=environment)
    try:
        deadline = time.monotonic() + PATIENCE
        while not ready.exists():
            assert process.poll() is None, "Emacs has ended"
            assert time.monotonic() < deadline, "what the scene shows never came"
            time.sleep(0.05)
        subprocess.run(["import", "-display", screen, "-window", "root", picture], check=True)
        assert ready.read_text(encoding="utf-8") == "", ready.read_text(encoding="utf-8")
    finally:
        process.kill()
        process.wait()
